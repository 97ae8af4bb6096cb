//! Data parallelism: ranks that each own a node of the summation tree leave the bits of a single process.

use std::sync::{Arc, Barrier, Mutex};

use crate::common::{RandomExamples, config};
use trm::Result;
use trm::config::{Config, Mixing};
use trm::engine::{Engine as _, LaneEngine, Lanes, Peers, Weights};
use trm::model::Model;
use trm::train::{StepReport, Trainer};

/// Ranks on threads of one process, which leave their numbers where all can read them.
struct Ranks {
    barrier: Barrier,
    arrays: Vec<Mutex<Vec<f32>>>,
    numbers: Vec<Mutex<Vec<f64>>>,
}

struct Rank {
    rank: usize,
    ranks: Arc<Ranks>,
}

fn sum(arrays: &[Mutex<Vec<f32>>]) -> Vec<f32> {
    match arrays {
        [one] => one.lock().unwrap().clone(),
        _ => {
            let (left, right) = arrays.split_at(arrays.len() / 2);
            sum(left).iter().zip(sum(right)).map(|(a, b)| a + b).collect()
        }
    }
}

impl Peers<f32> for Rank {
    fn rank(&self) -> usize {
        self.rank
    }

    fn size(&self) -> usize {
        self.ranks.arrays.len()
    }

    fn sum_tree(&mut self, values: &mut [f32]) -> Result<()> {
        *self.ranks.arrays[self.rank].lock().unwrap() = values.to_vec();
        self.ranks.barrier.wait();
        values.copy_from_slice(&sum(&self.ranks.arrays));
        self.ranks.barrier.wait();
        Ok(())
    }

    fn gather(&mut self, figures: &mut Vec<f64>) -> Result<()> {
        *self.ranks.numbers[self.rank].lock().unwrap() = std::mem::take(figures);
        self.ranks.barrier.wait();
        figures.extend(self.ranks.numbers.iter().flat_map(|numbers| numbers.lock().unwrap().clone()));
        self.ranks.barrier.wait();
        Ok(())
    }
}

/// What a run leaves: weights, EMA, rows of the puzzle table, reports.
type Left = (Vec<u32>, Vec<u32>, Vec<u32>, Vec<StepReport>);

const UPDATES: usize = 7;

fn train(config: &Config, peers: Box<dyn Peers<f32>>, threads: usize) -> Left {
    let lanes = Lanes::new(threads).unwrap();
    let model = Model::new(&config.model, &config.task);
    let weights = Weights::new(&model, config);
    let engine = LaneEngine::new(&lanes, &model, &config.train, weights, &*peers);
    let mut trainer = Trainer::new(config.clone(), model, engine, peers, UPDATES as u64);
    let mut examples = RandomExamples::new(config);
    let reports = (0..UPDATES).map(|_| trainer.step(&mut examples).unwrap()).collect();
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect::<Vec<_>>();
    let engine = &mut trainer.engine;
    let (weights, ema) = (bits(engine.weights.params.values()), bits(&engine.ema));
    let table = engine.table_mut().expect("a puzzle table");
    let rows = (0..table.rows() as u32).flat_map(|id| bits(table.row(id))).collect();
    (weights, ema, rows, reports)
}

#[test]
fn two_and_four_ranks_leave_the_bits_of_one() {
    for (mixing, batch, groups) in [(Mixing::MlpT, 24, 0), (Mixing::Attention, 22, 11)] {
        let mut config = config(mixing, batch);
        config.train.gradient_groups = groups;
        let alone = train(&config, Box::new(trm::engine::Alone), 2);
        for size in [2, 4] {
            let ranks = Arc::new(Ranks {
                barrier: Barrier::new(size),
                arrays: (0..size).map(|_| Mutex::default()).collect(),
                numbers: (0..size).map(|_| Mutex::default()).collect(),
            });
            let threads: Vec<_> = (0..size)
                .map(|rank| {
                    let (config, ranks) = (config.clone(), ranks.clone());
                    std::thread::spawn(move || train(&config, Box::new(Rank { rank, ranks }), 1 + rank % 2))
                })
                .collect();
            for thread in threads {
                assert!(thread.join().unwrap() == alone, "{mixing:?}, {groups} groups, {size} ranks");
            }
        }
    }
}
