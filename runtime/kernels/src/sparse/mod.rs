//! Sparse convolution over NCHW images, and products of a single row: zero weights cost nothing.
//!
//! `out[f, pixel] = epilogue(sum over the nonzero weights of filter f of w[f, c] * in[c, pixel])`
//!
//! This is the 1x1 convolution. For a larger kernel, each tap of each channel counts as a channel: the pixels under a
//! tap are gathered into a plane first, for as many rows at once as stay in the cache. So the first convolution of a
//! network can write NCHW, even though hardly any of its weights are zero.
//!
//! Pixels are in the lanes of registers. Each weight of a filter is stored with the 16-bit index of its channel: it is
//! broadcast and multiplied with a tile of its channel's plane, and the sums of the tile stay in registers until all
//! weights of the filter are done. A tile is up to thirteen registers: a plane of 14x14 is one tile with AVX-512, and a
//! plane of 7x7 is one with NEON. The last register of a tile and the last tile of a plane overlap pixels that are
//! already done and compute them again, so no load is masked unless the whole plane is smaller than a register. Short
//! tiles have several sets of sums, used alternately by successive weights, so that no multiply-add waits for the
//! previous one. If input channels are scaled (squeeze-and-excite), either the pixels under a tile are scaled when they
//! are copied, or the weights of a filter before they are used.
//!
//! Where weights were pruned in blocks of 4x1 (or 16x1), that is the same channel of four consecutive filters, these
//! filters share their channel indices: a register of pixels is loaded once for four multiply-adds. So the sums are no
//! longer bound by loads, and an index is stored for four weights. A block with any nonzero weight is stored whole.
//!
//! A zero weight is not multiplied even if the pixel is infinite or NaN, unless it is stored in a block.
//!
//! In the packed layout a weight takes 6 bytes, or 4 in half precision. It contains the ends of the filters
//! (`out_c + 1` values of 32 bits), then the weights, then their channels. With blocks, four filters have one end, and
//! four weights one channel. Weights in half precision are widened, filter
//! by filter, before they are used: a few instructions for a register of weights, each of which is then multiplied with
//! a whole tile.

mod contract;
mod gather;
mod row;
mod scalar;
mod tile;
mod widen;

use std::ops::Range;

use bytemuck::{cast_slice, cast_slice_mut};
use half::f16;

use crate::conv::{ConvShape, Filters, Images, Task, product, streamed};
use crate::epilogue::{Epilogue, InRegisters, Rest, Stored};
use crate::gemm::{Packed, Weights};
use crate::isa::Isa;
use crate::lanes::Lanes;
use crate::pace::Pace;
use crate::parallel::{Output, UNITS_PER_THREAD, WINDOWS_WORTH_SHARING, share_units};
use crate::planes::Padded;
use crate::simd::{self, Simd, dispatch};
use crate::threads::Pool;
pub(crate) use contract::FAMILY;
use gather::{Gather, RowBands};
use row::{RowFn, SparseRow};
use tile::{BLOCK_TILES, LANE_BLOCK_TILES, LANE_TILES, SparseTile, TILES, TileFn};
use widen::Widen;

/// A kernel of the family.
pub struct Variant {
    /// Name, as `inspect` prints it.
    pub name: &'static str,
    /// The instruction set it needs.
    pub isa: Isa,
    /// Weight dtype.
    weights: Weights,
    /// Consecutive filters that share their channels: 1, or [`BLOCK`].
    block: usize,
    /// Pixels per register.
    width: usize,
    kernel: TileFn,
    row: RowFn,
    widen: Widen,
    gather: Gather,
}

