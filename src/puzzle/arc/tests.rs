//! Laws of the symmetries and names, twins of the votes and the canonical form.

use proptest::prelude::*;
use serde_json::json;

use super::overlap::{augmentation_between, pair_key};
use super::picture::{Panel, side_by_side};
use super::vote::{Ballot, PASS_AT};
use super::*;
use crate::rng::Rng;

fn random_grid(rng: &mut Rng, side: usize, colours: usize) -> Grid {
    let (height, width) = (1 + rng.below(side), 1 + rng.below(side));
    Grid::from_fn(height, width, |_, _| rng.below(colours) as u8)
}

fn random_task(rng: &mut Rng, pairs: usize, side: usize, colours: usize) -> Task {
    let mut list: Vec<Pair> = (0..pairs)
        .map(|_| Pair { input: random_grid(rng, side, colours), output: random_grid(rng, side, colours) })
        .collect();
    let test = list.split_off(pairs - 1);
    Task { id: "t".into(), train: list, test }
}

fn cells(rows: &[&[i64]]) -> Grid {
    Grid::from_rows(&rows.iter().map(|row| row.to_vec()).collect::<Vec<_>>()).unwrap()
}

proptest! {
    #[test]
    fn undoing_an_augmentation_gives_the_grid_back(seed in any::<u64>()) {
        let mut rng = Rng::new(seed);
        let (grid, made) = (random_grid(&mut rng, 30, 10), Augmentation::random(&mut rng));
        let image = made.apply(&grid);
        prop_assert_eq!(&made.undo(&image), &grid);
        prop_assert_eq!(Augmentation::IDENTITY.apply(&grid), grid);
        prop_assert_eq!(made.undo(&Grid::default()), Grid::default());
    }

    #[test]
    fn a_name_says_how_to_undo_a_copy(seed in any::<u64>(), task in "[a-zA-Z0-9_ |-]{0,6}[a-z0-9]") {
        prop_assume!(!task.contains("|||"));
        let made = Augmentation::random(&mut Rng::new(seed));
        let name = made.name(&task);
        prop_assert_eq!(Augmentation::of_name(&name).unwrap(), (task.as_str(), made));
        prop_assert_eq!(Augmentation::of_name(&task).unwrap(), (task.as_str(), Augmentation::IDENTITY));
    }

    #[test]
    fn pairs_have_one_key_exactly_if_an_augmentation_connects_them(seed in any::<u64>()) {
        let mut rng = Rng::new(seed);
        let pair = |rng: &mut Rng| Pair { input: random_grid(rng, 2, 3), output: random_grid(rng, 2, 3) };
        let (a, b) = (pair(&mut rng), pair(&mut rng));
        let made = Augmentation::random(&mut rng);
        prop_assert_eq!(pair_key(&a), pair_key(&made.apply_pair(&a)));
        let task = |pair: &Pair| Task { id: String::new(), train: vec![pair.clone()], test: vec![] };
        let between = augmentation_between(&task(&a), &task(&b));
        prop_assert_eq!(pair_key(&a) == pair_key(&b), between.is_some());
        if let Some(found) = between {
            prop_assert_eq!(found.apply_pair(&a), b);
        }
    }

    #[test]
    fn a_task_is_found_again_in_any_copy_of_it_and_in_no_other_task(seed in any::<u64>()) {
        let mut rng = Rng::new(seed);
        let task = random_task(&mut rng, 4, 5, 4);
        let made = Augmentation::random(&mut rng);
        let mut pairs: Vec<Pair> = task.pairs().map(|pair| made.apply_pair(pair)).collect();
        rng.shuffle(&mut pairs);
        let mut copy = Task { id: "copy".into(), train: pairs, test: vec![] };
        let found = augmentation_between(&task, &copy).unwrap();
        let mut images: Vec<Pair> = task.pairs().map(|pair| found.apply_pair(pair)).collect();
        images.sort();
        let mut sorted = copy.train.clone();
        sorted.sort();
        prop_assert_eq!(images, sorted);
        copy.train[2].output = Grid::from_fn(6, 6, |_, _| 1);
        prop_assert!(augmentation_between(&task, &copy).is_none());
    }

    #[test]
    fn votes_are_counted_as_the_slow_obvious_twin_counts_them(seed in any::<u64>()) {
        let mut rng = Rng::new(seed);
        let mut tasks: Vec<Task> = (0..3).map(|_| random_task(&mut rng, 4, 2, 2)).collect();
        for (at, task) in tasks.iter_mut().enumerate() {
            task.id = format!("task {at}");
            let more = task.train.pop().unwrap();
            task.test.push(more);
        }
        let predictions: Vec<(usize, Grid, Grid, f64)> = (0..rng.below(60))
            .map(|_| {
                let at = rng.below(3);
                let input = match rng.below(5) {
                    0 => random_grid(&mut rng, 2, 2),
                    n => tasks[at].test[n % 2].input.clone(),
                };
                // Few different confidences, so that there are ties of everything.
                (at, input, random_grid(&mut rng, 2, 2), 0.25 * rng.below(4) as f64)
            })
            .collect();
        let mut ballot = Ballot::new(&tasks);
        for (at, input, grid, confidence) in &predictions {
            ballot.cast(&tasks[*at].id, input, grid.clone(), *confidence);
        }
        let mut pass = [0.0; 6];
        for (at, task) in tasks.iter().enumerate() {
            for (test, pair) in task.test.iter().enumerate() {
                let mut ranked: Vec<(Grid, f64, f64)> = Vec::new();
                for (of, input, grid, confidence) in &predictions {
                    if (*of, input) != (at, &pair.input) {
                        continue;
                    }
                    match ranked.iter_mut().find(|(known, _, _)| known == grid) {
                        Some(found) => (found.1, found.2) = (found.1 + 1.0, found.2 + confidence),
                        None => ranked.push((grid.clone(), 1.0, *confidence)),
                    }
                }
                // Insertion sort: nothing moves past an equal.
                for i in 1..ranked.len() {
                    let key = |x: &(Grid, f64, f64)| (x.1, x.2 / x.1);
                    let mut j = i;
                    while j > 0 && key(&ranked[j]) > key(&ranked[j - 1]) {
                        ranked.swap(j, j - 1);
                        j -= 1;
                    }
                }
                let order: Vec<Grid> = ballot.ranked(at, test).iter().map(|c| c.grid.clone()).collect();
                prop_assert_eq!(&order, &ranked.iter().map(|r| r.0.clone()).collect::<Vec<_>>());
                for (sum, k) in pass.iter_mut().zip(PASS_AT) {
                    *sum += f64::from(u8::from(order.iter().take(k).any(|grid| *grid == pair.output))) / 6.0;
                }
            }
        }
        for (ours, twin) in ballot.score().pass.iter().zip(pass) {
            prop_assert!((ours - twin).abs() < 1e-12);
        }
    }
}

