//! `trm train`: a run, from settings to a solved sample.

use std::path::{Path, PathBuf};
use std::time::Instant;

mod continued;

use super::common::{DeviceArg, Experiment, Threads, claim_training, on_device};
use super::solve::show_sample;
use super::{complain, note, signals};
use crate::checkpoint::RunFolder;
use crate::config::{Augment, Config, DataConfig, RunShape, SetShape, suggested, without_effect};
use crate::dataset::arc;
use crate::dataset::{TaskData, board_of};
use crate::device::Device;
use crate::engine::{Engine as _, Lanes, TrainingDevice, Weights, precision_for};
use crate::error::{Error, Result};
use crate::infer::{HaltRule, Inference, InferenceOptions};
use crate::model::{int8_share, update_flops};
use crate::puzzle::{Copies, Description, grid};
use crate::report::Progress;
use crate::simd;
use crate::train::{Ending, Requests, Run, short_run_note};
use continued::{experiment_of, initial_weights, name_of, reopen};

/// Train a model
///
/// Without arguments: the quick start. It generates 6×6 Sudokus, trains on them for about a minute, evaluates on
/// puzzles that are new up to every symmetry, and solves one step by step.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  trm train                                         the quick start
  trm train --preset sudoku-4x4 --out runs/tiny     another preset, into a folder of your choice
  trm train --set h_cycles=3 --set lr=1e-3          settings on top
  trm train --config mine.toml --data sets/sudoku   an experiment file and a data set
  trm train --data sets/mine                        a puzzle of your own, with settings by its size
  trm train --resume --out runs/tiny                go on after Ctrl-C, a crash or a power cut
  trm train --resume --max-steps 9000 --out runs/extreme   further, at a constant learning rate
  trm train --init runs/tiny --data sets/mine       a new run from the weights of another
  trm train --init runs/arc --data sets/arc-new --train-only puzzle_table  who they are

A run folder holds config.toml (every setting), metrics.jsonl, weights.safetensors and checkpoint/.
Its weights depend on settings, data and seed alone: not on the number of threads, nor on interruptions.
The exit code is 0 when all updates are done, 130 after Ctrl-C, SIGTERM or SIGHUP (everything is saved then; under nohup
SIGHUP is ignored), 1 when a loss or gradient is not finite, 2 for input that cannot be used. SIGUSR1 and SIGUSR2 save a
checkpoint at once, and training goes on; docs/slurm.md has a job script.")]
pub struct Args {
    #[command(flatten)]
    experiment: Experiment,
    /// Data set folder (see `trm data`); same as --set data.dir=DIR
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    #[command(flatten)]
    threads: Threads,
    #[command(flatten)]
    device: DeviceArg,
    /// Updates; same as --set max_steps=N
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_steps: Option<u64>,
    /// Seed of weights, data order and exploration; same as --set seed=N
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    seed: Option<u64>,
    /// Run folder, new [default: runs/NAME]; with --resume, the one to go on with
    #[arg(long, value_name = "RUN")]
    out: Option<PathBuf>,
    /// Go on with the run in --out; with --max-steps MORE beyond where it was to end
    #[arg(long, requires = "out")]
    resume: bool,
    /// Begin a new run with these weights: a safetensors file, or a run folder, whose settings hold where none are named
    #[arg(long, value_name = "WEIGHTS|RUN", conflicts_with = "resume")]
    init: Option<PathBuf>,
    /// With --init, its puzzle table [default: keep where it has as many identifiers as the data, by the same names where a
    /// run says them; else new]
    #[arg(long, value_name = "WHICH", requires = "init")]
    init_table: Option<InitTable>,
    /// What learns: all, or puzzle_table; same as --set train_only=WHAT
    #[arg(long, value_name = "WHAT")]
    train_only: Option<String>,
}

/// `--init-table`
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum InitTable {
    Keep,
    New,
}

