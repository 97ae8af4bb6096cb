use std::collections::HashSet;

use proptest::prelude::*;

use super::*;
use crate::puzzle::arc::generator::generate;
use crate::puzzle::arc::{Augmentation, Grid, crop, encode};
use crate::rng::Rng;

fn subsets(seed: u64) -> Vec<Subset> {
    let mut tasks = generate(7, 3, 2, 8, seed).unwrap();
    let second = tasks.split_off(4);
    let subset = |name: &str, tasks| Subset::of(name, tasks);
    vec![subset("training", tasks), subset("evaluation", second)]
}

fn options(aug: usize, stored: Stored) -> Options {
    Options { aug, seed: 3, side: 10, stored, pairs_per_group: None }
}

#[test]
fn a_build_has_the_published_layout_and_rows_that_lead_back_to_their_tasks() {
    let data = build(subsets(1), "evaluation", options(5, Stored::All)).unwrap();
    let (train, test) = (data.split("train").unwrap(), data.split("test").unwrap());
    assert_eq!((train.groups(), train.puzzles(), train.examples()), (7, 42, 4 * 6 * 5 + 3 * 6 * 3));
    assert_eq!((test.groups(), test.puzzles(), test.examples()), (3, 18, 3 * 6 * 2));
    assert_eq!(train.puzzle_identifiers, (1..=42).collect::<Vec<u32>>());
    assert_eq!(test.puzzle_identifiers, (25..=42).collect::<Vec<u32>>());
    assert_eq!(data.identifiers.len(), 43);
    assert_eq!(train.meta.mean_puzzle_examples, 174.0 / 42.0);
    let report = audit(&data).unwrap();
    assert_eq!((report.leaks(), report.faults()), (0, 0), "{report}");
    assert_eq!((report.test_tasks, report.demonstrated, report.test_pairs), (3, 3, 6));
    // The tasks come back, those of the test set whole.
    let tasks = data.arc_tasks(0).unwrap();
    let source = &subsets(1)[1].tasks;
    assert!(tasks.iter().all(|task| source.contains(task)) && tasks.len() == source.len());
    assert_eq!(data.arc_tasks(2).unwrap(), tasks[..2]);
    assert_eq!(data.arc_task_named(&source[0].id).unwrap(), source[0]);
    assert!(data.arc_task_named("001-reflekt").unwrap_err().to_string().contains("001-reflect"));
}

#[test]
fn demonstrations_that_are_dealt_out_one_by_one_are_still_one_task() {
    let options = Options { pairs_per_group: Some(1), ..options(2, Stored::All) };
    let data = build(subsets(1), "evaluation", options).unwrap();
    let (train, test) = (data.split("train").unwrap(), data.split("test").unwrap());
    assert_eq!((train.groups(), train.puzzles(), train.examples()), (4 * 5 + 3 * 3, 87, 87));
    assert_eq!((test.groups(), test.puzzles(), test.examples()), (3, 9, 18));
    assert_eq!(train.meta.mean_puzzle_examples, 1.0);
    // A batch holds as many tasks as chance has it, not one.
    let (mut sampler, mut batch) = (crate::dataset::Sampler::new(train, 8, 1), Vec::new());
    sampler.next_batch(train, &mut batch);
    let identifiers = batch.iter().map(|draw| train.puzzle_identifiers[train.puzzle_of(draw.example as usize)]);
    assert!(identifiers.collect::<HashSet<_>>().len() > 4);
    let source = &subsets(1)[1].tasks;
    let tasks = data.arc_tasks(0).unwrap();
    assert!(tasks.iter().all(|task| source.contains(task)) && tasks.len() == source.len());
    let report = audit(&data).unwrap();
    assert_eq!((report.leaks(), report.faults()), (0, 0), "{report}");
    assert_eq!((report.splits[0].tasks, report.splits[0].copies), (7, 14));
    assert_eq!((report.test_tasks, report.demonstrated), (3, 3));
}

