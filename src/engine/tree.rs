//! The fixed binary tree in which the gradients of all groups are summed, without a lock.
//!
//! Lanes take groups in order ([`HandOut`]). Whoever finishes the second half of a node adds the two halves, the right one to
//! the left one, and goes on upwards: who does what depends on who is free; the shape of the tree, and so the order of
//! summation, does not. Halves meet in a cell for each node, exchanged atomically.
//!
//! Near the root there would be few large sums and many idle lanes. So lanes stop climbing at the lowest level that has
//! no more nodes than there are lanes ([`partial_sums`]); when all groups are done, the levels above are summed by all
//! lanes, a slice of the weights each, every partial sum being read once.
//!
//! Taking groups in order keeps finished subtrees few: besides the groups in work only their neighbours on the way up
//! wait, at most `lanes · (depth + 1)` buffers in all. They are made in the first step and belong to the lane that uses
//! them first (the system hands out their pages on its node when it writes them); a freed buffer returns to that lane.
//! On a machine with several NUMA nodes each has its share of the groups and a counter of its own, so that a group's carry
//! stays on a node; lanes whose node is done help the others.

use crossbeam_queue::ArrayQueue;
use crossbeam_utils::atomic::AtomicCell;
use rayon::prelude::*;
use std::ops::Range;

use super::hand_out::HandOut;
use super::{BoxedGroup, Group, Lane, Lanes};
use crate::device::{Grads, HostDevice, Real};
use crate::tape::profile::Part;

/// Weights in a slice of the last sums: few enough for the sums of all levels to stay in a core's cache.
const SLICE: usize = 4096;

/// A gradient buffer.
struct Sum<D: HostDevice> {
    /// The lane that touched it first.
    home: usize,
    grads: Grads<D>,
}

/// A sum that changes hands: a box fits an atomic exchange.
type BoxedSum<D> = Box<Sum<D>>;

/// Where a thing waits for who takes it.
type Handover<T> = AtomicCell<Option<T>>;

/// Buffers for partial sums, and the places where they and the groups change hands.
pub(crate) struct Sums<D: HostDevice> {
    lanes: usize,
    /// Buffers made so far.
    made: usize,
    /// Each lane's free buffers.
    free: Vec<ArrayQueue<BoxedSum<D>>>,
    /// Groups that have not been taken.
    groups: Vec<Handover<BoxedGroup<D::T>>>,
    /// Where the halves of a node meet, at the index of its second half's first group.
    meeting: Vec<Handover<BoxedSum<D>>>,
    /// Partial sums that are done, in the order of the tree.
    done: Vec<Handover<BoxedSum<D>>>,
    /// The same, for the last sums.
    parts: Vec<BoxedSum<D>>,
    /// Σ g² of each slice of the total.
    squares: Vec<f64>,
}

impl<D: HostDevice> Default for Sums<D> {
    fn default() -> Self {
        let (lanes, made, squares) = (0, 0, Vec::new());
        let (free, groups, meeting, done, parts) = Default::default();
        Self { lanes, made, free, groups, meeting, done, parts, squares }
    }
}

/// Runs `work` on every group with a gradient buffer (of the shape of `like`) to add to, and sums the buffers but for the
/// last levels, which [`Sums::finish`] does. To be called inside [`Lanes::install`].
pub(crate) fn accumulate<D: HostDevice>(
    lanes: &Lanes<D>,
    groups: &mut Vec<BoxedGroup<D::T>>,
    sums: &mut Sums<D>,
    like: &Grads<D>,
    work: impl Fn(&mut Lane<D>, &mut Group<D::T>, &mut Grads<D>) + Sync,
) {
    let n = groups.len();
    sums.prepare(n, lanes.lanes_of_node(), like);
    for (cell, group) in sums.groups.iter().zip(groups.drain(..)) {
        cell.store(Some(group));
    }
    let hand_out = HandOut::new(n, lanes.lanes_of_node(), lanes.team());
    Walk { lanes, sums, hand_out: &hand_out, work }.spread(lanes.threads());
    groups.extend(sums.groups.iter().filter_map(AtomicCell::take));
}

