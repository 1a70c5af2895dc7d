//! Tiles for NEON with products of 8-bit matrices: one `usmmla` multiplies two rows by two columns, with eight products
//! for each of the four sums. That is twice the work of `usdot`, for two loads of half a register instead of one.
//!
//! A pair of rows by four columns takes two registers of sums, whose halves are recombined when the tile is stored. A
//! single row takes as long as a pair, so products of one row use `usdot`.

use core::arch::aarch64::*;
use core::arch::asm;

use super::neon::Dot;
use super::tile::{QgemmTile, TileFn, store};

/// Up to eight rows, in pairs, by up to three times four columns: 24 registers of sums, four of rows, the others for
/// weights.
pub(super) static TILE_8X12: &[&[TileFn]] = &[
    &[tile::<1, 1, 1>, tile::<1, 1, 2>, tile::<1, 1, 3>],
    &[tile::<2, 1, 1>, tile::<2, 1, 2>, tile::<2, 1, 3>],
    &[tile::<3, 2, 1>, tile::<3, 2, 2>, tile::<3, 2, 3>],
    &[tile::<4, 2, 1>, tile::<4, 2, 2>, tile::<4, 2, 3>],
    &[tile::<5, 3, 1>, tile::<5, 3, 2>, tile::<5, 3, 3>],
    &[tile::<6, 3, 1>, tile::<6, 3, 2>, tile::<6, 3, 3>],
    &[tile::<7, 4, 1>, tile::<7, 4, 2>, tile::<7, 4, 3>],
    &[tile::<8, 4, 1>, tile::<8, 4, 2>, tile::<8, 4, 3>],
];

/// Depth of a step: rows of weights per instruction.
const STEP: usize = 8;

/// # Safety
/// As for [`TileFn`], with M rows, which are P pairs, of V registers; the CPU has NEON with `usmmla`.
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn tile<const M: usize, const P: usize, const V: usize>(tile: &QgemmTile) {
    const { assert!(M.div_ceil(2) == P) };
    // SAFETY: the instructions are enabled here; every tap has M pointers to `steps` groups of eight, and the panel has
    // `taps * steps` rows of such groups for each of the four columns of V registers.
    unsafe {
        // The sums of a pair: columns 0 and 1 of the upper row, then of the lower row; the same for columns 2 and 3.
        let mut sums = [[[vdupq_n_s32(0); 2]; V]; P];
        let mut panel = tile.panel;
        for tap in 0..tile.taps {
            let rows: [*const u8; M] = *tile.rows.add(tap * M).cast();
            for step in 0..tile.steps {
                let mut pairs = [vdupq_n_u8(0); P];
                for (p, pair) in pairs.iter_mut().enumerate() {
                    // The last row of an odd count is paired with itself; the second sums are not stored.
                    let (upper, lower) = (rows[2 * p], rows[(2 * p + 1).min(M - 1)]);
                    *pair = vcombine_u8(vld1_u8(upper.add(step * STEP)), vld1_u8(lower.add(step * STEP)));
                }
                for v in 0..V {
                    for half in 0..2 {
                        let weights = vld1q_s8(panel.add((2 * v + half) * 2 * STEP));
                        for p in 0..P {
                            sums[p][v][half] = add_products(sums[p][v][half], pairs[p], weights);
                        }
                    }
                }
                panel = panel.add(V * 4 * STEP);
            }
        }
        let mut whole = [[Dot::<false>(vdupq_n_s32(0)); V]; M];
        for r in 0..M {
            for v in 0..V {
                let [left, right] = sums[r / 2][v];
                let (left, right) = (vreinterpretq_s64_s32(left), vreinterpretq_s64_s32(right));
                let row = if r % 2 == 0 { vzip1q_s64(left, right) } else { vzip2q_s64(left, right) };
                whole[r][v] = Dot(vreinterpretq_s32_s64(row));
            }
        }
        store(tile, &whole);
    }
}

/// Adds the products of two rows of eight activations and two columns of eight weights.
///
/// # Safety
/// The CPU has the instruction.
#[inline(always)]
unsafe fn add_products(mut sums: int32x4_t, rows: uint8x16_t, columns: int8x16_t) -> int32x4_t {
    // SAFETY: a value instruction, which the CPU has as the caller guarantees.
    unsafe {
        asm!("usmmla {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sums, in(vreg) rows, in(vreg) columns,
            options(pure, nomem, nostack, preserves_flags));
    }
    sums
}
