//! Devices whose memory the host can see.

use super::{AdamCoefficients, Block, Device};

/// Slices to read and slices to write.
pub type Slices<'a, T, const R: usize, const W: usize> = ([&'a [T]; R], [&'a mut [T]; W]);

/// A device whose memory the host can see.
pub trait HostDevice: Device {
    /// The elements of a buffer.
    fn values(buffer: &Self::Buffer) -> &[Self::T];

    /// The elements of a buffer, for writing.
    fn values_mut(buffer: &mut Self::Buffer) -> &mut [Self::T];

    /// The elements of a block.
    fn view(&self, block: Block) -> &[Self::T];

    /// The elements of several blocks: `reads` may overlap each other, no block of `writes` may overlap any other.
    fn slices<const R: usize, const W: usize>(
        &mut self,
        reads: [Block; R],
        writes: [Block; W],
    ) -> Slices<'_, Self::T, R, W>;

    // Flat arrays: gradients and optimizer states.

    /// `out ← a + b`.
    fn add(a: &[Self::T], b: &[Self::T], out: &mut [Self::T]);

    /// `to ← to + from`.
    fn add_assign(to: &mut [Self::T], from: &[Self::T]);

    /// `Σ a²` in f64, in a fixed order.
    fn sum_squares(a: &[Self::T]) -> f64;

    /// One update of Adam on arrays of equal length: weights p, moments m and v and EMA e from the gradient g.
    ///
    /// `m ← β1 m + (1 − β1) g`, `v ← β2 v + (1 − β2) g²`, `d = √v / √(1 − β2ᵗ)`; `p ← decay · p − step · atan2(m, d)`, or with
    /// [`Update::Ratio`](super::Update::Ratio) `m / (d + 1e-8)`; `e ← μ e + (1 − μ) p`.
    fn adam_step(
        coefficients: &AdamCoefficients<Self::T>,
        p: &mut [Self::T],
        m: &mut [Self::T],
        v: &mut [Self::T],
        e: &mut [Self::T],
        g: &[Self::T],
    );
}
