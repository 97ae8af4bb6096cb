//! Every kernel of every device against the reference in f64, on random shapes with 1 and ragged sizes among them.

#[cfg(cuda)]
mod cuda;
mod int8;
mod layers;

use std::sync::Arc;

use crate::device::{
    AdamCoefficients, AttentionShape, Block, Choice, Cpu, Device, Formats, Grads, HostDevice, IGNORE_LABEL, InputGrad,
    Layout, Likelihood, NormEpilogue, Normed, Over, ParamId, Params, Precision, Real, Reference, Rope, Runs, Store,
    SwiGlu, Update, Usage,
};
use crate::rng::Rng;
use layers::{attend, attend_after_product, attend_each, both_ways, linear, norms_along_both_axes};

/// A device and random operands: the same elements for every device, rounded to its scalars.
struct Lab<D: Device> {
    device: D,
    seed: u64,
    rng: Rng,
    precision: Precision,
}

impl<D: Device> Lab<D> {
    fn new(seed: u64, precision: Precision) -> Self {
        let mut device = D::new();
        device.reset(precision);
        Self { device, seed, rng: Rng::new(seed), precision }
    }

    fn sizes<const N: usize>(&mut self, most: [usize; N]) -> [usize; N] {
        most.map(|most| 1 + self.rng.below(most))
    }

    fn normal(&mut self, len: usize) -> Vec<D::T> {
        (0..len).map(|_| D::T::from_f64(f64::from(self.rng.normal() as f32))).collect()
    }

    /// A block of random elements.
    fn stored(&mut self, store: Store, len: usize) -> Block {
        let (values, block) = (self.normal(len), self.device.alloc(len, store));
        self.device.upload(&values, block);
        block
    }

    /// Random activations.
    fn random(&mut self, len: usize) -> Block {
        self.stored(Store::Activation, len)
    }

    /// Random numbers of losses and gates.
    fn numbers(&mut self, len: usize) -> Block {
        self.stored(Store::Exact, len)
    }

    fn room(&mut self, store: Store, len: usize) -> Block {
        let block = self.device.alloc(len, store);
        self.device.fill(block, D::T::ZERO);
        block
    }

    /// Room for activations.
    fn zeros(&mut self, len: usize) -> Block {
        self.room(Store::Activation, len)
    }

    /// Room for factors, losses and counts.
    fn factors(&mut self, len: usize) -> Block {
        self.room(Store::Exact, len)
    }

    fn weights<const N: usize>(&mut self, shapes: [(usize, usize, Usage); N]) -> (Params<D>, Grads<D>, [ParamId; N]) {
        self.weights_in(shapes, self.precision.into())
    }

    fn weights_in<const N: usize>(
        &mut self,
        shapes: [(usize, usize, Usage); N],
        formats: Formats,
    ) -> (Params<D>, Grads<D>, [ParamId; N]) {
        let mut layout = Layout::default();
        let ids = shapes.map(|(rows, cols, usage)| layout.push("w", rows, cols, usage));
        let mut params = Params::with_formats(Arc::new(layout), formats);
        let values = self.normal(params.values().len());
        params.update(|to| to.copy_from_slice(&values));
        let mut grads = Grads::new(params.layout().clone());
        let before = self.normal(values.len());
        D::write_buffer(grads.buffer_mut(), &before);
        (params, grads, ids)
    }

    fn rows(&mut self, count: usize, below: usize) -> Vec<u32> {
        (0..count).map(|_| self.rng.below(below) as u32).collect()
    }

    /// What a kernel has written, in f64.
    fn read(&self, blocks: &[Block]) -> Outputs {
        blocks.iter().map(|&block| self.device.read(block).iter().map(|x| x.to_f64()).collect()).collect()
    }
}

type Outputs = Vec<Vec<f64>>;

fn gradients<D: Device>(grads: &Grads<D>) -> Vec<f64> {
    let (tensors, values) = (grads.layout().tensors(), grads.read());
    tensors.iter().flat_map(|tensor| values[tensor.range()].iter().map(|g| g.to_f64())).collect()
}

fn assert_close(kernel: &str, of: &str, seed: u64, ours: &Outputs, exact: &Outputs, tolerance: f64) {
    assert_eq!(ours.len(), exact.len());
    for (i, (ours, exact)) in ours.iter().zip(exact).enumerate() {
        assert_eq!(ours.len(), exact.len(), "{kernel}: length of output {i}");
        let norm = |v: &mut dyn Iterator<Item = f64>| v.map(|x| x * x).sum::<f64>().sqrt();
        let difference = norm(&mut ours.iter().zip(exact).map(|(a, b)| a - b));
        let error = difference / norm(&mut exact.iter().copied()).max(1e-3);
        assert!(error <= tolerance, "{kernel} on {of}, seed {seed}, output {i}: off by {error:.1e}");
    }
}

