//! Settings that are valid and cannot have the effect that their names promise, in the run at hand.

use std::collections::BTreeSet;

use super::{Config, DetachedPrecision, FixedPoint, Gradient, ModelConfig, TrainOnly};
use crate::puzzle::game;

/// What the data make of a run.
#[derive(Clone, Copy, Debug)]
pub struct RunShape {
    /// Updates of the run.
    pub updates: u64,
    /// Examples that an epoch gives.
    pub epoch_examples: usize,
    /// Puzzles that an evaluation in training can take; 0: there is no split for that.
    pub eval_puzzles: usize,
}

/// One line for each setting without the effect that its name promises: what it is, why, what to do. Of most settings only those
/// in `said` (`section.key`), which somebody has given for this run: what a preset leaves as it was is no news.
pub fn without_effect(config: &Config, run: RunShape, said: &BTreeSet<String>) -> Vec<String> {
    let (m, t, d) = (&config.model, &config.train, &config.data);
    let RunShape { updates, epoch_examples, eval_puzzles } = run;
    let mut lines = Vec::new();
    if t.lr_warmup_steps >= updates {
        lines.push(format!(
            "train.lr_warmup_steps = {}: the run has {updates} updates, so the learning rate never reaches train.lr; make it smaller",
            t.lr_warmup_steps
        ));
    }
    if t.batch_size > epoch_examples {
        lines.push(format!(
            "train.batch_size = {}: an epoch has {epoch_examples} examples, so every update takes some of them several times; \
             give at most that",
            t.batch_size
        ));
    }
    if m.experts > 1 && m.experts_per_token == m.experts {
        lines.push(format!(
            "model.experts_per_token = {}: every position goes to every expert, and nothing is chosen; make it smaller than \
             model.experts",
            m.experts_per_token
        ));
    }
    let intervals = [
        ("train.eval_interval", t.eval_interval, "evaluates"),
        ("train.checkpoint_interval", t.checkpoint_interval, "saves"),
    ];
    for (key, interval, does) in intervals {
        if interval > updates && said.contains(key) {
            lines.push(format!(
                "{key} = {interval}: the run has {updates} updates, so it {does} at its end only; make it smaller, or 0 to say so"
            ));
        }
    }
    if eval_puzzles == 0 && t.eval_interval > 0 && said.contains("train.eval_interval") {
        lines.push(format!(
            "train.eval_interval = {}: the data set has no split to evaluate on; leave it out",
            t.eval_interval
        ));
    }
    if t.eval_puzzles > eval_puzzles && eval_puzzles > 0 && said.contains("train.eval_puzzles") {
        lines.push(format!(
            "train.eval_puzzles = {}: the split that is evaluated has {eval_puzzles}; give at most that, or 0 for all",
            t.eval_puzzles
        ));
    }
    let from_folder = format!("the data come from {}", d.dir);
    let is_read = !d.dir.is_empty();
    for (key, idle, why) in [
        ("train.epochs", t.max_steps > 0, "train.max_steps says how long the run is"),
        (
            "train.detached_precision",
            !has_detached_calls(m) && t.detached_precision != DetachedPrecision::Same,
            "every call of the recursion carries gradient",
        ),
        ("train.halt_exploration_prob", !t.act, "train.act = false lets nothing halt early"),
        ("train.halt_exploration_prob", t.act && t.halt_max_steps == 1, "train.halt_max_steps is 1"),
        ("train.ema_rate", !t.ema, "train.ema is false"),
        (
            "train.lr",
            t.train_only == TrainOnly::PuzzleTable,
            "train.train_only = \"puzzle_table\" leaves the weights as they are",
        ),
        ("train.puzzle_emb_lr", m.puzzle_emb_ndim == 0, "there is no puzzle table (model.puzzle_emb_ndim = 0)"),
        (
            "train.puzzle_emb_weight_decay",
            m.puzzle_emb_ndim == 0,
            "there is no puzzle table (model.puzzle_emb_ndim = 0)",
        ),
        ("train.balance_loss_weight", m.experts == 0, "there are no experts (model.experts = 0)"),
        ("model.experts_per_token", m.experts == 0, "there are no experts (model.experts = 0)"),
        ("model.last_k", m.gradient != Gradient::LastK, "only model.gradient = \"last_k\" asks for it"),
        ("model.fixed_point_tolerance", m.fixed_point == FixedPoint::None, "model.fixed_point is \"none\""),
        ("model.h_cycles", !counts(m, |m| &mut m.h_cycles), "the recursion makes the same calls whatever it is"),
        ("model.l_cycles", !counts(m, |m| &mut m.l_cycles), "the recursion makes the same calls whatever it is"),
        ("data.generate", is_read, from_folder.as_str()),
        ("data.train_puzzles", is_read, &from_folder),
        ("data.test_puzzles", is_read, &from_folder),
        ("data.data_seed", is_read, &from_folder),
    ] {
        if idle && said.contains(key) {
            lines.push(format!("{key} has no effect: {why}; leave it out"));
        }
    }
    let generator = game(&d.generate).map_or(&[][..], |game| game.settings());
    for (key, _) in d.generator.iter() {
        let why = match is_read {
            true => from_folder.clone(),
            false if generator.iter().any(|setting| setting.key == key) => continue,
            false => format!("it is no setting of {}, which is generated", d.generate),
        };
        let key = format!("data.{key}");
        if said.contains(&key) {
            lines.push(format!("{key} has no effect: {why}; leave it out"));
        }
    }
    lines
}

