//! bf16 means: operands of products rounded to bf16, everything else f32. What that does to the golden cases is held to
//! bounds, and it is the same model on every instruction set.
//!
//! Both tests look at the first supervision step of each case: logits, losses and gradients from the published weights
//! and inputs. Later steps amplify any difference (`ARCHITECTURE.md`, "f64 judges f32").

use crate::common::golden::{Batch, Golden, config_of, fill_weights, read, wide};
use safetensors::SafeTensors;
use serde_json::Value;
use trm::config::{Config, Mixing, PrecisionSetting};
use trm::device::Cpu;
use trm::engine::{Engine as _, Lanes, TrainingDevice, Weights};
use trm::model::Model;
use trm::rng::Rng;
use trm::simd::Isa;
use trm::train::Trainer;

/// Relative size of a rounding to bf16, which keeps 8 bits: at most 2⁻⁸ (its root mean square is about 2⁻⁹).
const ROUNDING: f64 = 1.0 / 256.0;

/// Draws of the perturbation that says how much a case amplifies.
const DRAWS: u64 = 4;

/// bf16's error may be so many times what perturbing the weights alone by its rounding makes of f32: rounding also hits
/// the other operand of every product, and anew in each of the calls, where the perturbed weights stay.
const FACTOR: f64 = 4.0;

/// Bounds of the difference to the published vectors: twice the worst that was measured.
const BOUND: Distance = Distance { logits: 0.6, loss: 0.025, gradient: 0.15, turn: 0.004 };

/// The same where positions are mixed by an MLP: that recursion makes a difference about 300 times as large in one step
/// (`ARCHITECTURE.md`, "f64 judges f32"), so 2⁻⁹ is no small one.
const BOUND_MLP_T: Distance = Distance { logits: 2.2, loss: 0.07, gradient: 1.0, turn: 0.3 };

/// The same where activations and their gradients are kept in bf16, as a GPU does: twice the worst that was measured.
#[cfg(cuda)]
const BOUND_ACTIVATIONS: Distance = Distance { logits: 1.0, loss: 0.015, gradient: 0.28, turn: 0.019 };

/// Two paths add up the same products of the same rounded numbers, each in an order of its own, so their sums differ by 2⁻²⁴
/// or so. Where a number lies that close to the boundary between two bf16 numbers, the next product sees the other one.
/// Such a change is as large as a rounding, and the recursion amplifies it: to no more than this share of what all roundings
/// together do to the gradient …
const OTHER_ORDER: f64 = 0.75;

/// … of a single logit to no more than all of it (the worst one measured has 0.84) …
const OTHER_ORDER_LOGIT: f64 = 1.0;

/// … and in a loss, in which roundings may cancel, to no more than this; with an MLP over positions, than [`BOUND_MLP_T`].
const OTHER_ORDER_LOSS: f64 = 5e-3;

/// But it befalls few numbers. On two paths without bf16 dot products (which round each pair of products once more), this
/// share of the draws at least …
const UNTOUCHED: f64 = 1.0 / 3.0;

/// … meets none: their gradients are as near as this.
const UNTOUCHED_GRADIENT: f64 = 1e-4;

/// Relative size of a unit in the last place of f32.
const LAST_PLACE: f64 = 1.0 / 8_388_608.0;

/// Draws of a perturbation by [`LAST_PLACE`].
const ORDERS: u64 = 20;

/// Whether a path adds up in an order that is nobody else's: AMX adds the products of a tile to themselves first. To the
/// published step that is one more perturbation in the last place, so the bounds of other paths widen to what they make of
/// those. (A case with an MLP over positions falls into one of four places of its loss, 0.02 to 0.14 apart, whatever the
/// path: a third of the draws takes the dot products beyond [`BOUND_MLP_T`] too.)
fn has_own_order(isa: Isa) -> bool {
    matches!(isa, Isa::Amx | Isa::AmxTwin)
}

