//! A tensor as the CPU's kernels read it: packed into panels, a copy for each NUMA node.

use std::sync::atomic::{AtomicBool, Ordering};

use super::Cpu;
use crate::device::{Detached, DeviceWeight, Formats, Params, Tensor, Usage, change_in_pieces, params::Change};
use crate::simd::{self, PackedWeight, Real, Side};

/// The packed form of a matrix, once for each NUMA node; nothing of a table.
#[derive(Debug)]
pub struct CpuWeight<T> {
    copies: Vec<PackedWeight<T>>,
}

impl<T: Real> Clone for CpuWeight<T> {
    /// The same weight, packed once.
    fn clone(&self) -> Self {
        Self { copies: self.copies.iter().take(1).cloned().collect() }
    }
}

impl<T: Real> CpuWeight<T> {
    /// The copy of a NUMA node.
    pub(super) fn packed(&self, node: usize) -> &PackedWeight<T> {
        self.copies.get(node).or(self.copies.first()).expect("the tensor was declared a matrix")
    }
}

impl<T: Real> DeviceWeight<T> for CpuWeight<T> {
    fn new(tensor: &Tensor, Formats { precision, detached }: Formats) -> Self {
        let (rows, cols) = (tensor.rows, tensor.cols);
        let packed = match tensor.usage {
            Usage::Rows | Usage::DownRows => Some(PackedWeight::new(rows, cols, Side::Rows, precision)),
            Usage::Cols => Some(PackedWeight::new(rows, cols, Side::Cols, precision)),
            Usage::GateUpRows => Some(PackedWeight::gate_up(rows / 2, cols, Side::Rows, precision)),
            Usage::GateUpCols => Some(PackedWeight::gate_up(rows / 2, cols, Side::Cols, precision)),
            Usage::Table => None,
        };
        let packed = packed.map(|weight| if detached == Detached::Int8 { weight.with_int8() } else { weight });
        Self { copies: packed.into_iter().collect() }
    }

    fn update<const N: usize>(&mut self, arrays: [&mut [T]; N], change: &impl Change<T, N>) {
        if self.copies.is_empty() {
            change_in_pieces(arrays, change);
        } else {
            simd::update_weight(&mut self.copies, arrays, change);
        }
    }
}

/// Keeps a copy of the packed matrices for each NUMA node, each made by a thread of its node, whose memory it then lies
/// in. Thread i of the pool that this is called in runs on `node_of_thread[i]`.
pub(super) fn replicate<T: Real>(params: &mut Params<Cpu<T>>, node_of_thread: &[usize]) {
    let nodes = node_of_thread.iter().max().map_or(1, |last| last + 1);
    let weights = &params.weights;
    if weights.iter().all(|weight| weight.copies.is_empty() || weight.copies.len() == nodes) {
        return;
    }
    let made: Vec<AtomicBool> = (0..nodes).map(|_| AtomicBool::new(false)).collect();
    let copies = rayon::broadcast(|thread| {
        let node = node_of_thread[thread.index()];
        let is_first = !made[node].swap(true, Ordering::Relaxed);
        is_first.then(|| (node, weights.iter().map(|weight| weight.copies.first().cloned()).collect::<Vec<_>>()))
    });
    let mut copies: Vec<(usize, Vec<Option<PackedWeight<T>>>)> = copies.into_iter().flatten().collect();
    copies.sort_by_key(|&(node, _)| node);
    assert_eq!(copies.len(), nodes, "every node has a thread");
    params.weights.iter_mut().for_each(|weight| weight.copies.clear());
    for (_, copy) in copies {
        for (weight, packed) in params.weights.iter_mut().zip(copy) {
            weight.copies.extend(packed);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::device::Layout;

    #[test]
    fn each_node_reads_its_own_copy_and_an_update_packs_them_all() {
        let mut layout = Layout::default();
        let id = layout.push("w", 40, 24, Usage::Rows);
        let mut params = Params::<Cpu<f32>>::new(Arc::new(layout));
        let pool = rayon::ThreadPoolBuilder::new().num_threads(4).build().expect("threads");
        pool.install(|| replicate(&mut params, &[0, 0, 1, 1]));
        let weight = |params: &Params<Cpu<f32>>| params.weights[id.index()].copies.clone();
        assert_eq!(weight(&params).len(), 2);
        pool.install(|| params.update(|values| values.fill(2.0)));
        let sums = |copy: &PackedWeight<f32>| {
            let mut y = vec![0.0; 40];
            copy.forward_rows(&[1.0; 24], &mut y, None, 1);
            y
        };
        assert!(weight(&params).iter().all(|copy| sums(copy) == [48.0; 40]));
        assert_eq!(weight(&params.clone()).len(), 1);
    }
}
