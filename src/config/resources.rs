//! Will it fit? A lower bound of the memory a run needs, against what this process may use.

use super::check::{Fault, fault};
use super::{Config, Mixing};

/// Keys whose sizes multiply into the memory need.
const SIZES: [&str; 13] = [
    "model.n_layers",
    "model.hidden_size",
    "model.expansion",
    "model.inner_multiple",
    "model.puzzle_emb_ndim",
    "model.puzzle_emb_len",
    "model.learned_prefix",
    "model.mixing",
    "model.separate_nets",
    "task.seq_len",
    "task.vocab_size",
    "task.num_puzzle_identifiers",
    "train.batch_size",
];

/// Refuses a model whose weights, optimizer state and carry alone exceed the memory.
pub(super) fn fits(c: &Config) -> Result<(), Fault> {
    let (need, have) = (least_bytes(c), available_bytes());
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

/// Bytes of weights (with gradient, two moments and EMA), puzzle table and carry. In f64, which cannot overflow here.
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
    let nets = if m.separate_nets { 2.0 } else { 1.0 };
    let blocks = nets * f(m.n_layers) * (mixing + 3.0 * d * inner(d));
    let dense = blocks + 2.0 * f(t.vocab_size) * d + 2.0 * d + f(m.learned_prefix) * d;
    let table = f(t.num_puzzle_identifiers) * f(m.puzzle_emb_ndim);
    let carry = 2.0 * f(c.train.batch_size) * len * d;
    4.0 * (5.0 * dense + table + carry)
}

/// The machine's memory, or the cgroup's limit where that is lower; unlimited where neither can be read.
fn available_bytes() -> u64 {
    let number = |path: &str| std::fs::read_to_string(path).ok()?.trim().parse::<u64>().ok();
    let machine = std::fs::read_to_string("/proc/meminfo").ok().and_then(|text| {
        let line = text.lines().find_map(|l| l.strip_prefix("MemTotal:"))?;
        Some(line.trim().trim_end_matches("kB").trim().parse::<u64>().ok()? * 1024)
    });
    let cgroups = [number("/sys/fs/cgroup/memory.max"), number("/sys/fs/cgroup/memory/memory.limit_in_bytes")];
    [machine].into_iter().chain(cgroups).flatten().min().unwrap_or(u64::MAX)
}
