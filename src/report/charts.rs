//! The charts that are drawn again and again.

use std::path::Path;

use super::{Chart, Points, Scale, Series, median_and_spread, metric_points, read_metrics, smoothed};
use crate::error::{Error, Result};

/// Points above which a loss curve is drawn smoothed, over its pale raw self.
const SMOOTH_ABOVE: usize = 60;

/// Training loss against updates, one line per run: `(name, metrics.jsonl)`.
pub fn loss_chart(title: &str, runs: &[(String, &Path)]) -> Result<Chart> {
    let mut chart = Chart::new(title, "update", "training loss per sequence");
    for (name, path) in runs {
        let points = metric_points(&read_metrics(path)?, "step", "loss");
        if points.is_empty() {
            return Err(Error::input(format!(
                "{}: no records with `step` and `loss`; give the metrics.jsonl of a training run",
                path.display()
            )));
        }
        let positive = points.iter().all(|p| p.1 > 0.0);
        let (low, high) = points.iter().fold((f64::MAX, 0.0f64), |(l, h), p| (l.min(p.1), h.max(p.1)));
        if positive && high > 20.0 * low {
            chart.y_scale = Scale::Log;
        }
        if points.len() > SMOOTH_ABOVE {
            let smooth = smoothed(&points, (points.len() / 40).max(5));
            chart = chart.line(Series::new("", points).faint()).line(Series::new(name.clone(), smooth));
        } else {
            chart = chart.line(Series::new(name.clone(), points));
        }
    }
    Ok(chart)
}

/// Accuracy in per cent against seconds or model FLOPs (`x_label` says which): each group is the runs of one setting
/// over several seeds, shares in 0…1, drawn as their median with the band from lowest to highest.
pub fn accuracy_chart(title: &str, x_label: &str, x_scale: Scale, groups: &[(String, Vec<Points>)]) -> Chart {
    let mut chart = Chart::new(title, x_label, "exactly right, unseen puzzles (%)");
    (chart.x_scale, chart.y_range) = (x_scale, Some((0.0, 100.0)));
    for (name, runs) in groups {
        let percent: Vec<Points> = runs.iter().map(|run| run.iter().map(|p| (p.0, 100.0 * p.1)).collect()).collect();
        let seeds = match runs.len() {
            1 => String::new(),
            n => format!(" (median and spread of {n} seeds)"),
        };
        let series = median_and_spread(format!("{name}{seeds}"), &percent);
        chart = chart.line(series.with_dots());
    }
    chart
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::report::MetricsLog;

    #[test]
    fn a_loss_chart_takes_runs_and_names_a_log_without_losses() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let (long, none) = (dir.path().join("long.jsonl"), dir.path().join("none.jsonl"));
        let mut log = MetricsLog::create(&long).expect("create");
        for step in 1..=300 {
            log.append(&json!({"step": step, "loss": 100.0 / f64::from(step)})).expect("append");
        }
        MetricsLog::create(&none).expect("create");
        let chart = loss_chart("Loss", &[("a run".to_owned(), &*long)]).expect("chart");
        assert_eq!((chart.series.len(), chart.y_scale), (2, Scale::Log));
        assert!(chart.to_svg().expect("draws").contains("a run"));
        let line = loss_chart("Loss", &[("x".to_owned(), &*none)]).expect_err("empty").to_string();
        assert!(line.contains("none.jsonl"), "{line}");
    }

    #[test]
    fn an_accuracy_chart_shows_median_and_spread() {
        let seed = |k: f64| (1..10).map(|i| (f64::from(i), (0.1 * f64::from(i) + 0.01 * k).min(1.0))).collect();
        let groups = [("ours".to_owned(), (0..5).map(|k| seed(f64::from(k))).collect())];
        let chart = accuracy_chart("Accuracy", "seconds", Scale::Linear, &groups);
        assert_eq!((chart.series[0].points.len(), chart.series[0].band.len()), (9, 9));
        assert!(chart.to_svg().expect("draws").contains("5 seeds"));
    }
}
