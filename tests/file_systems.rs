//! File systems of clusters: without locks, without folder syncs, and what a run makes of that.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use crate::common::{self, fail, resume, stderr, succeed, train};

/// Lets `flock` and `fsync` of folders fail with the errors that the environment names.
const SHIM: &str = r#"
#include <errno.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static int failing(const char *name) {
    const char *value = getenv(name);
    if (!value) return 0;
    errno = atoi(value);
    return 1;
}

int flock(int file, int how) {
    return failing("TEST_FLOCK") ? -1 : (int)syscall(SYS_flock, file, how);
}

int fsync(int file) {
    struct stat what;
    int is_folder = fstat(file, &what) == 0 && S_ISDIR(what.st_mode);
    return is_folder && failing("TEST_FSYNC_FOLDER") ? -1 : (int)syscall(SYS_fsync, file);
}
"#;

/// The library; `None` where there is no compiler.
fn shim(dir: &Path) -> Option<PathBuf> {
    let (source, library) = (dir.join("shim.c"), dir.join("shim.so"));
    fs::write(&source, SHIM).unwrap();
    match Command::new("cc").args(["-shared", "-fPIC", "-o"]).arg(&library).arg(&source).status() {
        Ok(status) if status.success() => Some(library),
        _ => {
            println!("skipped: no `cc` here that makes libraries");
            None
        }
    }
}

fn on(library: &Path, mut command: Command, variable: &str, errno: i32) -> Command {
    command.env("LD_PRELOAD", library).env(variable, errno.to_string());
    command
}

#[test]
fn where_nothing_can_be_locked_a_run_goes_on_with_one_warning_to_the_same_bytes() {
    let home = tempfile::tempdir().unwrap();
    let Some(library) = shim(home.path()) else { return };
    let settings = ["max_steps=8", "checkpoint_interval=4"];
    let plain = home.path().join("plain");
    succeed(train(&plain, &settings));
    for errno in [libc::ENOLCK, libc::EOPNOTSUPP, libc::ENOSYS] {
        let run = home.path().join(format!("run-{errno}"));
        for command in [train(&run, &settings), resume(&run)] {
            let said = stderr(&succeed(on(&library, command, "TEST_FLOCK", errno)));
            let warnings: Vec<&str> = said.lines().filter(|line| line.contains("lock")).collect();
            assert!(matches!(warnings[..], [one] if one.contains("no locks") && one.contains("run-")), "{said}");
        }
        let weights = |run: &Path| fs::read(run.join("weights.safetensors")).unwrap();
        assert!(weights(&run) == weights(&plain));
    }
    // Another error of the lock is one.
    let said = fail(on(&library, train(&home.path().join("broken"), &settings), "TEST_FLOCK", libc::EIO), 2);
    assert!(said.lines().count() == 1 && !home.path().join("broken").exists(), "{said}");
}

#[test]
fn where_folders_cannot_be_synced_files_are_still_whole() {
    let home = tempfile::tempdir().unwrap();
    let Some(library) = shim(home.path()) else { return };
    for errno in [libc::EINVAL, libc::EOPNOTSUPP, libc::ENOSYS, libc::EBADF, libc::EACCES] {
        let run = home.path().join(format!("run-{errno}"));
        let said = stderr(&succeed(on(&library, train(&run, &["max_steps=8"]), "TEST_FSYNC_FOLDER", errno)));
        assert!(!said.contains("os error"), "{said}");
        let mut set = common::trm();
        set.args(["data", "build", "sudoku", "--size", "4", "--count", "4", "--test", "2", "--out"]);
        set.arg(home.path().join(format!("set-{errno}")));
        succeed(on(&library, set, "TEST_FSYNC_FOLDER", errno));
        succeed(resume(&run));
    }
    let said =
        fail(on(&library, train(&home.path().join("broken"), &["max_steps=8"]), "TEST_FSYNC_FOLDER", libc::EIO), 2);
    assert_eq!(said.lines().filter(|line| line.contains("os error 5")).count(), 1, "{said}");
}