/// Whether some call of the recursion carries no gradient.
fn has_detached_calls(m: &ModelConfig) -> bool {
    let (recursion, calls) = (m.recursion(), m.recursion().n_calls(m));
    match m.gradient {
        Gradient::FullCycle => calls > recursion.n_last_cycle(m),
        Gradient::OneStep => calls > 2,
        Gradient::LastK => calls > m.last_k as u64,
        Gradient::Marked => recursion.unrolled(m).iter().any(|(_, recorded)| !recorded),
    }
}

/// Whether the number of calls goes by this count.
fn counts(model: &ModelConfig, count: impl Fn(&mut ModelConfig) -> &mut usize) -> bool {
    let recursion = model.recursion();
    let with = |n: usize| {
        let mut other = model.clone();
        *count(&mut other) = n;
        recursion.n_calls(&other)
    };
    with(1) != with(2)
}

#[cfg(test)]
mod tests {
    use super::super::presets;
    use super::*;

    /// A run as long as its preset's, on as many puzzles.
    fn shape(config: &Config) -> RunShape {
        let examples = config.data.train_puzzles;
        let of_epochs = config.train.epochs * examples as u64 / config.train.batch_size as u64;
        let updates = if config.train.max_steps > 0 { config.train.max_steps } else { of_epochs };
        RunShape { updates, epoch_examples: examples, eval_puzzles: config.data.test_puzzles }
    }

    fn lines(preset: &str, sets: &[&str]) -> Vec<String> {
        let sets: Vec<String> = sets.iter().map(|&set| set.to_owned()).collect();
        let config = Config::resolve(Some(preset), None, &sets).expect("settings");
        without_effect(&config, shape(&config), &Config::said(Some(preset), None, &sets).expect("settings"))
    }

