//! A run that runs out of space ends with one clear line; its last checkpoint is whole, and it goes on from there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{self, fail, resume, succeed, train};

/// A small file system of its own, taken away at the end.
struct SmallDisk {
    dir: tempfile::TempDir,
}

impl SmallDisk {
    /// `None` where this process may not mount one.
    fn mount(kilobytes: u32) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let size = format!("size={kilobytes}k");
        let output = Command::new("mount").args(["-t", "tmpfs", "-o", &size, "trm-test"]).arg(dir.path()).output();
        match output {
            Ok(output) if output.status.success() => Some(Self { dir }),
            Ok(output) => {
                println!("skipped: no file system can be mounted here: {}", common::stderr(&output).trim());
                None
            }
            Err(e) => {
                println!("skipped: no `mount` here: {e}");
                None
            }
        }
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    /// Leaves about `kilobytes` free.
    fn fill(&self, mut kilobytes: usize) {
        let filler = self.path().join("filler");
        let _ = fs::remove_file(&filler);
        let mut bytes = vec![1u8; 64 << 20];
        while fs::write(&filler, &bytes).is_err() {
            // What is there after a failed write is what fits.
            let fits = fs::metadata(&filler).unwrap().len() as usize;
            bytes.truncate(fits.saturating_sub(kilobytes << 10));
            kilobytes = 0;
        }
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.path()).status();
    }
}

fn checkpoints(run: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = fs::read_dir(run.join("checkpoint")).unwrap().map(|e| e.unwrap().path()).collect();
    files.sort();
    files
}

const SETTINGS: [&str; 4] = ["max_steps=12", "lr_warmup_steps=1", "checkpoint_interval=2", "eval_interval=0"];

#[test]
fn a_run_without_space_ends_with_one_line_and_goes_on_from_its_last_checkpoint_when_there_is_space() {
    let Some(disk) = SmallDisk::mount(8 << 10) else { return };
    let dir = tempfile::tempdir().unwrap();
    let whole = dir.path().join("whole");
    succeed(train(&whole, &SETTINGS));
    let state = fs::metadata(&checkpoints(&whole)[0]).unwrap().len() as usize >> 10;
    let weights = fs::metadata(whole.join("weights.safetensors")).unwrap().len() as usize >> 10;

    // Room for two checkpoints and the weights, but not for the third that is written before one is removed.
    let run = disk.path().join("run");
    disk.fill(2 * state + 2 * weights + state / 2 + 64);
    let said = fail(train(&run, &SETTINGS), 2);
    let errors: Vec<&str> = said.lines().filter(|line| line.starts_with("trm: ")).collect();
    assert_eq!(errors.len(), 1, "{said}");
    assert_eq!(said.lines().last(), Some(errors[0]), "{said}");
    assert!(errors[0].contains("space") && errors[0].contains("checkpoint/state-000000000006.bin"), "{said}");
    assert!(!said.contains("panicked"), "{said}");
    let kept: Vec<String> =
        checkpoints(&run).iter().map(|f| f.file_name().unwrap().to_string_lossy().into_owned()).collect();
    assert_eq!(kept, ["state-000000000002.bin", "state-000000000004.bin"]);

    // Without a byte left, going on is refused in the same way, and what is there can still be read.
    disk.fill(0);
    let said = fail(resume(&run), 2);
    assert!(said.lines().last().is_some_and(|line| line.starts_with("trm: ") && line.contains("space")), "{said}");
    let mut eval = common::trm();
    eval.arg("eval").arg(&run);
    succeed(eval);

    // A new run does not start, and leaves nothing.
    let other = disk.path().join("other");
    let said = fail(train(&other, &SETTINGS), 2);
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(said.contains("space") && !other.exists(), "{said}");

    fs::remove_file(disk.path().join("filler")).unwrap();
    succeed(resume(&run));
    let bytes = |run: &Path| fs::read(run.join("weights.safetensors")).unwrap();
    assert!(bytes(&run) == bytes(&whole));
    let steps = |run: &Path| fs::read_to_string(run.join("metrics.jsonl")).unwrap().lines().count();
    assert_eq!(steps(&run), steps(&whole));
}
