//! The fixed binary tree in which the gradients of all groups are summed.
//!
//! Threads take groups in order; whoever finishes the second half of a node adds the two halves, the right one to the
//! left one, and goes on upwards. Who does what depends on who is free; the shape of the tree, and so the order of
//! summation, does not. Taking groups in order keeps finished subtrees few: besides the groups in work only their left
//! neighbours on the way to the root wait, at most `threads · (depth + 1)` buffers in all. They are made at once in the
//! first step (the system hands out their pages when they are first written), so that no later step allocates.

use std::iter::Enumerate;
use std::ops::Range;
use std::slice::IterMut;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::{Group, Lanes};
use crate::simd;
use crate::tape::Grads;

/// Buffers for partial sums.
#[derive(Default)]
pub(super) struct Sums {
    /// How many there are, in use or not.
    made: usize,
    free: Vec<Grads<f32>>,
    /// Sums of finished nodes that wait for the other half, at the index of their first group, with their end. Nodes
    /// that start at the same group lie inside each other, so at most one of them waits.
    waiting: Vec<Option<(usize, Grads<f32>)>>,
}

/// Runs `work` on every group with a gradient buffer to add to, and replaces `total` by the sum of the buffers. To be
/// called inside [`Lanes::install`].
pub(super) fn accumulate(
    lanes: &Lanes,
    groups: &mut [Group],
    sums: &mut Sums,
    total: &mut Grads<f32>,
    work: impl Fn(&mut Group, &mut Grads<f32>) + Sync,
) {
    let n = groups.len();
    sums.grow(n, lanes.threads(), total);
    let tree = Tree { n, state: Mutex::new(State { sums, groups: groups.iter_mut().enumerate() }), work };
    tree.spread(lanes.threads().min(n));
    if let Some((_, sum)) = sums.waiting[0].take() {
        sums.free.push(std::mem::replace(total, sum));
    }
}

impl Sums {
    /// Room for `n` groups on `threads` threads; `like` has the shape of a buffer.
    fn grow(&mut self, n: usize, threads: usize, like: &Grads<f32>) {
        let depth = n.next_power_of_two().ilog2() as usize;
        let wanted = n.min(threads * (depth + 1));
        if self.made < wanted {
            self.free.extend((self.made..wanted).map(|_| like.zeros_like()));
            self.made = wanted;
        }
        self.waiting.resize_with(n, || None);
    }
}

/// What the threads share while they walk the tree.
struct Tree<'a, F> {
    n: usize,
    state: Mutex<State<'a>>,
    work: F,
}

struct State<'a> {
    sums: &'a mut Sums,
    groups: Enumerate<IterMut<'a, Group>>,
}

impl<'a, F: Fn(&mut Group, &mut Grads<f32>) + Sync> Tree<'a, F> {
    /// So many walkers, each on a thread if one is free.
    fn spread(&self, walkers: usize) {
        match walkers {
            0 | 1 => self.walk(),
            _ => {
                rayon::join(|| self.spread(walkers.div_ceil(2)), || self.spread(walkers / 2));
            }
        }
    }

    /// Takes groups as long as there are any.
    fn walk(&self) {
        loop {
            let mut state = self.lock();
            let Some((index, group)) = state.groups.next() else { return };
            let buffer = state.sums.free.pop();
            drop(state);
            let mut sum = buffer.expect("there are as many buffers as can be in use");
            sum.clear();
            (self.work)(group, &mut sum);
            self.climb(index..index + 1, sum);
        }
    }

    /// Adds a finished node to its other half and so on, until it has to wait for that half, or is the root.
    fn climb(&self, mut node: Range<usize>, mut sum: Grads<f32>) {
        loop {
            let parent = parent(self.n, &node);
            let other = if parent.start < node.start { parent.start..node.start } else { node.end..parent.end };
            let mut state = self.lock();
            let waiting = &mut state.sums.waiting;
            let half = waiting.get_mut(other.start).and_then(|place| place.take_if(|(end, _)| *end == other.end));
            let Some((_, mut half)) = half else {
                waiting[node.start] = Some((node.end, sum));
                return;
            };
            drop(state);
            if other.start < node.start {
                std::mem::swap(&mut sum, &mut half);
            }
            simd::add_assign(sum.values_mut(), half.values());
            self.lock().sums.free.push(half);
            node = parent;
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<'a>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The node of the tree over `0..n` above `node`; the root is above itself.
fn parent(n: usize, node: &Range<usize>) -> Range<usize> {
    let mut above = 0..n;
    loop {
        let middle = above.start + above.len().div_ceil(2);
        let below = if node.start < middle { above.start..middle } else { middle..above.end };
        if *node == above || *node == below {
            return above;
        }
        above = below;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_half_of_its_parent() {
        for n in 1..70 {
            let mut nodes: Vec<Range<usize>> = std::iter::once(0..n).collect();
            while let Some(node) = nodes.pop() {
                if node.len() > 1 {
                    let middle = node.start + node.len().div_ceil(2);
                    for half in [node.start..middle, middle..node.end] {
                        assert_eq!(parent(n, &half), node, "{half:?} of {n}");
                        nodes.push(half);
                    }
                }
            }
            assert_eq!(parent(n, &(0..n)), 0..n);
        }
    }
}
