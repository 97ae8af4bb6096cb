//! What outlives a process: weights, the state a run goes on from, and the folder that holds them.
//!
//! Every file is written beside its place, synced and renamed ([`crate::files::atomic`]), so a reader sees the old file or
//! the new one, never a part. A run folder belongs to one process at a time ([`crate::files::lock`]).

#[cfg(test)]
mod crash_tests;
pub mod row_file;
pub mod run_folder;
pub mod state;
pub mod tensor_file;
pub mod torch;
pub mod weights;

pub use row_file::{RowFile, SparseRows, read_rows, save_rows};
pub use run_folder::{RunFolder, RunPaths};
pub use state::{Loaded, load_latest, save};
pub use tensor_file::TensorFile;
pub use torch::{TorchFile, save_torch};
pub use weights::{NamedTensor, TensorSource, load_weights, save_weights};
