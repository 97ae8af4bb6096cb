use super::*;
use crate::puzzle::arc::Dihedral;

fn grid(text: &str) -> Grid {
    let rows: Vec<Vec<i64>> = text
        .split_whitespace()
        .map(|row| row.chars().map(|c| if c == '.' { 0 } else { i64::from(c as u8 - b'0') }).collect())
        .collect();
    Grid::from_rows(&rows).unwrap()
}

#[test]
fn every_rule_does_what_its_line_says() {
    let turned = |id| Dihedral::new(id).unwrap();
    for (rule, input, output) in [
        (Rule::Recolour { from: 3, to: 5 }, "3.1 .33", "5.1 .55"),
        (Rule::Swap { a: 1, b: 3 }, "3.1 2.3", "1.3 2.1"),
        (Rule::Reflect { symmetry: turned(4) }, "12. 3..", ".21 ..3"),
        (Rule::Crop, ".... .12. ..3.", "12 .3"),
        (Rule::Crop, "... ...", "."),
        (Rule::Fill { colour: 7 }, "111. 1.1. 111. ....", "111. 171. 111. ...."),
        (Rule::Fill { colour: 7 }, "11. 1.1 111", "11. 171 111"),
        (Rule::Gravity { floor: turned(0) }, "12. 1.. .3.", "... 12. 13."),
        (Rule::Gravity { floor: turned(2) }, "... .2. 13.", "12. .3. ..."),
        (Rule::Count { colour: 4 }, "4.4 .14", "444"),
        (Rule::Count { colour: 4 }, "1.1", "."),
        (Rule::Outline { colour: 6 }, ".... .1.. .... ....", "666. 616. 666. ...."),
        (Rule::Mirror, "12 .3", "1221 .33."),
        (Rule::Enlarge, "1. .2", "11.. 11.. ..22 ..22"),
        (Rule::Beam, ".1.2. .....", "11121 ....."),
        (Rule::Shift { by: 1 }, "12. ..3", ".12 3.."),
        (Rule::Majority, "12. 221", "222 222"),
        (Rule::Majority, "12", "11"),
        (Rule::Symmetrise, "1..2 3...", "1..2 3..3"),
    ] {
        assert_eq!(rule.apply(&grid(input)), grid(output), "{rule} of {input}");
    }
}

#[test]
fn generated_tasks_are_true_fit_their_board_and_repeat_no_input() {
    for side in [4, 6, 8, 12] {
        let tasks = generate(2 * KINDS.len(), 12, 3, side, 5).unwrap();
        assert_eq!(tasks, generate(2 * KINDS.len(), 12, 3, side, 5).unwrap());
        assert_ne!(tasks, generate(2 * KINDS.len(), 12, 3, side, 6).unwrap());
        for (at, task) in tasks.iter().enumerate() {
            assert!(task.id.contains(KINDS[at % KINDS.len()]), "{}", task.id);
            assert_eq!((task.train.len(), task.test.len()), (12, 3));
            assert!(task.pairs().all(|pair| pair.side() <= side), "{}", task.id);
            let inputs: HashSet<&Grid> = task.pairs().map(|pair| &pair.input).collect();
            assert_eq!(inputs.len(), 15, "{}", task.id);
            let changed = task.pairs().filter(|pair| pair.input != pair.output).count();
            assert!(changed >= 5, "{}: {changed} of 15 pairs show something", task.id);
        }
    }
    for side in [3, 31] {
        assert!(generate(1, 1, 1, side, 0).is_err());
    }
}

#[test]
fn no_test_pair_is_a_demonstration_of_any_task_under_any_symmetry() {
    for (side, demonstrations, tests, seed) in [(6, 200, 10, 0), (6, 200, 10, 1), (4, 60, 2, 2)] {
        let tasks = generate(2 * KINDS.len(), demonstrations, tests, side, seed).unwrap();
        let shown: HashSet<Box<[u8]>> = tasks.iter().flat_map(|task| &task.train).map(pair_key).collect();
        for task in &tasks {
            assert_eq!((task.train.len(), task.test.len()), (demonstrations, tests));
            assert!(task.test.iter().all(|pair| !shown.contains(&pair_key(pair))), "{} at side {side}", task.id);
        }
    }
    // Boxes of 2x2 have a handful of classes; a hundred test pairs are all of them.
    let error = generate(KINDS.len(), 1, 500, 4, 0).unwrap_err();
    assert!(matches!(error, ArcError::Exhausted { .. }), "{error}");
}