    #[test]
    fn a_setting_that_cannot_do_what_it_says_is_named_with_what_to_do() {
        for (sets, key) in [
            (&["max_steps=50"][..], "train.lr_warmup_steps = 50"),
            (&["train_puzzles=20"], "train.batch_size = 32"),
            (&["experts=2", "experts_per_token=2"], "model.experts_per_token = 2"),
            (&["eval_interval=5000"], "train.eval_interval = 5000"),
            (&["checkpoint_interval=1201"], "train.checkpoint_interval = 1201"),
            (&["eval_puzzles=501"], "train.eval_puzzles = 501"),
            (&["epochs=3"], "train.epochs has no effect"),
            (&["act=false", "halt_exploration_prob=0.2"], "train.halt_exploration_prob has no effect"),
            (&["halt_max_steps=1", "halt_exploration_prob=0.2"], "train.halt_exploration_prob has no effect"),
            (&["h_cycles=1", "detached_precision=int8"], "train.detached_precision has no effect"),
            (&["ema=false", "ema_rate=0.9"], "train.ema_rate has no effect"),
            (
                &["train_only=puzzle_table", "learned_prefix=0", "puzzle_emb_ndim=96", "lr=0.5"],
                "train.lr has no effect",
            ),
            (&["puzzle_emb_lr=0.5"], "train.puzzle_emb_lr has no effect"),
            (&["puzzle_emb_weight_decay=0.5"], "train.puzzle_emb_weight_decay has no effect"),
            (&["balance_loss_weight=0.5"], "train.balance_loss_weight has no effect"),
            (&["experts_per_token=1"], "model.experts_per_token has no effect"),
            (&["last_k=2"], "model.last_k has no effect"),
            (&["fixed_point_tolerance=0.1"], "model.fixed_point_tolerance has no effect"),
            (
                &["arch=transformer", "continue_loss=true", "mixing=attention", "l_cycles=5"],
                "model.l_cycles has no effect",
            ),
            (&["maze_size=9"], "data.maze_size has no effect: it is no setting of sudoku"),
            (&["data.dir=sets/mine", "sudoku_size=4"], "data.sudoku_size has no effect: the data come from sets/mine"),
            (&["data.dir=sets/mine", "train_puzzles=4000"], "data.train_puzzles has no effect"),
        ] {
            let lines = lines("sudoku-6x6", sets);
            assert!(lines.len() == 1 && lines[0].starts_with(key) && !lines[0].contains('\n'), "{sets:?}: {lines:?}");
            assert!(lines[0].contains("; "), "{sets:?}: what to do: {lines:?}");
        }
        let config = Config::default();
        let untested = RunShape { eval_puzzles: 0, ..shape(&config) };
        let said = BTreeSet::from(["train.eval_interval".to_owned()]);
        assert_eq!(without_effect(&config, untested, &said).len(), 1);
    }

    #[test]
    fn settings_that_do_what_they_say_are_not_named() {
        for sets in [
            &["max_steps=51"][..],
            &["experts=4", "balance_loss_weight=0.1"],
            &["gradient=last_k", "last_k=2"],
            &["fixed_point=plain", "fixed_point_tolerance=0.1"],
            &["max_steps=100"],
            &["detached_precision=int8"],
            &["eval_interval=0", "checkpoint_interval=0", "max_steps=60"],
            &["eval_puzzles=500", "h_cycles=3", "l_cycles=2", "sudoku_size=4", "seq_len=16", "vocab_size=6"],
            &["max_steps=0", "epochs=20"],
        ] {
            assert_eq!(lines("sudoku-6x6", sets), [""; 0], "{sets:?}");
        }
    }

    #[test]
    fn no_preset_has_anything_to_say_on_its_own_data_nor_has_a_stored_run_of_it_old_or_new() {
        for preset in presets() {
            assert_eq!(lines(preset.name, &[]), [""; 0], "{}", preset.name);
            let config = Config::preset(preset.name).expect("valid");
            let dir = tempfile::tempdir().expect("temporary folder");
            let file = dir.path().join("config.toml");
            let stored = config.to_toml();
            let is_newer = |line: &&str| line.starts_with("eval_split") || line.starts_with("keep_best");
            let older = stored.lines().filter(|line| !is_newer(line)).collect::<Vec<_>>().join("\n");
            for text in [stored.as_str(), &older] {
                std::fs::write(&file, text).expect("write");
                let said = Config::said(None, Some(&file), &[]).expect("settings");
                assert_eq!(said, BTreeSet::new(), "{}", preset.name);
                assert_eq!(without_effect(&config, shape(&config), &said), [""; 0], "{}", preset.name);
            }
        }
    }
}
