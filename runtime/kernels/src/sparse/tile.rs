//! Filters on a tile of pixels, generic over the register type.

use super::FewFilters;
pub(super) use super::scalar::rows as scalar;
use crate::epilogue::InRegisters;
use crate::lanes::Lanes;

/// Registers per tile, for each tile size, and its sets of sums.
pub(super) const TILES: [(usize, usize); 6] = [(1, 8), (2, 4), (4, 2), (7, 1), (10, 1), (13, 1)];

/// The arguments of a kernel.
pub(super) struct SparseTile<'a> {
    pub weights: FewFilters<'a>,
    /// The input, starting at the tile's first pixel in the first plane.
    pub input: &'a [f32],
    /// Pixels from one plane to the next.
    pub plane: usize,
    /// First pixel of the last register in the input; in the output, it ends with the tile.
    pub last: usize,
    /// Pixels of the tile; fewer than its registers hold only if the plane is smaller than one register.
    pub pixels: usize,
    /// One value per filter.
    pub bias: Option<&'a [f32]>,
    pub in_registers: InRegisters,
    /// The first filter's output for the tile's first pixel.
    pub out: *mut f32,
    /// Elements from one filter's output to the next.
    pub out_plane: usize,
}

/// Computes the filters on a tile of this many registers, one of the sizes in [`TILES`].
///
/// # Safety
/// The CPU has the instruction set. The input has the plane of each channel of the weights, with all of the tile's pixels
/// readable starting at the tile's first pixel; the output of each filter also has these pixels and overlaps nothing
/// else. Unless the tile consists of a single register, it has at least one register of pixels, and more pixels than all
/// of its registers but the last hold.
///
/// # Panics
/// If the weights of a filter are out of range.
pub(super) type TileFn = unsafe fn(&SparseTile<'_>, usize);

/// # Safety
/// As for [`TileFn`], and the caller enables the instruction set of `L`.
#[inline(always)]
unsafe fn run<L: Lanes>(tile: &SparseTile<'_>, registers: usize) {
    // SAFETY: guaranteed by the caller; a tile smaller than a register consists of one.
    unsafe {
        match registers {
            13 => sums::<L, 13, 1>(tile),
            10 => sums::<L, 10, 1>(tile),
            7 => sums::<L, 7, 1>(tile),
            4 => sums::<L, 4, 2>(tile),
            2 => sums::<L, 2, 4>(tile),
            _ => sums::<L, 1, 8>(tile),
        }
    }
}

/// Computes the sums of `T` registers, in `S` sets that successive weights use alternately.
///
/// # Safety
/// As for [`run`].
#[inline(always)]
unsafe fn sums<L: Lanes, const T: usize, const S: usize>(tile: &SparseTile<'_>) {
    for filter in tile.weights.filters.clone() {
        let (values, channels) = tile.weights.of(filter);
        let (weights, count) = ((values.as_ptr(), channels.as_ptr()), channels.len());
        let bias = tile.bias.map_or(0.0, |bias| bias[filter]);
        let out = tile.out.wrapping_add(filter * tile.out_plane);
        // SAFETY: guaranteed by the caller; there are as many weights as `step` is called for.
        unsafe {
            let mut sums = [[L::splat(0.0); T]; S];
            sums[0] = [L::splat(bias); T];
            let mut at = 0;
            while at + S <= count {
                for (s, sums) in sums.iter_mut().enumerate() {
                    step(tile, weights, at + s, sums);
                }
                at += S;
            }
            for (s, sums) in sums.iter_mut().enumerate().take(S - 1) {
                if at + s < count {
                    step(tile, weights, at + s, sums);
                }
            }
            let mut all = [sums[0]];
            for sums in &sums[1..] {
                for (all, sum) in all[0].iter_mut().zip(sums) {
                    *all = all.add(*sum);
                }
            }
            tile.in_registers.apply(&mut all);
            for (t, sum) in all[0].iter().enumerate() {
                if T == 1 && tile.pixels < L::WIDTH {
                    sum.store_first(out, tile.pixels);
                } else {
                    sum.store(out.add(place::<L, T>(t, tile.pixels - L::WIDTH)));
                }
            }
        }
    }
}

/// First pixel of a register, where `last` is that of the last register.
#[inline(always)]
fn place<L: Lanes, const T: usize>(register: usize, last: usize) -> usize {
    if register + 1 < T { register * L::WIDTH } else { last }
}

/// Adds the product of weight `at` and its plane's pixels to the sums. `weights` are pointers to weights and channels.
///
/// # Safety
/// As for [`run`]; the weight exists.
#[inline(always)]
unsafe fn step<L: Lanes, const T: usize>(
    tile: &SparseTile<'_>,
    (values, channels): (*const f32, *const u16),
    at: usize,
    sums: &mut [L; T],
) {
    // SAFETY: the pixels of every register lie in the tile, and the channel's plane in the input.
    unsafe {
        let pixels = tile.input.as_ptr().add(usize::from(*channels.add(at)) * tile.plane);
        let weight = L::splat(*values.add(at));
        for (t, sum) in sums.iter_mut().enumerate() {
            let x = match tile.pixels {
                pixels_of_tile if T == 1 && pixels_of_tile < L::WIDTH => L::load_first(pixels, pixels_of_tile),
                _ => L::load(pixels.add(place::<L, T>(t, tile.last))),
            };
            *sum = x.mul_add(weight, *sum);
        }
    }
}

/// # Safety
/// As for [`TileFn`]; the CPU has AVX-512 F, BW, DQ and VL.
#[cfg(all(target_arch = "x86_64", feature = "avx512"))]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn avx512(tile: &SparseTile<'_>, registers: usize) {
    // SAFETY: guaranteed by the caller; the instruction set is enabled here.
    unsafe { run::<crate::lanes::avx512::F32x16>(tile, registers) }
}

/// # Safety
/// As for [`TileFn`]; the CPU has AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn avx2(tile: &SparseTile<'_>, registers: usize) {
    // SAFETY: guaranteed by the caller; the instruction set is enabled here.
    unsafe { run::<crate::lanes::avx2::F32x8>(tile, registers) }
}

/// # Safety
/// As for [`TileFn`]; the CPU has NEON.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub(super) unsafe fn neon(tile: &SparseTile<'_>, registers: usize) {
    // SAFETY: guaranteed by the caller; the instruction set is enabled here.
    unsafe { run::<crate::lanes::neon::F32x4>(tile, registers) }
}