/// A run that can start: its folder, settings and data.
struct Opened<D: Device> {
    folder: RunFolder,
    config: Config,
    data: TaskData,
    /// What it begins with; else fresh weights, or its newest checkpoint.
    weights: Option<Weights<D>>,
    /// Its settings are to be stored once everything else is.
    store_config: bool,
    /// What there is to say when it starts.
    said: Vec<String>,
    /// And to warn of: a run that is refused has one line to say.
    warnings: Vec<String>,
}

pub fn run(args: Args) -> Result<()> {
    on_device!(args.device.device, D => run_on::<D>(&args))
}

fn run_on<D: TrainingDevice<T = f32>>(args: &Args) -> Result<()> {
    let lanes = args.threads.lanes_for::<D>(args.device)?;
    simd::choose_isa()?;
    let Opened { folder, config, data, weights, store_config, said, warnings } = match args.resume {
        true => reopen::<D>(args, lanes.threads())?,
        false => start::<D>(args, lanes.threads())?,
    };
    let requests = signals::requests();
    let begin = || {
        let run = match weights {
            Some(weights) => Run::from_weights(&folder, config, &data, &lanes, weights)?,
            None => Run::new(&folder, config, &data, &lanes, args.resume)?,
        };
        if store_config {
            folder.write_config(&run.trainer().config)?;
        }
        Ok(run)
    };
    let error = match begin() {
        Ok(run) => {
            said.iter().for_each(|text| note(text));
            warnings.iter().for_each(|text| complain(text));
            return train(run, requests, &folder, &data, &lanes);
        }
        Err(error) => error,
    };
    if !args.resume {
        folder.discard();
    }
    Err(error)
}

/// The settings that the short options stand for.
fn shorthands(args: &Args) -> Vec<String> {
    let mut sets = Vec::new();
    if let Some(dir) = &args.data {
        sets.push(format!("data.dir={}", toml::Value::String(dir.display().to_string())));
    }
    sets.extend(args.max_steps.map(|steps| format!("train.max_steps={steps}")));
    sets.extend(args.seed.map(|seed| format!("train.seed={seed}")));
    sets.extend(args.train_only.iter().map(|what| format!("train.train_only={what}")));
    sets
}

fn start<D: Device<T = f32>>(args: &Args, threads: usize) -> Result<Opened<D>> {
    let experiment = experiment_of(args);
    let named = experiment.preset.is_some() || experiment.config.is_some();
    let resolve = || experiment.resolve(&shorthands(args));
    let sets = [args.experiment.set.clone(), shorthands(args)].concat();
    // Of a set without a preset, settings need only fit those that the set suggests.
    let suggests = !named && args.data.is_some();
    let mut config = if suggests { Config::resolve_apart(&sets)? } else { resolve()? };
    let asked = config.data.augment;
    let data = load(args, &mut config)?;
    let (mut name, mut chosen) = (name_of(args), None);
    let (wanted, found, stored) = (&config.task, data.task(), !config.data.dir.is_empty());
    if named {
        let preset = experiment.preset.as_ref().filter(|_| experiment.config.is_none() && stored);
        preset.map_or(Ok(()), |preset| made_for(preset, &config, &data))?;
    } else if wanted.puzzle != found.puzzle || stored && wanted.seq_len != found.seq_len {
        let set = SetShape {
            seq_len: found.seq_len,
            examples: data.split("train")?.examples(),
            identifiers: found.num_puzzle_identifiers,
            augment: match data.dataset().puzzle.game()?.copies() {
                _ if data.dataset().has_named_copies() => config.data.augment,
                Copies::Drawn => Augment::Online,
                _ => Augment::Stored,
            },
        };
        let suggested = suggested(set);
        chosen = Some(format!("settings for {} by its size: {}", data.board().name(), suggested.join(" ")));
        config = Config::resolve(None, None, &[suggested, sets.clone()].concat())?;
        let folder = Path::new(&config.data.dir).file_name();
        name = folder.map_or(name, |folder| folder.to_string_lossy().into_owned());
    } else {
        resolve()?;
    }
    let chosen_keys = Config::said(experiment.preset.as_deref(), experiment.config.as_deref(), &sets)?;
    config.task = data.task().clone();
    config.data.dir = absolute(&config.data.dir)?;
    // What the run is stored with, so that it stays the same on whatever machine it goes on.
    config.train.precision = precision_for::<D>(config.train.precision).into();
    config.validate()?;
    claim_training::<D>(&config, data.total_steps(&config)?, threads)?;
    let (weights, said) =
        initial_weights(args, &config, &data)?.map_or((None, Vec::new()), |(w, said)| (Some(w), said));
    let root = args.out.clone().unwrap_or_else(|| free_folder(&name));
    let folder = RunFolder::create(root)?;
    // A folder with settings can be resumed: where the run begins with stored weights, these have to be there before.
    let store_config = weights.is_some();
    if !store_config && let Err(error) = folder.write_config(&config) {
        folder.discard();
        return Err(error);
    }
    chosen.iter().for_each(|chosen| note(chosen));
    let warnings = without_effect(&config, shape(&config, &data)?, &chosen_keys);
    tell_augmentation(&config.data, args.experiment.preset.as_ref().map(|_| asked));
    Ok(Opened { folder, config, data, weights, store_config, said, warnings })
}

