//! Many lanes on few cores: the real hand-out, tree and buffers, driven in virtual time by lanes of any number and speed, and by
//! more threads than there are cores.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use super::*;
use crate::config::Config;
use crate::device::{Cpu, Layout, Team, Usage};
use crate::engine::hand_out::Busy;
use crate::model::Model;
use crate::rng::Rng;

/// The share of a group's work that a team does not share.
const SERIAL: f64 = 0.1;

/// More than a slice of the last sums.
fn layout() -> Arc<Layout> {
    let mut layout = Layout::default();
    layout.push("w", SLICE + 7, 1, Usage::Table);
    Arc::new(layout)
}

/// A group's gradient: numbers whose sum depends on its order.
fn fill(group: usize, grads: &mut Grads<Cpu<f32>>) {
    let mut rng = Rng::stream(7, group as u64);
    for value in grads.values_mut() {
        *value += ((rng.uniform() - 0.5) * 2f64.powi(rng.below(20) as i32)) as f32;
    }
}

fn bits(grads: &Grads<Cpu<f32>>) -> Vec<u32> {
    grads.values().iter().map(|value| value.to_bits()).collect()
}

/// The sum as the specification has it: a node's first half, larger by one where it is odd, plus the second.
fn expected(groups: Range<usize>) -> Vec<f32> {
    if groups.len() == 1 {
        let mut grads = Grads::new(layout());
        fill(groups.start, &mut grads);
        return grads.values().to_vec();
    }
    let middle = groups.start + groups.len().div_ceil(2);
    let (mut left, right) = (expected(groups.start..middle), expected(middle..groups.end));
    left.iter_mut().zip(right).for_each(|(a, b)| *a += b);
    left
}

/// Lanes in virtual time, of each the node and the speed: seconds of a group on a lane of speed 1 are 1, or drawn from 1 −
/// `spread` to 1 + `spread`. Returns the time at which the last group is done, and the sum.
fn simulate(groups: usize, lanes: &[(usize, f64)], spread: f64, rng: &mut Rng) -> (f64, Vec<u32>) {
    let nodes = lanes.iter().map(|(node, _)| node + 1).max().unwrap_or(1);
    let lanes_of_node: Vec<usize> = (0..nodes).map(|node| lanes.iter().filter(|lane| lane.0 == node).count()).collect();
    let (team, mut total) = (Team::default(), Grads::new(layout()));
    let (mut sums, hand_out) = (Sums::<Cpu<f32>>::default(), HandOut::new(groups, &lanes_of_node, &team));
    sums.prepare(groups, &lanes_of_node, &total);
    let mut busy: Vec<Option<Busy<'_>>> = lanes.iter().map(|_| Some(hand_out.begin())).collect();
    let (mut free, mut taken, mut now): (Vec<usize>, _, _) = ((0..lanes.len()).collect(), vec![0; groups], 0.0);
    // Of each group that is being worked on: its number, its lane, what is left of it.
    let mut at_work: Vec<(usize, usize, f64)> = Vec::new();
    loop {
        rng.shuffle(&mut free);
        for lane in free.drain(..) {
            match hand_out.take(lanes[lane].0) {
                Some(group) => {
                    taken[group] += 1;
                    at_work.push((group, lane, 1.0 + spread * (2.0 * rng.uniform() - 1.0)));
                }
                None => busy[lane] = None,
            }
        }
        if at_work.is_empty() {
            break;
        }
        let helpers: f64 = lanes.iter().zip(&busy).filter(|(_, busy)| busy.is_none()).map(|(lane, _)| lane.1).sum();
        let is_cut = team.size() > 1;
        assert_eq!(is_cut, helpers > 0.0, "a product is cut when somebody is there to help");
        let rate = |lane: usize| {
            let own = lanes[lane].1;
            let speed_up = if is_cut { 1.0 + helpers / at_work.len() as f64 / own } else { 1.0 };
            own / (SERIAL + (1.0 - SERIAL) / speed_up)
        };
        let rates: Vec<f64> = at_work.iter().map(|&(_, lane, _)| rate(lane)).collect();
        let step = at_work.iter().zip(&rates).map(|((_, _, left), rate)| left / rate).fold(f64::INFINITY, f64::min);
        now += step;
        at_work.iter_mut().zip(&rates).for_each(|((_, _, left), rate)| *left -= step * rate);
        at_work.retain(|&(group, lane, left)| {
            if left > 1e-9 {
                return true;
            }
            let mut sum = sums.take(lane);
            sum.grads.clear();
            fill(group, &mut sum.grads);
            sums.climb(group..group + 1, sum);
            free.push(lane);
            false
        });
    }
    assert!(taken.iter().all(|&times| times == 1), "every group once: {taken:?}");
    let two = Lanes::new(2).unwrap();
    two.install(|| sums.finish(&two, &mut total));
    (now, bits(&total))
}

fn equal(lanes: usize) -> Vec<(usize, f64)> {
    vec![(0, 1.0); lanes]
}

