//! The plan of every row of the paper's tables, as a document.

use std::fmt::Write as _;

use super::{Plan, Speed};
use crate::report::{engineering, grouped};

const INTRODUCTION: &str = "\
# Reproducing the paper's tables

Every row of Tables 1 to 5 of \"Less is More: Recursive Reasoning with Tiny Networks\" (arXiv 2510.04871v1) is a preset. This
page is written by

```
trm plan --all --markdown --cores 64 --cores 192 > docs/reproduce.md
```

and `trm plan PRESET` does the same for one row on the machine at hand, with the speed of that moment. To train a row, make
its data set once and give it to the run:

| rows | data set | command |
|---|---|---|
| `table1-…`, `table2-…`, `table3-…`, `table4-sudoku-…` | Sudoku-Extreme | `trm data import sudoku-extreme --csv train.csv --test-csv test.csv --subsample 1000 --aug 1000 --out data/sudoku-extreme-1k-aug-1000` |
| `table4-maze-…` | Maze-Hard | the published `.npy` files in `data/maze-30x30-hard-1k` |
| `table5-arc1-…` | ARC-AGI-1 and ConceptARC | `trm data import arc --dir D --prefix arc-agi --subsets training,evaluation,concept --test-set evaluation --aug 1000 --out data/arc1concept-aug-1000` |
| `table5-arc2-…` | ARC-AGI-2 and ConceptARC | the same with `--subsets training2,evaluation2,concept --test-set evaluation2 --out data/arc2concept-aug-1000` |

```
trm train --preset table1-trm --data data/sudoku-extreme-1k-aug-1000
```

Parameters are the dense weights, without the puzzle table. FLOPs are model FLOPs (2·M·N·K for each GEMM, three times
that where gradient flows, nothing for recomputation). Memory is an estimate for the threads named below. Hours on this
machine are the run's FLOPs over the speed below that was measured on a row of the same sequence length, mixing and recursion;
hours on more cores come from the scaling model of `trm bench --scaling`, for cores as fast as these. Published figures are
test accuracies in per cent; no run of these lengths was made here.

";

/// The whole document.
pub fn document(plans: &[Plan]) -> String {
    let mut text = INTRODUCTION.to_owned();
    let mut speeds: Vec<&Speed> = Vec::new();
    for plan in plans {
        if speeds.iter().any(|known| known.measured_on == plan.speed.measured_on) {
            continue;
        }
        speeds.push(&plan.speed);
        let _ = match plan.speed.measured_on {
            Some(preset) => writeln!(text, "* Speed of `{preset}` ({} tokens a row): {}.", plan.tokens, plan.speed),
            None => writeln!(text, "Speed: {}.", plan.speed),
        };
    }
    let mut table = "";
    for plan in plans {
        let number = plan.preset.split('-').next().unwrap_or_default();
        if number != table {
            table = number;
            let _ = write!(text, "\n## Table {}\n\n", number.trim_start_matches("table"));
            text += &header(plan);
        }
        text += &row(plan);
    }
    text
}

fn header(plan: &Plan) -> String {
    let mut text = String::from(
        "| preset | what | parameters | updates | an update | the run | published % | memory | hours here |",
    );
    for on in &plan.cores {
        let _ = write!(text, " {} cores |", on.cores);
    }
    text += "\n|---|---|---|---|---|---|---|---|---|";
    text += &"---|".repeat(plan.cores.len());
    text + "\n"
}

/// What depends on the machine stands behind what does not.
fn row(plan: &Plan) -> String {
    let cost = &plan.cost;
    let what = plan.description.split_once(": ").map_or(plan.description.as_str(), |(_, what)| what);
    let published = plan.figure();
    let mut text = format!(
        "| `{}` | {what} | {} | {} | {} | {} | {published} | {:.2} GB | {} |",
        plan.preset,
        grouped(cost.parameters),
        grouped(cost.updates as usize),
        engineering(cost.flops_per_update),
        engineering(cost.run_flops),
        cost.memory.total as f64 / 1e9,
        grouped(plan.hours.round() as usize),
    );
    for on in &plan.cores {
        let _ = write!(text, " {:.0} |", on.hours.ceil());
    }
    text + "\n"
}