/// The entries of the table, four per line, single weights and blocks of each weight dtype: whether they are built,
/// instruction set, its module with the end of their names, pixels per register.
macro_rules! variants {
    ($(#[cfg($built:meta)] $isa:ident $module:ident $width:literal;)*) => {
        &[$(
            #[cfg(any($built, feature = "foreign"))]
            variants!($built, concat!("sparse_f16_", stringify!($module)), F16, 1, $isa $module $width),
            #[cfg(any($built, feature = "foreign"))]
            variants!($built, concat!("sparse_f32_", stringify!($module)), F32, 1, $isa $module $width),
            #[cfg(any($built, feature = "foreign"))]
            variants!($built, concat!("sparse_4x1_f16_", stringify!($module)), F16, BLOCK, $isa $module $width),
            #[cfg(any($built, feature = "foreign"))]
            variants!($built, concat!("sparse_4x1_f32_", stringify!($module)), F32, BLOCK, $isa $module $width),
        )*]
    };
    ($built:meta, $name:expr, $weights:ident, $block:expr, $isa:ident $module:ident $width:literal) => {
        Variant {
            name: $name,
            isa: Isa::$isa,
            weights: Weights::$weights,
            block: $block,
            width: $width,
            #[cfg($built)]
            kernel: tile::$module,
            #[cfg(not($built))]
            kernel: tile::scalar,
            #[cfg($built)]
            row: row::$module,
            #[cfg(not($built))]
            row: row::scalar,
            #[cfg($built)]
            widen: widen::$module,
            #[cfg(not($built))]
            widen: widen::scalar,
            #[cfg($built)]
            gather: gather::$module,
            #[cfg(not($built))]
            gather: gather::scalar,
        }
    };
}

/// Every variant of this build. With the feature `foreign` the table also has the variants of other architectures, for
/// packing only. All of one weight dtype and block have the same packed layout.
pub static VARIANTS: &[Variant] = variants! {
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    Avx512 avx512 16;
    #[cfg(target_arch = "x86_64")]
    Avx2 avx2 8;
    #[cfg(target_arch = "aarch64")]
    Neon neon 4;
    #[cfg(all())]
    Scalar scalar 8;
};

/// Filters of a block.
pub const BLOCK: usize = 4;

/// Most weights of a filter: their indices have 16 bits.
const MAX_DEPTH: usize = 1 << 16;

/// Weights of a filter, including zeros.
fn depth(shape: &ConvShape) -> usize {
    shape.in_c.saturating_mul(shape.taps())
}

/// Most gathered pixels of an output row, which are gathered at once.
const MAX_ROW: usize = 1 << 20;

/// Whether the geometry belongs to this family.
fn fits(s: &ConvShape) -> bool {
    let gathers = || Padded::takes(s) && depth(s).saturating_mul(s.out_w.max(s.in_w)) <= MAX_ROW;
    s.groups == 1 && depth(s) <= MAX_DEPTH && (s.is_pointwise() || gathers())
}

/// Whether a convolution belongs to this family: no groups, and constant weights. Images must be NCHW or have a single
/// pixel.
fn takes(task: &Task<'_>) -> bool {
    let s = task.shape;
    let single = s.is_pointwise() && s.in_h * s.in_w == 1;
    fits(s)
        && task.constant
        && !task.masked
        && !task.affine
        && (!task.scaled || s.is_pointwise())
        && (task.images == Images::Nchw || (task.images == Images::Nhwc && single))
}

impl Variant {
    /// The sizes of tiles: registers, and sets of sums.
    fn tile_sizes(&self) -> &'static [(usize, usize)] {
        match (self.block, self.isa) {
            (1, Isa::Neon) => &LANE_TILES,
            (1, _) => &TILES,
            // Sums of four filters, their weights and some pixels are at most sixteen registers.
            (_, Isa::Avx2) => &BLOCK_TILES[..2],
            (_, Isa::Neon) => &LANE_BLOCK_TILES,
            _ => &BLOCK_TILES,
        }
    }

    /// Splits planes into the fastest tiles for groups of filters that share their channels, `weights` in each.
    #[inline(never)]
    fn tiles(&self, plane: usize, depth: usize, groups: usize, weights: usize, scaled: bool) -> Tiles {
        let all = plane.div_ceil(self.width).max(1);
        let fits = self.tile_sizes().iter().filter(|(registers, _)| *registers <= all);
        let block = self.block as f64;
        let tiles = fits.map(|&(registers, sets)| {
            let count = all.div_ceil(registers);
            let uses = groups as f64 * weights as f64;
            // In a plane that starts at an arbitrary address, every register spans two cache lines.
            let across = !plane.is_multiple_of(self.width);
            let pays = (across || count > 1) && uses >= WORTH_PACKING * depth as f64;
            let packed = self.isa != Isa::Scalar && plane >= self.width && (pays || scaled);
            let loads = registers as f64 * if across && !packed { 2.0 } else { 1.0 };
            let bytes = registers * self.width * size_of::<f32>();
            // The share of pixels that do not stay in the first-level cache.
            let far = (1.0 - FIRST_LEVEL / (bytes as f64 * depth as f64)).max(0.0);
            let products = registers as f64 * block;
            let step = match self.block {
                1 => (loads + 2.0).max(8.0 / sets as f64),
                _ => products.max(loads + block).max(8.0 / sets as f64) + 1.0,
            };
            let step = step + far * FAR * bytes as f64;
            let packing = if packed { 3.0 * (registers * depth) as f64 } else { 0.0 };
            // A single pixel is multiplied one by one, and always stays in the cache; plain Rust also adds one by one.
            let one_by_one = match (self.isa, self.block) {
                (Isa::Scalar, _) => 4.0 * block,
                (_, 1) => 2.8,
                _ => 4.0,
            };
            let (step, stored) = if plane == 1 { (one_by_one, 80.0) } else { (step, 2.0 * products + 40.0) };
            let group = step * weights as f64 + stored;
            Tiles { registers, count, packed, time: count as f64 * (groups as f64 * group + packing) }
        });
        tiles.min_by(|a, b| a.time.total_cmp(&b.time)).expect("a tile of one register")
    }

    /// Bytes of the weights that share a channel, with the channel.
    fn block_size(&self) -> usize {
        self.block * self.weights.size() + size_of::<u16>()
    }

    /// Groups of filters that share their channels.
    fn groups(&self, shape: &ConvShape) -> usize {
        shape.out_c.div_ceil(self.block)
    }

    /// Weights that are stored.
    fn stored(&self, task: &Task<'_>) -> usize {
        if self.block == 1 { task.nonzeros } else { product(&[task.blocks, self.block]) }
    }

    /// Size in bytes of packed weights of which `stored` are stored.
    fn packed_len(&self, shape: &ConvShape, stored: usize) -> usize {
        let ends = product(&[self.groups(shape) + 1, size_of::<u32>()]);
        ends + product(&[stored / self.block, self.block_size()]).next_multiple_of(4)
    }

    /// Time by the model of [`gemm`](crate::gemm): every weight requires loads of the weight, its channel index and the
    /// pixels of its plane. Weights in half precision are also widened for every tile, register by register: converted
    /// and stored.
    fn cost(&self, task: &Task<'_>) -> f64 {
        let (shape, stored, groups) = (task.shape, self.stored(task), self.groups(task.shape));
        let bands = (!shape.is_pointwise()).then(|| RowBands::new(shape, self.width));
        let (plane, count) = bands.as_ref().map_or((shape.in_h * shape.in_w, 1), |b| (b.pixels(), b.count()));
        let tiles = self.tiles(plane, depth(shape), groups, (stored / self.block).div_ceil(groups.max(1)), task.scaled);
        // A gathered pixel is loaded and stored.
        let gathered = bands.map_or(0, |_| 3 * depth(shape) * plane.div_ceil(self.width));
        let widened = match self.weights {
            Weights::F32 => 0,
            Weights::F16 => 2 * tiles.count * stored.div_ceil(self.width),
        };
        let time = (tiles.time + (gathered + widened) as f64) * count as f64 * shape.batch as f64;
        // Weights that are used once arrive while others are multiplied.
        if shape.pixels() == 1 { time.max(streamed(self.packed_len(shape, stored))) } else { time }
    }
}

