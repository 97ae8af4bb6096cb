//! The job script of docs/slurm.md, under a scheduler that interrupts it again and again.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Command;

use crate::common::{stderr, stdout, succeed, tiny, trm};

/// Stands in for `sbatch`: runs the job, sends USR1 to its script alone after a while, kills what is left of it after a grace period,
/// and runs it again as long as it has put itself into the queue.
const SBATCH: &str = r#"#!/bin/bash
set -m
for start in $(seq 40); do
    rm -f requeued
    SLURM_JOB_ID=7 SLURM_CPUS_PER_TASK=1 bash "$1" >> log.txt 2>&1 &
    job=$!
    (sleep 0.7; kill -USR1 "$job"; sleep 30; kill -KILL -- "-$job") 2>/dev/null &
    clock=$!
    wait "$job"
    status=$?
    kill -- "-$clock" 2>/dev/null
    [ -e requeued ] || { echo "$start starts, ended with $status"; exit "$status"; }
done
exit 99
"#;

/// Stands in for `scontrol`.
const SCONTROL: &str = "#!/bin/bash\n[ \"$1 $2\" = 'requeue 7' ] && touch requeued\n";

fn executable(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn the_job_script_of_the_documentation_ends_where_an_undisturbed_run_ends_byte_for_byte() {
    let home = tempfile::tempdir().unwrap();
    let bin = home.path().join("bin");
    fs::create_dir(&bin).unwrap();
    executable(&bin.join("sbatch"), SBATCH);
    executable(&bin.join("scontrol"), SCONTROL);
    std::os::unix::fs::symlink(env!("CARGO_BIN_EXE_trm"), bin.join("trm")).unwrap();

    // Some three times as long as the scheduler lets it run, whatever the machine.
    let settings = ["checkpoint_interval=0", "eval_interval=0", "seed=5"];
    let speed = {
        let mut command = trm();
        command.arg("train").args(tiny(&settings)).args(["--max-steps", "200", "--threads", "1", "--out"]);
        command.arg(home.path().join("speed"));
        let started = std::time::Instant::now();
        succeed(command);
        200.0 / started.elapsed().as_secs_f64()
    };
    let updates = ((2.0 * speed) as u64).to_string();
    let arguments = [tiny(&settings), vec!["--max-steps".into(), updates]].concat();

    let page = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/slurm.md")).unwrap();
    let script = page.split("```bash\n").nth(1).unwrap().split("```").next().unwrap();
    let long = "--preset sudoku-extreme --data sets/sudoku-extreme";
    assert!(script.contains(long), "{script}");
    fs::write(home.path().join("job.sh"), script.replace(long, &arguments.join(" "))).unwrap();

    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut sbatch = Command::new("sbatch");
    sbatch.arg("job.sh").current_dir(home.path()).env("PATH", &path);
    let output = sbatch.output().unwrap();
    let log = fs::read_to_string(home.path().join("log.txt")).unwrap();
    assert!(output.status.success(), "{}{}\n{log}", stdout(&output), stderr(&output));
    assert!(log.contains("saved after update"), "it was never interrupted: {log}");
    assert!(log.contains("\n1 threads, "), "SLURM_CPUS_PER_TASK: {log}");

    let mut undisturbed = trm();
    undisturbed.arg("train").args(&arguments).args(["--threads", "2", "--out"]).arg(home.path().join("whole"));
    succeed(undisturbed);
    let weights = |run: &str| fs::read(home.path().join(run).join("weights.safetensors")).unwrap();
    assert!(weights("runs/extreme") == weights("whole"), "the weights differ: {log}");
}
