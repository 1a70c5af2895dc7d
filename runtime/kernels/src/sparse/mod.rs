//! Sparse 1x1 convolution over planes (NCHW), and products of a single row: zero weights cost nothing.
//!
//! `out[f, pixel] = epilogue(sum over the nonzero weights of filter f of w[f, c] * in[c, pixel])`
//!
//! Pixels are in the lanes of registers. A filter's weights come one by one, each with the 16-bit index of its channel:
//! a weight is broadcast and multiplied with a tile of its channel's plane, and the sums of the tile stay in registers
//! until all weights of the filter are done. A tile is up to thirteen registers: a plane of 14x14 is one tile with
//! AVX-512, and a plane of 7x7 is one with NEON. The last register of a tile and the last tile of a plane reach back
//! over pixels that are already done and compute them again, so no load is masked unless the whole plane is smaller
//! than a register. Short tiles have several sets of sums, used by successive weights in turn, so that no multiply-add
//! waits for the one before.
//!
//! A zero weight is not multiplied even if the pixel is infinite or NaN.
//!
//! In the packed layout a weight takes 6 bytes. It stores the ends of the filters (32 bits each, `out_c + 1` of them),
//! then the weights, then their channels.

mod contract;
mod scalar;
mod tile;

use std::ops::Range;

use bytemuck::{cast_slice, cast_slice_mut};

use crate::conv::{ConvShape, Filters, Images, Task, product};
use crate::epilogue::{Epilogue, Stored};
use crate::isa::Isa;
use crate::parallel::Output;
use crate::threads::Pool;
pub(crate) use contract::FAMILY;
use tile::{Kernel, TILES, Tile};

/// A kernel of the family.
pub struct Variant {
    /// Name, as `inspect` prints it.
    pub name: &'static str,
    /// The instruction set it needs.
    pub isa: Isa,
    /// Pixels per register.
    width: usize,
    kernel: Kernel,
}

/// The entries of the table: whether the kernel is built, name, instruction set, pixels per register, kernel.
macro_rules! variants {
    ($(#[cfg($built:meta)] $name:literal $isa:ident $width:literal $kernel:path;)*) => {
        &[$(#[cfg(any($built, feature = "foreign"))] Variant {
            name: $name,
            isa: Isa::$isa,
            width: $width,
            #[cfg($built)]
            kernel: $kernel,
            #[cfg(not($built))]
            kernel: scalar::rows,
        },)*]
    };
}

/// Every variant of this build. With the feature `foreign` the table also has the variants of other architectures, for
/// packing only. All have the same packed layout.
pub static VARIANTS: &[Variant] = variants! {
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "sparse_f32_avx512" Avx512 16 tile::avx512;
    #[cfg(target_arch = "x86_64")]
    "sparse_f32_avx2" Avx2 8 tile::avx2;
    #[cfg(target_arch = "aarch64")]
    "sparse_f32_neon" Neon 4 tile::neon;
    #[cfg(all())]
    "sparse_f32_scalar" Scalar 8 scalar::rows;
};

/// Most input channels: channel indices have 16 bits.
const MAX_CHANNELS: usize = 1 << 16;

/// Whether a convolution is of this family: no scale, no groups, and constant weights. Pixels are read in place, so the
/// images must be planes, or a single pixel each.
fn takes(task: &Task<'_>) -> bool {
    let s = task.shape;
    s.is_pointwise()
        && s.groups == 1
        && s.in_c <= MAX_CHANNELS
        && task.constant
        && !task.scaled
        && (task.images == Images::Nchw || (task.images == Images::Nhwc && s.in_h * s.in_w == 1))
}

impl Variant {
    /// Splits a plane into the tiles that take the least time.
    #[inline(never)]
    fn tiles(&self, plane: usize) -> Tiles {
        let all = plane.div_ceil(self.width).max(1);
        let fits = TILES.iter().filter(|(registers, _)| *registers <= all);
        let tiles = fits.map(|&(registers, sets)| Tiles {
            registers,
            count: all.div_ceil(registers),
            step: step(registers, sets),
        });
        let time = |tiles: &Tiles| tiles.count as f64 * tiles.step;
        tiles.min_by(|a, b| time(a).total_cmp(&time(b))).expect("a tile of one register")
    }

