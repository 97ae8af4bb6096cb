//! The fused SwiGLU against its parts: products, packings and the activation between them.

use proptest::prelude::*;

use super::silu::{silu_mul, silu_mul_backward};
use super::{assert_close, unset, values};
use trm_simd::math::Use;
use trm_simd::*;

/// One SwiGLU, fused and in parts. Columns are `[width, vectors]` where rows are `[vectors, width]`.
struct Case<T> {
    side: Side,
    precision: Precision,
    width: usize,
    inner: usize,
    out: usize,
    vectors: usize,
    gate_up: PackedWeight<T>,
    down: PackedWeight<T>,
    /// W_gate_up and W_down, packed like any other weight, for rows.
    plain: [PackedWeight<T>; 2],
    x: Vec<T>,
}

impl<T: Real> Case<T> {
    fn new(side: Side, precision: Precision, (width, inner, out): (usize, usize, usize), vectors: usize) -> Self {
        let (wide, narrow) = (values::<T>(2 * inner * width, 1), values::<T>(out * inner, 2));
        let mut gate_up = PackedWeight::gate_up(inner, width, side, precision);
        let mut down = PackedWeight::new(out, inner, side, precision);
        let shapes = [(2 * inner, width), (out, inner)];
        let mut plain = shapes.map(|(n_out, n_in)| PackedWeight::new(n_out, n_in, Side::Rows, precision));
        gate_up.pack(&wide);
        down.pack(&narrow);
        plain[0].pack(&wide);
        plain[1].pack(&narrow);
        let x = values(vectors * width, 3);
        Self { side, precision, width, inner, out, vectors, gate_up, down, plain, x }
    }

    /// `W x` of each vector, as rows `[vectors, out]`, from rows `[vectors, in]`.
    fn product(&self, weight: &PackedWeight<T>, x: &[T]) -> Vec<T> {
        let mut y = vec![T::ZERO; self.vectors * weight.shape().0];
        weight.forward_rows(x, &mut y, None, 1);
        y
    }

    fn forward(&self, saved: Option<&mut [T]>) -> Vec<T> {
        let mut y = vec![T::ZERO; self.vectors * self.out];
        swiglu(&self.gate_up, &self.down, &self.x, saved, &mut y, None, 1);
        y
    }

    /// Rows `[vectors, n]` of what is columns of a sequence `[n, vectors]`; rows as they are.
    fn as_rows(&self, values: &[T], n: usize) -> Vec<T> {
        match self.side {
            Side::Rows => values.to_vec(),
            Side::Cols => (0..self.vectors * n).map(|i| values[i % n * self.vectors + i / n]).collect(),
        }
    }

    /// The other way round.
    fn out_of_rows(&self, rows: &[T], n: usize) -> Vec<T> {
        match self.side {
            Side::Rows => rows.to_vec(),
            Side::Cols => (0..self.vectors * n).map(|i| rows[i % self.vectors * n + i / self.vectors]).collect(),
        }
    }

    /// What becomes of activations.
    fn of(&self) -> Use {
        // In f64 there is nothing to be gained, but the same steps are taken.
        if self.precision == Precision::Bf16 { Use::Rounded } else { Use::Exact }
    }

    /// Bit for bit, where a plain product does not cut its depth into passes.
    fn assert_same(&self, got: &[T], want: &[T], what: &str) {
        if self.width.max(self.inner).max(self.out) <= 512 {
            assert!(got == want, "{what}, {:?}, {:?}", self.side, self.precision);
        } else {
            self.assert_near(got, want, what);
        }
    }

    /// But for the order of summation.
    fn assert_near(&self, got: &[T], want: &[T], what: &str) {
        let rounds = self.precision == Precision::Bf16 && self.inner > 512;
        let want: Vec<f64> = want.iter().map(|x| x.to_f64()).collect();
        let what = format!("{what}, {:?}, {:?}", self.side, self.precision);
        assert_close(got, &want, if rounds { 1e-2 } else { 1e-5 }, &what);
    }

