//! Weights and their gradients: each a flat vector, cut into named tensors by one shared [`Layout`].

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use crate::simd::{self, Precision, Real, Side, Weight, prefer_large_pages};

/// Index of a tensor in a [`Layout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParamId(u32);

impl ParamId {
    /// Position in the layout.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// How a tensor is used, and so how it is packed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// A matrix `[out, in]` applied to rows (it mixes features).
    Rows,
    /// A matrix `[out, in]` applied to columns (it mixes positions).
    Cols,
    /// The gate and up projection `[2·inner, in]` of a SwiGLU over rows.
    GateUpRows,
    /// The gate and up projection `[2·inner, in]` of a SwiGLU over columns.
    GateUpCols,
    /// Rows that are looked up or added; read as they are.
    Table,
}

/// One named tensor.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The published name (SPEC "Golden vectors"); weights travel under it.
    pub name: String,
    pub rows: usize,
    pub cols: usize,
    pub usage: Use,
    /// One-dimensional in the published files (a bias, a start vector).
    pub is_vector: bool,
    /// Changed by the optimizer; start vectors are not.
    pub trained: bool,
    range: Range<usize>,
}

impl Tensor {
    /// Shape under which the tensor is stored.
    pub fn shape(&self) -> Vec<usize> {
        if self.is_vector { vec![self.cols] } else { vec![self.rows, self.cols] }
    }

    /// Where its elements lie in the flat vector.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }
}

/// Names, shapes and places of all tensors of a model.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    tensors: Vec<Tensor>,
    len: usize,
}

impl Layout {
    /// Adds a tensor behind the others; its first element is aligned to a cache line of f32.
    pub fn push(&mut self, name: impl Into<String>, rows: usize, cols: usize, usage: Use) -> ParamId {
        let start = self.len.next_multiple_of(16);
        let range = start..start + rows * cols;
        self.len = range.end;
        self.tensors.push(Tensor { name: name.into(), rows, cols, usage, is_vector: false, trained: true, range });
        ParamId(self.tensors.len() as u32 - 1)
    }

    /// Adds a vector `[cols]`.
    pub fn push_vector(&mut self, name: impl Into<String>, cols: usize) -> ParamId {
        let id = self.push(name, 1, cols, Use::Table);
        self.tensors[id.index()].is_vector = true;
        id
    }

    /// Takes a tensor out of training.
    pub fn freeze(&mut self, id: ParamId) {
        self.tensors[id.index()].trained = false;
    }

    /// All tensors, by [`ParamId`].
    pub fn tensors(&self) -> &[Tensor] {
        &self.tensors
    }

    /// The identifiers of all tensors, in order.
    pub fn ids(&self) -> impl Iterator<Item = ParamId> + use<> {
        (0..self.tensors.len() as u32).map(ParamId)
    }

    /// Elements of the flat vector (a little more than the sum of the tensors: alignment).
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is no tensor.
    pub fn is_empty(&self) -> bool {
        self.tensors.is_empty()
    }

    /// Number of weights.
    pub fn n_weights(&self) -> usize {
        self.tensors.iter().map(|t| t.rows * t.cols).sum()
    }

    /// The tensor of that name.
    pub fn find(&self, name: &str) -> Option<ParamId> {
        self.tensors.iter().position(|t| t.name == name).map(|i| ParamId(i as u32))
    }
}

/// Values of all tensors, and the packed form of the matrices among them.
#[derive(Debug)]
pub struct Params<T> {
    layout: Arc<Layout>,
    values: Vec<T>,
    /// Of each tensor that is a matrix, the packed form, once for each NUMA node; nothing of the others.
    packed: Vec<Vec<Weight<T>>>,
    nodes: usize,
    precision: Precision,
}

/// Elements changed at a time where a tensor is not packed: large enough to pay for the hand-over, and whole cache lines.
const PIECE: usize = 1 << 15;

thread_local! {
    /// Which copy of the packed matrices the thread reads.
    static NODE: Cell<usize> = const { Cell::new(0) };
}

/// Says that the calling thread runs on this NUMA node, counted from 0: it reads that node's copy of packed weights.
pub fn set_node(node: usize) {
    NODE.set(node);
}

