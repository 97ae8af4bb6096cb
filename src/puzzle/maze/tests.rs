use proptest::prelude::*;

use super::solver::neighbours;
use super::*;
use crate::puzzle::{Board as _, Moves};
use crate::rng::Rng;

/// Any field of walls with an S and a G.
fn any_maze() -> impl Strategy<Value = (usize, Vec<u8>)> {
    (3..6usize).prop_flat_map(|side| {
        let cells = side * side;
        let walls = prop::collection::vec(prop::sample::select(&[WALL, SPACE, SPACE][..]), cells);
        (walls, 0..cells, 1..cells).prop_map(move |(mut question, start, step)| {
            question[start] = START;
            question[(start + step) % cells] = GOAL;
            (side, question)
        })
    })
}

/// All simple paths from S to G, as moves 0–3 (up, left, right, down) and cells, by plain depth-first search.
fn all_paths(side: usize, question: &[u8]) -> Vec<Vec<usize>> {
    fn walk(side: usize, question: &[u8], path: &mut Vec<usize>, found: &mut Vec<Vec<usize>>) {
        let at = path[path.len() - 1];
        if question[at] == GOAL {
            found.push(path.clone());
            return;
        }
        for next in neighbours(side, at) {
            if question[next] != WALL && !path.contains(&next) {
                path.push(next);
                walk(side, question, path, found);
                path.pop();
            }
        }
    }
    let start = question.iter().position(|&t| t == START).unwrap_or(0);
    let mut found = Vec::new();
    walk(side, question, &mut vec![start], &mut found);
    found
}

fn drawn(question: &[u8], path: &[usize]) -> Vec<u8> {
    let mut answer = question.to_vec();
    path[1..path.len() - 1].iter().for_each(|&cell| answer[cell] = PATH);
    answer
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(150))]

    #[test]
    fn the_solver_agrees_with_trying_every_path((side, question) in any_maze()) {
        // The walk tries moves in the order of the tie-break, so the first shortest path it finds is the label.
        let paths = all_paths(side, &question);
        let shortest = paths.iter().map(Vec::len).min();
        let solved = solve(side, &question);
        prop_assert_eq!(solved.as_ref().map(|s| s.length), shortest);
        let Some(solved) = solved else { return Ok(()) };
        let best: Vec<&Vec<usize>> = paths.iter().filter(|path| Some(path.len()) == shortest).collect();
        prop_assert_eq!(solved.paths, best.len() as u64);
        prop_assert_eq!(&solved.answer, &drawn(&question, best[0]));
        for path in &paths {
            let right = Some(path.len()) == shortest;
            prop_assert_eq!(is_solution(side, &question, &drawn(&question, path)), right);
        }
    }

    #[test]
    fn an_answer_with_any_cell_changed_is_right_only_if_it_is_another_shortest_path(
        (side, question) in any_maze(), at in 0..9usize, token in 0..6u8,
    ) {
        let Some(solved) = solve(side, &question) else { return Ok(()) };
        let mut answer = solved.answer.clone();
        answer[at] = token;
        prop_assert_eq!(is_solution(side, &question, &answer), answer == solved.answer);
    }

    #[test]
    fn a_symmetry_keeps_the_path_and_the_canonical_form((side, question) in any_maze(), id in 0..SYMMETRIES) {
        let moved = image(side, id, &question);
        prop_assert_eq!(canonical(side, &moved), canonical(side, &question));
        let inverse = [0, 3, 2, 1, 4, 5, 6, 7][id];
        prop_assert_eq!(&image(side, inverse, &moved), &question);
        let (a, b) = (solve(side, &question), solve(side, &moved));
        prop_assert_eq!(a.as_ref().map(|s| (s.length, s.paths)), b.map(|s| (s.length, s.paths)));
        if let Some(a) = a {
            prop_assert!(is_solution(side, &moved, &image(side, id, &a.answer)));
        }
    }

    #[test]
    fn text_and_tokens_say_the_same((side, question) in any_maze()) {
        prop_assume!(solve(side, &question).is_some());
        let board = MazeBoard::new(side * side, VOCABULARY).unwrap();
        prop_assert_eq!(board.parse(&board.text(&question)).unwrap(), question.clone());
        let published: String = question.iter().map(|&t| SYMBOLS[usize::from(t)]).collect();
        prop_assert_eq!(board.parse(&published).unwrap(), question);
    }
}

