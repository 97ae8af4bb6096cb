//! Maze sets: made from nothing, or imported from the published CSV files.

use std::collections::BTreeMap;
use std::path::Path;

use super::assemble::{RowPairs, assemble, reserved};
use super::csv_rows::{self, Form, RowOptions};
use super::{Columns, Dataset, Split, Tokens};
use crate::Result;
use crate::puzzle::maze::{
    MAZE, MazeBoard, MazeGame, PATH, PathSpec, SIDES, SPACE, SYMMETRIES, VOCABULARY, ends, is_solution, solve, source,
};
use crate::puzzle::{BLANK, Description, Order, Settings, Value};
use crate::rng::Rng;

/// Makes `count` training and `test` test mazes of side `side`, with shortest paths as wanted; none is
/// another one rotated or reflected. With `dihedral`, training holds all eight images of each. The result depends on the
/// arguments alone.
///
/// ```
/// let spec = trm::puzzle::maze::PathSpec { min_path: 12, unique_path: true };
/// let data = trm::dataset::maze::build(8, 30, 10, spec, false, 1)?;
/// assert!(!trm::dataset::audit(&data)?.leaks());
/// # Ok::<(), trm::Error>(())
/// ```
pub fn build(side: usize, count: usize, test: usize, spec: PathSpec, dihedral: bool, seed: u64) -> Result<Dataset> {
    let number = |number: usize| Value::Number(number as u64);
    let settings = Settings::default()
        .with("maze_size", number(side))
        .with("min_path", number(spec.min_path))
        .with("unique_path", Value::Flag(spec.unique_path));
    let mut data = Dataset::generate(&MazeGame, &Order { train: count, test, seed, settings: &settings })?;
    if dihedral && let Some(train) = data.splits.get_mut("train") {
        let rows = |tokens: &Tokens| tokens.in_memory().expect("generated rows are in memory").to_vec();
        let (questions, answers) = (rows(&train.inputs), rows(&train.labels));
        *train = images(side, RowPairs { questions, answers, columns: Columns::default() })?;
    }
    Ok(data)
}

/// Builds a set from the published CSV files (`source,question,answer,rating`): squares of one side, `#` wall, space,
/// `S`, `G`, and `o` for the path in the answer. With `dihedral`, training holds all eight images of each maze, in the
/// order of their numbers.
///
/// # Errors
/// Every row that is no maze with a way from S to G, or whose answer is not one of its shortest paths.
pub fn import(train: impl AsRef<Path>, test: Option<&Path>, dihedral: bool) -> Result<Dataset> {
    let mut form = MazeForm { side: 0 };
    let mut rng = Rng::new(0);
    let options = RowOptions::default();
    // The training file says which side mazes have, so that it is the other one that is blamed for another side.
    let mut read =
        |path: &Path| -> Result<RowPairs> { Ok(csv_rows::read(path, &mut form, None, &mut rng, options)?.pairs) };
    let train = read(train.as_ref())?;
    let test = test.map(read).transpose()?;
    set(form.side, train, test, dihedral)
}

fn set(side: usize, train: RowPairs, test: Option<RowPairs>, dihedral: bool) -> Result<Dataset> {
    let cells = side * side;
    let train = if dihedral { images(side, train)? } else { assemble(cells, VOCABULARY, 1, train)? };
    let mut splits = BTreeMap::from([("train".to_string(), train)]);
    if let Some(test) = test {
        splits.insert("test".to_string(), assemble(cells, VOCABULARY, 1, test)?);
    }
    Ok(Dataset { splits, identifiers: vec![BLANK.into()], puzzle: Description::of(MAZE, cells) })
}

/// Groups of the eight images of each row.
fn images(side: usize, rows: RowPairs) -> Result<Split> {
    let cells = side * side;
    let mut all = reserved(cells, rows.questions.len() / cells, SYMMETRIES - 1)?;
    for (from, to) in [(&rows.questions, &mut all.questions), (&rows.answers, &mut all.answers)] {
        for (row, group) in from.chunks_exact(cells).zip(to.chunks_exact_mut(SYMMETRIES * cells)) {
            for (id, image) in group.chunks_exact_mut(cells).enumerate() {
                image.iter_mut().enumerate().for_each(|(at, token)| *token = row[source(side, id, at)]);
            }
        }
    }
    all.columns = rows.columns;
    assemble(cells, VOCABULARY, SYMMETRIES, all)
}

/// Squares whose side the first question of the first file decides.
struct MazeForm {
    side: usize,
}

impl Form for MazeForm {
    fn cells(&mut self, question: &[u8]) -> Result<usize, String> {
        if self.side == 0 {
            let (cells, side) = (question.len(), question.len().isqrt());
            if side * side != cells || !SIDES.contains(&side) {
                let (least, most) = (SIDES.start(), SIDES.end());
                return Err(format!(
                    "has {cells} characters; a maze is a square of side {least} to {most}, row by row"
                ));
            }
            self.side = side;
        }
        Ok(self.side * self.side)
    }

    fn token(&self, character: u8) -> Result<u8, String> {
        let token = MazeBoard::token(char::from(character)).filter(|_| character != b'.');
        token.ok_or_else(|| "#, space, S, G or o".into())
    }

    fn answer(&self, _question: &[u8]) -> Result<Vec<u8>, String> {
        Err("has no answer".into())
    }

    fn expected(&self) -> &'static str {
        "source,question,answer,rating"
    }

    fn check(&self, question: &[u8], answer: &[u8]) -> Result<(), String> {
        ends(question).map_err(|what| format!("question {what}"))?;
        let differs = |(q, a): (&u8, &u8)| q != a && (*q, *a) != (SPACE, PATH);
        if let Some(cell) = question.iter().zip(answer).position(differs) {
            return Err(format!("answer is another maze than the question at character {}", cell + 1));
        }
        let solved = solve(self.side, question).ok_or("question has no way from S to G")?;
        let (drawn, wanted) = (answer.iter().filter(|&&token| token == PATH).count(), solved.length - 2);
        match is_solution(self.side, question, answer) {
            true => Ok(()),
            false if drawn == 0 => Err(format!("answer has no path; a shortest one is {wanted} `o`s from S to G")),
            false => Err(format!("answer's {drawn} `o`s are no shortest path; one is {wanted} of them from S to G")),
        }
    }
}
