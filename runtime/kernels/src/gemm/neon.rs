//! Tiles for NEON: 32 registers of four lanes.
//!
//! A multiply-add can take one operand from a lane of a register, so A is loaded four elements at a time instead of
//! broadcast: 8x8 loads 16 registers for 64 multiply-adds. With 16 sums, 8 registers of A and 2 of B nothing spills.
//! 4x16 is used for few rows; a single row keeps eight independent sums.

use half::f16;

use super::tile::{GemmTile, TileFn, start, store};
use crate::lanes::neon::F32x4;
use crate::lanes::{Lanes, Stored};

/// The kernels of a tile, by rows and registers, for one weight dtype.
macro_rules! tables {
    ($b:ty: $tile_8x8:ident $tile_4x16:ident $tile_1x32:ident) => {
        pub(super) static $tile_8x8: &[&[TileFn]] = &[
            &[tile::<$b, 1, 1>, tile::<$b, 1, 2>],
            &[tile::<$b, 2, 1>, tile::<$b, 2, 2>],
            &[tile::<$b, 3, 1>, tile::<$b, 3, 2>],
            &[tile::<$b, 4, 1>, tile::<$b, 4, 2>],
            &[tile::<$b, 5, 1>, tile::<$b, 5, 2>],
            &[tile::<$b, 6, 1>, tile::<$b, 6, 2>],
            &[tile::<$b, 7, 1>, tile::<$b, 7, 2>],
            &[tile::<$b, 8, 1>, tile::<$b, 8, 2>],
        ];

        pub(super) static $tile_4x16: &[&[TileFn]] = &[
            &[tile::<$b, 1, 1>, tile::<$b, 1, 2>, tile::<$b, 1, 3>, tile::<$b, 1, 4>],
            &[tile::<$b, 2, 1>, tile::<$b, 2, 2>, tile::<$b, 2, 3>, tile::<$b, 2, 4>],
            &[tile::<$b, 3, 1>, tile::<$b, 3, 2>, tile::<$b, 3, 3>, tile::<$b, 3, 4>],
            &[tile::<$b, 4, 1>, tile::<$b, 4, 2>, tile::<$b, 4, 3>, tile::<$b, 4, 4>],
        ];

        pub(super) static $tile_1x32: &[&[TileFn]] = &[&[
            tile::<$b, 1, 1>,
            tile::<$b, 1, 2>,
            tile::<$b, 1, 3>,
            tile::<$b, 1, 4>,
            tile::<$b, 1, 5>,
            tile::<$b, 1, 6>,
            tile::<$b, 1, 7>,
            tile::<$b, 1, 8>,
        ]];
    };
}

tables!(f32: TILE_8X8 TILE_4X16 TILE_1X32);
tables!(f16: HALF_8X8 HALF_4X16 HALF_1X32);

/// # Safety
/// As for [`TileFn`], with M rows of V registers; the CPU has NEON.
#[target_feature(enable = "neon")]
unsafe fn tile<B: Stored, const M: usize, const V: usize>(tile: &GemmTile) {
    // SAFETY: every tap has M pointers to `depth` elements, and the panel has `taps * depth` rows of V registers.
    unsafe {
        let mut sums: [[F32x4; V]; M] = start(tile, 0, M);
        let mut b: *const B = tile.panel.cast();
        for tap in 0..tile.taps {
            let rows: [*const f32; M] = *tile.rows.add(tap * M).cast();
            let mut d = 0;
            while d + 4 <= tile.depth {
                let mut a = [F32x4::splat(0.0); M];
                for r in 0..M {
                    a[r] = F32x4::load(rows[r].add(d));
                }
                step::<B, 0, M, V>(&mut sums, &a, b);
                step::<B, 1, M, V>(&mut sums, &a, b.add(V * 4));
                step::<B, 2, M, V>(&mut sums, &a, b.add(V * 8));
                step::<B, 3, M, V>(&mut sums, &a, b.add(V * 12));
                b = b.add(V * 16);
                d += 4;
            }
            while d < tile.depth {
                let mut a = [F32x4::splat(0.0); M];
                for r in 0..M {
                    a[r] = F32x4::splat(*rows[r].add(d));
                }
                step::<B, 0, M, V>(&mut sums, &a, b);
                b = b.add(V * 4);
                d += 1;
            }
        }
        store(tile, 0, M, &sums);
    }
}

/// `sums[r] += a[r][LANE] * b`
///
/// # Safety
/// `b` is readable for V registers; the CPU has NEON.
#[inline(always)]
unsafe fn step<B: Stored, const LANE: i32, const M: usize, const V: usize>(
    sums: &mut [[F32x4; V]; M],
    a: &[F32x4; M],
    b: *const B,
) {
    for v in 0..V {
        // SAFETY: guaranteed by the caller.
        let column: F32x4 = unsafe { B::load(b.add(v * 4)) };
        for r in 0..M {
            sums[r][v] = column.mul_lane_add::<LANE>(a[r], sums[r][v]);
        }
    }
}
