//! `trm data import arc`, `trm data build arc`, and the audit of ARC's own files.

use std::path::PathBuf;

use serde_json::{Map, Value, json};

use super::{print, print_json, written};
use crate::cli::complain;
use crate::dataset::arc::{self, Options, ReadOptions, Sources, Stored, Subset};
use crate::error::{Error, Result};
use crate::files::new_folder::check_new_folder;
use crate::puzzle::arc::generator::generate;
use crate::report::RowBar;

/// ARC-AGI-1, ARC-AGI-2, ConceptARC from their JSON files
///
/// Reads Kaggle's form (PREFIX_SUBSET_challenges.json with PREFIX_SUBSET_solutions.json) or, where the folder has a
/// folder SUBSET, one file per task in it. Every task becomes a group: itself and its copies under one of 8 symmetries
/// and a permutation of the colours 1–9, every copy with an identifier of its own. Of the test set, demonstrations are
/// trained on and test pairs are held out; of the other subsets everything is trained on. With 1000 copies, ARC-AGI-1
/// with ConceptARC takes 8 GB.
///
/// With --online only the tasks themselves are written, a thousandth of that; `trm train --set augment=online` then
/// makes the same rows, under the same identifiers, when it needs them.
///
/// Small grids (Mini-ARC, 1D-ARC) are best put on a small board: --side 5 has 25 cells a row instead of 900. A file may
/// also be a list of pairs (RE-ARC), of which the last --tests are the task's test pairs; each demonstration is then dealt
/// out by itself. An output that is missing or `[]` is an unknown answer.
#[derive(clap::Args)]
#[command(after_help = "Examples:
  trm data import arc --dir D --subsets training,evaluation,concept --test-set evaluation \\
      --out data/arc-1
  trm data import arc --dir D --subsets training2,evaluation2,concept --test-set evaluation2 \\
      --online --out data/arc-2
  trm data import arc --dir ARC-AGI/data --subsets training,evaluation --test-set evaluation \\
      --aug 10 --out data/small
  trm data import arc --dir MINI-ARC/data --subsets MiniARC --test-set MiniARC --side 5 \\
      --skip-bad --out data/mini
  trm data import arc --dir re_arc --subsets tasks --test-set tasks --tests 50 --aug 0 \\
      --out data/re-arc")]
pub struct ImportArgs {
    /// Folder of the JSON files
    #[arg(long, value_name = "DIR")]
    dir: PathBuf,
    /// What the names of Kaggle's files begin with
    #[arg(long, value_name = "PREFIX", default_value = "arc-agi")]
    prefix: String,
    /// Subsets to take, in this order
    #[arg(long, value_name = "A,B,…", value_delimiter = ',', required = true)]
    subsets: Vec<String>,
    /// The subset whose test pairs are held out
    #[arg(long, value_name = "SUBSET")]
    test_set: String,
    /// Leave out tasks that occur in another subset too: by name, or because they share a pair up to symmetry and
    /// colours. The test set keeps all of its own; left_out.json in the set names those left out
    #[arg(long)]
    disjoint: bool,
    /// Side of the board, 1 to 30; tasks that do not fit it are refused
    #[arg(long, value_name = "SIDE", allow_negative_numbers = true, default_value_t = arc::SIDE)]
    side: usize,
    /// Leave out tasks that cannot be used; they are counted, the first are named, and left_out.json in the set names all
    #[arg(long)]
    skip_bad: bool,
    /// Of a file that is a list of pairs: how many of them, the last ones, are test pairs
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 1)]
    tests: usize,
    #[command(flatten)]
    copies: Copies,
}

/// Small ARC-like tasks of our own: a dozen transformations with known rules
///
/// Recolour, swap, reflect, crop, fill, gravity, count, outline, mirror, enlarge, beam, shift, majority, symmetrise.
/// No test pair is a demonstration of any of the tasks, under whatever symmetry and renaming of colours.
#[derive(clap::Args)]
#[command(
    after_help = "Example:\n  trm data build arc --tasks 28 --demonstrations 60 --tests 8 --side 6 --out data/arc-small"
)]
pub struct BuildArgs {
    /// Number of tasks
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 28)]
    tasks: usize,
    /// Demonstrations of each
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 60)]
    demonstrations: usize,
    /// Test pairs of each
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 8)]
    tests: usize,
    /// Side of the board
    #[arg(long, value_name = "SIDE", allow_negative_numbers = true, default_value_t = 6)]
    side: usize,
    #[command(flatten)]
    copies: Copies,
}

#[derive(clap::Args)]
struct Copies {
    /// Augmented copies of each task, at most [default: 1000 of an import, 0 of generated tasks]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    aug: Option<usize>,
    /// Seed of every draw
    #[arg(long, value_name = "N", allow_negative_numbers = true, default_value_t = 0)]
    seed: u64,
    /// Write the tasks only, and what is needed to make their copies
    #[arg(long)]
    online: bool,
    #[command(flatten)]
    place: ArcPlace,
}

/// Where a set goes.
#[derive(clap::Args)]
struct ArcPlace {
    /// Folder to make; it must not hold anything yet
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// Asked for where other puzzles have it
    #[arg(long, hide = true, value_name = "N")]
    valid: Option<String>,
}

impl ArcPlace {
    /// Says what to do instead of holding pairs out at random.
    fn refuse_valid(&self) -> Result<()> {
        match self.valid {
            None => Ok(()),
            Some(_) => Err(Error::input(
                "--valid: of ARC, the pairs of a task belong together; hold out the tasks of a subset of their own with \
                 --test-set",
            )),
        }
    }
}

