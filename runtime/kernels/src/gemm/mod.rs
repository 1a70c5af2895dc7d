//! Matrix products and dense convolutions: `out[M, N] = epilogue(A[M, K] B[K, N])`.
//!
//! One microkernel serves both. It multiplies up to `mr` rows of A, each given by a pointer, by one panel of `nr`
//! columns of B, packed so that the inner loop reads it in order. For a matrix product the pointers are rows of A. For
//! a convolution over NHWC images, A is never built: a row is an output pixel, and for every tap of the kernel its
//! pointer is the input pixel under that tap, or a row of zeros in the padding (the indirect convolution of M. Dukhan,
//! "The Indirect Convolution Algorithm", 2019). If a tap has few channels (an image with three, for example), the
//! pixels of a tile are first gathered into scratch. If the input is scaled per channel (squeeze-and-excite), either
//! the weights are scaled, or the pixels while they are gathered.

mod blocks;
mod contract;
mod driver;
mod pack;
mod scalar;
mod scale;
pub(crate) mod tile;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(all(target_arch = "x86_64", feature = "avx512"))]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod fp16;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "arm")]
mod neon32;

pub(crate) use contract::FAMILY;
pub(crate) use driver::gemm_alone;
pub use driver::{Gemm, GemmConv, conv, conv_scratch, gemm, gemm_scratch};
pub use pack::{halve, pack, pack_conv, packed_conv_len, packed_len};

use std::ops::Range;

use half::f16;

use crate::isa::{Extension, Isa};
use crate::prefetch::prefetch;
use tile::TileFn;

/// The weight dtype: the element type of a packed B.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Weights {
    /// f32.
    F32,
    /// Rounded to half precision: half the memory, and half the memory traffic where that is the limit. Multiplied in
    /// f32, or in half precision by the variants with the extension for it.
    F16,
}

/// A packed B.
#[derive(Clone, Copy)]
pub enum Packed<'a> {
    /// For a variant of [`Weights::F32`].
    F32(&'a [f32]),
    /// For a variant of [`Weights::F16`].
    F16(&'a [f16]),
}

impl<'a> Packed<'a> {
    /// Count of elements.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(self) -> usize {
        match self {
            Self::F32(numbers) => numbers.len(),
            Self::F16(numbers) => numbers.len(),
        }
    }

    /// The weight dtype.
    pub fn weights(self) -> Weights {
        match self {
            Self::F32(_) => Weights::F32,
            Self::F16(_) => Weights::F16,
        }
    }

    /// The panels of `columns` of a matrix with `k` rows that was packed for `v`; the first column must be the start of
    /// a panel.
    pub(crate) fn columns(self, v: &Variant, k: usize, columns: Range<usize>) -> Self {
        debug_assert!(columns.start.is_multiple_of(v.nr), "columns from a panel's first on");
        let range = k * columns.start..k * columns.start + packed_len(v, k, columns.len());
        match self {
            Self::F32(numbers) => Self::F32(&numbers[range]),
            Self::F16(numbers) => Self::F16(&numbers[range]),
        }
    }

    /// Prefetches a range of elements into the cache.
    pub(crate) fn prefetch(self, range: Range<usize>) {
        match self {
            Self::F32(numbers) => prefetch(&numbers[range]),
            Self::F16(numbers) => prefetch(&numbers[range]),
        }
    }

    /// Pointer to the first element of a range, which must exist.
    pub(crate) fn range(self, range: Range<usize>) -> *const u8 {
        match self {
            Self::F32(numbers) => numbers[range].as_ptr().cast(),
            Self::F16(numbers) => numbers[range].as_ptr().cast(),
        }
    }
}

impl<'a> From<&'a [f32]> for Packed<'a> {
    fn from(numbers: &'a [f32]) -> Self {
        Self::F32(numbers)
    }
}

/// A microkernel: `mr` rows by `nr` columns.
pub struct Variant {
    /// Name, as `inspect` prints it: `gemm_<weights>_<mr>x<nr>_<isa>`.
    pub name: &'static str,
    /// The instruction set it needs.
    pub isa: Isa,
    /// The extension it needs beyond that.
    pub extension: Extension,
    /// Name of the variant whose packed layout of B it uses and which needs no extension: for most variants, their own
    /// name.
    form: &'static str,
    /// Most rows of a tile.
    pub mr: usize,
    /// Columns of a panel.
    pub nr: usize,
    /// Columns of the narrowest register: the last panel is only padded to a multiple of this.
    pub lanes: usize,
    /// Columns of a whole register.
    pub width: usize,
    /// Weight dtype of B.
    pub weights: Weights,
    /// `kernels[rows - 1][columns / lanes - 1]`
    kernels: &'static [&'static [TileFn]],
}

