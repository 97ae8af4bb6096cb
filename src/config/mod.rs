//! One experiment = one [`Config`]: every setting there is, in four tables of one TOML file.
//!
//! Key names are unique across the tables, so `--set h_cycles=2` and `--set model.h_cycles=2` mean the same.
//!
//! Settings come in layers, each a list of differences over the one below: a preset, a file, `--set` arguments.
//! [`Config::resolve`] stacks them, [`Config::validate`] judges the result, [`Config::to_toml`] writes all of it.

mod check;
mod effect;
mod layers;
mod presets;
pub mod recursion;
mod suggest;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

pub use effect::{RunShape, without_effect};
pub use presets::{DEFAULT_PRESET, Preset, presets};
pub use recursion::Recursion;
pub use suggest::{SetShape, suggested};

/// Everything a run depends on, apart from the data's bytes. Stored complete in the run folder.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The network and its recursion.
    pub model: ModelConfig,
    /// What the data set fixes.
    pub task: TaskConfig,
    /// Where examples come from.
    pub data: DataConfig,
    /// Loss, optimizer, schedule.
    pub train: TrainConfig,
}

/// The network and its recursion (specification, "The network and its recursions").
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ModelConfig {
    /// Which recursion; `own` is the table or file in `recursion`.
    pub arch: Arch,
    /// The recursion itself (see [`recursion`]): a table, or the name of a file that holds one, beside the file that says
    /// so. Empty: that of `arch`.
    #[serde(default, serialize_with = "recursion::to_text", deserialize_with = "recursion::or_empty")]
    pub recursion: Option<Recursion>,
    /// T: outer cycles per supervision step.
    pub h_cycles: usize,
    /// n: latent updates per outer cycle.
    pub l_cycles: usize,
    /// Blocks in each network.
    pub n_layers: usize,
    /// Blocks in the networks that go by it (`H_level`); 0 = `n_layers`.
    #[serde(default)]
    pub h_layers: usize,
    /// Blocks in the networks that go by it (`L_level`); 0 = `n_layers`.
    #[serde(default)]
    pub l_layers: usize,
    /// D.
    pub hidden_size: usize,
    /// Attention heads; must divide `hidden_size`.
    pub n_heads: usize,
    /// SwiGLU expansion: inner width = round(expansion · width · 2/3), rounded up to `inner_multiple`.
    pub expansion: f64,
    /// Inner widths are a multiple of this (the published code's is 256).
    pub inner_multiple: usize,
    /// How positions exchange information.
    pub mixing: Mixing,
    /// Position information.
    pub positions: Positions,
    /// Width of a puzzle table row; 0 = no puzzle table.
    pub puzzle_emb_ndim: usize,
    /// P: puzzle-embedding positions; 0 = ceil(puzzle_emb_ndim / hidden_size).
    pub puzzle_emb_len: usize,
    /// Learned prefix positions shared by all puzzles, in place of a puzzle table; 0 = none.
    pub learned_prefix: usize,
    /// What part of the recursion is differentiated.
    pub gradient: Gradient,
    /// For `gradient = "last_k"`: how many of the last calls are recorded.
    pub last_k: usize,
    /// Separate networks for the z and the y update.
    pub separate_nets: bool,
    /// Experts in place of each block's SwiGLU over features; 0 = the SwiGLU itself.
    pub experts: usize,
    /// With experts: how many each position is routed to.
    pub experts_per_token: usize,
    /// The head that reads the answer shares its matrix with the token embedding.
    pub tied_embeddings: bool,
    /// Iterates the detached cycles until the states settle, at most the `h_cycles` - 1 times there are otherwise.
    pub fixed_point: FixedPoint,
    /// With `fixed_point`: settled when no sequence's states change by more than this share of their norm.
    pub fixed_point_tolerance: f64,
}

/// Which recursion (specification, "The network and its recursions"); each but the last is a file below `data/recursions`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Arch {
    /// Two states, y and z, and (by default) one shared network.
    Trm,
    /// TRM's ancestor: two states, two networks, and (in the paper) a 1-step gradient and the continue loss.
    Hrm,
    /// One state, z, and one network.
    Singlez,
    /// y and a latent for each of the `l_cycles` updates, at most six.
    Hier6,
    /// One call `y ← f(y, x)` per supervision step: a plain transformer with deep supervision.
    Transformer,
    /// Direct prediction: one call `y ← f(x)`, nothing carried, so one supervision step.
    Direct,
    /// The one that `recursion` holds.
    Own,
}

