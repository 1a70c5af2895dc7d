//! Winograd convolution: 3x3 kernels at strides 1 and 2 with fewer multiplications.
//!
//! `Y = At [ sum over channels of (G g Gt) * (Bt d B) ] A`
//!
//! for every tile of `M x M` outputs, where `d` is the `N x N` window of the input under it (`N = M + 2`), `g` the
//! kernel, and `*` multiplies element by element (A. Lavin and S. Gray, "Fast Algorithms for Convolutional Neural
//! Networks", 2016). Each of the `N * N` points is a matrix product of tiles by channels, which the [`gemm`] family
//! computes. This takes 2.25 times fewer multiply-adds for `M = 2`, 4 for `M = 4` and 4.6 for `M = 5`. Tiles that reach
//! beyond the image waste some of that: 14 outputs are three tiles of five, but four tiles of four. At stride 2, where
//! only the two outer taps share work (`N = 2 M + 1`), it takes 1.44 and 1.78 times fewer.
//!
//! The transformed weights are 16/9, 4 and 5.4 times as large as the kernels. A variant either stores them, or stores
//! the kernels and transforms them in every run. It then transforms one part (some channels of a panel of filters) at a
//! time and multiplies by it while it is in the second-level cache. If the tiles need several blocks, which happens
//! with small kernels, all kernels are transformed into scratch first. With few pixels, the transform takes a tenth of
//! the time, but it saves memory and load time.
//!
//! Tiles are processed in blocks whose transforms stay in the second-level cache.

mod blocks;
mod contract;
mod transform;

use crate::arena::AlignedVec;
use crate::conv::{ConvShape, Panels, product};
use crate::epilogue::Epilogue;
use crate::gemm::{self, Packed, Weights};
use crate::isa::Isa;
#[cfg(feature = "foreign")]
use crate::lanes::portable::Portable;
use crate::pace::Pace;
use crate::threads::Pool;
use blocks::{CheckedConv, WinogradSplit};
pub(crate) use contract::FAMILY;
use skipstone_reserve::NoMemory;
use transform::{F2, F2Stride2, F4, F4Stride2, F5, InputTile, OutputTile, Transform, WeightTile};

/// What the packed weights of a variant contain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Storage {
    /// The transformed weights.
    Transformed,
    /// The kernels, in f32 or half precision.
    Kernels(Weights),
}

/// A kernel of the family.
pub struct Variant {
    /// Name, as `inspect` prints it: `winograd_f<outputs>[s2][_small|_half]_<isa>`.
    pub name: &'static str,
    /// The instruction set it needs.
    pub isa: Isa,
    /// What its packed weights contain.
    pub storage: Storage,
    /// Outputs along a side of a tile.
    outputs: usize,
    /// Points along a side of a tile; also the side of its window.
    side: usize,
    stride: usize,
    /// Weights along a side of a kernel.
    weights: usize,
    /// The variant of [`gemm`] for the products.
    gemm: &'static str,
    kernels: unsafe fn(&WeightTile),
    /// The transform of the weights in plain Rust, for packing on a CPU without the instruction set.
    #[cfg(feature = "foreign")]
    portable: unsafe fn(&WeightTile),
    input: unsafe fn(&InputTile),
    output: unsafe fn(&OutputTile),
}

