//! Kernels of a mixture of experts, and of iterations towards a fixed point. Rows are the caller's to keep inside of what they
//! are rows of.

use super::queue::enqueue;
use super::{Backend, DeviceMemory, Integers, Queue, View, ffi};

impl<B: Backend> Queue<B> {
    /// Gates of each row of logits `[rows, experts]`.
    pub fn route(self, (experts, per_row): (usize, usize), logits: View<'_>, gates: View<'_>) {
        let rows = logits.len() / experts;
        assert!(logits.len() == rows * experts && gates.len() == logits.len() && (1..=experts).contains(&per_row));
        enqueue!(self, route(logits.array, gates.array, rows as i64, experts as i64, per_row as i64));
    }

    /// `d_logits[e] ← d_logits[e] + g[e] (dg[e] − Σ g·dg)`.
    pub fn route_backward(self, experts: usize, gates: View<'_>, d_gates: View<'_>, d_logits: View<'_>) {
        let rows = gates.len() / experts;
        assert!([gates, d_gates, d_logits].iter().all(|view| view.len() == rows * experts));
        enqueue!(self, route_backward(gates.array, d_gates.array, d_logits.array, rows as i64, experts as i64));
    }

    /// `y[p] ← x[rows[p]]`, then rows of zeros.
    pub fn gather(self, rows: Integers<'_>, width: usize, x: View<'_>, y: View<'_>) {
        let y_rows = y.len() / width;
        assert!(y.len() == y_rows * width && rows.len() <= y_rows && x.len().is_multiple_of(width));
        let count = rows.len() as i64;
        enqueue!(self, gather(rows.data, count, x.array, y.array, y_rows as i64, width as i64));
    }

    /// `dx[rows[p]] ← dx[rows[p]] + dy[p]`.
    pub fn scatter(self, rows: Integers<'_>, width: usize, dy: View<'_>, dx: View<'_>) {
        assert!(dy.len() >= rows.len() * width && dx.len().is_multiple_of(width));
        enqueue!(self, scatter(rows.data, rows.len() as i64, dy.array, dx.array, width as i64));
    }

    /// `y[rows[p]] ← y[rows[p]] + gates[rows[p], expert] · x[p]`.
    pub fn add_expert(
        self,
        rows: Integers<'_>,
        (gates, experts, expert): (View<'_>, usize, usize),
        width: usize,
        x: View<'_>,
        y: View<'_>,
    ) {
        assert!(expert < experts && x.len() >= rows.len() * width && gates.len() * width == y.len() * experts);
        let [count, experts, expert, width] = [rows.len(), experts, expert, width].map(|size| size as i64);
        enqueue!(self, add_expert(rows.data, count, gates.array, experts, expert, x.array, y.array, width));
    }

    /// The gradients of x and of the gates in [`Queue::add_expert`], where they are wanted.
    pub fn add_expert_backward(
        self,
        rows: Integers<'_>,
        (gates, experts, expert): (View<'_>, usize, usize),
        width: usize,
        (dy, x): (View<'_>, View<'_>),
        (dx, d_gates): (Option<View<'_>>, Option<View<'_>>),
    ) {
        assert!(expert < experts && x.len() >= rows.len() * width && gates.len() * width == dy.len() * experts);
        assert!(dx.is_none_or(|dx| dx.len() == x.len()) && d_gates.is_none_or(|d| d.len() == gates.len()));
        let [dx, d_gates] = [dx, d_gates].map(|view| view.map_or(ffi::RawArray::NONE, |view| view.array));
        let [count, experts, expert, width] = [rows.len(), experts, expert, width].map(|size| size as i64);
        enqueue!(
            self,
            add_expert_backward(rows.data, count, gates.array, experts, expert, dy.array, x.array, dx, d_gates, width)
        );
    }

    /// The load-balancing loss of each sequence and its gradient; picks are `[sequences, experts]`.
    pub fn load_balance(
        self,
        (experts, picks): (usize, Integers<'_>),
        weight: f64,
        logits: View<'_>,
        (loss, unit_grad): (View<'_>, View<'_>),
    ) {
        let sequences = loss.len();
        let rows = logits.len() / experts / sequences;
        assert!(picks.len() == sequences * experts && logits.len() == sequences * rows * experts);
        assert_eq!(unit_grad.len(), logits.len());
        let [sequences, rows, experts] = [sequences, rows, experts].map(|size| size as i64);
        enqueue!(
            self,
            load_balance(picks.data, weight, logits.array, loss.array, unit_grad.array, sequences, rows, experts)
        );
    }

    /// `(‖after − before‖², ‖after‖²)` of each sequence.
    pub fn distance(self, before: View<'_>, after: View<'_>, sequences: usize) -> Vec<[f64; 2]> {
        assert!(before.len() == after.len() && before.len().is_multiple_of(sequences));
        let sums = DeviceMemory::new(self, sequences * size_of::<[f64; 2]>());
        let size = (before.len() / sequences) as i64;
        enqueue!(self, distance(before.array, after.array, sums.data().cast(), sequences as i64, size));
        let mut values = vec![[0.0; 2]; sequences];
        sums.download(0, values.as_flattened_mut());
        values
    }

    /// The inner product of two residuals `after − before` of each sequence.
    pub fn residual_product(self, p: [View<'_>; 2], q: [View<'_>; 2], sequences: usize) -> Vec<f64> {
        let len = p[0].len();
        assert!(p.iter().chain(&q).all(|view| view.len() == len) && len.is_multiple_of(sequences));
        let sums = DeviceMemory::new(self, sequences * size_of::<f64>());
        let ([p, p_after], [q, q_after]) = (p.map(|view| view.array), q.map(|view| view.array));
        let (count, size) = (sequences as i64, (len / sequences) as i64);
        enqueue!(self, residual_product(p, p_after, q, q_after, sums.data().cast(), count, size));
        let mut values = vec![0.0; sequences];
        sums.download(0, &mut values);
        values
    }
}