/// What a kind of set has when nothing is said.
struct Usual {
    aug: usize,
    pairs_per_group: Option<usize>,
}

/// Further files of a set.
type Beside = Option<(&'static str, Value)>;

/// In a set made with `--disjoint` or `--skip-bad`: the tasks left out, by subset.
const LEFT_OUT_FILE: &str = "left_out.json";

/// Tasks left out that are named on the terminal.
const NAMED: usize = 5;

impl Copies {
    /// Builds, writes, and says what was written.
    fn write(&self, subsets: Vec<Subset>, test_set: &str, side: usize, usual: Usual, beside: Beside) -> Result<()> {
        let stored = if self.online { Stored::Originals } else { Stored::All };
        let (aug, pairs_per_group) = (self.aug.unwrap_or(usual.aug), usual.pairs_per_group);
        let data = arc::build(subsets, test_set, Options { aug, seed: self.seed, side, stored, pairs_per_group })?;
        let mut more = vec![(arc::TEST_PUZZLES_FILE, arc::test_puzzles(&data)?)];
        more.extend(beside);
        if self.online {
            more.push((arc::ONLINE_FILE, arc::online_file(self.seed)));
        }
        let rows: usize = data.splits.values().map(|split| split.examples()).sum();
        let bar = RowBar::new(2 * rows as u64);
        data.write_with(&self.place.out, &more, &|rows| bar.add(rows))?;
        bar.finish();
        print(&format!("{}\n", written(&self.place.out, &data)))
    }
}

pub fn import(args: &ImportArgs) -> Result<()> {
    if !(1..=arc::SIDE).contains(&args.side) {
        return Err(Error::input(format!("--side {}: a board has a side of 1 to {}", args.side, arc::SIDE)));
    }
    if args.tests == 0 {
        return Err(Error::input("--tests 0: nothing would be held out; give 1 or more"));
    }
    let place = &args.copies.place;
    check_new_folder(&place.out)?;
    place.refuse_valid()?;
    let options = ReadOptions { side: args.side, skip_bad: args.skip_bad, tests: args.tests };
    let mut subsets = Vec::new();
    for name in &args.subsets {
        let subset = arc::read_subset(&args.dir, &args.prefix, name, options)?;
        match subset.unknown() {
            (0, _) => {}
            (unknown, all) if unknown == all => {
                complain(&format!("{name} has no solutions: the answers to all {all} test inputs are unknown"));
            }
            (unknown, all) => complain(&format!("{name}: the answers to {unknown} of {all} test inputs are unknown")),
        }
        subsets.push(subset);
    }
    // By subset: the tasks left out, those that cannot be used first.
    let mut left_out: Map<String, Value> = Map::new();
    let mut leave_out = |subset: &str, tasks: &[String], why: &str| {
        if let Some(Value::Array(all)) = left_out.get_mut(subset) {
            all.extend(tasks.iter().map(|task| json!(task)));
        } else {
            left_out.insert(subset.into(), json!(tasks));
        }
        if !tasks.is_empty() {
            let (named, rest) = tasks.split_at(tasks.len().min(NAMED));
            let rest = if rest.is_empty() { String::new() } else { format!(" and {} more", rest.len()) };
            let file = place.out.join(LEFT_OUT_FILE);
            let (count, named, file) = (tasks.len(), named.join(" "), file.display());
            complain(&format!("{subset}: {count} tasks left out{why}: {named}{rest} (all in {file})"));
        }
    };
    if args.skip_bad {
        for subset in &subsets {
            let tasks: Vec<String> = subset.left_out.iter().map(|(task, _)| task.clone()).collect();
            leave_out(&subset.name, &tasks, " that cannot be used");
            for (task, why) in subset.left_out.iter().take(NAMED) {
                complain(&format!("{}: task {task} left out: {why}", subset.name));
            }
        }
    }
    if args.disjoint {
        for (subset, tasks) in arc::disjoint(&mut subsets, &args.test_set) {
            leave_out(&subset, &tasks, "");
        }
    }
    let beside = (args.disjoint || args.skip_bad).then_some((LEFT_OUT_FILE, Value::Object(left_out)));
    let lists = subsets.iter().any(|subset| subset.lists);
    let usual = Usual { aug: 1000, pairs_per_group: lists.then_some(arc::GENERATED_PAIRS_PER_GROUP) };
    args.copies.write(subsets, &args.test_set, args.side, usual, beside)
}

pub fn build(args: &BuildArgs) -> Result<()> {
    for (argument, count) in
        [("--tasks", args.tasks), ("--demonstrations", args.demonstrations), ("--tests", args.tests)]
    {
        if count == 0 {
            return Err(Error::input(format!("{argument} 0: nothing could be learned or tested; give 1 or more")));
        }
    }
    check_new_folder(&args.copies.place.out)?;
    args.copies.place.refuse_valid()?;
    let tasks = generate(args.tasks, args.demonstrations, args.tests, args.side, args.copies.seed)?;
    let subset = Subset::of("generated", tasks);
    args.copies.write(
        vec![subset],
        "generated",
        args.side,
        Usual { aug: 0, pairs_per_group: Some(arc::GENERATED_PAIRS_PER_GROUP) },
        None,
    )
}

/// Compares all subsets of ARC's own files with each other.
pub fn audit_sources(sources: &Sources, json: bool) -> Result<()> {
    let subsets = sources.subsets.iter().map(|name| sources.read(name)).collect::<Result<Vec<_>>>()?;
    let report = arc::overlaps(&subsets);
    if json { print_json(&report) } else { print(&format!("{report}\n")) }
}
