//! What several commands share: the experiment they are given, threads, and stored models.

use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::checkpoint::RunPaths;
use crate::config::{Config, TrainConfig};
use crate::device::{Device, Topology};
use crate::engine::{Lanes, check_formats};
use crate::error::{Error, Result};
use crate::infer::{HaltRule, InferenceOptions, StoredModel};
use crate::model::Model;
use crate::perf::{Footprint, MemoryLimits};
use crate::train::checkpoint_weights;

/// Pause between two pictures that are drawn over each other.
pub const FRAME: Duration = Duration::from_millis(300);

/// Which experiment: a preset or a file of differences, and settings on top.
#[derive(clap::Args, Clone, Debug, Default)]
pub struct Experiment {
    /// Start from this preset (see `trm presets`)
    #[arg(long, value_name = "NAME")]
    pub preset: Option<String>,
    /// A TOML file of differences over a preset
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Change one setting, e.g. --set hidden_size=128; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    pub set: Vec<String>,
}

impl Experiment {
    /// The complete, checked settings, with `more` changed on top.
    pub fn resolve(&self, more: &[String]) -> Result<Config> {
        Config::resolve(self.preset.as_deref(), self.config.as_deref(), &[self.set.as_slice(), more].concat())
    }

    /// A short name for a run of it.
    pub fn name(&self) -> String {
        let stem = self.config.as_deref().and_then(Path::file_stem).map(|stem| stem.to_string_lossy().into_owned());
        self.preset.clone().or(stem).unwrap_or_else(|| crate::config::DEFAULT_PRESET.to_owned())
    }
}

/// How long a puzzle is thought about.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Thinking {
    /// Supervision steps [default: what the run was trained with]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    steps: Option<u32>,
    /// Stop a puzzle as soon as the model is so sure of its answer (σ of the halting head), which then stays; without a value, by the
    /// rule that halts in training: surer than not
    #[arg(long, value_name = "THRESHOLD", num_args = 0..=1, value_parser = threshold, allow_negative_numbers = true)]
    halt: Option<Option<f64>>,
}

/// A threshold of `--halt`.
fn threshold(text: &str) -> Result<f64, String> {
    match text.parse() {
        Ok(share) if share > 0.0 && share < 1.0 => Ok(share),
        _ => Err("give a confidence between 0 and 1 (excluded) such as 0.95, or leave it out and write --halt last"
            .to_owned()),
    }
}

impl Thinking {
    /// As the arguments say, or as in training.
    pub fn options(self, model: &Model, train: &TrainConfig) -> Result<InferenceOptions> {
        let steps = match self.steps {
            Some(0) => return Err(Error::input("--steps 0: the model has to think at least once; give 1 or more")),
            Some(steps) => steps,
            None => train.halt_max_steps,
        };
        let rule = |threshold: Option<f64>| threshold.map_or_else(|| HaltRule::of(model, train), HaltRule::Confident);
        Ok(InferenceOptions { steps, halt: self.halt.map(rule) })
    }
}

/// Number of threads.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct Threads {
    /// Threads to use, where a processor computes [default: the physical cores this process may use, in a SLURM job
    /// at most SLURM_CPUS_PER_TASK]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    threads: Option<usize>,
    /// Pin each thread to a core, spread evenly over NUMA nodes, and keep a copy of the weights on each node
    #[arg(long)]
    pin: bool,
}

/// What computes.
#[derive(clap::Args, Clone, Copy, Debug)]
pub struct DeviceArg {
    /// What computes: cpu; cuda, an NVIDIA GPU; cuda-twin, the GPU's kernels on a twin of it on the host, slow, for tests; or
    /// reference, plain loops, slow, made to be read and to check the others
    #[arg(long, value_name = "NAME", default_value = "cpu")]
    pub device: DeviceName,
    /// On a GPU: sequences to work on at a time, at most [default: as many as there is memory for]; results do not depend on it
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    pub micro_batch: Option<usize>,
}

/// `--device`
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum DeviceName {
    Cpu,
    #[value(alias = "gpu")]
    Cuda,
    CudaTwin,
    Reference,
}

impl DeviceName {
    /// The name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cpu => "cpu",
            Self::Cuda => "cuda",
            Self::CudaTwin => "cuda-twin",
            Self::Reference => "reference",
        }
    }
}

/// `on_device!(name, D => work)`: the work with `D` as the device of that name, in f32 (or in the scalars given); an error where
/// this program was built without it, or the machine has none.
macro_rules! on_device {
    ($name:expr, $D:ident => $work:expr) => {
        on_device!($name, f32, $D => $work)
    };
    ($name:expr, $T:ty, $D:ident => $work:expr) => {
        match $name {
            $crate::cli::common::DeviceName::Cpu => {
                type $D = $crate::device::Cpu<$T>;
                $work
            }
            $crate::cli::common::DeviceName::Reference => {
                type $D = $crate::device::Reference<$T>;
                $work
            }
            #[cfg(cuda_gpu)]
            $crate::cli::common::DeviceName::Cuda => {
                type $D = $crate::device::Cuda<$T, $crate::cuda::Gpu>;
                $crate::cuda::Queue::<$crate::cuda::Gpu>::open().and_then(|_| $work)
            }
            #[cfg(cuda_twin)]
            $crate::cli::common::DeviceName::CudaTwin => {
                type $D = $crate::device::Cuda<$T, $crate::cuda::Twin>;
                $crate::cuda::Queue::<$crate::cuda::Twin>::open().and_then(|_| $work)
            }
            #[allow(unreachable_patterns)] // none is left where all are built in
            other => Err($crate::cli::common::not_built_in(other)),
        }
    };
}
pub(super) use on_device;

