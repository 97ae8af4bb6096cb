//! Shortest paths by breadth-first search from the goal.

use super::{GOAL, PATH, SPACE, START, WALL};

/// Paths are counted up to here.
pub const MOST_PATHS: u64 = 1_000_000;

/// Marks a cell that cannot be reached.
const FAR: u32 = u32::MAX;

/// The shortest path of a maze.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ShortestPath {
    /// Cells on the path, S and G included.
    pub length: usize,
    /// Shortest paths there are, at most [`MOST_PATHS`].
    pub paths: u64,
    /// The maze with the first of them.
    pub answer: Vec<u8>,
}

/// Where S and G are; on a fault, what is wrong with the maze.
pub fn ends(question: &[u8]) -> Result<(usize, usize), String> {
    if let Some(at) = question.iter().position(|token| !(WALL..=GOAL).contains(token)) {
        return Err(format!("holds something else than walls, spaces, S and G at cell {}", at + 1));
    }
    let only = |token: u8, name: &str| {
        let mut places = question.iter().enumerate().filter(|&(_, &t)| t == token).map(|(at, _)| at);
        match (places.next(), places.count()) {
            (Some(at), 0) => Ok(at),
            (None, _) => Err(format!("has no {name}")),
            (Some(_), more) => Err(format!("has {} {name}s", more + 1)),
        }
    };
    Ok((only(START, "S")?, only(GOAL, "G")?))
}

/// The cells next to `at`, in the order up, left, right, down.
pub(super) fn neighbours(side: usize, at: usize) -> impl Iterator<Item = usize> {
    let (r, c) = (at / side, at % side);
    let around = [
        (r > 0, at.wrapping_sub(side)),
        (c > 0, at.wrapping_sub(1)),
        (c + 1 < side, at + 1),
        (r + 1 < side, at + side),
    ];
    around.into_iter().filter(|(inside, _)| *inside).map(|(_, next)| next)
}

/// Steps from `from` to every cell over cells that are `open`, and the cells reached, nearest first.
pub(super) fn distances(side: usize, from: usize, open: impl Fn(usize) -> bool) -> (Vec<u32>, Vec<usize>) {
    let mut steps = vec![FAR; side * side];
    steps[from] = 0;
    let mut reached = vec![from];
    let mut next = 0;
    while next < reached.len() {
        let at = reached[next];
        next += 1;
        for cell in neighbours(side, at) {
            if steps[cell] == FAR && open(cell) {
                steps[cell] = steps[at] + 1;
                reached.push(cell);
            }
        }
    }
    (steps, reached)
}

/// The shortest path; `None` where S and G are not one each, or not connected.
///
/// # Panics
/// If the row has not side² cells.
pub fn solve(side: usize, question: &[u8]) -> Option<ShortestPath> {
    assert_eq!(question.len(), side * side, "a maze of side {side}");
    let (start, goal) = ends(question).ok()?;
    let (steps, reached) = distances(side, goal, |cell| question[cell] != WALL);
    if steps[start] == FAR {
        return None;
    }
    // Ways to the goal from every cell, near ones first.
    let mut paths = vec![0u64; side * side];
    paths[goal] = 1;
    for &at in &reached[1..] {
        paths[at] = closer(side, &steps, at).fold(0, |sum: u64, cell| (sum + paths[cell]).min(MOST_PATHS));
    }
    let mut answer = question.to_vec();
    let mut at = start;
    while steps[at] > 1 {
        let Some(next) = closer(side, &steps, at).next() else { break };
        at = next;
        answer[at] = PATH;
    }
    Some(ShortestPath { length: steps[start] as usize + 1, paths: paths[start], answer })
}

/// The neighbours of `at` that are one step nearer.
fn closer(side: usize, steps: &[u32], at: usize) -> impl Iterator<Item = usize> {
    neighbours(side, at).filter(move |&cell| steps[cell] != FAR && steps[cell] + 1 == steps[at])
}

/// Whether `answer` is `question` with one of its shortest paths drawn in, and nothing else.
pub fn is_solution(side: usize, question: &[u8], answer: &[u8]) -> bool {
    if question.len() != side * side || answer.len() != question.len() {
        return false;
    }
    let Ok((start, goal)) = ends(question) else { return false };
    let drawn = |(&q, &a): (&u8, &u8)| q == a || (q == SPACE && a == PATH);
    if !question.iter().zip(answer).all(drawn) {
        return false;
    }
    let shortest = distances(side, goal, |cell| question[cell] != WALL).0[start];
    let along = distances(side, goal, |cell| answer[cell] == PATH || cell == start).0[start];
    // As many cells as a shortest path has between its ends, and connected by them alone: nothing is left over.
    let cells = answer.iter().filter(|&&token| token == PATH).count();
    shortest != FAR && along == shortest && cells + 1 == shortest as usize
}