/// How a plane is split into tiles.
struct Tiles {
    /// Registers per tile.
    registers: usize,
    count: usize,
    /// Whether the pixels under a tile are copied, register by register, before they are read.
    packed: bool,
    time: f64,
}

/// Bytes of the first-level cache that pixels may take.
const FIRST_LEVEL: f64 = 40.0 * 1024.0;
/// Time to read a byte from the second-level cache, in loads: a line of 64 bytes takes about one cycle.
const FAR: f64 = 2.0 / 64.0;
/// Weights per input channel from which copying the pixels pays off.
const WORTH_PACKING: f64 = 6.0;

/// Packs the weights for a variant.
///
/// # Panics
/// If a length does not match the shape, or the number of blocks does not fit in a `u32`.
#[inline(never)]
fn pack(v: &Variant, shape: &ConvShape, filters: Filters<'_>, to: &mut [u8]) {
    let (depth, count) = (depth(shape), shape.out_c);
    assert!(fits(shape) && (shape.taps() == 1 || matches!(filters, Filters::Oihw(_))), "a sparse convolution");
    let (Filters::Oihw(weights) | Filters::Io(weights)) = filters;
    assert_eq!(weights.len(), product(&[depth, count]), "weight length");
    let weight = |filter: usize, channel: usize| match filters {
        _ if filter >= count => 0.0,
        Filters::Oihw(weights) => weights[filter * depth + channel],
        Filters::Io(weights) => weights[channel * count + filter],
    };
    let block = |group: usize, channel: usize| {
        (group * v.block..(group + 1) * v.block).map(move |filter| weight(filter, channel))
    };
    let is_stored = |group: usize, channel: usize| block(group, channel).any(|weight| weight != 0.0);
    let groups = v.groups(shape);
    let of_group = |group: usize| (0..depth).filter(|&channel| is_stored(group, channel)).count();
    let blocks: usize = (0..groups).map(of_group).sum();
    assert_eq!(to.len(), v.packed_len(shape, blocks * v.block), "the packed weights");
    let (ends, rest) = to.split_at_mut((groups + 1) * size_of::<u32>());
    let (values, channels) = rest.split_at_mut(blocks * v.block * v.weights.size());
    let (ends, channels): (&mut [u32], &mut [u16]) = (cast_slice_mut(ends), cast_slice_mut(channels));
    ends[0] = 0;
    // If the count of 16-bit elements is odd, one more index fills the last 32 bits.
    channels[blocks..].fill(0);
    let mut at = 0;
    for group in 0..groups {
        for channel in (0..depth).filter(|&channel| is_stored(group, channel)) {
            for (to, weight) in (at * v.block..).zip(block(group, channel)) {
                match v.weights {
                    Weights::F32 => cast_slice_mut(values)[to] = weight,
                    Weights::F16 => cast_slice_mut(values)[to] = f16::from_f32(weight),
                }
            }
            channels[at] = channel as u16;
            at += 1;
        }
        ends[group + 1] = u32::try_from(at).expect("blocks that a u32 counts");
    }
}

