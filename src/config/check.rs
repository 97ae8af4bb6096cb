//! What a set of well-typed settings must satisfy before anything is allocated or trained.

use super::recursion::{Count, MAX_CALLS};
use super::{
    Arch, Augment, Config, DetachedPrecision, FixedPoint, Gradient, KeepBest, Loss, Mixing, Positions, Recursion,
    TrainOnly,
};
use crate::error::{Error, Result};
use crate::puzzle::{Copies, game, games};

/// A router looks at every pair of experts.
const MAX_EXPERTS: u64 = 64;

/// Why settings are refused, and which keys are to blame.
pub(super) struct Fault {
    pub keys: Vec<String>,
    pub message: String,
}

impl Config {
    /// Refuses settings that cannot be run, in one line that names the key, its value and what is allowed.
    pub fn validate(&self) -> Result<()> {
        first_fault(self).map_err(|fault| Error::input(fault.message))
    }
}

/// Ranges of whole numbers. The upper ends are far beyond any sensible model; they keep every product of sizes
/// inside 64 bits.
fn whole_numbers(c: &Config) -> Vec<(&'static str, u64, u64, u64)> {
    let (m, t, d, r) = (&c.model, &c.task, &c.data, &c.train);
    let wide = |x: usize| x as u64;
    const ANY: u64 = i64::MAX as u64;
    vec![
        ("model.h_cycles", wide(m.h_cycles), 1, 1_000),
        ("model.l_cycles", wide(m.l_cycles), 1, 1_000),
        ("model.n_layers", wide(m.n_layers), 1, 1_000),
        ("model.h_layers", wide(m.h_layers), 0, 1_000),
        ("model.l_layers", wide(m.l_layers), 0, 1_000),
        ("model.hidden_size", wide(m.hidden_size), 1, 65_536),
        ("model.n_heads", wide(m.n_heads), 1, 65_536),
        ("model.inner_multiple", wide(m.inner_multiple), 1, 65_536),
        ("model.puzzle_emb_ndim", wide(m.puzzle_emb_ndim), 0, 1 << 24),
        ("model.puzzle_emb_len", wide(m.puzzle_emb_len), 0, 65_536),
        ("model.learned_prefix", wide(m.learned_prefix), 0, 65_536),
        ("model.last_k", wide(m.last_k), 1, 1 << 21),
        ("task.width", wide(t.width), 0, 65_536),
        ("model.experts", wide(m.experts), 0, MAX_EXPERTS),
        ("model.experts_per_token", wide(m.experts_per_token), 1, MAX_EXPERTS),
        ("task.seq_len", wide(t.seq_len), 1, 65_536),
        ("task.vocab_size", wide(t.vocab_size), 2, 256),
        ("task.num_puzzle_identifiers", wide(t.num_puzzle_identifiers), 1, 1 << 31),
        ("data.train_puzzles", wide(d.train_puzzles), 1, 100_000_000),
        ("data.test_puzzles", wide(d.test_puzzles), 1, 100_000_000),
        ("data.data_seed", d.data_seed, 0, ANY),
        ("train.seed", r.seed, 0, ANY),
        ("train.batch_size", wide(r.batch_size), 1, 1 << 20),
        ("train.epochs", r.epochs, 0, 1 << 40),
        ("train.max_steps", r.max_steps, 0, 1 << 40),
        ("train.lr_warmup_steps", r.lr_warmup_steps, 0, 1 << 40),
        ("train.halt_max_steps", u64::from(r.halt_max_steps), 1, 1_000),
        ("train.gradient_groups", wide(r.gradient_groups), 0, 1 << 20),
        ("train.eval_interval", r.eval_interval, 0, 1 << 40),
        ("train.checkpoint_interval", r.checkpoint_interval, 0, 1 << 40),
        ("train.stop_after", r.stop_after, 0, 1 << 40),
    ]
}