#[test]
fn in_training_one_pair_of_each_copy_stands_in_the_corner_and_the_others_anywhere() {
    let data = build(subsets(1), "evaluation", options(20, Stored::All)).unwrap();
    let corner = |split: &Split, row: usize| split.inputs.row(row).unwrap()[0] > 1;
    let train = data.split("train").unwrap();
    for puzzle in 0..train.puzzles() {
        assert!(train.puzzle(puzzle).any(|row| corner(train, row)));
    }
    let moved = (0..train.examples()).filter(|&row| !corner(train, row)).count();
    assert!(moved * 2 > train.examples(), "{moved} of {}", train.examples());
    let test = data.split("test").unwrap();
    assert!((0..test.examples()).all(|row| corner(test, row)));
}

#[test]
fn a_set_of_originals_stands_for_all_rows_of_the_whole_set() {
    let home = tempfile::tempdir().unwrap();
    let all = build(subsets(2), "evaluation", options(9, Stored::All)).unwrap();
    let originals = build(subsets(2), "evaluation", options(9, Stored::Originals)).unwrap();
    let (whole, small) = (home.path().join("whole"), home.path().join("small"));
    all.write(&whole).unwrap();
    originals.write_with(&small, &[(ONLINE_FILE, online_file(3))], &|_| {}).unwrap();
    let (whole, small) = (Dataset::read(whole).unwrap(), Dataset::read(&small).map(|set| (set, small)).unwrap());
    assert_eq!(small.0.split("train").unwrap().examples() * 10, whole.split("train").unwrap().examples());
    assert_eq!(expand(&small.1, &small.0).unwrap(), whole);
    assert_eq!(all, whole);
    let message = expand(home.path(), &small.0).unwrap_err().to_string();
    assert!(message.contains("online.json: is missing") && message.contains("--online"), "{message}");
    let message = expand(&small.1, &whole).unwrap_err().to_string();
    assert!(message.contains("holds copies already"), "{message}");
}

#[test]
fn copies_are_distinct_and_fewer_than_asked_where_there_are_no_more() {
    let one = Grid::from_fn(1, 1, |_, _| 3);
    let pair = Pair { input: one.clone(), output: one };
    let task = Task { id: "dot".into(), train: vec![pair.clone()], test: vec![pair] };
    let subset = Subset::of("all", vec![task]);
    let data = build(vec![subset], "all", options(1000, Stored::All)).unwrap();
    assert_eq!(data.split("train").unwrap().puzzles(), 9, "a dot has nine colours and no other copies");
    let rows: HashSet<Vec<u8>> =
        data.split("test").unwrap().inputs.rows().map(Result::unwrap).map(|row| row.to_vec()).collect();
    assert_eq!(rows.len(), 9);
}

#[test]
fn tasks_that_occur_twice_are_counted_refused_and_left_out() {
    let mut two = subsets(4);
    let mut copy = two[1].tasks[0].clone();
    let made = Augmentation::random(&mut Rng::new(1));
    copy.id = "another".into();
    copy.train.iter_mut().chain(&mut copy.test).for_each(|pair| *pair = made.apply_pair(pair));
    two[0].tasks.push(copy);
    let twin = two[1].tasks[1].clone();
    two[0].tasks.push(twin.clone());
    let report = overlaps(&two);
    let across = report.across.iter().find(|pair| pair.first == "training" && pair.second == "evaluation").unwrap();
    assert_eq!((across.same_name, across.same_pairs, across.same_up_to_augmentation), (1, 1, 2));
    assert_eq!((across.sharing_a_pair, across.test_pairs_there), (2, 4));
    let message = build(two.clone(), "evaluation", options(1, Stored::All)).unwrap_err().to_string();
    assert!(message.contains(&twin.id) && message.contains("--disjoint"), "{message}");
    let left_out = disjoint(&mut two, "evaluation");
    assert_eq!(left_out[0], ("training".to_string(), vec!["another".to_string(), twin.id]));
    assert_eq!(two, subsets(4));
    assert_eq!(audit(&build(two, "evaluation", options(1, Stored::All)).unwrap()).unwrap().leaks(), 0);
}