/// The entries of the table, three per line: whether they are built, name, instruction set, the lanes that the products
/// pad filters to, the transform with points, outputs and weights along a side, and the [`gemm`] variant for the products.
macro_rules! variants {
    ($(#[cfg($built:meta)]
    $name:literal $isa:ident $module:ident $lanes:literal $transform:ident<$n:literal, $m:literal, $w:literal>
    $gemm:literal;)*) => {
        &[$(
            #[cfg(any($built, feature = "foreign"))]
            variants!(
                $built, concat!("winograd_", $name, "_", stringify!($module)), Storage::Transformed,
                $isa $module $lanes $transform<$n, $m, $w> $gemm
            ),
            #[cfg(any($built, feature = "foreign"))]
            variants!(
                $built, concat!("winograd_", $name, "_small_", stringify!($module)), Storage::Kernels(Weights::F32),
                $isa $module $lanes $transform<$n, $m, $w> $gemm
            ),
            #[cfg(any($built, feature = "foreign"))]
            variants!(
                $built, concat!("winograd_", $name, "_half_", stringify!($module)), Storage::Kernels(Weights::F16),
                $isa $module $lanes $transform<$n, $m, $w> $gemm
            ),
        )*]
    };
    ($built:meta, $name:expr, $storage:expr,
    $isa:ident $module:ident $lanes:literal $transform:ident<$n:literal, $m:literal, $w:literal> $gemm:literal) => {
        Variant {
            name: $name,
            isa: Isa::$isa,
            storage: $storage,
            outputs: $m,
            side: $n,
            stride: $transform::STRIDE,
            weights: $w,
            gemm: $gemm,
            #[cfg($built)]
            kernels: transform::$module::weights::<$transform, $n, $m, $w>,
            #[cfg(not($built))]
            kernels: transform::weights::<Portable<$lanes>, $transform, $n, $m, $w>,
            #[cfg(feature = "foreign")]
            portable: transform::weights::<Portable<$lanes>, $transform, $n, $m, $w>,
            #[cfg($built)]
            input: transform::$module::input::<$transform, $n, $m, $w>,
            #[cfg(not($built))]
            input: transform::input::<Portable<$lanes>, $transform, $n, $m, $w>,
            #[cfg($built)]
            output: transform::$module::output::<$transform, $n, $m, $w>,
            #[cfg(not($built))]
            output: transform::output::<Portable<$lanes>, $transform, $n, $m, $w>,
        }
    };
}

/// Every variant of this build; the reference is the one of the [`gemm`] family. With the feature `foreign` the table
/// also has the variants of other architectures, for packing only.
pub static VARIANTS: &[Variant] = variants! {
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "f2" Avx512 avx512 8 F2<4, 2, 4> "gemm_f32_12x32_avx512";
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "f4" Avx512 avx512 8 F4<6, 4, 6> "gemm_f32_12x32_avx512";
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "f5" Avx512 avx512 8 F5<7, 5, 7> "gemm_f32_12x32_avx512";
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "f2s2" Avx512 avx512 8 F2Stride2<5, 2, 4> "gemm_f32_12x32_avx512";
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "f4s2" Avx512 avx512 8 F4Stride2<9, 4, 6> "gemm_f32_12x32_avx512";
    #[cfg(target_arch = "x86_64")]
    "f2" Avx2 avx2 8 F2<4, 2, 4> "gemm_f32_6x16_avx2";
    #[cfg(target_arch = "x86_64")]
    "f4" Avx2 avx2 8 F4<6, 4, 6> "gemm_f32_6x16_avx2";
    #[cfg(target_arch = "x86_64")]
    "f5" Avx2 avx2 8 F5<7, 5, 7> "gemm_f32_6x16_avx2";
    #[cfg(target_arch = "x86_64")]
    "f2s2" Avx2 avx2 8 F2Stride2<5, 2, 4> "gemm_f32_6x16_avx2";
    #[cfg(target_arch = "x86_64")]
    "f4s2" Avx2 avx2 8 F4Stride2<9, 4, 6> "gemm_f32_6x16_avx2";
    #[cfg(target_arch = "aarch64")]
    "f2" Neon neon 4 F2<4, 2, 4> "gemm_f32_8x8_neon";
    #[cfg(target_arch = "aarch64")]
    "f4" Neon neon 4 F4<6, 4, 6> "gemm_f32_8x8_neon";
    #[cfg(target_arch = "aarch64")]
    "f5" Neon neon 4 F5<7, 5, 7> "gemm_f32_8x8_neon";
    #[cfg(target_arch = "aarch64")]
    "f2s2" Neon neon 4 F2Stride2<5, 2, 4> "gemm_f32_8x8_neon";
    #[cfg(target_arch = "aarch64")]
    "f4s2" Neon neon 4 F4Stride2<9, 4, 6> "gemm_f32_8x8_neon";
    #[cfg(target_arch = "arm")]
    "f2" Neon32 neon32 4 F2<4, 2, 4> "gemm_f32_4x8_neon32";
    #[cfg(target_arch = "arm")]
    "f4" Neon32 neon32 4 F4<6, 4, 6> "gemm_f32_4x8_neon32";
    #[cfg(target_arch = "arm")]
    "f5" Neon32 neon32 4 F5<7, 5, 7> "gemm_f32_4x8_neon32";
    #[cfg(target_arch = "arm")]
    "f2s2" Neon32 neon32 4 F2Stride2<5, 2, 4> "gemm_f32_4x8_neon32";
    #[cfg(target_arch = "arm")]
    "f4s2" Neon32 neon32 4 F4Stride2<9, 4, 6> "gemm_f32_4x8_neon32";
};

