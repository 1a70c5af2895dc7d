//! The compute kernels of Skipstone: every inner loop of the runtime, and the only code with SIMD and the `unsafe` that
//! it needs.
//!
//! Each kernel family is one folder. `mod.rs` documents the computation and contains the table of variants and the
//! choice among them; `scalar.rs`, if the family has one, is the readable reference; files named after an instruction
//! set (`avx2.rs`, `avx512.rs`, `neon.rs`) contain its variants, and `vector.rs` or `tile.rs` contains loops that are
//! generic over the vector width. Dispatch, tests and benches all use the same table. Every entry point is safe: before
//! unsafe code runs, it checks the lengths of its slices and that the CPU has the instruction set.
//!
//! Tensors are row-major f32, or bytes in the families whose names start with q (quantized). Images are NHWC unless
//! documented otherwise.

#![cfg_attr(
    not(any(target_arch = "x86_64", target_arch = "aarch64")),
    allow(dead_code, unused_imports, unused_variables, reason = "elsewhere most kernels are scalar")
)]
#![cfg_attr(family_subset, allow(dead_code, unused_imports, reason = "families that no package needs"))]

pub mod activation;
pub mod arena;
pub mod binary;
pub mod bottleneck;
pub mod cast;
pub mod conv;
pub mod copy;
pub mod depthwise;
pub mod depthwise_chw;
pub mod epilogue;
pub mod frame;
pub mod gemm;
pub mod grouped;
#[cfg(all(test, target_os = "linux"))]
mod guard;
pub mod isa;
mod lanes;
pub mod layernorm;
#[cfg(any(target_arch = "x86_64", feature = "foreign"))]
pub mod listed;
pub mod mapping;
pub mod middle_axis;
pub mod pace;
mod parallel;
mod planes;
pub mod pool;
mod prefetch;
pub mod qdepthwise;
pub mod qgemm;
pub mod qmap;
pub mod qpool;
pub mod qsums;
mod quality;
pub mod reduce;
pub mod requantize;
pub mod resize;
mod simd;
pub mod softmax;
pub mod spare;
pub mod sparse;
pub mod stem;
#[cfg(test)]
mod testing;
pub mod threads;
pub mod transpose;
pub mod unary;
pub mod winograd;

pub use isa::Isa;

/// Version of the packed layouts, stored in packages. Increment it when the layout of a variant changes under the same
/// name.
pub const PACKING: u32 = 1;