#[test]
fn the_generator_keeps_its_promises_whatever_the_threads() -> crate::Result<()> {
    for (side, min_path) in [(6, 0), (8, 12), (12, 24), (30, 110)] {
        let (train, test) = if side == 30 { (6, 2) } else { (60, 20) };
        let make = || generate_split(side, train, test, PathSpec { min_path, unique_path: side < 10 }, 7);
        let split = make()?;
        let one = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
        assert_eq!(one.install(make)?, split);
        assert_eq!((split.train.len(), split.test.len()), (train, test));
        let all = [&split.train[..], &split.test[..]].concat();
        let forms: std::collections::HashSet<_> = all.iter().map(|maze| canonical(side, &maze.question)).collect();
        assert_eq!(forms.len(), all.len(), "side {side}: all different up to symmetry");
        for maze in all {
            let solved = solve(side, &maze.question).unwrap();
            assert!(solved.length >= min_path.max(2) && solved.answer == maze.answer, "{maze:?}");
            assert!(solved.paths == 1 || side >= 10, "{maze:?}");
        }
    }
    Ok(())
}

#[test]
fn what_cannot_be_made_is_refused() {
    let refused = |side, count, min_path| {
        generate_split(side, count, 1, PathSpec { min_path, unique_path: false }, 0).unwrap_err().to_string()
    };
    assert!(refused(5, 4, 26).contains("shorter path"));
    assert!(refused(3, 1 << 15, 2).contains("too few mazes"));
    assert!(refused(200, 1, 2).contains("choose 3 to 128"));
}

#[test]
fn what_is_no_maze_is_refused_with_its_place() {
    let board = MazeBoard::new(9, VOCABULARY).unwrap();
    for (text, expected) in [
        ("S..\n...\n..G.", "has 10 cells, expected 9"),
        ("S..\n.x.\n..G", "'x' at row 2, column 2"),
        ("S..\n.o.\n..G", "'o' at row 2, column 2"),
        ("S..\n...\n..S", "has 2 Ss"),
        ("S..\n...\n...", "has no G"),
        ("S#.\n##.\n..G", "no way from S to G"),
    ] {
        let error = board.parse(text).unwrap_err().to_string();
        assert!(error.contains(expected), "{text:?}: {error}");
    }
    assert!(MazeBoard::new(10, VOCABULARY).is_err() && MazeBoard::new(9, 7).is_err());
}

#[test]
fn a_drawing_marks_changes_without_colour_and_paints_them_with_it() {
    let board = MazeBoard::new(9, VOCABULARY).unwrap();
    let question = board.parse("S.#\n#.#\n#.G").unwrap();
    let answer = solve(3, &question).unwrap().answer;
    let changed: Vec<bool> = question.iter().zip(&answer).map(|(a, b)| a != b).collect();
    assert_eq!(board.draw(&question, &answer, &changed, false), "S o*#\n# o*#\n# o*G\n");
    let painted = board.draw(&question, &answer, &changed, true);
    assert_eq!(painted.matches("\x1b[1;33mo").count(), 3, "{painted:?}");
    assert_eq!(painted.lines().count(), 3);
}

#[test]
fn every_drawn_symmetry_is_one_of_the_eight_and_all_are_drawn() {
    let board = MazeBoard::new(16, VOCABULARY).unwrap();
    let tokens: Vec<u8> = (0..16).collect();
    let mut seen = std::collections::BTreeSet::new();
    let mut moves = Moves::identity(16);
    for seed in 0..200 {
        board.random_symmetry(&mut Rng::new(seed), &mut moves);
        let moved: Vec<u8> = moves.image(|at| tokens[at]).collect();
        seen.extend((0..SYMMETRIES).filter(|&id| image(4, id, &tokens) == moved));
    }
    assert_eq!(seen.len(), SYMMETRIES);
}
