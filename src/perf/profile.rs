//! Where the time of an update goes, over all lanes.

use serde::Serialize;

use crate::engine::Engine;
use crate::error::Result;
use crate::tape::profile::{Part, Phase, Stopwatch, Timing, add_timings};
use crate::train::Trainer;

/// Where the time of some updates went. Seconds are means over the lanes, so that all lines together are the updates'
/// time; calls, FLOPs and bytes are sums over the lanes.
#[derive(Clone, Debug, Serialize)]
pub struct Profile {
    /// Updates profiled.
    pub updates: u64,
    /// Lanes that worked.
    pub lanes: usize,
    /// Sequences in a batch.
    pub batch: usize,
    /// One for each operation and phase.
    pub lines: Vec<Timing>,
}

impl Profile {
    /// Runs so many updates with stopwatches on all lanes; `step` does one update.
    pub(super) fn record<E: Engine>(
        trainer: &mut Trainer<E>,
        updates: u64,
        mut step: impl FnMut(&mut Trainer<E>) -> Result<()>,
    ) -> Result<Self> {
        let lanes = trainer.engine.lanes();
        lanes.each(|_| lanes.with_lane(|lane| lane.memory.stopwatch = Some(Box::default())));
        trainer.watch = Some(Stopwatch::default());
        let ended = (0..updates).try_for_each(|_| step(trainer));
        let whole = trainer.watch.take().unwrap_or_default().finish();
        let lanes = trainer.engine.lanes();
        let take = || lanes.with_lane(|lane| lane.memory.stopwatch.take());
        let of_lanes = lanes.each(|_| take().map_or(Vec::new(), |watch| watch.finish()));
        ended?;
        let mut lines = Vec::new();
        of_lanes.iter().for_each(|of_lane| add_timings(&mut lines, of_lane));
        let n = lanes.threads();
        lines.iter_mut().for_each(|line| line.seconds /= n as f64);
        let busy: f64 = lines.iter().map(|line| line.seconds).sum();
        lines.extend(whole.iter().map(|line| match line.phase {
            // What the lanes did meanwhile is in their own lines; the rest of the time some of them had no group left.
            Phase::Outside(Part::Groups) => Timing {
                name: Part::Waiting.name(),
                phase: Phase::Outside(Part::Waiting),
                seconds: line.seconds - busy,
                ..*line
            },
            _ => *line,
        }));
        lines.sort_by_key(|line| line.phase);
        Ok(Self { updates, lanes: n, batch: trainer.config.train.batch_size, lines })
    }

    /// Adds further updates of the same experiment.
    pub fn add(&mut self, more: &Self) {
        self.updates += more.updates;
        add_timings(&mut self.lines, &more.lines);
    }

    /// Seconds of one update.
    pub fn seconds(&self) -> f64 {
        self.lines.iter().map(|line| line.seconds).sum::<f64>() / self.updates as f64
    }

    /// Lane seconds per sequence: everything that a lane does for it, without the reduction of the gradients. (Of whole rounds of
    /// groups: what lanes do that help others is not counted.)
    pub fn sequence_seconds(&self) -> f64 {
        let seconds = self.seconds_where(|phase| match phase {
            Phase::Detached | Phase::Recorded | Phase::Backward => true,
            Phase::Outside(part) => matches!(part, Part::Carry | Part::Metrics),
        });
        seconds * self.lanes as f64 / self.sequences()
    }

    /// Seconds of an update from the first gradient group to the last: what the lanes do, and how long some of them wait.
    pub fn accumulation_seconds(&self) -> f64 {
        let outside =
            |part| !matches!(part, Part::Examples | Part::Losses | Part::Halting | Part::GradientSum | Part::Optimizer);
        let counts = |phase| !matches!(phase, Phase::Outside(part) if !outside(part));
        self.seconds_where(counts) / self.updates as f64
    }

    /// Seconds per sequence of what one thread does while the lanes have nothing to do.
    pub fn serial_per_sequence(&self) -> f64 {
        let serial = |phase| matches!(phase, Phase::Outside(Part::Examples | Part::Losses | Part::Halting));
        self.seconds_where(serial) / self.sequences()
    }

    fn seconds_where(&self, counts: impl Fn(Phase) -> bool) -> f64 {
        self.lines.iter().filter(|line| counts(line.phase)).map(|line| line.seconds).sum()
    }

    /// Sequences of all updates.
    fn sequences(&self) -> f64 {
        (self.updates as usize * self.batch) as f64
    }
}
