//! Tiles for AVX2: 16 registers, two multiply-adds of eight lanes per cycle.
//!
//! Twelve sums in 6x16 hide the latency (four cycles times two) and leave room for the operands. 3x24 fits channel
//! counts that are multiples of 24; with a fourth row the sixteenth register is gone and the compiler spills. A single
//! row has no use for either: 1x64 keeps eight independent sums, and is bound by the stream of B.

use super::tile::{Kernel, Tile, broadcast};
use crate::lanes::avx2::F32x8;

pub(super) static TILE_6X16: &[&[Kernel]] = &[
    &[tile::<1, 1>, tile::<1, 2>],
    &[tile::<2, 1>, tile::<2, 2>],
    &[tile::<3, 1>, tile::<3, 2>],
    &[tile::<4, 1>, tile::<4, 2>],
    &[tile::<5, 1>, tile::<5, 2>],
    &[tile::<6, 1>, tile::<6, 2>],
];

pub(super) static TILE_3X24: &[&[Kernel]] = &[
    &[tile::<1, 1>, tile::<1, 2>, tile::<1, 3>],
    &[tile::<2, 1>, tile::<2, 2>, tile::<2, 3>],
    &[tile::<3, 1>, tile::<3, 2>, tile::<3, 3>],
];

pub(super) static TILE_1X64: &[&[Kernel]] = &[&[
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
/// As for [`Kernel`], with M rows of V registers; the CPU has AVX2 and FMA.
#[target_feature(enable = "avx2,fma")]
unsafe fn tile<const M: usize, const V: usize>(tile: &Tile) {
    // SAFETY: the caller's promise; the instruction set is enabled here.
    unsafe { broadcast::<F32x8, F32x8, M, V, 0>(tile) }
}