impl<D: HostDevice> Sums<D> {
    /// Room for `n` groups; `like` has the shape of a buffer.
    fn prepare(&mut self, n: usize, lanes_of_node: &[usize], like: &Grads<D>) {
        let threads = lanes_of_node.iter().sum();
        if self.lanes != threads || self.groups.len() != n {
            *self = Self { lanes: threads, ..Self::default() };
            let depth = n.next_power_of_two().ilog2() as usize;
            // The groups in order: see above. Each further range of groups has a front and an end of its own, with the
            // waiting neighbours of one more group at either.
            let ranges = lanes_of_node.len() - 1;
            self.made = n.min(threads * (depth + 1) + 2 * ranges * depth);
            self.free.resize_with(threads, || ArrayQueue::new(self.made));
            for i in 0..self.made {
                let sum = Box::new(Sum { home: i % threads, grads: like.zeros_like() });
                assert!(self.free[i % threads].push(sum).is_ok(), "room for all");
            }
            self.groups.resize_with(n, AtomicCell::default);
            self.meeting.resize_with(n, AtomicCell::default);
            self.done.resize_with(partial_sums(n, threads), AtomicCell::default);
            self.parts.reserve(self.done.len());
            self.squares = vec![0.0; like.values().len().div_ceil(SLICE)];
        }
    }

    /// Lanes stop climbing at this level below the root.
    fn cut(&self) -> usize {
        self.done.len().ilog2() as usize
    }

    /// A free buffer, `lane`'s own if there is one.
    fn take(&self, lane: usize) -> BoxedSum<D> {
        loop {
            // There are as many buffers as can be in use, so this ends; one may be given back behind our back.
            let mut queues = (0..self.lanes).map(|i| &self.free[(lane + i) % self.lanes]);
            if let Some(sum) = queues.find_map(ArrayQueue::pop) {
                return sum;
            }
            std::hint::spin_loop();
        }
    }

    /// Takes a buffer back.
    fn give_back(&self, sum: BoxedSum<D>) {
        let home = sum.home;
        assert!(self.free[home].push(sum).is_ok(), "there is room for all buffers");
    }

    /// Replaces `total` by the sum of all groups' gradients. To be called inside [`Lanes::install`].
    pub(crate) fn finish(&mut self, lanes: &Lanes<D>, total: &mut Grads<D>) {
        self.parts.extend(self.done.iter().filter_map(AtomicCell::take));
        if let [part] = &mut self.parts[..] {
            std::mem::swap(&mut part.grads, total);
        }
        let parts = &self.parts;
        let slices = total.values_mut().par_chunks_mut(SLICE).zip(self.squares.par_iter_mut()).enumerate();
        slices.for_each(|(i, (slice, squares))| {
            if parts.len() > 1 {
                let levels = parts.len().ilog2() as usize;
                lanes.with_lane(|lane| {
                    lane.sums.resize(levels * SLICE, D::T::ZERO);
                    sum_slice::<D>(parts, i * SLICE, slice, &mut lane.sums);
                });
            }
            *squares = D::sum_squares(slice);
        });
        while let Some(part) = self.parts.pop() {
            self.give_back(part);
        }
    }

    /// Sums the squares of a total that has changed since [`Sums::finish`].
    pub(crate) fn square(&mut self, total: &Grads<D>) {
        let slices = total.values().par_chunks(SLICE).zip(self.squares.par_iter_mut());
        slices.for_each(|(slice, squares)| *squares = D::sum_squares(slice));
    }

    /// Bytes that [`Sums::finish`] moves: each partial sum is read, the total written.
    pub(crate) fn finish_bytes(&self) -> f64 {
        let parts = self.done.len() as f64;
        let weights = (self.squares.len() * SLICE * size_of::<D::T>()) as f64;
        if parts > 1.0 { (parts + 1.0) * weights } else { weights }
    }