/// A folder's name from wherever the program is run; an empty one stays empty.
fn absolute(dir: &str) -> Result<String> {
    if dir.is_empty() {
        return Ok(String::new());
    }
    let path = std::path::absolute(dir).map_err(|e| Error::io(dir, e))?;
    Ok(path.display().to_string())
}

/// What the data make of a run.
fn shape(config: &Config, data: &TaskData) -> Result<RunShape> {
    let train = &data.split("train")?.meta;
    let evaluated = data.evaluation_split(&config.train.eval_split)?;
    Ok(RunShape {
        updates: data.total_steps(config)?,
        epoch_examples: (train.total_groups as f64 * train.mean_puzzle_examples) as usize,
        eval_puzzles: evaluated.map_or(Ok(0), |split| data.rows(split, 0).map(|rows| rows.len()))?,
    })
}

/// The data of a new run. Unless somebody has said which, an ARC set on disk is augmented in the way it is made for.
fn load(args: &Args, config: &mut Config) -> Result<TaskData> {
    TaskData::load_for_training(&mut config.data, &config.train.eval_split, !augmentation_is_said(args))
}

/// Whether somebody has chosen the augmentation, in a file or an argument; a preset's is only what its own set needs.
fn augmentation_is_said(args: &Args) -> bool {
    let mut keys = args.experiment.set.iter().filter_map(|set| set.split_once('='));
    args.experiment.config.is_some() || keys.any(|(key, _)| key.trim().ends_with("augment"))
}

/// Says where a run on an ARC set has another augmentation than its `preset`, or none though the set is made for it.
fn tell_augmentation(data: &DataConfig, preset: Option<Augment>) {
    let DataConfig { dir, augment, .. } = data;
    let online = !dir.is_empty() && arc::is_online(Path::new(dir));
    let changed = preset.is_some_and(|preset| preset != *augment);
    match augment {
        Augment::Stored if online => complain(&format!(
            "{dir} holds tasks without their copies, and data.augment = \"stored\" trains on those alone; \
             augment = \"online\" makes the copies"
        )),
        Augment::Online if online && changed => complain(&format!(
            "{dir} holds tasks without their copies: data.augment is \"online\", which makes them, in place of the preset's"
        )),
        Augment::Stored if changed => {
            complain(&format!("{dir} holds its copies: data.augment is \"stored\", in place of the preset's"));
        }
        _ => {}
    }
}

/// Refuses a preset whose puzzle is another one than that of the data set: its width, depth and number of updates were
/// chosen for its own.
fn made_for(preset: &str, config: &Config, data: &TaskData) -> Result<()> {
    let (own, found) = (&config.task, data.task());
    // Presets of published sets call them rows of tokens, which is what the authors' files say.
    let known = own.puzzle != grid::TOKENS && found.puzzle != grid::TOKENS;
    if (own.seq_len, own.vocab_size) == (found.seq_len, found.vocab_size) && (!known || own.puzzle == found.puzzle) {
        return Ok(());
    }
    let own = Description::infer(own.seq_len, own.vocab_size);
    let own = if known { board_of(&config.task)?.name() } else { own.board(config.task.vocab_size)?.name() };
    let (dir, set) = (&config.data.dir, data.board().name());
    Err(Error::input(format!(
        "preset {preset} is made for {own}, but {dir} holds {set}; `trm train --data DIR` without a preset chooses settings \
         for it (a file with preset = {preset:?}, given with --config, takes these anyway)"
    )))
}

