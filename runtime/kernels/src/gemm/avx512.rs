//! Tiles for AVX-512: 32 registers, up to two multiply-adds of sixteen lanes per cycle.
//!
//! 24 sums leave room for the operands. More rows than twelve would not fit their pointers into the general
//! registers, which is why 14x32 is not here. A single row keeps eight independent sums. Channels come in multiples of
//! eight more often than of sixteen: the last eight columns of a panel are half a register, which costs no more than
//! half where the CPU splits its registers (Zen 4), and never more than a whole one.

use super::tile::{Kernel, Tile, broadcast};
use crate::lanes::avx2::F32x8;
use crate::lanes::avx512::F32x16;

pub(super) static TILE_12X32: &[&[Kernel]] = &[
    &[tile::<1, 0, 1>, tile::<1, 1, 0>, tile::<1, 1, 1>, tile::<1, 2, 0>],
    &[tile::<2, 0, 1>, tile::<2, 1, 0>, tile::<2, 1, 1>, tile::<2, 2, 0>],
    &[tile::<3, 0, 1>, tile::<3, 1, 0>, tile::<3, 1, 1>, tile::<3, 2, 0>],
    &[tile::<4, 0, 1>, tile::<4, 1, 0>, tile::<4, 1, 1>, tile::<4, 2, 0>],
    &[tile::<5, 0, 1>, tile::<5, 1, 0>, tile::<5, 1, 1>, tile::<5, 2, 0>],
    &[tile::<6, 0, 1>, tile::<6, 1, 0>, tile::<6, 1, 1>, tile::<6, 2, 0>],
    &[tile::<7, 0, 1>, tile::<7, 1, 0>, tile::<7, 1, 1>, tile::<7, 2, 0>],
    &[tile::<8, 0, 1>, tile::<8, 1, 0>, tile::<8, 1, 1>, tile::<8, 2, 0>],
    &[tile::<9, 0, 1>, tile::<9, 1, 0>, tile::<9, 1, 1>, tile::<9, 2, 0>],
    &[tile::<10, 0, 1>, tile::<10, 1, 0>, tile::<10, 1, 1>, tile::<10, 2, 0>],
    &[tile::<11, 0, 1>, tile::<11, 1, 0>, tile::<11, 1, 1>, tile::<11, 2, 0>],
    &[tile::<12, 0, 1>, tile::<12, 1, 0>, tile::<12, 1, 1>, tile::<12, 2, 0>],
];

pub(super) static TILE_8X48: &[&[Kernel]] = &[
    &[tile::<1, 0, 1>, tile::<1, 1, 0>, tile::<1, 1, 1>, tile::<1, 2, 0>, tile::<1, 2, 1>, tile::<1, 3, 0>],
    &[tile::<2, 0, 1>, tile::<2, 1, 0>, tile::<2, 1, 1>, tile::<2, 2, 0>, tile::<2, 2, 1>, tile::<2, 3, 0>],
    &[tile::<3, 0, 1>, tile::<3, 1, 0>, tile::<3, 1, 1>, tile::<3, 2, 0>, tile::<3, 2, 1>, tile::<3, 3, 0>],
    &[tile::<4, 0, 1>, tile::<4, 1, 0>, tile::<4, 1, 1>, tile::<4, 2, 0>, tile::<4, 2, 1>, tile::<4, 3, 0>],
    &[tile::<5, 0, 1>, tile::<5, 1, 0>, tile::<5, 1, 1>, tile::<5, 2, 0>, tile::<5, 2, 1>, tile::<5, 3, 0>],
    &[tile::<6, 0, 1>, tile::<6, 1, 0>, tile::<6, 1, 1>, tile::<6, 2, 0>, tile::<6, 2, 1>, tile::<6, 3, 0>],
    &[tile::<7, 0, 1>, tile::<7, 1, 0>, tile::<7, 1, 1>, tile::<7, 2, 0>, tile::<7, 2, 1>, tile::<7, 3, 0>],
    &[tile::<8, 0, 1>, tile::<8, 1, 0>, tile::<8, 1, 1>, tile::<8, 2, 0>, tile::<8, 2, 1>, tile::<8, 3, 0>],
];

pub(super) static TILE_1X128: &[&[Kernel]] = &[&[
    tile::<1, 0, 1>,
    tile::<1, 1, 0>,
    tile::<1, 1, 1>,
    tile::<1, 2, 0>,
    tile::<1, 2, 1>,
    tile::<1, 3, 0>,
    tile::<1, 3, 1>,
    tile::<1, 4, 0>,
    tile::<1, 4, 1>,
    tile::<1, 5, 0>,
    tile::<1, 5, 1>,
    tile::<1, 6, 0>,
    tile::<1, 6, 1>,
    tile::<1, 7, 0>,
    tile::<1, 7, 1>,
    tile::<1, 8, 0>,
]];

/// # Safety
/// As for [`Kernel`], with M rows of V registers and W halves; the CPU has AVX-512 F, BW, DQ and VL, AVX2 and FMA.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma")]
unsafe fn tile<const M: usize, const V: usize, const W: usize>(tile: &Tile) {
    // SAFETY: the caller's promise; the instruction sets are enabled here.
    unsafe { broadcast::<F32x16, F32x8, M, V, W>(tile) }
}
