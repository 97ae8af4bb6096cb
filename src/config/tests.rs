use std::io::Write as _;

use proptest::prelude::*;

use super::*;
use crate::error::Result;

fn with(sets: &[&str]) -> Result<Config> {
    Config::resolve(None, None, &sets.iter().map(|s| (*s).to_owned()).collect::<Vec<_>>())
}

fn from_file(text: &[u8], preset: Option<&str>) -> Result<Config> {
    let mut file = tempfile::Builder::new().prefix("x").suffix(".toml").tempfile().expect("temporary file");
    file.write_all(text).expect("write");
    Config::resolve(preset, Some(file.path()), &[])
}

#[test]
fn every_preset_is_valid_and_described() {
    for preset in presets() {
        Config::preset(preset.name).unwrap_or_else(|e| panic!("{}: {e}", preset.name));
        assert!(!preset.description.is_empty() && !preset.description.contains('\n'), "{}", preset.name);
    }
    assert_eq!(presets()[0].name, DEFAULT_PRESET);
}

#[test]
fn leaf_keys_are_unique_across_sections() {
    let table = toml::Table::try_from(Config::default()).expect("table");
    let mut leaves: Vec<_> = table.values().flat_map(|v| v.as_table().expect("section").keys()).collect();
    let all = leaves.len();
    leaves.sort();
    leaves.dedup();
    assert_eq!(leaves.len(), all);
}

