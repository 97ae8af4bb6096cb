//! Physical cores and NUMA nodes, as the system's files under `/sys` describe them.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

/// The processors this process may use: affinity and cgroup limits respected.
pub fn available() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

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
            cores.push(Core { node: node_of.get(&cpu).copied().unwrap_or(0), cpus: siblings });
        }
        if cores.is_empty() {
            cores.push(Core { node: 0, cpus: vec![0] });
        }
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

    /// Number of NUMA nodes with a usable core.
    pub fn nodes(&self) -> usize {
        self.cores.last().map_or(1, |core| core.node + 1)
    }

    /// Where lane `lane` of `lanes` belongs: lanes are spread evenly over the cores in their order, and lanes that share
    /// a core take its hardware threads in turn.
    pub fn place(&self, lane: usize, lanes: usize) -> Place {
        let core_of = |lane: usize| lane * self.cores.len() / lanes.max(1);
        let core = &self.cores[core_of(lane)];
        let before = (0..lane).rev().take_while(|&other| core_of(other) == core_of(lane)).count();
        Place { node: core.node, cpu: core.cpus[before % core.cpus.len()] }
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
mod tests {
    use super::*;

    /// A machine: for each core its node and hardware threads.
    fn machine(cores: &[(usize, &[usize])]) -> tempfile::TempDir {
        let root = tempfile::tempdir().unwrap();
        let system = root.path().join("sys/devices/system");
        let text = |cpus: &[usize]| cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",") + "\n";
        let write = |path: String, cpus: &[usize]| {
            let path = system.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text(cpus)).unwrap();
        };
        let all: Vec<usize> = cores.iter().flat_map(|(_, cpus)| cpus.iter().copied()).collect();
        write("cpu/online".into(), &all);
        for (node, cpus) in cores {
            for cpu in *cpus {
                write(format!("cpu/cpu{cpu}/topology/thread_siblings_list"), cpus);
            }
            let of_node: Vec<usize> =
                cores.iter().filter(|(n, _)| n == node).flat_map(|(_, cpus)| cpus.iter().copied()).collect();
            write(format!("node/node{node}/cpulist"), &of_node);
        }
        root
    }

    fn two_nodes() -> tempfile::TempDir {
        machine(&[(0, &[0, 4]), (0, &[1, 5]), (1, &[2, 6]), (1, &[3, 7])])
    }

    fn places(topology: &Topology, lanes: usize) -> Vec<(usize, usize)> {
        (0..lanes).map(|lane| topology.place(lane, lanes)).map(|place| (place.node, place.cpu)).collect()
    }

    #[test]
    fn hardware_threads_of_a_core_count_once() {
        let root = two_nodes();
        let topology = Topology::read(root.path(), &[0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!((topology.cores(), topology.nodes()), (4, 2));
        assert_eq!(places(&topology, 4), [(0, 0), (0, 1), (1, 2), (1, 3)]);
    }

    #[test]
    fn few_lanes_are_spread_over_the_nodes_and_many_take_hardware_threads_in_turn() {
        let root = two_nodes();
        let topology = Topology::read(root.path(), &[0, 1, 2, 3, 4, 5, 6, 7]);
        assert_eq!(places(&topology, 2), [(0, 0), (1, 2)]);
        assert_eq!(places(&topology, 1), [(0, 0)]);
        let expected = [(0, 0), (0, 4), (0, 1), (0, 5), (1, 2), (1, 6), (1, 3), (1, 7)];
        assert_eq!(places(&topology, 8), expected);
        assert_eq!(places(&topology, 12)[..3], [(0, 0), (0, 4), (0, 0)]);
    }

    #[test]
    fn what_the_process_may_not_use_is_not_there() {
        let root = two_nodes();
        let one_node = Topology::read(root.path(), &[2, 6, 3]);
        assert_eq!((one_node.cores(), one_node.nodes()), (2, 1));
        assert_eq!(places(&one_node, 2), [(0, 2), (0, 3)]);
        // Only the second hardware thread of a core is allowed.
        assert_eq!(places(&Topology::read(root.path(), &[5, 7]), 2), [(0, 5), (1, 7)]);
        // Allowed, but switched off.
        assert_eq!(Topology::read(root.path(), &[0, 4, 9]).cores(), 1);
    }

    #[test]
    fn numbers_may_have_holes() {
        let root = machine(&[(1, &[8]), (1, &[10]), (6, &[3, 64])]);
        let topology = Topology::read(root.path(), &[3, 8, 10, 64]);
        assert_eq!((topology.cores(), topology.nodes()), (3, 2));
        assert_eq!(places(&topology, 3), [(0, 8), (0, 10), (1, 3)]);
    }

    #[test]
    fn without_files_each_thread_is_a_core_of_one_node() {
        let empty = tempfile::tempdir().unwrap();
        let topology = Topology::read(empty.path(), &[4, 2]);
        assert_eq!((topology.cores(), topology.nodes()), (2, 1));
        assert_eq!(places(&topology, 2), [(0, 2), (0, 4)]);
        assert_eq!(Topology::read(empty.path(), &[]).cores(), 1);
    }

    #[test]
    fn lists_are_read_as_the_system_writes_them() {
        assert_eq!(parse_list("0-3,8,10-11\n"), [0, 1, 2, 3, 8, 10, 11]);
        assert_eq!(parse_list(" \n"), [0; 0]);
        assert_eq!(parse_list("x,3-1,7"), [7]);
    }
}