/// A device that this program was built without.
pub fn not_built_in(device: DeviceName) -> Error {
    let name = device.name();
    Error::input(format!(
        "--device {name}: this trm was built without it; build it with: cargo build --release --features {name}"
    ))
}

impl Threads {
    /// Starts them.
    pub fn lanes<D: Device>(self) -> Result<Lanes<D>> {
        let threads = self.count()?;
        self.start(threads)
    }

    /// Starts them for a device: as many as there are cores to compute on, or the one that drives an accelerator.
    pub fn lanes_for<D: Device>(self, device: DeviceArg) -> Result<Lanes<D>> {
        if device.micro_batch == Some(0) {
            return Err(Error::input("--micro-batch 0: no sequence could be worked on; give 1 or more"));
        }
        if D::IS_ACCELERATOR {
            let lanes = Lanes::start(1)?;
            lanes.install(|| lanes.with_lane(|lane| lane.set_micro_batch(device.micro_batch.unwrap_or(0))));
            return Ok(lanes);
        }
        if device.micro_batch.is_some() {
            return Err(Error::input(format!("--micro-batch is about a GPU's memory: --device {} has none", D::NAME)));
        }
        self.lanes()
    }

    /// How many.
    pub fn count(self) -> Result<usize> {
        match self.threads {
            Some(0) => Err(Error::input("--threads 0: no thread could do the work; give 1 or more")),
            Some(n) if n > 4096 => Err(Error::input(format!("--threads {n}: more than the 4096 that are sensible"))),
            Some(n) => Ok(n),
            None => Ok(Lanes::default_threads()),
        }
    }

    /// Starts so many, pinned with `--pin`.
    pub fn start<D: Device>(self, threads: usize) -> Result<Lanes<D>> {
        if self.pin { Lanes::pinned(&Topology::detect(), threads) } else { Lanes::start(threads) }
    }
}

/// Refuses work that this process has no memory for; says on standard error where that is only likely.
pub fn claim(footprint: &Footprint) -> Result<()> {
    footprint.check(&MemoryLimits::read())?.iter().for_each(|warning| super::complain(warning));
    Ok(())
}

/// The same for a training run of `updates` updates. An accelerator refuses by itself what it has no room for.
pub fn claim_training<D: Device>(config: &Config, updates: u64, threads: usize) -> Result<()> {
    check_formats::<D>(&config.train)?;
    if D::IS_ACCELERATOR {
        return Ok(());
    }
    claim(&Footprint::of_training(&Model::new(&config.model, &config.task), config, updates, threads))
}

/// Which weights of a run.
#[derive(clap::Args, Clone, Debug)]
pub struct WeightsArg {
    /// Which weights of the run: best, those of its best evaluation (see keep_best); ema or raw, the average or what it is an
    /// average of, of the newest checkpoint; or a safetensors file [default: weights.safetensors of the run]
    #[arg(long, value_name = "WHICH")]
    weights: Option<String>,
}

/// Where weights are.
pub enum WeightsPlace {
    /// In a file.
    File(PathBuf),
    /// In the newest checkpoint of the run; the average, or not.
    Checkpoint { averaged: bool },
}

impl WeightsArg {
    /// Whether it says anything.
    pub fn is_given(&self) -> bool {
        self.weights.is_some()
    }

    /// Where the weights are that it chooses of a run.
    ///
    /// # Errors
    /// When there are none such.
    pub fn place(&self, run: &RunPaths) -> Result<WeightsPlace> {
        let present = |file: PathBuf, why: &str| match file.exists() {
            true => Ok(WeightsPlace::File(file)),
            false => Err(Error::input(format!("{}: {why}", file.display()))),
        };
        match self.weights.as_deref() {
            None => present(run.weights(), "no weights yet; they are written with the first checkpoint"),
            Some("ema") => Ok(WeightsPlace::Checkpoint { averaged: true }),
            Some("raw") => Ok(WeightsPlace::Checkpoint { averaged: false }),
            Some("best") => present(
                run.best_weights(),
                "no such weights; they are kept by a run with keep_best, from its first evaluation on",
            ),
            Some(file) => present(file.into(), "no such file; --weights takes ema, raw, best, or a safetensors file"),
        }
    }
}

/// Loads a run folder, or a safetensors file together with a file of settings, to work with it on so many threads; refused
/// where that does not fit into memory.
pub fn load_model<D: Device<T = f32>>(
    run: &Path,
    config: Option<&Path>,
    which: &WeightsArg,
    threads: usize,
) -> Result<StoredModel<D>> {
    let is_run = run.is_dir() || config.is_none();
    if let (false, Some(weights)) = (is_run, &which.weights) {
        let at = run.display();
        return Err(Error::input(format!(
            "--weights {weights} chooses among the weights of a run folder, and {at} is none"
        )));
    }
    let (config, place) = if is_run {
        let paths = RunPaths::existing(run)?;
        let config = match config {
            Some(file) => Config::resolve(None, Some(file), &[])?,
            None => paths.read_config()?,
        };
        (config, which.place(&paths)?)
    } else {
        let (config, file) = StoredModel::<D>::locate(run, config)?;
        (config, WeightsPlace::File(file))
    };
    check_formats::<D>(&config.train)?;
    let model = Model::new(&config.model, &config.task);
    if !D::IS_ACCELERATOR {
        claim(&Footprint::of_inference(&model, &config, threads))?;
    }
    match place {
        WeightsPlace::File(file) => StoredModel::read(config, model, &file),
        WeightsPlace::Checkpoint { averaged } => {
            let weights = checkpoint_weights(&RunPaths::existing(run)?, &config, averaged)?;
            Ok(StoredModel { config, model, weights })
        }
    }
}