/// `runs/NAME`, or the first of `runs/NAME-2`, `-3`, … that is not there yet.
fn free_folder(name: &str) -> PathBuf {
    let first = Path::new("runs").join(name);
    let numbered = (2..).map(|i| Path::new("runs").join(format!("{name}-{i}")));
    std::iter::once(first).chain(numbered).find(|path| !path.exists()).expect("some number is free")
}

fn train<D: TrainingDevice<T = f32>>(
    mut run: Run<'_, D>,
    requests: &Requests,
    folder: &RunFolder,
    data: &TaskData,
    lanes: &Lanes<D>,
) -> Result<()> {
    let trainer = run.trainer();
    let precision = precision_for::<D>(trainer.config.train.precision);
    let limit = lanes.fma_limit(precision, int8_share(&trainer.model, &trainer.config.train, true), 0.1);
    let (total, first) = (trainer.total_steps(), trainer.step_count());
    let train = &trainer.config.train;
    let per_update = update_flops(&trainer.model, train);
    let flops_before = trainer.model_flops();
    let halt = HaltRule::of(&trainer.model, train);
    let options = InferenceOptions { steps: train.halt_max_steps, halt: Some(halt) };
    note(&format!(
        "{}: {} weights, {total} updates of {} puzzles, {:.1} model GFLOP each",
        folder.root().display(),
        trainer.model.layout.n_weights(),
        train.batch_size,
        per_update / 1e9
    ));
    note(&format!("{} threads, {}, FMA limit {limit:.0} GFLOP/s", lanes.threads(), D::path()));
    match run.eval_split() {
        Some("test") => note(
            "evaluations during training read the test split: it is no test of anything that is chosen by them; a split \
             called valid would be read instead",
        ),
        Some(split) => note(&format!("evaluations during training read the split {split}")),
        None => note("the data has no split to evaluate on during training"),
    }
    short_run_note(train, total).iter().for_each(|text| note(text));
    run.trainer().engine.describe().iter().for_each(|text| note(text));
    run.add_sink(Progress::new(total, first).with_limit(limit));
    let started = Instant::now();
    match run.train(requests)? {
        Ending::Interrupted => {
            Err(Error::Interrupted { step: run.trainer().step_count(), run: folder.root().to_path_buf() })
        }
        Ending::Finished(evaluation) => {
            let trainer = run.trainer();
            let model_flops = trainer.model_flops() - flops_before;
            note(&format!(
                "trained in {:.1} s, {model_flops:.2e} model FLOPs; weights in {}",
                started.elapsed().as_secs_f64(),
                folder.weights().display()
            ));
            tell_best(&run, folder);
            let trainer = run.trainer();
            if let Some(split) = run.eval_split().filter(|_| evaluation.is_some()) {
                let weights = trainer.evaluation_weights();
                let inference = Inference { lanes, model: &trainer.model, weights: &weights, options };
                show_sample(&inference, data, split, folder.root())?;
            }
            Ok(())
        }
    }
}

/// Which evaluation was the best, and whether the run ended because none was better for long.
fn tell_best<D: TrainingDevice<T = f32>>(run: &Run<'_, D>, folder: &RunFolder) {
    let train = &run.trainer().config.train;
    let (Some(best), Some(split)) = (run.best(), run.eval_split()) else { return };
    let name = train.keep_best.name();
    if run.is_stale() {
        note(&format!(
            "stopped after update {}: {} evaluations in a row were no better (stop_after = {})",
            run.trainer().step_count(),
            best.since,
            train.stop_after
        ));
    }
    note(&format!(
        "best {name} on the split {split}: {:.2} % after update {}; those weights in {}",
        100.0 * best.value,
        best.step,
        folder.best_weights().display()
    ));
}
