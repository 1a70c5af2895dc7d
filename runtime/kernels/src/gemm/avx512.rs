//! AVX-512: 12 rows by 2 registers, 24 of the 32 registers hold sums.

use super::tile::tiles;
use crate::lanes::avx512::F32x16;

tiles!(tile_12x32, F32x16, "avx512f,avx512bw,avx512dq,avx512vl", rows: [1 2 3 4 5 6 7 8 9 10 11 12], registers: [1 2]);
