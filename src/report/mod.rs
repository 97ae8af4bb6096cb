//! What a run tells: its records, the sinks they go to (the log, progress on the terminal), tables and pictures.

pub mod charts;
pub mod memory;
pub mod metrics;
mod numbers;
pub mod plot;
pub mod progress;
mod record;
mod row_bar;
mod sink;
pub mod stats;
pub mod table;
mod ticks;

pub use charts::{accuracy_chart, loss_chart};
pub use memory::peak_rss_bytes;
pub use metrics::{MetricsLog, metric_points, read_metrics};
pub use numbers::{engineering, grouped};
pub use plot::{Chart, Points, Scale, Series};
pub use progress::Progress;
pub use record::{Evaluation, EvaluationRecord, StepAccuracy, UpdateRecord};
pub use row_bar::RowBar;
pub use sink::Sink;
pub use stats::{median_and_spread, smoothed, wilson_95};
pub use table::Table;
