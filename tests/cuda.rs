//! Training, evaluation and failures on a CUDA device: its twin on the host, and a GPU where there is one
//! (`cargo test --features cuda -- --ignored`).

use crate::common::{self, RandomExamples};
use trm::config::{Config, FixedPoint, Mixing, PrecisionSetting, TrainOnly};
use trm::cuda::Backend;
use trm::dataset::Examples as _;
use trm::device::{Cpu, Cuda, Precision};
use trm::engine::{Engine as _, Lanes, TrainingDevice, Weights};
use trm::infer::{Answered, Inference, InferenceOptions, Observer};
use trm::model::Model;
use trm::rng::Rng;
use trm::train::{Trainer, ema_rate};

/// Updates of each run below: the first ones of an engine run kernel by kernel, later ones by its graph.
const UPDATES: u64 = 4;

type Device<B> = Cuda<f32, B>;

/// `name: function`: a test of the function on the twin, and one on a GPU.
macro_rules! on_both {
    ($($name:ident: $function:ident;)*) => {
        #[cfg(cuda_twin)]
        mod on_the_twin {
            $(#[test]
            fn $name() {
                super::$function::<trm::cuda::Twin>();
            })*
        }

        #[cfg(cuda_gpu)]
        mod on_a_gpu {
            $(#[test]
            #[ignore = "needs a GPU"]
            fn $name() {
                super::$function::<trm::cuda::Gpu>();
            })*
        }
    };
}

on_both! {
    micro_batches_change_no_bit: micro_batches;
    a_graph_and_its_kernels_one_by_one_give_the_same_bits: graph;
    a_run_goes_on_from_its_state_with_the_same_bits: resumed;
    a_run_moves_between_the_cpu_and_a_gpu: moved;
    training_in_f32_is_that_of_the_cpu: like_the_cpu;
    experts_and_fixed_points_train_as_on_the_cpu: without_a_fixed_schedule;
    evaluation_answers_each_puzzle_as_if_it_were_alone: evaluation;
    a_batch_is_answered_before_any_training_as_on_the_cpu: fresh_batch;
    the_average_keeps_in_each_update_what_its_warm_up_says: average;
    training_the_table_alone_changes_no_bit_of_anything_else: table_alone;
}

/// A small model, and a batch of four slices.
fn config(mixing: Mixing, precision: PrecisionSetting) -> Config {
    let mut config = common::config(mixing, 12);
    (config.model.hidden_size, config.model.puzzle_emb_ndim, config.model.puzzle_emb_len) = (64, 64, 1);
    (config.model.h_cycles, config.model.l_cycles) = (2, 1);
    config.train.gradient_groups = 4;
    config.train.precision = precision;
    config.validate().unwrap();
    config
}

/// Dense weights and report of some updates, as bits.
fn bits<B: Backend>(trainer: &Trainer<<Device<B> as TrainingDevice>::Engine<'_>>) -> Vec<u32> {
    let dense = [false, true].map(|averaged| trainer.engine.dense(averaged).into_owned());
    dense.concat().into_iter().map(f32::to_bits).collect()
}

fn lanes<B: Backend>(micro_batch: usize) -> Lanes<Device<B>> {
    let lanes = Lanes::start(1).unwrap();
    lanes.install(|| lanes.with_lane(|lane| lane.set_micro_batch(micro_batch)));
    lanes
}

fn trainer<'a, D: TrainingDevice<T = f32>>(lanes: &'a Lanes<D>, config: &Config) -> Trainer<D::Engine<'a>> {
    let weights = Weights::new(&Model::new(&config.model, &config.task), config);
    Trainer::on(lanes, config.clone(), weights, UPDATES).unwrap()
}

fn micro_batches<B: Backend>() {
    let config = config(Mixing::Attention, PrecisionSetting::Bf16);
    let run = |micro_batch: usize| {
        let lanes = lanes::<B>(micro_batch);
        let mut trainer = trainer(&lanes, &config);
        let said = trainer.engine.describe().unwrap();
        let mut examples = RandomExamples::new(&config);
        let reports: Vec<_> = (0..UPDATES).map(|_| trainer.step(&mut examples).unwrap()).collect();
        (bits::<B>(&trainer), reports, said)
    };
    let (whole, reports, said) = run(0);
    assert!(said.contains("batch of 12 in micro-batches of 12"), "{said}");
    for micro_batch in [1, 6] {
        let (bits, own, said) = run(micro_batch);
        assert!(!said.contains("micro-batches of 12"), "{said}");
        assert!(bits == whole && own == reports, "micro-batches of at most {micro_batch}");
    }
}

/// A state as bytes.
fn state<B: Backend>(trainer: &Trainer<<Device<B> as TrainingDevice>::Engine<'_>>) -> Vec<u8> {
    bincode::serde::encode_to_vec(trainer.state(), bincode::config::standard()).unwrap()
}