/// How the detached cycles are iterated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FixedPoint {
    /// `h_cycles` - 1 times.
    None,
    /// Until the states settle.
    Plain,
    /// The same, with Anderson's extrapolation between iterations.
    Anderson,
}

/// Mixing over positions.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mixing {
    /// Multi-head self-attention.
    Attention,
    /// SwiGLU over positions.
    MlpT,
}

/// Position information.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Positions {
    /// None at all (mlp_t has positions built in).
    None,
    /// A learned table added to the embedding.
    Learned,
    /// Rotations of queries and keys inside attention.
    Rope,
}

/// Which calls carry gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Gradient {
    /// The whole last outer cycle (TRM).
    FullCycle,
    /// The last two calls: the last z-update and the last y-update (HRM).
    OneStep,
    /// The last `last_k` calls.
    LastK,
    /// Those that the recursion itself marks as recorded.
    Marked,
}

/// What the data set fixes; filled in from it when a run starts, so that a run folder stands alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskConfig {
    /// Kind of puzzle, for solving and rendering: `sudoku`, `maze`, `arc`, `grid`, or `tokens` where nothing is known.
    pub puzzle: String,
    /// Columns of the grid; 0: as many as rows.
    pub width: usize,
    /// What each token is called, a JSON array of strings; empty: as the kind of puzzle has it.
    pub symbols: String,
    /// Whether a grid may be smaller than the board, on padding.
    pub padded: bool,
    /// S: tokens per puzzle.
    pub seq_len: usize,
    /// V: tokens in the vocabulary.
    pub vocab_size: usize,
    /// Rows of the puzzle table.
    pub num_puzzle_identifiers: usize,
}

/// A label that no loss and no metric counts (specification, "Loss").
pub const IGNORE_LABEL: i32 = -100;

/// Where examples come from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DataConfig {
    /// A data-set folder in the published layout, or empty: generate in memory.
    pub dir: String,
    /// The puzzle that is generated, by its name in the registry ([`crate::puzzle::games`]).
    pub generate: String,
    /// Training puzzles to generate.
    pub train_puzzles: usize,
    /// Test puzzles to generate (unseen up to symmetry).
    pub test_puzzles: usize,
    /// Seed of the generated set.
    pub data_seed: u64,
    /// `stored`: use the rows as they are; `online`: a fresh random symmetry for every example drawn (of ARC: all copies
    /// of a set of originals, made when they are drawn).
    pub augment: Augment,
    /// The generators' own settings, such as `sudoku_size`: those that the registered puzzles declare, under their keys.
    #[serde(flatten)]
    pub generator: crate::puzzle::Settings,
}

/// Augmentation at training time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Augment {
    /// Rows as they are on disk.
    Stored,
    /// A fresh random symmetry for every example drawn.
    Online,
}

