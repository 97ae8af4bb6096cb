//! The golden vectors: reading a case, and who judges a figure (specification, "Golden vectors").
//!
//! f64 is the judge. A case `<name>` has two pairs of files: `<name>.json` and `.safetensors` hold what the published code
//! computed in f32, `<name>.f64.json` and `.f64.safetensors` the same in f64, by an independent reading of the formulas.
//! The recursion with `mlp_t` mixing amplifies a last bit about 300-fold a step, so that two correct f32 programs differ
//! as much from each other as from the exact figures: each may be as far off as a small multiple of what the published
//! program is.

use std::marker::PhantomData;
use std::path::{Path, PathBuf};

use safetensors::{Dtype, SafeTensors};
use serde_json::Value;
use trm::config::{Arch, Config, Gradient, Loss, Mixing, OptimizerName, Positions, PrecisionSetting};
use trm::dataset::Examples;
use trm::device::{Device, Real};
use trm::engine::{Weights, puzzle_table};

/// One case: its JSON and the bytes of its tensors, as published in f32, and in f64.
pub struct Golden {
    pub name: String,
    pub case: Value,
    pub bytes: Vec<u8>,
    exact: Value,
    exact_bytes: Vec<u8>,
}

impl Golden {
    /// All cases in the folder named by `TRM_GOLDEN` (default `tests/golden`), by name.
    pub fn all() -> Vec<Self> {
        let folder = std::env::var_os("TRM_GOLDEN")
            .map_or_else(|| Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/golden"), PathBuf::from);
        let mut paths: Vec<PathBuf> = std::fs::read_dir(&folder)
            .unwrap_or_else(|e| panic!("{}: {e}", folder.display()))
            .map(|entry| entry.unwrap().path())
            .filter(|path| path.to_str().is_some_and(|p| p.ends_with(".json") && !p.ends_with(".f64.json")))
            .collect();
        paths.sort();
        assert!(!paths.is_empty(), "no case in {}", folder.display());
        let read = |path: &PathBuf| {
            let bytes = |extension: &str| {
                let path = path.with_extension(extension);
                std::fs::read(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
            };
            let json = |extension: &str| -> Value { serde_json::from_slice(&bytes(extension)).unwrap() };
            let (case, exact) = (json("json"), json("f64.json"));
            let name = case["case"].as_str().unwrap().to_owned();
            Self { name, case, bytes: bytes("safetensors"), exact, exact_bytes: bytes("f64.safetensors") }
        };
        paths.iter().map(read).collect()
    }

    /// The tensors that the published code computed, and inputs and draws.
    pub fn tensors(&self) -> SafeTensors<'_> {
        SafeTensors::deserialize(&self.bytes).unwrap()
    }

    /// The judge of figures computed in `T`.
    pub fn judge<T: Judged>(&self) -> Judge<'_, T> {
        let exact = SafeTensors::deserialize(&self.exact_bytes).unwrap();
        Judge { published: self.tensors(), case: &self.case, exact, figures: &self.exact, scalar: PhantomData }
    }
}

/// A scalar a model can be computed in: how far its figures may be from the exact ones (relative norm).
pub trait Judged: Real {
    /// `distance`: of the published f32 figure from the f64 one; `sensitivity`: of two f64 runs whose initial weights
    /// differ by 1e-14 of themselves.
    fn bound(distance: f64, sensitivity: f64) -> f64;
}

impl Judged for f32 {
    fn bound(distance: f64, _: f64) -> f64 {
        8.0 * distance.max(1e-6)
    }
}

impl Judged for f64 {
    fn bound(_: f64, sensitivity: f64) -> f64 {
        (10.0 * sensitivity).max(1e-11)
    }
}

/// Says what a figure should be, and how far it may be from that.
pub struct Judge<'a, T> {
    published: SafeTensors<'a>,
    case: &'a Value,
    exact: SafeTensors<'a>,
    figures: &'a Value,
    scalar: PhantomData<T>,
}

