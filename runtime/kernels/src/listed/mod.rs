//! Convolutions of which a run needs only some channels, named by lists: those of a mask, for images of few pixels.
//!
//! `out[p, o] = epilogue(sum over taps t and listed channels c of in[p + t, c] * w[o, t, c])` for the listed filters `o`
//!
//! A product usually has filters in the lanes of its registers. Then the weights of the active filters must be copied
//! side by side before they can be multiplied (see [`Active`](crate::conv::Active)), which pays if there are many pixels
//! for each weight. Here, the roles are swapped: pixels are in the lanes, a filter is a pointer to its weights, and an
//! input channel is an index. The weights of inactive channels are skipped where they are, and no weight is copied; they
//! also take no more memory than in the file. Instead, the windows of the image are copied: a row of pixels for every tap
//! and every channel in memory.
//!
//! Only the instruction sets that broadcast a weight from memory have variants: others take factors from the lanes of a
//! register, which adjacent channels fill.

mod contract;
mod run;

use crate::conv::{ConvShape, product};
use crate::isa::Isa;
use crate::pace::Pace;
pub(crate) use contract::FAMILY;
use run::TileFn;

/// A kernel of the family.
pub struct Variant {
    /// Name, as `inspect` prints it: `listed_f32_<filters>x<pixels>_<isa>`.
    pub name: &'static str,
    /// The instruction set it needs.
    pub isa: Isa,
    /// Filters of a tile.
    filters: usize,
    /// Pixels of a register.
    width: usize,
    /// `kernels[filters - 1][registers - 1]`
    kernels: &'static [&'static [TileFn]],
}

/// The entries of the table: whether the kernels are built, name, instruction set, filters, pixels of a register, kernels.
macro_rules! variants {
    ($(#[cfg($built:meta)] $name:literal $isa:ident $filters:literal x $width:literal $kernels:path;)*) => {
        &[$(#[cfg(any($built, feature = "foreign"))] Variant {
            name: $name,
            isa: Isa::$isa,
            filters: $filters,
            width: $width,
            #[cfg($built)]
            kernels: $kernels,
            #[cfg(not($built))]
            kernels: &[],
        },)*]
    };
}

/// Every variant of this build. With the feature `foreign` the table also has the variants of other architectures, for
/// packing only.
pub static VARIANTS: &[Variant] = variants! {
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "listed_f32_12x32_avx512" Avx512 12 x 16 run::AVX512_12X32;
    #[cfg(target_arch = "x86_64")]
    "listed_f32_6x16_avx2" Avx2 6 x 8 run::AVX2_6X16;
    #[cfg(all())]
    "listed_f32_scalar" Scalar 4 x 1 run::SCALAR;
};

/// Most elements of the copied windows of an image, and of its planes.
const MAX_LEN: usize = 1 << 19;

/// Whether a convolution belongs to this family.
pub fn takes(shape: &ConvShape) -> bool {
    let reach = |axis: usize, out: usize| {
        let window = (shape.kernel[axis].max(1) - 1).saturating_mul(shape.dilation[axis]);
        (out.max(1) - 1).saturating_mul(shape.stride[axis]).saturating_add(window).saturating_add(1)
    };
    let plane = reach(0, shape.out_h).saturating_mul(reach(1, shape.out_w));
    // A register more, for the last pixels.
    let pixels = shape.out_h.saturating_mul(shape.out_w).saturating_add(16);
    let windows = pixels.saturating_mul(shape.kernel[0]).saturating_mul(shape.kernel[1]);
    shape.groups == 1 && plane.max(windows).saturating_mul(shape.in_c.max(1)) <= MAX_LEN
}

/// Elements that [`pack`] writes.
pub fn packed_len(shape: &ConvShape) -> usize {
    product(&[shape.out_c, shape.taps(), shape.in_c])
}

/// Packs weights, of which `at(filter, channel, tap)` is an element, as `[filters, taps, channels]`. Incomplete if the
/// run is to stop.
#[inline(never)]
fn pack(shape: &ConvShape, at: &dyn Fn(usize, usize, usize) -> f32, out: &mut [f32], pace: &Pace<'_>) {
    assert_eq!(out.len(), packed_len(shape), "packed length");
    let (taps, channels) = (shape.taps(), shape.in_c);
    for (run, out) in out.chunks_exact_mut(channels.max(1)).enumerate() {
        if pace.stops(2 * channels) {
            return;
        }
        for (channel, to) in out.iter_mut().enumerate() {
            *to = at(run / taps, channel, run % taps);
        }
    }
}
