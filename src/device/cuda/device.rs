//! The trait [`Device`] on CUDA: which kernels each method queues.

use super::swiglu::Sizes;
use super::{Cuda, CudaBuffer, CudaScalar, CudaWeight, master};
use crate::cuda::{Backend, DeviceMemory, ElementFormat, Queue};
use crate::device::{
    ALIGNMENT, AttentionShape, Block, Choice, Device, Grads, Indices, InputGrad, KeptState, Likelihood, NormEpilogue,
    Over, ParamId, Params, Precision, Rope, Runs, Space, Store, SwiGlu,
};

impl<T: CudaScalar, B: Backend> Device for Cuda<T, B> {
    type T = T;
    type Weight = CudaWeight<T, B>;
    type Buffer = CudaBuffer<T, B>;

    const NAME: &'static str = B::NAME;
    const IS_ACCELERATOR: bool = true;

    fn new() -> Self {
        let queue = Queue::get();
        Self {
            queue,
            space: Space::default(),
            memory: DeviceMemory::new(queue, 0),
            integers: DeviceMemory::new(queue, super::INTEGERS * size_of::<i32>()),
            resident: 0,
            integers_used: 0,
            precision: Precision::F32,
            rope: None,
            carried: None,
            micro_batch: 0,
            set_aside: None,
            scalars: std::marker::PhantomData,
        }
    }

    fn preferred_precision() -> Precision {
        Precision::Bf16
    }

    /// A GPU wants as many rows as there are, within its memory.
    fn shard(len: usize) -> usize {
        const ROWS: usize = 1 << 16;
        (ROWS / len).clamp(1, 1024)
    }

    fn buffer(len: usize) -> CudaBuffer<T, B> {
        CudaBuffer::new(len, 1)
    }

    fn clear_buffer(buffer: &mut CudaBuffer<T, B>) {
        buffer.clear();
    }

    fn read_buffer(buffer: &CudaBuffer<T, B>) -> Vec<T> {
        buffer.read()
    }

    fn write_buffer(buffer: &mut CudaBuffer<T, B>, values: &[T]) {
        buffer.write(values);
    }

    fn set_micro_batch(&mut self, sequences: usize) {
        self.micro_batch = sequences;
    }

    fn shard_now(&self, len: usize) -> usize {
        let most = if self.micro_batch == 0 { usize::MAX } else { self.micro_batch };
        Self::shard(len).min(most)
    }

    fn space(&mut self) -> &mut Space {
        &mut self.space
    }

    fn reserve(&mut self) {
        if self.space.extent() > self.memory.bytes() {
            let mut larger = DeviceMemory::new(self.queue, self.space.extent().next_multiple_of(ALIGNMENT));
            larger.copy_from(&self.memory);
            self.memory = larger;
        }
    }

    fn size_bytes(&self) -> usize {
        self.memory.bytes() + self.integers.bytes() + self.carried.as_ref().map_or(0, super::CarriedStates::bytes)
    }

    fn element_bytes(&self, store: Store) -> usize {
        match store {
            Store::Activation if self.is_bf16() => ElementFormat::Bf16.bytes(),
            _ => size_of::<T>(),
        }
    }

    fn reset(&mut self, precision: Precision) {
        self.precision = precision;
        self.integers_used = self.resident;
        self.space.reset();
    }

    fn put(&mut self, values: impl Iterator<Item = i32>) -> Indices {
        let values: Vec<i32> = values.collect();
        let start = self.integers_used;
        self.integers_used += values.len();
        self.grow_integers(self.integers_used);
        self.integers.upload(start * size_of::<i32>(), &values);
        Indices::new(start, values.len())
    }

    fn upload(&mut self, from: &[T], to: Block) {
        assert_eq!(from.len(), to.len());
        if !to.is_empty() {
            Self::write_view(&mut self.memory, to.start_byte(), from, ElementFormat::of_bytes(to.element_bytes()));
        }
    }

    fn download(&self, from: Block, to: &mut [T]) {
        if !from.is_empty() {
            let format = ElementFormat::of_bytes(from.element_bytes());
            to.copy_from_slice(&Self::read_view(&self.memory, from.start_byte(), from.len(), format));
        }
    }

