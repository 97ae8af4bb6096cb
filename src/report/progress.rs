//! Training progress: a bar with one line of figures on a terminal, plain lines at intervals anywhere else.

use std::io::Write;
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{EvaluationRecord, Sink, Terminal, UpdateRecord};
use crate::error::Result;

/// Seconds of training that one line of figures is a mean over.
const WINDOW_SECONDS: f64 = 0.25;

/// Shows a run while it goes on: updates as figures, evaluations and notes as lines that stay.
pub struct Progress {
    total: u64,
    first: u64,
    limit_gflops: Option<f64>,
    /// The updates since the last figures.
    window: Window,
    /// When the first figures came: what an update takes is measured from there, without the warm-up.
    started: Option<Instant>,
    out: Out,
}

enum Out {
    Bar(ProgressBar),
    Lines { writer: Box<dyn Write + Send>, every: Duration, last: Option<Instant> },
}

impl Progress {
    /// Progress on standard error of a run of `total` updates that starts (or resumes) at `first`.
    pub fn new(total: u64, first: u64) -> Self {
        if Terminal::stderr().cursor {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
            let style = ProgressStyle::with_template("{bar:20} {msg}").unwrap_or_else(|_| ProgressStyle::default_bar());
            bar.set_style(style.progress_chars("━╸ "));
            bar.set_position(first);
            return Self::with(total, first, Out::Bar(bar));
        }
        Self::plain(total, first, Box::new(std::io::stderr()), Duration::from_secs(5))
    }

    /// Plain lines to `writer`, figures at most once in `every` (the first and the last always).
    pub fn plain(total: u64, first: u64, writer: Box<dyn Write + Send>, every: Duration) -> Self {
        Self::with(total, first, Out::Lines { writer, every, last: None })
    }

    fn with(total: u64, first: u64, out: Out) -> Self {
        Self { total, first, limit_gflops: None, window: Window::default(), started: None, out }
    }

    /// Shows MFU too, against this FMA limit of all lanes in GFLOP/s.
    pub fn with_limit(mut self, gflops: f64) -> Self {
        self.limit_gflops = Some(gflops);
        self
    }

    fn show(&mut self, figures: &Figures) {
        if self.started.is_none() {
            (self.first, self.started) = (figures.step, Some(Instant::now()));
        }
        let line = figures.line(self.total, self.eta(figures.step));
        match &mut self.out {
            Out::Bar(bar) => {
                bar.set_position(figures.step);
                bar.set_message(line);
            }
            Out::Lines { writer, every, last } => {
                if last.is_none_or(|at| at.elapsed() >= *every) || figures.step >= self.total {
                    *last = Some(Instant::now());
                    // A reader that has gone is no reason to stop training.
                    let _ = writeln!(writer, "{line}");
                }
            }
        }
    }

    fn eta(&self, step: u64) -> Option<Duration> {
        let done = step.checked_sub(self.first).filter(|&d| d > 0)?;
        let left = self.total.saturating_sub(step);
        Duration::try_from_secs_f64(self.started?.elapsed().as_secs_f64() / done as f64 * left as f64).ok()
    }
}

impl Sink for Progress {
    fn update(&mut self, record: &UpdateRecord) -> Result<()> {
        self.window.add(record);
        if self.window.seconds > WINDOW_SECONDS || record.step >= self.total {
            let figures = std::mem::take(&mut self.window).figures(self.limit_gflops);
            self.show(&figures);
        }
        Ok(())
    }

    fn evaluation(&mut self, record: &EvaluationRecord) -> Result<()> {
        let EvaluationRecord { step, seconds, split, eval, .. } = record;
        let (low, high) = eval.interval_95(eval.exact_accuracy);
        self.note(&format!(
            "step {step:>6}  {seconds:6.1} s  {split}: exact {:5.1} %  tokens {:5.1} %  halting {:5.1} %{}  \
             ({} puzzles, {:.1} to {:.1} %)",
            100.0 * eval.exact_accuracy,
            100.0 * eval.token_accuracy,
            100.0 * eval.halt_accuracy,
            eval.valid.map_or_else(String::new, |share| format!("  valid {:5.1} %", 100.0 * share)),
            eval.puzzles,
            100.0 * low,
            100.0 * high,
        ));
        Ok(())
    }

    fn note(&mut self, text: &str) {
        match &mut self.out {
            Out::Bar(bar) => bar.suspend(|| {
                let _ = writeln!(std::io::stderr(), "{text}");
            }),
            Out::Lines { writer, .. } => {
                let _ = writeln!(writer, "{text}");
            }
        }
    }

    /// The last figures stay.
    fn finish(&mut self) {
        if let Out::Bar(bar) = &self.out {
            bar.abandon();
        }
    }
}

