//! AVX2: 6 rows by 2 registers, 12 of the 16 registers hold sums.

use super::tile::tiles;
use crate::lanes::avx2::F32x8;

tiles!(tile_6x16, F32x8, "avx2,fma", rows: [1 2 3 4 5 6], registers: [1 2]);
