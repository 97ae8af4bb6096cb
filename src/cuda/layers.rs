//! Kernels of the layers: products, norms, SwiGLU, attention; their plain form, and the one on tensor cores.

use super::queue::enqueue;
use super::{Backend, DeviceMemory, ElementFormat, Queue, View, ffi};

/// Where the gradient of a weight tensor is summed: an array of its shape for each slice of the batch.
#[derive(Clone, Copy, Debug)]
pub struct GradientSums<'a> {
    /// From the first slice's tensor to the end of the last one's.
    all: View<'a>,
    /// Elements from one slice's to the next.
    stride: usize,
    slices: usize,
    /// Sequences of a slice; the last one may have fewer.
    per_slice: usize,
    sequences: usize,
    /// Elements of the tensor.
    len: usize,
}

impl<'a> GradientSums<'a> {
    /// Sums of a tensor of `len` elements at `start` of a buffer that holds arrays of `stride` elements, one a slice;
    /// `sequences` are dealt out to slices `per_slice` at a time.
    pub fn new<B: Backend>(
        memory: &'a DeviceMemory<B>,
        format: ElementFormat,
        (first, stride): (usize, usize),
        (start, len): (usize, usize),
        (sequences, per_slice): (usize, usize),
    ) -> Self {
        let slices = sequences.div_ceil(per_slice);
        assert!(start + len <= stride && slices > 0, "a tensor lies inside of its slice");
        let all = memory.view((first * stride + start) * format.bytes(), (slices - 1) * stride + len, format);
        Self { all, stride, slices, per_slice, sequences, len }
    }

    /// Elements of the tensor.
    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// For kernels that sum over `rows` rows, equally many of each sequence.
    pub(super) fn of_rows(&self, rows: usize) -> ffi::Sums {
        assert!(rows.is_multiple_of(self.sequences), "each sequence has equally many rows");
        let rows = rows / self.sequences * self.per_slice;
        ffi::Sums {
            data: self.all.array.data,
            format: self.all.array.format,
            stride: self.stride as i64,
            rows: rows as i64,
        }
    }

    /// Slices, sequences of each and of the last one.
    pub fn slices(&self) -> (usize, usize, usize) {
        (self.slices, self.per_slice, self.sequences - (self.slices - 1) * self.per_slice)
    }

    /// Sequences at hand.
    pub fn sequences(&self) -> usize {
        self.sequences
    }

    /// The arrays and the distance between them, for a plain product.
    pub fn arrays(&self) -> (View<'a>, usize) {
        (self.all, self.stride)
    }
}

/// Sequences, positions of each, features of each position.
#[derive(Clone, Copy, Debug)]
pub struct Rows {
    /// Sequences.
    pub sequences: usize,
    /// Positions of a sequence.
    pub len: usize,
    /// Features of a position.
    pub width: usize,
}

impl Rows {
    fn elements(self) -> usize {
        self.sequences * self.len * self.width
    }

    fn sizes(self) -> [i64; 3] {
        [self.sequences, self.len, self.width].map(|size| size as i64)
    }
}