/// A perturbation of the dense weights.
#[derive(Clone, Copy, Debug)]
struct Draw {
    seed: u64,
    relative: f64,
}

/// Those that say how much a case amplifies bf16's rounding.
fn roundings() -> impl Iterator<Item = Draw> {
    (0..DRAWS).map(|seed| Draw { seed, relative: ROUNDING })
}

/// What a supervision step says.
struct Step {
    logits: Vec<f64>,
    losses: Vec<f64>,
    gradient: Vec<f64>,
}

/// How far two of them are apart: the largest difference of a logit, the largest relative one of a loss, the gradient's
/// (norm of the difference over norm), and how far its direction is off: 1 − cosine, which no bound on a norm says.
#[derive(Clone, Copy, Debug, Default)]
struct Distance {
    logits: f64,
    loss: f64,
    gradient: f64,
    turn: f64,
}

impl Step {
    fn distance(&self, other: &Self) -> Distance {
        let pairs = |a: &[f64], b: &[f64]| {
            assert_eq!(a.len(), b.len());
            a.iter().copied().zip(b.iter().copied()).collect::<Vec<_>>()
        };
        let worst = |values: &mut dyn Iterator<Item = f64>| {
            values.fold(0.0, |worst: f64, x| if x <= worst { worst } else { x })
        };
        let norm = |values: &mut dyn Iterator<Item = f64>| values.map(|x| x * x).sum::<f64>().sqrt();
        let gradient = pairs(&self.gradient, &other.gradient);
        let along: f64 = gradient.iter().map(|(a, b)| a * b).sum();
        let lengths = norm(&mut self.gradient.iter().copied()) * norm(&mut other.gradient.iter().copied());
        Distance {
            logits: worst(&mut pairs(&self.logits, &other.logits).iter().map(|(a, b)| (a - b).abs())),
            loss: worst(&mut pairs(&self.losses, &other.losses).iter().map(|(a, b)| (a - b).abs() / b.abs())),
            gradient: norm(&mut gradient.iter().map(|(a, b)| a - b)) / norm(&mut gradient.iter().map(|(_, b)| *b)),
            // Of a gradient of zeros, as far as can be.
            turn: 1.0 - if lengths > 0.0 { along / lengths } else { 0.0 },
        }
    }
}

impl Distance {
    fn worst(self, other: Self) -> Self {
        let Self { logits, loss, gradient, turn } = self;
        Self {
            logits: logits.max(other.logits),
            loss: loss.max(other.loss),
            gradient: gradient.max(other.gradient),
            turn: turn.max(other.turn),
        }
    }

    fn times(self, factor: f64) -> Self {
        let Self { logits, loss, gradient, turn } = self;
        // An angle's cosine falls with the square of the difference.
        let turn = factor * factor * turn;
        Self { logits: factor * logits, loss: factor * loss, gradient: factor * gradient, turn }
    }

    fn is_within(self, bound: Self) -> bool {
        let Self { logits, loss, gradient, turn } = self;
        logits <= bound.logits && loss <= bound.loss && gradient <= bound.gradient && turn <= bound.turn
    }
}

/// The first step of a case on an instruction set; with `draw`, its dense weights perturbed.
fn first_step(golden: &Golden, config: &Config, isa: Isa, precision: PrecisionSetting, draw: Option<Draw>) -> Step {
    first_step_on::<Cpu<f32>>(golden, config, isa, precision, draw)
}