fn graph<B: Backend>() {
    let config = config(Mixing::MlpT, PrecisionSetting::Bf16);
    let lanes = lanes::<B>(0);
    let mut replayed = trainer(&lanes, &config);
    let mut examples = RandomExamples::new(&config);
    for _ in 0..UPDATES {
        replayed.step(&mut examples).unwrap();
    }
    // An engine's first update has no graph.
    let mut examples = RandomExamples::new(&config);
    let mut anew = trainer(&lanes, &config);
    for _ in 0..UPDATES {
        let table = anew.engine.table_mut().cloned();
        let state = anew.state();
        let mut next = trainer(&lanes, &config);
        next.restore(state, table).unwrap();
        next.step(&mut examples).unwrap();
        anew = next;
    }
    assert!(state::<B>(&anew) == state::<B>(&replayed));
}

fn resumed<B: Backend>() {
    let config = config(Mixing::Attention, PrecisionSetting::F32);
    let lanes = lanes::<B>(0);
    let mut whole = trainer(&lanes, &config);
    let mut examples = RandomExamples::new(&config);
    whole.step(&mut examples).unwrap();
    let (table, batch) = (whole.engine.table_mut().cloned(), examples.batch);
    let mut second = trainer(&lanes, &config);
    second.restore(whole.state(), table).unwrap();
    let mut same = RandomExamples { batch, ..RandomExamples::new(&config) };
    for _ in 1..UPDATES {
        assert_eq!(whole.step(&mut examples).unwrap(), second.step(&mut same).unwrap());
    }
    assert!(state::<B>(&whole) == state::<B>(&second));
}

fn moved<B: Backend>() {
    let config = config(Mixing::MlpT, PrecisionSetting::F32);
    let (gpu, cpu) = (lanes::<B>(0), Lanes::<Cpu<f32>>::start(2).unwrap());
    let mut examples = RandomExamples::new(&config);
    let mut on_cpu = trainer(&cpu, &config);
    on_cpu.step(&mut examples).unwrap();
    let mut on_gpu = trainer(&gpu, &config);
    let table = on_cpu.engine.table_mut().cloned();
    on_gpu.restore(on_cpu.state(), table).unwrap();
    let (mut same, batch) = (RandomExamples::new(&config), examples.batch);
    same.batch = batch;
    let (a, b) = (on_cpu.step(&mut examples).unwrap(), on_gpu.step(&mut same).unwrap());
    assert_eq!(a.count, b.count);
    assert!((a.loss / b.loss - 1.0).abs() < 1e-4 && (a.grad_norm / b.grad_norm - 1.0).abs() < 1e-2, "{a:?} {b:?}");
    let mut back = trainer(&cpu, &config);
    let table = on_gpu.engine.table_mut().cloned();
    back.restore(on_gpu.state(), table).unwrap();
    assert_eq!(back.step_count(), 2);
    back.step(&mut examples).unwrap();
}

fn like_the_cpu<B: Backend>() {
    for mixing in [Mixing::Attention, Mixing::MlpT] {
        compare_with_the_cpu::<B>(&config(mixing, PrecisionSetting::F32));
    }
}

/// What has sizes that depend on values, so that there is no graph.
fn without_a_fixed_schedule<B: Backend>() {
    let mut config = config(Mixing::Attention, PrecisionSetting::F32);
    (config.model.experts, config.model.experts_per_token) = (3, 2);
    compare_with_the_cpu::<B>(&config);
    config.model.experts = 0;
    (config.model.fixed_point, config.model.fixed_point_tolerance) = (FixedPoint::Anderson, 1e-3);
    compare_with_the_cpu::<B>(&config);
}

/// The loss and the gradient of a first update.
fn compare_with_the_cpu<B: Backend>(config: &Config) {
    let (gpu, cpu) = (lanes::<B>(0), Lanes::<Cpu<f32>>::start(2).unwrap());
    let (mut on_gpu, mut on_cpu) = (trainer(&gpu, config), trainer(&cpu, config));
    let (mut a, mut b) = (RandomExamples::new(config), RandomExamples::new(config));
    let (ours, theirs) = (on_gpu.step(&mut a).unwrap(), on_cpu.step(&mut b).unwrap());
    assert!((ours.loss / theirs.loss - 1.0).abs() < 1e-5, "{ours:?} {theirs:?}");
    let (ours, theirs) = (on_gpu.engine.gradient(), on_cpu.engine.gradient());
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| f64::from(x).powi(2)).sum::<f64>().sqrt();
    let error = norm(&mut ours.iter().zip(&*theirs).map(|(a, b)| a - b)) / norm(&mut theirs.iter().copied());
    // With an MLP over positions the recursion amplifies a rounding a few hundred times.
    let mixing = config.model.mixing;
    assert!(error < if mixing == Mixing::MlpT { 1e-3 } else { 1e-4 }, "{mixing:?}: {error:.1e}");
}