/// Packed weights, split into their parts.
#[derive(Clone, Copy)]
pub(crate) struct SparseWeights<'a> {
    /// The end of each group's blocks, preceded by a 0.
    ends: &'a [u32],
    /// Weights of the blocks.
    values: Packed<'a>,
    /// One per block.
    channels: &'a [u16],
    /// Filters of a group.
    block: usize,
    /// Filters of all groups.
    filters: usize,
    /// Input channels, or the taps of all of them.
    depth: usize,
}

impl<'a> SparseWeights<'a> {
    /// `None` if there are too few bytes for the filters, or if their length does not match the ends.
    fn new(v: &Variant, shape: &ConvShape, packed: &'a [u8]) -> Option<Self> {
        let (ends, rest) = packed.split_at_checked(v.groups(shape).checked_add(1)?.checked_mul(size_of::<u32>())?)?;
        let ends: &[u32] = bytemuck::try_cast_slice(ends).ok()?;
        let count = usize::try_from(*ends.last()?).ok()?;
        if rest.len() != count.checked_mul(v.block_size())?.next_multiple_of(4) {
            return None;
        }
        let (values, channels) = rest.split_at(count * v.block * v.weights.size());
        let (values, channels) = (v.weights.read(values), &cast_slice(channels)[..count]);
        Some(Self { ends, values, channels, block: v.block, filters: shape.out_c, depth: depth(shape) })
    }

    /// The positions of the blocks of some groups.
    fn range(&self, groups: &Range<usize>) -> Range<usize> {
        self.ends[groups.start] as usize..self.ends[groups.end] as usize
    }

    /// The filters of some groups.
    fn filters_of(&self, groups: &Range<usize>) -> Range<usize> {
        (groups.start * self.block).min(self.filters)..(groups.end * self.block).min(self.filters)
    }

    /// Whether every group's range and channels are valid, and no group has more blocks than channels.
    fn is_sound(&self) -> bool {
        let fits = |ends: &[u32]| ends[0] <= ends[1] && (ends[1] - ends[0]) as usize <= self.depth;
        self.ends.first() == Some(&0) && self.ends.windows(2).all(fits) && are_below(self.channels, self.depth)
    }
}

