//! `trm weights`: weights from other programs and for them.

use std::path::{Path, PathBuf};

use super::common::{WeightsArg, WeightsPlace};
use super::{note, print};
use crate::checkpoint::weights::load_tensor;
use crate::checkpoint::{NamedTensor, RunPaths, TensorFile, TorchFile, load_weights, save_torch, save_weights, torch};
use crate::config::Config;
use crate::device::Cpu;
use crate::engine::{Weights, puzzle_table};
use crate::error::{Error, Result};
use crate::files::output::{SETTINGS, TORCH, WEIGHTS};
use crate::files::{atomic, check_output};
use crate::infer::{Shapes, check_against, settings_of};
use crate::report::Table;
use crate::train::checkpoint_weights;

/// Take over weights from PyTorch, or give them to it
///
/// PyTorch checkpoints are read without running anything of them: only what describes tensors is known, everything else is
/// refused by name.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  trm weights import step_26040 --out weights.safetensors --config-out config.toml
  trm eval weights.safetensors --config config.toml --data sets/sudoku-extreme
  trm weights export runs/sudoku-6x6 --torch weights.pt
  trm weights info step_26040")]
pub struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(clap::Subcommand)]
enum Command {
    Import(Import),
    Export(Export),
    Info(Info),
}

/// Convert a PyTorch checkpoint (or a safetensors file with other names or types) to weights that trm reads
///
/// Half and double precision become f32; what wrappers put before all names (`_orig_mod.`, `module.`, `model.`) is dropped.
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  trm weights import step_26040 --out weights.safetensors --config-out config.toml
  trm weights import maze.pt --out maze.safetensors --config-out maze.toml --set l_cycles=6
  trm weights import mine.pth --out mine.safetensors --config mine.toml")]
struct Import {
    /// What torch.save wrote: a state dict, alone or in a dict with other things
    file: PathBuf,
    /// The weights to write
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Settings that the weights have to fit [default: what their shapes suggest]
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Write the settings, all of them, for `trm eval --config`
    #[arg(long, value_name = "FILE")]
    config_out: Option<PathBuf>,
    /// Change one setting, e.g. --set n_heads=4; may be repeated
    #[arg(long, value_name = "KEY=VALUE")]
    set: Vec<String>,
    /// Replace files that are there already
    #[arg(long)]
    force: bool,
}

/// Write weights as a PyTorch checkpoint, which torch.load reads with weights_only=True
#[derive(clap::Args)]
#[command(after_help = "\
Examples:
  trm weights export runs/sudoku-6x6 --torch weights.pt
  trm weights export runs/extreme --weights raw --torch step_1 --prefix _orig_mod.model.")]
struct Export {
    /// A run folder, or a safetensors file
    run: PathBuf,
    /// The file to write: a dict of f32 tensors by name
    #[arg(long, value_name = "FILE")]
    torch: PathBuf,
    #[command(flatten)]
    weights: WeightsArg,
    /// Put this before all names, e.g. _orig_mod.model. as the published code has it
    #[arg(long, value_name = "TEXT", default_value = "")]
    prefix: String,
    /// Replace the file there
    #[arg(long)]
    force: bool,
}

/// Show names, shapes and types of stored weights, and the settings that they suggest
#[derive(clap::Args)]
#[command(after_help = "Examples:
  trm weights info step_26040
  trm weights info runs/sudoku-6x6/weights.safetensors")]
struct Info {
    /// A PyTorch checkpoint, or a safetensors file
    file: PathBuf,
}

pub fn run(args: Args) -> Result<()> {
    match args.command {
        Command::Import(args) => import(&args),
        Command::Export(args) => export(&args),
        Command::Info(args) => info(&args.file),
    }
}

/// Stored weights of either kind.
enum Stored {
    Torch(TorchFile),
    Safetensors(TensorFile),
}

impl Stored {
    fn open(path: &Path) -> Result<Self> {
        match torch::is_checkpoint(path) {
            true => TorchFile::open(path).map(Self::Torch),
            false => TensorFile::open(path).map(Self::Safetensors),
        }
    }

    /// Shape and type of every tensor, by name.
    fn list(&self) -> Result<Vec<(String, Vec<usize>, String)>> {
        match self {
            Self::Torch(file) => {
                let tensor =
                    file.tensors().map(|(name, shape, element)| (name.into(), shape.into(), element.name().into()));
                Ok(tensor.collect())
            }
            Self::Safetensors(file) => {
                let tensor = |name: String| Ok((name.clone(), file.shape(&name)?.to_vec(), file.type_name(&name)?));
                file.names().into_iter().map(tensor).collect()
            }
        }
    }

    fn shapes(&self) -> Result<Shapes> {
        Ok(self.list()?.into_iter().map(|(name, shape, _)| (name, shape)).collect())
    }