    fn load_state(
        &mut self,
        params: &Params<Self>,
        start: ParamId,
        KeptState { state, states, len }: KeptState,
        places: Indices,
        anew: Indices,
        y: Block,
    ) {
        let carried = self.carried.take().filter(|carried| self.carries(carried, states, len));
        let carried = carried.unwrap_or_else(|| self.carry(states, len));
        self.start_states(params, start, (&carried, state), (places, anew), y);
        self.carried = Some(carried);
    }

    fn keep_state(&self, state: usize, places: Indices, y: Block) {
        let carried = self.carried.as_ref().expect("loaded before");
        self.keep_states((carried, state), places, y);
    }

    fn fill(&mut self, to: Block, value: T) {
        self.queue.fill(self.view(to), value.to_f64());
    }

    fn copy(&mut self, from: Block, to: Block) {
        self.queue.copy(self.view(from), self.view(to));
    }

    fn axpy(&mut self, alpha: T, from: Block, to: Block) {
        self.queue.axpy(alpha.to_f64(), self.view(from), self.view(to));
    }

    fn sum(&mut self, summands: &[Block], out: Block) {
        let views: Vec<_> = summands.iter().map(|&block| self.view(block)).collect();
        let out = self.view(out);
        if views.is_empty() {
            return self.queue.fill(out, 0.0);
        }
        if views.iter().all(|view| view.format() == out.format()) {
            return self.queue.sum(&views, out);
        }
        self.queue.copy(views[0], out);
        for &view in &views[1..] {
            self.queue.axpy(1.0, view, out);
        }
    }

    fn copy_runs(&mut self, shape: (usize, usize), from: Runs, to: Runs) {
        self.runs(shape, None, from, to);
    }

    fn add_runs(&mut self, shape: (usize, usize), alpha: T, from: Runs, to: Runs) {
        self.runs(shape, Some(alpha.to_f64()), from, to);
    }

    fn broadcast(&mut self, params: &Params<Self>, table: ParamId, y: Block) {
        self.queue.broadcast(master(params, table), self.view(y));
    }

    fn add_table(&mut self, params: &Params<Self>, table: ParamId, scale: f64, every: usize, x: Block) {
        self.queue.add_table(master(params, table), scale, every, self.view(x));
    }

    fn table_grad(&mut self, grads: &mut Grads<Self>, table: ParamId, scale: f64, every: usize, dy: Block) {
        self.queue.table_grad(self.view(dy), scale, every, self.sums(grads, table));
    }

    fn embed(
        &mut self,
        params: &Params<Self>,
        table: ParamId,
        tokens: Indices,
        shape: (usize, usize),
        scale: f64,
        y: Block,
    ) {
        let (_, width) = params.shape(table);
        self.queue.embed((master(params, table), width), self.indices(tokens), shape, scale, self.view(y));
    }

    fn embed_backward(
        &mut self,
        grads: &mut Grads<Self>,
        table: ParamId,
        tokens: Indices,
        shape: (usize, usize),
        scale: f64,
        dy: Block,
    ) {
        let width = grads.layout().tensors()[table.index()].cols;
        let d_table = self.sums(grads, table);
        self.queue.embed_backward(self.view(dy), width, self.indices(tokens), shape, scale, d_table);
    }

    fn linear(&mut self, params: &Params<Self>, weight: ParamId, x: Block, y: Block, epilogue: Option<NormEpilogue>) {
        let (n_out, n_in) = params.shape(weight);
        let packed = params.weights[weight.index()].packed().filter(|_| self.on_tensor_cores(&[x], &[]));
        let Some([w, _]) = packed else {
            let sizes = Sizes { pieces: 1, vectors: x.len() / n_in, inner: 0, n_in, n_out };
            let w = master(params, weight);
            if epilogue.is_none() && self.is_narrow(x, y, (n_out, n_in)) {
                return self.queue.narrow_linear(self.view(x), w, self.view(y), (n_out, n_in));
            }
            self.apply(Over::Features, sizes, w, self.view(x), self.view(y), [n_out, n_in], false);
            return self.norm_of(epilogue, Over::Features, n_out, y);
        };
        let fused =
            epilogue.filter(|then| self.queue.linear_norm_fits(n_out) && self.on_tensor_cores(&[then.h, y], &[]));
        if let Some(epilogue) = fused {
            return self.linear_add_rmsnorm(x, w, y, epilogue, (n_out, n_in));
        }
        self.queue.linear_bf16(self.view(x), w, None, self.view(y), (n_out, n_in));
        self.norm_of(epilogue, Over::Features, n_out, y);
    }