/// The same on a device.
fn first_step_on<D: TrainingDevice<T = f32>>(
    golden: &Golden,
    config: &Config,
    isa: Isa,
    precision: PrecisionSetting,
    draw: Option<Draw>,
) -> Step {
    let tensors = SafeTensors::deserialize(&golden.bytes).unwrap();
    let mut config = config.clone();
    config.train.precision = precision;
    // One lane, on whose thread everything runs: the choice of a path holds for a thread.
    let lanes = Lanes::<D>::start(1).unwrap();
    let step = || {
        let model = Model::new(&config.model, &config.task);
        let mut weights = Weights::new(&model, &config);
        fill_weights(&mut weights, &tensors, "init");
        if let Some(Draw { seed, relative }) = draw {
            let mut rng = Rng::new(seed);
            let mut perturbed = |value: &mut f32| *value *= (1.0 + relative * (2.0 * rng.uniform() - 1.0)) as f32;
            weights.params.update(|values| values.iter_mut().for_each(&mut perturbed));
        }
        let mut trainer =
            Trainer::on(&lanes, config.clone(), weights, golden.case["steps"].as_u64().unwrap()).expect("room for it");
        let minimum_steps = vec![0; config.train.batch_size];
        trainer.engine.groups_mut().iter_mut().for_each(|group| group.keep_logits(&model));
        let report = trainer.step_with(&mut Batch::of(&tensors, 0), &minimum_steps).unwrap();
        let trained = trainer.model.layout.tensors().iter().filter(|tensor| tensor.trained);
        let all = trainer.engine.gradient();
        Step {
            logits: trainer.engine.groups().iter().flat_map(|group| wide(&group.outcome.logits)).collect(),
            losses: vec![report.loss, report.lm_loss, report.q_halt_loss],
            gradient: trained.flat_map(|tensor| wide(&all[tensor.range()])).collect(),
        }
    };
    lanes.install(|| isa.run(step))
}

/// The published first step.
fn published(golden: &Golden, config: &Config) -> Step {
    let tensors = SafeTensors::deserialize(&golden.bytes).unwrap();
    let metric = |name: &str| -> f64 {
        let metrics: &Value = &golden.case["metrics"][0];
        metrics[name].as_f64().unwrap()
    };
    let model = Model::new(&config.model, &config.task);
    let trained = model.layout.tensors().iter().filter(|tensor| tensor.trained);
    Step {
        logits: read(&tensors, "step0.logits"),
        losses: ["loss", "lm_loss", "q_halt_loss"].map(metric).into(),
        gradient: trained.flat_map(|tensor| read(&tensors, &format!("step0.grad.{}", tensor.name))).collect(),
    }
}

fn built() -> Vec<(Golden, Config)> {
    Golden::all().into_iter().filter_map(|golden| config_of(&golden.case).map(|config| (golden, config))).collect()
}

fn show(what: &str, d: Distance) {
    println!(
        "{what:44} logits {:.1e}  losses {:.1e}  gradient {:.1e}  turn {:.1e}",
        d.logits, d.loss, d.gradient, d.turn
    );
}

