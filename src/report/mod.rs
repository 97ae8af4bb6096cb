//! What a run tells: its records, the sinks they go to (the log, progress on the terminal), tables and pictures.

#[cfg(feature = "cli")]
pub mod bars;
#[cfg(feature = "cli")]
pub mod charts;
pub mod metrics;
mod numbers;
#[cfg(feature = "cli")]
pub mod plot;
#[cfg(feature = "cli")]
pub mod progress;
mod record;
#[cfg(feature = "cli")]
mod row_bar;
mod series;
mod sink;
pub mod stats;
pub mod table;
#[cfg(feature = "cli")]
mod terminal;
#[cfg(feature = "cli")]
mod ticks;
pub mod usage;

#[cfg(feature = "cli")]
pub use bars::{Bar, BarChart, BarGroup};
#[cfg(feature = "cli")]
pub use charts::{accuracy_chart, loss_chart};
pub use metrics::{MetricsLog, metric_points, read_metrics};
pub use numbers::{engineering, grouped};
#[cfg(feature = "cli")]
pub use plot::{Chart, Scale};
#[cfg(feature = "cli")]
pub use progress::Progress;
pub use record::{Evaluation, EvaluationRecord, StepAccuracy, UpdateRecord};
#[cfg(feature = "cli")]
pub use row_bar::RowBar;
pub use series::{Points, Series};
pub use sink::Sink;
pub use stats::{median_and_spread, smoothed, wilson_95};
pub use table::Table;
#[cfg(feature = "cli")]
pub use terminal::Terminal;
pub use usage::{peak_rss_bytes, processor_seconds};
