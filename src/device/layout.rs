//! Names, shapes and places of the tensors of a model.

use std::ops::Range;

/// Index of a tensor in a [`Layout`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ParamId(u32);

impl ParamId {
    /// Position in the layout.
    pub fn index(self) -> usize {
        self.0 as usize
    }
}

/// How a tensor is used, and so in which form a device keeps it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// A matrix `[out, in]` applied to rows (it mixes features).
    Rows,
    /// A matrix `[out, in]` applied to columns (it mixes positions).
    Cols,
    /// The gate and up projection `[2·inner, in]` of a SwiGLU over rows.
    GateUpRows,
    /// The down projection `[out, inner]` of a SwiGLU over rows.
    DownRows,
    /// The gate and up projection `[2·inner, in]` of a SwiGLU over columns.
    GateUpCols,
    /// Rows that are looked up or added; read as they are.
    Table,
}

/// One named tensor.
#[derive(Clone, Debug)]
pub struct Tensor {
    /// The published name (specification, "Golden vectors"); weights travel under it.
    pub name: String,
    /// Rows: outputs of a matrix.
    pub rows: usize,
    /// Columns: inputs of a matrix.
    pub cols: usize,
    /// How it is used.
    pub usage: Usage,
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
    pub fn push(&mut self, name: impl Into<String>, rows: usize, cols: usize, usage: Usage) -> ParamId {
        let start = self.len.next_multiple_of(16);
        let range = start..start + rows * cols;
        self.len = range.end;
        self.tensors.push(Tensor { name: name.into(), rows, cols, usage, is_vector: false, trained: true, range });
        ParamId(self.tensors.len() as u32 - 1)
    }

    /// Adds a vector `[cols]`.
    pub fn push_vector(&mut self, name: impl Into<String>, cols: usize) -> ParamId {
        let id = self.push(name, 1, cols, Usage::Table);
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
