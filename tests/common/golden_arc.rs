//! ARC: our reader, builder and scoring against the authors' files.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use safetensors::SafeTensors;
use serde_json::{Value, json};
use trm::dataset::arc::{self, Options, SIDE, Stored, Subset};
use trm::dataset::{Dataset, Split};
use trm::puzzle::arc::vote::{Ballot, PASS_AT};
use trm::puzzle::arc::{Augmentation, Dihedral, Grid, Pair, Task, crop};

const SUBSETS: [&str; 3] = ["training", "evaluation", "concept"];

pub fn check(folder: &Path) {
    symmetries(folder);
    let theirs = Dataset::read(folder.join("built")).expect("the authors' set is read");
    let subsets: Vec<Subset> = SUBSETS
        .iter()
        .map(|name| arc::read_subset(folder, "arc-agi", name, arc::ReadOptions::default()).expect(name))
        .collect();
    let rows = undone_rows_are_source_pairs(&theirs, &subsets);
    our_build_is_like_theirs(folder, &theirs, subsets);
    let tasks = scores_and_submission(folder, &theirs);
    println!("arc: {rows} stored rows lead back to their sources; our build agrees; {tasks} tasks scored alike");
}

fn grid(value: &Value) -> Grid {
    Grid::from_rows(&serde_json::from_value::<Vec<Vec<i64>>>(value.clone()).expect("rows")).expect("a grid")
}

fn read(path: &Path) -> Value {
    serde_json::from_str(&fs::read_to_string(path).expect("a file")).expect("JSON")
}

/// `dihedral.json`: each symmetry of a grid, and what its inverse makes of that.
fn symmetries(folder: &Path) {
    let golden = read(&folder.join("dihedral.json"));
    let original = grid(&golden["grid"]);
    for (id, symmetry) in Dihedral::ALL.into_iter().enumerate() {
        let image = symmetry.apply(&original);
        assert_eq!(image, grid(&golden["transformed"][id]), "symmetry {id}");
        assert_eq!(symmetry.inverse().apply(&image), grid(&golden["inverse"][id]), "inverse {id}");
    }
}

/// Every stored row, undone by the name of its identifier, is a pair of the task of that name; each copy has each pair
/// once. Returns the number of rows.
fn undone_rows_are_source_pairs(theirs: &Dataset, subsets: &[Subset]) -> usize {
    let tasks: BTreeMap<&str, (&Task, bool)> = subsets
        .iter()
        .flat_map(|subset| subset.tasks.iter().map(|task| (task.id.as_str(), (task, subset.name == "evaluation"))))
        .collect();
    let mut rows = 0;
    for (name, split) in &theirs.splits {
        for puzzle in 0..split.puzzles() {
            let identifier = &theirs.identifiers[split.puzzle_identifiers[puzzle] as usize];
            let (task, made) = Augmentation::of_name(identifier).expect("a name that says how");
            let (task, in_test) = tasks[task];
            let mut undone: Vec<Pair> = split
                .puzzle(puzzle)
                .map(|row| {
                    let pair = split.arc_pair(row).unwrap().unwrap_or_else(|| panic!("{name} row {row} is a pair"));
                    Pair { input: made.undo(&pair.input), output: made.undo(&pair.output) }
                })
                .collect();
            let mut expected: Vec<Pair> = match (name.as_str(), in_test) {
                ("train", true) => task.train.clone(),
                ("train", false) => task.pairs().cloned().collect(),
                _ => task.test.clone(),
            };
            undone.sort();
            expected.sort();
            assert_eq!(undone, expected, "{name}: {identifier}");
            rows += undone.len();
            assert!(
                name != "test" || split.puzzle(puzzle).all(|row| split.inputs.row(row).unwrap()[0] > 1),
                "{identifier}"
            );
        }
        let in_the_corner = |puzzle| split.puzzle(puzzle).any(|row| split.inputs.row(row).unwrap()[0] > 1);
        assert!((0..split.puzzles()).all(in_the_corner), "one pair of each copy is not translated");
    }
    rows
}

