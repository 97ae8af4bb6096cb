//! What an evaluation's puzzles came to, and the figures that follow from it (specification, "Numbers that `trm` prints").

use std::collections::HashSet;

use super::halt_rule::confidence;
use crate::report::{Evaluation, StepAccuracy};

/// What a supervision step came to for one puzzle.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StepScore {
    /// Right tokens among those with a label.
    pub correct: u32,
    /// Tokens with a label; none: the answer is not known, and the puzzle is no part of any figure.
    pub labelled: u32,
    /// `(q_halt, q_continue)`.
    pub q: [f64; 2],
    /// Whether the answer solves the puzzle, where a board judges.
    pub valid: bool,
}

impl StepScore {
    /// Whether every labelled token is right; `None` where there is none.
    pub fn is_exact(&self) -> Option<bool> {
        (self.labelled > 0).then_some(self.correct == self.labelled)
    }

    /// σ(q_halt).
    pub fn confidence(&self) -> f64 {
        confidence(self.q[0])
    }
}

/// A puzzle's number among those evaluated, and what each supervision step that it took came to.
pub type Outcome = (usize, Vec<StepScore>);

/// What the puzzles of an evaluation came to, in their order.
#[derive(Clone, Debug, PartialEq)]
pub struct Outcomes {
    /// Each puzzle's.
    pub puzzles: Vec<Outcome>,
    /// Supervision steps that a puzzle may take.
    pub steps: u32,
    /// Whether a board has judged the answers too.
    pub judged: bool,
}

impl Outcomes {
    /// The figures; `group` is whose copy a puzzle is.
    pub fn evaluation(&self, group: impl Fn(usize) -> usize) -> Evaluation {
        let known: Vec<&Outcome> = self.puzzles.iter().filter(|(_, steps)| is_known(steps)).collect();
        let share = |sum: f64| if known.is_empty() { f64::NAN } else { sum / known.len() as f64 };
        let by_step: Vec<StepAccuracy> = (1..=self.steps)
            .map(|step| {
                let (mut exact, mut tokens, mut halts, mut valids) = (0u64, 0.0, 0u64, 0u64);
                for (_, steps) in &known {
                    let score = steps[steps.len().min(step as usize) - 1];
                    let is_exact = score.correct == score.labelled;
                    exact += u64::from(is_exact);
                    tokens += f64::from(score.correct) / f64::from(score.labelled);
                    halts += u64::from((score.q[0] >= 0.0) == is_exact);
                    valids += u64::from(score.valid);
                }
                StepAccuracy {
                    step,
                    exact_accuracy: share(exact as f64),
                    token_accuracy: share(tokens),
                    halt_accuracy: share(halts as f64),
                    valid: self.judged.then(|| share(valids as f64)),
                }
            })
            .collect();
        let last = by_step.last().copied().unwrap_or_default();
        let groups: HashSet<usize> = known.iter().map(|&&(at, _)| group(at)).collect();
        Evaluation {
            exact_accuracy: last.exact_accuracy,
            token_accuracy: last.token_accuracy,
            halt_accuracy: last.halt_accuracy,
            valid: last.valid,
            puzzles: known.len(),
            groups: Some(groups.len()).filter(|&groups| groups != known.len()),
            unlabelled: self.puzzles.len() - known.len(),
            mean_steps: share(known.iter().map(|(_, steps)| steps.len()).sum::<usize>() as f64),
            by_step,
        }
    }
}

/// Whether a puzzle's answer is known.
fn is_known(steps: &[StepScore]) -> bool {
    steps.last().is_some_and(|score| score.labelled > 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn score(correct: u32, labelled: u32, q: f64) -> StepScore {
        StepScore { correct, labelled, q: [q, 0.0], valid: false }
    }

    #[test]
    fn an_answer_that_is_not_known_is_no_part_of_any_figure() {
        let known = [(0, vec![score(4, 4, 1.0)]), (1, vec![score(1, 4, 1.0), score(2, 4, -1.0)])];
        let with = |puzzles: Vec<Outcome>| Outcomes { puzzles, steps: 2, judged: false }.evaluation(|at| at);
        let figures = with(known.to_vec());
        assert_eq!((figures.puzzles, figures.exact_accuracy, figures.token_accuracy), (2, 0.5, 0.75));
        assert_eq!((figures.halt_accuracy, figures.mean_steps, figures.groups), (1.0, 1.5, None));
        let unknown = (2, vec![score(0, 0, 3.0), score(0, 0, 3.0)]);
        let more = with([known.to_vec(), vec![unknown.clone()]].concat());
        assert_eq!(Evaluation { unlabelled: 0, ..more.clone() }, figures);
        assert_eq!(more.unlabelled, 1);
        let none = with(vec![unknown]);
        assert!(none.puzzles == 0 && none.exact_accuracy.is_nan() && none.by_step[0].token_accuracy.is_nan());
    }

    #[test]
    fn copies_are_counted_as_one_group() {
        let puzzles: Vec<Outcome> = (0..6).map(|at| (at, vec![score(1, 1, 0.0)])).collect();
        let figures = Outcomes { puzzles, steps: 1, judged: false }.evaluation(|at| at / 3);
        assert_eq!((figures.puzzles, figures.groups), (6, Some(2)));
    }
}
