//! Evaluation: accuracy after each supervision step (specification, "Deep supervision"). Every puzzle gets all steps, or, with a
//! halting rule, as many as its halting head says.

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rayon::prelude::*;

use super::Inference;
use super::outcomes::{Outcome, Outcomes, StepScore};
use crate::device::{Device, IGNORE_LABEL, Real};
use crate::engine::Group;
use crate::error::Result;
use crate::puzzle::Board;
use crate::report::Evaluation;

/// A puzzle that has been answered.
pub struct Answered<'a> {
    /// Its number among those evaluated.
    pub at: usize,
    /// What each supervision step that it took came to.
    pub steps: &'a [StepScore],
    /// The tokens of the answer after each of them; of the last one only, unless all are asked for.
    pub answers: &'a [u8],
    seq_len: usize,
}

impl Answered<'_> {
    /// The last answer's tokens.
    pub fn answer(&self) -> &[u8] {
        &self.answers[self.answers.len() - self.seq_len..]
    }

    /// σ(q_halt) of the last answer.
    pub fn confidence(&self) -> f64 {
        self.steps.last().map_or(f64::NAN, StepScore::confidence)
    }
}

/// Who is told of each puzzle that has been answered, on any thread and in any order.
#[derive(Clone, Copy)]
pub struct Observer<'a> {
    /// Is told.
    pub tell: &'a (dyn Fn(&Answered<'_>) + Sync),
    /// Whether it is told the answers after all steps, and not the last only.
    pub every_answer: bool,
}

impl<'a> Observer<'a> {
    /// Of last answers.
    pub fn new(tell: &'a (dyn Fn(&Answered<'_>) + Sync)) -> Self {
        Self { tell, every_answer: false }
    }
}

impl<D: Device> Inference<'_, D> {
    /// Evaluates `n` examples; `write` gives example i (tokens, labels, identifier). `None` when `stop` cut it short. Where a
    /// board is given, it judges answers too; an observer is told of each example's answers.
    ///
    /// Each lane works on a shard of a few puzzles; one that is done leaves, and the next that waits takes its slot.
    /// What a puzzle gets does not depend on the others in the shard, and accuracy is summed in the order of the examples,
    /// so threads change nothing.
    ///
    /// # Errors
    /// The first of `write`; all lanes then stop at their next step.
    pub fn evaluate(
        &self,
        n: usize,
        write: impl Fn(usize, &mut [u8], &mut [i32]) -> Result<u32> + Sync,
        board: Option<&dyn Board>,
        observer: Option<Observer<'_>>,
        stop: impl Fn() -> bool + Sync,
    ) -> Result<Option<Evaluation>> {
        let outcomes = self.outcomes(n, write, score, board, observer, stop)?;
        Ok(outcomes.map(|outcomes| outcomes.evaluation(|example| example)))
    }

    /// The same, puzzle by puzzle; `right` says how many of the labelled tokens of example i are right in an answer, and how
    /// many there are.
    pub(super) fn outcomes(
        &self,
        n: usize,
        write: impl Fn(usize, &mut [u8], &mut [i32]) -> Result<u32> + Sync,
        right: impl Fn(usize, &[u8], &[i32]) -> Result<(u32, u32)> + Sync,
        board: Option<&dyn Board>,
        observer: Option<Observer<'_>>,
        stop: impl Fn() -> bool + Sync,
    ) -> Result<Option<Outcomes>> {
        let waiting = AtomicUsize::new(0);
        let next = || Some(waiting.fetch_add(1, Ordering::Relaxed)).filter(|&example| example < n);
        let failed = AtomicBool::new(false);
        let stop = || failed.load(Ordering::Relaxed) || stop();
        let threads = self.lanes.threads();
        let work = Work {
            inference: self,
            shard: share(self.lanes.shard(self.model.len), n, threads),
            next: &next,
            write: &write,
            right: &right,
            board,
            observer,
            stop: &stop,
        };
        let run = |_| work.run().inspect_err(|_| failed.store(true, Ordering::Relaxed));
        let lanes_outcomes: Result<Vec<Option<Vec<Outcome>>>> =
            self.lanes.install(|| (0..threads).into_par_iter().with_max_len(1).map(run).collect());
        let Some(outcomes) = lanes_outcomes?.into_iter().collect::<Option<Vec<_>>>() else { return Ok(None) };
        let mut puzzles: Vec<Outcome> = outcomes.into_iter().flatten().collect();
        puzzles.sort_unstable_by_key(|&(example, _)| example);
        Ok(Some(Outcomes { puzzles, steps: self.options.steps, judged: board.is_some() }))
    }
}

