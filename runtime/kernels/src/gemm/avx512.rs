//! Tiles for AVX-512: 32 registers, up to two multiply-adds of sixteen lanes per cycle.
//!
//! 24 sums leave room for the operands. The pointers of more than twelve rows would not fit in the general-purpose
//! registers, which is why there is no 14x32. A single row keeps eight independent sums. Channel counts are multiples
//! of eight more often than of sixteen: the last eight columns of a panel use half a register, which costs half as much
//! on CPUs that split their registers (Zen 4), and never more than a whole one.

use half::f16;

use super::tile::{GemmTile, TileFn, broadcast};
use crate::lanes::Stored;
use crate::lanes::avx2::F32x8;
use crate::lanes::avx512::F32x16;

/// The kernels of a tile, by rows and registers, for one weight dtype.
macro_rules! tables {
    ($b:ty: $tile_12x32:ident $tile_8x48:ident $tile_1x128:ident) => {
        pub(super) static $tile_12x32: &[&[TileFn]] = &[
            &[tile::<$b, 1, 0, 1>, tile::<$b, 1, 1, 0>, tile::<$b, 1, 1, 1>, tile::<$b, 1, 2, 0>],
            &[tile::<$b, 2, 0, 1>, tile::<$b, 2, 1, 0>, tile::<$b, 2, 1, 1>, tile::<$b, 2, 2, 0>],
            &[tile::<$b, 3, 0, 1>, tile::<$b, 3, 1, 0>, tile::<$b, 3, 1, 1>, tile::<$b, 3, 2, 0>],
            &[tile::<$b, 4, 0, 1>, tile::<$b, 4, 1, 0>, tile::<$b, 4, 1, 1>, tile::<$b, 4, 2, 0>],
            &[tile::<$b, 5, 0, 1>, tile::<$b, 5, 1, 0>, tile::<$b, 5, 1, 1>, tile::<$b, 5, 2, 0>],
            &[tile::<$b, 6, 0, 1>, tile::<$b, 6, 1, 0>, tile::<$b, 6, 1, 1>, tile::<$b, 6, 2, 0>],
            &[tile::<$b, 7, 0, 1>, tile::<$b, 7, 1, 0>, tile::<$b, 7, 1, 1>, tile::<$b, 7, 2, 0>],
            &[tile::<$b, 8, 0, 1>, tile::<$b, 8, 1, 0>, tile::<$b, 8, 1, 1>, tile::<$b, 8, 2, 0>],
            &[tile::<$b, 9, 0, 1>, tile::<$b, 9, 1, 0>, tile::<$b, 9, 1, 1>, tile::<$b, 9, 2, 0>],
            &[tile::<$b, 10, 0, 1>, tile::<$b, 10, 1, 0>, tile::<$b, 10, 1, 1>, tile::<$b, 10, 2, 0>],
            &[tile::<$b, 11, 0, 1>, tile::<$b, 11, 1, 0>, tile::<$b, 11, 1, 1>, tile::<$b, 11, 2, 0>],
            &[tile::<$b, 12, 0, 1>, tile::<$b, 12, 1, 0>, tile::<$b, 12, 1, 1>, tile::<$b, 12, 2, 0>],
        ];

        pub(super) static $tile_8x48: &[&[TileFn]] = &[
            &[
                tile::<$b, 1, 0, 1>,
                tile::<$b, 1, 1, 0>,
                tile::<$b, 1, 1, 1>,
                tile::<$b, 1, 2, 0>,
                tile::<$b, 1, 2, 1>,
                tile::<$b, 1, 3, 0>,
            ],
            &[
                tile::<$b, 2, 0, 1>,
                tile::<$b, 2, 1, 0>,
                tile::<$b, 2, 1, 1>,
                tile::<$b, 2, 2, 0>,
                tile::<$b, 2, 2, 1>,
                tile::<$b, 2, 3, 0>,
            ],
            &[
                tile::<$b, 3, 0, 1>,
                tile::<$b, 3, 1, 0>,
                tile::<$b, 3, 1, 1>,
                tile::<$b, 3, 2, 0>,
                tile::<$b, 3, 2, 1>,
                tile::<$b, 3, 3, 0>,
            ],
            &[
                tile::<$b, 4, 0, 1>,
                tile::<$b, 4, 1, 0>,
                tile::<$b, 4, 1, 1>,
                tile::<$b, 4, 2, 0>,
                tile::<$b, 4, 2, 1>,
                tile::<$b, 4, 3, 0>,
            ],
            &[
                tile::<$b, 5, 0, 1>,
                tile::<$b, 5, 1, 0>,
                tile::<$b, 5, 1, 1>,
                tile::<$b, 5, 2, 0>,
                tile::<$b, 5, 2, 1>,
                tile::<$b, 5, 3, 0>,
            ],
            &[
                tile::<$b, 6, 0, 1>,
                tile::<$b, 6, 1, 0>,
                tile::<$b, 6, 1, 1>,
                tile::<$b, 6, 2, 0>,
                tile::<$b, 6, 2, 1>,
                tile::<$b, 6, 3, 0>,
            ],
            &[
                tile::<$b, 7, 0, 1>,
                tile::<$b, 7, 1, 0>,
                tile::<$b, 7, 1, 1>,
                tile::<$b, 7, 2, 0>,
                tile::<$b, 7, 2, 1>,
                tile::<$b, 7, 3, 0>,
            ],
            &[
                tile::<$b, 8, 0, 1>,
                tile::<$b, 8, 1, 0>,
                tile::<$b, 8, 1, 1>,
                tile::<$b, 8, 2, 0>,
                tile::<$b, 8, 2, 1>,
                tile::<$b, 8, 3, 0>,
            ],
        ];

        pub(super) static $tile_1x128: &[&[TileFn]] = &[&[
            tile::<$b, 1, 0, 1>,
            tile::<$b, 1, 1, 0>,
            tile::<$b, 1, 1, 1>,
            tile::<$b, 1, 2, 0>,
            tile::<$b, 1, 2, 1>,
            tile::<$b, 1, 3, 0>,
            tile::<$b, 1, 3, 1>,
            tile::<$b, 1, 4, 0>,
            tile::<$b, 1, 4, 1>,
            tile::<$b, 1, 5, 0>,
            tile::<$b, 1, 5, 1>,
            tile::<$b, 1, 6, 0>,
            tile::<$b, 1, 6, 1>,
            tile::<$b, 1, 7, 0>,
            tile::<$b, 1, 7, 1>,
            tile::<$b, 1, 8, 0>,
        ]];
    };
}

tables!(f32: TILE_12X32 TILE_8X48 TILE_1X128);
tables!(f16: HALF_12X32 HALF_8X48 HALF_1X128);

/// # Safety
/// As for [`TileFn`], with M rows of V registers and W halves; the CPU has AVX-512 F, BW, DQ and VL, AVX2, FMA and F16C.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
unsafe fn tile<B: Stored, const M: usize, const V: usize, const W: usize>(tile: &GemmTile) {
    // SAFETY: guaranteed by the caller; the instruction sets are enabled here.
    unsafe { broadcast::<F32x16, F32x8, B, M, V, W>(tile) }
}
