//! Will it fit? A lower bound of the memory a run needs, against what this process may use.

use std::fs;
use std::path::{Path, PathBuf};

use serde::Serialize;

use super::check::{Fault, fault};
use super::{Arch, Config, Mixing};

/// Keys whose sizes multiply into the memory need.
const SIZES: [&str; 14] = [
    "model.n_layers",
    "model.hidden_size",
    "model.expansion",
    "model.inner_multiple",
    "model.puzzle_emb_ndim",
    "model.puzzle_emb_len",
    "model.learned_prefix",
    "model.mixing",
    "model.separate_nets",
    "model.experts",
    "task.seq_len",
    "task.vocab_size",
    "task.num_puzzle_identifiers",
    "train.batch_size",
];

/// Refuses a model whose weights, optimizer state and carry alone exceed the memory.
pub(super) fn fits(c: &Config) -> Result<(), Fault> {
    let (need, have) = (least_bytes(c), MachineMemory::read().usable());
    if need > have as f64 {
        let gib = |bytes: f64| bytes / f64::from(1 << 30);
        return fault(
            &SIZES,
            format!(
                "the model needs at least {:.1} GiB for weights, optimizer state and carry, but this process may use \
                 {:.1} GiB; make model.hidden_size, n_layers, task.seq_len or train.batch_size smaller",
                gib(need),
                gib(have as f64)
            ),
        );
    }
    Ok(())
}

/// Bytes of weights (with gradient, two moments and EMA), rows of the puzzle table and carry. In f64, which cannot
/// overflow here.
fn least_bytes(c: &Config) -> f64 {
    let f = |x: usize| x as f64;
    let (m, t) = (&c.model, &c.task);
    let d = f(m.hidden_size);
    let prefix = match (m.puzzle_emb_ndim, m.puzzle_emb_len) {
        (0, _) => m.learned_prefix,
        (ndim, 0) => ndim.div_ceil(m.hidden_size),
        (_, len) => len,
    };
    let len = f(prefix + t.seq_len);
    let inner = |width: f64| (m.expansion * width * 2.0 / 3.0 / f(m.inner_multiple)).ceil() * f(m.inner_multiple);
    let mixing = match m.mixing {
        Mixing::Attention => 4.0 * d * d,
        Mixing::MlpT => 3.0 * len * inner(len),
    };
    let nets = if m.separate_nets || m.arch == Arch::Hrm { 2.0 } else { 1.0 };
    let mlp = f(m.experts.max(1)) * 3.0 * d * inner(d) + f(m.experts) * d;
    let blocks = nets * f(m.n_layers) * (mixing + mlp);
    let dense = blocks + 2.0 * f(t.vocab_size) * d + 2.0 * d + f(m.learned_prefix) * d;
    // Only rows that some batch touches take memory.
    let touched = if c.train.max_steps > 0 { c.train.max_steps as f64 * f(c.train.batch_size) } else { f64::INFINITY };
    let table = touched.min(f(t.num_puzzle_identifiers)) * f(m.puzzle_emb_ndim);
    let carry = 2.0 * f(c.train.batch_size) * len * d;
    4.0 * (5.0 * dense + table + carry)
}

/// Memory in bytes, as far as the system tells; `None` is unknown, or for the limit that there is none.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct MachineMemory {
    /// What the machine has.
    pub total: Option<u64>,
    /// What could be had without pushing others out.
    pub available: Option<u64>,
    /// The tightest limit on this process's control group and those it is in.
    pub cgroup_limit: Option<u64>,
}

impl MachineMemory {
    /// Asks the system.
    pub fn read() -> Self {
        let meminfo = fs::read_to_string("/proc/meminfo").unwrap_or_default();
        let field = |name: &str| {
            let line = meminfo.lines().find_map(|line| line.strip_prefix(name))?;
            line.trim_start_matches(':').trim().trim_end_matches("kB").trim().parse::<u64>().ok()?.checked_mul(1024)
        };
        let groups = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let limits = limit_files(&groups);
        let limits = limits.iter().filter_map(|path| fs::read_to_string(path).ok()?.trim().parse::<u64>().ok());
        Self { total: field("MemTotal"), available: field("MemAvailable"), cgroup_limit: tightest(limits) }
    }

    /// The most this process may ever hold; `u64::MAX` where nothing is known.
    pub fn usable(&self) -> u64 {
        [self.total, self.cgroup_limit].into_iter().flatten().min().unwrap_or(u64::MAX)
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
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
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
            "/sys/fs/cgroup/memory/a/memory.limit_in_bytes",
            "/sys/fs/cgroup/memory/memory.limit_in_bytes",
            "/sys/fs/cgroup/b/c/memory.max",
            "/sys/fs/cgroup/b/memory.max",
            "/sys/fs/cgroup/memory.max",
        ];
        assert_eq!(names, expected);
        assert_eq!(tightest([0x7FFF_FFFF_FFFF_F000, 5, 9].into_iter()), Some(5));
        assert_eq!(tightest([0x7FFF_FFFF_FFFF_F000].into_iter()), None);
    }
}
