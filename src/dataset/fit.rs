//! A data set as a model sees it that was trained on another one: symbols, boards and puzzle identifiers, recognised by
//! their names (specification, "Whose data it is").

use std::collections::HashMap;

use ndarray::Array2;

use super::task_data::description_of;
use super::{Dataset, Split, TaskData, Tokens};
use crate::config::TaskConfig;
use crate::puzzle::{Board, Description, grid};
use crate::{Error, Result};

/// Names of unknown symbols or tasks that an error lists.
const LISTED: usize = 5;

impl TaskData {
    /// The set for a model that was trained on `task`, whose puzzle identifiers were called `names` (`None`: that is not
    /// known, and there have to be as many).
    ///
    /// Tokens become those of the model's symbols of the same name. A smaller board stands in the corner of the model's where
    /// that has learned padding. A puzzle gets the row of the model's table that its identifier's name had; that a puzzle
    /// has none is told when it is evaluated.
    ///
    /// # Errors
    /// Where the set is of another kind, or has symbols, sizes or numbers that the model does not know, with which.
    pub fn fitted(self, task: &TaskConfig, names: Option<&[String]>) -> Result<Self> {
        let (mut dataset, board) = (self.dataset, self.board);
        let model = description_of(task)?;
        if dataset.puzzle != model || self.task.vocab_size != task.vocab_size {
            dataset = dataset.on_board(&model, task.vocab_size, &*board)?;
        }
        let count = dataset.identifiers.len();
        let rows = match names {
            Some(names) if names != dataset.identifiers => Some(rows_by_name(&dataset.identifiers, names)),
            Some(_) => None,
            None if count == task.num_puzzle_identifiers => None,
            None => {
                return Err(Error::input(format!(
                    "the data set has {count} puzzle identifiers, the model {}, and by what names it knows them is not kept \
                     with these weights; evaluate the run's folder, or give the set that it was trained on",
                    task.num_puzzle_identifiers
                )));
            }
        };
        Ok(Self { table_rows: rows, ..Self::new(dataset)? })
    }

    /// Whether puzzle identifiers stand for other rows of the model's table than their numbers say.
    pub fn has_other_identifiers(&self) -> bool {
        self.table_rows.is_some()
    }

    /// The row of the model's puzzle table that an identifier of this set stands for; `None` where the model was trained
    /// without a puzzle of that name.
    pub fn table_row(&self, identifier: u32) -> Option<u32> {
        match &self.table_rows {
            None => Some(identifier),
            Some(rows) => rows[identifier as usize],
        }
    }
}

/// For each identifier, the place of its name among `names`. The blank one keeps its place.
fn rows_by_name(identifiers: &[String], names: &[String]) -> Vec<Option<u32>> {
    let places: HashMap<&str, u32> = names.iter().map(String::as_str).zip(0..).collect();
    identifiers.iter().map(|name| places.get(name.as_str()).copied()).collect()
}

impl Dataset {
    /// The same puzzles on the board that `model` describes.
    fn on_board(self, model: &Description, vocab_size: usize, own: &dyn Board) -> Result<Self> {
        let fault = |what: String| Err(Error::input(format!("{what}; give a data set like the one it was trained on")));
        let (mine, theirs) = (&self.puzzle, model);
        let named = !mine.symbols.is_empty() && !theirs.symbols.is_empty();
        let vocab = self.in_order()[0].1.meta.vocab_size;
        if !named {
            // Published sets are rows of tokens that nothing more may be known of.
            let known = mine.kind != grid::TOKENS && theirs.kind != grid::TOKENS;
            let wanted = theirs.board(vocab_size)?.name();
            return match (mine.cells() == theirs.cells(), vocab == vocab_size) {
                _ if known && mine.kind != theirs.kind => {
                    fault(format!("the data set holds {}, the model was trained on {wanted}", own.name()))
                }
                (false, _) => {
                    let (a, b) = (mine.cells(), theirs.cells());
                    fault(format!("the data set has {a} tokens per puzzle ({}), the model {b} ({wanted})", own.name()))
                }
                (_, false) => {
                    fault(format!("the data set has {vocab} tokens in its vocabulary, the model {vocab_size}"))
                }
                _ => Ok(self),
            };
        }
        let (a, b) = ((mine.height, mine.width), (theirs.height, theirs.width));
        if a.0 > b.0 || a.1 > b.1 {
            return fault(format!("the data set has boards of {}×{}, the model of {}×{}", a.0, a.1, b.0, b.1));
        }
        if !theirs.padded && (mine.padded || a != b) {
            let what = if a == b { "are smaller than that".into() } else { format!("are {}×{}", a.0, a.1) };
            return fault(format!(
                "the model was trained on boards of {}×{} throughout, and some of the data set {what}",
                b.0, b.1
            ));
        }
        let places: HashMap<&str, u8> = theirs.symbols.iter().map(String::as_str).zip(0..=u8::MAX).collect();
        let unknown: Vec<&String> =
            mine.symbols.iter().filter(|symbol| !places.contains_key(symbol.as_str())).collect();
        if !unknown.is_empty() {
            let more = if unknown.len() > LISTED { ", …" } else { "" };
            let listed: Vec<String> = unknown.iter().take(LISTED).map(|symbol| format!("{symbol:?}")).collect();
            let known: Vec<&str> = theirs.symbols.iter().map(String::as_str).filter(|s| !s.is_empty()).collect();
            return fault(format!(
                "the model knows no {}{more}; its symbols are: {}",
                listed.join(", "),
                known.join(" ")
            ));
        }
        let mut tokens = [0u8; 256];
        mine.symbols.iter().zip(&mut tokens).for_each(|(symbol, token)| *token = places[symbol.as_str()]);
        let moved = |rows: &Tokens| moved(rows, &tokens, a, b);
        let mut splits = self.splits;
        for split in splits.values_mut() {
            let Split { inputs, labels, more_answers, meta, .. } = split;
            (*inputs, *labels) = (moved(inputs)?, moved(labels)?);
            if let Some(more) = more_answers {
                more.rows = moved(&more.rows)?;
            }
            (meta.seq_len, meta.vocab_size) = (model.cells(), vocab_size);
            meta.pad_id = tokens[usize::from(meta.pad_id)];
            meta.ignore_label_id = meta.ignore_label_id.map(|token| tokens[usize::from(token)]);
        }
        Ok(Self { splits, identifiers: self.identifiers, puzzle: model.clone() })
    }
}

