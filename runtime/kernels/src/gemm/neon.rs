//! NEON: 6 rows by 4 registers, 24 of the 32 registers hold sums.

use super::tile::tiles;
use crate::lanes::neon::F32x4;

tiles!(tile_6x16, F32x4, "neon", rows: [1 2 3 4 5 6], registers: [1 2 3 4]);
