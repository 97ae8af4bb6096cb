//! The published on-disk layout, read and written (specification, "Datasets").
//!
//! ```text
//! <root>/identifiers.json                         ["<blank>", …]
//! <root>/puzzle.json                              Description; ours, and only where the shapes do not say it
//! <root>/<split>/dataset.json                     Metadata
//! <root>/<split>/<set>__inputs.npy                [examples, seq_len]   tokens
//! <root>/<split>/<set>__labels.npy                [examples, seq_len]   tokens
//! <root>/<split>/<set>__puzzle_identifiers.npy    [puzzles]
//! <root>/<split>/<set>__puzzle_indices.npy        [puzzles + 1]         prefix sums over examples
//! <root>/<split>/<set>__group_indices.npy         [groups + 1]          prefix sums over puzzles
//! <root>/<split>/<set>__more_answers.npy          [n, seq_len]          ours, where questions have several answers
//! <root>/<split>/<set>__more_answer_indices.npy   [examples + 1]        prefix sums over those
//! <root>/<split>/columns.csv                      Columns; ours, where the source says more
//! ```
//!
//! Sets of other builders may lack what follows from the rest (see [`Said`]): arrays of prefix sums then say that each row is
//! a puzzle and each puzzle a group, and the identifier is the blank one.
//!
//! Reading believes nothing: every fault is one line that names the file. Writing is all or nothing: the set grows
//! in a hidden sibling folder, is synced, and takes its name in one rename.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use ndarray::Array2;

use super::json::{read_json, write_json};
use super::metadata::{Found, Said};
use super::token_file::{read_labels, read_tokens, write_tokens};
use super::{Columns, Dataset, Metadata, MoreAnswers, Split, Tokens};
use crate::files::new_folder::sync_folder;
use crate::files::{NewFolder, npy};
use crate::puzzle::{BLANK, Description};
use crate::{Error, Result};

/// How the names of the files of inputs end.
const INPUTS: &str = "__inputs.npy";

/// The file that says what the rows are.
const DESCRIPTION: &str = "puzzle.json";

/// The arrays of a set, by the name they have on disk.
#[derive(Clone, Copy)]
enum Part {
    Inputs,
    Labels,
    PuzzleIdentifiers,
    PuzzleIndices,
    GroupIndices,
    MoreAnswers,
    MoreAnswerIndices,
}

impl Part {
    fn name(self) -> &'static str {
        match self {
            Self::Inputs => "inputs",
            Self::Labels => "labels",
            Self::PuzzleIdentifiers => "puzzle_identifiers",
            Self::PuzzleIndices => "puzzle_indices",
            Self::GroupIndices => "group_indices",
            Self::MoreAnswers => "more_answers",
            Self::MoreAnswerIndices => "more_answer_indices",
        }
    }

    fn path(self, split: &Path, set: &str) -> PathBuf {
        split.join(format!("{set}__{}.npy", self.name()))
    }
}

impl Dataset {
    /// Reads the data set in the folder `root`: every folder in it with a `dataset.json` is a split. Several sets in a
    /// split become one, in the order in which its metadata names them.
    pub fn read(root: impl AsRef<Path>) -> Result<Self> {
        Self::read_splits(root, Ok)
    }