    /// Time by the model of [`gemm`](crate::gemm): every weight loads itself, its channel index and the pixels of its
    /// plane.
    fn cost(&self, shape: &ConvShape, nonzeros: usize) -> f64 {
        let plane = shape.in_h * shape.in_w;
        let Tiles { registers, count, step } = self.tiles(plane);
        // Whether the pixels under a tile exceed the first-level cache.
        let far = if shape.in_c * registers * self.width * size_of::<f32>() > FIRST_LEVEL { 1.5 } else { 1.0 };
        let per_filter = 2.0 * registers as f64 + 20.0;
        let once = step * far * nonzeros as f64 + per_filter * shape.out_c as f64;
        once * count as f64 * shape.batch as f64
    }
}

/// How a plane is split into tiles.
struct Tiles {
    /// Registers per tile.
    registers: usize,
    count: usize,
    /// Time of one weight on a tile.
    step: f64,
}

/// Bytes of the first-level cache that pixels may take.
const FIRST_LEVEL: usize = 32 * 1024;

/// Time of one weight on a tile of `tile` registers with `sets` sets of sums: two loads start per cycle, and a sum is
/// ready after four cycles.
fn step(tile: usize, sets: usize) -> f64 {
    (tile as f64 + 2.0).max(8.0 / sets as f64)
}

/// Size in bytes of the packed weights, of which `nonzeros` are not zero.
pub fn packed_len(shape: &ConvShape, nonzeros: usize) -> usize {
    let ends = product(&[shape.out_c + 1, size_of::<u32>()]);
    ends + (product(&[nonzeros, 6])).next_multiple_of(4)
}

/// Packs the weights.
///
/// # Panics
/// If a length does not match the shape, or the count of nonzero weights does not fit in a `u32`.
#[inline(never)]
pub fn pack(shape: &ConvShape, filters: Filters<'_>, to: &mut [u8]) {
    let (depth, count) = (shape.in_c, shape.out_c);
    assert!(shape.taps() == 1 && shape.groups == 1 && depth <= MAX_CHANNELS, "a sparse convolution");
    let (Filters::Oihw(weights) | Filters::Io(weights)) = filters;
    assert_eq!(weights.len(), product(&[depth, count]), "weight length");
    let nonzeros = weights.iter().filter(|&&w| w != 0.0).count();
    assert_eq!(to.len(), packed_len(shape, nonzeros), "the packed weights");
    let (ends, rest) = to.split_at_mut((count + 1) * size_of::<u32>());
    let (values, channels) = rest.split_at_mut(nonzeros * size_of::<f32>());
    let ends: &mut [u32] = cast_slice_mut(ends);
    let (values, channels): (&mut [f32], &mut [u16]) = (cast_slice_mut(values), cast_slice_mut(channels));
    ends[0] = 0;
    // If the count is odd, one more index fills the last 32 bits.
    channels[nonzeros..].fill(0);
    let mut at = 0;
    for filter in 0..count {
        for channel in 0..depth {
            let weight = match filters {
                Filters::Oihw(weights) => weights[filter * depth + channel],
                Filters::Io(weights) => weights[channel * count + filter],
            };
            if weight != 0.0 {
                (values[at], channels[at]) = (weight, channel as u16);
                at += 1;
            }
        }
        ends[filter + 1] = u32::try_from(at).expect("weights that a u32 counts");
    }
}

/// Packed weights, split into their parts.
#[derive(Clone, Copy)]
pub(crate) struct Weights<'a> {
    /// The end of each filter's weights, preceded by a 0.
    ends: &'a [u32],
    values: &'a [f32],
    channels: &'a [u16],
    /// Channels of the input.
    depth: usize,
}

impl<'a> Weights<'a> {
    /// `None` if there are too few bytes for the filters, or if their length does not match the ends.
    fn new(shape: &ConvShape, packed: &'a [u8]) -> Option<Self> {
        let (ends, rest) = packed.split_at_checked(shape.out_c.checked_add(1)?.checked_mul(size_of::<u32>())?)?;
        let ends: &[u32] = bytemuck::try_cast_slice(ends).ok()?;
        let count = usize::try_from(*ends.last()?).ok()?;
        if rest.len() != count.checked_mul(6)?.next_multiple_of(4) {
            return None;
        }
        let (values, channels) = rest.split_at(count * size_of::<f32>());
        Some(Self { ends, values: cast_slice(values), channels: &cast_slice(channels)[..count], depth: shape.in_c })
    }