/// Some groups of filters, whose weights are f32.
struct FewFilters<'a> {
    groups: Range<usize>,
    all: SparseWeights<'a>,
    /// Weights of these groups, or of all.
    values: &'a [f32],
    /// Position of the first block of the values.
    first: usize,
}

impl FewFilters<'_> {
    /// Weights and channels of a group, and its filters. There are as many blocks as channels.
    ///
    /// # Panics
    /// If its weights are out of range.
    #[inline(always)]
    fn of(&self, group: usize) -> (&[f32], &[u16], Range<usize>) {
        let (block, groups) = (self.all.block, group..group + 1);
        let range = self.all.range(&groups);
        let values = &self.values[(range.start - self.first) * block..(range.end - self.first) * block];
        (values, &self.all.channels[range], self.all.filters_of(&groups))
    }
}

/// Whether all channels are below a bound. Always reads all of them, so that the loop is vectorized.
#[inline(never)]
fn are_below(channels: &[u16], bound: usize) -> bool {
    let last = channels.iter().fold(0, |last, &channel| channel.max(last));
    channels.is_empty() || usize::from(last) < bound
}

/// Scratch elements per thread: for the pixels under a tile or a scaled pixel, for widened or scaled weights of some
/// filters, and for gathered pixels. Each part starts at a cache line.
fn slot_parts(v: &Variant, shape: &ConvShape, scaled: bool) -> [usize; 3] {
    let bands = (!shape.is_pointwise()).then(|| RowBands::new(shape, v.width));
    let plane = bands.as_ref().map_or(shape.in_h * shape.in_w, RowBands::pixels);
    let largest = plane.div_ceil(v.width).min(v.tile_sizes().last().map_or(1, |tile| tile.0)) * v.width;
    let packed = match plane {
        1 if scaled => depth(shape),
        _ if plane < v.width || v.isa == Isa::Scalar => 0,
        _ => product(&[depth(shape), largest]),
    };
    let changed =
        if scaled || v.weights == Weights::F16 { product(&[at_once(depth(shape)), depth(shape), v.block]) } else { 0 };
    [packed, changed, bands.map_or(0, |bands| bands.scratch_len())].map(|len| len.next_multiple_of(LINE))
}

/// Elements per cache line.
const LINE: usize = 16;

/// A convolution whose slices were checked.
struct Sparse<'a> {
    shape: &'a ConvShape,
    input: &'a [f32],
    weights: SparseWeights<'a>,
    out: &'a mut [f32],
    epilogue: Epilogue<'a>,
    /// One factor per image and input channel.
    scale: Option<&'a [f32]>,
}

fn run(v: &Variant, args: Sparse<'_>, scratch: &mut [f32], pool: &Pool) {
    let Sparse { shape, input, weights, out, epilogue, scale } = args;
    assert!(are_below(weights.channels, weights.depth), "channels of the input");
    let (plane, groups) = (shape.in_h * shape.in_w, v.groups(shape));
    let bands = (!shape.is_pointwise()).then(|| RowBands::new(shape, v.width));
    let work = product(&[weights.values.len(), shape.out_h, shape.out_w]);
    // Threads share the groups of filters, or the bands if pixels are gathered.
    let blocks = match (&bands, pool.threads()) {
        (Some(bands), _) => bands.count(),
        (None, threads) if threads > 1 && work >= WINDOWS_WORTH_SHARING => groups.min(threads * UNITS_PER_THREAD),
        _ => 1,
    };
    let (in_registers, rest) = epilogue.parts();
    let to = Output::new(out);
    let out = PlaneOutput { start: &to, plane: shape.out_h * shape.out_w, bias: epilogue.bias, in_registers, rest };
    let afterwards = epilogue.afterwards();
    let parts = slot_parts(v, shape, scale.is_some());
    share_units(pool, shape.batch * blocks, pool.threads(), parts.iter().sum(), scratch, |task, slot| {
        let (image, block) = (task / blocks, task % blocks);
        let image_in = product(&[plane, shape.in_c]);
        let input = &input[image * image_in..][..image_in];
        let (packed, slot) = slot.split_at_mut(parts[0]);
        let (changed, gathered) = slot.split_at_mut(parts[1]);
        let scale = scale.map(|scale| &scale[image * shape.in_c..][..shape.in_c]);
        let mut pixels = PixelBlock { input, plane, count: plane, scale, first: image * shape.out_c * out.plane };
        let mut block = groups * block / blocks..groups * (block + 1) / blocks;
        if let Some(bands) = &bands {
            let rows = bands.rows(task % blocks);
            pixels.first += rows.start * shape.out_w;
            pixels.count = rows.len() * shape.out_w;
            // SAFETY: the CPU has the instructions; the bands belong to the shape and this width, and the slot has
            // space for them.
            pixels.input = unsafe { (v.gather)(bands, shape, input, rows, gathered) };
            pixels.plane = pixels.count;
            block = 0..groups;
        }
        // SAFETY: the CPU has the instructions; the input has `count` pixels of every channel; the output has every
        // filter's, and no other task writes them.
        unsafe {
            match out.plane {
                1 => v.row(
                    weights,
                    &pixels,
                    block,
                    (out.start.start(), out.bias, afterwards.as_ref()),
                    (packed, changed),
                    pool,
                ),
                _ => v.filters(weights, &pixels, block, &out, (packed, changed), pool),
            }
        }
    });
}

