//! Where the time of an update goes, over all lanes.

use serde::Serialize;

use crate::engine::Lanes;
use crate::error::Result;
use crate::tape::profile::{Line, Phase, Stopwatch};
use crate::train::{GROUPS, Trainer};

/// What the profile calls lanes that have nothing to do while others work on the last groups.
const WAITING: &str = "waiting for other lanes";

/// Parts of a step that one thread does, for every sequence.
const SERIAL: [&str; 3] = ["deal examples", "losses, norm", "halting"];

/// The parts of some updates. A line's seconds are the mean over the lanes, so that all lines together are the updates'
/// time; calls, FLOPs and bytes are sums over the lanes.
#[derive(Clone, Debug, Serialize)]
pub struct Profile {
    pub updates: u64,
    pub lanes: usize,
    /// Sequences in a batch.
    pub batch: usize,
    pub lines: Vec<Line>,
}

impl Profile {
    /// Runs so many updates with stopwatches on all lanes; `step` does one update.
    pub(super) fn record(
        lanes: &Lanes,
        trainer: &mut Trainer,
        updates: u64,
        mut step: impl FnMut(&mut Trainer) -> Result<()>,
    ) -> Result<Self> {
        lanes.each(|_| lanes.with_lane(|lane| lane.memory.stopwatch = Some(Box::default())));
        trainer.watch = Some(Stopwatch::default());
        let ended = (0..updates).try_for_each(|_| step(trainer));
        let whole = trainer.watch.take().unwrap_or_default();
        let of_lanes = lanes.each(|_| lanes.with_lane(|lane| lane.memory.stopwatch.take()));
        ended?;
        let mut sum = Stopwatch::default();
        of_lanes.iter().flatten().for_each(|watch| sum.add(watch.lines()));
        let n = lanes.threads();
        let mut lines: Vec<Line> =
            sum.lines().iter().map(|line| Line { seconds: line.seconds / n as f64, ..*line }).collect();
        let busy: f64 = lines.iter().map(|line| line.seconds).sum();
        lines.extend(whole.lines().iter().map(|line| match line.name {
            GROUPS => Line { name: WAITING, seconds: line.seconds - busy, ..*line },
            _ => *line,
        }));
        lines.sort_by_key(|line| line.phase);
        Ok(Self { updates, lanes: n, batch: trainer.config.train.batch_size, lines })
    }

    /// Adds further updates of the same experiment.
    pub fn add(&mut self, more: &Self) {
        let mut sum = Stopwatch::default();
        sum.add(&self.lines);
        sum.add(&more.lines);
        (self.updates, self.lines) = (self.updates + more.updates, sum.lines().to_vec());
    }

    /// Seconds of one update.
    pub fn seconds(&self) -> f64 {
        self.lines.iter().map(|line| line.seconds).sum::<f64>() / self.updates as f64
    }

    /// Seconds of one sequence in a lane: all that happens between a group's taking and its gradient's coming to rest,
    /// but for the additions of the tree.
    pub fn sequence_seconds(&self) -> f64 {
        let in_lane =
            |line: &&Line| line.phase != Phase::Outside || matches!(line.name, "carry in and out" | "metrics");
        let seconds: f64 = self.lines.iter().filter(in_lane).map(|line| line.seconds).sum();
        seconds * self.lanes as f64 / (self.updates as usize * self.batch) as f64
    }

    /// Seconds of one thread's work for each sequence, outside of the lanes.
    pub fn serial_per_sequence(&self) -> f64 {
        let serial: f64 = self.lines.iter().filter(|l| SERIAL.contains(&l.name)).map(|line| line.seconds).sum();
        serial / (self.updates as usize * self.batch) as f64
    }
}
