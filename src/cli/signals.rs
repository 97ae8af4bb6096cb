//! What signals ask of a training run.
//!
//! | signal | asks |
//! |---|---|
//! | SIGINT (Ctrl-C), SIGTERM | save and end; a Ctrl-C after that ends at once |
//! | SIGHUP | the same, unless it is ignored, as under `nohup` |
//! | SIGUSR1, SIGUSR2 | save and go on |

use super::note;
use crate::error::INTERRUPTED;
use crate::train::Requests;

/// What is asked of the run of this process.
static REQUESTS: Requests = Requests::new();

/// From here on signals are requests.
pub fn requests() -> &'static Requests {
    listen();
    &REQUESTS
}

/// Asks for the end. Who presses Ctrl-C again wants it at once; schedulers, terminals and `timeout` may send their signals
/// twice and mean once.
fn stop(pressed: bool) {
    let again = REQUESTS.is_stopped();
    if again && pressed {
        std::process::exit(INTERRUPTED.into());
    }
    if !again {
        REQUESTS.stop();
        note("\nfinishing this update, then saving … (press again to end at once, without saving)");
    }
}

#[cfg(unix)]
fn listen() {
    use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
    let mut asked = vec![SIGINT, SIGTERM, SIGUSR1, SIGUSR2];
    if !is_ignored(SIGHUP) {
        asked.push(SIGHUP);
    }
    let Ok(mut signals) = signal_hook::iterator::Signals::new(asked) else { return };
    std::thread::spawn(move || {
        for signal in signals.forever() {
            match signal {
                SIGUSR1 | SIGUSR2 => {
                    note("\nfinishing this update, then saving and going on …");
                    REQUESTS.save();
                }
                signal => stop(signal == SIGINT),
            }
        }
    });
}

#[cfg(not(unix))]
fn listen() {
    let _ = ctrlc::set_handler(|| stop(true));
}

/// Whether this process was started with the signal ignored, as far as the system tells.
#[cfg(unix)]
fn is_ignored(signal: i32) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = status.lines().find_map(|line| u64::from_str_radix(line.strip_prefix("SigIgn:")?.trim(), 16).ok());
    mask.is_some_and(|mask| mask >> (signal - 1) & 1 == 1)
}