/// Pixels that are computed at once.
struct PixelBlock<'a> {
    /// The input, starting at the first pixel of the first plane.
    input: &'a [f32],
    /// Elements from one plane to the next.
    plane: usize,
    count: usize,
    /// Factors for the channels.
    scale: Option<&'a [f32]>,
    /// The output of the first filter for the first pixel.
    first: usize,
}

/// The destination of the results.
struct PlaneOutput<'a> {
    start: &'a Output,
    /// Elements from one plane to the next.
    plane: usize,
    bias: Option<&'a [f32]>,
    in_registers: InRegisters,
    rest: Option<Rest<'a>>,
}

impl Variant {
    /// Computes some groups of filters. The scratch is for the pixels under a tile, and for the weights of a filter if they are
    /// widened or scaled.
    ///
    /// # Safety
    /// The CPU has the instructions; the input has `count` pixels of every channel of the weights, and the output has
    /// them of every filter, which nothing else accesses.
    unsafe fn filters(
        &self,
        weights: SparseWeights<'_>,
        on: &PixelBlock<'_>,
        groups: Range<usize>,
        out: &PlaneOutput<'_>,
        (packed, changed): (&mut [f32], &mut [f32]),
        pool: &Pool,
    ) {
        let pace = Pace::of(pool);
        let all = weights.ends.len() - 1;
        let tiles = self.tiles(on.count, weights.depth, all, weights.channels.len() / all, on.scale.is_some());
        let whole = tiles.registers * self.width;
        let pixels = whole.min(on.count);
        let at_once = at_once(weights.depth);
        for tile in 0..tiles.count {
            // The last tile overlaps the one before.
            let first = (tile * whole).min(on.count - pixels);
            let input = on.input.get(first..).unwrap_or_default();
            let (mut input, mut plane, mut last) = (input, on.plane, pixels.saturating_sub(self.width));
            if tiles.packed {
                let to = &mut packed[..weights.depth * whole];
                if pace.stops(to.len()) {
                    return;
                }
                let (registers, scale) = (tiles.registers, on.scale);
                let pack = PackPixels { from: input, plane, last, registers, scale, to: &mut *to };
                dispatch(self.isa, pack);
                (input, plane, last) = (to, whole, whole - self.width);
            }
            for start in groups.clone().step_by(at_once) {
                let some = start..groups.end.min(start + at_once);
                if pace.stops(self.block * (weights.range(&some).len() * pixels.max(8) / 8 + 16 * at_once)) {
                    return;
                }
                let tile = SparseTile {
                    weights: self.few(weights, some.clone(), on.scale.filter(|_| !tiles.packed), changed),
                    input,
                    plane,
                    last,
                    pixels,
                    bias: out.bias,
                    in_registers: out.in_registers,
                    out: out.start.start().wrapping_add(on.first + first),
                    out_plane: out.plane,
                };
                // SAFETY: guaranteed by the caller. Each of the weights' planes, and the output of each filter, has the
                // tile's pixels starting at `first`.
                unsafe { (self.kernel)(&tile, tiles.registers) };
                let Some(rest) = &out.rest else { continue };
                for filter in weights.filters_of(&some) {
                    let at = on.first + filter * out.plane + first;
                    let stored = Stored { out: out.start.start(), at, ldc: pixels, rows: 1, columns: pixels };
                    // SAFETY: the output has the tile, which was computed above. Pixels that are computed twice were
                    // stored anew.
                    unsafe { rest.finish(self.isa, &stored) };
                }
            }
        }
    }