/// Draws of a kernel's sizes and numbers. Large ones take long with plain loops, and differ less from each other.
fn rounds(kernel: &str) -> u64 {
    match kernel {
        _ if kernel.starts_with("large") && !cpu_too() => 1,
        _ if kernel.starts_with("large") => 2,
        _ if kernel.starts_with("attention_after") => 3,
        _ => 12,
    }
}

/// Whether the CPU is tested as well: `TRM_TEST_CUDA_ALONE` leaves it out, for runs of the same tests on another twin.
fn cpu_too() -> bool {
    std::env::var_os("TRM_TEST_CUDA_ALONE").is_none()
}

/// The same on a CUDA device, whose memory the host does not see: the twin, and with `TRM_TEST_GPU` set a GPU.
#[cfg(cuda)]
macro_rules! for_cuda {
    (HostDevice, $name:expr, $outputs:ident, $Backend:ty) => {};
    (Device, $name:expr, $outputs:ident, $Backend:ty) => {
        use crate::device::Cuda;
        for seed in 0..rounds($name) {
            let exact = $outputs(&mut Lab::<Reference<f64>>::new(seed, Precision::F32));
            let ours = $outputs(&mut Lab::<Cuda<f64, $Backend>>::new(seed, Precision::F32));
            assert_close($name, "cuda f64", seed, &ours, &exact, 1e-11);
            let ours = $outputs(&mut Lab::<Cuda<f32, $Backend>>::new(seed, Precision::F32));
            assert_close($name, "cuda f32", seed, &ours, &exact, 1e-4);
            let ours = $outputs(&mut Lab::<Cuda<f32, $Backend>>::new(seed, Precision::Bf16));
            // Activations are kept in bf16: each value that a kernel reads or writes is rounded.
            assert_close($name, "cuda bf16", seed, &ours, &exact, 2e-2);
        }
    };
}

/// `name(lab) { … }`: a kernel call that returns what it has written; each becomes a test.
macro_rules! kernels {
    ($Device:ident: $($name:ident($lab:ident) $body:block)*) => {$(
        #[test]
        fn $name() {
            fn outputs<D: $Device>($lab: &mut Lab<D>) -> Outputs $body
            let name = stringify!($name);
            #[cfg(cuda_twin)]
            for_cuda!($Device, name, outputs, crate::cuda::Twin);
            #[cfg(cuda_gpu)]
            if std::env::var_os("TRM_TEST_GPU").is_some() {
                for_cuda!($Device, name, outputs, crate::cuda::Gpu);
            }
            for seed in (0..rounds(name)).filter(|_| cpu_too()) {
                let exact = outputs(&mut Lab::<Reference<f64>>::new(seed, Precision::F32));
                let f64s = outputs(&mut Lab::<Cpu<f64>>::new(seed, Precision::F32));
                assert_close(name, "cpu f64", seed, &f64s, &exact, 1e-11);
                let f32s = outputs(&mut Lab::<Reference<f32>>::new(seed, Precision::F32));
                assert_close(name, "reference f32", seed, &f32s, &exact, 1e-4);
                let rounded = outputs(&mut Lab::<Reference<f32>>::new(seed, Precision::Bf16));
                for isa in crate::simd::Isa::available() {
                    isa.run(|| {
                        let ours = outputs(&mut Lab::<Cpu<f32>>::new(seed, Precision::F32));
                        assert_close(name, &format!("cpu f32, {isa}"), seed, &ours, &exact, 1e-4);
                        let ours = outputs(&mut Lab::<Cpu<f32>>::new(seed, Precision::Bf16));
                        assert_close(name, &format!("cpu bf16, {isa}"), seed, &ours, &rounded, 1e-2);
                    });
                }
            }
        }
    )*};
}

