//! Physical cores, their speeds and NUMA nodes, as the system's files under `/sys` describe them, and what of them a process may
//! use.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use super::control_group;

/// The processors this process may use: affinity and control groups respected.
pub fn available() -> usize {
    // Where the system has no affinity masks, the library knows another way.
    let otherwise = std::thread::available_parallelism().map_or(1, usize::from);
    match core_affinity::get_core_ids() {
        Some(allowed) if !allowed.is_empty() => within_quota(Path::new("/"), allowed.len()),
        _ => otherwise,
    }
}

/// Of so many processors, as many as the control groups of this process give it time for, by the files below `root`. A quota of
/// one and a half is two: threads that are stopped for a quarter of the time do half as much again as one that never is. Less
/// than a half is not worth being stopped for. One at least.
fn within_quota(root: &Path, processors: usize) -> usize {
    let text = |file: &Path| fs::read_to_string(root.join(file)).ok();
    let groups = text(Path::new("proc/self/cgroup")).unwrap_or_default();
    let quota = |file: &std::path::PathBuf| {
        let limit = text(file)?;
        let mut fields = limit.split_whitespace();
        let quota = fields.next()?.parse::<f64>().ok()?;
        // Version 2 has both in one file.
        let period = match fields.next() {
            Some(period) => period.to_owned(),
            None => text(&file.with_file_name("cpu.cfs_period_us"))?,
        };
        let cores = quota / period.trim().parse::<f64>().ok()?;
        (cores > 0.0 && cores.is_finite()).then_some(cores)
    };
    let files = control_group::limit_files(&groups, "cpu", ["cpu.cfs_quota_us", "cpu.max"]);
    let quota = files.iter().filter_map(quota).fold(f64::INFINITY, f64::min);
    processors.min((quota + 0.5) as usize).max(1)
}

/// Speed of a core that is as fast as any of its kind, in the units of the system's `cpu_capacity`.
const FULL_CAPACITY: u32 = 1024;

/// What an efficiency core of a processor is taken for whose system does not say: half as fast.
const EFFICIENT_CAPACITY: u32 = FULL_CAPACITY / 2;

/// The slowest cores that get a lane are this many times slower than the fastest. A slow core takes fewer groups, and the
/// others help with its last one; but the part of a group that a team does not divide (a tenth) goes at its pace. By the model
/// of `perf::scaling`, of 24 cores 16 that are half as fast add eight cores' worth and delay the end of an update by a fifth of a
/// group; a fifth as fast, they would add three and delay it by half a group.
const SLOWEST: u32 = 3;

/// The cores this process may use, ordered by node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Topology {
    cores: Vec<Core>,
}

/// A physical core.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Core {
    /// NUMA node, counted from 0 without holes.
    node: usize,
    /// Its hardware threads, by the system's numbers, least first.
    cpus: Vec<usize>,
    /// How fast it is beside the others.
    capacity: u32,
}

/// Where a lane belongs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    /// NUMA node, counted from 0 without holes.
    pub node: usize,
    /// The system's number of the hardware thread.
    pub cpu: usize,
}

impl Topology {
    /// Of this machine, as far as this process may use it (affinity mask).
    pub fn detect() -> Self {
        let allowed: Vec<usize> =
            core_affinity::get_core_ids().unwrap_or_default().into_iter().map(|core| core.id).collect();
        let allowed = if allowed.is_empty() { (0..available()).collect() } else { allowed };
        Self::read(Path::new("/"), &allowed)
    }