impl Variant {
    /// Points of a tile.
    fn points(&self) -> usize {
        self.side * self.side
    }

    /// The rows (or columns) of points that use row (or column) `weight` of the weights.
    fn points_of(&self, weight: usize) -> std::ops::Range<usize> {
        if weight + 1 < self.weights { weight..weight + 1 } else { weight..self.side }
    }

    /// Outputs along a side of a tile.
    #[must_use]
    pub fn outputs(&self) -> usize {
        self.outputs
    }

    /// Whether this variant computes the convolution.
    #[must_use]
    pub fn takes(&self, shape: &ConvShape) -> bool {
        takes(shape) && shape.stride == [self.stride; 2]
    }

    fn gemm(&self) -> &'static gemm::Variant {
        gemm::named(self.gemm).expect("the table of gemm holds the variants that this one names")
    }

    /// Tiles of all images.
    fn tiles(&self, shape: &ConvShape) -> usize {
        product(&[shape.batch, shape.out_h.div_ceil(self.outputs), shape.out_w.div_ceil(self.outputs)])
    }

    /// The transform of the weights that this CPU can run.
    fn packing(&self) -> unsafe fn(&WeightTile) {
        #[cfg(feature = "foreign")]
        if !self.isa.is_available() {
            return self.portable;
        }
        assert!(self.isa.is_available(), "this CPU does not have {}", self.isa);
        self.kernels
    }

    /// Multiply-adds that could start while one point of one register is transformed: a load, a store and about five
    /// additions. Products on AVX-512 are so fast that the second-level cache, which the points go through, is what the
    /// transforms wait for (measured on a Sapphire Rapids core); those of many points do not fit in the registers either.
    /// Where products start at half the rate, half as many could start.
    fn transform_cost(&self) -> f64 {
        let cost = match (self.isa, self.side) {
            (Isa::Avx512, 4 | 6) => 28.0,
            (Isa::Avx512, 5 | 7) => 44.0,
            (Isa::Avx512, _) => 100.0,
            _ => 7.0,
        };
        if self.has_half_rate() { cost / 2.0 } else { cost }
    }

    /// Whether products start at half the rate; only up to six points, for which it was measured.
    fn has_half_rate(&self) -> bool {
        self.side <= 6 && self.isa.has_half_rate()
    }

    /// Time by the model of [`gemm::Variant::cost`]: the transforms and the products, whose first rows take at least
    /// the time to load the stored weights.
    fn cost(&self, shape: &ConvShape) -> f64 {
        let split = WinogradSplit::new(self, shape, 1);
        let width = self.gemm().width;
        let registers = |channels: usize| channels.div_ceil(width) as f64;
        let (inputs, outputs) = (registers(shape.in_c), registers(shape.out_c));
        let weights = (self.weights * self.weights) as f64 * shape.in_c as f64 * outputs;
        // Multiply-adds that could start while one register of weights is loaded from the level of memory that holds
        // this many bytes. Measured on a Zen 4 core, at 13 bytes per cycle from the third-level cache and 8 from memory;
        // registers of 64 bytes on a Sapphire Rapids core, at 4 to 8 bytes per cycle from either. Where products start at
        // half the rate, half as many registers arrive meanwhile.
        let arrival = match packed_len(self, shape) * size_of::<f32>() {
            0..0x8_0000 => 1.0,
            _ if width > 8 && !self.has_half_rate() => 20.0,
            0x8_0000..0x100_0000 => 5.0,
            _ => 8.0,
        };
        let products = self.gemm().cost(split.tiles_per_block(), shape.in_c, shape.out_c) * self.points() as f64;
        let first_rows = products / split.tiles_per_block().div_ceil(self.gemm().mr) as f64;
        let tiles = self.transform_cost() * self.points() as f64 * (inputs + outputs) * self.tiles(shape) as f64;
        match self.storage {
            Storage::Transformed => {
                (products - first_rows + first_rows.max(arrival * weights)) * split.blocks() as f64 + tiles
            }
            // Per register of kernels: loads, a store and about three additions for each weight.
            Storage::Kernels(_) => products * split.blocks() as f64 + tiles + 8.0 * weights * split.transforms() as f64,
        }
    }
}