impl<T: Judged> Judge<'_, T> {
    /// The f64 tensor of that name and the bound for it; `None` where f64 has none.
    pub fn tensor(&self, name: &str) -> Option<(Vec<f64>, f64)> {
        let exact = decode(&self.exact.tensor(name).ok()?);
        let figure = |kind: &str| self.figures[kind][name].as_f64();
        let distance = figure("f32_distance").unwrap_or_else(|| panic!("{name}: no distance of f32"));
        Some((exact, T::bound(distance, figure("sensitivity_1e-14").unwrap())))
    }

    /// `q_halt_logits` (column 0) or `q_continue_logits` (1) of a step. The f64 file has both in one tensor, so the
    /// distance of f32 is worked out here.
    pub fn q(&self, step: usize, column: usize) -> (Vec<f64>, f64) {
        let name = format!("step{step}.q");
        let exact: Vec<f64> = read(&self.exact, &name).into_iter().skip(column).step_by(2).collect();
        let published =
            read(&self.published, &format!("step{step}.{}", ["q_halt_logits", "q_continue_logits"][column]));
        let sensitivity = self.figures["sensitivity_1e-14"][&name].as_f64().unwrap();
        let bound = T::bound(distance(&published, &exact), sensitivity);
        (exact, bound)
    }

    /// The total loss of a step.
    pub fn loss(&self, step: usize) -> (f64, f64) {
        let exact = self.figures["loss"][step].as_f64().unwrap();
        let published = self.case["metrics"][step]["loss"].as_f64().unwrap();
        let sensitivity = self.figures["loss_sensitivity_1e-14"][step].as_f64().unwrap();
        // One number may be near by luck: the loss is as far off as the logits that it is worked out from.
        (exact, T::bound(distance(&[published], &[exact]).max(self.drift(step)), sensitivity))
    }

    /// How far the published f32 logits of a step are from the exact ones.
    pub fn drift(&self, step: usize) -> f64 {
        self.figures["f32_distance"][format!("step{step}.logits")].as_f64().unwrap()
    }
}

/// Norm of the difference over the norm of `theirs`.
pub fn distance(ours: &[f64], theirs: &[f64]) -> f64 {
    assert_eq!(ours.len(), theirs.len());
    let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
    norm(&mut ours.iter().zip(theirs).map(|(a, b)| a - b)) / (norm(&mut theirs.iter().copied()) + 1e-12)
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
        "adam_atan2" => OptimizerName::AdamAtan2,
        "adamw" => OptimizerName::Adamw,
        other => panic!("optimizer {other}"),
    };
    t.lr = case["lr"].as_f64().unwrap();
    t.puzzle_emb_lr = case["puzzle_emb_lr"].as_f64().unwrap();
    (t.beta1, t.beta2) = (case["betas"][0].as_f64().unwrap(), case["betas"][1].as_f64().unwrap());
    t.weight_decay = case["weight_decay"].as_f64().unwrap();
    t.puzzle_emb_weight_decay = case["puzzle_emb_weight_decay"].as_f64().unwrap();
    (t.ema, t.ema_rate, t.ema_warmup) = (true, case["ema_rate"].as_f64().unwrap(), false);
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

    fn write(&mut self, slot: usize, inputs: &mut [u8], labels: &mut [i32]) -> trm::Result<u32> {
        let from = slot * inputs.len();
        for (i, (input, label)) in inputs.iter_mut().zip(labels).enumerate() {
            *input = self.inputs[from + i] as u8;
            *label = self.labels[from + i] as i32;
        }
        Ok(self.ids[slot] as u32)
    }
}

/// Any scalar in f64.
pub fn wide<T: Real>(values: &[T]) -> Vec<f64> {
    values.iter().map(|x| x.to_f64()).collect()
}

/// All weights, the puzzle table's included, as they are in a case under `prefix`.
pub fn fill_weights<D: Device>(weights: &mut Weights<D>, tensors: &SafeTensors, prefix: &str) {
    weights.set(|name, values| fill(values, &read(tensors, &format!("{prefix}.{name}")))).unwrap();
    if let Some(table) = &mut weights.table {
        let table = std::sync::Arc::make_mut(table);
        let values = read(tensors, &format!("{prefix}.{}", puzzle_table::NAME));
        for (id, row) in (0..).zip(values.chunks_exact(table.ndim())) {
            fill(table.row_mut(id, 1), row).unwrap();
        }
    }
}

fn fill<T: Real>(target: &mut [T], source: &[f64]) -> Result<(), ()> {
    assert_eq!(target.len(), source.len());
    for (t, &s) in target.iter_mut().zip(source) {
        *t = T::from_f64(s);
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
        Dtype::F64 => data.chunks_exact(8).map(|b| f64::from_le_bytes(b.try_into().unwrap())).collect(),
        Dtype::F32 => data.chunks_exact(4).map(|b| f64::from(f32::from_le_bytes(b.try_into().unwrap()))).collect(),
        Dtype::I32 => data.chunks_exact(4).map(|b| f64::from(i32::from_le_bytes(b.try_into().unwrap()))).collect(),
        Dtype::U8 => data.iter().map(|&b| f64::from(b)).collect(),
        other => panic!("{other:?} in a golden file"),
    }
}
