//! Quantized dense convolutions and matrix products: bytes by signed bytes, summed in 32 bits.
//!
//! ```text
//! sum[m, n] = sum over taps and channels of (a[m, k] - a_zero) * w[k, n] + bias[n]
//! out[m, n] = byte(sum * scale[n])        or the float  sum * scale[n]        or the sum
//! ```
//!
//! Activations are unsigned with one zero point; weights are signed with zero point 0 and a scale for each output
//! channel. As in [`gemm`](crate::gemm), A is never built: a row is a list of pointers to input pixels, and padding
//! points to a row of zero points. The zero point is subtracted from the sum in advance: the sum of `(a - a_zero) * w`
//! is the sum of `a * w` minus `a_zero` times the sum of the weights, and the latter is part of the packed bias.
//!
//! The sums are exact, so every variant gives the same bytes. They cannot overflow if a filter has at most
//! [`MAX_DEPTH`] weights.

mod blocks;
mod contract;
mod driver;
mod pack;
mod scalar;
mod tile;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod i8mm;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(all(target_arch = "x86_64", feature = "avx512"))]
mod vnni;

pub(crate) use contract::FAMILY;
pub use driver::{Out, conv, conv_scratch};
pub use pack::{Packed, offsets, offsets_len, pack, pack_sums, pack_weights, padded_filters, scales_len, weights_len};

use crate::isa::{Extension, Isa};
use tile::TileFn;

/// Most weights of a filter: the sum of 2^16 products of a byte and a signed byte stays below 2^31.
pub const MAX_DEPTH: usize = 1 << 16;

/// A microkernel: `mr` rows by `nr` columns.
pub struct Variant {
    /// Name, as `inspect` prints it.
    pub name: &'static str,
    /// The instruction set it needs.
    pub isa: Isa,
    /// The extension it needs beyond that.
    pub extension: Extension,
    /// Most rows of a tile.
    pub mr: usize,
    /// Columns of a panel.
    pub nr: usize,
    /// Columns per register: the last panel is only padded to a multiple of this.
    pub lanes: usize,
    /// Rows that one instruction multiplies, each by its share of a register's columns.
    rows: usize,
    /// Products that one instruction sums. Weights are packed, and activations read, in groups of this many.
    group: usize,
    /// Bytes per activation that the kernel reads; if 2, activations are widened first.
    element: usize,
    /// Subtracted from every activation by the kernel.
    shift: u8,
    /// `kernels[rows - 1][registers - 1]`
    kernels: &'static [&'static [TileFn]],
}

