//! The puzzles the engine learns: their rules, solvers, generators and symmetries, with no word about models.
//!
//! Each puzzle is a room of its own and knows nothing of the others; nothing here knows of tensors or files.
//!
//! * [`sudoku`]: 4×4, 6×6, 9×9 and 16×16 Sudoku.

pub mod sudoku;
