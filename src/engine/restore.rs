//! What a restored state is checked for before anything changes.

use super::{BoxedGroup, Group, NamedBuffer, PuzzleTable, Slots, Weights};
use crate::device::{Device, Real};
use crate::error::{Error, Result};

/// Slots of a gradient group, and for each state of the model what they carry.
pub(super) type RestoredGroup<T> = (Slots, Vec<Vec<T>>);

/// Names of the buffers that every engine has.
pub(crate) const WEIGHTS: &str = "weights";
pub(crate) const EMA: &str = "ema";

/// Whether what is given has the names and shapes of what an engine has: `known` buffers, the puzzle table of `weights`, and
/// groups whose states have the lengths that `state_lens` says.
///
/// # Errors
/// When it belongs to a model of another shape.
pub(super) fn check_restored<D: Device>(
    known: &[(impl AsRef<str>, usize)],
    buffers: &[NamedBuffer<'_, D::T>],
    (weights, table): (&Weights<D>, Option<&PuzzleTable<D::T>>),
    groups: &[BoxedGroup<D::T>],
    given: &[RestoredGroup<D::T>],
    state_lens: impl Fn(&Group<D::T>) -> Vec<usize>,
) -> Result<()> {
    fn shape<T: Real>(table: &PuzzleTable<T>) -> (usize, usize) {
        (table.rows(), table.ndim())
    }
    let lengths = |slots: &Slots| {
        let Slots { inputs, labels, puzzle_ids, steps, halted } = slots;
        [inputs.len(), labels.len(), puzzle_ids.len(), steps.len(), halted.len()]
    };
    let is_same = |((slots, states), group): (&RestoredGroup<D::T>, &BoxedGroup<D::T>)| {
        lengths(slots) == lengths(&group.slots) && states.iter().map(Vec::len).eq(state_lens(group))
    };
    let buffers_fit = known
        .iter()
        .map(|(name, len)| (name.as_ref(), *len))
        .eq(buffers.iter().map(|(name, values)| (&**name, values.len())));
    let groups_fit = given.len() == groups.len() && given.iter().zip(groups).all(is_same);
    if buffers_fit && groups_fit && table.map(shape) == weights.table.as_deref().map(shape) {
        return Ok(());
    }
    Err(Error::input("the checkpoint belongs to a model of another shape; train into a new folder"))
}