    /// The weights of some groups as f32: widened and scaled in `space` if they are not.
    fn few<'a>(
        &self,
        all: SparseWeights<'a>,
        groups: Range<usize>,
        scale: Option<&[f32]>,
        space: &'a mut [f32],
    ) -> FewFilters<'a> {
        let range = all.range(&groups);
        let (values, first) = match (all.values, scale) {
            (Packed::F32(values), None) => (values, 0),
            (values, scale) => {
                let (to, first) = (&mut space[..range.len() * self.block], range.start);
                let channels = &all.channels[range.clone()];
                let range = range.start * self.block..range.end * self.block;
                match values {
                    Packed::F32(values) => to.copy_from_slice(&values[range]),
                    // SAFETY: this CPU has the instruction set: the entry point has checked it.
                    Packed::F16(values) => unsafe { (self.widen)(&values[range], to) },
                }
                if let Some(scale) = scale {
                    for (to, &channel) in to.chunks_exact_mut(self.block).zip(channels) {
                        to.iter_mut().for_each(|to| *to *= scale[usize::from(channel)]);
                    }
                }
                (&*to, first)
            }
        };
        FewFilters { groups, all, values, first }
    }

    /// Computes some groups of filters of a single pixel. The scratch is for the scaled pixel, and for widened weights.
    ///
    /// # Safety
    /// As for [`filters`](Self::filters); the output of each image has one element per filter.
    unsafe fn row(
        &self,
        weights: SparseWeights<'_>,
        on: &PixelBlock<'_>,
        groups: Range<usize>,
        (out, bias, rest): (*mut f32, Option<&[f32]>, Option<&Rest<'_>>),
        (scaled, widened): (&mut [f32], &mut [f32]),
        pool: &Pool,
    ) {
        let pace = Pace::of(pool);
        let mut input = on.input;
        if let Some(scale) = on.scale {
            let to = &mut scaled[..input.len()];
            to.iter_mut().zip(input).zip(scale).for_each(|((to, x), scale)| *to = x * scale);
            input = to;
        }
        assert!(input.len() == weights.depth, "one pixel");
        let at_once = at_once(weights.depth);
        for start in groups.clone().step_by(at_once) {
            let some = start..groups.end.min(start + at_once);
            if pace.stops(self.block * (weights.range(&some).len() + 16 * at_once)) {
                return;
            }
            let weights = self.few(weights, some, None, widened);
            let row = SparseRow { weights, input, bias, out: out.wrapping_add(on.first) };
            // SAFETY: guaranteed by the caller; all channels are below the weights' depth, as was checked.
            unsafe { (self.row)(&row) };
        }
        if let Some(rest) = rest {
            let filters = weights.filters_of(&groups);
            let columns = filters.len();
            let stored = Stored { out, at: on.first + filters.start, ldc: columns, rows: 1, columns };
            // SAFETY: the output has these filters, which were computed above.
            unsafe { rest.finish(self.isa, &stored) };
        }
    }
}

/// Groups of filters of this many channels that are computed before the thread may ask whether to stop.
fn at_once(depth: usize) -> usize {
    if depth > 1 << 12 { 1 } else { 16 }
}

/// Copies the registers of a tile, plane by plane, and scales them.
struct PackPixels<'a> {
    /// The input, starting at the tile's first pixel in the first plane.
    from: &'a [f32],
    /// Elements from one plane to the next.
    plane: usize,
    /// First pixel of the last register.
    last: usize,
    registers: usize,
    /// Factors for the channels.
    scale: Option<&'a [f32]>,
    to: &'a mut [f32],
}

impl simd::Vectorized for PackPixels<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (channel, to) in self.to.chunks_exact_mut(self.registers * S::LANES).enumerate() {
            let from = &self.from[channel * self.plane..][..self.last + S::LANES];
            let scale = simd.splat(self.scale.map_or(1.0, |scale| scale[channel]));
            for (register, to) in to.chunks_exact_mut(S::LANES).enumerate() {
                simd.store(simd.load(&from[(register * S::LANES).min(self.last)..]).mul(scale), to);
            }
        }
    }
}

#[cfg(test)]
mod tests;