#[test]
fn the_published_presets_have_the_published_settings() {
    let c = Config::preset("sudoku-extreme").expect("preset");
    assert_eq!((c.model.h_cycles, c.model.l_cycles, c.model.n_layers), (3, 6, 2));
    assert_eq!((c.model.hidden_size, c.model.n_heads, c.model.inner_multiple), (512, 8, 256));
    assert_eq!((c.model.puzzle_emb_ndim, c.model.puzzle_emb_len, c.model.learned_prefix), (512, 16, 0));
    assert_eq!((c.train.epochs, c.train.max_steps, c.train.batch_size), (50_000, 0, 768));
    assert_eq!((c.train.lr, c.train.weight_decay, c.train.puzzle_emb_lr), (1e-4, 1.0, 1e-4));
    assert_eq!((c.train.optimizer, c.train.loss), (OptimizerName::AdamAtan2, Loss::StablemaxCrossEntropy));
    assert_eq!((c.train.lr_warmup_steps, c.train.lr_min_ratio, c.train.ema_rate), (2000, 1.0, 0.999));
    let att = Config::preset("sudoku-extreme-att").expect("preset");
    let differing = c.differences(&att);
    assert_eq!(
        differing,
        [r#"model.mixing: "mlp_t" -> "attention""#.to_owned(), r#"model.positions: "none" -> "rope""#.to_owned()]
    );
}

#[test]
fn layers_apply_in_order_and_bare_keys_work() {
    let c = from_file(b"preset = \"sudoku-4x4\"\n[train]\nlr = 1\nbatch_size = 0x10\n", None).expect("file");
    assert_eq!((c.train.lr, c.train.batch_size, c.model.hidden_size), (1.0, 16, 64));
    let c = with(&["h_cycles=4", "model.h_cycles = 5", "data.dir=/tmp/a b", "puzzle='tokens'", "augment=stored"]);
    let c = c.expect("sets");
    assert_eq!((c.model.h_cycles, c.data.dir.as_str(), c.task.puzzle.as_str()), (5, "/tmp/a b", "tokens"));
    let c = from_file(b"[model]\nh_cycles = 4\n", Some("sudoku-extreme")).expect("preset under a file");
    assert_eq!((c.model.h_cycles, c.model.hidden_size), (4, 512));
}

#[test]
fn differences_name_the_keys() {
    let (a, b) = (Config::default(), with(&["lr=0.5", "seed=7"]).expect("sets"));
    assert_eq!(a.differences(&b), ["train.lr: 0.002 -> 0.5", "train.seed: 0 -> 7"]);
    assert!(a.differences(&a.clone()).is_empty());
}

#[test]
fn a_run_from_before_a_setting_goes_on_by_the_rule_it_had() {
    let whole = Config::default().to_toml();
    let later = ["ema_warmup", "train_only", "eval_split", "keep_best", "stop_after", "detached_precision"];
    let without = |keys: &[&str]| -> String {
        let is_kept = |line: &&str| !keys.iter().any(|key| line.starts_with(&format!("{key} = ")));
        whole.lines().filter(is_kept).map(|line| format!("{line}\n")).collect()
    };
    assert_eq!(without(&later).lines().count() + later.len(), whole.lines().count());
    let old = from_file(without(&later).as_bytes(), None).expect("an old run's");
    assert_eq!((old.train.ema_warmup, old.train.eval_split.as_str()), (false, "test"));
    assert_eq!((old.train.keep_best, old.train.train_only), (KeepBest::Off, TrainOnly::All));
    let between = from_file(without(&["eval_split"]).as_bytes(), None).expect("a run from in between");
    assert_eq!((between.train.ema_warmup, between.train.eval_split.as_str()), (true, "test"));
    // A file of differences is none: what it does not say, the preset does.
    let differences = from_file(without(&["ema_warmup", "lr"]).as_bytes(), None).expect("differences");
    assert!(differences.train.ema_warmup);
}

/// `--set` arguments that are refused, and words the line must hold.
#[test]
fn bad_set_arguments_are_refused_in_one_line() {
    let cases: &[(&[&str], &[&str])] = &[
        (&["hiden_size=3"], &["--set `hiden_size=3`", "model.hidden_size"]),
        (&["modle.h_cycles=3"], &["unknown setting `modle.h_cycles`", "model.h_cycles"]),
        (&["h_cycles"], &["key=value"]),
        (&["=3"], &["unknown setting"]),
        (&["preset=sudoku-9x9"], &["--preset"]),
        (&["h_cycles=0"], &["model.h_cycles = 0", "1 to"]),
        (&["l_cycles=0"], &["model.l_cycles = 0"]),
        (&["h_cycles=two"], &["whole number"]),
        (&["h_cycles=2.5"], &["whole number"]),
        (&["h_cycles=-1"], &["negative"]),
        (&["seed=9223372036854775808"], &["63 bits"]),
        (&["halt_max_steps=4294967296"], &["train.halt_max_steps"]),
        (&["halt_max_steps=0"], &["train.halt_max_steps = 0"]),
        (&["lr=-0.1"], &["train.lr = -0.1"]),
        (&["lr=nan"], &["train.lr = NaN"]),
        (&["lr=inf"], &["train.lr = inf"]),
        (&["lr=fast"], &["number"]),
        (&["weight_decay=-1"], &["train.weight_decay"]),
        (&["lr=1", "weight_decay=2"], &["train.lr × train.weight_decay", "--set `weight_decay=2`"]),
        (&["ema=yes"], &["true or false"]),
        (&["mixing=conv"], &["attention", "mlp_t"]),
        (&["arch=hrn"], &["trm"]),
        (&["n_heads=5"], &["does not divide", "e.g. 4"]),
        (&["n_heads=0"], &["model.n_heads = 0"]),
        (&["n_heads=3", "hidden_size=100"], &["--set `hidden_size=100`", "does not divide"]),
        (&["n_heads=32", "mixing=attention", "positions=rope"], &["even head size"]),
        (&["positions=rope"], &["attention"]),
        (&["beta1=1"], &["train.beta1 = 1", "excluded"]),
        (&["beta2=1.5"], &["train.beta2"]),
        (&["ema_rate=1"], &["train.ema_rate"]),
        (&["halt_exploration_prob=1.01"], &["train.halt_exploration_prob"]),
        (&["lr_min_ratio=2"], &["train.lr_min_ratio"]),
        (&["batch_size=0"], &["train.batch_size = 0"]),
        (&["gradient=last_k", "last_k=0"], &["model.last_k = 0"]),
        (&["gradient=last_k", "last_k=9"], &["model.last_k = 9", "8 calls"]),
        (&["puzzle_emb_ndim=96"], &["model.learned_prefix"]),
        (&["learned_prefix=0", "puzzle_emb_len=3"], &["puzzle table"]),
        (&["learned_prefix=0", "puzzle_emb_len=1", "puzzle_emb_ndim=97"], &["at most 96"]),
        (&["label_smoothing=0.1", "loss=stablemax_cross_entropy"], &["softmax"]),
        (&["max_steps=0", "epochs=0"], &["both 0"]),
        (&["train_only=puzzle_table"], &["train.train_only", "puzzle_emb_ndim = 0"]),
        (&["train_only=heads"], &["all", "puzzle_table"]),
        (&["keep_best=loss"], &["exact_accuracy", "token_accuracy"]),
        (&["stop_after=3"], &["train.keep_best"]),
        (&["stop_after=3", "keep_best=valid", "eval_interval=0"], &["eval_interval"]),
        (&["eval_split=a/b"], &["train.eval_split"]),
        (&["gradient_groups=33"], &["train.gradient_groups = 33"]),
        (&["detached_precision=int4"], &["same", "int8"]),
        (
            &["detached_precision=int8", "hidden_size=60000"],
            &["train.detached_precision", "65536", "model.hidden_size"],
        ),
        (&["detached_precision=int8", "fixed_point=plain"], &["train.detached_precision", "model.fixed_point"]),
        (&["sudoku_size=5"], &["--set `sudoku_size=5`", "data.sudoku_size = 5", "4, 6 or 9"]),
        (&["maze_size=2"], &["data.maze_size = 2", "3 to 128"]),
        (&["unique_path=3"], &["data.unique_path", "true or false"]),
        (&["generate=chess"], &["data.generate", "sudoku, arc, maze"]),
        (&["generate=grid"], &["data.generate", "no generator", "sudoku"]),
        (&["puzzle=chess"], &["tokens"]),
        (&["puzzle=tokens"], &["online"]),
        (&["hidden_size=999999999999"], &["model.hidden_size"]),
        (&["vocab_size=1"], &["task.vocab_size"]),
        (&["train_puzzles=0"], &["data.train_puzzles"]),
        (&["expansion=0"], &["model.expansion"]),
        (&["a\nb=1"], &["unknown setting"]),
    ];
    for (sets, words) in cases {
        let line = with(sets).expect_err(&format!("{sets:?} must be refused")).to_string();
        assert!(!line.contains('\n'), "{sets:?}: {line}");
        for word in *words {
            assert!(line.contains(word), "{sets:?}: no {word:?} in: {line}");
        }
    }
}

/// Files that are refused, and words the line must hold (`:N:` is the line number).
#[test]
fn bad_files_are_refused_with_file_and_line() {
    let cases: &[(&[u8], &[&str])] = &[
        (b"[model]\n\nhiden_size = 3\n", &[".toml:3:", "model.hidden_size"]),
        (b"[modle]\nh_cycles = 3\n", &[".toml:1:", "`model`"]),
        (b"model = 3\n", &[".toml:1:", "[model]"]),
        (b"lr = 3\n", &[".toml:1:", "[train]"]),
        (b"\npreset = \"sudoku-7x7\"\n", &[".toml:2:", "unknown preset", "did you mean `sudoku-"]),
        (b"preset = 3\n", &[".toml:1:", "needs a string"]),
        (b"[model]\nh_cycles = \"2\"\n", &[".toml:2:", "model.h_cycles", "whole number"]),
        (b"[model]\nh_cycles = 2.0\n", &[".toml:2:", "whole number"]),
        (b"[model]\nh_cycles = [2]\n", &[".toml:2:", "plain value"]),
        (b"[model]\nh_cycles = -2\n", &[".toml:2:", "negative"]),
        (b"[model]\nh_cycles = 0\n", &[".toml:2:", "model.h_cycles = 0"]),
        (b"[train]\nlr = true\n", &[".toml:2:", "needs a number"]),
        (b"[train]\nlr = -1e-3\n", &[".toml:2:", "train.lr"]),
        (b"[train]\nlr = nan\n", &[".toml:2:", "NaN"]),
        (b"[train]\nloss = \"hinge\"\n", &[".toml:2:", "softmax_cross_entropy"]),
        (b"[train]\nseed = 99999999999999999999\n", &[".toml:2:", "63 bits"]),
        (b"[train]\nlr = 1\nlr = 2\n", &[".toml:3:", "not TOML"]),
        (b"[train\n", &[".toml:1:", "not TOML"]),
        (b"[model.h_cycles]\nx = 1\n", &["model.h_cycles", "plain value"]),
        (b"\xff\xfe", &["not UTF-8"]),
    ];
    for (text, words) in cases {
        let shown = String::from_utf8_lossy(text);
        let line = from_file(text, None).expect_err(&format!("{shown:?} must be refused")).to_string();
        assert!(!line.contains('\n'), "{shown:?}: {line}");
        for word in *words {
            assert!(line.contains(word), "{shown:?}: no {word:?} in: {line}");
        }
    }
    for (text, start) in
        [("preset = \"nowhere\"\n", "unknown preset"), ("[train]\ntemperature = 1\n", "unknown setting")]
    {
        let line = from_file(text.as_bytes(), None).expect_err("nothing is called so").to_string();
        assert!(line.contains(start) && !line.contains("did you mean"), "{line}");
    }
    assert!(from_file(b"preset = \"sudoku-4x4\"\n", Some("sudoku-9x9")).is_err());
    assert!(from_file(&vec![b'#'; 2 << 20], None).unwrap_err().to_string().contains("1 MiB"));
    assert!(Config::resolve(Some("sudoku-6x7"), None, &[]).unwrap_err().to_string().contains("sudoku-6x6"));
    let missing = Config::resolve(None, Some("/no/such/file.toml".as_ref()), &[]).unwrap_err();
    assert!(missing.to_string().starts_with("/no/such/file.toml"), "{missing}");
}

proptest! {
    #[test]
    fn writing_and_reading_settings_is_the_identity(
        lr in 0.0..1.0f64, decay in 0.0..1.0f64, rate in 0.0..1.0f64, tiny in 0.0..1e-300f64,
        seed in 0..=i64::MAX as u64, dir in "[ -~äλ\\n]{0,12}", which in 0..5usize,
    ) {
        let mut c = Config::preset(presets()[which].name).expect("preset");
        c.train.lr = lr;
        c.train.weight_decay = decay;
        c.train.ema_rate = rate;
        c.train.halt_loss_weight = tiny;
        c.train.seed = seed;
        c.data.dir = dir;
        let back = from_file(c.to_toml().as_bytes(), None).expect("own output is valid");
        prop_assert_eq!(back.train.halt_loss_weight.to_bits(), c.train.halt_loss_weight.to_bits());
        prop_assert_eq!(back.train.lr.to_bits(), c.train.lr.to_bits());
        prop_assert_eq!(back, c);
    }

    #[test]
    fn no_settings_text_panics(text in "[\\[\\]a-z_.=\"0-9\\n -]{0,60}", set in ".{0,30}") {
        let _ = from_file(text.as_bytes(), None);
        let _ = Config::resolve(None, None, &[set]);
    }
}
