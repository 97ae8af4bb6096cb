//! Interrupts a sequence of writes at any of its steps, as an error and as the death of the process.

use std::cell::Cell;
use std::fs;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind, panic_any};
use std::path::Path;

/// What an interruption is.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum How {
    /// The system call returns an error.
    Fail,
    /// The process is gone: no clean-up runs.
    Die,
}

/// What is thrown when the process dies.
struct Died;

thread_local! {
    /// Steps to pass before something happens, and what.
    static PLAN: Cell<Option<(usize, How)>> = const { Cell::new(None) };
    static DEAD: Cell<bool> = const { Cell::new(false) };
}

/// Called by a sequence of writes at each of its steps.
pub(super) fn on_step() -> io::Result<()> {
    match PLAN.get() {
        None => Ok(()),
        Some((0, how)) => {
            PLAN.set(None);
            match how {
                How::Fail => Err(io::Error::from(io::ErrorKind::StorageFull)),
                How::Die => die(),
            }
        }
        Some((n, how)) => {
            PLAN.set(Some((n - 1, how)));
            Ok(())
        }
    }
}

/// The process dies here, as far as [`survive`] can tell.
pub(crate) fn die() -> ! {
    DEAD.set(true);
    panic_any(Died)
}

/// Whether the process is dying: clean-up that a destructor would do must not happen.
pub(super) fn is_dead() -> bool {
    DEAD.get()
}

/// The result of `work`; `None`: the process died in it.
pub(crate) fn survive<T>(work: impl FnOnce() -> T) -> Option<T> {
    let result = catch_unwind(AssertUnwindSafe(work));
    DEAD.set(false);
    result.map_or_else(|panic| panic.downcast::<Died>().map_or_else(|p| std::panic::resume_unwind(p), |_| None), Some)
}

/// What became of work that was to be interrupted.
pub(crate) enum Interrupted<T> {
    /// It had fewer steps, and nothing happened to it.
    Finished(T),
    /// It returned this after an error.
    Failed(T),
    /// It died.
    Died,
}

/// Interrupts `work` at its step `at`.
pub(crate) fn interrupt<T>(at: usize, how: How, work: impl FnOnce() -> T) -> Interrupted<T> {
    PLAN.set(Some((at, how)));
    let result = survive(work);
    match (PLAN.take(), result) {
        (Some(_), Some(result)) => Interrupted::Finished(result),
        (None, Some(result)) => Interrupted::Failed(result),
        (_, None) => Interrupted::Died,
    }
}

/// Temporaries in a folder.
pub(crate) fn temporaries(folder: &Path) -> usize {
    let names = fs::read_dir(folder).expect("list").map(|e| e.expect("entry").file_name().into_string().expect("name"));
    names.filter(|name| name.ends_with(".tmp")).count()
}
