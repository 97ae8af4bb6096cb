//! All tests of the library and of the command in one program: linked once, and no core waits for the last test of a file.
//! Those of one file: `cargo test golden::`.

mod common;

mod arc;
mod architecture;
mod bench_command;
mod bf16;
mod choosing;
mod commands;
#[cfg(cuda)]
mod cuda;
mod dataset_errors;
#[cfg(unix)]
mod documented_commands;
mod errors;
mod eval_command;
#[cfg(target_os = "linux")]
mod file_systems;
mod format2;
#[cfg(target_os = "linux")]
mod full_disk;
mod golden;
mod golden_data;
mod gradients;
mod imports;
mod init;
mod mazes;
mod model_settings;
mod non_finite;
mod optimizers;
mod own_puzzle;
mod paper_presets;
mod paths;
mod peers;
mod profile;
mod puzzle_sudoku;
#[cfg(unix)]
mod puzzle_table;
mod recursions;
#[cfg(unix)]
mod resume;
#[cfg(unix)]
mod slurm;
mod specification;
#[cfg(unix)]
mod terminal;
mod threads;
mod unreadable_rows;
mod weights_command;
mod whose_data;