/// Puzzles a lane takes at a time: a whole `shard`, or its part of few, so that none is left with nothing to do.
fn share(shard: usize, n: usize, threads: usize) -> usize {
    n.div_ceil(threads).clamp(1, shard)
}

/// What each lane does.
struct Work<'a, D: Device, N, W, R, S> {
    inference: &'a Inference<'a, D>,
    /// Puzzles at a time.
    shard: usize,
    /// The next example, as long as there are any.
    next: N,
    write: W,
    right: R,
    board: Option<&'a dyn Board>,
    observer: Option<Observer<'a>>,
    stop: S,
}

impl<D, N, W, R, S> Work<'_, D, N, W, R, S>
where
    D: Device,
    N: Fn() -> Option<usize>,
    W: Fn(usize, &mut [u8], &mut [i32]) -> Result<u32>,
    R: Fn(usize, &[u8], &[i32]) -> Result<(u32, u32)>,
    S: Fn() -> bool,
{
    /// `None` when `stop` cut it short.
    fn run(&self) -> Result<Option<Vec<Outcome>>> {
        let Inference { lanes, model, weights, options } = *self.inference;
        let seq_len = model.embedding.seq_len;
        let every_answer = self.observer.is_some_and(|observer| observer.every_answer);
        let mut group = Group::on::<D>(model, self.shard);
        // Those at work, with their answers until now where somebody wants to know them.
        let mut live: Vec<(Outcome, Vec<u8>)> = Vec::new();
        let mut done = Vec::new();
        loop {
            while live.len() < self.shard
                && let Some(example) = (self.next)()
            {
                group.slots.refill(live.len(), |inputs, labels| (self.write)(example, inputs, labels))?;
                live.push(((example, Vec::new()), Vec::new()));
            }
            if live.is_empty() {
                return Ok(Some(done));
            }
            if (self.stop)() {
                return Ok(None);
            }
            lanes.with_lane(|lane| lane.infer(model, weights, &mut group, 0..live.len()));
            for slot in (0..live.len()).rev() {
                let tokens = slot * seq_len..(slot + 1) * seq_len;
                let (question, answer) = (&group.slots.inputs[tokens.clone()], &group.outcome.tokens[tokens.clone()]);
                let ((example, steps), answers) = &mut live[slot];
                let (correct, labelled) = (self.right)(*example, answer, &group.slots.labels[tokens])?;
                let valid = self.board.is_some_and(|board| board.solves(question, answer));
                let q = group.outcome.q[slot].map(Real::to_f64);
                steps.push(StepScore { correct, labelled, q, valid });
                if every_answer {
                    answers.extend_from_slice(answer);
                }
                if steps.len() >= options.steps as usize || options.halt.is_some_and(|rule| rule.is_done(q)) {
                    if let Some(observer) = self.observer {
                        let answers = if every_answer { answers } else { answer };
                        (observer.tell)(&Answered { at: *example, steps, answers, seq_len });
                    }
                    done.push(live.swap_remove(slot).0);
                    group.move_slot(live.len(), slot);
                }
            }
        }
    }
}

