//! ARC tasks in the terminal: demonstrations, input, attempt, truth.

use super::common::FRAME;
use super::print;
use crate::dataset::TaskData;
use crate::device::Device;
use crate::error::{Error, Result};
use crate::infer::Inference;
use crate::puzzle::arc::picture::{Panel, pair, side_by_side};
use crate::puzzle::arc::{ArcBoard, Grid, Task, crop, encode};
use crate::puzzle::arc::{Augmentation, Pair};
use crate::report::Terminal;

/// Demonstrations, then test pairs.
pub fn show(task: &Task, answers: bool) -> Result<()> {
    let colour = Terminal::stdout().colour;
    for (n, shown) in (1..).zip(&task.train) {
        print(&format!("{}\n", pair(&format!("demonstration {n}"), shown, colour)))?;
    }
    for (n, shown) in (1..).zip(&task.test).filter(|_| answers) {
        let picture = match shown.is_answered() {
            true => pair(&format!("test {n}"), shown, colour),
            false => side_by_side(&[Panel::new(format!("test {n}, answer not known"), &shown.input)], colour),
        };
        print(&format!("{picture}\n"))?;
    }
    Ok(())
}

/// Lets the model answer the task's test inputs, and says whether it is right. With `watch`, demonstrations first (some
/// of them), and the attempt after every step.
pub fn solve<D: Device>(inference: &Inference<'_, D>, data: &TaskData, task: &Task, watch: bool) -> Result<()> {
    let dataset = data.dataset();
    let identifier = dataset.identifiers.iter().position(|name| *name == task.id).unwrap_or(0) as u32;
    let row = data
        .table_row(identifier)
        .ok_or_else(|| Error::input(format!("task {}: the model was trained without a task of that name", task.id)))?;
    let board = ArcBoard { side: dataset.puzzle.width };
    if watch {
        let some = Task { train: task.train.iter().take(SHOWN).cloned().collect(), ..task.clone() };
        show(&some, false)?;
    }
    for (n, test) in (1..).zip(&task.test) {
        solve_one(inference, board, row, (n, test), watch)?;
    }
    Ok(())
}

/// Demonstrations drawn before an attempt.
const SHOWN: usize = 4;

fn solve_one<D: Device>(
    inference: &Inference<'_, D>,
    board: ArcBoard,
    id: u32,
    (n, test): (usize, &Pair),
    watch: bool,
) -> Result<()> {
    let is_known = test.is_answered();
    let mut question = vec![0; board.side * board.side];
    encode(&test.input, &Augmentation::IDENTITY, (0, 0), board.side, &mut question);
    let steps = inference.answers(&question, id);
    let terminal = Terminal::stdout();
    let answers: Vec<Grid> = steps.iter().map(|step| crop(&step.tokens, board.side)).collect();
    let (Some(last), Some(sure)) = (answers.last(), steps.last()) else { return Ok(()) };
    let mut drawn = 0;
    for (i, answer) in answers.iter().enumerate() {
        if !watch && i + 1 < answers.len() {
            continue;
        }
        let title = format!("step {} of {}, {:.1} %", i + 1, answers.len(), 100.0 * steps[i].confidence);
        let before = i.checked_sub(1).map(|before| &answers[before]).filter(|_| watch);
        let mut panels =
            vec![Panel::new(format!("test {n}"), &test.input), Panel { title, grid: Some(answer), marks: before }];
        if is_known {
            panels.push(Panel::new("truth", &test.output));
        }
        let picture = side_by_side(&panels, terminal.colour);
        let redraw = terminal.can_redraw(&picture);
        if redraw && drawn > 0 {
            std::thread::sleep(FRAME);
            print(&format!("\x1b[{drawn}A\x1b[J"))?;
        }
        print(&picture)?;
        drawn = picture.lines().count();
        if !redraw {
            print("\n")?;
        }
    }
    let verdict = match is_known {
        true if *last == test.output => "right",
        true => "not right",
        false => "the right answer is not known",
    };
    let steps = format!("{} supervision step{}", steps.len(), if steps.len() == 1 { "" } else { "s" });
    print(&format!("{verdict}, confidence {:.1} %, {steps}\n\n", 100.0 * sure.confidence))
}
