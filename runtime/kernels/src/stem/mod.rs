//! The first convolution of a network: reads NCHW images with few channels and writes NHWC.
//!
//! `out[y, x, f] = epilogue(sum over c, ky, kx of in[c, y * sy + ky * dy - pad, x * sx + kx * dx - pad] * w[f, c, ky, kx])`
//!
//! A matrix product would need adjacent channels: the image would first be converted to NHWC, with a pointer for every
//! pixel and kernel row to a run of only nine elements. Here, filters are in the lanes of a register and a tile is
//! several adjacent outputs of a row. The inputs of a tile are at distances known to the compiler in every row of every
//! channel, and each is broadcast from its place.

mod contract;
mod run;

use crate::conv::{Columns, ConvShape, product};
use crate::epilogue::Epilogue;
use crate::isa::Isa;
use crate::parallel::share_rows;
use crate::threads::Pool;
pub(crate) use contract::FAMILY;
use run::{MAX_LINES, MAX_WINDOW, Rows, WIDTH, adjacent_taps};

/// A kernel of the family.
pub struct Variant {
    /// Name, as `inspect` prints it: `stem_f32_<outputs>x<filters>_<isa>`.
    pub name: &'static str,
    /// The instruction set it needs.
    pub isa: Isa,
    /// Filters of a panel.
    filters: usize,
    kernel: unsafe fn(&mut Rows<'_>),
}

/// The entries of the table: whether the kernel is built, name, instruction set, filters, kernel.
macro_rules! variants {
    ($(#[cfg($built:meta)] $name:literal $isa:ident $filters:literal $kernel:path;)*) => {
        &[$(#[cfg(any($built, feature = "foreign"))] Variant {
            name: $name,
            isa: Isa::$isa,
            filters: $filters,
            #[cfg($built)]
            kernel: $kernel,
            #[cfg(not($built))]
            kernel: run::scalar,
        },)*]
    };
}

/// Every variant of this build. With the feature `foreign` the table also has the variants of other architectures, for
/// packing only.
pub static VARIANTS: &[Variant] = variants! {
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "stem_f32_14x32_avx512" Avx512 32 run::avx512_32;
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "stem_f32_14x16_avx512" Avx512 16 run::avx512_16;
    #[cfg(target_arch = "x86_64")]
    "stem_f32_6x16_avx2" Avx2 16 run::avx2_16;
    #[cfg(target_arch = "x86_64")]
    "stem_f32_14x8_avx2" Avx2 8 run::avx2_8;
    #[cfg(target_arch = "aarch64")]
    "stem_f32_6x16_neon" Neon 16 run::neon_16;
    #[cfg(target_arch = "aarch64")]
    "stem_f32_14x8_neon" Neon 8 run::neon_8;
    #[cfg(target_arch = "arm")]
    "stem_f32_3x8_neon32" Neon32 8 run::neon32_8;
    #[cfg(all())]
    "stem_f32_scalar" Scalar 1 run::scalar;
};

/// The variant of `isa` for this many filters: the widest whose panels they fill, or otherwise the narrowest. AVX-512
/// may also use the variants of AVX2.
#[inline(never)]
pub fn choose(isa: Isa, filters: usize) -> &'static Variant {
    let mut usable = VARIANTS.iter().filter(|v| v.isa == isa || (isa == Isa::Avx512 && v.isa == Isa::Avx2));
    let full = usable.clone().find(|v| filters.is_multiple_of(v.filters));
    let wide = usable.clone().find(|v| v.filters <= filters);
    full.or(wide).or(usable.next_back()).unwrap_or(&VARIANTS[VARIANTS.len() - 1])
}

/// The variant of this name, if its kernel is built.
pub fn by_name(name: &str) -> Option<&'static Variant> {
    VARIANTS.iter().find(|v| v.name == name && v.isa.is_built())
}

/// Most channels of an image: with more, a run of channels fills a register.
const MAX_CHANNELS: usize = 4;

