//! Tiles for NEON: 32 registers of four lanes.
//!
//! A multiply-add can take one operand from a lane of a register, so A is loaded four elements at a time, not
//! broadcast: 8x8 loads 16 registers for 64 multiply-adds. With 16 sums, 8 registers of A and 2 of B nothing
//! spills. 4x16 is for few rows; a single row keeps eight independent sums.

use super::tile::{Kernel, Tile, start, store};
use crate::lanes::Lanes;
use crate::lanes::neon::F32x4;

pub(super) static TILE_8X8: &[&[Kernel]] = &[
    &[tile::<1, 1>, tile::<1, 2>],
    &[tile::<2, 1>, tile::<2, 2>],
    &[tile::<3, 1>, tile::<3, 2>],
    &[tile::<4, 1>, tile::<4, 2>],
    &[tile::<5, 1>, tile::<5, 2>],
    &[tile::<6, 1>, tile::<6, 2>],
    &[tile::<7, 1>, tile::<7, 2>],
    &[tile::<8, 1>, tile::<8, 2>],
];

pub(super) static TILE_4X16: &[&[Kernel]] = &[
    &[tile::<1, 1>, tile::<1, 2>, tile::<1, 3>, tile::<1, 4>],
    &[tile::<2, 1>, tile::<2, 2>, tile::<2, 3>, tile::<2, 4>],
    &[tile::<3, 1>, tile::<3, 2>, tile::<3, 3>, tile::<3, 4>],
    &[tile::<4, 1>, tile::<4, 2>, tile::<4, 3>, tile::<4, 4>],
];

pub(super) static TILE_1X32: &[&[Kernel]] = &[&[
    tile::<1, 1>,
    tile::<1, 2>,
    tile::<1, 3>,
    tile::<1, 4>,
    tile::<1, 5>,
    tile::<1, 6>,
    tile::<1, 7>,
    tile::<1, 8>,
]];

/// # Safety
/// As for [`Kernel`], with M rows of V registers; the CPU has NEON.
#[target_feature(enable = "neon")]
unsafe fn tile<const M: usize, const V: usize>(tile: &Tile) {
    // SAFETY: every tap has M pointers to `depth` numbers, and the panel has `taps * depth` rows of V registers.
    unsafe {
        let mut sums: [[F32x4; V]; M] = start(tile, 0);
        let mut b = tile.panel;
        for tap in 0..tile.taps {
            let rows: [*const f32; M] = *tile.rows.add(tap * M).cast();
            let mut d = 0;
            while d + 4 <= tile.depth {
                let mut a = [F32x4::splat(0.0); M];
                for r in 0..M {
                    a[r] = F32x4::load(rows[r].add(d));
                }
                step::<0, M, V>(&mut sums, &a, b);
                step::<1, M, V>(&mut sums, &a, b.add(V * 4));
                step::<2, M, V>(&mut sums, &a, b.add(V * 8));
                step::<3, M, V>(&mut sums, &a, b.add(V * 12));
                b = b.add(V * 16);
                d += 4;
            }
            while d < tile.depth {
                let mut a = [F32x4::splat(0.0); M];
                for r in 0..M {
                    a[r] = F32x4::splat(*rows[r].add(d));
                }
                step::<0, M, V>(&mut sums, &a, b);
                b = b.add(V * 4);
                d += 1;
            }
        }
        store(tile, 0, &sums);
    }
}

/// `sums[r] += a[r][LANE] * b`
///
/// # Safety
/// `b` is readable for V registers; the CPU has NEON.
#[inline(always)]
unsafe fn step<const LANE: i32, const M: usize, const V: usize>(
    sums: &mut [[F32x4; V]; M],
    a: &[F32x4; M],
    b: *const f32,
) {
    for v in 0..V {
        // SAFETY: the caller's promise.
        let column = unsafe { F32x4::load(b.add(v * 4)) };
        for r in 0..M {
            sums[r][v] = column.mul_lane_add::<LANE>(a[r], sums[r][v]);
        }
    }
}
