//! What an evaluation prints (specification, "Numbers that `trm` prints").

use serde_json::{Value, json};

use crate::infer::Bucket;
use crate::puzzle::Judge;
use crate::puzzle::arc::vote::{PASS_AT, Score};
use crate::report::{Evaluation, Table, wilson_95};

/// An evaluation, and how it came about.
pub struct Report<'a> {
    pub evaluation: &'a Evaluation,
    /// Of ARC: the votes.
    pub score: Option<&'a Score>,
    /// `--by`, and what it gave.
    pub by: Option<(&'a str, &'a [Bucket])>,
    pub judge: Judge,
    /// With halting: supervision steps at most.
    pub halted: Option<u32>,
}

impl Report<'_> {
    pub fn json(&self) -> Value {
        // What is not known is NaN, which JSON has as null.
        let mut value = serde_json::to_value(self.evaluation).expect("reports serialize");
        value["exact_accuracy_95"] = match self.evaluation.puzzles {
            0 => Value::Null,
            _ => json!(self.evaluation.interval_95(self.evaluation.exact_accuracy)),
        };
        if self.evaluation.puzzles == 0 {
            value["by_step"] = Value::Null;
        }
        if let Some(score) = self.score {
            let mut arc = serde_json::to_value(score).expect("scores serialize");
            arc["unknown"] = (score.tasks - score.scored).into();
            let intervals = PASS_AT.iter().zip(score.pass);
            let intervals =
                intervals.map(|(k, pass)| (format!("pass@{k}"), json!(wilson_95(pass, score.scored as f64))));
            arc["pass_95"] = Value::Object(intervals.collect());
            if score.scored == 0 {
                (arc["pass"], arc["pass_95"]) = (Value::Null, Value::Null);
            }
            value["arc"] = arc;
        }
        if let Some((key, buckets)) = self.by {
            value["by"] = json!({ "key": key, "buckets": buckets });
        }
        value
    }

    pub fn text(&self) -> String {
        let mut text = String::new();
        if self.evaluation.puzzles > 0 {
            text += &self.by_step();
            text += &self.summary();
        } else if self.score.is_none() {
            text +=
                &format!("none of the {} answers is known: there is nothing to judge\n", self.evaluation.unlabelled);
        }
        text += &self.score.map_or_else(String::new, by_tasks);
        if let Some((key, buckets)) = self.by.filter(|(_, buckets)| !buckets.is_empty()) {
            text += &format!("\n{}", by_buckets(key, buckets));
        }
        text
    }

    fn by_step(&self) -> String {
        let valid = self.evaluation.valid.map(|_| "valid %");
        let mut table = Table::new(["step", "exact %", "tokens %", "halting %"].into_iter().chain(valid));
        for step in &self.evaluation.by_step {
            let shares = [step.exact_accuracy, step.token_accuracy, step.halt_accuracy].into_iter().chain(step.valid);
            table.row(std::iter::once(step.step.to_string()).chain(shares.map(percent)));
        }
        format!("{table}\n")
    }

    fn summary(&self) -> String {
        let evaluation = self.evaluation;
        let Evaluation { puzzles, exact_accuracy, mean_steps, .. } = evaluation;
        let right = (exact_accuracy * *puzzles as f64).round();
        let (low, high) = evaluation.interval_95(*exact_accuracy);
        let (low, high) = (percent(low), percent(high));
        // Copies of a puzzle are no puzzles of their own, and of ARC a test input is a row.
        let what = if self.score.is_some() || evaluation.groups.is_some() { "rows" } else { "puzzles" };
        let over = match (self.score, evaluation.groups) {
            (Some(_), groups) => format!("over {} tasks, ", groups.unwrap_or(*puzzles)),
            (None, Some(groups)) => format!("over {groups} puzzles without their copies, "),
            (None, None) => String::new(),
        };
        let halting = self.halted.map_or_else(String::new, |steps| {
            format!("; {mean_steps:.2} of {steps} supervision steps used on average")
        });
        let mut text = format!(
            "{right} of {puzzles} {what} exact: {} % ({over}95 % interval {low} to {high} %){halting}\n",
            percent(*exact_accuracy)
        );
        if evaluation.unlabelled > 0 {
            text += &match evaluation.unlabelled {
                1 => "1 further answer is not known, and left out\n".to_owned(),
                n => format!("{n} further answers are not known, and left out\n"),
            };
        }
        if let (Some(share), Judge::Rules { answer, .. }) = (evaluation.valid, self.judge) {
            text += &format!("{} % of the answers are a valid {answer}, the stored one or another\n", percent(share));
        }
        text
    }
}

fn percent(share: f64) -> String {
    format!("{:.2}", 100.0 * share)
}

/// pass@k, a line, and the intervals of the two that are reported; where no answer is known, that.
fn by_tasks(score: &Score) -> String {
    let Score { tasks, answered, scored, unknown_inputs, pass } = score;
    let counted = format!("{tasks} task{}, {answered} with answers", if *tasks == 1 { "" } else { "s" });
    if *scored == 0 {
        return format!(
            "{counted}: the set has no solutions, so none of them can be scored (--submission writes them)\n"
        );
    }
    let share = |(k, &share): (&usize, &f64)| {
        let (low, high) = wilson_95(share, *scored as f64);
        let interval = if *k <= 2 { format!(" ({} to {} %)", percent(low), percent(high)) } else { String::new() };
        format!("pass@{k} {} %{interval}", percent(share))
    };
    let shares = PASS_AT.iter().zip(pass).map(share).collect::<Vec<_>>().join(", ");
    let unknown = match (tasks - scored, unknown_inputs) {
        (_, 0) => String::new(),
        (0, inputs) => format!("; test inputs without a known answer are left out ({inputs})"),
        (without, inputs) => {
            format!("; tasks and test inputs without a known answer are left out ({without} and {inputs})")
        }
    };
    let over = if *scored == 1 { "1 task".to_owned() } else { format!("{scored} tasks") };
    format!("{counted}: {shares}{unknown}; 95 % intervals over {over}\n")
}

fn by_buckets(key: &str, buckets: &[Bucket]) -> String {
    let copies = buckets.iter().any(|bucket| bucket.groups != bucket.rows).then_some("puzzles");
    let mut table = Table::new([key, "rows"].into_iter().chain(copies).chain(["exact", "exact %", "95 % interval"]));
    for bucket in buckets {
        let (low, high) = bucket.exact_accuracy_95;
        let groups = copies.map(|_| bucket.groups.to_string());
        let counts = [bucket.value.clone(), bucket.rows.to_string()].into_iter().chain(groups);
        let interval = format!("{} to {}", percent(low), percent(high));
        table.row(counts.chain([bucket.exact.to_string(), percent(bucket.exact_accuracy), interval]));
    }
    table.to_string()
}