    fn read(&self, name: &str) -> Result<NamedTensor> {
        match self {
            Self::Torch(file) => file.read(name),
            Self::Safetensors(file) => load_tensor(file, name),
        }
    }

    /// Tensors that are no weights.
    fn left_out(&self) -> &[String] {
        match self {
            Self::Torch(file) => file.left_out(),
            Self::Safetensors(_) => &[],
        }
    }
}

fn import(args: &Import) -> Result<()> {
    check_output(&args.out, WEIGHTS, args.force)?;
    args.config_out.iter().try_for_each(|file| check_output(file, SETTINGS, args.force))?;
    let stored = Stored::open(&args.file)?;
    let (at, shapes) = (args.file.display().to_string(), stored.shapes()?);
    let settings = match &args.config {
        Some(file) => {
            let config = Config::resolve(None, Some(file), &args.set)?;
            check_against(&at, &shapes, &config).map(|()| (config, Vec::new()))
        }
        None => settings_of(&at, &shapes, &args.set),
    };
    // Weights that no settings of ours describe may still be wanted.
    let must_fit = args.config.is_some() || args.config_out.is_some() || !args.set.is_empty();
    let settings = match settings {
        Err(error) if must_fit => return Err(error),
        Err(error) => {
            note(&format!("no settings: {error}"));
            None
        }
        Ok(settings) => Some(settings),
    };
    let tensors = shapes.keys().map(|name| stored.read(name)).collect::<Result<Vec<_>>>()?;
    save_weights(&args.out, &tensors)?;
    let count: usize = tensors.iter().map(|tensor| tensor.data.len()).sum();
    if !stored.left_out().is_empty() {
        note(&format!("left out, as they hold whole numbers: {}", stored.left_out().join(", ")));
    }
    print(&format!("{}: {} tensors, {count} weights\n", args.out.display(), tensors.len()))?;
    if let (Some((config, guesses)), Some(file)) = (settings, &args.config_out) {
        atomic::write_bytes(file, config.to_toml().as_bytes())?;
        guesses.iter().for_each(|guess| note(&format!("guessed: {guess}")));
        print(&format!("{}: the settings; --set changes what is guessed\n", file.display()))?;
    }
    Ok(())
}

fn export(args: &Export) -> Result<()> {
    check_output(&args.torch, TORCH, args.force)?;
    let tensors = if args.run.is_dir() {
        let run = RunPaths::existing(&args.run)?;
        match args.weights.place(&run)? {
            WeightsPlace::File(file) => load_weights(&file)?,
            WeightsPlace::Checkpoint { averaged } => {
                published(&checkpoint_weights::<Cpu<f32>>(&run, &run.read_config()?, averaged)?)
            }
        }
    } else if args.weights.is_given() {
        let at = args.run.display();
        return Err(Error::input(format!("--weights chooses among the weights of a run folder, and {at} is none")));
    } else {
        load_weights(&args.run)?
    };
    save_torch(&args.torch, &tensors, &args.prefix)?;
    print(&format!("{}: {} tensors\n", args.torch.display(), tensors.len()))
}

/// All tensors in the published form.
fn published(weights: &Weights) -> Vec<NamedTensor> {
    let mut tensors: Vec<NamedTensor> =
        weights.tensors().map(|(name, shape, values)| NamedTensor::new(name, shape, values.to_vec())).collect();
    tensors.extend(weights.table.iter().map(|table| {
        let rows = (0..table.rows()).flat_map(|id| table.row(id as u32)).copied().collect();
        NamedTensor::new(puzzle_table::NAME, [table.rows(), table.ndim()], rows)
    }));
    tensors.sort_by(|a, b| a.name.cmp(&b.name));
    tensors
}

fn info(file: &Path) -> Result<()> {
    let stored = Stored::open(file)?;
    let list = stored.list()?;
    let mut table = Table::new(["tensor", "shape", "type"]);
    let mut count = 0;
    for (name, shape, element) in &list {
        count += shape.iter().product::<usize>();
        table.row([name.clone(), format!("{shape:?}"), element.clone()]);
    }
    print(&format!("{table}\n{} tensors, {count} elements\n", list.len()))?;
    match settings_of(&file.display().to_string(), &stored.shapes()?, &[]) {
        Ok((config, guesses)) => {
            let (m, t) = (&config.model, &config.task);
            let lines = guesses.iter().map(|guess| format!("  guessed: {guess}\n")).collect::<String>();
            print(&format!(
                "\nby its shapes: {}, {} blocks of width {}, {} tokens out of {} ({})\n{lines}",
                m.recursion().name(),
                m.n_layers,
                m.hidden_size,
                t.seq_len,
                t.vocab_size,
                t.puzzle
            ))
        }
        Err(why) => print(&format!("\nno settings: {why}\n")),
    }
}
