//! The memory this process may use.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

/// Memory in bytes, as far as the system tells; `None` is unknown, or for the limit that there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryLimits {
    /// What the machine has.
    pub total: Option<u64>,
    /// What could be had without pushing others out.
    pub available: Option<u64>,
    /// The tightest limit on this process's control group and those it is in.
    pub cgroup_limit: Option<u64>,
}

impl MemoryLimits {
    /// Asks the system.
    pub fn read() -> Self {
        Self::read_below(Path::new("/"))
    }

    /// The same, with `proc` and `sys` looked for below `root`.
    pub fn read_below(root: &Path) -> Self {
        let text = |file: &str| fs::read_to_string(root.join(file)).unwrap_or_default();
        let meminfo = text("proc/meminfo");
        let field = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        let limits = limit_files(&text("proc/self/cgroup"));
        let limits =
            limits.iter().filter_map(|path| fs::read_to_string(root.join(path)).ok()?.trim().parse::<u64>().ok());
        Self { total: field("MemTotal"), available: field("MemAvailable"), cgroup_limit: tightest(limits) }
    }

    /// The most this process may ever hold; `None` where nothing is known.
    pub fn usable(&self) -> Option<u64> {
        [self.total, self.cgroup_limit].into_iter().flatten().min()
    }
}

/// The smallest limit that is one: version 1 writes about 2⁶³ for "none".
fn tightest(limits: impl Iterator<Item = u64>) -> Option<u64> {
    limits.filter(|&limit| limit < 1 << 60).min()
}

/// The files that may limit a process with this `/proc/self/cgroup`: its groups of either version, up to the root. (In
/// a container the path may be the host's; the root is then the container's own group.)
fn limit_files(groups: &str) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(group)) = (fields.next(), fields.next()) else { continue };
        let (root, file) = match controllers {
            "" => ("sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        files.extend(Path::new(group.trim_start_matches('/')).ancestors().map(|g| Path::new(root).join(g).join(file)));
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_looked_for_in_every_group_up_to_the_root() {
        let files = limit_files("4:cpu,memory:/a\n3:pids:/x\n0::/b/c\nnonsense\n");
        let names: Vec<&str> = files.iter().filter_map(|path| path.to_str()).collect();
        let expected = [
            "sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "sys/fs/cgroup/memory/memory.limit_in_bytes",
            "sys/fs/cgroup/b/c/memory.max",
            "sys/fs/cgroup/b/memory.max",
            "sys/fs/cgroup/memory.max",
        ];
        assert_eq!(names, expected);
        assert_eq!(tightest([0x7FFF_FFFF_FFFF_F000, 5, 9].into_iter()), Some(5));
        assert_eq!(tightest([0x7FFF_FFFF_FFFF_F000].into_iter()), None);
    }

    #[test]
    fn the_tightest_group_limits_and_a_system_that_says_nothing_does_not() {
        let root = tempfile::tempdir().expect("temporary folder");
        assert_eq!(MemoryLimits::read_below(root.path()), MemoryLimits::default());
        assert_eq!(MemoryLimits::default().usable(), None);
        let write = |file: &str, text: &str| {
            let path = root.path().join(file);
            fs::create_dir_all(path.parent().expect("a folder")).expect("folder");
            fs::write(path, text).expect("write");
        };
        write("proc/meminfo", "MemTotal:       16384 kB\nMemFree: 3 kB\nMemAvailable:    8192 kB\n");
        write("proc/self/cgroup", "0::/job/step\n");
        write("sys/fs/cgroup/job/memory.max", "5000000\n");
        write("sys/fs/cgroup/job/step/memory.max", "max\n");
        let limits = MemoryLimits::read_below(root.path());
        let expected = MemoryLimits { total: Some(16 << 20), available: Some(8 << 20), cgroup_limit: Some(5_000_000) };
        assert_eq!(limits, expected);
        assert_eq!(limits.usable(), Some(5_000_000));
    }
}