    /// Weights and channels of a filter. The channels are all valid.
    ///
    /// # Panics
    /// If the filter's range is out of bounds, or a channel is not one of the input.
    fn filter(&self, filter: usize) -> (&'a [f32], &'a [u16]) {
        let range = self.ends[filter] as usize..self.ends[filter + 1] as usize;
        let channels = &self.channels[range.clone()];
        assert!(are_below(channels, self.depth), "channels of the input");
        (&self.values[range], channels)
    }

    /// Whether every filter's range and channels are valid.
    fn is_sound(&self) -> bool {
        self.ends.first() == Some(&0) && self.ends.is_sorted() && are_below(self.channels, self.depth)
    }
}

/// Whether all channels are below a bound. Always reads all of them, so that the loop is vectorized.
#[inline(never)]
fn are_below(channels: &[u16], bound: usize) -> bool {
    let last = channels.iter().fold(0, |last, &channel| channel.max(last));
    channels.is_empty() || usize::from(last) < bound
}

/// Multiply-adds below which a second thread does not pay off.
const WORTH_SHARING: usize = if cfg!(test) { 1 } else { 50_000 };
/// Units per thread: several, so that a slow thread delays the others little.
const UNITS_PER_THREAD: usize = 4;

/// Computes a convolution whose slices were checked.
fn run(
    v: &Variant,
    shape: &ConvShape,
    input: &[f32],
    weights: Weights<'_>,
    out: &mut [f32],
    epilogue: Epilogue<'_>,
    pool: &Pool,
) {
    let (plane, filters) = (shape.in_h * shape.in_w, shape.out_c);
    let work = product(&[weights.values.len(), plane]);
    let blocks = match pool.threads() {
        threads if threads > 1 && work >= WORTH_SHARING => filters.min(threads * UNITS_PER_THREAD),
        _ => 1,
    };
    let (image_in, image_out) = (product(&[plane, shape.in_c]), product(&[plane, filters]));
    let to = Output::new(out);
    let (in_registers, rest) = epilogue.parts();
    let Tiles { registers, count, .. } = v.tiles(plane);
    let pixels = (registers * v.width).min(plane);
    let unit = |image: usize, filters: Range<usize>| {
        let input = &input[image * image_in..][..image_in];
        // SAFETY: the output has this image.
        let out = unsafe { to.start().add(image * image_out) };
        for tile in 0..count {
            // The last tile reaches back.
            let first = (tile * registers * v.width).min(plane - pixels);
            for filter in filters.clone() {
                let (values, channels) = weights.filter(filter);
                let bias = epilogue.bias.map_or(0.0, |bias| bias[filter]);
                let at = filter * plane + first;
                let tile = Tile {
                    values,
                    channels,
                    input: &input[first..],
                    plane,
                    pixels,
                    bias,
                    in_registers,
                    out: out.wrapping_add(at),
                };
                // SAFETY: the CPU has the instructions. The weights' channels are planes of the input, as `filter` has
                // checked; each plane, and the output, has the tile's pixels from `first` on; no other thread writes
                // this filter's output.
                unsafe { (v.kernel)(&tile, registers) };
                if let Some(rest) = &rest {
                    let start = to.start();
                    let stored =
                        Stored { out: start, at: image * image_out + at, ldc: plane, rows: 1, columns: pixels };
                    // SAFETY: the output has the tile, which was computed above. Pixels that are computed twice were
                    // stored anew.
                    unsafe { rest.finish(v.isa, &stored) };
                }
            }
        }
    };
    pool.run(shape.batch * blocks, pool.threads(), &|task, _| {
        let (image, block) = (task / blocks, task % blocks);
        unit(image, filters * block / blocks..filters * (block + 1) / blocks);
    });
}

#[cfg(test)]
mod tests;