/// `(right, labelled)` tokens of one sequence.
pub(super) fn score(_: usize, answer: &[u8], labels: &[i32]) -> Result<(u32, u32)> {
    let labelled = answer.iter().zip(labels).filter(|(_, label)| **label != IGNORE_LABEL);
    Ok(labelled.fold((0, 0), |(right, all), (&token, &label)| (right + u32::from(i32::from(token) == label), all + 1)))
}

#[cfg(test)]
mod tests {
    use super::super::{HaltRule, InferenceOptions};
    use super::*;
    use crate::config::{Config, Mixing};
    use crate::device::{Cpu, ParamId};
    use crate::engine::{Lanes, Weights};
    use crate::model::Model;
    use crate::rng::Rng;

    /// A small model with a random halting head, shifted so that about half of what it says is above 0.
    fn model(mixing: Mixing) -> (Model, Weights) {
        let mut config = Config::preset("sudoku-4x4").expect("preset");
        let m = &mut config.model;
        (m.hidden_size, m.inner_multiple, m.h_cycles, m.l_cycles, m.mixing) = (32, 32, 1, 2, mixing);
        let model = Model::new(&config.model, &config.task);
        let mut weights: Weights = Weights::new(&model, &config);
        let range = |id: ParamId| model.layout.tensors()[id.index()].range();
        let (weight, bias) = (range(model.heads.q_weight), range(model.heads.q_bias));
        let mut rng = Rng::new(3);
        weights.params.update(|values| {
            values[weight].fill_with(|| (rng.uniform() - 0.5) as f32);
            values[bias.clone()].fill(0.0);
        });
        let said: Vec<[f64; 2]> = scores((&model, &weights), 45, 1, InferenceOptions { steps: 6, halt: None })
            .iter()
            .flat_map(|(_, scores)| scores.iter().map(|score| score.q))
            .collect();
        let medians = [0, 1].map(|i| {
            let mut sorted: Vec<f64> = said.iter().map(|q| q[i]).collect();
            sorted.sort_by(f64::total_cmp);
            sorted[sorted.len() / 2]
        });
        weights.params.update(|values| values[bias].copy_from_slice(&medians.map(|median| -median as f32)));
        (model, weights)
    }

    fn example(i: usize, inputs: &mut [u8], labels: &mut [i32]) -> Result<u32> {
        let mut rng = Rng::stream(7, i as u64);
        inputs.fill_with(|| rng.below(6) as u8);
        labels.fill_with(|| rng.below(6) as i32);
        Ok(0)
    }

    /// A lane's work on examples that nobody stops.
    fn scored(inference: &Inference<'_, Cpu<f32>>, shard: usize, next: impl Fn() -> Option<usize>) -> Vec<Outcome> {
        let work =
            Work { inference, shard, next, write: example, right: score, board: None, observer: None, stop: || false };
        work.run().expect("read").expect("not stopped")
    }

    /// Example, steps and everything said of each of `n` puzzles, in the order of the examples.
    fn scores(stored: (&Model, &Weights), n: usize, threads: usize, options: InferenceOptions) -> Vec<Outcome> {
        let lanes = Lanes::new(threads).expect("threads");
        let waiting = AtomicUsize::new(0);
        let next = || Some(waiting.fetch_add(1, Ordering::Relaxed)).filter(|&example| example < n);
        let size = share(Cpu::<f32>::shard(stored.0.len), n, threads);
        let inference = Inference { lanes: &lanes, model: stored.0, weights: stored.1, options };
        let run = |_| scored(&inference, size, next);
        let mut all: Vec<_> = lanes.install(|| (0..threads).into_par_iter().flat_map_iter(run).collect());
        all.sort_unstable_by_key(|&(example, _)| example);
        all
    }