    /// Norm of the total: not finite when one of its elements is not.
    pub(crate) fn norm(&self) -> f64 {
        self.squares.iter().sum::<f64>().sqrt()
    }
}

/// `out ←` the sum of the parts' elements from `start` on, left half plus right half; `scratch` has a slice for each
/// level.
fn sum_slice<D: HostDevice>(parts: &[BoxedSum<D>], start: usize, out: &mut [D::T], scratch: &mut [D::T]) {
    let slice = |part: &'_ Sum<D>| -> Range<usize> { start..(start + out.len()).min(part.grads.values().len()) };
    match parts {
        [one] => out.copy_from_slice(&one.grads.values()[slice(one)]),
        [left, right] => {
            let (a, b) = (&left.grads.values()[slice(left)], &right.grads.values()[slice(right)]);
            D::add(a, b, out);
        }
        _ => {
            let (left, right) = parts.split_at(parts.len() / 2);
            let (here, deeper) = scratch.split_at_mut(SLICE);
            let here = &mut here[..out.len()];
            sum_slice::<D>(left, start, out, deeper);
            sum_slice::<D>(right, start, here, deeper);
            D::add_assign(out, here);
        }
    }
}

/// What the lanes share while they work on the groups.
struct Walk<'a, D: HostDevice, F> {
    lanes: &'a Lanes<D>,
    sums: &'a Sums<D>,
    hand_out: &'a HandOut,
    work: F,
}

impl<D: HostDevice, F: Fn(&mut Lane<D>, &mut Group<D::T>, &mut Grads<D>) + Sync> Walk<'_, D, F> {
    /// So many walkers, each on a thread if one is free.
    fn spread(&self, walkers: usize) {
        match walkers {
            0 | 1 => self.lanes.with_lane(|lane| self.walk(lane)),
            _ => {
                rayon::join(|| self.spread(walkers.div_ceil(2)), || self.spread(walkers / 2));
            }
        }
    }

    /// Takes groups as long as there are any, those of the lane's node first; then helps with those that are being worked on.
    fn walk(&self, lane: &mut Lane<D>) {
        lane.start_watch();
        // What the last sums need of this lane, so that it is there before they are.
        lane.sums.resize(self.sums.cut() * SLICE, D::T::ZERO);
        let busy = self.hand_out.begin();
        while let Some(index) = self.hand_out.take(lane.node) {
            let mut group = self.sums.groups[index].take().expect("a group is handed out once");
            let mut sum = self.sums.take(lane.index % self.sums.lanes);
            sum.grads.clear();
            let buffer_bytes = std::mem::size_of_val(sum.grads.values()) as f64;
            lane.lap(Part::GradientBuffer, buffer_bytes);
            (self.work)(lane, &mut group, &mut sum.grads);
            self.sums.groups[index].store(Some(group));
            let additions = self.sums.climb(index..index + 1, sum);
            lane.lap(Part::GradientTree, 3.0 * additions as f64 * buffer_bytes);
        }
        drop(busy);
        self.hand_out.help();
    }
}

impl<D: HostDevice> Sums<D> {
    /// Adds a finished node to its other half and so on, until that half is not done yet or the level is reached at
    /// which all lanes sum together. Returns how many it added.
    fn climb(&self, mut node: Range<usize>, mut sum: BoxedSum<D>) -> usize {
        for additions in 0.. {
            let place = Place::of(self.groups.len(), &node);
            if place.level == self.cut() {
                self.done[place.position].store(Some(sum));
                return additions;
            }
            let parent = place.parent;
            let middle = middle(&parent);
            let cell = &self.meeting[middle];
            // The first half to come finds nothing and stays; the second finds the first, and takes both away.
            let Some(mut other) = cell.swap(Some(sum)) else { return additions };
            sum = cell.take().expect("the half that was just put there");
            if node.start == middle {
                std::mem::swap(&mut sum, &mut other);
            }
            D::add_assign(sum.grads.values_mut(), other.grads.values());
            self.give_back(other);
            node = parent;
        }
        unreachable!("the tree has a root")
    }
}