    /// Reads `sys/devices/system` below `root`; `allowed` are the hardware threads that may be used. Where files are
    /// missing each thread is a core, and all are on one node.
    pub fn read(root: &Path, allowed: &[usize]) -> Self {
        let system = root.join("sys/devices/system");
        let list = |file: &Path| fs::read_to_string(file).map(|text| parse_list(&text)).unwrap_or_default();
        let online = list(&system.join("cpu/online"));
        let usable = |cpu: &usize| allowed.contains(cpu) && (online.is_empty() || online.contains(cpu));

        let mut node_of = BTreeMap::new();
        for entry in fs::read_dir(system.join("node")).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("node")).and_then(|n| n.parse::<usize>().ok());
            if let Some(number) = number {
                node_of.extend(list(&entry.path().join("cpulist")).into_iter().map(|cpu| (cpu, number)));
            }
        }
        let efficient = list(&root.join("sys/devices/cpu_atom/cpus"));
        let capacity = |cpu: usize| {
            let told = fs::read_to_string(system.join(format!("cpu/cpu{cpu}/cpu_capacity"))).ok();
            let told = told.and_then(|text| text.trim().parse::<u32>().ok()).filter(|&capacity| capacity > 0);
            told.unwrap_or(if efficient.contains(&cpu) { EFFICIENT_CAPACITY } else { FULL_CAPACITY })
        };
        let mut cores = Vec::new();
        let mut seen = Vec::new();
        let mut cpus: Vec<usize> = allowed.iter().copied().filter(usable).collect();
        cpus.sort_unstable();
        cpus.dedup();
        for cpu in cpus {
            if seen.contains(&cpu) {
                continue;
            }
            let files = ["core_cpus_list", "thread_siblings_list"];
            let siblings = files.map(|file| list(&system.join(format!("cpu/cpu{cpu}/topology/{file}"))));
            let mut siblings: Vec<usize> = siblings.into_iter().find(|l| l.contains(&cpu)).unwrap_or_else(|| vec![cpu]);
            siblings.retain(usable);
            seen.extend_from_slice(&siblings);
            let node = node_of.get(&cpu).copied().unwrap_or(0);
            cores.push(Core { node, cpus: siblings, capacity: capacity(cpu) });
        }
        if cores.is_empty() {
            cores.push(Core { node: 0, cpus: vec![0], capacity: FULL_CAPACITY });
        }
        Self::of(cores)
    }

    /// In order, the nodes numbered without holes.
    fn of(mut cores: Vec<Core>) -> Self {
        cores.sort_by_key(|core| (core.node, core.cpus[0]));
        let mut numbers: Vec<usize> = cores.iter().map(|core| core.node).collect();
        numbers.dedup();
        for core in &mut cores {
            core.node = numbers.iter().position(|&number| number == core.node).unwrap_or(0);
        }
        Self { cores }
    }

    /// Number of physical cores.
    pub fn cores(&self) -> usize {
        self.cores.len()
    }

    /// Number of physical cores that are fast enough for a lane to be worth its while: all but those that are
    /// more than three times slower than the fastest.
    pub fn lanes(&self) -> usize {
        self.fast_enough().count()
    }

    fn fast_enough(&self) -> impl Iterator<Item = &Core> {
        let fastest = self.cores.iter().map(|core| core.capacity).max().unwrap_or(FULL_CAPACITY);
        self.cores.iter().filter(move |core| SLOWEST * core.capacity >= fastest)
    }

    /// The cores that are fast enough ([`Topology::lanes`]) in `parts` of nearly equal size, each of neighbours: as many as
    /// there are such cores, at most.
    pub fn split(&self, parts: usize) -> Vec<Self> {
        let cores: Vec<&Core> = self.fast_enough().collect();
        let parts = parts.clamp(1, cores.len());
        let first = |part: usize| part * cores.len() / parts;
        let part =
            |part: usize| Self::of(cores[first(part)..first(part + 1)].iter().map(|&core| core.clone()).collect());
        (0..parts).map(part).collect()
    }

    /// Number of NUMA nodes with a usable core.
    pub fn nodes(&self) -> usize {
        self.cores.last().map_or(1, |core| core.node + 1)
    }

    /// Where lane `lane` of `lanes` belongs: lanes are spread evenly over the cores in their order, and lanes that share
    /// a core take its hardware threads in turn. Fewer lanes than cores are spread over the faster ones.
    pub fn place(&self, lane: usize, lanes: usize) -> Place {
        let chosen = self.fastest(lanes);
        let core_of = |lane: usize| lane * chosen.len() / lanes.max(1);
        let core = chosen[core_of(lane)];
        let before = (0..lane).rev().take_while(|&other| core_of(other) == core_of(lane)).count();
        Place { node: core.node, cpu: core.cpus[before % core.cpus.len()] }
    }

    /// The cores that so many lanes are spread over, in order: those as fast as any, and slower ones as long as they do not
    /// suffice.
    fn fastest(&self, lanes: usize) -> Vec<&Core> {
        let mut speeds: Vec<u32> = self.cores.iter().map(|core| core.capacity).collect();
        speeds.sort_unstable_by(|a, b| b.cmp(a));
        let slowest = speeds[lanes.clamp(1, speeds.len()) - 1];
        let faster = self.cores.iter().filter(|core| core.capacity > slowest).count();
        if faster == 0 {
            return self.cores.iter().filter(|core| core.capacity == slowest).collect();
        }
        // All that are faster, and of the slower ones as many as it takes, spread evenly.
        let (missing, slower) =
            (lanes.min(self.cores.len()) - faster, speeds.iter().filter(|&&s| s == slowest).count());
        let mut nth = 0;
        let is_chosen = |core: &&Core| {
            let of_the_slower = core.capacity == slowest;
            nth += usize::from(of_the_slower);
            core.capacity > slowest || of_the_slower && nth * missing / slower > (nth - 1) * missing / slower
        };
        self.cores.iter().filter(is_chosen).collect()
    }
}

/// Numbers of a list like `0-3,8,10-11`; anything else is left out.
fn parse_list(text: &str) -> Vec<usize> {
    let number = |text: &str| text.trim().parse::<usize>().ok();
    let mut numbers = Vec::new();
    for part in text.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        if let (Some(first), Some(last)) = (number(first), number(last)) {
            numbers.extend(first..=last.min(first + 65_535));
        }
    }
    numbers
}

#[cfg(test)]
mod tests;