    /// Reads only those splits that `choose` takes of the names of all; the files of the others are not opened.
    pub fn read_splits(
        root: impl AsRef<Path>,
        choose: impl FnOnce(Vec<String>) -> Result<Vec<String>>,
    ) -> Result<Self> {
        let root = root.as_ref();
        if !root.is_dir() {
            return Err(fault(root, "is no folder; name the root folder of a data set"));
        }
        let identifiers_path = root.join("identifiers.json");
        let identifiers: Option<Vec<String>> =
            if identifiers_path.exists() { Some(read_json(&identifiers_path)?) } else { None };
        let mut names = Vec::new();
        for entry in fs::read_dir(root).map_err(|e| Error::io(root, e))? {
            let entry = entry.map_err(|e| Error::io(root, e))?;
            let folder = entry.path();
            let metadata = folder.join("dataset.json");
            if !metadata.is_file() {
                if !sets_in(&folder).is_empty() {
                    return Err(fault(
                        &metadata,
                        "is missing, though the folder holds the arrays of a split; bring it back",
                    ));
                }
                continue;
            }
            let name = entry.file_name().into_string().map_err(|name| {
                Error::input(format!("{}: split folder {name:?} is not UTF-8; rename it", root.display()))
            })?;
            names.push(name);
        }
        if names.is_empty() {
            return Err(Error::input(format!(
                "{}: no data set here (no <split>/dataset.json); build one with `trm data build`, or name its root folder",
                root.display()
            )));
        }
        names.sort_unstable();
        let mut splits = BTreeMap::new();
        for name in choose(names)? {
            let split = read_split(&root.join(&name), identifiers.as_ref().map(Vec::len))?;
            splits.insert(name, split);
        }
        let identifiers = match identifiers {
            Some(identifiers) => identifiers,
            None if splits.values().all(|split| split.meta.num_puzzle_identifiers == 1) => vec![BLANK.into()],
            None => return Err(fault(&identifiers_path, "is missing; copy the whole data set, or rebuild it")),
        };
        let mut dataset = Self { puzzle: infer(&splits), splits, identifiers };
        dataset.check_identifiers().map_err(|what| fault(&identifiers_path, what))?;
        let described = root.join(DESCRIPTION);
        if described.exists() {
            dataset.puzzle = read_json(&described)?;
            dataset.board().map_err(|what| fault(&described, what))?;
        }
        Ok(dataset)
    }

    /// Writes the data set as the new folder `root`, each split as one set called `all`. A folder that already holds
    /// something is refused; on any error nothing is left behind.
    pub fn write(&self, root: impl AsRef<Path>) -> Result<()> {
        self.write_with(root, &[], &|_| {})
    }

    /// Writes the data set together with `more` JSON files beside the splits. `progress` is called for every row written,
    /// its question and its answer each; rows that are made are made while they are written, a few megabytes at a time.
    pub fn write_with(
        &self,
        root: impl AsRef<Path>,
        more: &[(&str, serde_json::Value)],
        progress: &(dyn Fn(u64) + Sync),
    ) -> Result<()> {
        let root = root.as_ref();
        let folder = NewFolder::create(root)?;
        self.check_identifiers().map_err(|what| fault(root, what))?;
        for (split_name, split) in &self.splits {
            if !is_plain_name(split_name) {
                return Err(fault(root, format!("{split_name:?} cannot be the name of a split folder")));
            }
            write_split(split, &folder.path().join(split_name), progress)?;
        }
        write_json(&folder.path().join("identifiers.json"), &self.identifiers)?;
        if self.puzzle != infer(&self.splits) {
            self.board().map_err(|what| fault(root, what))?;
            write_json(&folder.path().join(DESCRIPTION), &self.puzzle)?;
        }
        for (name, value) in more {
            write_json(&folder.path().join(name), value)?;
        }
        folder.publish()
    }

    fn check_identifiers(&self) -> Result<(), String> {
        for (name, split) in &self.splits {
            let expected = split.meta.num_puzzle_identifiers;
            if self.identifiers.len() != expected {
                return Err(format!(
                    "names {} puzzle identifiers but {name}/dataset.json says num_puzzle_identifiers {expected}; they must agree",
                    self.identifiers.len()
                ));
            }
        }
        Ok(())
    }
}

/// What the rows seem to be, by the shape of the first split.
fn infer(splits: &BTreeMap<String, Split>) -> Description {
    let meta = splits.get("train").or_else(|| splits.values().next()).map(|split| &split.meta);
    Description::infer(meta.map_or(0, |meta| meta.seq_len), meta.map_or(0, |meta| meta.vocab_size))
}

fn fault(path: &Path, what: impl std::fmt::Display) -> Error {
    Error::input(format!("{}: {what}", path.display()))
}

/// A name that stays inside its folder.
pub(super) fn is_plain_name(name: &str) -> bool {
    !name.is_empty() && name != "." && name != ".." && !name.contains(['/', '\\', '\0'])
}

