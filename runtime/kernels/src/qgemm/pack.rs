//! Packing of the weights, and of what is known of a column before any activation: its offset and its scale.

use super::Variant;
use crate::conv::{ConvShape, product};

/// What a convolution needs of its constants, in the kernel's own form.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// Panels of columns, each in steps of a group of rows: [`weights_len`].
    pub weights: &'a [i8],
    /// For each range of kernel rows, the bias of every filter less the share of the zero point: [`offsets_len`].
    pub offsets: &'a [i32],
    /// For each filter, what its sum is multiplied by: [`scales_len`].
    pub scales: &'a [f32],
}

/// Kernels of more rows than this are always computed whole.
const MAX_RANGED_ROWS: usize = 5;

/// Filters of a group, rounded up to whole registers.
pub fn padded_filters(v: &Variant, shape: &ConvShape) -> usize {
    shape.group_out().next_multiple_of(v.lanes)
}

/// Signed bytes of the packed weights.
pub fn weights_len(v: &Variant, shape: &ConvShape) -> usize {
    let depth = product(&[shape.taps(), shape.group_in()]).next_multiple_of(v.group);
    product(&[shape.groups, depth, padded_filters(v, shape)])
}

/// Numbers of the packed offsets.
pub fn offsets_len(v: &Variant, shape: &ConvShape) -> usize {
    product(&[ranges(shape), scales_len(v, shape)])
}

/// Numbers of the packed scales.
pub fn scales_len(v: &Variant, shape: &ConvShape) -> usize {
    product(&[shape.groups, padded_filters(v, shape)])
}

/// Whether a tile may leave out the kernel rows that lie in the padding for all its pixels.
pub(super) fn is_ranged(shape: &ConvShape) -> bool {
    shape.is_padded() && shape.kernel[0] <= MAX_RANGED_ROWS
}

/// Ranges of kernel rows that have offsets of their own.
fn ranges(shape: &ConvShape) -> usize {
    if is_ranged(shape) { shape.kernel[0] * (shape.kernel[0] + 1) / 2 } else { 1 }
}

/// Position of the kernel rows `first..end` among the ranges; the whole kernel comes first.
pub(super) fn range_index(rows: usize, first: usize, end: usize) -> usize {
    // Ranges that leave out `out` rows begin behind those that leave out fewer, which are 1 + 2 + .. + out.
    let out = rows - (end - first);
    out * (out + 1) / 2 + first
}

/// Packs the weights `[out_c, in_c / groups, kernel_h, kernel_w]`, the bias and the scales of all filters, for
/// activations with the zero point `zero`.
///
/// # Panics
/// If a length is not that of `shape`.
#[allow(clippy::too_many_arguments)]
pub fn pack(
    v: &Variant,
    shape: &ConvShape,
    oihw: &[i8],
    zero: u8,
    bias: &[i32],
    scales: &[f32],
    to: (&mut [i8], &mut [i32], &mut [f32]),
) {
    let (weights, offsets, packed_scales) = to;
    let (taps, channels, filters) = (shape.taps(), shape.group_in(), shape.group_out());
    assert_eq!(oihw.len(), product(&[shape.out_c, channels, taps]), "the weights");
    assert!(bias.len() == shape.out_c && scales.len() == shape.out_c, "one bias and scale per filter");
    assert_eq!(weights.len(), weights_len(v, shape), "the packed weights");
    assert_eq!(offsets.len(), offsets_len(v, shape), "the packed offsets");
    assert_eq!(packed_scales.len(), scales_len(v, shape), "the packed scales");
    let padded = padded_filters(v, shape);
    let depth = (taps * channels).next_multiple_of(v.group);
    for group in 0..shape.groups {
        let weight = |filter: usize, tap: usize, channel: usize| {
            oihw[((group * filters + filter) * channels + channel) * taps + tap]
        };
        let mut to = weights[group * depth * padded..][..depth * padded].iter_mut();
        let mut first = 0;
        for registers in v.panels(filters) {
            let columns = registers * v.lanes;
            for step in 0..depth / v.group {
                for filter in first..first + columns {
                    for (row, to) in (step * v.group..(step + 1) * v.group).zip(&mut to) {
                        let inside = filter < filters && row < taps * channels;
                        *to = if inside { weight(filter, row / channels, row % channels) } else { 0 };
                    }
                }
            }
            first += columns;
        }
        let [rows, columns] = shape.kernel;
        for filter in 0..filters {
            packed_scales[group * padded + filter] = scales[group * filters + filter];
            let line = |row: usize| -> i32 {
                let taps = row * columns..(row + 1) * columns;
                taps.flat_map(|tap| (0..channels).map(move |c| (tap, c)))
                    .map(|(tap, c)| i32::from(weight(filter, tap, c)))
                    .sum()
            };
            let sums: Vec<i32> = (0..rows).map(line).collect();
            let mut set = |index: usize, sum: i32| {
                let share = sum.wrapping_mul(i32::from(zero) - i32::from(v.shift));
                offsets[(index * shape.groups + group) * padded + filter] =
                    bias[group * filters + filter].wrapping_sub(share);
            };
            if !is_ranged(shape) {
                set(0, sums.iter().sum());
                continue;
            }
            for first in 0..rows {
                for end in first + 1..=rows {
                    set(range_index(rows, first, end), sums[first..end].iter().sum());
                }
            }
        }
    }
}
