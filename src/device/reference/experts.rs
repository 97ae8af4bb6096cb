//! A mixture of experts: routing, gathering, and the load-balancing loss.

use crate::device::{Choice, Real};

/// `g[r, e] = exp(a[r, e]) / Σ chosen exp(a[r, ·])` where e is one of row r's `per_row` largest, else 0. Of equal logits the
/// first counts as the larger.
pub(crate) fn route<T: Real>(experts: usize, per_row: usize, logits: &[T], gates: &mut [T]) {
    for (a, gates) in logits.chunks_exact(experts).zip(gates.chunks_exact_mut(experts)) {
        let place = |e: usize| (0..experts).filter(|&o| a[o] > a[e] || o < e && a[o] == a[e]).count();
        let largest = a.iter().fold(f64::NEG_INFINITY, |most, x| most.max(x.to_f64()));
        let share = |e: usize| if place(e) < per_row { (a[e].to_f64() - largest).exp() } else { 0.0 };
        let total: f64 = (0..experts).map(share).sum();
        for (e, gate) in gates.iter_mut().enumerate() {
            // Never zero where chosen, however small: `chosen` reads the lists off the gates.
            let least = if place(e) < per_row { f64::from(f32::MIN_POSITIVE) } else { 0.0 };
            *gate = T::from_f64((share(e) / total).max(least));
        }
    }
}

/// `da[e] += g[e] (dg[e] − Σ g·dg)`.
pub(crate) fn route_backward<T: Real>(experts: usize, gates: &[T], d_gates: &[T], d_logits: &mut [T]) {
    let rows = d_gates.chunks_exact(experts).zip(gates.chunks_exact(experts));
    for ((dg, g), da) in rows.zip(d_logits.chunks_exact_mut(experts)) {
        let mean: T = g.iter().zip(dg).map(|(&g, &dg)| g * dg).sum();
        for ((da, &g), &dg) in da.iter_mut().zip(g).zip(dg) {
            *da += g * (term!("own gate", dg) - term!("other gates", mean));
        }
    }
}

/// The rows with a gate above 0, one expert after the other, behind the ends of the experts' lists.
pub(crate) fn chosen<T: Real>(experts: usize, gates: &[T], lists: &mut Vec<u32>) {
    let at = lists.len();
    lists.resize(at + experts, 0);
    for e in 0..experts {
        let rows = gates.chunks_exact(experts).zip(0..);
        lists.extend(rows.filter(|(gates, _)| gates[e] > T::ZERO).map(|(_, row): (_, u32)| row));
        lists[at + e] = (lists.len() - at - experts) as u32;
    }
}

/// `y[p] = x[rows[p]]`, then zeros.
pub(crate) fn gather<T: Real>(rows: &[u32], width: usize, x: &[T], y: &mut [T]) {
    for (y, &row) in y.chunks_exact_mut(width).zip(rows) {
        y.copy_from_slice(&x[row as usize * width..][..width]);
    }
    y[rows.len() * width..].fill(T::ZERO);
}

/// `dx[rows[p]] += dy[p]`.
pub(crate) fn scatter<T: Real>(rows: &[u32], width: usize, dy: &[T], dx: &mut [T]) {
    for (dy, &row) in dy.chunks_exact(width).zip(rows) {
        for (dx, &dy) in dx[row as usize * width..][..width].iter_mut().zip(dy) {
            *dx += term!("scatter", dy);
        }
    }
}

/// `y[rows[p]] += gate · x[p]`.
pub(crate) fn add_expert<T: Real>(choice: Choice<'_>, gates: &[T], x: &[T], y: &mut [T]) {
    let width = choice.width;
    for (x, &row) in x.chunks_exact(width).zip(choice.rows) {
        let gate = gates[row as usize * choice.experts + choice.expert];
        for (y, &x) in y[row as usize * width..][..width].iter_mut().zip(x) {
            *y += gate * x;
        }
    }
}

/// `dx[p] += gate · dy[row]`.
pub(crate) fn add_expert_dx<T: Real>(choice: Choice<'_>, gates: &[T], dy: &[T], dx: &mut [T]) {
    let width = choice.width;
    for (dx, &row) in dx.chunks_exact_mut(width).zip(choice.rows) {
        let gate = gates[row as usize * choice.experts + choice.expert];
        for (dx, &dy) in dx.iter_mut().zip(&dy[row as usize * width..][..width]) {
            *dx += term!("answers", gate * dy);
        }
    }
}

/// `d_gates[row, expert] += dy[row]·x[p]`.
pub(crate) fn add_expert_d_gates<T: Real>(choice: Choice<'_>, dy: &[T], x: &[T], d_gates: &mut [T]) {
    let width = choice.width;
    for (x, &row) in x.chunks_exact(width).zip(choice.rows) {
        let product: T = dy[row as usize * width..][..width].iter().zip(x).map(|(&dy, &x)| dy * x).sum();
        d_gates[row as usize * choice.experts + choice.expert] += term!("chosen gate", product);
    }
}

/// `loss[b] = w · E · Σ_e f[e]·P[e]` (arXiv 2101.03961, eq. 4), f[e] the share of the sequence's picks that went to expert
/// e, a constant. `unit_grad[r, e] = (w·E/len) · p[r, e] (f[e] − Σ f·p[r])`.
pub(crate) fn load_balance<T: Real>(
    (experts, picks): (usize, &[u32]),
    weight: f64,
    logits: &[T],
    loss: &mut [T],
    unit_grad: &mut [T],
) {
    let per_sequence = logits.len() / loss.len();
    let scale = weight * experts as f64 / (per_sequence / experts) as f64;
    let sequences = logits.chunks_exact(per_sequence).zip(unit_grad.chunks_exact_mut(per_sequence));
    for ((picks, (logits, grad)), loss) in picks.chunks_exact(experts).zip(sequences).zip(loss) {
        let all: u32 = picks.iter().sum();
        let f = |e: usize| f64::from(picks[e]) / f64::from(all);
        let mut total = 0.0;
        for (a, grad) in logits.chunks_exact(experts).zip(grad.chunks_exact_mut(experts)) {
            let largest = a.iter().fold(f64::NEG_INFINITY, |most, x| most.max(x.to_f64()));
            let sum: f64 = a.iter().map(|x| (x.to_f64() - largest).exp()).sum();
            let p = |e: usize| (a[e].to_f64() - largest).exp() / sum;
            let expected: f64 = (0..experts).map(|e| f(e) * p(e)).sum();
            total += expected;
            for (e, grad) in grad.iter_mut().enumerate() {
                *grad = T::from_f64(scale * p(e) * (f(e) - expected));
            }
        }
        *loss = T::from_f64(scale * total);
    }
}
