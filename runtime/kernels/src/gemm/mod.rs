//! Matrix products and dense convolutions: `out[M, N] = epilogue(A[M, K] B[K, N])`.
//!
//! One microkernel serves both. It multiplies up to `mr` rows of A, each given by a pointer, with one panel of `nr`
//! columns of B that was packed so that the inner loop reads it in order. For a matrix product the pointers are rows
//! of A. For a convolution over NHWC images, A is never built: a row is an output pixel, and for every tap of the
//! kernel its pointer is the input pixel under that tap (the indirect convolution of M. Dukhan, "The Indirect
//! Convolution Algorithm", 2019), a row of zeros in the padding. Where a tap has few channels (an image of three),
//! or the input is scaled per channel (squeeze-and-excite), the pixels of one tile are gathered into scratch first.

mod driver;
mod pack;
pub mod scalar;
mod tile;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "x86_64")]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;

pub use driver::{Conv, Gemm, conv, conv_scratch, gemm, gemm_scratch};
pub use pack::{pack, pack_conv, packed_conv_len, packed_len};

use crate::isa::Isa;
use tile::Tile;

/// A microkernel: `mr` rows by `nr` columns.
pub struct Variant {
    /// Name, as `inspect` prints it.
    pub name: &'static str,
    /// Instruction set it needs.
    pub isa: Isa,
    /// Most rows of a tile.
    pub mr: usize,
    /// Columns of a panel.
    pub nr: usize,
    /// Columns of a register: the last panel is padded to a multiple of it only.
    pub lanes: usize,
    kernel: unsafe fn(&Tile),
}

/// Every variant of this build, the best of each instruction set first.
pub static VARIANTS: &[Variant] = &[
    #[cfg(target_arch = "x86_64")]
    Variant { name: "gemm_f32_12x32_avx512", isa: Isa::Avx512, mr: 12, nr: 32, lanes: 16, kernel: avx512::tile_12x32 },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "gemm_f32_6x16_avx2", isa: Isa::Avx2, mr: 6, nr: 16, lanes: 8, kernel: avx2::tile_6x16 },
    #[cfg(target_arch = "aarch64")]
    Variant { name: "gemm_f32_6x16_neon", isa: Isa::Neon, mr: 6, nr: 16, lanes: 4, kernel: neon::tile_6x16 },
    Variant { name: "gemm_f32_4x4_scalar", isa: Isa::Scalar, mr: 4, nr: 4, lanes: 1, kernel: scalar::tile_4x4 },
];

/// The variant of `isa` for a product of this shape.
pub fn choose(isa: Isa, _m: usize, _k: usize, _n: usize) -> &'static Variant {
    VARIANTS.iter().find(|v| v.isa == isa).unwrap_or(&VARIANTS[VARIANTS.len() - 1])
}

/// The variant of this name.
pub fn by_name(name: &str) -> Option<&'static Variant> {
    VARIANTS.iter().find(|v| v.name == name)
}

#[cfg(test)]
pub(crate) mod tests;