kernels! { Device:
    sums_copies_and_axpy(lab) {
        let [len, count] = lab.sizes([300, 8]);
        let summands: Vec<Block> = (0..count).map(|_| lab.random(len)).collect();
        let (sum, copy, y) = (lab.zeros(len), lab.zeros(len), lab.random(len));
        lab.device.sum(&summands, sum);
        lab.device.copy(summands[0], copy);
        lab.device.axpy(D::T::from_f64(0.7), summands[0], y);
        lab.read(&[sum, copy, y])
    }

    runs(lab) {
        let [count, len, before, gap] = lab.sizes([5, 40, 9, 7]);
        let strides = [len + gap, len + before];
        let blocks = strides.map(|stride| lab.random(before + count * stride));
        let [from, to] = [0, 1].map(|i| Runs { block: blocks[i], start: before * (1 - i), stride: strides[i] });
        lab.device.add_runs((count, len), D::T::from_f64(-1.3), from, to);
        let copied = lab.random(to.block.len());
        lab.device.copy_runs((count, len), from, Runs { block: copied, ..to });
        lab.read(&[to.block, copied])
    }

    tables(lab) {
        let [sequences, len, width] = lab.sizes([4, 9, 33]);
        let count = 1 + lab.rng.below(len);
        let (params, mut grads, [table, start]) =
            lab.weights([(count, width, Usage::Table), (1, width, Usage::Table)]);
        let (x, dy) = (lab.random(sequences * len * width), lab.random(sequences * len * width));
        let filled = lab.zeros(sequences * len * width);
        lab.device.add_table(&params, table, 0.6, len * width, x);
        lab.device.table_grad(&mut grads, table, 0.6, len * width, dy);
        lab.device.broadcast(&params, start, filled);
        [lab.read(&[x, filled]), vec![gradients(&grads)]].concat()
    }

    embeddings(lab) {
        let [sequences, seq_len, vocab, width] = lab.sizes([4, 9, 7, 33]);
        let prefix = lab.rng.below(3);
        let (params, mut grads, [table]) = lab.weights([(vocab, width, Usage::Table)]);
        let tokens = lab.rows(sequences * seq_len, vocab);
        let tokens = lab.device.put(tokens.into_iter().map(|token| token as i32));
        let size = sequences * (prefix + seq_len) * width;
        let (y, dy) = (lab.random(size), lab.random(size));
        lab.device.embed(&params, table, tokens, (seq_len, prefix), 1.7, y);
        lab.device.embed_backward(&mut grads, table, tokens, (seq_len, prefix), 1.7, dy);
        [lab.read(&[y]), vec![gradients(&grads)]].concat()
    }

    linear_layers(lab) {
        let sizes = lab.sizes([70, 90, 90]);
        linear(lab, sizes)
    }

    // Those of heads: few numbers, which are not rounded.
    narrow_linear_layers(lab) {
        let [m, n_in, n_out] = lab.sizes([200, 80, 18]);
        let n_in = 8 * n_in;
        let (params, mut grads, [weight]) = lab.weights([(n_out, n_in, Usage::Rows)]);
        let (x, dy, y) = (lab.random(m * n_in), lab.numbers(m * n_out), lab.factors(m * n_out));
        let (dx, added) = (lab.random(m * n_in), lab.random(m * n_in));
        lab.device.linear(&params, weight, x, y, None);
        lab.device.linear_backward(&params, weight, dy, InputGrad::overwriting(dx));
        lab.device.linear_backward(&params, weight, dy, InputGrad::added_to(added));
        lab.device.weight_grad(&params, &mut grads, weight, dy, x);
        lab.device.finish_weight_grads(&params, &mut grads);
        [lab.read(&[y, dx, added]), vec![gradients(&grads)]].concat()
    }

    // Widths in multiples of 8, and of 64 over positions, are what tensor cores take.
    linear_layers_in_whole_tiles(lab) {
        let [m, n_in, n_out] = lab.sizes([140, 20, 20]);
        linear(lab, [m, 8 * n_in, 8 * n_out])
    }

    // Weights of this size are what warpgroups multiply.
    large_linear_layers(lab) {
        let [m, n_in, n_out] = lab.sizes([70, 12, 12]);
        linear(lab, [m, 512 + 8 * n_in, 416 + 8 * n_out])
    }

    swiglu_over_features(lab) {
        let [m, width, inner] = lab.sizes([50, 70, 60]);
        let (params, grads, [gate_up, down]) =
            lab.weights([(2 * inner, width, Usage::GateUpRows), (width, inner, Usage::DownRows)]);
        let swiglu = SwiGlu { gate_up, down, over: Over::Features, width };
        both_ways(lab, params, grads, swiglu, m * width, m)
    }

    swiglu_over_features_in_whole_tiles(lab) {
        let [m, width, inner] = lab.sizes([140, 9, 12]);
        let (width, inner) = (8 * width, 8 * inner);
        let (params, grads, [gate_up, down]) =
            lab.weights([(2 * inner, width, Usage::GateUpRows), (width, inner, Usage::DownRows)]);
        let swiglu = SwiGlu { gate_up, down, over: Over::Features, width };
        both_ways(lab, params, grads, swiglu, m * width, m)
    }

    // Of more rows than a tile has, so that one is whole.
    large_swiglu_over_features(lab) {
        let [m, width, inner] = lab.sizes([20, 9, 12]);
        let (m, width, inner) = (128 + m, 440 + 8 * width, 512 + 8 * inner);
        let (params, grads, [gate_up, down]) =
            lab.weights([(2 * inner, width, Usage::GateUpRows), (width, inner, Usage::DownRows)]);
        let swiglu = SwiGlu { gate_up, down, over: Over::Features, width };
        both_ways(lab, params, grads, swiglu, m * width, m)
    }

    swiglu_over_positions(lab) {
        let [sequences, len, width, inner] = lab.sizes([4, 40, 50, 60]);
        let (params, grads, [gate_up, down]) =
            lab.weights([(2 * inner, len, Usage::GateUpCols), (len, inner, Usage::Cols)]);
        let swiglu = SwiGlu { gate_up, down, over: Over::Positions(len), width };
        both_ways(lab, params, grads, swiglu, sequences * len * width, sequences * width)
    }

    swiglu_over_positions_in_whole_tiles(lab) {
        let [sequences, len, width, inner] = lab.sizes([3, 110, 3, 3]);
        let (width, inner) = (64 * width, 32 * inner);
        let (params, grads, [gate_up, down]) =
            lab.weights([(2 * inner, len, Usage::GateUpCols), (len, inner, Usage::Cols)]);
        let swiglu = SwiGlu { gate_up, down, over: Over::Positions(len), width };
        both_ways(lab, params, grads, swiglu, sequences * len * width, sequences * width)
    }

    attention(lab) {
        let [sequences, len, heads, half] = lab.sizes([3, 140, 3, 12]);
        let rope = lab.rng.below(2) == 0;
        attend(lab, AttentionShape { sequences, len, heads, head_dim: 2 * half }, rope)
    }

    attention_in_whole_tiles(lab) {
        let [sequences, len, heads, eighth] = lab.sizes([3, 140, 3, 8]);
        let rope = lab.rng.below(2) == 0;
        attend(lab, AttentionShape { sequences, len, heads, head_dim: 8 * eighth }, rope)
    }

    // Up to 128 positions and 64 features, tensor cores take a head at once; beyond them they take it piece by piece.
    large_and_small_attention(lab) {
        attend_each(lab, &[(1, 8), (2, 32), (37, 64), (70, 64), (97, 64), (97, 128), (128, 24), (128, 64)])
    }

    larger_attention(lab) {
        attend_each(lab, &[(129, 8), (129, 64), (200, 32), (200, 128), (390, 64)])
    }

    attention_after_the_product_that_makes_q_k_and_v(lab) {
        let len = [97, 37, 150][lab.seed as usize % 3];
        let [sequences, extra] = lab.sizes([2, 4]);
        attend_after_product(lab, AttentionShape { sequences, len, heads: 6, head_dim: 64 }, 232 + 8 * extra)
    }

    norms(lab) {
        let sizes = lab.sizes([3, 190, 70]);
        norms_along_both_axes(lab, sizes)
    }

    // Of one or two positions, gradients would be differences of nearly equal numbers.
    norms_of_long_rows(lab) {
        let [sequences, len, width] = lab.sizes([3, 5, 160]);
        norms_along_both_axes(lab, [sequences, 15 + len, 8 * width])
    }

    losses_and_scores(lab) {
        let [sequences, seq_len, vocab] = lab.sizes([4, 20, 11]);
        let vocab = vocab + 1;
        let mut labels: Vec<i32> = lab.rows(sequences * seq_len, vocab).into_iter().map(|label| label as i32).collect();
        labels.iter_mut().step_by(3).for_each(|label| *label = IGNORE_LABEL);
        let labels = lab.device.put(labels.into_iter());
        let logits = lab.numbers(sequences * seq_len * vocab);
        let mut outputs = Vec::new();
        for likelihood in [Likelihood::Stablemax, Likelihood::Softmax { label_smoothing: 0.1 }] {
            let (loss, unit) = (lab.factors(sequences), lab.factors(logits.len()));
            let (d_loss, d_logits) = (lab.numbers(sequences), lab.numbers(logits.len()));
            lab.device.cross_entropy(likelihood, labels, seq_len, logits, loss, unit);
            lab.device.loss_backward(d_loss, unit, d_logits);
            outputs.extend(lab.read(&[loss, unit, d_logits]));
        }
        let [correct, labelled, exact, target, loss, unit] = [0; 6].map(|_| lab.factors(sequences));
        lab.device.score(labels, seq_len, logits, correct, labelled, exact);
        let q = lab.numbers(2 * sequences);
        let is_last = lab.device.put((0..sequences as i32).map(|b| b % 2));
        lab.device.continue_target(is_last, q, target);
        lab.device.bce_with_logits((1, 2), q, target, loss, unit);
        let (d_loss, d_q) = (lab.numbers(sequences), lab.numbers(2 * sequences));
        lab.device.bce_backward((1, 2), d_loss, unit, d_q);
        let mut tokens = vec![0; sequences * seq_len];
        lab.device.predict(logits, &mut tokens);
        outputs.extend(lab.read(&[correct, labelled, exact, target, loss, unit, d_q]));
        outputs.push(tokens.into_iter().map(f64::from).collect());
        outputs
    }

    mixtures_of_experts(lab) {
        let [sequences, len, experts, width] = lab.sizes([3, 9, 4, 20]);
        let (rows, experts) = (sequences * len, experts + 1);
        let per_row = 1 + lab.rng.below(experts);
        let (logits, d_gates, d_logits) =
            (lab.numbers(rows * experts), lab.numbers(rows * experts), lab.numbers(rows * experts));
        let gates = lab.factors(rows * experts);
        lab.device.route(experts, per_row, logits, gates);
        let mut lists = Vec::new();
        lab.device.chosen(experts, gates, &mut lists);
        let own = lists[experts..][..lists[0] as usize].to_vec();
        let (x, y, dy, dx) =
            (lab.random(rows * width), lab.random(rows * width), lab.random(rows * width), lab.random(rows * width));
        let (gathered, scattered) = (lab.zeros(rows * width), lab.random(rows * width));
        let choice = Choice { rows: &own, width, gates, expert: 0, experts };
        lab.device.gather(&own, width, x, gathered);
        lab.device.scatter(&own, width, dy.part(0, own.len() * width), scattered);
        lab.device.add_expert(choice, x, y);
        lab.device.add_expert_backward(choice, dy, x, Some(dx), Some(d_gates));
        lab.device.route_backward(experts, gates, d_gates, d_logits);
        let (loss, unit) = (lab.factors(sequences), lab.factors(rows * experts));
        let picks: Vec<u32> = lab.rows(sequences * experts, 9).into_iter().map(|pick| pick + 1).collect();
        lab.device.load_balance((experts, &picks), 0.8, logits, loss, unit);
        let lists = lists.into_iter().map(f64::from).collect();
        [lab.read(&[gates, gathered, scattered, y, dx, d_gates, d_logits, loss, unit]), vec![lists]].concat()
    }

    distances_between_states(lab) {
        let [sequences, size] = lab.sizes([4, 90]);
        let [a, b, c, d] = [0; 4].map(|_| lab.random(sequences * size));
        let (mut distances, mut products) = (vec![[1.0; 2]; sequences], vec![1.0; sequences]);
        lab.device.distance(a, b, sequences, &mut distances);
        lab.device.residual_product([a, b], [c, d], sequences, &mut products);
        vec![distances.concat(), products]
    }
}

