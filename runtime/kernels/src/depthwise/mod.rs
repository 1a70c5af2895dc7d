//! Depthwise convolution over NHWC images: every channel has its own kernel.
//!
//! `out[y, x, c] = epilogue(sum over taps of in[y * sy + ky * dy - pad, x * sx + kx * dx - pad, c] * w[ky, kx, c])`
//!
//! Channels are in the lanes of a register. Each element takes part in few multiply-adds, so the kernel is bound by
//! loads. The usual kernels (3x3 and 5x5, strides 1 and 2) therefore compute several output pixels of a row at once and
//! load every input pixel under them once per kernel row; 3x3 at stride 1 computes two rows at once if there are enough
//! registers. Other kernels are computed pixel by pixel: `grouped` is faster, but cannot be part of a bottleneck.

mod contract;
#[cfg(target_arch = "arm")]
mod neon32;
mod run;

use std::ops::Range;

use crate::conv::{Columns, ConvShape, product};
use crate::epilogue::Epilogue;
use crate::isa::Isa;
use crate::pace::Pace;
use crate::parallel::share_rows;
use crate::threads::Pool;
pub(crate) use contract::FAMILY;
use run::{DepthwiseRows, Input};
pub(crate) use run::{WIDTH, column};

/// A kernel of the family.
pub struct Variant {
    /// Name, as `inspect` prints it.
    pub name: &'static str,
    /// The instruction set it needs.
    pub isa: Isa,
    /// Channels per register; with fewer channels, pixels are computed one by one.
    channels: usize,
    kernel: unsafe fn(&mut DepthwiseRows<'_>),
}

/// The entries of the table: whether the kernel is built, name, instruction set, its channels, kernel.
macro_rules! variants {
    ($(#[cfg($built:meta)] $name:literal $isa:ident $channels:literal $kernel:path;)*) => {
        &[$(#[cfg(any($built, feature = "foreign"))] Variant {
            name: $name,
            isa: Isa::$isa,
            channels: $channels,
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
    "depthwise_f32_16c_avx512" Avx512 16 run::avx512;
    #[cfg(target_arch = "x86_64")]
    "depthwise_f32_8c_avx2" Avx2 8 run::avx2;
    #[cfg(target_arch = "aarch64")]
    "depthwise_f32_4c_neon" Neon 4 run::neon;
    #[cfg(target_arch = "arm")]
    "depthwise_f32_4c_neon32" Neon32 4 run::neon32;
    #[cfg(all())]
    "depthwise_f32_scalar" Scalar 1 run::scalar;
};

/// The variant of `isa` for this many channels. Channels that do not fill an AVX-512 register use AVX2.
#[inline(never)]
pub fn choose(isa: Isa, channels: usize) -> &'static Variant {
    let runs = |v: &&Variant| v.isa == isa || (isa == Isa::Avx512 && v.isa == Isa::Avx2);
    let mut usable = VARIANTS.iter().filter(runs);
    let full = usable.clone().find(|v| v.channels <= channels);
    full.or(usable.next()).unwrap_or(&VARIANTS[VARIANTS.len() - 1])
}

/// The variant of this name, if its kernel is built.
pub fn by_name(name: &str) -> Option<&'static Variant> {
    VARIANTS.iter().find(|v| v.name == name && v.isa.is_built())
}

/// Most weights, with channels rounded up to a register: a tile, which is computed at once, takes several multiply-adds
/// for each.
const MAX_WEIGHTS: usize = 1 << 20;

/// Whether a convolution is of this family: one filter per channel, and not too many weights.
pub fn takes(shape: &ConvShape) -> bool {
    let weights = || shape.in_c.next_multiple_of(16).saturating_mul(shape.taps());
    shape.groups == shape.in_c && shape.in_c == shape.out_c && weights() <= MAX_WEIGHTS
}

/// Whether its outputs are computed in tiles if there are enough channels, not pixel by pixel.
pub fn is_tiled(shape: &ConvShape) -> bool {
    shape.kernel[0] <= run::MAX_LINES
        && matches!(shape.kernel[1], 3 | 5)
        && matches!(shape.stride[1], 1 | 2)
        && shape.dilation[1] == 1
}

/// Packs the weights `[channels, 1, kernel_h, kernel_w]` as `[kernel_h, kernel_w, channels]`. Incomplete if the run is
/// to stop.
///
/// # Panics
/// If the lengths do not match `shape`.
#[inline(never)]
pub fn pack(shape: &ConvShape, oihw: &[f32], out: &mut [f32], pace: &Pace<'_>) {
    let (taps, channels) = (shape.taps(), shape.out_c);
    assert!(oihw.len() == taps * channels && out.len() == oihw.len());
    for (tap, out) in out.chunks_exact_mut(channels.max(1)).enumerate() {
        for (some, out) in out.chunks_mut(PACKED).enumerate() {
            if pace.stops(8 + 4 * out.len()) {
                return;
            }
            for (channel, to) in (some * PACKED..).zip(out) {
                *to = oihw[channel * taps + tap];
            }
        }
    }
}

/// Weights that are packed at once.
const PACKED: usize = 1 << 12;

/// A depthwise convolution.
pub struct Depthwise<'a> {
    /// Its geometry, which this family must [take](takes).
    pub shape: &'a ConvShape,
    /// NHWC.
    pub input: &'a [f32],
    /// Weights from [`pack`].
    pub packed: &'a [f32],
    /// NHWC.
    pub out: &'a mut [f32],
    /// Applied to the sums.
    pub epilogue: Epilogue<'a>,
}

/// Multiply-adds of a task that can be cut: about a millisecond.
const TASK_WORK: usize = 1 << 22;

/// Computes a depthwise convolution.
///
/// # Panics
/// If the length of a slice does not match `shape`.
#[inline(never)]
pub fn depthwise(v: &Variant, args: Depthwise<'_>, pool: &Pool) {
    let Depthwise { shape, input, packed, out, epilogue } = args;
    shape.check();
    assert!(takes(shape), "one filter per channel");
    assert!(v.isa.is_available(), "this CPU does not have {}", v.isa);
    assert_eq!(input.len(), shape.input_len(), "input length");
    assert_eq!(out.len(), shape.output_len(), "output length");
    assert_eq!(packed.len(), shape.taps() * shape.in_c, "weight length");
    epilogue.check(shape.out_c, shape.output_len());
    if out.is_empty() {
        return;
    }
    let rows = shape.batch * shape.out_h;
    let work = product(&[shape.output_len(), shape.taps()]);
    share_rows(pool, out, rows, work, TASK_WORK, |rows, out| {
        let (input, out) = (Input::Images(input), Columns::all(out, shape.out_c));
        let mut args = DepthwiseRows { shape, rows, channels: 0..shape.in_c, input, packed, out, epilogue, pool };
        // SAFETY: the CPU has the instructions.
        unsafe { (v.kernel)(&mut args) }
    });
}

/// Some rows and channels of a convolution of one image: for kernels composed of several convolutions.
pub(crate) struct Band<'a> {
    /// Geometry of the whole convolution, which this family must [take](takes).
    pub shape: &'a ConvShape,
    /// Rows of the output, counted over all images.
    pub rows: Range<usize>,
    /// Channels of the output.
    pub channels: Range<usize>,
    /// The input rows under them, with only these channels: row `y` of the image is at position `y % ring_rows`.
    pub ring: &'a [f32],
    /// Rows that the ring holds.
    pub ring_rows: usize,
    /// Weights of all channels from [`pack`].
    pub packed: &'a [f32],
    /// These channels of these rows.
    pub out: Columns<'a>,
    /// Applied to the sums; the residual is that of the whole output.
    pub epilogue: Epilogue<'a>,
    /// Asked whether to stop.
    pub pool: &'a Pool,
}

/// Computes some rows and channels on the calling thread.
///
/// # Panics
/// If the length of a slice does not match `shape`, or the input rows under the output rows do not fit in the ring.
pub(crate) fn depthwise_band(v: &Variant, args: Band<'_>) {
    let Band { shape, rows, channels, ring, ring_rows, packed, out, epilogue, pool } = args;
    shape.check();
    assert!(takes(shape), "one filter per channel");
    assert!(v.isa.is_available(), "this CPU does not have {}", v.isa);
    if rows.is_empty() || channels.is_empty() {
        return;
    }
    assert!(rows.end <= product(&[shape.batch, shape.out_h]), "rows of the output");
    assert!(channels.end <= shape.out_c, "channels of the output");
    assert_eq!(rows.start / shape.out_h, (rows.end - 1) / shape.out_h, "rows of one image");
    let under = product(&[rows.len() - 1, shape.stride[0]]) + (shape.kernel[0] - 1) * shape.dilation[0] + 1;
    assert!(under.min(shape.in_h) <= ring_rows, "the ring is too small");
    assert_eq!(ring.len(), product(&[ring_rows, shape.in_w, channels.len()]), "ring length");
    assert_eq!(packed.len(), shape.taps() * shape.in_c, "weight length");
    epilogue.check(shape.out_c, shape.output_len());
    let input = Input::Ring { numbers: ring, rows: ring_rows };
    assert_eq!(out.pixels(), product(&[rows.len(), shape.out_w]), "pixels of the output");
    let mut args = DepthwiseRows { shape, rows, channels, input, packed, out, epilogue, pool };
    // SAFETY: the CPU has the instructions.
    unsafe { (v.kernel)(&mut args) }
}

#[cfg(test)]
mod tests;