fn average<B: Backend>() {
    let mut config = config(Mixing::Attention, PrecisionSetting::F32);
    (config.train.ema_rate, config.train.ema_warmup) = (0.999, true);
    let lanes = lanes::<B>(0);
    let mut trainer = trainer(&lanes, &config);
    let mut examples = RandomExamples::new(&config);
    let mut expected = trainer.engine.dense(true).into_owned();
    for step in 1..=UPDATES {
        trainer.step(&mut examples).unwrap();
        let keep = ema_rate(&config.train, step) as f32;
        assert!(keep < 0.5, "{keep}");
        let now = trainer.engine.dense(false).into_owned();
        expected.iter_mut().zip(&now).for_each(|(e, p)| *e = keep * *e + (1.0 - keep) * p);
        let found = trainer.engine.dense(true);
        assert!(found.iter().zip(&expected).all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs().max(1.0)), "update {step}");
    }
}

fn table_alone<B: Backend>() {
    let mut config = config(Mixing::Attention, PrecisionSetting::F32);
    config.train.train_only = TrainOnly::PuzzleTable;
    let lanes = lanes::<B>(0);
    let mut trainer = trainer(&lanes, &config);
    let buffers = |trainer: &Trainer<<Device<B> as TrainingDevice>::Engine<'_>>| {
        let all = trainer.engine.snapshot().into_iter();
        all.map(|(name, values)| (name.into_owned(), values.iter().map(|v| v.to_bits()).collect())).collect()
    };
    let before: Vec<(String, Vec<u32>)> = buffers(&trainer);
    let table = trainer.engine.table_mut().cloned();
    let mut examples = RandomExamples::new(&config);
    for _ in 0..UPDATES {
        trainer.step(&mut examples).unwrap();
    }
    assert!(buffers(&trainer) == before);
    assert!(trainer.engine.table_mut().cloned() != table);
}

/// Questions of a batch of which nothing has been trained yet, for two supervision steps.
fn fresh_batch<B: Backend>() {
    let config = config(Mixing::Attention, PrecisionSetting::F32);
    fn q<D: TrainingDevice<T = f32>>(lanes: &Lanes<D>, config: &Config) -> Vec<[f32; 2]> {
        let mut trainer = trainer(lanes, config);
        let (model, mut examples) = (trainer.model.clone(), RandomExamples::new(config));
        for group in trainer.engine.groups_mut() {
            for slot in 0..group.len() {
                group.slots.refill(slot, |inputs, labels| examples.write(slot, inputs, labels)).unwrap();
            }
        }
        trainer.engine.infer(&model);
        trainer.engine.infer(&model);
        assert!(trainer.engine.groups().iter().all(|group| !group.slots.halted.contains(&true)));
        let groups = trainer.engine.groups().iter();
        groups
            .flat_map(|group| group.outcome.q.iter().copied().zip(group.outcome.tokens.chunks(16)))
            .flat_map(|(q, tokens)| [q, [f32::from(tokens[0]), f32::from(tokens[15])]])
            .collect()
    }
    let ours = q(&lanes::<B>(0), &config);
    let theirs = q(&Lanes::<Cpu<f32>>::start(2).unwrap(), &config);
    for (ours, theirs) in ours.iter().flatten().zip(theirs.iter().flatten()) {
        assert!((ours - theirs).abs() < 1e-4, "{ours} {theirs}");
    }
}

fn evaluation<B: Backend>() {
    let config = config(Mixing::Attention, PrecisionSetting::Bf16);
    let model = Model::new(&config.model, &config.task);
    let weights = Weights::<Device<B>>::new(&model, &config);
    assert_eq!(weights.params.precision(), Precision::Bf16);
    let write = |i: usize, inputs: &mut [u8], labels: &mut [i32]| {
        let mut rng = Rng::stream(3, i as u64);
        inputs.fill_with(|| rng.below(5) as u8);
        labels.fill_with(|| rng.below(5) as i32);
        Ok(rng.below(5) as u32)
    };
    let options = InferenceOptions { steps: 4, halt: None };
    let run = |micro_batch: usize| {
        let lanes = lanes::<B>(micro_batch);
        let inference = Inference { lanes: &lanes, model: &model, weights: &weights, options };
        let answers = std::sync::Mutex::new(vec![Vec::new(); 9]);
        let tell = |answered: &Answered<'_>| {
            let mut answer = answered.answer().to_vec();
            answer.extend(answered.confidence().to_bits().to_le_bytes());
            answers.lock().unwrap()[answered.at] = answer;
        };
        let observer = Some(Observer::new(&tell));
        let evaluation = inference.evaluate(9, write, None, observer, || false).unwrap().unwrap();
        (evaluation, answers.into_inner().unwrap())
    };
    let together = run(0);
    assert_eq!(together.0.puzzles, 9);
    // Two and four at a time: those that are done leave, and others take their place.
    for micro_batch in [1, 2, 4] {
        assert!(run(micro_batch) == together, "{micro_batch} at a time");
    }
}

