//! The compute kernels of Skipstone: every inner loop of the runtime, and the only place with `unsafe` code.
//!
//! A kernel family is one folder: `mod.rs` says what is computed and holds the table of variants and the choice
//! among them, `scalar.rs` is the reference anyone can read, and `avx2.rs`, `avx512.rs` and `neon.rs` are the
//! variants. The same table feeds dispatch, tests and benches. Every entry point is safe: it checks the lengths of
//! its slices and that the CPU has the instruction set before unsafe code runs.
//!
//! Tensors are row-major f32, or bytes where a family's name begins with q (quantised); images are NHWC.

#![cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(dead_code, unused_imports, unused_variables, reason = "elsewhere there are scalar kernels only")
)]

pub mod activation;
pub mod arena;
pub mod binary;
pub mod bottleneck;
pub mod cast;
pub mod conv;
pub mod copy;
pub mod depthwise;
pub mod epilogue;
pub mod frame;
pub mod gemm;
#[cfg(all(test, target_os = "linux"))]
mod guard;
pub mod isa;
mod lanes;
pub mod layernorm;
pub mod mapping;
pub mod middle_axis;
mod parallel;
pub mod pool;
mod prefetch;
pub mod qdepthwise;
pub mod qgemm;
pub mod qmap;
pub mod qpool;
pub mod qsums;
pub mod reduce;
pub mod requantise;
pub mod resize;
mod simd;
pub mod softmax;
pub mod sparse;
pub mod stem;
#[cfg(test)]
mod testing;
pub mod threads;
pub mod transpose;
pub mod unary;
pub mod winograd;

pub use isa::Isa;

/// Version of the forms that weights are packed in. A package stores them: whoever changes what a variant of a family
/// reads, under the same name, counts this up.
pub const PACKING: u32 = 1;
