//! Faked machines.

use super::*;

/// Writes a file of the system.
fn put(root: &Path, path: &str, text: &str) {
    let path = root.join(path);
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
}

/// A machine: for each core its node and hardware threads.
fn machine(cores: &[(usize, &[usize])]) -> tempfile::TempDir {
    let root = tempfile::tempdir().unwrap();
    let text = |cpus: &[usize]| cpus.iter().map(usize::to_string).collect::<Vec<_>>().join(",") + "\n";
    let write = |path: String, cpus: &[usize]| {
        put(root.path(), &format!("sys/devices/system/{path}"), &text(cpus));
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

/// Of a processor: its node, and the hardware threads of each core.
type Kind = (usize, Vec<Vec<usize>>);

/// A machine of real processors: every hardware thread may be used.
fn built(kinds: &[Kind], files: &[(String, String)]) -> Topology {
    let cores: Vec<(usize, &[usize])> =
        kinds.iter().flat_map(|(node, cores)| cores.iter().map(|cpus| (*node, &cpus[..]))).collect();
    let root = machine(&cores);
    files.iter().for_each(|(path, text)| put(root.path(), path, text));
    let allowed: Vec<usize> = cores.iter().flat_map(|(_, cpus)| cpus.iter().copied()).collect();
    Topology::read(root.path(), &allowed)
}

fn capacities(of: &[(std::ops::Range<usize>, u32)]) -> Vec<(String, String)> {
    let file =
        |cpu: usize, capacity: u32| (format!("sys/devices/system/cpu/cpu{cpu}/cpu_capacity"), format!("{capacity}\n"));
    of.iter().flat_map(|(cpus, capacity)| cpus.clone().map(move |cpu| file(cpu, *capacity))).collect()
}

/// Cores that hold cpus `first`, `first + 1`, …, and `apart` further ones each, so many apart.
fn siblings(cores: std::ops::Range<usize>, apart: usize) -> Vec<Vec<usize>> {
    cores.map(|core| if apart == 0 { vec![core] } else { vec![core, core + apart] }).collect()
}

#[test]
fn lanes_are_the_physical_cores_of_known_machines_that_are_fast_enough() {
    let hybrid = || {
        let fast = (0..8).map(|core| vec![2 * core, 2 * core + 1]).collect();
        vec![(0, fast), (0, siblings(16..32, 0))]
    };
    let atoms = vec![
        ("sys/devices/cpu_core/cpus".to_owned(), "0-15\n".to_owned()),
        ("sys/devices/cpu_atom/cpus".to_owned(), "16-31\n".to_owned()),
    ];
    let machines: [(&str, Topology, [usize; 3]); 7] = [
        ("Zen 4, SMT", built(&[(0, siblings(0..16, 16))], &[]), [16, 1, 16]),
        (
            "Sapphire Rapids, two sockets, SMT",
            built(&[(0, siblings(0..56, 112)), (1, siblings(56..112, 112))], &[]),
            [112, 2, 112],
        ),
        ("8 performance and 16 efficiency cores", built(&hybrid(), &atoms), [24, 1, 24]),
        (
            "the same, whose system says how fast",
            built(&hybrid(), &capacities(&[(0..16, 1024), (16..32, 610)])),
            [24, 1, 24],
        ),
        (
            "big.LITTLE, little cores half as fast",
            built(&[(0, siblings(0..8, 0))], &capacities(&[(0..4, 446), (4..8, 1024)])),
            [8, 1, 8],
        ),
        (
            "big.LITTLE, little cores four times slower",
            built(&[(0, siblings(0..8, 0))], &capacities(&[(0..4, 250), (4..8, 1024)])),
            [8, 1, 4],
        ),
        (
            "one prime, three big, four little",
            built(&[(0, siblings(0..8, 0))], &capacities(&[(0..4, 290), (4..7, 871), (7..8, 1024)])),
            [8, 1, 4],
        ),
    ];
    for (name, topology, expected) in machines {
        assert_eq!([topology.cores(), topology.nodes(), topology.lanes()], expected, "{name}");
    }
}

#[test]
fn fewer_lanes_than_cores_are_spread_over_the_faster_ones() {
    let little_first = built(&[(0, siblings(0..8, 0))], &capacities(&[(0..4, 446), (4..8, 1024)]));
    let cpus = |lanes: usize| places(&little_first, lanes).into_iter().map(|(_, cpu)| cpu).collect::<Vec<_>>();
    assert_eq!(cpus(1), [4]);
    assert_eq!(cpus(2), [4, 6]);
    assert_eq!(cpus(4), [4, 5, 6, 7]);
    assert_eq!(cpus(6), [1, 3, 4, 5, 6, 7]);
    assert_eq!(cpus(8), [0, 1, 2, 3, 4, 5, 6, 7]);
}

#[test]
fn a_quota_of_processor_time_is_rounded_to_whole_lanes() {
    for (limit, of_128) in [
        ("50000 100000", 1),
        ("100000 100000", 1),
        ("140000 100000", 1),
        ("150000 100000", 2),
        ("240000 100000", 2),
        ("6400000 100000", 64),
        ("max 100000", 128),
        ("0 100000", 128),
        ("nonsense", 128),
        ("", 128),
    ] {
        let root = tempfile::tempdir().unwrap();
        put(root.path(), "proc/self/cgroup", "0::/pod/box\n");
        put(root.path(), "sys/fs/cgroup/pod/cpu.max", limit);
        assert_eq!(within_quota(root.path(), 128), of_128, "{limit}");
        // The tightest group counts, and no quota makes processors.
        put(root.path(), "sys/fs/cgroup/pod/box/cpu.max", "300000 100000");
        assert_eq!(within_quota(root.path(), 128), of_128.min(3), "{limit} and 3");
        assert_eq!(within_quota(root.path(), 1), 1);
    }
    let old = tempfile::tempdir().unwrap();
    put(old.path(), "proc/self/cgroup", "7:cpu,cpuacct:/box\n0::/\n");
    assert_eq!(within_quota(old.path(), 8), 8, "no files");
    put(old.path(), "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "-1\n");
    put(old.path(), "sys/fs/cgroup/cpu/box/cpu.cfs_period_us", "100000\n");
    assert_eq!(within_quota(old.path(), 8), 8);
    put(old.path(), "sys/fs/cgroup/cpu/box/cpu.cfs_quota_us", "250000\n");
    assert_eq!(within_quota(old.path(), 8), 3);
}

#[test]
fn parts_of_a_machine_are_neighbours_and_keep_their_nodes() {
    let root = two_nodes();
    let all = Topology::read(root.path(), &[0, 1, 2, 3, 4, 5, 6, 7]);
    let parts = all.split(2);
    assert_eq!(parts.iter().map(|part| (part.cores(), part.nodes())).collect::<Vec<_>>(), [(2, 1), (2, 1)]);
    assert_eq!([places(&parts[0], 2), places(&parts[1], 2)], [[(0, 0), (0, 1)], [(0, 2), (0, 3)]]);
    assert_eq!(all.split(3).iter().map(Topology::cores).collect::<Vec<_>>(), [1, 1, 2]);
    assert_eq!(all.split(3)[2].nodes(), 1);
    assert_eq!((all.split(9).len(), all.split(0).len()), (4, 1));
    let little = built(&[(0, siblings(0..8, 0))], &capacities(&[(0..4, 250), (4..8, 1024)]));
    assert_eq!(
        little.split(2).iter().map(|part| places(part, 2)).collect::<Vec<_>>(),
        [[(0, 4), (0, 5)], [(0, 6), (0, 7)]]
    );
}
