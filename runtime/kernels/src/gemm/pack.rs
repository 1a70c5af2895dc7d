//! Packing of B: panels of `nr` columns, row after row, so that the inner loop reads memory in order.
//!
//! The last panel is as wide as its columns need, rounded up to whole registers and padded with zeros.

use half::f16;

use super::Variant;
use crate::conv::{ConvShape, product};
use crate::pace::Pace;

/// Elements that `pack` writes for `k` rows and `n` columns.
pub fn packed_len(v: &Variant, k: usize, n: usize) -> usize {
    product(&[k, n.div_ceil(v.lanes), v.lanes])
}

/// Packs `B[k, n]`, whose element `(row, col)` is `b[row * row_stride + col * col_stride]`. Incomplete if the run is to
/// stop.
///
/// # Panics
/// If `b` is too short or `out` is not [`packed_len`] long.
#[inline(never)]
pub fn pack(
    v: &Variant,
    k: usize,
    n: usize,
    (b, row_stride, col_stride): (&[f32], usize, usize),
    out: &mut [f32],
    pace: &Pace<'_>,
) {
    assert_eq!(out.len(), packed_len(v, k, n), "packed length");
    let (mut first, mut rest) = (0, out);
    for registers in v.form().panels(n) {
        let columns = registers * v.lanes;
        let (panel, after) = rest.split_at_mut(k * columns);
        for (row, to) in panel.chunks_exact_mut(columns.max(1)).enumerate() {
            if pace.stops(4 * columns) {
                return;
            }
            for (col, to) in (first..).zip(to) {
                *to = if col < n { b[row * row_stride + col * col_stride] } else { 0.0 };
            }
        }
        (first, rest) = (first + columns, after);
    }
}

/// Rounds packed elements to half precision.
///
/// # Panics
/// If the lengths differ.
#[inline(never)]
pub fn halve(packed: &[f32], out: &mut [f16]) {
    assert_eq!(packed.len(), out.len());
    for (out, &x) in out.iter_mut().zip(packed) {
        *out = f16::from_f32(x);
    }
}

/// Elements that [`pack_conv`] writes.
#[inline(never)]
pub fn packed_conv_len(v: &Variant, shape: &ConvShape) -> usize {
    product(&[shape.groups, packed_len(v, product(&[shape.taps(), shape.group_in()]), shape.group_out())])
}

/// Packs the weights `[out_c, in_c / groups, kernel_h, kernel_w]` of a convolution, group after group; the rows of
/// B are ordered by tap, then channel. Incomplete if the run is to stop.
///
/// # Panics
/// If the lengths do not match `shape`.
#[inline(never)]
pub fn pack_conv(v: &Variant, shape: &ConvShape, oihw: &[f32], out: &mut [f32], pace: &Pace<'_>) {
    let (taps, channels, filters) = (shape.taps(), shape.group_in(), shape.group_out());
    assert_eq!(oihw.len(), shape.out_c * channels * taps);
    assert_eq!(out.len(), packed_conv_len(v, shape));
    let filter_len = channels * taps;
    if filter_len == 0 || filters == 0 {
        return;
    }
    let mut rest = out;
    for mut group in oihw.chunks_exact(filters * filter_len) {
        for registers in v.form().panels(filters) {
            let columns = registers * v.lanes;
            let (panel, after) = rest.split_at_mut(filter_len * columns);
            let (filters, others) = group.split_at(group.len().min(filter_len * columns));
            pack_panel(filters, taps, columns, panel, pace);
            (rest, group) = (after, others);
        }
    }
}

/// Writes filters `[filters, channels, taps]` as a panel `[taps, channels, columns]`; columns without a filter are zeros.
fn pack_panel(filters: &[f32], taps: usize, columns: usize, panel: &mut [f32], pace: &Pace<'_>) {
    // Number of rows that stay in the first-level cache while all filters write their columns.
    const ROWS: usize = 16;
    let filter_len = panel.len() / columns;
    if filters.len() < panel.len() {
        panel.fill(0.0);
    }
    for (tap, rows) in panel.chunks_exact_mut(filter_len / taps * columns).enumerate() {
        for (block, rows) in rows.chunks_mut(ROWS * columns).enumerate() {
            if pace.stops(4 * rows.len()) {
                return;
            }
            for (column, filter) in filters.chunks_exact(filter_len).enumerate() {
                let weights = filter[block * ROWS * taps + tap..].iter().step_by(taps);
                for (row, &weight) in rows.chunks_exact_mut(columns).zip(weights) {
                    row[column] = weight;
                }
            }
        }
    }
}
