//! The one error type of the crate: every variant prints as a single line that says what was wrong, where, and
//! what to do about it.

use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// Result with the crate's [`enum@Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Exit code of a command that was interrupted: 128 + SIGINT.
pub const INTERRUPTED: u8 = 130;

/// Everything that can go wrong, by whose move is next: the caller's input, the system, or the numbers.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Bad input: a file, a setting or an argument that cannot be used as it is. Exit code 2.
    #[error("{0}")]
    Input(String),
    /// The system refused to read or write `path`. Exit code 2.
    #[error("{}: {source}{}", path.display(), advice(source))]
    Io { path: PathBuf, source: std::io::Error },
    /// A number left the finite range while training. Exit code 1.
    #[error(
        "step {step}: {tensor} is not finite; nothing was overwritten, the last good checkpoint is {last_good} \
         (lower train.lr, or set train.grad_clip)"
    )]
    NonFinite { tensor: String, step: u64, last_good: String },
    /// Training was asked to stop, and everything is saved. Exit code 130, as for every command ended by Ctrl-C.
    #[error("saved after update {step}; go on with: trm train --resume --out {}", run.display())]
    Interrupted { step: u64, run: PathBuf },
    /// A check ran and its answer is no (gradient check, audit). Exit code 1.
    #[error("{0}")]
    CheckFailed(String),
}

/// What to do about it, where that is not plain.
fn advice(error: &std::io::Error) -> &'static str {
    match error.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "; what was saved before is untouched: free some space",
        _ => "",
    }
}

impl Error {
    /// Shorthand for [`Error::Input`].
    pub fn input(message: impl Into<String>) -> Self {
        Self::Input(message.into())
    }

    /// An I/O error with the path it happened on.
    pub fn io(path: impl AsRef<Path>, source: std::io::Error) -> Self {
        Self::Io { path: path.as_ref().to_path_buf(), source }
    }

    /// The process exit code this error asks for: 2 for bad input, 1 for a run or check that failed, 130 for a run that
    /// was interrupted.
    pub fn exit_code(&self) -> u8 {
        match self {
            Self::Input(_) | Self::Io { .. } => 2,
            Self::NonFinite { .. } | Self::CheckFailed(_) => 1,
            Self::Interrupted { .. } => INTERRUPTED,
        }
    }
}