#[test]
fn any_number_of_virtual_lanes_leaves_the_bits_of_the_fixed_tree() {
    let mut rng = Rng::new(1);
    for groups in [1, 5, 64, 96, 97] {
        let want: Vec<u32> = expected(0..groups).iter().map(|value| value.to_bits()).collect();
        for lanes in [1, 2, 3, 24, 64, 128] {
            for nodes in [1, 2] {
                let lanes: Vec<_> =
                    (0..lanes).map(|lane| (lane * nodes.min(lanes) / lanes, 0.25 + rng.uniform())).collect();
                let (_, sum) = simulate(groups, &lanes, 0.9, &mut rng);
                assert!(sum == want, "{groups} groups on {} lanes of {nodes} nodes", lanes.len());
            }
        }
    }
}

#[test]
fn groups_that_do_not_divide_by_the_lanes_cost_their_share_of_a_round_and_no_more() {
    let mut rng = Rng::new(2);
    for (groups, lanes) in
        [(192, 64), (192, 96), (192, 128), (192, 192), (64, 64), (64, 96), (64, 128), (64, 192), (8, 64)]
    {
        let (seconds, _) = simulate(groups, &equal(lanes), 0.0, &mut rng);
        let (rounds, left) = (groups / lanes, groups % lanes);
        let last = if left == 0 { 0.0 } else { SERIAL + (1.0 - SERIAL) * left as f64 / lanes as f64 };
        assert!((seconds - (rounds as f64 + last)).abs() < 1e-6, "{groups} on {lanes}: {seconds}");
        let ideal = groups as f64 / lanes as f64;
        assert!(seconds <= ideal + SERIAL, "{groups} on {lanes}: {seconds} of {ideal}");
    }
}

#[test]
fn slow_lanes_delay_the_end_by_no_more_than_what_a_team_cannot_share_of_one_group() {
    let mut rng = Rng::new(3);
    for (slow, slowness) in [(1, 2.0), (1, 10.0), (16, 2.0), (32, 4.0), (63, 3.0)] {
        for groups in [64, 150, 192, 500] {
            let lanes: Vec<(usize, f64)> =
                (0..64).map(|lane| (0, if lane < slow { 1.0 / slowness } else { 1.0 })).collect();
            let (seconds, _) = simulate(groups, &lanes, 0.3, &mut rng);
            let speed: f64 = lanes.iter().map(|lane| lane.1).sum();
            let ideal = groups as f64 / speed;
            let without: f64 = groups as f64 / (64 - slow) as f64;
            // Drawn lengths differ from their mean a little.
            let bound = 1.05 * ideal + 1.3 * slowness * SERIAL + 0.1;
            assert!(seconds <= bound, "{slow} lanes {slowness} times as slow, {groups} groups: {seconds} of {ideal}");
            assert!(
                slow < 16 || seconds < without,
                "slow lanes help more than they delay: {seconds}, {without} without"
            );
        }
    }
}

#[test]
fn sixty_four_threads_with_delays_leave_the_bits_of_one() {
    let config = Config::resolve(Some("sudoku-4x4"), None, &[]).unwrap();
    let model = Model::new(&config.model, &config.task);
    let groups = |count: u32| -> Vec<BoxedGroup<f32>> {
        let group = |number: u32| {
            let mut group = Group::new(&model, 1);
            group.slots.puzzle_ids[0] = number;
            Box::new(group)
        };
        (0..count).map(group).collect()
    };
    let run = |lanes: &Lanes, count: u32, sleeps: bool| {
        let (mut groups, mut sums, mut total) = (groups(count), Sums::default(), Grads::new(layout()));
        let runs: Vec<AtomicUsize> = (0..count).map(|_| AtomicUsize::new(0)).collect();
        lanes.install(|| {
            accumulate(lanes, &mut groups, &mut sums, &total, |lane, group, grads| {
                let number = group.slots.puzzle_ids[0] as usize;
                runs[number].fetch_add(1, Ordering::Relaxed);
                let mut rng = Rng::stream(number as u64, lane.index as u64);
                let slowness = if lane.index.is_multiple_of(5) { 4 } else { 1 };
                let nap = |rng: &mut Rng| std::thread::sleep(Duration::from_micros(slowness * rng.below(700) as u64));
                for _ in 0..if sleeps { 5 } else { 0 } {
                    // A product, in parts where lanes are idle.
                    if lanes.team().size() > 1 {
                        let (mut left, mut right) = (rng.clone(), Rng::stream(1, number as u64));
                        rayon::join(|| nap(&mut left), || nap(&mut right));
                    } else {
                        nap(&mut rng);
                    }
                }
                fill(number, grads);
            });
            sums.finish(lanes, &mut total);
        });
        assert!(runs.iter().all(|runs| runs.load(Ordering::Relaxed) == 1), "every group once");
        assert!(groups.iter().map(|group| group.slots.puzzle_ids[0]).eq(0..count), "groups are back in their places");
        assert_eq!(lanes.team().size(), 1);
        bits(&total)
    };
    let (one, many) = (Lanes::new(1).unwrap(), Lanes::new(64).unwrap());
    for count in [1, 20, 64, 97, 192] {
        let want = run(&one, count, false);
        for _ in 0..3 {
            assert!(run(&many, count, true) == want, "{count} groups");
        }
    }
}