impl<T: Clone> Clone for Params<T> {
    /// The same weights, packed once.
    fn clone(&self) -> Self {
        let packed = self.packed.iter().map(|copies| copies.iter().take(1).cloned().collect()).collect();
        let (layout, values) = (self.layout.clone(), self.values.clone());
        Self { layout, values, packed, nodes: 1, precision: self.precision }
    }
}

impl<T: Real> Params<T> {
    /// All zeros, in full precision.
    pub fn new(layout: Arc<Layout>) -> Self {
        Self::with_precision(layout, Precision::F32)
    }

    /// All zeros; products round their operands to `precision`.
    pub fn with_precision(layout: Arc<Layout>, precision: Precision) -> Self {
        let pack = |tensor: &Tensor| {
            let (rows, cols) = (tensor.rows, tensor.cols);
            match tensor.usage {
                Use::Rows => Some(Weight::with(rows, cols, Side::Rows, precision)),
                Use::Cols => Some(Weight::with(rows, cols, Side::Cols, precision)),
                Use::GateUpRows => Some(Weight::gate_up(rows / 2, cols, Side::Rows, precision)),
                Use::GateUpCols => Some(Weight::gate_up(rows / 2, cols, Side::Cols, precision)),
                Use::Table => None,
            }
        };
        let packed = layout.tensors().iter().map(|tensor| pack(tensor).into_iter().collect()).collect();
        Self { values: vec![T::ZERO; layout.len()], packed, nodes: 1, layout, precision }
    }

    /// Number format of the operands of products.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The flat vector.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// `(rows, cols)` of a tensor.
    pub fn shape(&self, id: ParamId) -> (usize, usize) {
        let tensor = &self.layout.tensors[id.index()];
        (tensor.rows, tensor.cols)
    }

    /// One tensor, row-major.
    pub fn get(&self, id: ParamId) -> &[T] {
        &self.values[self.layout.tensors[id.index()].range()]
    }

    /// One matrix, packed for products; the copy of the calling thread's NUMA node.
    pub fn weight(&self, id: ParamId) -> &Weight<T> {
        let copies = &self.packed[id.index()];
        copies.get(NODE.get()).or(copies.first()).expect("the tensor was declared a matrix")
    }

    /// Number of copies of the packed matrices.
    pub fn nodes(&self) -> usize {
        self.nodes
    }

    /// Keeps a copy of the packed matrices for each of so many NUMA nodes, each made by a thread of its node, whose
    /// memory it then lies in. To be called inside the pool whose threads have said where they are ([`set_node`]).
    pub fn replicate(&mut self, nodes: usize) {
        let packed = &self.packed;
        let made: Vec<AtomicBool> = (0..nodes).map(|_| AtomicBool::new(false)).collect();
        let copies = rayon::broadcast(|_| {
            let node = NODE.get();
            let is_first = made.get(node).is_some_and(|made| !made.swap(true, Ordering::Relaxed));
            let copy = || packed.iter().map(|copies| copies.first().cloned()).collect::<Vec<_>>();
            is_first.then(|| (node, copy()))
        });
        let mut copies: Vec<(usize, Vec<Option<Weight<T>>>)> = copies.into_iter().flatten().collect();
        copies.sort_by_key(|&(node, _)| node);
        assert_eq!(copies.len(), nodes, "every node has a thread");
        self.packed.iter_mut().for_each(Vec::clear);
        for (_, copy) in copies {
            for (all, weight) in self.packed.iter_mut().zip(copy) {
                all.extend(weight);
            }
        }
        self.nodes = nodes;
    }

    /// Changes the values, then packs the matrices again (in parallel; packing only moves data).
    pub fn update<R>(&mut self, change: impl FnOnce(&mut [T]) -> R) -> R {
        let result = change(&mut self.values);
        sweep(&self.layout.tensors, &mut self.packed, [&mut self.values], &|_, _, _| ());
        result
    }