#[test]
fn names_that_say_nothing_are_refused() {
    for name in [
        "a|||t8|||0123456789",
        "a|||t1",
        "a|||1|||0123456789",
        "a|||t1|||1023456789",
        "a|||t1|||0123456788",
        "a|||t1|||012345678",
        "a|||t1|||012345678é",
        "a|||t-1|||0123456789",
    ] {
        assert!(Augmentation::of_name(name).is_err(), "{name}");
    }
}

/// One task with the test inputs `[[1]]` and `[[2]]`, whose answers are `[[3]]` and `[[4, 4]]`.
fn two_tests() -> Vec<Task> {
    let pair = |input: &[&[i64]], output: &[&[i64]]| Pair { input: cells(input), output: cells(output) };
    let test = vec![pair(&[&[1]], &[&[3]]), pair(&[&[2]], &[&[4, 4]])];
    vec![Task { id: "a".into(), train: vec![], test }]
}

#[test]
fn ties_go_to_confidence_and_then_to_who_came_first() {
    let tasks = two_tests();
    let mut ballot = Ballot::new(&tasks);
    let one = cells(&[&[1]]);
    for (answer, confidence) in [(7, 0.5), (8, 0.9), (3, 0.5), (9, 0.2), (9, 0.2)] {
        assert!(ballot.cast("a", &one, cells(&[&[answer]]), confidence));
    }
    let order: Vec<u8> = ballot.ranked(0, 0).iter().map(|c| c.grid.at(0, 0)).collect();
    assert_eq!(order, [9, 8, 7, 3], "two votes, then the sure one, then 7 before 3 as they came");
    assert_eq!(ballot.score().pass, [0.0, 0.0, 0.5, 0.5, 0.5, 0.5]);
    assert_eq!(ballot.submission(), json!({"a": [{"attempt_1": [[9]], "attempt_2": [[8]]}]}));
}

#[test]
fn an_empty_crop_is_an_answer_like_any_other_and_a_single_one_fills_both_attempts() {
    let tasks = two_tests();
    let mut ballot = Ballot::new(&tasks);
    assert!(ballot.cast("a", &cells(&[&[1]]), Grid::default(), 0.9));
    assert!(ballot.cast("a", &cells(&[&[2]]), cells(&[&[4, 4]]), 0.1));
    assert_eq!(
        ballot.submission(),
        json!({"a": [{"attempt_1": [[0]], "attempt_2": [[0]]}, {"attempt_1": [[4, 4]], "attempt_2": [[4, 4]]}]})
    );
    assert_eq!(ballot.score().pass, [0.5; 6]);
}

#[test]
fn predictions_for_no_test_input_and_for_no_task_are_dropped() {
    let tasks = two_tests();
    let mut ballot = Ballot::new(&tasks);
    assert!(!ballot.cast("a", &cells(&[&[5]]), cells(&[&[3]]), 1.0));
    assert!(!ballot.cast("b", &cells(&[&[1]]), cells(&[&[3]]), 1.0));
    assert_eq!((ballot.score().pass, ballot.score().answered), ([0.0; 6], 0));
    assert_eq!(ballot.submission(), json!({"a": []}));
}

#[test]
fn two_equal_copies_are_two_votes() {
    let tasks = two_tests();
    let mut ballot = Ballot::new(&tasks);
    // The colours 5 and 6 do not occur: both augmentations make the same copy of the input.
    let swap = |a: usize, b: usize| {
        let mut made = Augmentation::IDENTITY;
        made.colours.swap(a, b);
        made
    };
    let input = cells(&[&[1]]);
    for made in [Augmentation::IDENTITY, swap(5, 6)] {
        let seen = made.apply(&input);
        assert_eq!(seen, input);
        assert!(ballot.cast("a", &made.undo(&seen), made.undo(&cells(&[&[3]])), 0.5));
    }
    assert_eq!(ballot.ranked(0, 0)[0].votes, 2);
}

#[test]
fn panels_stand_side_by_side_with_their_differences_marked() {
    let (small, large) = (cells(&[&[1, 0]]), cells(&[&[1, 2], &[0, 3]]));
    let panels = [
        Panel::new("in", &small),
        Panel { title: "attempt".into(), grid: Some(&large), marks: Some(&small) },
        Panel { title: "truth".into(), grid: None, marks: None },
    ];
    let text = "in     attempt   truth\n1 .    1 2*      (no grid)\n       .*3*\n";
    assert_eq!(side_by_side(&panels, false), text);
    assert!(side_by_side(&panels, true).contains("\x1b[48;2;0;116;217;97m  \x1b[0m"));
}