/// Ranges of rates and shares; the flag says whether the upper end itself is allowed.
fn rates(c: &Config) -> [(&'static str, f64, f64, f64, bool); 15] {
    let r = &c.train;
    [
        ("model.expansion", c.model.expansion, 0.01, 1_000.0, true),
        ("model.fixed_point_tolerance", c.model.fixed_point_tolerance, 0.0, 1.0, true),
        ("train.balance_loss_weight", r.balance_loss_weight, 0.0, 1e6, true),
        ("train.label_smoothing", r.label_smoothing, 0.0, 1.0, false),
        ("train.halt_loss_weight", r.halt_loss_weight, 0.0, 1e6, true),
        ("train.lr", r.lr, 0.0, 1e3, true),
        ("train.lr_min_ratio", r.lr_min_ratio, 0.0, 1.0, true),
        ("train.beta1", r.beta1, 0.0, 1.0, false),
        ("train.beta2", r.beta2, 0.0, 1.0, false),
        ("train.weight_decay", r.weight_decay, 0.0, 1e3, true),
        ("train.puzzle_emb_lr", r.puzzle_emb_lr, 0.0, 1e3, true),
        ("train.puzzle_emb_weight_decay", r.puzzle_emb_weight_decay, 0.0, 1e3, true),
        ("train.grad_clip", r.grad_clip, 0.0, 1e9, true),
        ("train.ema_rate", r.ema_rate, 0.0, 1.0, false),
        ("train.halt_exploration_prob", r.halt_exploration_prob, 0.0, 1.0, true),
    ]
}

/// The first thing wrong with the settings.
pub(super) fn first_fault(c: &Config) -> Result<(), Fault> {
    for (key, value, low, high) in whole_numbers(c) {
        if !(low..=high).contains(&value) {
            return fault(&[key], format!("{key} = {value} is out of range; give {low} to {high}"));
        }
    }
    for (key, value, low, high, closed) in rates(c) {
        let inside = value >= low && (value < high || closed && value == high);
        if !inside {
            let end = if closed { "" } else { " (excluded)" };
            return fault(&[key], format!("{key} = {value} is out of range; give {low} to {high}{end}"));
        }
    }
    model(c)?;
    recursion(c)?;
    data(c)?;
    train(c)
}

fn model(c: &Config) -> Result<(), Fault> {
    let m = &c.model;
    if !m.hidden_size.is_multiple_of(m.n_heads) {
        return fault(
            &["model.n_heads", "model.hidden_size"],
            format!(
                "model.n_heads = {} does not divide model.hidden_size = {}; give a divisor, e.g. {}",
                m.n_heads,
                m.hidden_size,
                divisor_below(m.hidden_size, m.n_heads)
            ),
        );
    }
    let head = m.hidden_size / m.n_heads;
    if m.positions == Positions::Rope {
        if m.mixing != Mixing::Attention {
            return fault(
                &["model.positions", "model.mixing"],
                "model.positions = \"rope\" rotates inside attention and would do nothing with model.mixing = \
                 \"mlp_t\"; give positions = \"none\" or \"learned\", or mixing = \"attention\"",
            );
        }
        if !head.is_multiple_of(2) {
            return fault(
                &["model.n_heads", "model.hidden_size", "model.positions"],
                format!(
                    "model.positions = \"rope\" needs an even head size, not {} / {} = {head}; change model.n_heads \
                     or model.hidden_size",
                    m.hidden_size, m.n_heads
                ),
            );
        }
    }
    if m.puzzle_emb_ndim > 0 && m.learned_prefix > 0 {
        return fault(
            &["model.puzzle_emb_ndim", "model.learned_prefix"],
            "model.puzzle_emb_ndim and model.learned_prefix both fill the positions in front; set one of them to 0",
        );
    }
    if m.puzzle_emb_ndim == 0 && m.puzzle_emb_len > 0 {
        return fault(
            &["model.puzzle_emb_len", "model.puzzle_emb_ndim"],
            "model.puzzle_emb_len needs a puzzle table; set model.puzzle_emb_ndim, or puzzle_emb_len = 0",
        );
    }
    if m.puzzle_emb_len > 0 && m.puzzle_emb_ndim > m.puzzle_emb_len * m.hidden_size {
        return fault(
            &["model.puzzle_emb_ndim", "model.puzzle_emb_len", "model.hidden_size"],
            format!(
                "model.puzzle_emb_ndim = {} does not fit {} positions of {} (model.puzzle_emb_len × hidden_size); \
                 give at most {}",
                m.puzzle_emb_ndim,
                m.puzzle_emb_len,
                m.hidden_size,
                m.puzzle_emb_len * m.hidden_size
            ),
        );
    }
    if m.experts > 0 && m.experts_per_token > m.experts {
        return fault(
            &["model.experts_per_token", "model.experts"],
            format!(
                "model.experts_per_token = {} is more than model.experts = {}; give 1 to {}",
                m.experts_per_token, m.experts, m.experts
            ),
        );
    }
    Ok(())
}

/// What recurs, how often, and what of it is differentiated.
fn recursion(c: &Config) -> Result<(), Fault> {
    let m = &c.model;
    if m.separate_nets && m.arch != Arch::Trm {
        return fault(
            &["model.separate_nets", "model.arch"],
            "model.separate_nets is a switch of model.arch = \"trm\" (hrm has two networks in any case); set it to false",
        );
    }
    let Some(recursion) = m.known_recursion() else {
        return fault(
            &["model.arch", "model.recursion"],
            "model.arch = \"own\" needs its recursion: a table [model.recursion], or model.recursion = \"FILE.toml\"",
        );
    };
    let name = recursion.name();
    if let Some((count, asked, steps)) = recursion.too_few_steps(m) {
        let key = if count == Count::HCycles { "model.h_cycles" } else { "model.l_cycles" };
        return fault(
            &[key, "model.arch", "model.recursion"],
            format!(
                "{key} = {asked} is more than the {steps} steps that the recursion {name} has for it; give 1 to {steps}"
            ),
        );
    }
    if !recursion.writes_answer(m) {
        return fault(
            &["model.h_cycles", "model.l_cycles", "model.recursion"],
            format!("the recursion {name} never comes to the step that writes its answer; raise h_cycles or l_cycles"),
        );
    }
    for (key, layers, count) in
        [("model.h_layers", m.h_layers, Count::HLayers), ("model.l_layers", m.l_layers, Count::LLayers)]
    {
        if layers > 0 && !recursion.networks().iter().any(|network| network.layers == count) {
            return fault(
                &[key, "model.arch", "model.recursion"],
                format!("{key} = {layers}, but no network of the recursion {name} goes by it; leave it 0"),
            );
        }
    }
    if let Some(mixing) = recursion.mixing().filter(|mixing| *mixing != m.mixing) {
        let mixing = if mixing == Mixing::Attention { "attention" } else { "mlp_t" };
        return fault(
            &["model.mixing", "model.arch", "model.recursion"],
            format!("the recursion {name} is meant for model.mixing = \"{mixing}\"; set that"),
        );
    }
    if recursion.needs_continue_loss() && !c.train.continue_loss {
        return fault(
            &["train.continue_loss", "model.arch", "model.recursion"],
            format!("the recursion {name} halts by comparing with the continue head; set train.continue_loss = true"),
        );
    }
    if !recursion.carries(m) && (c.train.halt_max_steps != 1 || c.train.continue_loss) {
        return fault(
            &["train.halt_max_steps", "train.continue_loss", "model.arch", "model.recursion"],
            format!(
                "the recursion {name} carries nothing from one supervision step to the next; set train.halt_max_steps = 1 \
                 and train.continue_loss = false"
            ),
        );
    }
    gradient(c, recursion)
}

/// Products of whole numbers of eight bits that are added up at most: their sum has 32 bits.
const INT8_SUMS: f64 = 65_536.0;

/// What is recorded, and whether whole detached cycles are left to iterate.
fn gradient(c: &Config, recursion: &Recursion) -> Result<(), Fault> {
    let m = &c.model;
    let (name, calls) = (recursion.name(), recursion.n_calls(m));
    if calls > MAX_CALLS {
        return fault(
            &["model.h_cycles", "model.l_cycles", "model.recursion"],
            format!("the recursion {name} makes {calls} calls a supervision step; make them at most {MAX_CALLS}"),
        );
    }
    let marked = m.gradient == Gradient::Marked;
    if marked != recursion.has_marks() {
        let why = match marked {
            true => format!("the recursion {name} marks no step as recorded; give full_cycle, one_step or last_k"),
            false => format!("the recursion {name} marks steps as recorded; give model.gradient = \"marked\""),
        };
        return fault(&["model.gradient", "model.arch", "model.recursion"], why);
    }
    if m.gradient == Gradient::LastK && m.last_k as u64 > calls {
        return fault(
            &["model.last_k", "model.h_cycles", "model.l_cycles", "model.gradient"],
            format!("model.last_k = {} is more than the {calls} calls there are; give 1 to {calls}", m.last_k),
        );
    }
    let mut detached = match m.gradient {
        Gradient::FullCycle => calls - recursion.n_last_cycle(m),
        Gradient::OneStep => calls.saturating_sub(2),
        Gradient::LastK => calls - m.last_k as u64,
        Gradient::Marked => {
            let unrolled = recursion.unrolled(m);
            let answers = unrolled.iter().rfind(|(call, _)| call.target == recursion.answer());
            if answers.is_none_or(|(_, recorded)| !recorded) {
                return fault(
                    &["model.gradient", "model.recursion"],
                    format!(
                        "the recursion {name} does not record the call that writes its answer last: nothing would learn"
                    ),
                );
            }
            unrolled.iter().position(|(_, recorded)| *recorded).map_or(calls, |first| first as u64)
        }
    };
    if c.train.detached_precision == DetachedPrecision::Int8 {
        // The longest sums that there are, SwiGLU's second product's among them.
        let width = m.hidden_size.max(c.task.seq_len + m.learned_prefix + m.puzzle_emb_len);
        let inner = m.expansion * width as f64 * 2.0 / 3.0 + m.inner_multiple as f64;
        if inner.max(width as f64) > INT8_SUMS {
            return fault(
                &["train.detached_precision", "model.hidden_size", "task.seq_len", "model.expansion"],
                format!(
                    "train.detached_precision = \"int8\" adds up to {INT8_SUMS} products and no more; this model adds {inner:.0} or so: \
                     make model.hidden_size or model.expansion smaller"
                ),
            );
        }
    }
    if m.fixed_point != FixedPoint::None {
        // The last pass of what is iterated is made once, recorded or not.
        let cycle = recursion.first_cycle(m).map(|(cycle, passes)| {
            detached = detached.min(cycle * (passes - 1));
            cycle
        });
        if cycle.is_none_or(|cycle| detached < cycle) {
            return fault(
                &[
                    "model.fixed_point",
                    "model.arch",
                    "model.h_cycles",
                    "model.last_k",
                    "model.gradient",
                    "model.recursion",
                ],
                "model.fixed_point iterates whole detached cycles and there is none; raise model.h_cycles, lower last_k, or \
                 set fixed_point = \"none\"",
            );
        }
        if c.train.detached_precision == DetachedPrecision::Int8 {
            return fault(
                &["train.detached_precision", "model.fixed_point"],
                "train.detached_precision = \"int8\" rounds what model.fixed_point compares, so that nothing might settle; set one \
                 of them to its default",
            );
        }
    }
    Ok(())
}

fn data(c: &Config) -> Result<(), Fault> {
    let d = &c.data;
    let puzzle = match game(&c.task.puzzle) {
        Ok(puzzle) => puzzle,
        Err(unknown) => return fault(&["task.puzzle"], format!("task.puzzle = {:?}: {unknown}", c.task.puzzle)),
    };
    match game(&d.generate) {
        Ok(generated) if generated.has_generator() => {}
        Ok(generated) => {
            let with = games().into_iter().filter(|game| game.has_generator()).map(|game| game.name());
            let with = with.collect::<Vec<_>>().join(", ");
            let name = generated.name();
            return fault(
                &["data.generate"],
                format!("data.generate = {name:?}: {name} has no generator; give one of {with}"),
            );
        }
        Err(unknown) => return fault(&["data.generate"], format!("data.generate = {:?}: {unknown}", d.generate)),
    }
    let games = games();
    for (key, value) in d.generator.iter() {
        let declared = games.iter().flat_map(|game| game.settings()).find(|setting| setting.key == key);
        let what = match declared {
            Some(setting) => setting.fault(value),
            None => Some("is a setting of no puzzle that is registered; leave it out".into()),
        };
        if let Some(what) = what {
            let key = format!("data.{key}");
            return fault(&[&key], format!("{key} = {value} {what}"));
        }
    }
    if d.augment == Augment::Online && matches!(puzzle.copies(), Copies::None) {
        return fault(
            &["data.augment", "task.puzzle"],
            format!(
                "data.augment = \"online\" needs a puzzle with known symmetries, not {}; give augment = \"stored\"",
                puzzle.name()
            ),
        );
    }
    if d.dir.contains('\0') {
        return fault(&["data.dir"], "data.dir holds a NUL character; give a folder");
    }
    Ok(())
}

fn train(c: &Config) -> Result<(), Fault> {
    let r = &c.train;
    if r.max_steps == 0 && r.epochs == 0 {
        return fault(
            &["train.max_steps", "train.epochs"],
            "train.max_steps and train.epochs are both 0; give one of them a value",
        );
    }
    if r.train_only == TrainOnly::PuzzleTable && c.model.puzzle_emb_ndim == 0 {
        return fault(
            &["train.train_only", "model.puzzle_emb_ndim"],
            "train.train_only = \"puzzle_table\" needs a puzzle table: without one (model.puzzle_emb_ndim = 0) nothing would \
             learn; set train_only = \"all\"",
        );
    }
    if r.stop_after > 0 && (r.keep_best == KeepBest::Off || r.eval_interval == 0) {
        return fault(
            &["train.stop_after", "train.keep_best", "train.eval_interval"],
            "train.stop_after counts evaluations that are no better by train.keep_best; set keep_best, e.g. \
             \"exact_accuracy\", and an eval_interval above 0",
        );
    }
    if r.eval_split.contains(['/', '\\', '\0']) {
        return fault(
            &["train.eval_split"],
            format!("train.eval_split = {:?} cannot be the name of a split; give e.g. \"valid\"", r.eval_split),
        );
    }
    if r.label_smoothing > 0.0 && r.loss != Loss::SoftmaxCrossEntropy {
        return fault(
            &["train.label_smoothing", "train.loss"],
            "train.label_smoothing works with softmax only; set label_smoothing = 0, or loss = \
             \"softmax_cross_entropy\"",
        );
    }
    for (lr_key, lr, decay_key, decay) in [
        ("train.lr", r.lr, "train.weight_decay", r.weight_decay),
        ("train.puzzle_emb_lr", r.puzzle_emb_lr, "train.puzzle_emb_weight_decay", r.puzzle_emb_weight_decay),
    ] {
        if lr * decay > 1.0 {
            return fault(
                &[lr_key, decay_key],
                format!("{lr_key} × {decay_key} = {} turns weights around at every update; keep it ≤ 1", lr * decay),
            );
        }
    }
    if r.gradient_groups > r.batch_size {
        return fault(
            &["train.gradient_groups", "train.batch_size"],
            format!(
                "train.gradient_groups = {} is more than the {} sequences of a batch (train.batch_size); give at \
                 most that, or 0 for the default",
                r.gradient_groups, r.batch_size
            ),
        );
    }
    Ok(())
}

fn divisor_below(n: usize, at_most: usize) -> usize {
    (1..=at_most.min(n)).rev().find(|d| n.is_multiple_of(*d)).unwrap_or(1)
}

/// A refusal blamed on `keys`.
pub(super) fn fault(keys: &[&str], message: impl Into<String>) -> Result<(), Fault> {
    let keys = keys.iter().map(|&key| key.to_owned()).collect();
    Err(Fault { keys, message: message.into() })
}
