//! The memory this process may use.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::device::control_group;

/// Memory in bytes, as far as the system tells; `None` is unknown, or for the limit that there is none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct MemoryLimits {
    /// What the machine has.
    pub total: Option<u64>,
    /// What could be had without pushing others out.
    pub available: Option<u64>,
    /// The tightest limit on this process's control group and those it is in.
    pub cgroup_limit: Option<u64>,
    /// What `ulimit -v` or `ulimit -d` leaves this process to take beside what it has.
    pub process_limit: Option<u64>,
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
        let (own_limits, status) = (text("proc/self/limits"), text("proc/self/status"));
        let left =
            [("Max address space", "VmSize"), ("Max data size", "VmData")].into_iter().filter_map(|(limit, used)| {
                // The first of two columns is the limit that holds; "unlimited" is no number.
                let most = own_limits.lines().find_map(|line| line.strip_prefix(limit))?.split_whitespace().next()?;
                Some(most.parse::<u64>().ok()?.saturating_sub(kilobytes(&status, used).unwrap_or(0)))
            });
        let limits = limit_files(&text("proc/self/cgroup"));
        let limits =
            limits.iter().filter_map(|path| fs::read_to_string(root.join(path)).ok()?.trim().parse::<u64>().ok());
        Self {
            total: kilobytes(&meminfo, "MemTotal"),
            available: kilobytes(&meminfo, "MemAvailable"),
            cgroup_limit: tightest(limits),
            process_limit: left.min(),
        }
    }

    /// The most this process may ever take, and who says so; `None` where nothing is known.
    pub fn usable(&self) -> Option<(u64, &'static str)> {
        let limits = [
            (self.total, "this machine has"),
            (self.cgroup_limit, "its control group allows"),
            (self.process_limit, "ulimit leaves it"),
        ];
        limits.into_iter().filter_map(|(limit, who)| Some((limit?, who))).min_by_key(|(limit, _)| *limit)
    }

    /// The most it can take now: as [`MemoryLimits::usable`], or what is free.
    pub fn free(&self) -> Option<(u64, &'static str)> {
        let available = self.available.map(|available| (available, "are free"));
        self.usable().into_iter().chain(available).min_by_key(|(limit, _)| *limit)
    }
}

/// The bytes of a line `NAME: n kB`.
fn kilobytes(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// The smallest limit that is one: version 1 writes about 2⁶³ for "none".
fn tightest(limits: impl Iterator<Item = u64>) -> Option<u64> {
    limits.filter(|&limit| limit < 1 << 60).min()
}

/// The files that may limit the memory of a process with this `/proc/self/cgroup`.
fn limit_files(groups: &str) -> Vec<PathBuf> {
    control_group::limit_files(groups, "memory", ["memory.limit_in_bytes", "memory.max"])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_that_is_as_good_as_none_is_none() {
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
        let expected = MemoryLimits {
            total: Some(16 << 20),
            available: Some(8 << 20),
            cgroup_limit: Some(5_000_000),
            process_limit: None,
        };
        assert_eq!(limits, expected);
        assert_eq!(limits.usable(), Some((5_000_000, "its control group allows")));
        assert_eq!(limits.free(), limits.usable());

        let limit = |space: &str, data: &str| {
            let line = |name: &str, value: &str| format!("{name:<26}{value:<21}unlimited            bytes     \n");
            let head = "Limit                     Soft Limit           Hard Limit           Units     \n";
            let lines = head.to_owned() + &line("Max data size", data) + &line("Max address space", space);
            write("proc/self/limits", &lines);
            MemoryLimits::read_below(root.path()).process_limit
        };
        write("proc/self/status", "Name:\ttrm\nVmSize:\t    1000 kB\nVmData:\t     500 kB\n");
        assert_eq!(limit("unlimited", "unlimited"), None);
        assert_eq!(limit("4096000", "unlimited"), Some(3_072_000));
        assert_eq!(limit("4096000", "2048000"), Some(1_536_000));
        assert_eq!(limit("1000", "unlimited"), Some(0));
        assert_eq!(MemoryLimits::read_below(root.path()).usable(), Some((0, "ulimit leaves it")));

        write("sys/fs/cgroup/job/memory.max", "max\n");
        limit("unlimited", "unlimited");
        let limits = MemoryLimits::read_below(root.path());
        assert_eq!(
            (limits.usable(), limits.free()),
            (Some((16 << 20, "this machine has")), Some((8 << 20, "are free")))
        );
    }
}