/// The entries of the table: whether the kernels are built, name, instruction set, rows, columns, lanes of the
/// narrowest and of a full register, weight dtype, kernels; for a variant that needs an extension, also the variant
/// whose packed layout it uses, and the extension.
macro_rules! variants {
    (@form $name:literal) => { $name };
    (@form $name:literal $form:literal) => { $form };
    (@extension) => { Extension::Base };
    (@extension $extension:ident) => { Extension::$extension };
    ($(#[cfg($built:meta)]
    $name:literal $isa:ident $mr:literal x $nr:literal / $lanes:literal of $width:literal $b:ident $kernels:path
    $(as $form:literal with $extension:ident)?;)*) => {
        &[$(#[cfg(any($built, feature = "foreign"))] Variant {
            name: $name,
            isa: Isa::$isa,
            extension: variants!(@extension $($extension)?),
            form: variants!(@form $name $($form)?),
            mr: $mr,
            nr: $nr,
            lanes: $lanes,
            width: $width,
            weights: Weights::$b,
            #[cfg($built)]
            kernels: $kernels,
            #[cfg(not($built))]
            kernels: &[],
        },)*]
    };
}

/// Every variant of this build. Among those with the same packed layout, the most capable comes first; the last of each
/// weight dtype is its reference. With the feature `foreign` the table also has the variants of other architectures,
/// without kernels: weights can be packed for them.
pub static VARIANTS: &[Variant] = variants! {
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "gemm_f16_12x32_avx512" Avx512 12 x 32 / 8 of 16 F16 avx512::HALF_12X32;
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "gemm_f16_8x48_avx512" Avx512 8 x 48 / 8 of 16 F16 avx512::HALF_8X48;
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "gemm_f16_1x128_avx512" Avx512 1 x 128 / 8 of 16 F16 avx512::HALF_1X128;
    #[cfg(target_arch = "x86_64")]
    "gemm_f16_6x16_avx2" Avx2 6 x 16 / 8 of 8 F16 avx2::HALF_6X16;
    #[cfg(target_arch = "x86_64")]
    "gemm_f16_3x24_avx2" Avx2 3 x 24 / 8 of 8 F16 avx2::HALF_3X24;
    #[cfg(target_arch = "x86_64")]
    "gemm_f16_1x64_avx2" Avx2 1 x 64 / 8 of 8 F16 avx2::HALF_1X64;
    #[cfg(target_arch = "aarch64")]
    "gemm_f16_8x16_neonfp16" Neon 8 x 16 / 4 of 8 F16 fp16::TILE_8X16 as "gemm_f16_8x8_neon" with Fp16;
    #[cfg(target_arch = "aarch64")]
    "gemm_f16_1x32_neonfp16" Neon 1 x 32 / 4 of 8 F16 fp16::TILE_1X32 as "gemm_f16_1x32_neon" with Fp16;
    #[cfg(target_arch = "aarch64")]
    "gemm_f16_8x8_neon" Neon 8 x 8 / 4 of 4 F16 neon::HALF_8X8;
    #[cfg(target_arch = "aarch64")]
    "gemm_f16_4x16_neon" Neon 4 x 16 / 4 of 4 F16 neon::HALF_4X16;
    #[cfg(target_arch = "aarch64")]
    "gemm_f16_1x32_neon" Neon 1 x 32 / 4 of 4 F16 neon::HALF_1X32;
    #[cfg(target_arch = "arm")]
    "gemm_f16_4x8_neon32" Neon32 4 x 8 / 4 of 4 F16 neon32::HALF_4X8;
    #[cfg(target_arch = "arm")]
    "gemm_f16_1x32_neon32" Neon32 1 x 32 / 4 of 4 F16 neon32::HALF_1X32;
    #[cfg(all())]
    "gemm_f16_4x8_scalar" Scalar 4 x 8 / 8 of 8 F16 scalar::HALF_4X8;
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "gemm_f32_12x32_avx512" Avx512 12 x 32 / 8 of 16 F32 avx512::TILE_12X32;
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "gemm_f32_8x48_avx512" Avx512 8 x 48 / 8 of 16 F32 avx512::TILE_8X48;
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "gemm_f32_1x128_avx512" Avx512 1 x 128 / 8 of 16 F32 avx512::TILE_1X128;
    #[cfg(target_arch = "x86_64")]
    "gemm_f32_6x16_avx2" Avx2 6 x 16 / 8 of 8 F32 avx2::TILE_6X16;
    #[cfg(target_arch = "x86_64")]
    "gemm_f32_3x24_avx2" Avx2 3 x 24 / 8 of 8 F32 avx2::TILE_3X24;
    #[cfg(target_arch = "x86_64")]
    "gemm_f32_1x64_avx2" Avx2 1 x 64 / 8 of 8 F32 avx2::TILE_1X64;
    #[cfg(target_arch = "aarch64")]
    "gemm_f32_8x8_neon" Neon 8 x 8 / 4 of 4 F32 neon::TILE_8X8;
    #[cfg(target_arch = "aarch64")]
    "gemm_f32_4x16_neon" Neon 4 x 16 / 4 of 4 F32 neon::TILE_4X16;
    #[cfg(target_arch = "aarch64")]
    "gemm_f32_1x32_neon" Neon 1 x 32 / 4 of 4 F32 neon::TILE_1X32;
    #[cfg(target_arch = "arm")]
    "gemm_f32_4x8_neon32" Neon32 4 x 8 / 4 of 4 F32 neon32::TILE_4X8;
    #[cfg(target_arch = "arm")]
    "gemm_f32_1x32_neon32" Neon32 1 x 32 / 4 of 4 F32 neon32::TILE_1X32;
    #[cfg(all())]
    "gemm_f32_4x8_scalar" Scalar 4 x 8 / 8 of 8 F32 scalar::TILE_4X8;
};