/// The entries of the table: name, instruction set, extension, rows, columns, lanes, rows per instruction, activations
/// per group, bytes per activation, the value that is subtracted from it, kernels.
macro_rules! variants {
    ($($(#[$cfg:meta])* $name:literal $isa:ident $ext:ident $mr:literal x $nr:literal / $lanes:literal
        $rows:literal by $group:literal of $element:literal less $shift:literal $kernels:path;)*) => {
        &[$($(#[$cfg])* Variant {
            name: $name, isa: Isa::$isa, extension: Extension::$ext, mr: $mr, nr: $nr, lanes: $lanes, rows: $rows,
            group: $group, element: $element, shift: $shift, kernels: $kernels,
        },)*]
    };
}

/// Every variant of this build, the most capable first; the last is the reference.
pub static VARIANTS: &[Variant] = variants! {
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "qgemm_u8s8_12x32_avx512vnni" Avx512 Vnni512 12 x 32 / 16 1 by 4 of 1 less 0 vnni::TILE_12X32;
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "qgemm_u8s8_8x48_avx512vnni" Avx512 Vnni512 8 x 48 / 16 1 by 4 of 1 less 0 vnni::TILE_8X48;
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "qgemm_u8s8_1x128_avx512vnni" Avx512 Vnni512 1 x 128 / 16 1 by 4 of 1 less 0 vnni::TILE_1X128;
    #[cfg(target_arch = "x86_64")]
    "qgemm_u8s8_6x16_avx2" Avx2 Base 6 x 16 / 8 1 by 2 of 2 less 0 avx2::TILE_6X16;
    #[cfg(target_arch = "x86_64")]
    "qgemm_u8s8_1x64_avx2" Avx2 Base 1 x 64 / 8 1 by 2 of 2 less 0 avx2::TILE_1X64;
    #[cfg(target_arch = "aarch64")]
    "qgemm_u8s8_8x12_neoni8mm" Neon I8mm 8 x 12 / 4 2 by 8 of 1 less 0 i8mm::TILE_8X12;
    #[cfg(target_arch = "aarch64")]
    "qgemm_u8s8_1x32_neoni8mm" Neon I8mm 1 x 32 / 4 1 by 4 of 1 less 0 neon::I8MM_1X32;
    #[cfg(target_arch = "aarch64")]
    "qgemm_u8s8_6x16_neondot" Neon DotProd 6 x 16 / 4 1 by 4 of 1 less 128 neon::DOT_6X16;
    #[cfg(target_arch = "aarch64")]
    "qgemm_u8s8_1x32_neondot" Neon DotProd 1 x 32 / 4 1 by 4 of 1 less 128 neon::DOT_1X32;
    #[cfg(target_arch = "aarch64")]
    "qgemm_u8s8_6x16_neon" Neon Base 6 x 16 / 4 1 by 2 of 2 less 0 neon::TILE_6X16;
    #[cfg(target_arch = "aarch64")]
    "qgemm_u8s8_1x32_neon" Neon Base 1 x 32 / 4 1 by 2 of 2 less 0 neon::TILE_1X32;
    "qgemm_u8s8_4x8_scalar" Scalar Base 4 x 8 / 8 1 by 4 of 1 less 0 scalar::TILE_4X8;
};

impl Variant {
    /// Whether this CPU has the instructions that the variant needs.
    pub fn is_available(&self) -> bool {
        self.isa.is_available() && self.extension.is_available()
    }

    /// Registers across each panel of `n` columns.
    fn panels(&self, n: usize) -> impl Iterator<Item = usize> {
        let (registers, whole) = (n.div_ceil(self.lanes), self.nr / self.lanes);
        (0..registers).step_by(whole).map(move |first| (registers - first).min(whole))
    }

    /// Time of a product by a model of the core, in products of a register, as in [`gemm`](crate::gemm); here one
    /// starts per cycle.
    fn cost(&self, m: usize, k: usize, n: usize) -> f64 {
        let tiles = m.div_ceil(self.mr).max(1);
        let rows = m as f64 / tiles as f64;
        let panel = |registers: usize| {
            let (registers, at_once) = (registers as f64, self.rows as f64);
            let step = (rows.max(at_once) * registers).max(rows + at_once * registers).max(4.0);
            step * k.div_ceil(self.group) as f64 + 8.0 * rows * registers + 20.0
        };
        tiles as f64 * self.panels(n).map(panel).sum::<f64>()
    }
}

/// The variants with the best extension that `isa` and this CPU have, each with its modeled cost for a product of this
/// shape (for a convolution, `m` is its output pixels and `k` its taps times input channels).
pub fn candidates(isa: Isa, m: usize, k: usize, n: usize) -> impl Iterator<Item = (&'static Variant, f64)> {
    let usable = move || VARIANTS.iter().filter(move |v| v.isa <= isa && v.is_available());
    let best = usable().next().map(|v| (v.isa, v.extension));
    usable().filter(move |v| Some((v.isa, v.extension)) == best).map(move |v| (v, v.cost(m, k, n)))
}

/// The variant of this name.
pub fn by_name(name: &str) -> Option<&'static Variant> {
    VARIANTS.iter().find(|v| v.name == name)
}

#[cfg(test)]
pub(crate) mod tests;
