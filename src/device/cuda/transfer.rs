//! Between host and device memory, and what several kernels need alike.

use super::{Cuda, CudaScalar, from_bf16, to_bf16};
use crate::cuda::{Backend, DeviceMemory, ElementFormat, Rows};
use crate::device::{Block, Device as _, Indices, NormEpilogue, Over, Runs};

impl<T: CudaScalar, B: Backend> Cuda<T, B> {
    /// Makes room for so many integers; those that are there stay.
    pub(super) fn grow_integers(&mut self, len: usize) {
        let bytes = len * size_of::<i32>();
        if bytes > self.integers.bytes() {
            let mut larger = DeviceMemory::new(self.queue, bytes.next_power_of_two());
            larger.copy_from(&self.integers);
            self.integers = larger;
        }
    }

    /// Elements of device memory, on the host in the device's scalars.
    pub(super) fn read_view(memory: &DeviceMemory<B>, start: usize, len: usize, format: ElementFormat) -> Vec<T> {
        if format == T::FORMAT {
            let mut values = vec![T::ZERO; len];
            memory.download(start, &mut values);
            return values;
        }
        let mut bits = vec![0u16; len];
        memory.download(start, &mut bits);
        bits.into_iter().map(|bits| T::from_f64(from_bf16(bits))).collect()
    }

    /// Overwrites elements of device memory with values from the host.
    pub(super) fn write_view(memory: &mut DeviceMemory<B>, start: usize, values: &[T], format: ElementFormat) {
        if format == T::FORMAT {
            return memory.upload(start, values);
        }
        let bits: Vec<u16> = values.iter().map(|value| to_bf16(value.to_f64())).collect();
        memory.upload(start, &bits);
    }

    pub(super) fn rows(over: Over, width: usize, len: usize) -> (bool, Rows) {
        match over {
            Over::Features => (false, Rows { sequences: 1, len: len / width, width }),
            Over::Positions(positions) => (true, Rows { sequences: len / (positions * width), len: positions, width }),
        }
    }

    pub(super) fn rows_of(&mut self, rows: &[u32]) -> Indices {
        self.put(rows.iter().map(|&row| row as i32))
    }
}

impl<T: CudaScalar, B: Backend> Cuda<T, B> {
    pub(super) fn runs(&mut self, shape: (usize, usize), alpha: Option<f64>, from: Runs, to: Runs) {
        let whole = |runs: Runs| (self.view(runs.block.part(runs.start, runs.block.len() - runs.start)), runs.stride);
        self.queue.runs(shape, alpha, whole(from), whole(to));
    }

    /// Residual and norm after a kernel that could not do them itself.
    pub(super) fn norm_of(&mut self, epilogue: Option<NormEpilogue>, over: Over, width: usize, y: Block) {
        if let Some(NormEpilogue { h, inv_rms, sum }) = epilogue {
            assert!(sum.is_none(), "only where fuses_sum says so");
            self.add_rmsnorm(over, width, h, y, inv_rms);
        }
    }
}