impl Variant {
    /// Whether this CPU has the instructions that the variant needs.
    pub fn is_available(&self) -> bool {
        self.isa.is_available() && self.extension.is_available()
    }

    /// The variant whose packed layout of B it uses. It is the same on every CPU with the instruction set, so a packed
    /// B can be moved between CPUs.
    pub fn form(&self) -> &'static Variant {
        named(self.form).expect("the table holds the variants that it names")
    }

    /// Whether a tile may use only some rows of a panel, in any number. Those that need an extension read two panels at
    /// a time and round the sums of fixed numbers of rows, and so use all of them.
    fn can_cut(&self) -> bool {
        matches!(self.extension, Extension::Base)
    }

    /// Whether a product of this many rows of B can be computed in pieces that do not take long.
    fn takes_rows(&self, k: usize) -> bool {
        self.can_cut() || k <= blocks::LONG
    }

    /// Registers across each panel of `n` columns.
    fn panels(&self, n: usize) -> impl Iterator<Item = usize> {
        let (registers, whole) = (n.div_ceil(self.lanes), self.nr / self.lanes);
        (0..registers).step_by(whole).map(move |first| (registers - first).min(whole))
    }

    /// The microkernel of `rows` rows and `registers` registers of columns.
    pub(crate) fn kernel(&self, rows: usize, registers: usize) -> TileFn {
        self.kernels[rows - 1][registers - 1]
    }

    /// Time of a product by a model of the core, in multiply-adds of a register: two start per cycle, each takes four
    /// cycles, two loads are issued in parallel, and every tile has an epilogue. A narrow register costs its share of a
    /// full one.
    pub(crate) fn cost(&self, m: usize, k: usize, n: usize) -> f64 {
        let tiles = m.div_ceil(self.mr).max(1);
        let rows = m as f64 / tiles as f64;
        let panel = |columns: usize| {
            let registers = (columns * self.lanes) as f64 / self.width as f64;
            let step = (rows * registers).max(rows + registers).max(8.0);
            step * k as f64 + 6.0 * rows * registers + 20.0
        };
        tiles as f64 * self.panels(n).map(panel).sum::<f64>()
    }
}

/// The variants of `isa` for this weight dtype, each with its modeled cost for a product of this shape (for a
/// convolution, `m` is its output pixels and `k` its taps times input channels); the scalar variant if this build has
/// none. For each packed layout it returns the best variant that this CPU can run, at the cost of the layout's own
/// variant, because packed weights must not depend on the CPU.
pub fn candidates(
    isa: Isa,
    weights: Weights,
    m: usize,
    k: usize,
    n: usize,
) -> impl Iterator<Item = (&'static Variant, f64)> {
    let of = move |isa: Isa| VARIANTS.iter().filter(move |v| v.weights == weights && v.isa == isa && v.form == v.name);
    let isa = if of(isa).next().is_some() { isa } else { Isa::Scalar };
    let best = move |form: &'static Variant| {
        let usable = |v: &&Variant| v.form == form.name && v.is_available() && v.takes_rows(k);
        VARIANTS.iter().find(usable).unwrap_or(form)
    };
    of(isa).map(move |form| (best(form), form.cost(m, k, n)))
}

/// The cheapest of the [`candidates`].
pub fn choose(isa: Isa, weights: Weights, m: usize, k: usize, n: usize) -> &'static Variant {
    let best = candidates(isa, weights, m, k, n).min_by(|a, b| a.1.total_cmp(&b.1));
    best.map_or(&VARIANTS[VARIANTS.len() - 1], |(v, _)| v)
}

/// The variant of this name, if its kernels are built.
pub fn by_name(name: &str) -> Option<&'static Variant> {
    named(name).filter(|v| v.isa.is_built())
}

/// The variant of this name, even if its kernels are not built.
pub(crate) fn named(name: &str) -> Option<&'static Variant> {
    VARIANTS.iter().find(|v| v.name == name)
}

#[cfg(test)]
pub(crate) mod tests;