/// Reads a split; `identifiers` is how many names `identifiers.json` has.
fn read_split(folder: &Path, identifiers: Option<usize>) -> Result<Split> {
    let json = folder.join("dataset.json");
    let bad = |what: String| fault(&json, what);
    let said = Said::read(&json)?;
    let names = match said.sets().map_err(bad)? {
        Some(names) => names,
        None => sets_in(folder),
    };
    let nothing = Found { groups: 0, puzzles: 1, examples: 1 };
    let mut meta = said.metadata(names, identifiers, &nothing).map_err(bad)?;
    meta.check().map_err(bad)?;
    let ignored = said.ignored().map_err(bad)?;
    let mut sets = Vec::with_capacity(meta.sets.len());
    for set in &meta.sets {
        let path = |part: Part| part.path(folder, set);
        let inputs = read_tokens(&path(Part::Inputs))?;
        let (labels, unlabelled) = read_labels(&path(Part::Labels), ignored, meta.vocab_size)?;
        let sums = |part: Part, items: usize| match path(part).exists() {
            true => npy::read_list(&path(part)),
            // Each is one of its own.
            false => Ok((0..=u32::try_from(items).unwrap_or(u32::MAX)).collect()),
        };
        let puzzle_indices: Vec<u32> = sums(Part::PuzzleIndices, inputs.nrows())?;
        let puzzles = puzzle_indices.len().saturating_sub(1);
        let identifiers = path(Part::PuzzleIdentifiers);
        sets.push(Split {
            meta: Metadata { ignore_label_id: unlabelled, ..meta.clone() },
            inputs,
            labels,
            puzzle_identifiers: match identifiers.exists() {
                true => npy::read_list(&identifiers)?,
                false => vec![meta.blank_identifier_id; puzzles],
            },
            group_indices: sums(Part::GroupIndices, puzzles)?,
            puzzle_indices,
            more_answers: read_more_answers(folder, set)?,
            columns: Columns::default(),
        });
    }
    meta.ignore_label_id = sets.iter().find_map(|set| set.meta.ignore_label_id);
    for (set, name) in sets.iter_mut().zip(&meta.sets) {
        set.meta.ignore_label_id = meta.ignore_label_id;
        set.check_arrays().map_err(|(part, what)| fault(&part.path(folder, name), what))?;
    }
    let mut split = join_sets(meta, sets).map_err(bad)?;
    split.columns = Columns::read(folder)?;
    split.columns.check(split.groups()).map_err(|what| fault(folder, what))?;
    let found = Found { groups: split.groups(), puzzles: split.puzzles(), examples: split.examples() };
    let Metadata { total_groups, mean_puzzle_examples, total_puzzles, .. } =
        said.metadata(Vec::new(), identifiers, &found).map_err(bad)?;
    (split.meta.total_groups, split.meta.mean_puzzle_examples) = (total_groups, mean_puzzle_examples);
    split.meta.total_puzzles = total_puzzles;
    if split.groups() != total_groups {
        let holds = split.groups();
        return Err(bad(format!(
            "says total_groups {total_groups} but its sets hold {holds} groups; rebuild the data set"
        )));
    }
    Ok(split)
}

/// The sets whose inputs are in a folder, by name.
fn sets_in(folder: &Path) -> Vec<String> {
    let names = fs::read_dir(folder).into_iter().flatten().flatten().map(|entry| entry.file_name());
    let stem = |name: std::ffi::OsString| Some(name.to_str()?.strip_suffix(INPUTS)?.to_owned());
    let mut sets: Vec<String> = names.filter_map(stem).collect();
    sets.sort();
    sets
}

/// The further answers of a set: two files, or none.
fn read_more_answers(folder: &Path, set: &str) -> Result<Option<MoreAnswers>> {
    let paths = [Part::MoreAnswers, Part::MoreAnswerIndices].map(|part| part.path(folder, set));
    if !paths.iter().any(|path| path.exists()) {
        return Ok(None);
    }
    Ok(Some(MoreAnswers { rows: read_tokens(&paths[0])?, indices: npy::read_list(&paths[1])? }))
}