/// Whether a convolution belongs to this family: a small kernel over few channels, and not too many weights. The taps of
/// a kernel row are best adjacent, so that they share most of a tile's inputs.
#[inline(never)]
pub fn takes(shape: &ConvShape) -> bool {
    let [rows, columns] = shape.kernel;
    let adjacent = adjacent_taps(shape).max(1);
    let lines = shape.in_c.saturating_mul(rows).saturating_mul(columns / adjacent);
    let window = adjacent.saturating_add((WIDTH - 1).saturating_mul(shape.stride[1]));
    shape.groups == 1
        && shape.in_c <= MAX_CHANNELS
        && (1..=2).contains(&shape.stride[1])
        && columns > 0
        && (1..=MAX_LINES).contains(&lines)
        && lines.saturating_mul(window) <= MAX_WINDOW
        && lines.saturating_mul(adjacent).saturating_mul(shape.out_c) <= MAX_WEIGHTS
}

/// Elements that [`pack`] writes.
#[inline(never)]
pub fn packed_len(v: &Variant, shape: &ConvShape) -> usize {
    product(&[shape.in_c, shape.taps(), shape.out_c.next_multiple_of(v.filters)])
}

/// Packs the weights `[filters, channels, kernel_h, kernel_w]` in panels of filters, each
/// `[channels, kernel_h, kernel_w, filters]`; missing filters of the last panel are zero.
///
/// # Panics
/// If the lengths do not match `shape`.
#[inline(never)]
pub fn pack(v: &Variant, shape: &ConvShape, oihw: &[f32], out: &mut [f32]) {
    let rows = product(&[shape.in_c, shape.taps()]);
    assert_eq!(oihw.len(), product(&[rows, shape.out_c]));
    assert_eq!(out.len(), packed_len(v, shape));
    for (i, to) in out.iter_mut().enumerate() {
        let (row, filter) = (i / v.filters % rows.max(1), i / v.filters / rows.max(1) * v.filters + i % v.filters);
        *to = if filter < shape.out_c { oihw[filter * rows + row] } else { 0.0 };
    }
}

/// A convolution of the family.
pub struct Stem<'a> {
    /// Its geometry, which this family must [take](takes).
    pub shape: &'a ConvShape,
    /// NCHW.
    pub input: &'a [f32],
    /// Weights from [`pack`].
    pub packed: &'a [f32],
    /// NHWC.
    pub out: &'a mut [f32],
    /// Applied to the sums; must not have a residual.
    pub epilogue: Epilogue<'a>,
}

/// Multiply-adds of a task that can be cut: about a millisecond.
const TASK_WORK: usize = 1 << 23;
/// Most weights: a tile, which is computed at once, takes several multiply-adds for each.
const MAX_WEIGHTS: usize = 1 << 18;

/// Computes a convolution.
///
/// # Panics
/// If the length of a slice does not match `shape`, or the CPU lacks the variant's instructions.
#[inline(never)]
pub fn stem(v: &Variant, args: Stem<'_>, pool: &Pool) {
    let Stem { shape, input, packed, out, epilogue } = args;
    shape.check();
    assert!(takes(shape), "a convolution of few channels");
    assert!(v.isa.is_available(), "this CPU does not have {}", v.isa);
    assert_eq!(input.len(), shape.input_len(), "input length");
    assert_eq!(out.len(), shape.output_len(), "output length");
    assert_eq!(packed.len(), packed_len(v, shape), "weight length");
    assert!(epilogue.residual.is_none(), "no residual");
    epilogue.check(shape.out_c, out.len());
    if out.is_empty() {
        return;
    }
    let rows = product(&[shape.batch, shape.out_h]);
    let work = product(&[shape.in_c, shape.taps()]).saturating_mul(shape.output_len());
    share_rows(pool, out, rows, work, TASK_WORK, |rows, out| {
        let out = Columns::all(out, shape.out_c);
        // SAFETY: the lengths were checked, and the CPU has the instructions.
        unsafe { (v.kernel)(&mut Rows { shape, rows, input, packed, out, epilogue, pool }) }
    });
}

#[cfg(test)]
mod tests;