    /// Changes the values together with three arrays of the same shape, in one sweep over each tensor: `change` is given
    /// elements of a tensor (their places in the flat vector) and of each array, and a matrix is packed part by part while
    /// these are in the cache. In parallel.
    pub fn sweep(&mut self, arrays: [&mut [T]; 3], change: impl Fn(&Tensor, Range<usize>, [&mut [T]; 4]) + Sync) {
        let [a, b, c] = arrays;
        sweep(&self.layout.tensors, &mut self.packed, [&mut self.values, a, b, c], &change);
    }
}

/// [`Params::sweep`] over consecutive tensors; the arrays begin with the first one.
fn sweep<T: Real, const N: usize>(
    tensors: &[Tensor],
    packed: &mut [Vec<Weight<T>>],
    arrays: [&mut [T]; N],
    change: &(impl Fn(&Tensor, Range<usize>, [&mut [T]; N]) + Sync),
) {
    let [tensor] = tensors else {
        if let Some(first) = tensors.first() {
            let middle = tensors.len() / 2;
            let (left, right) = split(arrays, tensors[middle].range.start - first.range.start);
            let (packed_left, packed_right) = packed.split_at_mut(middle);
            rayon::join(
                || sweep(&tensors[..middle], packed_left, left, change),
                || sweep(&tensors[middle..], packed_right, right, change),
            );
        }
        return;
    };
    let (arrays, _) = split(arrays, tensor.range.len());
    let start = tensor.range.start;
    let change = |range: Range<usize>, arrays: [&mut [T]; N]| {
        change(tensor, start + range.start..start + range.end, arrays);
    };
    if packed[0].is_empty() {
        change_in_pieces(0, arrays, &change);
    } else {
        simd::update_weight(&mut packed[0], arrays, change);
    }
}

fn change_in_pieces<T: Real, const N: usize>(
    start: usize,
    arrays: [&mut [T]; N],
    change: &(impl Fn(Range<usize>, [&mut [T]; N]) + Sync),
) {
    let len = arrays[0].len();
    if len <= PIECE {
        return change(start..start + len, arrays);
    }
    let middle = (len / 2).next_multiple_of(16);
    let (left, right) = split(arrays, middle);
    rayon::join(|| change_in_pieces(start, left, change), || change_in_pieces(start + middle, right, change));
}

/// Each array in two.
fn split<T, const N: usize>(arrays: [&mut [T]; N], at: usize) -> ([&mut [T]; N], [&mut [T]; N]) {
    let mut right: [&mut [T]; N] = std::array::from_fn(|_| Default::default());
    let mut rights = right.iter_mut();
    let left = arrays.map(|array| {
        let (left, rest) = array.split_at_mut(at);
        *rights.next().expect("as many as arrays") = rest;
        left
    });
    (left, right)
}

/// Gradients of all tensors, in the same flat order.
#[derive(Clone, Debug)]
pub struct Grads<T> {
    layout: Arc<Layout>,
    values: Vec<T>,
}

impl<T: Real> Grads<T> {
    /// All zeros.
    pub fn new(layout: Arc<Layout>) -> Self {
        let mut values = vec![T::ZERO; layout.len()];
        // The system hands out zeroed pages when they are first written, so the wish is not too late.
        prefer_large_pages(&mut values);
        Self { values, layout }
    }

    /// Names and places of the tensors.
    pub fn layout(&self) -> &Arc<Layout> {
        &self.layout
    }

    /// The flat vector.
    pub fn values(&self) -> &[T] {
        &self.values
    }

    /// The flat vector, for writing.
    pub fn values_mut(&mut self) -> &mut [T] {
        &mut self.values
    }

    /// One tensor's gradient.
    pub fn get(&self, id: ParamId) -> &[T] {
        &self.values[self.layout.tensors[id.index()].range()]
    }

    /// One tensor's gradient, for adding to.
    pub fn get_mut(&mut self, id: ParamId) -> &mut [T] {
        &mut self.values[self.layout.tensors[id.index()].range()]
    }

    /// Zeros of the same shape.
    pub fn zeros_like(&self) -> Self {
        Self::new(self.layout.clone())
    }

    /// Back to zero.
    pub fn clear(&mut self) {
        self.values.fill(T::ZERO);
    }
}
