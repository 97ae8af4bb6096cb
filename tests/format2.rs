//! Runs that were started before checkpoints had named buffers (format 2) go on.

use std::fs;
use std::path::Path;

use crate::common::{resume, succeed};
use serde_json::Value;

/// The losses of a log, by update.
fn losses(metrics: &Path) -> Vec<f64> {
    let text = fs::read_to_string(metrics).unwrap();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).unwrap());
    lines.filter_map(|line| line["loss"].as_f64()).collect()
}

#[test]
fn a_run_with_a_checkpoint_of_format_2_goes_on_where_it_was() {
    let stored = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/format2");
    let dir = tempfile::tempdir().unwrap();
    let run = dir.path().join("run");
    fs::create_dir_all(run.join("checkpoint")).unwrap();
    for file in ["config.toml", "metrics.jsonl", "checkpoint/state-000000000006.bin"] {
        fs::copy(stored.join(file), run.join(file)).unwrap();
    }
    succeed(resume(&run));
    // The stored log is of the whole run; after update 6 the losses have been worked out again.
    let (before, after) = (losses(&stored.join("metrics.jsonl")), losses(&run.join("metrics.jsonl")));
    assert_eq!((before.len(), after.len()), (12, 12));
    for (step, (before, after)) in before.iter().zip(&after).enumerate() {
        let tolerance = if step < 6 { 0.0 } else { 1e-3 };
        assert!((before - after).abs() <= tolerance * before.abs(), "update {}: {before} and {after}", step + 1);
    }
    assert!(run.join("checkpoint/state-000000000012.bin").exists());
}
