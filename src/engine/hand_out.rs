//! Who takes which gradient group, and what lanes do that find none left.
//!
//! Counters hand out the groups in order, so that a slow core holds nobody. A lane that finds none left does not wait: it joins
//! the *team* of those that still work, and takes parts of their products. So the groups of the last round, fewer than lanes,
//! are each worked on by several cores, and a number of groups that does not divide by the number of cores costs no whole
//! round.
//!
//! Products are cut only when every lane has begun. Until then a waiting thread might be given the beginning of another lane's
//! loop instead of a part, and that lane would be missing until the end of the step. Where two work on the same lanes at the
//! same time, only the first has a team: lanes of both that waited for each other would wait for ever.

use std::ops::Range;
use std::sync::atomic::{AtomicUsize, Ordering};

use arrayvec::ArrayVec;
use crossbeam_utils::CachePadded;

use crate::device::{Leader, Team};

/// NUMA nodes at most; lanes of further ones share a counter.
const MAX_NODES: usize = 16;

/// How often a lane looks for a part to take before it lets another thread have its core.
const SPINS: usize = 64;

/// Hands out the numbers of a range, each once.
struct Counter {
    next: CachePadded<AtomicUsize>,
    end: usize,
}

impl Counter {
    fn new(range: Range<usize>) -> Self {
        Self { next: CachePadded::new(AtomicUsize::new(range.start)), end: range.end }
    }

    fn take(&self) -> Option<usize> {
        Some(self.next.fetch_add(1, Ordering::Relaxed)).filter(|&number| number < self.end)
    }
}

/// The groups of one step, and the lanes that share them.
pub(super) struct HandOut {
    /// One for each NUMA node.
    counters: ArrayVec<Counter, MAX_NODES>,
    lanes: usize,
    /// Lanes that have begun.
    begun: AtomicUsize,
    /// Of these, those that have not yet found all groups taken.
    busy: AtomicUsize,
    /// `None` where the lanes do not help each other.
    leader: Option<Leader>,
}

impl HandOut {
    /// `groups`, for so many lanes on each NUMA node.
    pub(super) fn new(groups: usize, lanes_of_node: &[usize], team: &Team) -> Self {
        let lanes = lanes_of_node.iter().sum();
        let nodes = lanes_of_node.len().min(MAX_NODES);
        let (mut first, mut before) = (0, 0);
        let share = |(i, &lanes_here): (usize, &usize)| {
            before += lanes_here;
            let end = if i + 1 == nodes { groups } else { before * groups / lanes };
            Counter::new(std::mem::replace(&mut first, end)..end)
        };
        let counters = lanes_of_node.iter().take(nodes).enumerate().map(share).collect();
        Self { counters, lanes, begun: AtomicUsize::new(0), busy: AtomicUsize::new(0), leader: team.lead() }
    }

    /// A lane begins; it is busy as long as it keeps the result.
    pub(super) fn begin(&self) -> Busy<'_> {
        self.busy.fetch_add(1, Ordering::AcqRel);
        self.begun.fetch_add(1, Ordering::AcqRel);
        self.size_team();
        Busy(self)
    }

    /// The next group for a lane of that NUMA node: one of its node's as long as there are any.
    pub(super) fn take(&self, node: usize) -> Option<usize> {
        let nodes = self.counters.len();
        (0..nodes).find_map(|i| self.counters[(node + i) % nodes].take())
    }

    /// Takes parts of the others' products until all groups are done. To be called on a thread of the pool, by a lane that
    /// is not busy.
    pub(super) fn help(&self) {
        if self.leader.is_none() {
            return;
        }
        let mut spins = 0;
        while self.busy.load(Ordering::Acquire) > 0 {
            if self.all_have_begun() && rayon::yield_now() == Some(rayon::Yield::Executed) {
                spins = 0;
            } else if spins < SPINS {
                spins += 1;
                std::hint::spin_loop();
            } else {
                std::thread::yield_now();
            }
        }
    }

    fn all_have_begun(&self) -> bool {
        self.begun.load(Ordering::Acquire) == self.lanes
    }

    /// All lanes share the products of those that are busy.
    fn size_team(&self) {
        let busy = self.busy.load(Ordering::Acquire);
        if let Some(leader) = self.leader.as_ref().filter(|_| busy > 0 && self.all_have_begun()) {
            leader.set_size(self.lanes.div_ceil(busy));
        }
    }
}

/// A lane that works on groups, or looks for one.
pub(super) struct Busy<'a>(&'a HandOut);

impl Drop for Busy<'_> {
    /// Also when its work panics: nobody waits for it then.
    fn drop(&mut self) {
        self.0.busy.fetch_sub(1, Ordering::AcqRel);
        self.0.size_team();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_counter_hands_out_each_number_once() {
        let counter = Counter::new(3..6);
        assert_eq!(std::iter::from_fn(|| counter.take()).collect::<Vec<_>>(), [3, 4, 5]);
        assert_eq!(counter.take(), None);
    }

    #[test]
    fn nodes_have_their_share_and_help_the_others_in_the_end() {
        let team = Team::default();
        for (groups, lanes) in [(12, &[2, 2][..]), (7, &[3, 1, 2]), (1, &[1, 1]), (40, &[1; 20])] {
            let hand_out = HandOut::new(groups, lanes, &team);
            let mut taken: Vec<usize> = std::iter::from_fn(|| hand_out.take(1)).collect();
            let nodes = lanes.len().min(MAX_NODES);
            assert_eq!(hand_out.counters.len(), nodes);
            taken.sort_unstable();
            assert!(taken.into_iter().eq(0..groups), "{groups} groups, {lanes:?}");
        }
        let hand_out = HandOut::new(12, &[2, 2], &team);
        assert_eq!([hand_out.take(1), hand_out.take(0), hand_out.take(1)], [Some(6), Some(0), Some(7)]);
    }

    #[test]
    fn products_are_cut_when_all_lanes_have_begun_and_some_have_nothing_to_do() {
        let team = Team::default();
        let hand_out = HandOut::new(2, &[5], &team);
        let mut lanes: Vec<Busy<'_>> = (0..4).map(|_| hand_out.begin()).collect();
        drop(lanes.pop());
        assert_eq!(team.size(), 1, "one has not begun");
        lanes.push(hand_out.begin());
        assert_eq!(team.size(), 2);
        lanes.truncate(2);
        assert_eq!(team.size(), 3);
        lanes.truncate(1);
        assert_eq!(team.size(), 5);
        // Others on the same lanes have no team meanwhile, and wait for nobody.
        let other = HandOut::new(2, &[5], &team);
        let at_work = other.begin();
        other.help();
        drop(at_work);
        drop(lanes);
        hand_out.help();
        drop(hand_out);
        assert_eq!(team.size(), 1);
        assert!(team.lead().is_some());
    }
}