/// Same counts, metadata, files and forms of names; the order of the tasks is drawn.
fn our_build_is_like_theirs(folder: &Path, theirs: &Dataset, subsets: Vec<Subset>) {
    let options = Options { aug: 4, seed: 0, side: SIDE, stored: Stored::All, pairs_per_group: None };
    let ours = arc::build(subsets, "evaluation", options).expect("our build");
    let sizes = |set: &Dataset, split: &Split| {
        let mut sizes: Vec<(String, usize, usize)> = (0..split.groups())
            .map(|group| {
                let first = split.group(group).start;
                let name = set.identifiers[split.puzzle_identifiers[first] as usize].clone();
                (name, split.group(group).len(), split.puzzle(first).len())
            })
            .collect();
        sizes.sort();
        sizes
    };
    for name in ["train", "test"] {
        let (a, b) = (theirs.split(name).expect(name), ours.split(name).expect(name));
        assert_eq!(a.meta, b.meta, "{name}");
        assert_eq!((a.inputs.dim(), a.labels.dim()), (b.inputs.dim(), b.labels.dim()), "{name}");
        assert_eq!(sizes(theirs, a), sizes(&ours, b), "{name}: the same groups, whatever their order");
        assert_eq!(a.group_indices, b.group_indices, "{name}");
        assert_eq!(a.puzzle_identifiers, b.puzzle_identifiers, "{name}: numbered in the same way");
    }
    let form = |name: &String| {
        let (task, made) = Augmentation::of_name(name).expect("a name");
        assert_eq!(&made.name(task), name, "a name has one spelling");
        (task.to_string(), made == Augmentation::IDENTITY)
    };
    let forms = |set: &Dataset| {
        let mut forms: Vec<_> = set.identifiers[1..].iter().map(form).collect();
        forms.sort();
        forms
    };
    assert_eq!(forms(theirs), forms(&ours));
    let home = tempfile::tempdir().expect("a temporary folder");
    let out = home.path().join("ours");
    let puzzles = arc::test_puzzles(&ours).expect("test puzzles");
    assert_eq!(puzzles, read(&folder.join("built/test_puzzles.json")), "whatever the order");
    ours.write_with(&out, &[(arc::TEST_PUZZLES_FILE, puzzles)], &|_| {}).expect("our set is written");
    assert_eq!(super::files(&out), super::files(&folder.join("built")), "the same files under the same names");
    assert_eq!(Dataset::read(&out).expect("our set is read"), ours);
    for name in ["train", "test"] {
        let metadata = format!("{name}/dataset.json");
        let bytes = |root: &Path| fs::read(root.join(&metadata)).expect("metadata");
        assert_eq!(bytes(&out), bytes(&folder.join("built")), "{metadata} byte for byte");
    }
}

/// `scored/`: the authors' pass@k and submission from the same predictions. Returns the number of tasks.
fn scores_and_submission(folder: &Path, theirs: &Dataset) -> usize {
    let bytes = fs::read(folder.join("scored/predictions.safetensors")).expect("predictions");
    let tensors = SafeTensors::deserialize(&bytes).expect("safetensors");
    let bytes_of = |name: &str| tensors.tensor(name).expect(name).data().to_vec();
    let integers = |name: &str| -> Vec<i64> {
        let size = bytes_of(name).len() / tensors.tensor(name).expect(name).shape().iter().product::<usize>();
        let wide = |bytes: &[u8]| {
            let sign = if bytes[size - 1] & 0x80 != 0 && size > 1 { 0xff } else { 0 };
            let mut all = [sign; 8];
            all[..size].copy_from_slice(bytes);
            i64::from_le_bytes(all)
        };
        bytes_of(name).chunks_exact(size).map(wide).collect()
    };
    let tokens =
        |name: &str| -> Vec<u8> { integers(name).into_iter().map(|t| u8::try_from(t).unwrap_or(255)).collect() };
    let (inputs, predictions) = (tokens("inputs"), tokens("preds"));
    let identifiers = integers("puzzle_identifiers");
    let q: Vec<f64> = bytes_of("q_halt_logits")
        .chunks_exact(4)
        .map(|b| f64::from(f32::from_le_bytes([b[0], b[1], b[2], b[3]])))
        .collect();
    let tasks = theirs.arc_tasks(0).expect("tasks");
    let mut ballot = Ballot::new(&tasks);
    let rows = inputs.chunks_exact(SIDE * SIDE).zip(predictions.chunks_exact(SIDE * SIDE));
    for ((input, prediction), (identifier, q)) in rows.zip(identifiers.iter().zip(q)) {
        let name = &theirs.identifiers[*identifier as usize];
        let (task, made) = Augmentation::of_name(name).expect("a name");
        let undone = |row: &[u8]| made.undo(&crop(row, SIDE));
        ballot.cast(task, &undone(input), undone(prediction), 1.0 / (1.0 + (-q).exp()));
    }
    let expected = read(&folder.join("scored/result.json"));
    let score = ballot.score();
    for (k, share) in PASS_AT.iter().zip(score.pass) {
        assert_eq!(json!(share), expected[format!("ARC/pass@{k}")], "pass@{k}");
    }
    assert_eq!(ballot.submission(), read(&folder.join("scored/submission.json")));
    tasks.len()
}