/// Puts the sets of a split one behind the other; each keeps its groups.
fn join_sets(meta: Metadata, mut sets: Vec<Split>) -> Result<Split, String> {
    if sets.len() == 1 {
        return Ok(sets.swap_remove(0));
    }
    let rows: usize = sets.iter().map(Split::examples).sum();
    if u32::try_from(rows).is_err() {
        return Err(format!("its sets hold {rows} examples together; at most {} are supported", u32::MAX));
    }
    let stack = |pick: fn(&Split) -> Option<&Tokens>| {
        let sets = || sets.iter().filter_map(pick);
        let rows = sets().map(Tokens::nrows).sum();
        let mut all = Vec::with_capacity(rows * meta.seq_len);
        for row in sets().flat_map(Tokens::rows) {
            all.extend_from_slice(&row.map_err(|e| e.to_string())?);
        }
        let array = Array2::from_shape_vec((rows, meta.seq_len), all);
        array.map(Tokens::from).map_err(|e| format!("its sets do not fit together: {e}"))
    };
    // The prefix sums of a set, and how many items they are of; `None`: nothing of each.
    let chain = |pick: fn(&Split) -> (Option<&Vec<u32>>, usize)| {
        let mut all = vec![0u32];
        for (sums, items) in sets.iter().map(pick) {
            let base = all[all.len() - 1];
            match sums {
                Some(sums) => all.extend(sums[1..].iter().map(|sum| base + sum)),
                None => all.resize(all.len() + items, base),
            }
        }
        all
    };
    let more = |split: &Split| split.more_answers.is_some();
    let more_answers = match sets.iter().any(more) {
        true => Some(MoreAnswers {
            rows: stack(|s| s.more_answers.as_ref().map(|more| &more.rows))?,
            indices: chain(|s| (s.more_answers.as_ref().map(|more| &more.indices), s.examples())),
        }),
        false => None,
    };
    Ok(Split {
        inputs: stack(|s| Some(&s.inputs))?,
        labels: stack(|s| Some(&s.labels))?,
        puzzle_identifiers: sets.iter().flat_map(|s| s.puzzle_identifiers.iter().copied()).collect(),
        puzzle_indices: chain(|s| (Some(&s.puzzle_indices), s.puzzles())),
        group_indices: chain(|s| (Some(&s.group_indices), s.groups())),
        more_answers,
        columns: Columns::default(),
        meta,
    })
}

fn write_split(split: &Split, folder: &Path, progress: &(dyn Fn(u64) + Sync)) -> Result<()> {
    let meta = Metadata { sets: vec!["all".into()], ..split.meta.clone() };
    meta.check().map_err(|what| fault(folder, what))?;
    split.check_arrays().map_err(|(part, what)| fault(&part.path(folder, "all"), what))?;
    split.columns.check(split.groups()).map_err(|what| fault(folder, what))?;
    fs::create_dir(folder).map_err(|e| Error::io(folder, e))?;
    let path = |part: Part| part.path(folder, "all");
    // Both at once: a file is written by one thread, which costs as much as making its rows.
    let write = |part, tokens| write_tokens(&path(part), tokens, progress);
    let (inputs, labels) = rayon::join(|| write(Part::Inputs, &split.inputs), || write(Part::Labels, &split.labels));
    inputs.and(labels)?;
    npy::write_i32(&path(Part::PuzzleIdentifiers), &split.puzzle_identifiers)?;
    npy::write_i32(&path(Part::PuzzleIndices), &split.puzzle_indices)?;
    npy::write_i32(&path(Part::GroupIndices), &split.group_indices)?;
    if let Some(more) = &split.more_answers {
        write_tokens(&path(Part::MoreAnswers), &more.rows, &|_| {})?;
        npy::write_i32(&path(Part::MoreAnswerIndices), &more.indices)?;
    }
    split.columns.write(folder)?;
    write_json(&folder.join("dataset.json"), &meta)?;
    sync_folder(folder)
}

