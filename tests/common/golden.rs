//! The golden vectors: reading a case (SPEC "Golden vectors").

use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use trm::config::{Arch, Config, Gradient, Loss, Mixing, Optimizer, Positions, PrecisionSetting};
use trm::dataset::Examples;
use trm::engine::{PuzzleTable, Weights};

/// One case: its JSON, and the bytes of its tensors.
pub struct Golden {
    pub name: String,
    pub case: Value,
    pub bytes: Vec<u8>,
}

impl Golden {
    /// All cases in the folder named by `TRM_GOLDEN` (default `tests/golden`), by name.
    pub fn all() -> Vec<Self> {
        let folder = std::env::var_os("TRM_GOLDEN")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), PathBuf::from);
        let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
            .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.extension().is_some_and(|e| e == "json"))
            .collect();
        paths.sort();
        assert!(!paths.is_empty(), "no case in {}", folder.display());
        let read = |path: &PathBuf| {
            let case: Value = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
            let bytes = std::fs::read(path.with_extension("safetensors")).unwrap();
            Self { name: case["case"].as_str().unwrap().to_owned(), case, bytes }
        };
        paths.iter().map(read).collect()
    }
}

/// The configuration of a case, or `None` when its model is not built.
pub fn config_of(case: &Value) -> Option<Config> {
    let c = &case["config"];
    let size = |key: &str| c[key].as_u64().unwrap() as usize;
    let mut config = Config::preset("sudoku-extreme").unwrap();
    let arch = case["arch"].as_str().unwrap();
    config.model.arch = match arch {
        "trm" => Arch::Trm,
        "hrm" => Arch::Hrm,
        "singlez" => Arch::Singlez,
        "hier6" => Arch::Hier6,
        "transformer" => Arch::Transformer,
        _ => return None,
    };
    let m = &mut config.model;
    (m.h_cycles, m.l_cycles) = (size("H_cycles"), size("L_cycles"));
    // Each of the published models reads the depths of the networks it has.
    (m.h_layers, m.l_layers) = match m.arch {
        Arch::Hrm => (size("H_layers"), size("L_layers")),
        Arch::Transformer => (size("H_layers"), 0),
        _ => (0, size("L_layers")),
    };
    if m.arch == Arch::Hrm {
        m.gradient = Gradient::OneStep;
    }
    (m.hidden_size, m.n_heads) = (size("hidden_size"), size("num_heads"));
    m.expansion = c["expansion"].as_f64().unwrap();
    m.mixing = if c["mlp_t"].as_bool().unwrap() { Mixing::MlpT } else { Mixing::Attention };
    m.positions = match c["pos_encodings"].as_str().unwrap() {
        "none" => Positions::None,
        "learned" => Positions::Learned,
        "rope" => Positions::Rope,
        other => panic!("positions {other}"),
    };
    (m.puzzle_emb_ndim, m.puzzle_emb_len) = (size("puzzle_emb_ndim"), size("puzzle_emb_len"));
    config.task.seq_len = size("seq_len");
    config.task.vocab_size = size("vocab_size");
    config.task.num_puzzle_identifiers = size("num_puzzle_identifiers");
    let t = &mut config.train;
    t.precision = PrecisionSetting::F32;
    t.batch_size = size("batch_size");
    t.loss = match case["loss"].as_str().unwrap() {
        "stablemax_cross_entropy" => Loss::StablemaxCrossEntropy,
        "softmax_cross_entropy" => Loss::SoftmaxCrossEntropy,
        other => panic!("loss {other}"),
    };
    t.optimizer = match case["optimizer"].as_str().unwrap() {
        "adam_atan2" => Optimizer::AdamAtan2,
        "adamw" => Optimizer::Adamw,
        other => panic!("optimizer {other}"),
    };
    t.lr = case["lr"].as_f64().unwrap();
    t.puzzle_emb_lr = case["puzzle_emb_lr"].as_f64().unwrap();
    (t.beta1, t.beta2) = (case["betas"][0].as_f64().unwrap(), case["betas"][1].as_f64().unwrap());
    t.weight_decay = case["weight_decay"].as_f64().unwrap();
    t.puzzle_emb_weight_decay = case["puzzle_emb_weight_decay"].as_f64().unwrap();
    (t.ema, t.ema_rate) = (true, case["ema_rate"].as_f64().unwrap());
    t.lr_warmup_steps = case["lr_warmup_steps"].as_u64().unwrap();
    t.lr_min_ratio = case["lr_min_ratio"].as_f64().unwrap();
    t.halt_max_steps = size("halt_max_steps") as u32;
    t.halt_exploration_prob = c["halt_exploration_prob"].as_f64().unwrap();
    t.continue_loss = arch == "hrm" || arch == "trm" && !c["no_ACT_continue"].as_bool().unwrap();
    // Two groups, so that the sum over the tree is part of what is compared.
    t.gradient_groups = 2;
    Some(config)
}

/// The incoming batch of one step of a case.
pub struct Batch {
    inputs: Vec<f64>,
    labels: Vec<f64>,
    ids: Vec<f64>,
}

impl Batch {
    /// Of that step.
    pub fn of(tensors: &SafeTensors, step: usize) -> Self {
        let read = |name: &str| read(tensors, &format!("step{step}.batch.{name}"));
        Self { inputs: read("inputs"), labels: read("labels"), ids: read("puzzle_identifiers") }
    }
}

impl Examples for Batch {
    fn next_batch(&mut self) {}

    fn write(&mut self, slot: usize, inputs: &mut [u8], labels: &mut [i32]) -> u32 {
        let from = slot * inputs.len();
        for (i, (input, label)) in inputs.iter_mut().zip(labels).enumerate() {
            *input = self.inputs[from + i] as u8;
            *label = self.labels[from + i] as i32;
        }
        self.ids[slot] as u32
    }
}

/// f32 in f64.
pub fn wide(values: &[f32]) -> Vec<f64> {
    values.iter().map(|&x| f64::from(x)).collect()
}

/// All weights, the puzzle table's included, as they are in a case under `prefix`.
pub fn fill_weights(weights: &mut Weights, tensors: &SafeTensors, prefix: &str) {
    weights.set(|name, values| fill(values, &read(tensors, &format!("{prefix}.{name}")))).unwrap();
    if let Some(table) = &mut weights.table {
        let table = std::sync::Arc::make_mut(table);
        let values = read(tensors, &format!("{prefix}.{}", PuzzleTable::NAME));
        for (id, row) in (0..).zip(values.chunks_exact(table.ndim())) {
            fill(table.row_mut(id, 1), row).unwrap();
        }
    }
}

fn fill(target: &mut [f32], source: &[f64]) -> Result<(), ()> {
    assert_eq!(target.len(), source.len());
    for (t, &s) in target.iter_mut().zip(source) {
        *t = s as f32;
    }
    Ok(())
}

/// A tensor of a case, in f64.
pub fn read(tensors: &SafeTensors, name: &str) -> Vec<f64> {
    decode(&tensors.tensor(name).unwrap_or_else(|e| panic!("{name}: {e}")))
}

/// A tensor of any type, in f64.
pub fn decode(view: &safetensors::tensor::TensorView) -> Vec<f64> {
    let data = view.data();
    match view.dtype() {
        Dtype::F32 => data.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
        Dtype::I32 => data.chunks_exact(4).map(|b| f64::from(i32::from_le_bytes(b.try_into().unwrap()))).collect(),
        Dtype::U8 => data.iter().map(|&b| f64::from(b)).collect(),
        other => panic!("{other:?} in a golden file"),
    }
}