    fn fuses_sum(&self, params: &Params<Self>, swiglu: SwiGlu, blocks: &[Block]) -> bool {
        self.gates_on_tensor_cores(params, swiglu, blocks) && self.queue.linear_norm_sum_fits(params.shape(swiglu.down))
    }

    fn norms_input_grad(&self, params: &Params<Self>, weights: &[ParamId], blocks: &[Block]) -> bool {
        let (n_out, n_in) = params.shape(weights[0]);
        self.on_tensor_cores(blocks, &[])
            && weights.iter().all(|id| params.weights[id.index()].packed().is_some())
            && params.weights[weights[0].index()].transposed().is_some()
            && self.queue.linear_norm_backward_fits((n_in, n_out))
    }

    fn linear_backward(&mut self, params: &Params<Self>, weight: ParamId, dy: Block, dx: InputGrad) {
        let (n_out, n_in) = params.shape(weight);
        let transposed = params.weights[weight.index()].transposed().filter(|_| self.on_tensor_cores(&[dy], &[]));
        if let Some(transposed) = transposed {
            return self.input_grad(dy, transposed, dx, (n_in, n_out));
        }
        let (accumulate, dx) = (self.begin_input_grad(dx), dx.to);
        let sizes = Sizes { pieces: 1, vectors: dy.len() / n_out, inner: 0, n_in, n_out };
        let w = master(params, weight);
        if self.is_narrow(dx, dy, (n_out, n_in)) {
            return self.queue.narrow_linear_backward(self.view(dy), w, self.view(dx), accumulate, (n_out, n_in));
        }
        self.apply_transposed(Over::Features, sizes, w, self.view(dy), self.view(dx), [n_out, n_in], accumulate);
    }

    fn weight_grad(&mut self, params: &Params<Self>, grads: &mut Grads<Self>, weight: ParamId, dy: Block, x: Block) {
        let (n_out, n_in) = params.shape(weight);
        if self.on_tensor_cores(&[dy, x], &[n_out, n_in]) {
            let sums = self.sums(grads, weight);
            return self.queue.weight_grad_bf16(self.view(dy), self.view(x), sums, false, (n_out, n_in));
        }
        if self.is_narrow(x, dy, (n_out, n_in)) {
            let sums = self.sums(grads, weight);
            return self.queue.narrow_weight_grad(self.view(dy), self.view(x), sums, (n_out, n_in));
        }
        let sizes = Sizes { pieces: 1, vectors: dy.len() / n_out, inner: 0, n_in, n_out };
        self.add_weight_grad(Over::Features, sizes, (grads, weight), self.view(dy), self.view(x), [n_out, n_in]);
    }

    fn swiglu_saved_len(&self, params: &Params<Self>, swiglu: SwiGlu, len: usize) -> usize {
        // The fused kernels make gates and ups again.
        if self.mixes(params, swiglu, &[]) { 0 } else { Sizes::of(params, swiglu, len).gate_up_len() }
    }

    fn swiglu(
        &mut self,
        params: &Params<Self>,
        swiglu: SwiGlu,
        x: Block,
        saved: Option<Block>,
        y: Block,
        epilogue: Option<NormEpilogue>,
    ) {
        if self.gates_on_tensor_cores(params, swiglu, &[x, y]) {
            return self.swiglu_on_tensor_cores(params, swiglu, x, saved, y, epilogue);
        }
        let width = if swiglu.over == Over::Features { params.shape(swiglu.down).0 } else { swiglu.width };
        if self.mixes(params, swiglu, &[x, y]) {
            let (rows, inner) = (Self::mix_rows(swiglu, x.len()), params.shape(swiglu.down).1);
            let [gate_up, down] = [swiglu.gate_up, swiglu.down].map(|id| &params.weights[id.index()]);
            let packed = gate_up.mix(down, swiglu.width).expect("asked before");
            let inside = epilogue.filter(|then| then.h == x);
            let inv_rms = inside.map(|then| self.view(then.inv_rms));
            self.queue.mix_bf16(self.view(x), &packed, (self.view(y), inv_rms), rows, inner);
            return if inside.is_none() {
                self.norm_of(epilogue, swiglu.over, width, y)
            };
        }
        let len = Sizes::of(params, swiglu, x.len()).gate_up_len();
        let gu = saved.unwrap_or_else(|| self.alloc(len, Store::Activation));
        self.swiglu_plain(params, swiglu, x, gu, y);
        if saved.is_none() {
            self.release(gu);
        }
        self.norm_of(epilogue, swiglu.over, width, y);
    }