impl Split {
    /// What is wrong with the split, if something is.
    pub(super) fn check(&self) -> Result<(), String> {
        self.meta.check()?;
        self.check_arrays().map_err(|(part, what)| format!("{} {what}", part.name()))
    }

    /// Shapes, prefix sums, identifiers and tokens; on a fault, which array and what is wrong with it.
    fn check_arrays(&self) -> Result<(), (Part, String)> {
        let meta = &self.meta;
        let (rows, columns) = self.inputs.dim();
        if columns != meta.seq_len {
            return Err((
                Part::Inputs,
                format!("has {columns} columns but dataset.json says seq_len {}", meta.seq_len),
            ));
        }
        if self.labels.dim() != (rows, columns) {
            let (more, wide) = self.labels.dim();
            return Err((Part::Labels, format!("has shape [{more}, {wide}] but the inputs have [{rows}, {columns}]")));
        }
        let puzzles = self.puzzle_identifiers.len();
        check_prefix_sums(&self.puzzle_indices, puzzles, "puzzles", rows, "examples", Empty::Refused)
            .map_err(|what| (Part::PuzzleIndices, what))?;
        let groups = self.group_indices.len().saturating_sub(1);
        check_prefix_sums(&self.group_indices, groups, "groups", puzzles, "puzzles", Empty::Refused)
            .map_err(|what| (Part::GroupIndices, what))?;
        let limit = meta.num_puzzle_identifiers;
        if let Some((puzzle, id)) = self.puzzle_identifiers.iter().enumerate().find(|(_, id)| **id as usize >= limit) {
            let what = format!("puzzle {puzzle} has identifier {id}, dataset.json allows 0…{}", limit - 1);
            return Err((Part::PuzzleIdentifiers, what));
        }
        if let Some(MoreAnswers { rows: more, indices }) = &self.more_answers {
            if more.ncols() != columns {
                let what = format!("has {} columns but the inputs have {columns}", more.ncols());
                return Err((Part::MoreAnswers, what));
            }
            check_prefix_sums(indices, rows, "examples", more.nrows(), "further answers", Empty::Allowed)
                .map_err(|what| (Part::MoreAnswerIndices, what))?;
        }
        let more = self.more_answers.iter().map(|more| (Part::MoreAnswers, &more.rows, meta.ignore_label_id));
        let answers = (Part::Labels, &self.labels, meta.ignore_label_id);
        for (part, tokens, also) in [(Part::Inputs, &self.inputs, None), answers].into_iter().chain(more) {
            let strange = |token: u8| usize::from(token) >= meta.vocab_size && Some(token) != also;
            let bad = tokens.find(|row| row.iter().position(|&token| strange(token)).map(|at| (at, row[at])));
            let bad = bad.map_err(|error| (part, error.to_string()))?;
            if let Some((row, (column, token))) = bad {
                let size = meta.vocab_size;
                return Err((
                    part,
                    format!("row {row}, column {column}: token {token} is outside the vocabulary of {size}"),
                ));
            }
        }
        Ok(())
    }
}

/// Whether an item may hold nothing.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Empty {
    Allowed,
    Refused,
}

/// `[0, …, total]`, one more entry than there are items, never falling.
fn check_prefix_sums(
    sums: &[u32],
    items: usize,
    item: &str,
    total: usize,
    of: &str,
    empty: Empty,
) -> Result<(), String> {
    if items == 0 {
        return Err(format!("holds no {item}; an empty set cannot be used"));
    }
    if sums.len() != items + 1 {
        return Err(format!("has {} entries for {items} {item}, expected {}", sums.len(), items + 1));
    }
    if sums[0] != 0 {
        return Err(format!("starts with {} instead of 0", sums[0]));
    }
    if let Some(at) =
        sums.windows(2).position(|pair| pair[1] < pair[0] || (pair[1] == pair[0] && empty == Empty::Refused))
    {
        return Err(format!(
            "does not grow from entry {at} ({}) to the next ({}); rebuild the data set",
            sums[at],
            sums[at + 1]
        ));
    }
    if sums[items] as usize != total {
        return Err(format!("ends with {} but there are {total} {of}", sums[items]));
    }
    Ok(())
}