/// Loss, optimizer, schedule, bookkeeping.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TrainConfig {
    /// Seed of weights, data order and exploration.
    pub seed: u64,
    /// Slots in a batch.
    pub batch_size: usize,
    /// Epochs over the data (specification, "Sampling"); ignored when `max_steps` is not 0.
    pub epochs: u64,
    /// Updates; 0 = what `epochs` gives.
    pub max_steps: u64,
    /// What learns; what does not, its average included, stays as the run began with it.
    pub train_only: TrainOnly,
    /// Token loss.
    pub loss: Loss,
    /// Softmax only: share of the target spread evenly over the vocabulary.
    pub label_smoothing: f64,
    /// Weight of the halting (and continue) loss: 0.5 in the paper.
    pub halt_loss_weight: f64,
    /// With experts: weight of the loss that spreads positions over them.
    pub balance_loss_weight: f64,
    /// Optimizer of the dense weights.
    pub optimizer: OptimizerName,
    /// Learning rate of the dense weights.
    pub lr: f64,
    /// Updates of linear warm-up.
    pub lr_warmup_steps: u64,
    /// Cosine decay ends at this share of `lr`; 1.0 = constant.
    pub lr_min_ratio: f64,
    /// Decay of the first moment.
    pub beta1: f64,
    /// Decay of the second moment.
    pub beta2: f64,
    /// Decoupled weight decay of the dense weights.
    pub weight_decay: f64,
    /// Learning rate of the puzzle table (sign-SGD).
    pub puzzle_emb_lr: f64,
    /// Decoupled weight decay of the puzzle table.
    pub puzzle_emb_weight_decay: f64,
    /// Largest gradient norm; 0 = no clipping.
    pub grad_clip: f64,
    /// Keep an exponential moving average (EMA) of the weights, and evaluate and save it.
    pub ema: bool,
    /// Share of the old average kept at every update.
    pub ema_rate: f64,
    /// Less of it is kept in the first updates: min(`ema_rate`, (1 + t) / (10 + t)) in update t.
    pub ema_warmup: bool,
    /// N_sup: supervision steps a sequence may live.
    pub halt_max_steps: u32,
    /// Chance that a slot draws a minimum number of supervision steps (specification, "Deep supervision", step 3).
    pub halt_exploration_prob: f64,
    /// Adaptive halting in training; off: every sequence lives `halt_max_steps`.
    pub act: bool,
    /// The Q-learning continue loss (specification, "Deep supervision", step 4).
    pub continue_loss: bool,
    /// Number format of the operands of GEMMs; sums, norms, losses and the optimizer are f32. `auto` becomes
    /// one of the others when a run starts, and stays that.
    pub precision: PrecisionSetting,
    /// The same for products with weights in the calls that carry no gradient, in training and in evaluation.
    pub detached_precision: DetachedPrecision,
    /// Shards whose gradients are summed apart, then in a fixed binary tree; 0 = one per 4 sequences, at most 192.
    /// Part of the experiment, not of the machine: it fixes the order of summation. More cores than groups share them.
    pub gradient_groups: usize,
    /// Updates between evaluations; 0 = only at the end.
    pub eval_interval: u64,
    /// The split that evaluations during training read; empty: `valid` where the set has one, else `test`.
    pub eval_split: String,
    /// Puzzles of that split that they use; 0 = all.
    pub eval_puzzles: usize,
    /// Measure of an evaluation by which the best weights so far are kept beside the last; empty: none are.
    pub keep_best: KeepBest,
    /// The run ends after so many evaluations in a row that were no better by `keep_best`; 0 = never.
    pub stop_after: u64,
    /// Updates between checkpoints; 0 = only at the end.
    pub checkpoint_interval: u64,
}

/// What learns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TrainOnly {
    /// All weights.
    All,
    /// The puzzle table: a trained model gets to know new puzzles.
    PuzzleTable,
}

/// A measure of an evaluation; the more the better.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum KeepBest {
    /// None.
    #[serde(rename = "")]
    Off,
    /// Puzzles that are right in every cell.
    ExactAccuracy,
    /// Cells that are right.
    TokenAccuracy,
    /// Puzzles of which the model knows whether it is right.
    HaltAccuracy,
    /// Answers that solve their puzzle, the stored one or another; where there may be several.
    Valid,
}

impl KeepBest {
    /// Its name in settings and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "",
            Self::ExactAccuracy => "exact_accuracy",
            Self::TokenAccuracy => "token_accuracy",
            Self::HaltAccuracy => "halt_accuracy",
            Self::Valid => "valid",
        }
    }
}

/// Token loss (specification, "Loss").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Loss {
    /// The published code's default.
    StablemaxCrossEntropy,
    /// The usual one.
    SoftmaxCrossEntropy,
}

/// Number format of the operands of GEMMs, as set; `engine::precision_for` says what it is on this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PrecisionSetting {
    /// The reference.
    F32,
    /// Operands rounded to bf16, the same on every machine; fast where the processor has bf16 dot products.
    Bf16,
    /// `bf16` where the processor has bf16 dot products, else `f32`.
    Auto,
}

/// Number format of the operands of products with weights in calls that carry no gradient.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DetachedPrecision {
    /// That of the other calls.
    Same,
    /// Whole numbers of eight bits with a scale for each row (specification, "Number formats").
    Int8,
}

/// Optimizer of the dense weights (specification, "Optimizers, schedule, EMA").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OptimizerName {
    /// Scale-free Adam, the published code's default.
    AdamAtan2,
    /// Adam with decoupled weight decay.
    Adamw,
}
