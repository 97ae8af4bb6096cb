//! The number of threads changes nothing but the time.

use std::fs;
use std::sync::Arc;

use crate::common::{RandomExamples, config};
use trm::config::{Arch, Augment, Config, DetachedPrecision, Gradient, Mixing, Positions, PrecisionSetting};
use trm::dataset::arc::{ONLINE_FILE, Options, Stored, Subset, build, online_file};
use trm::dataset::{Examples, TaskData};
use trm::device::Cpu;
use trm::device::Topology;
use trm::engine::{Engine as _, Lanes, PuzzleTable, Slots, Weights};
use trm::model::Model;
use trm::puzzle::arc::generator::generate;
use trm::train::{StepReport, Trainer};

/// Everything a few updates leave behind, as bits.
#[derive(PartialEq)]
struct Left {
    weights: Vec<u32>,
    ema: Vec<u32>,
    table: Option<Arc<PuzzleTable>>,
    carries: Vec<(Slots, Vec<Vec<f32>>)>,
    reports: Vec<StepReport>,
}

/// Updates of a training: a slot lives for at most four.
const UPDATES: usize = 6;

fn train(mixing: Mixing, batch_size: usize, groups: usize, threads: usize) -> Left {
    train_on(&Lanes::new(threads).unwrap(), mixing, batch_size, groups)
}

fn train_on(lanes: &Lanes, mixing: Mixing, batch_size: usize, groups: usize) -> Left {
    let mut config = config(mixing, batch_size);
    (config.train.gradient_groups, config.model.l_cycles) = (groups, 1);
    let mut examples = RandomExamples::new(&config);
    left_by(lanes, config, &mut examples)
}

fn left_by(lanes: &Lanes, config: Config, examples: &mut dyn Examples) -> Left {
    left_after(UPDATES, lanes, config, examples)
}

fn left_after(updates: usize, lanes: &Lanes, config: Config, examples: &mut dyn Examples) -> Left {
    let model = Model::new(&config.model, &config.task);
    let weights = Weights::new(&model, &config);
    let mut trainer = Trainer::on(lanes, config, weights, 100).expect("room for it");
    let reports = (0..updates).map(|_| trainer.step(examples).unwrap()).collect();
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect();
    Left {
        weights: bits(trainer.engine.weights.params.values()),
        ema: bits(&trainer.engine.ema),
        table: trainer.engine.weights.table.clone(),
        carries: trainer.engine.groups().iter().map(|group| (group.slots.clone(), group.states.clone())).collect(),
        reports,
    }
}

fn assert_threads_change_nothing(mixing: Mixing, batch_size: usize, groups: usize) {
    let one = train(mixing, batch_size, groups, 1);
    assert!(one.reports.iter().all(|r| r.loss.is_finite() && r.q_continue_loss > 0.0));
    assert!(one.table.as_ref().is_some_and(|table| (0..5).any(|id| table.row(id).iter().any(|&v| v != 0.0))));
    for threads in [2, 3, 5] {
        let many = train(mixing, batch_size, groups, threads);
        let what = format!("{mixing:?}, batch {batch_size}, {groups} groups, {threads} threads");
        assert!(one.weights == many.weights, "weights: {what}");
        assert!(one.ema == many.ema, "ema: {what}");
        assert!(one.table == many.table, "puzzle table: {what}");
        assert!(one.carries == many.carries, "carry: {what}");
        assert_eq!(one.reports, many.reports, "losses: {what}");
    }
}

#[test]
fn one_thread_equals_two_three_and_five_with_mlp_t() {
    assert_threads_change_nothing(Mixing::MlpT, 32, 0);
}

#[test]
fn one_thread_equals_two_three_and_five_with_attention() {
    assert_threads_change_nothing(Mixing::Attention, 32, 0);
}

#[test]
fn one_thread_equals_others_when_the_batch_is_no_multiple_of_four() {
    for batch_size in [1, 7, 30] {
        assert_threads_change_nothing(Mixing::MlpT, batch_size, 0);
        assert_threads_change_nothing(Mixing::Attention, batch_size, 0);
    }
}

#[test]
fn one_thread_equals_others_with_any_number_of_gradient_groups() {
    for groups in [1, 2, 3, 11, 30] {
        assert_threads_change_nothing(Mixing::MlpT, 30, groups);
    }
}

#[test]
fn one_thread_equals_others_whatever_the_model() {
    type Change = fn(&mut Config);
    let models: [(&str, Change); 11] = [
        ("attention in bf16", |c| c.train.precision = PrecisionSetting::Bf16),
        ("mlp_t in bf16", |c| {
            (c.model.mixing, c.model.positions) = (Mixing::MlpT, Positions::None);
            c.train.precision = PrecisionSetting::Bf16;
        }),
        ("attention in int8 where there is no gradient", |c| c.train.detached_precision = DetachedPrecision::Int8),
        ("mlp_t in int8 where there is no gradient", |c| {
            (c.model.mixing, c.model.positions) = (Mixing::MlpT, Positions::None);
            (c.train.precision, c.train.detached_precision) = (PrecisionSetting::Bf16, DetachedPrecision::Int8);
        }),
        ("hrm", |c| (c.model.arch, c.model.gradient) = (Arch::Hrm, Gradient::OneStep)),
        ("singlez", |c| c.model.arch = Arch::Singlez),
        ("hier6", |c| c.model.arch = Arch::Hier6),
        ("transformer", |c| c.model.arch = Arch::Transformer),
        ("separate nets", |c| c.model.separate_nets = true),
        ("without the continue loss", |c| c.train.continue_loss = false),
        ("direct", |c| {
            c.model.arch = Arch::Direct;
            (c.train.halt_max_steps, c.train.continue_loss) = (1, false);
        }),
    ];
    for (name, change) in models {
        let left = |threads: usize| {
            let mut config = config(Mixing::Attention, 10);
            change(&mut config);
            config.validate().unwrap_or_else(|e| panic!("{name}: {e}"));
            let mut examples = RandomExamples::new(&config);
            left_by(&Lanes::new(threads).unwrap(), config, &mut examples)
        };
        let one = left(1);
        assert!(one.reports.iter().all(|r| r.loss.is_finite()), "{name}");
        for threads in [2, 3] {
            assert!(one == left(threads), "{name}, {threads} threads");
        }
    }
}

