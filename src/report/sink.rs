//! Where the records of a run go: the log and the progress line are two sinks, and anybody may add another.

use super::{EvaluationRecord, MetricsLog, UpdateRecord};
use crate::error::Result;

/// Receives what a run measures, in order, on the thread that trains. An error ends the run.
///
/// A run keeps its own log; what else it tells is a list of these:
///
/// ```
/// use std::sync::mpsc::{Sender, channel};
/// use trm::{checkpoint::RunFolder, config::Config, dataset::TaskData, engine::Lanes};
/// use trm::report::{Sink, UpdateRecord};
/// use trm::train::{Requests, Run};
///
/// /// Sends the loss of every update to whoever listens.
/// struct Losses(Sender<f64>);
///
/// impl Sink for Losses {
///     fn update(&mut self, record: &UpdateRecord) -> trm::Result<()> {
///         let _ = self.0.send(record.loss);
///         Ok(())
///     }
/// }
///
/// let settings = ["train_puzzles=64", "test_puzzles=8", "max_steps=5"].map(String::from);
/// let config = Config::resolve(Some("sudoku-4x4"), None, &settings)?;
/// let (data, lanes) = (TaskData::load(&config.data)?, Lanes::new(2)?);
/// # let home = tempfile::tempdir().expect("temporary folder");
/// # let path = home.path().join("run");
/// let folder = RunFolder::create(path)?;
/// let mut run = Run::new(&folder, config, &data, &lanes, false)?;
/// let (sender, losses) = channel();
/// run.add_sink(Losses(sender));
/// run.train(&Requests::new())?;
/// assert_eq!(losses.try_iter().count(), 5);
/// # Ok::<(), trm::Error>(())
/// ```
pub trait Sink: Send {
    /// After each update.
    fn update(&mut self, record: &UpdateRecord) -> Result<()>;

    /// After each evaluation.
    fn evaluation(&mut self, _record: &EvaluationRecord) -> Result<()> {
        Ok(())
    }

    /// A line for whoever watches, which is no record.
    fn note(&mut self, _text: &str) {}

    /// Before a checkpoint: what came so far has to outlive the process, since a resumed run does not repeat it.
    fn sync(&mut self) -> Result<()> {
        Ok(())
    }

    /// No update follows, whether the run is finished, interrupted or failed.
    fn finish(&mut self) {}
}

/// Several sinks receive each record one after the other.
impl<S: Sink + ?Sized> Sink for Vec<Box<S>> {
    fn update(&mut self, record: &UpdateRecord) -> Result<()> {
        self.iter_mut().try_for_each(|sink| sink.update(record))
    }

    fn evaluation(&mut self, record: &EvaluationRecord) -> Result<()> {
        self.iter_mut().try_for_each(|sink| sink.evaluation(record))
    }

    fn note(&mut self, text: &str) {
        self.iter_mut().for_each(|sink| sink.note(text));
    }

    fn sync(&mut self) -> Result<()> {
        self.iter_mut().try_for_each(|sink| sink.sync())
    }

    fn finish(&mut self) {
        self.iter_mut().for_each(|sink| sink.finish());
    }
}

impl Sink for MetricsLog {
    fn update(&mut self, record: &UpdateRecord) -> Result<()> {
        self.append(record)
    }

    fn evaluation(&mut self, record: &EvaluationRecord) -> Result<()> {
        self.append(record)
    }

    fn sync(&mut self) -> Result<()> {
        MetricsLog::sync(self)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Evaluation, read_metrics};
    use super::*;

    #[test]
    fn the_log_holds_what_is_known_under_its_name_and_nothing_that_never_changes() {
        let dir = tempfile::tempdir().expect("temporary folder");
        let path = dir.path().join("metrics.jsonl");
        let log: Box<dyn Sink> = Box::new(MetricsLog::create(&path).expect("create"));
        let mut sinks = vec![log];
        let update = UpdateRecord { step: 1, loss: 0.5, batch: 8, calls: Some(2.5), ..Default::default() };
        let eval = Evaluation {
            exact_accuracy: 0.25,
            token_accuracy: 0.5,
            halt_accuracy: 0.75,
            valid: None,
            puzzles: 4,
            groups: None,
            unlabelled: 0,
            mean_steps: 16.0,
            by_step: Vec::new(),
        };
        sinks.update(&update).expect("update");
        let evaluation = EvaluationRecord { step: 1, seconds: 1.5, model_flops: 2.0, split: "test".into(), eval };
        sinks.evaluation(&evaluation).expect("evaluation");
        sinks.sync().expect("sync");
        let text = std::fs::read_to_string(&path).expect("read");
        let expected = "{\"step\":1,\"seconds\":0.0,\"model_flops\":0.0,\"lr\":0.0,\"loss\":0.5,\"lm_loss\":0.0,\
             \"q_halt_loss\":0.0,\"calls\":2.5,\"grad_norm\":0.0,\"halted\":0}\n\
             {\"step\":1,\"seconds\":1.5,\"model_flops\":2.0,\"split\":\"test\",\"eval\":{\"exact_accuracy\":0.25,\"token_accuracy\":0.5,\
             \"halt_accuracy\":0.75,\"puzzles\":4,\"mean_steps\":16.0,\"by_step\":[]}}\n";
        assert_eq!(text, expected);
        assert_eq!(read_metrics(&path).expect("read").len(), 2);
    }
}
