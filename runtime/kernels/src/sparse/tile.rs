//! Filters on a tile of pixels, generic over the register type.

pub(super) use super::scalar::rows as scalar;
use super::{BLOCK, FewFilters};
use crate::epilogue::InRegisters;
use crate::lanes::Lanes;

/// Registers per tile, for each tile size, and its sets of sums.
pub(super) const TILES: [(usize, usize); 6] = [(1, 8), (2, 4), (4, 2), (7, 1), (10, 1), (13, 1)];

/// The same where a multiply-add takes its factor from a lane, and there are 32 registers: a plane of 14x14 is two tiles.
pub(super) const LANE_TILES: [(usize, usize); 7] = [(1, 8), (2, 4), (4, 2), (7, 1), (10, 1), (13, 1), (25, 1)];

/// The same for blocks of four filters.
pub(super) const BLOCK_TILES: [(usize, usize); 4] = [(1, 2), (2, 1), (4, 1), (6, 1)];

/// The same for blocks whose weights are lanes of one register: a plane of 14x14 is seven tiles.
pub(super) const LANE_BLOCK_TILES: [(usize, usize); 4] = [(1, 2), (2, 1), (4, 1), (7, 1)];

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

/// Computes the filters on a tile of this many registers, one of the sizes that the variant has.
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
        match (tile.weights.all.block, registers) {
            (1, 25) if L::BY_LANE => sums::<L, 1, 25, 1>(tile),
            (1, 13) => sums::<L, 1, 13, 1>(tile),
            (1, 10) => sums::<L, 1, 10, 1>(tile),
            (1, 7) => sums::<L, 1, 7, 1>(tile),
            (1, 4) => sums::<L, 1, 4, 2>(tile),
            (1, 2) => sums::<L, 1, 2, 4>(tile),
            (1, _) => sums::<L, 1, 1, 8>(tile),
            (_, 7) if L::BY_LANE => sums::<L, BLOCK, 7, 1>(tile),
            (_, 6) if L::REGISTERS > 16 && !L::BY_LANE => sums::<L, BLOCK, 6, 1>(tile),
            (_, 4) if L::REGISTERS > 16 => sums::<L, BLOCK, 4, 1>(tile),
            (_, 2) => sums::<L, BLOCK, 2, 1>(tile),
            (_, _) => sums::<L, BLOCK, 1, 2>(tile),
        }
    }
}