/// Sums over some updates in a row.
#[derive(Default)]
struct Window {
    seconds: f64,
    updates: u64,
    last_step: u64,
    sequences: u64,
    flops: f64,
    loss: f64,
    halted: u64,
    exact: f64,
    supervision_steps: f64,
}

impl Window {
    fn add(&mut self, record: &UpdateRecord) {
        self.seconds += record.update_seconds;
        self.updates += 1;
        self.last_step = record.step;
        self.sequences += record.batch;
        self.flops += record.update_flops;
        self.loss += record.loss;
        self.halted += record.halted;
        let sum = |mean: Option<f64>| mean.unwrap_or(0.0) * record.halted as f64;
        self.exact += sum(record.exact_accuracy);
        self.supervision_steps += sum(record.supervision_steps);
    }

    fn figures(self, limit_gflops: Option<f64>) -> Figures {
        let seconds = self.seconds.max(1e-9);
        let gflops = self.flops / seconds / 1e9;
        let mean = |sum: f64| (self.halted > 0).then(|| sum / self.halted as f64);
        Figures {
            step: self.last_step,
            loss: self.loss / self.updates as f64,
            puzzles_per_second: self.sequences as f64 / seconds,
            gflops,
            mfu: limit_gflops.map(|limit| gflops / limit),
            exact_accuracy: mean(self.exact),
            supervision_steps: mean(self.supervision_steps),
        }
    }
}

/// What a line says. What is not known is left out.
#[derive(Debug, Default, PartialEq)]
struct Figures {
    /// Updates done so far.
    step: u64,
    /// Training loss per sequence.
    loss: f64,
    /// Sequences per second and supervision step.
    puzzles_per_second: f64,
    /// Model GFLOP/s.
    gflops: f64,
    /// Share of the FMA limit.
    mfu: Option<f64>,
    /// Exactly right among the slots that halted.
    exact_accuracy: Option<f64>,
    /// Mean supervision steps of the slots that halted.
    supervision_steps: Option<f64>,
}

impl Figures {
    fn line(&self, total: u64, eta: Option<Duration>) -> String {
        let mut parts = vec![format!("step {}/{total}", self.step)];
        parts.extend(eta.map(|eta| format!("ETA {}", clock(eta))));
        parts.push(format!("loss {:.4}", self.loss));
        parts.extend(self.exact_accuracy.map(|a| format!("exact {:.1} %", 100.0 * a)));
        parts.extend(self.supervision_steps.map(|m| format!("steps {m:.1}")));
        parts.push(format!("{} puzzles/s", short(self.puzzles_per_second)));
        parts.push(format!("{} GFLOP/s", short(self.gflops)));
        parts.extend(self.mfu.map(|m| format!("MFU {:.0} %", 100.0 * m)));
        parts.join(" · ")
    }
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
        let mut figures =
            Figures { step: 40, loss: 1.25, puzzles_per_second: 812.4, gflops: 140.0, ..Default::default() };
        assert_eq!(figures.line(1100, None), "step 40/1100 · loss 1.2500 · 812 puzzles/s · 140 GFLOP/s");
        (figures.exact_accuracy, figures.supervision_steps, figures.mfu) = (Some(0.625), Some(4.25), Some(0.71));
        let text = figures.line(1100, Some(Duration::from_secs(3700)));
        let expected = "step 40/1100 · ETA 1:01:40 · loss 1.2500 · exact 62.5 % · steps 4.2 · 812 puzzles/s · 140 GFLOP/s \
                        · MFU 71 %";
        assert_eq!(text, expected);
    }

    #[test]
    fn figures_are_means_over_the_time_and_the_slots_they_are_about() {
        let update = |step, halted, exact, steps| UpdateRecord {
            step,
            halted,
            exact_accuracy: exact,
            supervision_steps: steps,
            loss: step as f64,
            batch: 16,
            update_seconds: 0.5,
            update_flops: 1e9,
            ..Default::default()
        };
        let mut window = Window::default();
        for record in [update(1, 3, Some(1.0), Some(2.0)), update(2, 0, None, None), update(3, 1, Some(0.0), Some(4.0))]
        {
            window.add(&record);
        }
        let expected = Figures {
            step: 3,
            loss: 2.0,
            puzzles_per_second: 32.0,
            gflops: 2.0,
            mfu: Some(0.5),
            exact_accuracy: Some(0.75),
            supervision_steps: Some(2.5),
        };
        assert_eq!(window.figures(Some(4.0)), expected);
    }

    #[test]
    fn plain_lines_come_at_intervals_and_at_the_end() {
        let out = Shared::default();
        let mut progress = Progress::plain(100, 0, Box::new(out.clone()), Duration::from_secs(3600));
        for step in 1..=100 {
            progress.update(&UpdateRecord { step, update_seconds: 1.0, ..Default::default() }).expect("update");
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