/// What a user sees of the twin's failures.
#[cfg(cuda_twin)]
mod commands {
    use std::path::Path;
    use std::process::Command;

    use crate::common::{self, fail, stderr, stdout, succeed, train, trm};

    fn on_the_twin(mut command: Command) -> Command {
        command.args(["--device", "cuda-twin"]);
        command
    }

    /// Short enough for the twin.
    fn short(out: &Path) -> Command {
        on_the_twin(train(out, &["max_steps=4", "checkpoint_interval=2", "batch_size=4", "eval_puzzles=2"]))
    }

    fn resume(out: &Path) -> Command {
        on_the_twin(common::resume(out))
    }

    #[test]
    fn a_run_trains_evaluates_solves_and_goes_on_anywhere() {
        let dir = tempfile::tempdir().unwrap();
        let (whole, parts) = (dir.path().join("whole"), dir.path().join("parts"));
        let said = stderr(&succeed(short(&whole)));
        assert!(said.contains("cuda-twin: host twin, batch of 4 in micro-batches of 4"), "{said}");
        let mut eval = trm();
        eval.arg("eval").arg(&whole).args(["--device", "cuda-twin", "--limit", "3", "--json"]);
        assert!(stdout(&succeed(eval)).contains("exact_accuracy"));
        let mut solve = trm();
        solve.arg("solve").arg(&whole).args(["1... ..2. .3.. ...4", "--device", "cuda-twin", "--steps", "2"]);
        assert!(!stdout(&succeed(solve)).is_empty());
        // A fault in the middle: the checkpoint before it is whole, and the run ends where the other did.
        let mut faulty = short(&parts);
        faulty.env("TWIN_FAULT", "1500");
        let said = fail(faulty, 1);
        let last = said.lines().last().unwrap();
        assert!(last.starts_with("trm: cuda-twin: ") && last.contains("700") && !said.contains("panicked"), "{said}");
        succeed(resume(&parts));
        let weights = |run: &Path| std::fs::read(run.join("weights.safetensors")).unwrap();
        assert!(weights(&whole) == weights(&parts));
    }

    #[test]
    fn a_number_format_of_the_cpu_alone_is_refused_and_nothing_is_written() {
        let dir = tempfile::tempdir().unwrap();
        let (out, of_cpu) = (dir.path().join("run"), dir.path().join("of-cpu"));
        let settings = ["max_steps=2", "batch_size=4", "eval_puzzles=2", "detached_precision=int8"];
        let said = fail(on_the_twin(train(&out, &settings)), 2);
        assert!(said.lines().count() == 1 && said.contains("train.detached_precision"), "{said}");
        assert!(!out.exists());
        // Nor does a run that has it go on, or answer, there.
        succeed(train(&of_cpu, &settings));
        let mut eval = trm();
        eval.arg("eval").arg(&of_cpu).args(["--device", "cuda-twin"]);
        let said = fail(eval, 2);
        assert!(said.lines().count() == 1 && said.contains("--device cpu"), "{said}");
        let mut resumed = resume(&of_cpu);
        resumed.args(["--max-steps", "4"]);
        let said = fail(resumed, 2);
        assert!(said.contains("train.detached_precision"), "{said}");
    }

    #[test]
    fn too_little_device_memory_is_one_line_that_says_what_to_do() {
        let dir = tempfile::tempdir().unwrap();
        let out = dir.path().join("run");
        let mut command = short(&out);
        command.env("TWIN_MEMORY", "300000");
        let said = fail(command, 1);
        let last = said.lines().last().unwrap();
        assert!(last.starts_with("trm: cuda-twin: out of device memory") && last.contains("--micro-batch"), "{said}");
        assert!(!said.contains("panicked") && !out.exists(), "{said}");
    }

    #[test]
    fn info_lists_the_device() {
        let mut info = trm();
        info.args(["info", "--json"]);
        let text = stdout(&succeed(info));
        let machine: serde_json::Value = serde_json::from_str(&text).unwrap();
        let devices = machine["devices"].as_array().unwrap();
        let twin = devices.iter().find(|device| device["device"] == "cuda-twin").unwrap();
        assert_eq!(twin["found"]["name"], "host twin");
    }
}