#[test]
fn one_thread_equals_others_on_arc_copies_that_are_made_when_they_are_drawn() {
    let home = tempfile::tempdir().unwrap();
    let subset = Subset::of("all", generate(4, 3, 1, 4, 0).unwrap());
    let options = Options { aug: 5, seed: 0, side: 4, stored: Stored::Originals, pairs_per_group: None };
    let set = home.path().join("set");
    let more = [(ONLINE_FILE, online_file(0))];
    build(vec![subset], "all", options).unwrap().write_with(&set, &more, &|_| {}).unwrap();
    let left = |threads: usize| {
        let mut config = config(Mixing::Attention, 10);
        (config.data.dir, config.data.augment) = (set.display().to_string(), Augment::Online);
        let data = TaskData::load(&config.data).unwrap();
        assert!(data.task().num_puzzle_identifiers > 20, "the copies have identifiers of their own");
        config.task = data.task().clone();
        config.validate().unwrap();
        let mut batches = data.batches(&config, None).unwrap();
        left_by(&Lanes::new(threads).unwrap(), config, &mut batches)
    };
    let one = left(1);
    for threads in [2, 3] {
        assert!(one == left(threads), "{threads} threads");
    }
}

/// Two NUMA nodes of two cores with two hardware threads each, as the system would describe them.
fn two_nodes() -> Topology {
    let root = tempfile::tempdir().unwrap();
    let write = |path: String, text: &str| {
        let path = root.path().join("sys/devices/system").join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    write("cpu/online".into(), "0-7\n");
    write("node/node0/cpulist".into(), "0-1,4-5\n");
    write("node/node1/cpulist".into(), "2-3,6-7\n");
    for cpu in 0..8 {
        write(format!("cpu/cpu{cpu}/topology/core_cpus_list"), &format!("{},{}\n", cpu % 4, cpu % 4 + 4));
    }
    Topology::read(root.path(), &[0, 1, 2, 3, 4, 5, 6, 7])
}

#[test]
fn weights_kept_once_for_each_numa_node_change_nothing() {
    let topology = two_nodes();
    for (batch_size, groups) in [(32, 0), (30, 11), (2, 0)] {
        let one = train(Mixing::MlpT, batch_size, groups, 1);
        for threads in [2, 4, 5] {
            let lanes = Lanes::<Cpu<f32>>::on(&topology, threads).unwrap();
            assert_eq!(lanes.lanes_of_node().len(), 2);
            let what = format!("batch {batch_size}, {groups} groups, {threads} threads");
            assert!(one == train_on(&lanes, Mixing::MlpT, batch_size, groups), "{what}");
        }
    }
}

#[test]
fn several_pools_of_a_process_do_not_disturb_each_other() {
    let jobs = [(Mixing::MlpT, 14), (Mixing::Attention, 10)];
    let alone = jobs.map(|(mixing, batch_size)| train(mixing, batch_size, 0, 1));
    let at_once = std::thread::scope(|scope| {
        let threads = jobs.map(|(mixing, batch_size)| scope.spawn(move || train(mixing, batch_size, 0, 2)));
        threads.map(|thread| thread.join().unwrap())
    });
    assert!(alone == at_once, "side by side");
    // The threads of one wait in the other: a lane is that of the pool, not of the thread's number.
    let (outer, inner) = (Lanes::new(3).unwrap(), Lanes::<Cpu<f32>>::on(&two_nodes(), 4).unwrap());
    let (mixing, batch_size) = jobs[0];
    assert!(alone[0] == outer.install(|| train_on(&inner, mixing, batch_size, 0)), "one inside the other");
    // Both on the threads of one pool.
    let lanes = Lanes::new(3).unwrap();
    let on_the_same = std::thread::scope(|scope| {
        let threads = jobs.map(|(mixing, batch_size)| {
            scope.spawn({
                let lanes = &lanes;
                move || train_on(lanes, mixing, batch_size, 0)
            })
        });
        threads.map(|thread| thread.join().unwrap())
    });
    assert!(alone == on_the_same, "on the same threads");
}

#[test]
fn lanes_that_help_with_the_last_groups_change_nothing() {
    for mixing in [Mixing::MlpT, Mixing::Attention] {
        for precision in [PrecisionSetting::F32, PrecisionSetting::Bf16] {
            let left = |threads: usize, (batch_size, groups): (usize, usize)| {
                let mut config = config(mixing, batch_size);
                // Large enough for every product to be cut.
                (config.model.hidden_size, config.model.inner_multiple, config.model.l_cycles) = (128, 256, 1);
                (config.train.gradient_groups, config.train.precision) = (groups, precision);
                config.validate().unwrap();
                let mut examples = RandomExamples::new(&config);
                // The second update begins where the first has left weights and states.
                left_after(2, &Lanes::new(threads).unwrap(), config, &mut examples)
            };
            for batch in [(4, 1), (11, 3)] {
                let one = left(1, batch);
                assert!(one.reports.iter().all(|r| r.loss.is_finite()));
                for threads in [2, 7] {
                    assert!(one == left(threads, batch), "{mixing:?}, {precision:?}, {batch:?}, {threads} threads");
                }
            }
        }
    }
}