    fn check(&self) {
        let [plain_gate_up, plain_down] = &self.plain;
        let x = self.as_rows(&self.x, self.width);
        let h = self.product(plain_gate_up, &x);
        let half = |from: usize| h.chunks(2 * self.inner).flat_map(|h| h[from..][..self.inner].to_vec()).collect();
        let (mut g, mut u): (Vec<T>, Vec<T>) = (half(0), half(self.inner));
        let mut a = vec![T::ZERO; g.len()];
        silu_mul(&g, &u, &mut a, self.of());
        let want = self.out_of_rows(&self.product(plain_down, &a), self.out);
        let mut saved = unset(swiglu_saved_len(&self.gate_up, self.vectors));
        self.assert_same(&self.forward(Some(&mut saved)), &want, "result");
        self.assert_same(&self.forward(None), &want, "result with nothing saved");

        // What was saved is rounded in bf16.
        if self.precision == Precision::Bf16 {
            for v in g.iter_mut().chain(&mut u) {
                *v = T::from_f64(f64::from(array::round_bf16(v.to_f64() as f32)));
            }
        }
        let dy = values::<T>(self.vectors * self.out, 4);
        let dy_rows = self.as_rows(&dy, self.out);
        plain_down.backward_rows(&dy_rows, &mut a, false, 1);
        silu_mul_backward(&mut g, &mut u, &mut a, self.of());
        let dh: Vec<T> = g.chunks(self.inner).zip(u.chunks(self.inner)).flat_map(|(g, u)| [g, u].concat()).collect();
        let before: Vec<T> = values(self.vectors * self.width, 5);
        let mut dx = self.as_rows(&before, self.width);
        plain_gate_up.backward_rows(&dh, &mut dx, true, 1);
        let dx = self.out_of_rows(&dx, self.width);

        // Gradients of the weights, from operands packed by themselves.
        let shapes = [(self.out, self.inner), (2 * self.inner, self.width)];
        let wants = [(&dy_rows, &a), (&dh, &x)].into_iter().zip(shapes).map(|((dy, x), shape)| {
            let (left_len, right_len) = deferred_len::<T>(self.precision, shape, self.vectors);
            let (mut left, mut right) = (vec![T::ZERO; left_len], vec![T::ZERO; right_len]);
            pack_deferred(self.precision, shape, (dy, x), (&mut left, &mut right));
            let uses = |_| DeferredGrad { rows: self.vectors, left: &left, right: &right };
            let mut grad = values(shape.0 * shape.1, 6);
            add_deferred(self.precision, shape, 1, uses, &mut grad, 1);
            grad
        });
        let wants: Vec<Vec<T>> = wants.collect();
        for wanted in [true, false] {
            let lens = [
                deferred_len::<T>(self.precision, shapes[0], self.vectors),
                deferred_gate_up_len::<T>(self.precision, shapes[1], self.vectors),
            ];
            let mut operands = lens.map(|(left, right)| [left, right].map(unset));
            let mut got = before.clone();
            let [[a, b], [c, d]] = &mut operands;
            let (to, dx_to) = (SwigluOperands { down: [a, b], gate_up: [c, d] }, wanted.then_some(&mut got[..]));
            let weights = (&self.gate_up, &self.down);
            swiglu_backward(weights, (&dy, &saved, &self.x), to, dx_to, 1);
            for (i, (shape, want)) in shapes.into_iter().zip(&wants).enumerate() {
                let [left, right] = &operands[i];
                let uses = |_| DeferredGrad { rows: self.vectors, left, right };
                let mut grad = values(shape.0 * shape.1, 6);
                if i == 0 {
                    add_deferred(self.precision, shape, 1, uses, &mut grad, 1);
                    self.assert_same(&grad, want, "gradient of W_down");
                } else {
                    let mut transposed = vec![T::from_f64(f64::NAN); self.inner * self.width];
                    add_deferred_gate_up(self.precision, shape, 1, uses, &mut transposed, &mut grad, 1);
                    self.assert_near(&grad, want, "gradient of W_gate_up");
                }
            }
            self.assert_near(&got, if wanted { &dx } else { &before }, "input gradient");
        }
    }
}

fn check_everywhere(shape: (usize, usize, usize), vectors: usize) {
    for side in [Side::Rows, Side::Cols] {
        for isa in Isa::available() {
            isa.run(|| {
                Case::<f32>::new(side, Precision::F32, shape, vectors).check();
                Case::<f32>::new(side, Precision::Bf16, shape, vectors).check();
            });
        }
        Case::<f64>::new(side, Precision::F32, shape, vectors).check();
    }
}

#[test]
fn fused_swiglu_equals_its_parts_bit_for_bit_at_every_edge() {
    for (shape, vectors) in [
        ((1, 1, 1), 0),
        ((1, 1, 1), 1),
        ((3, 5, 2), 7),
        ((37, 64, 37), 50),
        ((97, 130, 97), 33),
        ((20, 33, 500), 300),
        ((70, 551, 60), 25),
        // Large enough for non-temporal stores, in bf16 too.
        ((40, 512, 21), 290),
    ] {
        check_everywhere(shape, vectors);
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn fused_swiglu_equals_its_parts_bit_for_bit(
        width in 1usize..50, inner in 1usize..60, out in 1usize..50, vectors in 1usize..60,
    ) {
        check_everywhere((width, inner, out), vectors);
    }
}