#[test]
fn every_golden_case_agrees_in_bf16_as_far_as_its_rounding_lets_it() {
    let mut failed = Vec::new();
    for (golden, config) in built() {
        let published = published(&golden, &config);
        let perturbed =
            |draw| first_step(&golden, &config, Isa::best(), PrecisionSetting::F32, Some(draw)).distance(&published);
        let noise = roundings().map(perturbed).fold(Distance::default(), Distance::worst);
        show(&format!("{}: f32, weights perturbed", golden.name), noise);
        for isa in Isa::available() {
            let found = first_step(&golden, &config, isa, PrecisionSetting::Bf16, None).distance(&published);
            show(&format!("{}: bf16, {isa}", golden.name), found);
            let mut bound = if config.model.mixing == Mixing::MlpT { BOUND_MLP_T } else { BOUND };
            if has_own_order(isa) && !found.is_within(bound) {
                let draws = (0..ORDERS).map(|seed| Draw { seed, relative: LAST_PLACE });
                let of = |draw| first_step(&golden, &config, Isa::Portable, PrecisionSetting::Bf16, Some(draw));
                bound = draws.map(|draw| of(draw).distance(&published)).fold(bound, Distance::worst);
                show(&format!("{}: bf16, portable, last place", golden.name), bound);
            }
            if !(found.is_within(noise.times(FACTOR)) && found.is_within(bound)) {
                failed.push(format!("{} on {isa}: {found:?}, noise {noise:?}", golden.name));
            }
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

/// A GPU keeps activations in bf16 too, so every value between two kernels is rounded, and every gradient.
#[cfg(cuda_twin)]
#[test]
fn every_golden_case_agrees_in_bf16_on_the_twin_of_a_gpu() {
    on_a_gpu::<trm::cuda::Twin>();
}

/// Where there is one.
#[cfg(cuda_gpu)]
#[test]
#[ignore = "needs a GPU"]
fn every_golden_case_agrees_in_bf16_on_a_gpu() {
    on_a_gpu::<trm::cuda::Gpu>();
}

#[cfg(cuda)]
fn on_a_gpu<B: trm::cuda::Backend>() {
    let mut failed = Vec::new();
    for (golden, config) in built() {
        let published = published(&golden, &config);
        let (isa, bf16) = (Isa::best(), PrecisionSetting::Bf16);
        let found = first_step_on::<trm::device::Cuda<f32, B>>(&golden, &config, isa, bf16, None).distance(&published);
        let on_cpu = first_step(&golden, &config, isa, bf16, None).distance(&published);
        show(&format!("{}: bf16 on the CPU", golden.name), on_cpu);
        show(&format!("{}: bf16 activations on {}", golden.name, B::NAME), found);
        let bound = if config.model.mixing == Mixing::MlpT { BOUND_MLP_T } else { BOUND_ACTIVATIONS };
        if !found.is_within(bound) {
            failed.push(format!("{}: {found:?}", golden.name));
        }
    }
    assert!(failed.is_empty(), "{failed:#?}");
}

#[test]
fn bf16_is_the_same_model_on_every_instruction_set() {
    let (mut failed, mut gradients) = (Vec::new(), Vec::new());
    for (golden, config) in built() {
        let step = |isa, precision, draw| first_step(&golden, &config, isa, precision, draw);
        let draws: Vec<Option<Draw>> = std::iter::once(None).chain(roundings().map(Some)).collect();
        let portable: Vec<Step> = draws.iter().map(|&draw| step(Isa::Portable, PrecisionSetting::Bf16, draw)).collect();
        let rounding = portable[0].distance(&step(Isa::Portable, PrecisionSetting::F32, None));
        show(&format!("{}: bf16 against f32", golden.name), rounding);
        let loss = if config.model.mixing == Mixing::MlpT { BOUND_MLP_T.loss } else { OTHER_ORDER_LOSS };
        let logits = OTHER_ORDER_LOGIT * rounding.logits;
        let bound = Distance { loss, logits, ..rounding.times(OTHER_ORDER) };
        for isa in Isa::available().filter(|&isa| isa != Isa::Portable) {
            // The bounds of dot products are those of the published weights.
            let count = if isa.multiplies_pairs() { 1 } else { draws.len() };
            for (&draw, portable) in draws.iter().zip(&portable).take(count) {
                let found = step(isa, PrecisionSetting::Bf16, draw).distance(portable);
                show(&format!("{}: {isa} against portable", golden.name), found);
                if !found.is_within(bound) {
                    failed.push(format!("{} on {isa}, {draw:?}: {found:?}, rounding {rounding:?}", golden.name));
                }
                if !isa.multiplies_pairs() {
                    gradients.push(found.gradient);
                }
            }
        }
    }
    let same = gradients.iter().filter(|&&gradient| gradient <= UNTOUCHED_GRADIENT).count();
    println!("{same} of {} gradients agree on paths without bf16 dot products", gradients.len());
    assert!(
        same as f64 >= UNTOUCHED * gradients.len() as f64,
        "{same} of {} gradients agree: {gradients:?}",
        gradients.len()
    );
    assert!(failed.is_empty(), "{failed:#?}");
}
