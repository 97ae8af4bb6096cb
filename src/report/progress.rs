//! Training progress: a bar with one line of figures on a terminal, plain lines at intervals anywhere else.

use std::io::{IsTerminal as _, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Figures of the updates since the last sample. What is not known yet is `None` and is left out.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProgressSample {
    /// Updates done so far.
    pub step: u64,
    /// Training loss per sequence.
    pub loss: f64,
    /// Sequences per second and supervision step.
    pub puzzles_per_second: f64,
    /// Model GFLOP/s.
    pub gflops: f64,
    /// Share of the FMA limit.
    pub mfu: Option<f64>,
    /// Exactly right among the slots that halted.
    pub exact_accuracy: Option<f64>,
    /// Mean supervision steps of the slots that halted.
    pub mean_steps: Option<f64>,
}

/// Where samples go.
pub struct Progress {
    total: u64,
    first: u64,
    /// When the first sample came: what an update takes is measured from there, without the warm-up.
    started: Option<Instant>,
    out: Out,
}

enum Out {
    Bar(ProgressBar),
    Lines { writer: Box<dyn Write + Send>, every: Duration, last: Option<Instant> },
    Nothing,
}

impl Progress {
    /// Progress on standard error of a run of `total` updates that starts (or resumes) at `first`.
    pub fn new(total: u64, first: u64) -> Self {
        if std::io::stderr().is_terminal() {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
            let style = ProgressStyle::with_template("{bar:20} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("━╸ "));
            bar.set_position(first);
            return Self::with(total, first, Out::Bar(bar));
        }
        Self::plain(total, first, Box::new(std::io::stderr()), Duration::from_secs(5))
    }

    /// Plain lines to `writer`, at most one in `every` (the first and the last sample always).
    pub fn plain(total: u64, first: u64, writer: Box<dyn Write + Send>, every: Duration) -> Self {
        Self::with(total, first, Out::Lines { writer, every, last: None })
    }

    /// No output.
    pub fn hidden(total: u64) -> Self {
        Self::with(total, 0, Out::Nothing)
    }

    fn with(total: u64, first: u64, out: Out) -> Self {
        Self { total, first, started: None, out }
    }

    /// Shows a sample.
    pub fn update(&mut self, sample: &ProgressSample) {
        if self.started.is_none() {
            (self.first, self.started) = (sample.step, Some(Instant::now()));
        }
        let eta = self.eta(sample.step);
        match &mut self.out {
            Out::Bar(bar) => {
                bar.set_position(sample.step);
                bar.set_message(line(sample, self.total, eta));
            }
            Out::Lines { writer, every, last } => {
                if last.is_none_or(|at| at.elapsed() >= *every) || sample.step >= self.total {
                    *last = Some(Instant::now());
                    // A reader that has gone is no reason to stop training.
                    let _ = writeln!(writer, "{}", line(sample, self.total, eta));
                }
            }
            Out::Nothing => {}
        }
    }

    /// Prints a line that stays (an evaluation, a saved checkpoint), above the bar where there is one.
    pub fn note(&mut self, text: &str) {
        match &mut self.out {
            Out::Bar(bar) => bar.suspend(|| {
                let _ = writeln!(std::io::stderr(), "{text}");
            }),
            Out::Lines { writer, .. } => {
                let _ = writeln!(writer, "{text}");
            }
            Out::Nothing => {}
        }
    }

    /// Ends the display; the last line of figures stays.
    pub fn finish(self) {
        if let Out::Bar(bar) = &self.out {
            bar.abandon();
        }
    }

    fn eta(&self, step: u64) -> Option<Duration> {
        let done = step.checked_sub(self.first).filter(|&d| d > 0)?;
        let left = self.total.saturating_sub(step);
        Duration::try_from_secs_f64(self.started?.elapsed().as_secs_f64() / done as f64 * left as f64).ok()
    }
}

/// The figures as one line.
fn line(s: &ProgressSample, total: u64, eta: Option<Duration>) -> String {
    let mut parts = vec![format!("step {}/{total}", s.step)];
    parts.extend(eta.map(|eta| format!("ETA {}", clock(eta))));
    parts.push(format!("loss {:.4}", s.loss));
    parts.extend(s.exact_accuracy.map(|a| format!("exact {:.1} %", 100.0 * a)));
    parts.extend(s.mean_steps.map(|m| format!("steps {m:.1}")));
    parts.push(format!("{} puzzles/s", short(s.puzzles_per_second)));
    parts.push(format!("{} GFLOP/s", short(s.gflops)));
    parts.extend(s.mfu.map(|m| format!("MFU {:.0} %", 100.0 * m)));
    parts.join(" · ")
}

fn short(x: f64) -> String {
    if x.abs() < 10.0 { format!("{x:.1}") } else { format!("{x:.0}") }
}

/// A duration as `m:ss`, `h:mm:ss` or `d days h:mm:ss`.
fn clock(d: Duration) -> String {
    let s = d.as_secs();
    let (days, hours, minutes, seconds) = (s / 86_400, s / 3600 % 24, s / 60 % 60, s % 60);
    match (days, hours) {
        (0, 0) => format!("{minutes}:{seconds:02}"),
        (0, _) => format!("{hours}:{minutes:02}:{seconds:02}"),
        (1, _) => format!("1 day {hours}:{minutes:02}:{seconds:02}"),
        _ => format!("{days} days {hours}:{minutes:02}:{seconds:02}"),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Shared(Arc<Mutex<Vec<u8>>>);

    impl Write for Shared {
        fn write(&mut self, buf: &[u8]) -> std::io::Result<usize> {
            self.0.lock().expect("lock").write(buf)
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn one_line_says_everything_that_is_known() {
        let mut s =
            ProgressSample { step: 40, loss: 1.25, puzzles_per_second: 812.4, gflops: 140.0, ..Default::default() };
        assert_eq!(line(&s, 1100, None), "step 40/1100 · loss 1.2500 · 812 puzzles/s · 140 GFLOP/s");
        (s.exact_accuracy, s.mean_steps, s.mfu) = (Some(0.625), Some(4.25), Some(0.71));
        let text = line(&s, 1100, Some(Duration::from_secs(3700)));
        let expected = "step 40/1100 · ETA 1:01:40 · loss 1.2500 · exact 62.5 % · steps 4.2 · 812 puzzles/s · 140 GFLOP/s \
                        · MFU 71 %";
        assert_eq!(text, expected);
    }

    #[test]
    fn plain_lines_come_at_intervals_and_at_the_end() {
        let out = Shared::default();
        let mut progress = Progress::plain(100, 0, Box::new(out.clone()), Duration::from_secs(3600));
        for step in 1..=100 {
            progress.update(&ProgressSample { step, ..Default::default() });
        }
        progress.note("evaluation: 96 %");
        progress.finish();
        let text = String::from_utf8(out.0.lock().expect("lock").clone()).expect("text");
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 3, "{text}");
        assert!(lines[0].starts_with("step 1/100") && lines[1].starts_with("step 100/100 · ETA 0:00"), "{text}");
    }

    #[test]
    fn clocks_read_well() {
        for (seconds, text) in
            [(5, "0:05"), (65, "1:05"), (3600, "1:00:00"), (90_061, "1 day 1:01:01"), (200_000, "2 days 7:33:20")]
        {
            assert_eq!(clock(Duration::from_secs(seconds)), text);
        }
    }
}
