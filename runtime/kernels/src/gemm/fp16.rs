//! Tiles for NEON with half-precision arithmetic: eight products per instruction, where f32 has four.
//!
//! Only the inner loop uses half precision. Rows of A are f32 in memory and rounded as they are loaded. After at most
//! [`TERMS`] products, a sum is widened and added to a sum in f32, and everything else is computed in f32. With `u =
//! 2^-11`, the error of a sum is at most about `(TERMS + 1) u` times the sum of the products' magnitudes, and typically
//! `u sqrt(TERMS) / 2` of it, however long the product is.
//!
//! The largest value in half precision is 65504. A tile in which a sum or an element of A exceeds it is computed again
//! in f32.
//!
//! B has the packed layout of the variants that widen it: the tile of 16 columns reads two adjacent panels of eight.

use core::arch::aarch64::*;

use super::neon::{HALF_1X32, HALF_8X8};
use super::tile::{GemmTile, TileFn, start, store};
use crate::lanes::Lanes;
use crate::lanes::neon::F32x4;

/// Most products that are summed in half precision.
const TERMS: usize = 64;

/// Columns of a panel that is read in pairs.
const NARROW: usize = 8;
/// Columns of a panel for a single row.
const WIDE: usize = 32;

/// Up to eight rows by two registers: 16 registers of sums, eight of A, the others for B. There are tiles of one, four
/// and eight rows, in which some rows may be missing: one tile per row count would multiply the code size by seven.
pub(super) static TILE_8X16: &[&[TileFn]] = &[
    &[some::<1, 1, 1, 1>, some::<1, 1, 2, 1>, some::<1, 1, 3, 2>, some::<1, 1, 4, 2>],
    &[some::<2, 4, 1, 1>, some::<2, 4, 2, 1>, some::<2, 4, 3, 2>, some::<2, 4, 4, 2>],
    &[some::<3, 4, 1, 1>, some::<3, 4, 2, 1>, some::<3, 4, 3, 2>, some::<3, 4, 4, 2>],
    &[some::<4, 4, 1, 1>, some::<4, 4, 2, 1>, some::<4, 4, 3, 2>, some::<4, 4, 4, 2>],
    &[some::<5, 8, 1, 1>, some::<5, 8, 2, 1>, some::<5, 8, 3, 2>, some::<5, 8, 4, 2>],
    &[some::<6, 8, 1, 1>, some::<6, 8, 2, 1>, some::<6, 8, 3, 2>, some::<6, 8, 4, 2>],
    &[some::<7, 8, 1, 1>, some::<7, 8, 2, 1>, some::<7, 8, 3, 2>, some::<7, 8, 4, 2>],
    &[some::<8, 8, 1, 1>, some::<8, 8, 2, 1>, some::<8, 8, 3, 2>, some::<8, 8, 4, 2>],
];

/// A tile of M rows, N of which exist.
///
/// # Safety
/// As for [`tile`].
unsafe fn some<const N: usize, const M: usize, const R: usize, const V: usize>(tile: &GemmTile) {
    const { assert!(N > 0 && N <= M) };
    // SAFETY: guaranteed by the caller.
    unsafe { self::tile::<NARROW, 1, M, R, V>(tile, N) }
}

/// One row by up to four registers, with two sums for each column: eight sums that do not depend on each other.
pub(super) static TILE_1X32: &[&[TileFn]] = &[&[
    single::<1, 1>,
    single::<2, 1>,
    single::<3, 2>,
    single::<4, 2>,
    single::<5, 3>,
    single::<6, 3>,
    single::<7, 4>,
    single::<8, 4>,
]];

/// A tile of one row.
///
/// # Safety
/// As for [`tile`].
unsafe fn single<const R: usize, const V: usize>(tile: &GemmTile) {
    // SAFETY: guaranteed by the caller.
    unsafe { self::tile::<WIDE, 2, 1, R, V>(tile, 1) }
}

/// `short += a[LANE] * b[row LANE]`, for every row and column of [`tile`]. A macro, since the multiplication is inlined
/// only where the instructions are enabled.
macro_rules! step {
    ($lane:literal, $short:ident, $a:ident, $b:ident) => {
        for v in 0..V {
            let from = $b[v].add($lane * width(v * 8, PANEL, R));
            let is_whole = 2 * v + 1 < R;
            let bits = if is_whole { vld1q_u16(from) } else { vcombine_u16(vld1_u16(from), vdup_n_u16(0)) };
            let columns = vreinterpretq_f16_u16(bits);
            for r in 0..M {
                let sum = &mut $short[$lane % S][r][v];
                *sum = vfmaq_lane_f16::<$lane>(*sum, columns, $a[r]);
            }
        }
    };
}

