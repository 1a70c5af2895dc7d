//! The tile in plain Rust: the reference for all others.

use half::f16;

use super::tile::{GemmTile, TileFn};
use crate::activation::{Activation, scalar::apply};
use crate::epilogue::Bounds;

/// Columns of the tile.
const N: usize = 8;

pub(super) static TILE_4X8: &[&[TileFn]] =
    &[&[tile::<f32, 1>], &[tile::<f32, 2>], &[tile::<f32, 3>], &[tile::<f32, 4>]];
pub(super) static HALF_4X8: &[&[TileFn]] =
    &[&[tile::<f16, 1>], &[tile::<f16, 2>], &[tile::<f16, 3>], &[tile::<f16, 4>]];

/// # Safety
/// As for [`TileFn`], with M rows of up to eight columns.
unsafe fn tile<B: Copy + Into<f32>, const M: usize>(tile: &GemmTile) {
    for r in 0..M {
        // SAFETY: guaranteed by the caller.
        unsafe { finish(tile, r, &sums::<B>(tile, M, r)) };
    }
}

/// The sums of row `r` of `rows`. One function for all tile heights, and small rather than fast.
///
/// # Safety
/// As for [`TileFn`], with `rows` rows of up to eight columns.
#[inline(never)]
unsafe fn sums<B: Copy + Into<f32>>(tile: &GemmTile, rows: usize, r: usize) -> [f32; N] {
    let mut sums = [0.0; N];
    for tap in 0..tile.taps {
        // SAFETY: every tap has a pointer to `depth` elements for each row; the panel has `taps * depth` rows of N.
        let (row, panel) = unsafe {
            let row = *tile.rows.add(tap * rows + r);
            let panel = tile.panel.cast::<[B; N]>().add(tap * tile.depth);
            (std::slice::from_raw_parts(row, tile.depth), std::slice::from_raw_parts(panel, tile.depth))
        };
        for (&a, b) in row.iter().zip(panel) {
            for (sum, &b) in sums.iter_mut().zip(b) {
                *sum += a * b.into();
            }
        }
    }
    sums
}

/// Adds the start value to the sums of row `r`, clamps and stores them.
///
/// # Safety
/// As for [`TileFn`].
#[inline(never)]
unsafe fn finish(tile: &GemmTile, r: usize, sums: &[f32; N]) {
    for (c, &sum) in sums.iter().enumerate().take(tile.columns) {
        let at = r * tile.ldc + c;
        // SAFETY: bias and output have the tile's columns in each of its rows.
        unsafe {
            let bias = if tile.bias.is_null() { 0.0 } else { *tile.bias.add(c) };
            let from = if tile.from.is_null() { 0.0 } else { *tile.from.add(at) };
            let sum = sum + (bias + from);
            *tile.out.add(at) = match tile.bounds {
                Bounds::None => sum,
                Bounds::Least(min) => apply(Activation::Clip { min, max: f32::INFINITY }, sum),
                Bounds::Both(min, max) => apply(Activation::Clip { min, max }, sum),
            };
        }
    }
}