/// A product for [`Queue::product`]: `c[z] ← Σ parts p of a[z, p] b[z, p]`. Distances are in elements: of rows, columns, z and p.
#[derive(Clone, Copy, Debug)]
pub struct PlainProduct<'a> {
    /// `m×k`, and its distances.
    pub a: (View<'a>, [usize; 4]),
    /// `k×n`, and its distances.
    pub b: (View<'a>, [usize; 4]),
    /// `m×n`, and its distances; the last one is not used.
    pub c: (View<'a>, [usize; 4]),
    /// m, n and k.
    pub sizes: [usize; 3],
    /// How many z there are.
    pub batch: usize,
    /// How many parts are summed.
    pub parts: usize,
    /// k and parts of the last z.
    pub last: (usize, usize),
    /// Whether c is added to.
    pub accumulate: bool,
}

/// In which form a weight is packed; see `trm_pack` of the header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackForm {
    /// Gates and ups alternate.
    pub interleave: bool,
    /// Rows become columns.
    pub transpose: bool,
    /// Neighbouring outputs that a thread gets where warpgroups multiply: 4 in [`Queue::swiglu_backward_bf16`], else 8.
    pub run: usize,
}

/// Shape of attention.
#[derive(Clone, Copy, Debug)]
pub struct AttentionSizes {
    /// Sequences.
    pub sequences: usize,
    /// Positions of each.
    pub len: usize,
    /// Heads.
    pub heads: usize,
    /// Features of a head.
    pub head_dim: usize,
}

impl AttentionSizes {
    fn raw(self) -> ffi::Attention {
        let [sequences, len, heads, head_dim] =
            [self.sequences, self.len, self.heads, self.head_dim].map(|size| size as i64);
        ffi::Attention { sequences, len, heads, head_dim }
    }

    fn check(self, qkv: View<'_>, cos_sin: Option<View<'_>>, outs: &[View<'_>], statistics: &[View<'_>]) {
        assert!(cos_sin.is_none_or(|view| view.len() == self.len * self.head_dim && self.head_dim.is_multiple_of(2)));
        let rows = self.sequences * self.len;
        assert_eq!(qkv.len(), 3 * rows * self.heads * self.head_dim);
        assert!(outs.iter().all(|out| out.len() == rows * self.heads * self.head_dim));
        assert!(statistics.iter().all(|lse| lse.len() == rows * self.heads));
    }
}

/// The kernels of attention; its shape chooses them, whatever the number of sequences.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AttentionKernels {
    /// Of any format and size.
    Plain,
    /// On tensor cores.
    TensorCores,
    /// On tensor cores, a head at once.
    Short,
}

/// The last element that distances and counts reach, and so the elements that an operand has to have.
fn reach(distances: [usize; 4], counts: [usize; 4]) -> usize {
    1 + distances.iter().zip(counts).map(|(distance, count)| distance * (count.max(1) - 1)).sum::<usize>()
}