/// A variant must cost at most this share of one that stores less: weights take memory and must be loaded.
const GAIN: f64 = 0.93;

/// The fastest variant of `isa` for this shape and storage, if there is one and the cost model rates it cheaper than
/// the [`gemm`] variant `direct`.
pub fn choose(isa: Isa, shape: &ConvShape, storage: Storage, direct: &gemm::Variant) -> Option<&'static Variant> {
    // Chosen by sizes alone: packed weights must not depend on the CPU.
    let direct = direct.form().cost(shape.pixels(), product(&[shape.taps(), shape.in_c]), shape.out_c);
    let (best, cost) = candidates(isa, shape, storage).into_iter().min_by(|a, b| a.1.total_cmp(&b.1))?;
    (cost < direct).then_some(best)
}

/// The variants of `isa` for this shape and storage, with their costs by the model of [`gemm::candidates`]. A variant
/// that stores more than another must be 7 % faster, or it counts as no faster.
#[inline(never)]
pub fn candidates(isa: Isa, shape: &ConvShape, storage: Storage) -> Vec<(&'static Variant, f64)> {
    let mut best: Option<(f64, usize)> = None;
    // In the order of the table: ascending numbers of points.
    let variants = VARIANTS.iter().filter(|v| v.isa == isa && v.storage == storage && v.takes(shape));
    let cost = |v: &'static Variant| {
        let (cost, len) = (v.cost(shape), packed_len(v, shape));
        match best {
            Some((least, stored)) if cost >= if len > stored { least * GAIN } else { least } => (v, cost.max(least)),
            _ => {
                best = Some((cost, len));
                (v, cost)
            }
        }
    };
    variants.map(cost).collect()
}

/// The variant of this name, if its kernels are built.
pub fn by_name(name: &str) -> Option<&'static Variant> {
    VARIANTS.iter().find(|v| v.name == name && v.isa.is_built())
}

/// Most channels: the windows of a tile are transformed at once.
const MAX_CHANNELS: usize = 1 << 14;

/// Whether a convolution belongs to this family.
pub fn takes(shape: &ConvShape) -> bool {
    (1..=MAX_CHANNELS).contains(&shape.in_c)
        && shape.kernel == [3, 3]
        && shape.dilation == [1, 1]
        && shape.groups == 1
        && VARIANTS.iter().any(|v| shape.stride == [v.stride; 2])
}

/// Elements that [`pack`] writes.
#[inline(never)]
pub fn packed_len(v: &Variant, shape: &ConvShape) -> usize {
    match v.storage {
        Storage::Transformed => WinogradSplit::new(v, shape, 1).all_parts_len(),
        Storage::Kernels(_) => kernels_len(v, shape),
    }
}

/// Elements of the packed kernels: as many as there are weights, plus padding of filters to whole registers.
fn kernels_len(v: &Variant, shape: &ConvShape) -> usize {
    gemm::packed_len(v.gemm(), product(&[shape.in_c, 9]), shape.out_c)
}

