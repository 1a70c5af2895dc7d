//! The tile in plain Rust: the reference for all others.

use super::tile::{QgemmTile, TileFn};
use crate::requantize::Form;

/// Columns of the tile.
const N: usize = 8;
/// Products of a group.
const GROUP: usize = 4;

pub(super) static TILE_4X8: &[&[TileFn]] = &[&[tile::<1>], &[tile::<2>], &[tile::<3>], &[tile::<4>]];

/// # Safety
/// As for [`TileFn`], with M rows of up to eight columns.
unsafe fn tile<const M: usize>(tile: &QgemmTile) {
    for r in 0..M {
        // SAFETY: guaranteed by the caller.
        unsafe { row(tile, M, r) };
    }
}

/// Computes row `r` of `rows`. One function for all tile heights, and small rather than fast.
///
/// # Safety
/// As for [`TileFn`], with `rows` rows of up to eight columns.
#[inline(never)]
unsafe fn row(tile: &QgemmTile, rows: usize, r: usize) {
    let mut sums = [0i32; N];
    for tap in 0..tile.taps {
        // SAFETY: every tap has a pointer to `steps` groups for each row; the panel has `taps * steps` rows of N
        // groups.
        let (row, panel) = unsafe {
            let row = (*tile.rows.add(tap * rows + r)).cast::<[u8; GROUP]>();
            let panel = tile.panel.add(tap * tile.steps * N * GROUP).cast::<[[i8; GROUP]; N]>();
            (std::slice::from_raw_parts(row, tile.steps), std::slice::from_raw_parts(panel, tile.steps))
        };
        for (a, columns) in row.iter().zip(panel) {
            for (sum, w) in sums.iter_mut().zip(columns) {
                *sum += a.iter().zip(w).map(|(&a, &w)| i32::from(a) * i32::from(w)).sum::<i32>();
            }
        }
    }
    for (c, &sum) in sums.iter().enumerate().take(tile.columns) {
        let at = r * tile.ldc + c;
        // SAFETY: offsets, output and (unless the output is sums) scales have the tile's columns in each of its rows.
        unsafe {
            let sum = sum.wrapping_add(*tile.offsets.add(c));
            match &tile.to {
                Form::Bytes(by) => *tile.out.add(at) = by.byte(sum as f32 * *tile.scales.add(c)),
                Form::Floats => *tile.out.cast::<f32>().add(at) = sum as f32 * *tile.scales.add(c),
                Form::Sums => *tile.out.cast::<i32>().add(at) = sum,
            }
        }
    }
}