/// Computes a tile of M rows by R times four columns, which are V registers of eight, the last possibly half full, with
/// S sums for each. `count` rows exist: the last one is computed again in place of missing rows, but not stored.
///
/// # Safety
/// As for [`TileFn`], with `count` rows, at least one and at most M; B is packed in panels of PANEL columns; the CPU
/// has NEON with half-precision arithmetic.
#[target_feature(enable = "neon,fp16")]
#[inline(never)]
unsafe fn tile<const PANEL: usize, const S: usize, const M: usize, const R: usize, const V: usize>(
    tile: &GemmTile,
    count: usize,
) {
    const { assert!(R.div_ceil(2) == V) };
    let none = vreinterpret_f16_u16(vdup_n_u16(0));
    // SAFETY: every tap has `count` pointers to `depth` elements; together, the rows of the panels, `taps * depth`
    // each, are R times four columns wide.
    unsafe {
        let mut sums: [[F32x4; R]; M] = start(tile, 0, count);
        let mut short = [[[vcombine_f16(none, none); V]; M]; S];
        let mut terms = 0;
        let mut b = [tile.panel.cast::<u16>(); V];
        for (v, b) in b.iter_mut().enumerate() {
            let column = v * 8;
            *b = b.add(column / PANEL * PANEL * tile.taps * tile.depth + column % PANEL);
        }
        for tap in 0..tile.taps {
            let mut rows = [std::ptr::null::<f32>(); M];
            for (r, row) in rows.iter_mut().enumerate() {
                *row = *tile.rows.add(tap * count + r.min(count - 1));
            }
            let mut d = 0;
            while d < tile.depth {
                let end = tile.depth.min(d + TERMS);
                terms += end - d;
                while d + 4 <= end {
                    let mut a = [none; M];
                    for r in 0..M {
                        a[r] = vcvt_f16_f32(vld1q_f32(rows[r].add(d)));
                    }
                    step!(0, short, a, b);
                    step!(1, short, a, b);
                    step!(2, short, a, b);
                    step!(3, short, a, b);
                    for v in 0..V {
                        b[v] = b[v].add(4 * width(v * 8, PANEL, R));
                    }
                    d += 4;
                }
                while d < end {
                    let mut a = [none; M];
                    for r in 0..M {
                        a[r] = vcvt_f16_f32(vdupq_n_f32(*rows[r].add(d)));
                    }
                    step!(0, short, a, b);
                    for v in 0..V {
                        b[v] = b[v].add(width(v * 8, PANEL, R));
                    }
                    d += 1;
                }
                let is_last = tap + 1 == tile.taps && d == tile.depth;
                if is_last || terms + tile.depth.min(TERMS) > TERMS {
                    widen(&mut sums, &mut short);
                    terms = 0;
                }
            }
        }
        if is_finite(&sums) { store(tile, 0, count, &sums) } else { in_f32::<PANEL, R>(tile, count) }
    }
}

/// Width of the panel that contains a column, for R times four columns in total.
const fn width(column: usize, panel: usize, r: usize) -> usize {
    let first = column / panel * panel;
    if r * 4 - first < panel { r * 4 - first } else { panel }
}

/// Adds the half-precision sums to those in f32 and resets them.
///
/// # Safety
/// The CPU has NEON.
#[inline(always)]
unsafe fn widen<const S: usize, const M: usize, const R: usize, const V: usize>(
    sums: &mut [[F32x4; R]; M],
    short: &mut [[[float16x8_t; V]; M]; S],
) {
    for short in short {
        for r in 0..M {
            for v in 0..V {
                // SAFETY: value instructions, which the CPU has as the caller guarantees.
                unsafe {
                    let low = F32x4(vcvt_f32_f16(vget_low_f16(short[r][v])));
                    sums[r][2 * v] = sums[r][2 * v].add(low);
                    if 2 * v + 1 < R {
                        sums[r][2 * v + 1] = sums[r][2 * v + 1].add(F32x4(vcvt_high_f32_f16(short[r][v])));
                    }
                    short[r][v] = vreinterpretq_f16_u16(vdupq_n_u16(0));
                }
            }
        }
    }
}

/// Whether the sums contain neither an infinity nor a NaN.
#[inline(always)]
fn is_finite<const M: usize, const R: usize>(sums: &[[F32x4; R]; M]) -> bool {
    let zero = sums[0][0].like(0.0);
    let mut probe = zero;
    for row in sums {
        for sum in row {
            probe = sum.mul_add(zero, probe);
        }
    }
    // SAFETY: the sums prove NEON.
    unsafe { vaddvq_f32(probe.0) == 0.0 }
}

/// Computes the tile with the variant that widens B.
///
/// # Safety
/// As for [`tile`].
#[cold]
unsafe fn in_f32<const PANEL: usize, const R: usize>(tile: &GemmTile, count: usize) {
    let table = if PANEL == NARROW { HALF_8X8 } else { HALF_1X32 };
    let mut first = 0;
    while first < R * 4 {
        let width = width(first, PANEL, R);
        let panel = first * tile.taps * tile.depth * size_of::<u16>();
        // SAFETY: guaranteed by the caller, for the columns of one panel.
        unsafe {
            table[count - 1][width / 4 - 1](&GemmTile {
                panel: tile.panel.add(panel),
                out: tile.out.add(first),
                columns: (tile.columns - first).min(width),
                from: if tile.from.is_null() { tile.from } else { tile.from.add(first) },
                bias: if tile.bias.is_null() { tile.bias } else { tile.bias.add(first) },
                ..*tile
            });
        }
        first += width;
    }
}
