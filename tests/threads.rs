//! The number of threads changes nothing but the time.

mod common;

use common::{RandomExamples, config};
use trm::config::Mixing;
use trm::model::Model;
use trm::train::{Carry, Lanes, PuzzleTable, StepReport, Trainer, Weights};

/// Everything a few updates leave behind, as bits.
#[derive(PartialEq)]
struct Left {
    weights: Vec<u32>,
    ema: Vec<u32>,
    table: Option<PuzzleTable>,
    carries: Vec<Carry>,
    reports: Vec<StepReport>,
}

fn train(mixing: Mixing, batch_size: usize, groups: usize, threads: usize) -> Left {
    let mut config = config(mixing, batch_size);
    config.train.gradient_groups = groups;
    let lanes = Lanes::new(threads).unwrap();
    let model = Model::new(&config.model, &config.task);
    let mut examples = RandomExamples::new(&config);
    let weights = Weights::new(&model, &config);
    let mut trainer = Trainer::new(config, weights, 100);
    let reports = (0..9).map(|_| trainer.step(&lanes, &mut examples).unwrap()).collect();
    let bits = |values: &[f32]| values.iter().map(|v| v.to_bits()).collect();
    Left {
        weights: bits(trainer.weights.params.values()),
        ema: bits(&trainer.ema),
        table: trainer.weights.table.clone(),
        carries: trainer.groups.iter().map(|group| group.carry.clone()).collect(),
        reports,
    }
}

fn assert_threads_change_nothing(mixing: Mixing, batch_size: usize, groups: usize) {
    let one = train(mixing, batch_size, groups, 1);
    assert!(one.reports.iter().all(|r| r.loss.is_finite() && r.q_continue_loss > 0.0));
    assert!(one.table.as_ref().is_some_and(|table| table.values.iter().any(|&v| v != 0.0)));
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
