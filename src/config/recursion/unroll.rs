//! The calls of one supervision step, counted and in order.

use super::{CallStep, Count, Input, Recorded, Recursion, Step, Take};
use crate::config::ModelConfig;

/// Most calls of a supervision step.
pub(in crate::config) const MAX_CALLS: u64 = 1 << 21;

impl Recursion {
    /// How many calls there are. Saturates.
    pub fn n_calls(&self, config: &ModelConfig) -> u64 {
        n_calls(&self.steps, config)
    }

    /// Every call in order, and whether it is marked as recorded.
    pub fn unrolled(&self, config: &ModelConfig) -> Vec<(&CallStep, bool)> {
        let mut calls = Vec::new();
        unroll(&self.steps, config, false, &mut |call, recorded| calls.push((call, recorded)));
        calls
    }

    /// Calls of the last cycle: from the last pass of the last repeated steps (of those that lie in no others) to the end;
    /// all calls where nothing is repeated.
    pub fn n_last_cycle(&self, config: &ModelConfig) -> u64 {
        let mut calls = 0u64;
        for step in self.steps.iter().rev() {
            if let Step::Steps { take: Take::Repeat(_), steps, .. } = step {
                return calls.saturating_add(n_calls(steps, config));
            }
            calls = calls.saturating_add(n_calls(std::slice::from_ref(step), config));
        }
        calls
    }

    /// Of the repeated steps that it begins with: the calls of one pass, and the passes. `None` where it does not.
    pub fn first_cycle(&self, config: &ModelConfig) -> Option<(u64, u64)> {
        match self.steps.first() {
            Some(Step::Steps { take: Take::Repeat(times), steps, .. }) => {
                Some((n_calls(steps, config), times.of(config) as u64))
            }
            _ => None,
        }
    }

    /// Whether a call is marked as recorded.
    pub fn has_marks(&self) -> bool {
        fn any(steps: &[Step]) -> bool {
            steps.iter().any(|step| match step {
                Step::Call { recorded, .. } => *recorded,
                Step::Steps { recorded, steps, .. } => *recorded != Recorded::No || any(steps),
            })
        }
        any(&self.steps)
    }

    /// Whether something of a supervision step reaches the next one: a call reads a state that none has written before it.
    pub fn carries(&self, config: &ModelConfig) -> bool {
        let mut written = vec![false; self.states.len()];
        let mut carries = false;
        self.one_pass(config, &mut |call| {
            carries |= call.inputs.iter().any(|input| matches!(input, Input::State(state) if !written[*state]));
            written[call.target] = true;
        });
        carries
    }

    /// Whether the answer is written, however few steps the counts leave.
    pub fn writes_answer(&self, config: &ModelConfig) -> bool {
        let mut writes = false;
        self.one_pass(config, &mut |call| writes |= call.target == self.answer);
        writes
    }

    /// The first of steps that are fewer than their count: `(the count, its number, the steps)`.
    pub fn too_few_steps(&self, config: &ModelConfig) -> Option<(Count, usize, usize)> {
        fn find(steps: &[Step], config: &ModelConfig) -> Option<(Count, usize, usize)> {
            steps.iter().find_map(|step| match step {
                Step::Call { .. } => None,
                Step::Steps { take: Take::First(count), steps, .. } if count.of(config) > steps.len() => {
                    Some((*count, count.of(config), steps.len()))
                }
                Step::Steps { steps, .. } => find(steps, config),
            })
        }
        find(&self.steps, config)
    }

    /// Visits the calls with one pass of everything that is repeated.
    fn one_pass<'a>(&'a self, config: &ModelConfig, visit: &mut impl FnMut(&'a CallStep)) {
        fn walk<'a>(steps: &'a [Step], config: &ModelConfig, visit: &mut impl FnMut(&'a CallStep)) {
            for step in steps {
                match step {
                    Step::Call { call, .. } => visit(call),
                    Step::Steps { take, steps, .. } => walk(taken(*take, steps, config).1, config, visit),
                }
            }
        }
        walk(&self.steps, config, visit);
    }
}

/// `(how often, which)` of steps.
fn taken<'a>(take: Take, steps: &'a [Step], config: &ModelConfig) -> (usize, &'a [Step]) {
    match take {
        Take::Repeat(times) => (times.of(config), steps),
        Take::First(many) => (1, &steps[..many.of(config).min(steps.len())]),
    }
}

fn n_calls(steps: &[Step], config: &ModelConfig) -> u64 {
    let of_step = |step: &Step| match step {
        Step::Call { .. } => 1,
        Step::Steps { take, steps, .. } => {
            let (times, steps) = taken(*take, steps, config);
            n_calls(steps, config).saturating_mul(times as u64)
        }
    };
    steps.iter().map(of_step).fold(0, u64::saturating_add)
}

fn unroll<'a>(steps: &'a [Step], config: &ModelConfig, inside: bool, visit: &mut impl FnMut(&'a CallStep, bool)) {
    for step in steps {
        match step {
            Step::Call { call, recorded } => visit(call, inside || *recorded),
            Step::Steps { take, steps, recorded } => {
                let (times, steps) = taken(*take, steps, config);
                for pass in 1..=times {
                    let marked = match recorded {
                        Recorded::No => false,
                        Recorded::Last => pass == times,
                        Recorded::All => true,
                    };
                    unroll(steps, config, inside || marked, visit);
                }
            }
        }
    }
}