/// Partial sums that the lanes leave for the sum over slices: the lowest level of the tree over `groups` with no more
/// nodes than there are cores.
pub fn partial_sums(groups: usize, cores: usize) -> usize {
    1 << cores.min(groups).max(1).ilog2()
}

/// The groups of node `position` of the tree over `0..n`, on the level with `count` nodes, a power of two.
pub fn node(n: usize, position: usize, count: usize) -> Range<usize> {
    assert!(count.is_power_of_two() && position < count && count <= n, "node {position} of {count} over {n} groups");
    let (mut node, mut half) = (0..n, count / 2);
    while half > 0 {
        let middle = middle(&node);
        node = if position & half == 0 { node.start..middle } else { middle..node.end };
        half /= 2;
    }
    node
}

/// First group of a node's second half.
fn middle(node: &Range<usize>) -> usize {
    node.start + node.len().div_ceil(2)
}

/// Where a node lies in the tree over `0..n`.
#[derive(Debug, PartialEq)]
struct Place {
    /// Steps below the root.
    level: usize,
    /// How many nodes of its level lie left of it, where the level is whole.
    position: usize,
    /// The root is its own.
    parent: Range<usize>,
}

impl Place {
    fn of(n: usize, node: &Range<usize>) -> Self {
        let (mut level, mut position, mut parent, mut here) = (0, 0, 0..n, 0..n);
        while here != *node {
            let middle = middle(&here);
            let is_right = node.start >= middle;
            let below = if is_right { middle..here.end } else { here.start..middle };
            parent = std::mem::replace(&mut here, below);
            (level, position) = (level + 1, 2 * position + usize::from(is_right));
        }
        Self { level, position, parent }
    }
}

#[cfg(test)]
mod simulation;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_node_is_half_of_its_parent_and_whole_levels_are_numbered_from_the_left() {
        for n in 1..70 {
            let mut level: Vec<Range<usize>> = std::iter::once(0..n).collect();
            for depth in 0..8 {
                let is_whole = level.len() == 1 << depth;
                let mut below = Vec::new();
                for (position, node) in level.iter().enumerate() {
                    let place = Place::of(n, node);
                    assert_eq!(place.level, depth);
                    assert!(!is_whole || place.position == position, "{node:?} of {n}");
                    if node.len() > 1 {
                        for half in [node.start..middle(node), middle(node)..node.end] {
                            assert_eq!(Place::of(n, &half).parent, *node, "{half:?} of {n}");
                            below.push(half);
                        }
                    }
                }
                level = below;
            }
        }
    }

    #[test]
    fn nodes_of_a_level_cover_the_groups_in_order_and_are_trees_of_their_own() {
        for n in 1..70 {
            for count in [1, 2, 4, 8, 16].into_iter().filter(|&count| count <= n) {
                let level: Vec<Range<usize>> = (0..count).map(|position| node(n, position, count)).collect();
                assert!(level.iter().cloned().flatten().eq(0..n), "{level:?}");
                for (position, node) in level.iter().enumerate() {
                    let place = Place::of(n, node);
                    assert_eq!((1 << place.level, place.position), (count, position), "{node:?} of {n}");
                    // Where a node is cut does not depend on what is around it.
                    assert_eq!(middle(node) - node.start, middle(&(0..node.len())));
                }
            }
        }
    }

    #[test]
    fn a_level_with_as_many_partial_sums_as_lanes_is_whole() {
        for n in 1..70 {
            for lanes in 1..70 {
                let parts = partial_sums(n, lanes);
                assert!(parts <= lanes && parts <= n && 2 * parts > lanes.min(n));
            }
        }
    }
}
