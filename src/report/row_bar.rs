//! How far the writing of a data set is: a bar on a terminal, nothing elsewhere.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Terminal;

/// A bar that counts rows.
pub struct RowBar(Option<ProgressBar>);

impl RowBar {
    /// A bar on standard error for `total` rows.
    pub fn new(total: u64) -> Self {
        let bar = Terminal::stderr().cursor.then(|| {
            let bar = ProgressBar::with_draw_target(Some(total), ProgressDrawTarget::stderr_with_hz(8));
            let style = ProgressStyle::with_template("{bar:20} {human_pos} of {human_len} rows, {eta} left");
            bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()).progress_chars("━╸ "));
            bar
        });
        Self(bar)
    }

    /// So many more rows are done.
    pub fn add(&self, rows: u64) {
        if let Some(bar) = &self.0 {
            bar.inc(rows);
        }
    }

    /// Takes the bar away.
    pub fn finish(&self) {
        if let Some(bar) = &self.0 {
            bar.finish_and_clear();
        }
    }
}