/// Packs the weights `[out_c, in_c, 3, 3]` in panels of filters, row by row: the taps of each channel, or the
/// transformed weights. For kernels in half precision, the caller then applies [`halve`](gemm::halve).
///
/// # Errors
/// No memory for a copy of the filters of a panel, which are to be transformed.
///
/// # Panics
/// If the lengths do not match `shape`, or if the CPU lacks the variant's instructions and the build lacks the feature
/// `foreign`.
#[inline(never)]
pub fn pack(v: &Variant, shape: &ConvShape, oihw: &[f32], out: &mut [f32]) -> Result<(), NoMemory> {
    assert!(v.takes(shape), "a 3x3 kernel at the variant's stride");
    let rows = product(&[shape.in_c, 9]);
    assert_eq!(oihw.len(), product(&[shape.out_c, rows]));
    assert_eq!(out.len(), packed_len(v, shape));
    if v.storage != Storage::Transformed {
        gemm::pack(v.gemm(), rows, shape.out_c, (oihw, 1, rows), out, &Pace::free());
        return Ok(());
    }
    // Panel by panel, so that the kernels are transformed while they are in the second-level cache.
    let of = |filters: &[f32]| ConvShape { out_c: filters.len() / rows, ..shape.clone() };
    let panel = rows * v.gemm().nr;
    let len = oihw.chunks(panel).next().map_or(0, |filters| kernels_len(v, &of(filters)));
    let mut kernels = AlignedVec::try_zeroed(len).ok_or(NoMemory(product(&[len, size_of::<f32>()])))?;
    let parts = out.chunks_exact_mut(WinogradSplit::new(v, shape, 1).part_len());
    for (filters, part) in oihw.chunks(panel).zip(parts) {
        let shape = of(filters);
        let kernels = &mut kernels[..kernels_len(v, &shape)];
        gemm::pack(v.gemm(), rows, shape.out_c, (filters, 1, rows), kernels, &Pace::free());
        blocks::transform_panel(v, &shape, kernels, part);
    }
    Ok(())
}

/// Scratch size in elements for [`winograd`].
#[inline(never)]
pub fn scratch_len(v: &Variant, shape: &ConvShape, threads: usize) -> usize {
    WinogradSplit::new(v, shape, threads).scratch_len()
}

/// Like [`scratch_len`], for the convolution of any subset of the channels of one image of this shape.
#[inline(never)]
fn scratch_bound(v: &Variant, shape: &ConvShape, threads: usize) -> usize {
    WinogradSplit::new(v, &ConvShape { batch: 1, ..shape.clone() }, threads).scratch_bound(v, threads)
}

/// The layout of the packed weights.
fn panels(v: &Variant, shape: &ConvShape) -> Panels {
    let (channels, filters, nr, lanes) = (shape.in_c, shape.out_c, v.gemm().nr, v.gemm().lanes);
    match v.storage {
        Storage::Transformed => {
            let (taps, spaced) = (v.weights * v.weights, Some(WinogradSplit::new(v, shape, 1).part_len()));
            Panels { channels, filters, taps, rows: 1, nr, lanes, spaced }
        }
        Storage::Kernels(_) => Panels { channels, filters, taps: 1, rows: 9, nr, lanes, spaced: None },
    }
}

/// A convolution that the family [supports](takes).
pub struct Winograd<'a> {
    /// Its geometry.
    pub shape: &'a ConvShape,
    /// NHWC.
    pub input: &'a [f32],
    /// Weights from [`pack`].
    pub packed: Packed<'a>,
    /// NHWC.
    pub out: &'a mut [f32],
    /// Applied to the sums.
    pub epilogue: Epilogue<'a>,
}

/// Computes a convolution.
///
/// # Panics
/// If the length of a slice does not match `shape`, or the scratch is shorter than [`scratch_len`].
#[inline(never)]
pub fn winograd(v: &Variant, args: Winograd<'_>, scratch: &mut [f32], pool: &Pool) {
    let Winograd { shape, input, packed, out, epilogue } = args;
    shape.check();
    assert!(v.takes(shape), "a 3x3 kernel at the variant's stride");
    assert!(v.isa.is_available(), "this CPU does not have {}", v.isa);
    assert_eq!(input.len(), shape.input_len(), "input length");
    assert_eq!(out.len(), shape.output_len(), "output length");
    assert_eq!((packed.len(), packed.weights()), (packed_len(v, shape), v.weights()), "packed weights");
    epilogue.check(shape.out_c, out.len());
    if out.is_empty() {
        return;
    }
    let split = WinogradSplit::new(v, shape, pool.threads());
    CheckedConv { v, gemm: v.gemm(), shape, input, packed, epilogue }.run(&split, out, scratch, pool);
}

#[cfg(test)]
mod tests;
