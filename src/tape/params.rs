//! Weights and their gradients: each a flat vector, cut into named tensors by one shared [`Layout`].

use std::cell::Cell;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use rayon::prelude::*;

use crate::simd::{Precision, Real, Side, Weight, prefer_large_pages};

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
    /// The packed matrices, once for each NUMA node.
    packed: Vec<Packed<T>>,
    precision: Precision,
}

/// A packed matrix for each tensor that is one.
type Packed<T> = Vec<Option<Weight<T>>>;

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
        let (layout, values, packed) = (self.layout.clone(), self.values.clone(), vec![self.packed[0].clone()]);
        Self { layout, values, packed, precision: self.precision }
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
        let packed = vec![layout.tensors().iter().map(pack).collect()];
        Self { values: vec![T::ZERO; layout.len()], packed, layout, precision }
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
        let packed = self.packed.get(NODE.get()).unwrap_or(&self.packed[0]);
        packed[id.index()].as_ref().expect("the tensor was declared a matrix")
    }

    /// Number of copies of the packed matrices.
    pub fn nodes(&self) -> usize {
        self.packed.len()
    }

    /// Keeps a copy of the packed matrices for each of so many NUMA nodes, each made by a thread of its node, whose
    /// memory it then lies in. To be called inside the pool whose threads have said where they are ([`set_node`]).
    pub fn replicate(&mut self, nodes: usize) {
        let first = &self.packed[0];
        let made: Vec<AtomicBool> = (0..nodes).map(|_| AtomicBool::new(false)).collect();
        let copies = rayon::broadcast(|_| {
            let node = NODE.get();
            let is_first = made.get(node).is_some_and(|made| !made.swap(true, Ordering::Relaxed));
            is_first.then(|| (node, first.clone()))
        });
        let mut copies: Vec<(usize, Packed<T>)> = copies.into_iter().flatten().collect();
        copies.sort_by_key(|&(node, _)| node);
        assert_eq!(copies.len(), nodes, "every node has a thread");
        self.packed = copies.into_iter().map(|(_, packed)| packed).collect();
    }

    /// Changes the values, then packs the matrices again (in parallel; packing only moves data).
    pub fn update<R>(&mut self, change: impl FnOnce(&mut [T]) -> R) -> R {
        let result = change(&mut self.values);
        let (values, layout) = (&self.values, &self.layout);
        let pack = |packed: &mut Packed<T>| {
            packed.par_iter_mut().zip(layout.tensors.par_iter()).for_each(|(packed, tensor)| {
                if let Some(packed) = packed {
                    packed.pack(&values[tensor.range()]);
                }
            });
        };
        self.packed.par_iter_mut().for_each(pack);
        result
    }
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
