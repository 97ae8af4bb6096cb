//! What a device can do at most, measured: the yardstick of every other figure.

use std::ptr::null_mut;
use std::time::{Duration, Instant};

use super::queue::enqueue;
use super::{Backend, DeviceMemory, ElementFormat, Queue};

/// Seconds that a launch takes at least, so that its beginning and end do not count; an arbitrarily slow device takes longer
/// for the smallest amount of work.
const LAUNCH_SECONDS: f64 = 2e-3;

/// The same for a copy, which soon needs more memory than one may want to take.
const COPY_SECONDS: f64 = 2e-4;

/// Blocks of multiply-adds on each processor at a time: together they have more sums than a result takes cycles to be ready.
const BLOCKS_PER_PROCESSOR: u64 = 2;

/// Bytes of an array that is copied: the fewest, and the most, which are more than any cache holds.
const COPY_BYTES: [u64; 2] = [1 << 20, 1 << 29];

impl<B: Backend> Queue<B> {
    /// GFLOP/s of multiply-adds on registers, the best of many short runs within so many seconds: on tensor cores in bf16, else
    /// in the FMA units. No memory is allocated.
    pub fn multiply_limit(self, format: ElementFormat, seconds: f64) -> f64 {
        let blocks = BLOCKS_PER_PROCESSOR * self.description().processors;
        let run = |rounds: u64| self.seconds_of(|| self.multiply_adds(format, (blocks, rounds), None));
        // The first launch brings the kernel to the device.
        run(1);
        let enough = |rounds: &u64| run(*rounds) >= LAUNCH_SECONDS;
        let rounds = (0..32).map(|power| 1 << power).find(enough).unwrap_or(1 << 32);
        let flops = 2.0 * (self.multiply_adds_of_round(format) * blocks * rounds) as f64;
        flops / fastest(seconds, || run(rounds)) / 1e9
    }

    /// GB/s, read and written together, of copies of an array that no cache holds, the best within so many seconds.
    pub fn copy_limit(self, seconds: f64) -> f64 {
        let [mut bytes, most] = COPY_BYTES;
        loop {
            let [from, mut to] = [0; 2].map(|_| DeviceMemory::zeros(self, bytes as usize));
            let mut copy = || self.seconds_of(|| self.copy_whole(&from, &mut to));
            copy();
            if copy() >= COPY_SECONDS || 2 * bytes > most.min(self.free_memory() / 4) {
                return 2.0 * bytes as f64 / fastest(seconds, copy) / 1e9;
            }
            bytes *= 2;
        }
    }

    /// Multiply-adds of a block in a round.
    fn multiply_adds_of_round(self, format: ElementFormat) -> u64 {
        // SAFETY: it takes a number and gives one.
        unsafe { (B::functions().multiply_limit_round)(format.bytes() as i64) as u64 }
    }

    /// So many blocks make so many rounds; `counts` receives how many multiply-adds each block made, in f64.
    fn multiply_adds(self, format: ElementFormat, (blocks, rounds): (u64, u64), counts: Option<&DeviceMemory<B>>) {
        assert!(counts.is_none_or(|counts| counts.bytes() >= blocks as usize * size_of::<f64>()));
        let counts = counts.map_or(null_mut(), |counts| counts.data().cast());
        enqueue!(self, multiply_limit(format.bytes() as i64, blocks as i64, rounds as i64, counts));
    }

    /// Copies all bytes of a memory, a multiple of 16, to another of the same size.
    fn copy_whole(self, from: &DeviceMemory<B>, to: &mut DeviceMemory<B>) {
        assert_eq!(from.bytes(), to.bytes());
        enqueue!(self, copy_limit(from.data().cast_const(), to.data(), from.bytes() as i64));
    }
}

/// The shortest of the times that `run` says it took, within so many seconds; it runs at least once.
fn fastest(seconds: f64, mut run: impl FnMut() -> f64) -> f64 {
    let end = Instant::now() + Duration::from_secs_f64(seconds.max(0.0));
    let mut best = f64::INFINITY;
    loop {
        best = best.min(run());
        if Instant::now() >= end {
            return best;
        }
    }
}

#[cfg(all(test, cuda_twin))]
mod tests {
    use super::*;
    use crate::cuda::Twin;

    #[test]
    fn as_many_multiply_adds_are_made_as_are_counted() {
        let queue = Queue::<Twin>::open().unwrap();
        for format in [ElementFormat::Bf16, ElementFormat::F32, ElementFormat::F64] {
            for rounds in [0, 1, 3] {
                let room = DeviceMemory::new(queue, 2 * size_of::<f64>());
                queue.multiply_adds(format, (2, rounds), Some(&room));
                let mut counts = [0.0; 2];
                room.download(0, &mut counts);
                let expected = (rounds * queue.multiply_adds_of_round(format)) as f64;
                assert_eq!(counts, [expected; 2], "{format:?}, {rounds} rounds");
            }
        }
    }

    #[test]
    fn a_copy_has_the_bytes_of_what_was_copied() {
        let queue = Queue::<Twin>::open().unwrap();
        for bytes in [0, 16, 4096 + 48, 3 * 16384] {
            let values: Vec<u8> = (0..bytes).map(|i: usize| (i % 251) as u8).collect();
            let [mut from, mut to] = [0; 2].map(|_| DeviceMemory::new(queue, bytes));
            from.upload(0, &values);
            queue.copy_whole(&from, &mut to);
            let mut copied = vec![0; bytes];
            to.download(0, &mut copied);
            assert_eq!(copied, values);
        }
    }

    #[test]
    fn limits_are_positive_and_what_they_allocate_is_counted() {
        let queue = Queue::<Twin>::open().unwrap();
        for format in [ElementFormat::Bf16, ElementFormat::F32, ElementFormat::F64] {
            assert!(queue.multiply_limit(format, 0.0) > 0.0, "{format:?}");
        }
        assert!(queue.copy_limit(0.0) > 0.0);
        assert!(queue.peak_memory() >= 2 * COPY_BYTES[0]);
    }
}