    fn swiglu_backward(
        &mut self,
        params: &Params<Self>,
        grads: &mut Grads<Self>,
        swiglu: SwiGlu,
        dy: Block,
        saved: Block,
        x: Block,
        dx: Option<InputGrad>,
    ) {
        if self.gates_on_tensor_cores(params, swiglu, &[x, dy]) {
            return self.swiglu_backward_on_tensor_cores(params, grads, swiglu, dy, saved, x, dx);
        }
        if self.mixes(params, swiglu, &[x, dy]) {
            let (rows, inner) = (Self::mix_rows(swiglu, x.len()), params.shape(swiglu.down).1);
            let [gate_up, down] = [swiglu.gate_up, swiglu.down].map(|id| &params.weights[id.index()]);
            let packed = gate_up.mix(down, swiglu.width).expect("asked before");
            if let Some(dx) = dx {
                let base = dx.base.unwrap_or_else(|| self.begin_sum(dx));
                let blocks = (self.view(dy), self.view(base), self.view(dx.to));
                self.queue.mix_backward_input_bf16(self.view(x), &packed, blocks, rows, inner);
            }
            let sums = (self.sums(grads, swiglu.gate_up), self.sums(grads, swiglu.down));
            return self.queue.mix_backward_weights_bf16(self.view(x), &packed, self.view(dy), sums, rows, inner);
        }
        let dx = dx.map(|dx| self.begin_sum(dx));
        self.swiglu_backward_plain(params, grads, swiglu, dy, saved, x, dx);
    }

    fn fuses_rope(&self, params: &Params<Self>, w: ParamId, shape: &AttentionShape, blocks: &[Block]) -> bool {
        self.rope_is_fused(params, w, shape, blocks)
    }

    fn linear_rope(&mut self, params: &Params<Self>, weight: ParamId, shape: &AttentionShape, x: Block, qkv: Block) {
        self.product_with_rope(params, weight, shape, x, qkv);
    }

    fn attention(&mut self, _: Precision, shape: &AttentionShape, rope: Rope, qkv: Block, out: Block, lse: Block) {
        self.attend(shape, rope, qkv, [out, lse]);
    }

    fn attention_backward(
        &mut self,
        _: Precision,
        shape: &AttentionShape,
        rope: Rope,
        qkv: Block,
        out: Block,
        lse: Block,
        d_out: Block,
        d_qkv: Block,
    ) {
        self.attend_backward(shape, rope, qkv, [out, lse], [d_out, d_qkv]);
    }

    fn add_rmsnorm(&mut self, over: Over, width: usize, h: Block, x: Block, inv_rms: Block) {
        let (over_positions, rows) = Self::rows(over, width, x.len());
        self.queue.add_rmsnorm(over_positions, rows, self.view(h), self.view(x), self.view(inv_rms));
    }

    fn rmsnorm_backward(&mut self, over: Over, width: usize, y: Block, inv_rms: Block, d: Block) {
        let (over_positions, rows) = Self::rows(over, width, d.len());
        self.queue.rmsnorm_backward(over_positions, rows, self.view(y), self.view(inv_rms), self.view(d));
    }

    fn cross_entropy(
        &mut self,
        likelihood: Likelihood,
        labels: Indices,
        seq_len: usize,
        logits: Block,
        loss: Block,
        unit_grad: Block,
    ) {
        let softmax = match likelihood {
            Likelihood::Stablemax => None,
            Likelihood::Softmax { label_smoothing } => Some(label_smoothing),
        };
        let made = (self.view(loss), self.view(unit_grad));
        self.queue.cross_entropy(softmax, self.indices(labels), seq_len, self.view(logits), made);
    }

    fn bce_with_logits(&mut self, place: (usize, usize), x: Block, target: Block, loss: Block, unit_grad: Block) {
        // A target from outside of the tape's losses is kept as an activation.
        let exact = (target.element_bytes() != x.element_bytes()).then(|| self.alloc(target.len(), Store::Exact));
        if let Some(exact) = exact {
            self.copy(target, exact);
        }
        let made = (self.view(loss), self.view(unit_grad));
        self.queue.bce_with_logits(place, self.view(x), self.view(exact.unwrap_or(target)), made);
        exact.into_iter().for_each(|exact| self.release(exact));
    }

