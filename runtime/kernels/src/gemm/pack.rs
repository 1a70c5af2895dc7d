//! Packing of B: panels of `nr` columns, row after row, so that the inner loop reads memory in order.
//!
//! The last panel is as wide as its columns need, rounded up to whole registers and padded with zeros.

use half::f16;

use super::Variant;
use crate::conv::{ConvShape, product};
use crate::pace::Pace;
use crate::transpose;

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
        let count = columns.min(n - first);
        if row_stride == 1 && k > 0 {
            if !pack_transposed((&b[first * col_stride..], col_stride), count, columns, panel, pace) {
                return;
            }
        } else {
            for (row, to) in panel.chunks_exact_mut(columns.max(1)).enumerate() {
                if pace.stops(4 * columns) {
                    return;
                }
                let from = &b[row * row_stride + first * col_stride..];
                to[count..].fill(0.0);
                match col_stride {
                    1 => to[..count].copy_from_slice(&from[..count]),
                    _ => to[..count].iter_mut().zip(from.iter().step_by(col_stride)).for_each(|(to, x)| *to = *x),
                }
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
            if !pack_panel(filters, taps, columns, panel, pace) {
                return;
            }
            (rest, group) = (after, others);
        }
    }
}

/// Elements of a block of transposed filters: they fit in half of a first-level cache.
const BLOCK: usize = 1 << 12;

/// Writes `count` columns, of which each is contiguous, as a panel; further columns of the panel are zeros. Returns false
/// if the run is to stop.
fn pack_transposed(
    (b, col_stride): (&[f32], usize),
    count: usize,
    columns: usize,
    panel: &mut [f32],
    pace: &Pace<'_>,
) -> bool {
    if count < columns {
        panel.fill(0.0);
    }
    let rows = BLOCK / columns;
    for (block, to) in panel.chunks_mut(rows * columns).enumerate() {
        if pace.stops(4 * to.len()) {
            return false;
        }
        transpose::matrix([count, to.len() / columns], (&b[block * rows..], col_stride), (to, columns));
    }
    true
}

/// Writes filters `[filters, channels, taps]` as a panel `[taps, channels, columns]`; columns without a filter are zeros.
/// Returns false if the run is to stop.
fn pack_panel(filters: &[f32], taps: usize, columns: usize, panel: &mut [f32], pace: &Pace<'_>) -> bool {
    let filter_len = panel.len() / columns;
    let (channels, count) = (filter_len / taps, filters.len() / filter_len);
    if taps == 1 {
        return pack_transposed((filters, filter_len), count, columns, panel, pace);
    }
    if count < columns {
        panel.fill(0.0);
    }
    let mut block = [0.0; BLOCK];
    let rows = BLOCK / columns;
    for first in (0..filter_len).step_by(rows) {
        let rows = rows.min(filter_len - first);
        if pace.stops(8 * rows * columns) {
            return false;
        }
        transpose::matrix([count, rows], (&filters[first..], filter_len), (&mut block, columns));
        for (weight, row) in (first..first + rows).zip(block.chunks_exact(columns)) {
            let to = weight % taps * channels + weight / taps;
            panel[to * columns..][..count].copy_from_slice(&row[..count]);
        }
    }
    true
}