    #[test]
    fn a_puzzle_gets_the_same_bits_whoever_shares_its_shard_and_however_many_threads_there_are() {
        for mixing in [Mixing::MlpT, Mixing::Attention] {
            let (model, weights) = model(mixing);
            let stored = (&model, &weights);
            let n = 45;
            for halt in [None, Some(HaltRule::Positive), Some(HaltRule::Compare), Some(HaltRule::Confident(0.5))] {
                let options = InferenceOptions { steps: 6, halt };
                let lanes = Lanes::new(1).expect("threads");
                let inference = Inference { lanes: &lanes, model: &model, weights: &weights, options };
                // Each puzzle alone.
                let alone: Vec<Outcome> = (0..n)
                    .map(|i| {
                        let taken = AtomicUsize::new(0);
                        let next = || (taken.fetch_add(1, Ordering::Relaxed) == 0).then_some(i);
                        lanes.install(|| scored(&inference, 1, next)).remove(0)
                    })
                    .collect();
                for (n, threads) in [(n, 1), (n, 2), (n, 3), (3, 2), (5, 2)] {
                    let together = scores(stored, n, threads, options);
                    assert!(together == alone[..n], "{mixing:?}, {halt:?}, {n} puzzles, {threads} threads");
                }
                let lengths: Vec<usize> = alone.iter().map(|(_, scores)| scores.len()).collect();
                let differ = lengths.iter().any(|&l| l < 6) && lengths.iter().any(|&l| l != lengths[0]);
                assert_eq!(differ, halt.is_some(), "{lengths:?}");
            }
        }
    }

    #[test]
    fn few_puzzles_keep_all_lanes_busy() {
        let cases =
            [(4, 4, 2, 2), (4, 5, 2, 3), (4, 1, 2, 1), (4, 0, 2, 1), (4, 64, 2, 4), (1, 64, 2, 1), (4, 12, 8, 2)];
        for (shard, n, threads, expected) in cases {
            assert_eq!(share(shard, n, threads), expected, "{n} puzzles, {threads} threads");
        }
    }

    #[test]
    fn halting_keeps_the_answer_of_the_step_it_halts_at() {
        let (model, weights) = model(Mixing::MlpT);
        let all = scores((&model, &weights), 20, 1, InferenceOptions { steps: 5, halt: None });
        let rule = HaltRule::Positive;
        let halted = scores((&model, &weights), 20, 1, InferenceOptions { steps: 5, halt: Some(rule) });
        for ((i, all), (j, halted)) in all.iter().zip(&halted) {
            assert_eq!(i, j);
            let expected = all.iter().position(|score| rule.is_done(score.q)).map_or(5, |at| at + 1);
            assert!(halted[..] == all[..expected], "example {i}");
        }
        let lanes = Lanes::new(2).expect("threads");
        let options = InferenceOptions { steps: 5, halt: Some(rule) };
        let inference = Inference { lanes: &lanes, model: &model, weights: &weights, options };
        let result = inference.evaluate(20, example, None, None, || false).expect("read").expect("not stopped");
        let steps: usize = halted.iter().map(|(_, scores)| scores.len()).sum();
        assert_eq!((result.puzzles, result.mean_steps, result.by_step.len()), (20, steps as f64 / 20.0, 5));
        assert!(inference.evaluate(20, example, None, None, || true).expect("read").is_none());
        let none = inference.evaluate(0, example, None, None, || false).expect("read").expect("not stopped");
        assert!(none.puzzles == 0 && none.exact_accuracy.is_nan() && none.mean_steps.is_nan());
    }

    #[test]
    fn an_example_that_cannot_be_read_ends_the_evaluation_with_its_error() {
        let (model, weights) = model(Mixing::MlpT);
        let lanes = Lanes::new(2).expect("threads");
        let broken = |i: usize, inputs: &mut [u8], labels: &mut [i32]| match i {
            9 => Err(crate::Error::input("row 9 cannot be read")),
            _ => example(i, inputs, labels),
        };
        let options = InferenceOptions { steps: 2, halt: None };
        let inference = Inference { lanes: &lanes, model: &model, weights: &weights, options };
        let result = inference.evaluate(40, broken, None, None, || false);
        assert_eq!(result.expect_err("row 9").to_string(), "row 9 cannot be read");
    }
}
