//! Convolutions of many small groups over NHWC images: large and dilated kernels with one filter per channel, several
//! filters per channel, and groups of a few channels.
//!
//! `out[y, x, o] = epilogue(sum over ky, c, kx of in[y * sy + ky * dy - pad, x * sx + kx * dx - pad, g * depth + c] * w[o, c, ky, kx])`
//!
//! where `g` is the group of filter `o`, and `depth` the channels of a group. A product per group would fill few lanes,
//! and prepare its pointers for few multiply-adds. Here, adjacent filters are in the lanes of a register, whatever
//! groups they belong to, and the pixels are spread: for every channel of a group, a register that holds that channel of
//! each lane's group. A ring of rows of spread pixels is in scratch, with zeros in place of the padding, and sorted by
//! column modulo the stride, so that the pixels under a tap of adjacent outputs are always adjacent.
//!
//! A tile, 8 or 14 outputs of a row, is then one loop over the taps and channels. Each step loads one register of
//! weights, and each multiply-add of a step reads its pixels at a constant distance. Groups, strides, dilations and edges
//! do not occur in that loop. It is bound by its loads: 15 for 14 multiply-adds, where a CPU starts two of each per
//! cycle. Spreading costs one load and one store per register; with large kernels or several channels, a register is used
//! often enough. For 3x3 and 5x5 kernels with one filter per channel, `depthwise` loads less.

mod contract;
mod run;
mod split;

use crate::conv::{ConvShape, product};
use crate::epilogue::Epilogue;
use crate::isa::Isa;
use crate::pace::Pace;
use crate::parallel::{Output, share_units};
use crate::threads::Pool;
pub(crate) use contract::FAMILY;
use run::Unit;
use split::Split;

/// A kernel of the family.
pub struct Variant {
    /// Name, as `inspect` prints it: `grouped_f32_<outputs>x<filters>_<isa>`.
    pub name: &'static str,
    /// The instruction set it needs.
    pub isa: Isa,
    /// Filters of a register.
    width: usize,
    kernel: unsafe fn(&Unit<'_>, &mut [f32]),
}

/// The entries of the table: whether the kernel is built, name, instruction set, filters, kernel.
macro_rules! variants {
    ($(#[cfg($built:meta)] $name:literal $isa:ident $width:literal $kernel:path;)*) => {
        &[$(#[cfg(any($built, feature = "foreign"))] Variant {
            name: $name,
            isa: Isa::$isa,
            width: $width,
            #[cfg($built)]
            kernel: $kernel,
            #[cfg(not($built))]
            kernel: run::not_built,
        },)*]
    };
}

/// Every variant of this build; without vectors, `gemm` and `depthwise` compute these convolutions. With the feature
/// `foreign` the table also has the variants of other architectures, for packing only.
pub static VARIANTS: &[Variant] = variants! {
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "grouped_f32_14x16_avx512" Avx512 16 run::avx512;
    #[cfg(target_arch = "x86_64")]
    "grouped_f32_14x8_avx2" Avx2 8 run::avx2;
    #[cfg(target_arch = "aarch64")]
    "grouped_f32_14x4_neon" Neon 4 run::neon;
    #[cfg(target_arch = "arm")]
    "grouped_f32_14x4_neon32" Neon32 4 run::neon32;
};

/// The variant of `isa` for this many channels and filters, if there is one. Those that do not fill an AVX-512 register
/// use AVX2.
#[inline(never)]
fn choose(isa: Isa, channels: usize) -> Option<&'static Variant> {
    let mut usable = VARIANTS.iter().filter(|v| v.isa == isa || (isa == Isa::Avx512 && v.isa == Isa::Avx2));
    let full = usable.clone().find(|v| v.width <= channels);
    full.or(usable.next_back())
}

/// Elements that [`pack`] writes.
fn packed_len(v: &Variant, shape: &ConvShape) -> usize {
    product(&[shape.out_c.next_multiple_of(v.width), shape.taps(), shape.group_in()])
}

/// Packs the weights `[filters, channels, kernel_h, kernel_w]` register by register of filters, each
/// `[kernel_h, channels, kernel_w, filters]`; missing filters of the last register are zero. Incomplete if the run is to
/// stop.
///
/// # Panics
/// If the lengths do not match `shape`.
#[inline(never)]
fn pack(v: &Variant, shape: &ConvShape, oihw: &[f32], out: &mut [f32], pace: &Pace<'_>) {
    let ([rows, columns], depth) = (shape.kernel, shape.group_in());
    let steps = shape.taps() * depth;
    assert_eq!(oihw.len(), product(&[shape.out_c, steps]), "weight length");
    assert_eq!(out.len(), packed_len(v, shape), "packed length");
    if steps == 0 {
        return;
    }
    for (at, to) in out.chunks_exact_mut(v.width).enumerate() {
        if pace.stops(4 * v.width) {
            return;
        }
        let (register, step) = (at / steps, at % steps);
        let (row, channel, column) = (step / (depth * columns), step / columns % depth, step % columns);
        let from = (channel * rows + row) * columns + column;
        for (filter, to) in (register * v.width..).zip(to) {
            *to = if filter < shape.out_c { oihw[filter * steps + from] } else { 0.0 };
        }
    }
}

/// A convolution of the family.
struct Grouped<'a> {
    shape: &'a ConvShape,
    /// NHWC.
    input: &'a [f32],
    /// Weights from [`pack`].
    packed: &'a [f32],
    /// NHWC.
    out: &'a mut [f32],
    /// Applied to the sums.
    epilogue: Epilogue<'a>,
}

/// Computes a convolution.
///
/// # Panics
/// If the family does not take the shape, if the length of a slice does not match it, if the scratch is too short, or if
/// the CPU lacks the variant's instructions.
#[inline(never)]
fn grouped(v: &Variant, args: Grouped<'_>, scratch: &mut [f32], pool: &Pool) {
    let Grouped { shape, input, packed, out, epilogue } = args;
    shape.check();
    assert!(v.isa.is_available(), "this CPU does not have {}", v.isa);
    assert_eq!(input.len(), shape.input_len(), "input length");
    assert_eq!(out.len(), shape.output_len(), "output length");
    assert_eq!(packed.len(), packed_len(v, shape), "weight length");
    epilogue.check(shape.out_c, out.len());
    let split = Split::new(v.width, shape, pool.threads()).expect("a convolution of small groups");
    assert!(scratch.len() >= split.scratch_len(), "the scratch is too short");
    if out.is_empty() {
        return;
    }
    let (offsets, scratch) = scratch.split_at_mut(split.offsets_len());
    let offsets = bytemuck::cast_slice_mut(offsets);
    split.offsets(shape, offsets);
    let (bounds, rest) = (epilogue.bounds(), epilogue.rest());
    let out = Output::new(out);
    share_units(pool, split.units(shape), split.slots, split.slot_len(), scratch, |unit, slot| {
        let place = split.unit(shape, unit);
        let (bias, isa, split, offsets) = (epilogue.bias, v.isa, &split, &*offsets);
        let (zero, out) = (0.0, &out);
        let unit = Unit { shape, split, place, input, packed, offsets, bias, zero, bounds, rest, isa, out, pool };
        // SAFETY: the CPU has the instructions, and the lengths were checked. No two units have an output in common.
        unsafe { (v.kernel)(&unit, slot) }
    });
}

#[cfg(test)]
mod tests;