    fn bce_backward(&mut self, place: (usize, usize), d_loss: Block, unit_grad: Block, d_x: Block) {
        self.queue.bce_backward(place, self.view(d_loss), self.view(unit_grad), self.view(d_x));
    }

    fn loss_backward(&mut self, d_loss: Block, unit_grad: Block, d_x: Block) {
        self.queue.loss_backward(self.view(d_loss), self.view(unit_grad), self.view(d_x));
    }

    fn score(&mut self, labels: Indices, seq_len: usize, logits: Block, correct: Block, labelled: Block, exact: Block) {
        let counts = [correct, labelled, exact].map(|block| self.view(block));
        self.queue.score(self.indices(labels), seq_len, self.view(logits), counts);
    }

    fn predict(&self, logits: Block, tokens: &mut [u8]) {
        let room = DeviceMemory::new(self.queue, tokens.len());
        self.queue.predict(self.view(logits), tokens.len(), &room);
        room.download(0, tokens);
    }

    fn continue_target(&mut self, is_last: Indices, q: Block, target: Block) {
        self.queue.continue_target(self.indices(is_last), self.view(q), self.view(target));
    }

    fn route(&mut self, experts: usize, per_row: usize, logits: Block, gates: Block) {
        self.queue.route((experts, per_row), self.view(logits), self.view(gates));
    }

    fn route_backward(&mut self, experts: usize, gates: Block, d_gates: Block, d_logits: Block) {
        self.queue.route_backward(experts, self.view(gates), self.view(d_gates), self.view(d_logits));
    }

    fn chosen(&self, experts: usize, gates: Block, lists: &mut Vec<u32>) {
        // How many rows an expert takes decides about sizes, so the host has to know.
        crate::device::reference::experts::chosen(experts, &self.read(gates), lists);
    }

    fn gather(&mut self, rows: &[u32], width: usize, x: Block, y: Block) {
        let rows = self.rows_of(rows);
        self.queue.gather(self.indices(rows), width, self.view(x), self.view(y));
    }

    fn scatter(&mut self, rows: &[u32], width: usize, dy: Block, dx: Block) {
        let rows = self.rows_of(rows);
        self.queue.scatter(self.indices(rows), width, self.view(dy), self.view(dx));
    }

    fn add_expert(&mut self, choice: Choice<'_>, x: Block, y: Block) {
        let rows = self.rows_of(choice.rows);
        let gates = (self.view(choice.gates), choice.experts, choice.expert);
        self.queue.add_expert(self.indices(rows), gates, choice.width, self.view(x), self.view(y));
    }

    fn add_expert_backward(
        &mut self,
        choice: Choice<'_>,
        dy: Block,
        x: Block,
        dx: Option<Block>,
        d_gates: Option<Block>,
    ) {
        let rows = self.rows_of(choice.rows);
        let gates = (self.view(choice.gates), choice.experts, choice.expert);
        let wanted = (dx.map(|block| self.view(block)), d_gates.map(|block| self.view(block)));
        let given = (self.view(dy), self.view(x));
        self.queue.add_expert_backward(self.indices(rows), gates, choice.width, given, wanted);
    }

    fn load_balance(&mut self, choices: (usize, &[u32]), weight: f64, logits: Block, loss: Block, unit_grad: Block) {
        let picks = self.rows_of(choices.1);
        let made = (self.view(loss), self.view(unit_grad));
        self.queue.load_balance((choices.0, self.indices(picks)), weight, self.view(logits), made);
    }

    fn distance(&self, before: Block, after: Block, sequences: usize, sums: &mut [[f64; 2]]) {
        let own = self.queue.distance(self.view(before), self.view(after), sequences);
        sums.iter_mut().zip(own).for_each(|(sum, own)| *sum = [sum[0] + own[0], sum[1] + own[1]]);
    }

    fn residual_product(&self, p: [Block; 2], q: [Block; 2], sequences: usize, sums: &mut [f64]) {
        let [p, q] = [p, q].map(|pair| pair.map(|block| self.view(block)));
        let own = self.queue.residual_product(p, q, sequences);
        sums.iter_mut().zip(own).for_each(|(sum, own)| *sum += own);
    }
}