/// Rows on boards of `from` as rows on boards of `to`, in the upper left corner of padding, each token renamed.
fn moved(rows: &Tokens, tokens: &[u8; 256], from: (usize, usize), to: (usize, usize)) -> Result<Tokens> {
    let cells = to.0 * to.1;
    let mut all = vec![tokens[0]; rows.nrows() * cells];
    for (row, out) in rows.rows().zip(all.chunks_mut(cells)) {
        for (line, out) in row?.chunks(from.1).zip(out.chunks_mut(to.1)) {
            line.iter().zip(out).for_each(|(&token, out)| *out = tokens[usize::from(token)]);
        }
    }
    let array = Array2::from_shape_vec((rows.nrows(), cells), all);
    array.map(Tokens::from).map_err(|e| Error::input(format!("rows of unequal length: {e}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dataset::{SplitRows, sudoku};

    /// A set of boards whose symbols are the characters of `symbols`, with one row of those tokens.
    fn set((height, width): (usize, usize), symbols: &str, padded: bool, row: &[u8]) -> TaskData {
        let names: Vec<String> = std::iter::once(String::new()).chain(symbols.chars().map(String::from)).collect();
        let rows = SplitRows::new(row.to_vec(), row.to_vec());
        let vocab = names.len();
        let puzzle = Description { kind: grid::GRID.into(), height, width, symbols: names, padded };
        let data = Dataset::from_rows(height * width, vocab, rows, SplitRows::default()).unwrap();
        TaskData::new(data.described(puzzle).unwrap()).unwrap()
    }

    #[test]
    fn symbols_are_recognised_by_name_and_small_boards_stand_in_the_corner() {
        let model = set((2, 3), "abc", true, &[1, 2, 3, 1, 2, 3]);
        let other = set((1, 2), "ca", false, &[1, 2]).fitted(model.task(), None).unwrap();
        assert_eq!(other.task(), model.task());
        let split = other.split("train").unwrap();
        assert_eq!(&*split.inputs.row(0).unwrap(), [3, 1, 0, 0, 0, 0]);
        assert_eq!(&*split.labels.row(0).unwrap(), [3, 1, 0, 0, 0, 0]);
        assert_eq!(other.board().text(&split.inputs.row(0).unwrap()), "ca");
    }

    #[test]
    fn what_the_model_does_not_know_is_named() {
        let padded = set((2, 2), "ab", true, &[1, 2, 1, 2]);
        let full = set((2, 2), "ab", false, &[1, 2, 1, 2]);
        let four = TaskData::new(sudoku::build(4, 2, 0, 2, 1).unwrap()).unwrap();
        let six = TaskData::new(sudoku::build(6, 2, 0, 2, 1).unwrap()).unwrap();
        for (model, other, what) in [
            (&padded, set((1, 4), "ab", false, &[1, 2, 1, 2]), "boards of 1×4, the model of 2×2"),
            (&padded, set((2, 2), "axy", false, &[1, 2, 3, 2]), "knows no \"x\", \"y\"; its symbols are: a b"),
            (&full, set((2, 2), "ab", true, &[1, 2, 1, 0]), "boards of 2×2 throughout"),
            (&full, set((1, 2), "ab", false, &[1, 2]), "of the data set are 1×2"),
            (&four, six, "36 tokens per puzzle (sudoku 6×6), the model 16 (sudoku 4×4)"),
            (&four, set((4, 4), "ab", false, &[1; 16]), "holds grid 4×4, the model was trained on sudoku 4×4"),
        ] {
            let message = other.fitted(model.task(), None).map(|_| ()).unwrap_err().to_string();
            assert!(message.contains(what) && !message.contains('\n'), "{message}");
        }
        assert!(set((2, 2), "ab", false, &[1, 2, 1, 2]).fitted(padded.task(), None).is_ok());
    }

    #[test]
    fn identifiers_are_recognised_by_name() {
        let rows = |ids: Vec<u32>| SplitRows { identifiers: ids, ..SplitRows::new(vec![1, 2], vec![1, 2]) };
        let data = |ids| TaskData::new(Dataset::from_rows(1, 3, rows(ids), SplitRows::default()).unwrap()).unwrap();
        let model = data(vec![1, 3]);
        let names: Vec<String> = ["<blank>", "puzzle 2", "puzzle 9", "puzzle 1"].map(String::from).to_vec();
        let fitted = data(vec![1, 2]).fitted(model.task(), Some(&names)).unwrap();
        assert_eq!([0, 1, 2].map(|id| fitted.table_row(id)), [Some(0), Some(3), Some(1)]);
        let fitted = data(vec![1, 3]).fitted(model.task(), Some(&names)).unwrap();
        assert_eq!(fitted.table_row(3), None);
        let own = model.dataset().identifiers.clone();
        assert!(!data(vec![1, 3]).fitted(model.task(), Some(&own)).unwrap().has_other_identifiers());
        let message = data(vec![1, 2]).fitted(model.task(), None).map(|_| ()).unwrap_err().to_string();
        assert!(message.contains("3 puzzle identifiers, the model 4"), "{message}");
    }
}
