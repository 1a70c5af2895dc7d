//! Tiles for AVX-512: 32 registers, up to two multiply-adds of sixteen lanes per cycle.
//!
//! 24 sums leave room for the operands. More rows than twelve would not fit their pointers into the general
//! registers, which is why 14x32 is not here. A single row keeps eight independent sums.

use super::tile::{Kernel, Tile, broadcast};
use crate::lanes::avx512::F32x16;

pub(super) static TILE_12X32: &[&[Kernel]] = &[
    &[tile::<1, 1>, tile::<1, 2>],
    &[tile::<2, 1>, tile::<2, 2>],
    &[tile::<3, 1>, tile::<3, 2>],
    &[tile::<4, 1>, tile::<4, 2>],
    &[tile::<5, 1>, tile::<5, 2>],
    &[tile::<6, 1>, tile::<6, 2>],
    &[tile::<7, 1>, tile::<7, 2>],
    &[tile::<8, 1>, tile::<8, 2>],
    &[tile::<9, 1>, tile::<9, 2>],
    &[tile::<10, 1>, tile::<10, 2>],
    &[tile::<11, 1>, tile::<11, 2>],
    &[tile::<12, 1>, tile::<12, 2>],
];

pub(super) static TILE_8X48: &[&[Kernel]] = &[
    &[tile::<1, 1>, tile::<1, 2>, tile::<1, 3>],
    &[tile::<2, 1>, tile::<2, 2>, tile::<2, 3>],
    &[tile::<3, 1>, tile::<3, 2>, tile::<3, 3>],
    &[tile::<4, 1>, tile::<4, 2>, tile::<4, 3>],
    &[tile::<5, 1>, tile::<5, 2>, tile::<5, 3>],
    &[tile::<6, 1>, tile::<6, 2>, tile::<6, 3>],
    &[tile::<7, 1>, tile::<7, 2>, tile::<7, 3>],
    &[tile::<8, 1>, tile::<8, 2>, tile::<8, 3>],
];

pub(super) static TILE_1X128: &[&[Kernel]] = &[&[
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
/// As for [`Kernel`], with M rows of V registers; the CPU has AVX-512 F, BW, DQ and VL, AVX2 and FMA.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn tile<const M: usize, const V: usize>(tile: &Tile) {
    // SAFETY: the caller's promise; the instruction set is enabled here.
    unsafe { broadcast::<F32x16, M, V>(tile) }
}
