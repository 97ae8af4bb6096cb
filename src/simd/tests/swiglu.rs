//! The fused SwiGLU against its parts: products, packings and the activation between them.

use proptest::prelude::*;

use super::super::*;
use super::silu::{silu_mul, silu_mul_backward};
use super::{assert_close, unset, values};

/// One SwiGLU, fused and in parts. Columns are `[width, vectors]` where rows are `[vectors, width]`.
struct Case<T> {
    side: Side,
    precision: Precision,
    width: usize,
    inner: usize,
    out: usize,
    vectors: usize,
    gate_up: Weight<T>,
    down: Weight<T>,
    /// W_gate_up, packed like any other weight.
    plain: Weight<T>,
    x: Vec<T>,
}

impl<T: Real> Case<T> {
    fn new(side: Side, precision: Precision, (width, inner, out): (usize, usize, usize), vectors: usize) -> Self {
        let (wide, narrow) = (values::<T>(2 * inner * width, 1), values::<T>(out * inner, 2));
        let mut gate_up = Weight::gate_up(inner, width, side, precision);
        let mut plain = Weight::with(2 * inner, width, side, precision);
        let mut down = Weight::with(out, inner, side, precision);
        gate_up.pack(&wide);
        plain.pack(&wide);
        down.pack(&narrow);
        let x = values(vectors * width, 3);
        Self { side, precision, width, inner, out, vectors, gate_up, down, plain, x }
    }

    fn product(&self, weight: &Weight<T>, x: &[T], n_out: usize) -> Vec<T> {
        let mut y = vec![T::ZERO; self.vectors * n_out];
        if self.side == Side::Rows {
            weight.forward_rows(x, &mut y, None)
        } else {
            weight.forward_cols(x, &mut y)
        }
        y
    }

    fn backward_product(&self, weight: &Weight<T>, dy: &[T], dx: &mut [T], accumulate: bool) {
        match self.side {
            Side::Rows => weight.backward_rows(dy, dx, accumulate),
            _ => weight.backward_cols(dy, dx, accumulate),
        }
    }

    /// `(g, u)`, vector by vector.
    fn gates(&self) -> (Vec<T>, Vec<T>) {
        let h = self.product(&self.plain, &self.x, 2 * self.inner);
        match self.side {
            Side::Rows => {
                let half =
                    |from: usize| h.chunks(2 * self.inner).flat_map(|h| h[from..][..self.inner].to_vec()).collect();
                (half(0), half(self.inner))
            }
            _ => (h[..h.len() / 2].to_vec(), h[h.len() / 2..].to_vec()),
        }
    }

    fn forward(&self, saved: Option<&mut [T]>) -> Vec<T> {
        let mut y = vec![T::ZERO; self.vectors * self.out];
        swiglu(self.side, &self.gate_up, &self.down, &self.x, saved, &mut y, None);
        y
    }

    /// Columns of a sequence `[n, vectors]` as rows `[vectors, n]`; rows as they are.
    fn as_rows(&self, values: &[T], n: usize) -> Vec<T> {
        match self.side {
            Side::Rows => values.to_vec(),
            _ => (0..self.vectors * n).map(|i| values[i % n * self.vectors + i / n]).collect(),
        }
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
        let (mut g, mut u) = self.gates();
        let mut a = vec![T::ZERO; g.len()];
        silu_mul(&g, &u, &mut a);
        let want = self.product(&self.down, &a, self.out);
        let mut saved = unset(swiglu_saved_len(&self.gate_up, self.side, self.vectors));
        self.assert_same(&self.forward(Some(&mut saved)), &want, "result");
        self.assert_same(&self.forward(None), &want, "result with nothing saved");

        // What was saved is rounded in bf16.
        if self.precision == Precision::Bf16 {
            for v in g.iter_mut().chain(&mut u) {
                *v = T::from_f64(f64::from(array::round_bf16(v.to_f64() as f32)));
            }
        }
        let dy = values::<T>(self.vectors * self.out, 4);
        self.backward_product(&self.down, &dy, &mut a, false);
        let scales = [T::from_f64(0.5), T::from_f64(2.0)];
        silu_mul_backward(&mut g, &mut u, &mut a, scales[0], scales[1]);
        let mut dh = Vec::new();
        match self.side {
            Side::Rows => {
                for (g, u) in g.chunks(self.inner).zip(u.chunks(self.inner)) {
                    dh.extend([g, u].concat());
                }
            }
            _ => dh.extend(g.into_iter().chain(u)),
        }
        let before: Vec<T> = values(self.vectors * self.width, 5);
        let mut dx = before.clone();
        self.backward_product(&self.plain, &dh, &mut dx, true);

        // Gradients of the weights, from operands packed by themselves.
        let shapes = [(self.out, self.inner), (2 * self.inner, self.width)];
        let wants = [(&dy, &a), (&dh, &self.x)].into_iter().zip(shapes).map(|((dy, x), shape)| {
            let (dy, x) = (self.as_rows(dy, shape.0), self.as_rows(x, shape.1));
            let (dy_len, x_len) = gathered_len::<T>(self.precision, shape, self.vectors);
            let (mut to_dy, mut to_x) = (vec![T::ZERO; dy_len], vec![T::ZERO; x_len]);
            gather_rows(self.precision, shape, (&dy, &x), (&mut to_dy, &mut to_x));
            let gathered = |_| Gathered { rows: self.vectors, scale: T::ONE, dy: &to_dy, x: &to_x };
            let mut grad = values(shape.0 * shape.1, 6);
            weight_grad_gathered(self.precision, shape, 1, gathered, &mut grad);
            grad
        });
        let wants: Vec<Vec<T>> = wants.collect();
        for wanted in [true, false] {
            let lens = [
                gathered_len::<T>(self.precision, shapes[0], self.vectors),
                gathered_gate_up_len::<T>(self.precision, shapes[1], self.vectors),
            ];
            let mut operands = lens.map(|(dy, x)| [dy, x].map(unset));
            let mut got = before.clone();
            let [[a, b], [c, d]] = &mut operands;
            let (to, dx_to) = (SwigluOperands { down: [a, b], gate_up: [c, d] }, wanted.then_some(&mut got[..]));
            let weights = (&self.gate_up, &self.down);
            swiglu_backward(self.side, weights, scales, (&dy, &saved, &self.x), to, dx_to);
            for (i, (shape, want)) in shapes.into_iter().zip(&wants).enumerate() {
                let [dy, x] = &operands[i];
                let gathered = |_| Gathered { rows: self.vectors, scale: T::ONE, dy, x };
                let mut grad = values(shape.0 * shape.1, 6);
                if i == 0 {
                    weight_grad_gathered(self.precision, shape, 1, gathered, &mut grad);
                    self.assert_same(&grad, want, "gradient of W_down");
                } else {
                    let mut turned = vec![T::from_f64(f64::NAN); self.inner * self.width];
                    gate_up_grad_gathered(self.precision, shape, 1, gathered, &mut turned, &mut grad);
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
        // Large enough to go past the caches, in bf16 too.
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