kernels! { HostDevice:
    flat_arrays_and_adam(lab) {
        let [len] = lab.sizes([300]);
        let [a, b] = [0; 2].map(|_| lab.normal(len));
        let (mut sum, mut added) = (a.clone(), a.clone());
        D::add(&a, &b, &mut sum);
        D::add_assign(&mut added, &b);
        let mut outputs = vec![vec![D::sum_squares(&a)]];
        for update in [Update::Atan2, Update::Ratio] {
            let numbers = [0.9, 0.95, 0.99, 0.01, 1.3, 0.999, 0.7].map(D::T::from_f64);
            let [beta1, beta2, decay, step, inv_sqrt_correction2, ema_rate, grad_scale] = numbers;
            let c = AdamCoefficients { update, beta1, beta2, decay, step, inv_sqrt_correction2, ema_rate, grad_scale };
            let [mut p, mut m, v, mut e, g] = [0; 5].map(|_| lab.normal(len));
            let mut v: Vec<D::T> = v.into_iter().map(|v| v * v).collect();
            D::adam_step(&c, &mut p, &mut m, &mut v, &mut e, &g);
            outputs.extend([p, m, v, e].map(|values| values.iter().map(|x| x.to_f64()).collect::<Vec<_>>()));
        }
        outputs.extend([sum, added].map(|values| values.iter().map(|x| x.to_f64()).collect::<Vec<_>>()));
        outputs
    }
}
