//! Tiles for AVX2: 16 registers, two multiply-adds of eight lanes per cycle.
//!
//! The twelve sums of 6x16 hide the latency (four cycles times two) and leave room for the operands. 3x24 fits channel
//! counts that are multiples of 24; a fourth row would need all 16 registers and make the compiler spill. A single row
//! benefits from neither: 1x64 keeps eight independent sums and is limited by the bandwidth for B.

use half::f16;

use super::tile::{GemmTile, TileFn, broadcast};
use crate::lanes::Stored;
use crate::lanes::avx2::F32x8;

/// The kernels of a tile, by rows and registers, for one weight dtype.
macro_rules! tables {
    ($b:ty: $tile_6x16:ident $tile_3x24:ident $tile_1x64:ident) => {
        pub(super) static $tile_6x16: &[&[TileFn]] = &[
            &[tile::<$b, 1, 1>, tile::<$b, 1, 2>],
            &[tile::<$b, 2, 1>, tile::<$b, 2, 2>],
            &[tile::<$b, 3, 1>, tile::<$b, 3, 2>],
            &[tile::<$b, 4, 1>, tile::<$b, 4, 2>],
            &[tile::<$b, 5, 1>, tile::<$b, 5, 2>],
            &[tile::<$b, 6, 1>, tile::<$b, 6, 2>],
        ];

        pub(super) static $tile_3x24: &[&[TileFn]] = &[
            &[tile::<$b, 1, 1>, tile::<$b, 1, 2>, tile::<$b, 1, 3>],
            &[tile::<$b, 2, 1>, tile::<$b, 2, 2>, tile::<$b, 2, 3>],
            &[tile::<$b, 3, 1>, tile::<$b, 3, 2>, tile::<$b, 3, 3>],
        ];

        pub(super) static $tile_1x64: &[&[TileFn]] = &[&[
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

tables!(f32: TILE_6X16 TILE_3X24 TILE_1X64);
tables!(f16: HALF_6X16 HALF_3X24 HALF_1X64);

/// # Safety
/// As for [`TileFn`], with M rows of V registers; the CPU has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
unsafe fn tile<B: Stored, const M: usize, const V: usize>(tile: &GemmTile) {
    // SAFETY: guaranteed by the caller; the instruction set is enabled here.
    unsafe { broadcast::<F32x8, F32x8, B, M, V, 0>(tile) }
}