#[test]
fn an_audit_finds_rows_of_other_tasks_and_test_pairs_that_are_trained_on() {
    let mut two = subsets(5);
    let leaked = two[1].tasks[0].test[0].clone();
    let made = Augmentation::random(&mut Rng::new(7));
    two[0].tasks[0].train[0] = leaked.clone();
    two[0].tasks[1].train[0] = made.apply_pair(&two[1].tasks[1].test[0]);
    let data = build(two, "evaluation", options(2, Stored::All)).unwrap();
    let report = audit(&data).unwrap();
    assert_eq!((report.leaked, report.leaked_up_to_augmentation), (1, 2), "{report}");
    let leaks = report.findings.iter().map(|leak| leak.ends_with("colours")).collect::<Vec<_>>();
    assert_eq!(leaks.len(), 2, "{report}");
    assert!(leaks[0] != leaks[1] && report.to_string().contains(", test pair 1: stands in task "), "{report}");

    let home = tempfile::tempdir().unwrap();
    let root = home.path().join("set");
    build(subsets(5), "evaluation", options(2, Stored::All)).unwrap().write(&root).unwrap();
    let mut data = Dataset::read(&root).unwrap();
    let train = data.splits.get_mut("train").unwrap();
    let other = train.inputs.row(40).unwrap().to_vec();
    train.inputs.row_mut(7).copy_from_slice(&other);
    train.labels.row_mut(9).fill(0);
    let report = audit(&data).unwrap();
    assert_eq!((report.splits[0].not_their_task, report.splits[0].no_pair), (1, 1), "{report}");
}

#[test]
fn the_crop_of_a_prediction_is_its_largest_corner_rectangle_and_of_equals_the_first() {
    let crop_of = |text: &str| {
        let row: Vec<u8> = text.split_whitespace().flat_map(str::bytes).map(|b| b - b'0').collect();
        let grid = crop(&row, row.len().isqrt());
        (grid.height(), grid.width())
    };
    assert_eq!(crop_of("2221 2221 1111 0000"), (2, 3));
    assert_eq!(crop_of("2222 2211 2211 2211"), (4, 2), "the width never grows again");
    assert_eq!(crop_of("2222 2200 0000 0000"), (1, 4), "four cells twice: the first");
    assert_eq!(crop_of("1222 2222 2222 2222"), (0, 0));
    assert_eq!(crop_of("2222 2222 2222 2222"), (4, 4));
}

/// Every rectangle, in the order of rows: the plainest reading of specification, "ARC crop".
fn crop_twin(row: &[u8], side: usize) -> Grid {
    let is_colour = |r: usize, c: usize| (2..12).contains(&row[r * side + c]);
    let mut best = (0, 0);
    for height in 1..=side {
        for width in 1..=side {
            let full = (0..height).all(|r| (0..width).all(|c| is_colour(r, c)));
            if full && height * width > best.0 * best.1 {
                best = (height, width);
            }
        }
    }
    Grid::from_fn(best.0, best.1, |r, c| row[r * side + c] - 2)
}

proptest! {
    #[test]
    fn a_crop_is_what_trying_every_rectangle_finds(seed in any::<u64>(), side in 1usize..9) {
        let mut rng = Rng::new(seed);
        let holes = 1 + rng.below(12);
        let row: Vec<u8> =
            (0..side * side).map(|_| if rng.below(holes) == 0 { rng.below(14) as u8 } else { 2 + rng.below(10) as u8 }).collect();
        prop_assert_eq!(crop(&row, side), crop_twin(&row, side));
    }

    #[test]
    fn decoding_undoes_encoding_wherever_the_grid_stands(seed in any::<u64>(), side in 1usize..31) {
        let mut rng = Rng::new(seed);
        let (height, width) = (1 + rng.below(side), 1 + rng.below(side));
        let grid = Grid::from_fn(height, width, |_, _| rng.below(10) as u8);
        let made = Augmentation::random(&mut rng);
        let image = made.apply(&grid);
        let offset = (rng.below(side - image.height() + 1), rng.below(side - image.width() + 1));
        let mut row = vec![9; side * side];
        encode(&grid, &made, offset, side, &mut row);
        prop_assert_eq!(decode(&row, side), Some(image.clone()));
        if offset == (0, 0) {
            prop_assert_eq!(crop(&row, side), image.clone());
        }
        // Any other token anywhere is noticed, unless it is another colour inside the grid.
        let at = rng.below(row.len());
        let other = rng.below(12) as u8;
        let both_colours = row[at] > 1 && other > 1;
        if row[at] != other && !both_colours {
            row[at] = other;
            prop_assert!(decode(&row, side).is_none_or(|decoded| decoded != image));
        }
    }
}
