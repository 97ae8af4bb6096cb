//! CUDA from Rust: what crosses into the C functions of `kernels/`, made safe.
//!
//! | file | what is in it |
//! |---|---|
//! | `ffi` | `kernels/trm_kernels.h` again, and a table of its functions for each build of the kernels |
//! | `queue` | the stream that everything runs on, in order; what goes wrong; events and graphs |
//! | `memory` | device memory that is given back when it is dropped, and views of it |
//! | `elementwise`, `layers`, `linear`, `narrow`, `losses`, `experts`, `optimizer` | one safe method for each kernel, which checks sizes |
//! | `limit` | what the device can do at most, measured |
//!
//! The kernels are compiled twice, each behind a feature. `cuda` needs nvcc and makes `Gpu`. `cuda-twin` needs a C++ compiler
//! and makes `Twin`: the same sources, run on the host by a twin of the GPU, for tests and for machines without one.

mod elementwise;
mod experts;
mod ffi;
mod host_memory;
mod layers;
mod limit;
mod linear;
mod losses;
mod memory;
mod narrow;
mod optimizer;
mod queue;

pub use host_memory::HostMemory;
pub use layers::{AttentionKernels, AttentionSizes, GradientSums, PackForm, PlainProduct, Rows};
pub use memory::{DeviceMemory, ElementFormat, Integers, Number, View};
pub use optimizer::{AdamStep, AdamTensor};
pub use queue::{DeviceDescription, Event, Graph, Queue};

/// A build of the kernels.
pub trait Backend: Copy + Default + Send + Sync + 'static {
    /// The name under which `--device` knows it.
    const NAME: &'static str;

    /// Its functions.
    #[doc(hidden)]
    fn functions() -> &'static Functions;

    /// What this process has opened of it.
    #[doc(hidden)]
    fn opened() -> &'static std::sync::OnceLock<queue::Opened>;
}

#[doc(hidden)]
pub use ffi::Functions;

macro_rules! backends {
    ($($(#[$doc:meta])* $Backend:ident, $build:ident, $module:ident, $name:literal;)*) => {$(
        $(#[$doc])*
        #[cfg($build)]
        #[derive(Clone, Copy, Debug, Default)]
        pub struct $Backend;

        #[cfg($build)]
        impl Backend for $Backend {
            const NAME: &'static str = $name;

            fn functions() -> &'static Functions {
                &ffi::$module::FUNCTIONS
            }

            fn opened() -> &'static std::sync::OnceLock<queue::Opened> {
                static OPENED: std::sync::OnceLock<queue::Opened> = std::sync::OnceLock::new();
                &OPENED
            }
        }
    )*};
}

backends! {
    /// An NVIDIA GPU: the first one that `CUDA_VISIBLE_DEVICES` leaves.
    Gpu, cuda_gpu, cuda, "cuda";
    /// The twin on the host.
    Twin, cuda_twin, twin, "cuda-twin";
}
