//! Files that outlive a crash: whole files, whole folders, logs, and the arrays that data sets are made of.
//!
//! Whatever creates a file goes through this room, so a reader sees the old file or the new one, never a part.
//!
//! | file | idea |
//! |---|---|
//! | [`atomic`] | a whole file: written beside its place, synced, renamed |
//! | [`new_folder`] | a whole folder: filled under a hidden name, synced, renamed |
//! | [`append`] | a log: lines are appended, synced when the caller says so, cut off at a length |
//! | [`lock`] | one process per folder |
//! | [`output`] | a file that a command is told to write: whether what is there may be replaced |
//! | [`npy`] | one array in one `.npy` file |
//! | `summed` | a stream with a checksum |

pub mod append;
pub mod atomic;
#[cfg(test)]
pub(crate) mod crash;
pub mod lock;
pub mod new_folder;
pub mod npy;
pub mod output;
mod summed;

pub use append::AppendFile;
pub use lock::FolderLock;
pub use new_folder::NewFolder;
pub use output::check_output;
pub(crate) use summed::Summed;

/// A place where a test may make a sequence of writes fail or the process die; nothing outside tests.
#[inline]
pub(crate) fn step(_name: &'static str) -> std::io::Result<()> {
    #[cfg(test)]
    crash::on_step()?;
    Ok(())
}
