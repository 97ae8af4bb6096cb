//! The eight rotations and reflections of a square, numbered as in specification, "Details": 0 identity, 1–3 rotation by 90°·id
//! counter-clockwise, 4 left-right flip, 5 up-down flip, 6 transpose, 7 rotation by 90°, then left-right flip.

/// How many there are.
pub const SYMMETRIES: usize = 8;

/// The cell that symmetry `id` moves to cell `at`.
pub fn source(side: usize, id: usize, at: usize) -> usize {
    let (r, c, last) = (at / side, at % side, side - 1);
    let (r, c) = match id {
        0 => (r, c),
        1 => (c, last - r),
        2 => (last - r, last - c),
        3 => (last - c, r),
        4 => (r, last - c),
        5 => (last - r, c),
        6 => (c, r),
        _ => (last - c, last - r),
    };
    r * side + c
}

/// The image of a maze.
pub fn image(side: usize, id: usize, tokens: &[u8]) -> Vec<u8> {
    (0..tokens.len()).map(|at| tokens[source(side, id, at)]).collect()
}

/// The smallest of the eight images: equal for two mazes exactly when a symmetry connects them.
pub fn canonical(side: usize, tokens: &[u8]) -> Vec<u8> {
    let images = (1..SYMMETRIES).map(|id| image(side, id, tokens));
    images.fold(tokens.to_vec(), |least, image| least.min(image))
}