impl<B: Backend> Queue<B> {
    /// A product of any formats and distances.
    pub fn product(self, p: &PlainProduct<'_>) {
        let [m, n, k] = p.sizes;
        if m * n * p.batch == 0 {
            return;
        }
        let inside = |(view, distances): (View<'_>, [usize; 4]), counts| reach(distances, counts) <= view.len();
        assert!(p.last.0 <= k && p.last.1 <= p.parts && !p.a.0.is_empty() && !p.b.0.is_empty());
        // The last z may have fewer of both; where it has, its operands end earlier.
        let whole = |z: usize, k, parts| {
            let a = [p.a.1[0], p.a.1[1], p.a.1[2], p.a.1[3]];
            inside((p.a.0, a), [m, k, z, parts]) && inside((p.b.0, p.b.1), [k, n, z, parts])
        };
        assert!(p.batch < 2 || whole(p.batch - 1, k, p.parts), "operands of a product lie inside");
        assert!(whole(p.batch, p.last.0, p.last.1), "operands of a product lie inside");
        assert!(inside((p.c.0, [p.c.1[0], p.c.1[1], p.c.1[2], 0]), [m, n, p.batch, 1]), "the product lies inside");
        let size = |value: usize| value as i64;
        let raw = ffi::Product {
            a: p.a.0.array,
            b: p.b.0.array,
            c: p.c.0.array,
            m: size(m),
            n: size(n),
            k: size(k),
            a_row: size(p.a.1[0]),
            a_col: size(p.a.1[1]),
            b_row: size(p.b.1[0]),
            b_col: size(p.b.1[1]),
            c_row: size(p.c.1[0]),
            c_col: size(p.c.1[1]),
            batch: size(p.batch),
            a_batch: size(p.a.1[2]),
            b_batch: size(p.b.1[2]),
            c_batch: size(p.c.1[2]),
            parts: size(p.parts),
            a_part: size(p.a.1[3]),
            b_part: size(p.b.1[3]),
            k_last: size(p.last.0),
            parts_last: size(p.last.1),
            accumulate: p.accumulate.into(),
        };
        enqueue!(self, product(&raw));
    }

    /// `x ← rmsnorm(h + x)` over the features of each row, or the positions of each sequence.
    pub fn add_rmsnorm(self, over_positions: bool, rows: Rows, h: View<'_>, x: View<'_>, inv_rms: View<'_>) {
        check_norm(over_positions, rows, [h, x], inv_rms);
        let [sequences, len, width] = rows.sizes();
        enqueue!(self, add_rmsnorm(over_positions.into(), h.array, x.array, inv_rms.array, sequences, len, width));
    }

    /// `d ← r (d − y · mean(d·y))`.
    pub fn rmsnorm_backward(self, over_positions: bool, rows: Rows, y: View<'_>, inv_rms: View<'_>, d: View<'_>) {
        check_norm(over_positions, rows, [y, d], inv_rms);
        let [sequences, len, width] = rows.sizes();
        enqueue!(self, rmsnorm_backward(over_positions.into(), y.array, inv_rms.array, d.array, sequences, len, width));
    }

    /// `hidden ← silu(g)·u`, of stretches of `inner` gates and then `inner` ups.
    pub fn swiglu_hidden(self, gu: View<'_>, hidden: View<'_>, inner: usize) {
        assert!(gu.len() == 2 * hidden.len() && hidden.len().is_multiple_of(inner));
        enqueue!(self, swiglu_hidden(gu.array, hidden.array, (hidden.len() / inner) as i64, inner as i64));
    }

    /// The gradient of gates and ups from d, the one of what [`Queue::swiglu_hidden`] made.
    pub fn swiglu_hidden_backward(self, gu: View<'_>, d: View<'_>, d_gu: View<'_>, inner: usize) {
        assert!(gu.len() == 2 * d.len() && d_gu.len() == gu.len() && d.len().is_multiple_of(inner));
        let outer = (d.len() / inner) as i64;
        enqueue!(self, swiglu_hidden_backward(gu.array, d.array, d_gu.array, outer, inner as i64));
    }

    /// Gates, ups and `hidden ← silu(g)·u` of rows, on tensor cores; the weight is packed interleaved.
    pub fn swiglu_bf16(
        self,
        x: View<'_>,
        gate_up: View<'_>,
        hidden: View<'_>,
        kept: Option<View<'_>>,
        (inner, k): (usize, usize),
    ) {
        let m = x.len() / k;
        assert!(x.len() == m * k && gate_up.len() == 2 * inner * k && hidden.len() == m * inner);
        assert!(kept.is_none_or(|kept| kept.len() == 2 * m * inner));
        let kept = kept.map_or(ffi::RawArray::NONE, |kept| kept.array);
        let [m, inner, k] = [m, inner, k].map(|size| size as i64);
        enqueue!(self, swiglu_bf16(x.array, gate_up.array, hidden.array, kept, m, inner, k));
    }

    /// The gradient of gates and ups, interleaved, from dy; and hidden again.
    pub fn swiglu_backward_bf16(
        self,
        dy: View<'_>,
        down_t: View<'_>,
        kept: View<'_>,
        (d_gu, hidden): (View<'_>, View<'_>),
        (inner, n): (usize, usize),
    ) {
        let m = dy.len() / n;
        assert!(dy.len() == m * n && down_t.len() == inner * n && kept.len() == 2 * m * inner);
        assert!(d_gu.len() == 2 * m * inner && hidden.len() == m * inner);
        let [m, inner, n] = [m, inner, n].map(|size| size as i64);
        enqueue!(self, swiglu_backward_bf16(dy.array, down_t.array, kept.array, d_gu.array, hidden.array, m, inner, n));
    }

    /// Packs a weight `[rows, cols]` for tensor cores. Behind the array there is room for a multiple of 32 rows.
    pub fn pack(self, from: View<'_>, (rows, cols): (usize, usize), form: PackForm, to: View<'_>) {
        assert!(from.len() == rows * cols && to.len() == rows * cols && to.format() == ElementFormat::Bf16);
        let raw = ffi::Pack {
            from: from.array,
            to: to.array,
            rows: rows as i64,
            cols: cols as i64,
            interleave: form.interleave.into(),
            transpose: form.transpose.into(),
            run: form.run as i64,
        };
        enqueue!(self, pack(&raw));
    }

    /// Bytes of a packed SwiGLU over positions; `None` where the fused kernels do not take these sizes.
    pub fn mix_packed_bytes(self, len: usize, width: usize, inner: usize) -> Option<usize> {
        // SAFETY: it only looks at the numbers.
        let bytes = unsafe { (B::functions().mix_packed_bytes)(len as i64, width as i64, inner as i64) };
        (bytes > 0).then_some(bytes as usize)
    }

    /// Packs both weights of a SwiGLU over positions; `packed` has [`Queue::mix_packed_bytes`].
    pub fn mix_pack(self, gate_up: View<'_>, down: View<'_>, packed: &DeviceMemory<B>, (len, inner): (usize, usize)) {
        assert!(gate_up.len() == 2 * inner * len && down.len() == inner * len);
        enqueue!(self, mix_pack(gate_up.array, down.array, packed.data(), len as i64, inner as i64));
    }

    /// `y ← rmsnorm(x + swiglu(x))` over positions, or without factors `y ← swiglu(x)`, on tensor cores.
    pub fn mix_bf16(
        self,
        x: View<'_>,
        packed: &DeviceMemory<B>,
        (y, inv_rms): (View<'_>, Option<View<'_>>),
        rows: Rows,
        inner: usize,
    ) {
        self.check_mix(packed, rows, inner);
        assert!(x.len() == rows.elements() && y.len() == rows.elements());
        assert!(inv_rms.is_none_or(|inv_rms| inv_rms.len() == rows.sequences * rows.width));
        let inv_rms = inv_rms.map_or(ffi::RawArray::NONE, |inv_rms| inv_rms.array);
        let [sequences, len, width] = rows.sizes();
        enqueue!(self, mix_bf16(x.array, packed.data(), y.array, inv_rms, sequences, len, width, inner as i64));
    }

    /// `dx ← base +` the gradient of x in [`Queue::mix_bf16`] without the norm.
    pub fn mix_backward_input_bf16(
        self,
        x: View<'_>,
        packed: &DeviceMemory<B>,
        (dy, base, dx): (View<'_>, View<'_>, View<'_>),
        rows: Rows,
        inner: usize,
    ) {
        self.check_mix(packed, rows, inner);
        assert!([x, dy, base, dx].iter().all(|view| view.len() == rows.elements()));
        let ([sequences, len, width], inner) = (rows.sizes(), inner as i64);
        let [x, dy, base, dx] = [x, dy, base, dx].map(|view| view.array);
        enqueue!(self, mix_backward_input_bf16(x, packed.data(), dy, base, dx, sequences, len, width, inner));
    }

    /// The gradients of both weights in [`Queue::mix_bf16`].
    pub fn mix_backward_weights_bf16(
        self,
        x: View<'_>,
        packed: &DeviceMemory<B>,
        dy: View<'_>,
        (d_gate_up, d_down): (GradientSums<'_>, GradientSums<'_>),
        rows: Rows,
        inner: usize,
    ) {
        self.check_mix(packed, rows, inner);
        assert!(x.len() == rows.elements() && dy.len() == rows.elements());
        assert!(d_gate_up.len() == 2 * inner * rows.len && d_down.len() == inner * rows.len);
        let (d_gate_up, d_down) = (d_gate_up.of_rows(rows.sequences), d_down.of_rows(rows.sequences));
        let [sequences, len, width] = rows.sizes();
        let inner = inner as i64;
        enqueue!(
            self,
            mix_backward_weights_bf16(
                x.array,
                packed.data(),
                dy.array,
                d_gate_up,
                d_down,
                sequences,
                len,
                width,
                inner
            )
        );
    }

    fn check_mix(self, packed: &DeviceMemory<B>, rows: Rows, inner: usize) {
        let bytes = self.mix_packed_bytes(rows.len, rows.width, inner);
        assert!(bytes.is_some_and(|bytes| bytes <= packed.bytes()), "weights packed for these sizes");
    }

    /// Which kernels attend where operands are as tensor cores want them.
    pub fn attention_on_tensor_cores(self, len: usize, head_dim: usize) -> AttentionKernels {
        let [len, head_dim] = [len, head_dim].map(|size| size as i64);
        // SAFETY: they only look at the numbers.
        let (short, any) = unsafe {
            ((B::functions().attention_short_fits)(len, head_dim), (B::functions().attention_fits)(head_dim))
        };
        match (short != 0, any != 0) {
            (true, _) => AttentionKernels::Short,
            (false, true) => AttentionKernels::TensorCores,
            (false, false) => AttentionKernels::Plain,
        }
    }

    /// Turns q and k in place by the angles whose cosines and sines are `cos_sin` `[len, head_dim/2, 2]`, or back.
    fn rope(self, qkv: View<'_>, cos_sin: Option<View<'_>>, inverse: bool, shape: AttentionSizes) {
        if let Some(cos_sin) = cos_sin {
            enqueue!(self, rope(qkv.array, cos_sin.array, inverse.into(), shape.raw()));
        }
    }

    /// Attention, q and k being turned by `cos_sin` first; qkv is used up.
    pub fn attention(
        self,
        kernels: AttentionKernels,
        shape: AttentionSizes,
        qkv: View<'_>,
        cos_sin: Option<View<'_>>,
        (out, lse): (View<'_>, View<'_>),
    ) {
        shape.check(qkv, cos_sin, &[out], &[lse]);
        if kernels == AttentionKernels::Short {
            let cos_sin = cos_sin.map_or(ffi::RawArray::NONE, |view| view.array);
            return enqueue!(self, attention_short(qkv.array, cos_sin, out.array, lse.array, shape.raw()));
        }
        self.rope(qkv, cos_sin, false, shape);
        match kernels {
            AttentionKernels::Plain => enqueue!(self, attention(qkv.array, out.array, lse.array, shape.raw())),
            _ => enqueue!(self, attention_bf16(qkv.array, out.array, lse.array, shape.raw())),
        }
    }

    /// The gradient of q, k and v before they were turned, from what [`Queue::attention`] left: `cos_sin` are the angles, and whether
    /// it was given q and k turned. `means` is scratch of lse's shape, without which only [`AttentionKernels::Short`] can do.
    pub fn attention_backward(
        self,
        kernels: AttentionKernels,
        shape: AttentionSizes,
        (qkv, cos_sin): (View<'_>, Option<(View<'_>, bool)>),
        (out, lse): (View<'_>, View<'_>),
        (d_out, d_qkv): (View<'_>, View<'_>),
        means: Option<View<'_>>,
    ) {
        let (cos_sin, were_turned) = cos_sin.unzip();
        let were_turned = were_turned.unwrap_or_default();
        shape.check(qkv, cos_sin, &[out, d_out], &[lse, means.unwrap_or(lse)]);
        assert!(d_qkv.len() == qkv.len() && (means.is_some() || kernels == AttentionKernels::Short));
        let (turned, angles, sizes) = (d_qkv, cos_sin, shape.raw());
        let [qkv, out, lse, d_out, d_qkv] = [qkv, out, lse, d_out, d_qkv].map(|view| view.array);
        let [cos_sin, means] = [cos_sin, means].map(|view| view.map_or(ffi::RawArray::NONE, |view| view.array));
        match kernels {
            AttentionKernels::Short => {
                let turns = (!were_turned).into();
                enqueue!(self, attention_short_backward(qkv, cos_sin, turns, out, lse, d_out, d_qkv, sizes));
            }
            AttentionKernels::TensorCores => {
                enqueue!(self, attention_backward_bf16(qkv, cos_sin, out, lse, d_out, d_qkv, means, sizes));
            }
            AttentionKernels::Plain => {
                enqueue!(self, attention_backward(qkv, out, lse, d_out, d_qkv, means, sizes));
                self.rope(turned, angles, true, shape);
            }
        }
    }
}

fn check_norm(over_positions: bool, rows: Rows, values: [View<'_>; 2], inv_rms: View<'_>) {
    let factors = if over_positions { rows.sequences * rows.width } else { rows.sequences * rows.len };
    assert!(values.iter().all(|view| view.len() == rows.elements()) && inv_rms.len() == factors);
    assert_eq!(values[0].format(), values[1].format());
}