/// Computes the sums of `T` registers for each of `B` filters, in `S` sets that successive blocks use alternately.
///
/// # Safety
/// As for [`run`]; groups have `B` filters.
#[inline(always)]
unsafe fn sums<L: Lanes, const B: usize, const T: usize, const S: usize>(tile: &SparseTile<'_>) {
    for group in tile.weights.groups.clone() {
        let (values, channels, filters) = tile.weights.of(group);
        let (weights, count) = ((values.as_ptr(), channels.as_ptr()), channels.len());
        let bias = |filter: usize| tile.bias.and_then(|bias| bias.get(filter)).map_or(0.0, |&bias| bias);
        // SAFETY: guaranteed by the caller; there are as many blocks as `step` is called for.
        unsafe {
            let mut sums = [[[L::splat(0.0); T]; B]; S];
            for (b, sums) in sums[0].iter_mut().enumerate() {
                *sums = [L::splat(bias(filters.start + b)); T];
            }
            let mut at = 0;
            if L::BY_LANE && B == 1 && S < 4 {
                while at + 4 <= count {
                    four_steps::<L, B, T, S>(tile, weights, at, &mut sums);
                    at += 4;
                }
            }
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
            let mut all = sums[0];
            for sums in &sums[1..] {
                for (all, sum) in all.as_flattened_mut().iter_mut().zip(sums.as_flattened()) {
                    *all = all.add(*sum);
                }
            }
            match tile.in_registers {
                InRegisters::Clamp(min, f32::INFINITY) => {
                    if min > f32::NEG_INFINITY {
                        for x in all.as_flattened_mut() {
                            *x = x.at_least(x.like(min));
                        }
                    }
                }
                in_registers => in_registers.apply(&mut all),
            }
            for (b, sums) in all.iter().enumerate() {
                // The last group may have fewer filters.
                if B > 1 && b >= filters.len() {
                    break;
                }
                let out = tile.out.wrapping_add((filters.start + b) * tile.out_plane);
                for (t, sum) in sums.iter().enumerate() {
                    if T == 1 && tile.pixels < L::WIDTH {
                        sum.store_first(out, tile.pixels);
                    } else {
                        sum.store(out.add(place::<L, T>(t, tile.pixels - L::WIDTH)));
                    }
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

/// [`step`] for four weights from `at`, which are in the lanes of a register.
///
/// # Safety
/// As for [`step`]; all four exist.
#[inline(always)]
unsafe fn four_steps<L: Lanes, const B: usize, const T: usize, const S: usize>(
    tile: &SparseTile<'_>,
    (values, channels): (*const f32, *const u16),
    at: usize,
    sums: &mut [[[L; T]; B]; S],
) {
    // SAFETY: as in `step`.
    unsafe {
        let weights: [f32; 4] = values.add(at).cast::<[f32; 4]>().read();
        macro_rules! steps {
            ($($i:literal)*) => {$(
                let pixels = tile.input.as_ptr().add(usize::from(*channels.add(at + $i)) * tile.plane);
                for (t, sum) in sums[$i % S][0].iter_mut().enumerate() {
                    let x = L::load(pixels.add(place::<L, T>(t, tile.last)));
                    *sum = x.mul_add_lane::<$i>(weights, *sum);
                }
            )*};
        }
        steps!(0 1 2 3);
    }
}

/// Adds the products of block `at` and its plane's pixels to the sums. `weights` are pointers to weights and channels.
///
/// # Safety
/// As for [`run`]; the block exists.
#[inline(always)]
unsafe fn step<L: Lanes, const B: usize, const T: usize>(
    tile: &SparseTile<'_>,
    (values, channels): (*const f32, *const u16),
    at: usize,
    sums: &mut [[L; T]; B],
) {
    // SAFETY: the pixels of every register lie in the tile, and the channel's plane in the input.
    unsafe {
        let pixels = tile.input.as_ptr().add(usize::from(*channels.add(at)) * tile.plane);
        if L::BY_LANE && B == 4 {
            let weights: [f32; 4] = values.add(at * B).cast::<[f32; 4]>().read();
            #[expect(clippy::needless_range_loop, reason = "one register of every filter")]
            for t in 0..T {
                let x = match tile.pixels {
                    pixels_of_tile if T == 1 && pixels_of_tile < L::WIDTH => L::load_first(pixels, pixels_of_tile),
                    _ => L::load(pixels.add(place::<L, T>(t, tile.last))),
                };
                sums[0][t] = x.mul_add_lane::<0>(weights, sums[0][t]);
                sums[1][t] = x.mul_add_lane::<1>(weights, sums[1][t]);
                sums[2][t] = x.mul_add_lane::<2>(weights, sums[2][t]);
                sums[3][t] = x.mul_add_lane::<3>(weights, sums[3][t]);
            }
            return;
        }
        // Loops instead of closures: one that is not inlined is compiled without the instruction set.
        let mut weights = [L::splat(*values.add(at * B)); B];
        for (b, weight) in weights.iter_mut().enumerate().skip(1) {
            *weight = L::splat(*values.add(at * B + b));
        }
        #[expect(clippy::needless_range_loop, reason = "one register of every filter")]
        for t in 0..T {
            let x = match tile.pixels {
                pixels_of_tile if T == 1 && pixels_of_tile < L::WIDTH => L::load_first(pixels, pixels_of_tile),
                _ => L::load(pixels.add(place::<L, T>(t, tile.last))),
            };
            for b in 0..B {
                sums[b][t] = x.mul_add(weights[b], sums[b][t]);
            }
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
