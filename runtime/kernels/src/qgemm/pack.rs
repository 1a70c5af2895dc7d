//! Packing of the weights and of the constants of each column: offset and scale.

use super::Variant;
use crate::conv::{ConvShape, product};
use crate::pace::Pace;

/// The constants of a convolution in the packed layout of a kernel.
#[derive(Clone, Copy, Debug)]
pub struct Packed<'a> {
    /// Panels of columns, each in groups of rows; [`weights_len`] elements.
    pub weights: &'a [i8],
    /// For each range of kernel rows, the bias of every filter minus the zero point's share; [`offsets_len`] elements.
    pub offsets: &'a [i32],
    /// For each filter, the factor of its sum; [`scales_len`] elements. Not read if the output is sums.
    pub scales: &'a [f32],
}

/// Kernels with more rows than this are always computed completely.
const MAX_RANGED_ROWS: usize = 5;

/// Filters of a group, rounded up to whole registers.
pub fn padded_filters(v: &Variant, shape: &ConvShape) -> usize {
    shape.group_out().next_multiple_of(v.lanes)
}

/// Elements of the packed weights.
#[inline(never)]
pub fn weights_len(v: &Variant, shape: &ConvShape) -> usize {
    let depth = product(&[shape.taps(), shape.group_in()]).next_multiple_of(v.group);
    product(&[shape.groups, depth, padded_filters(v, shape)])
}

/// Elements of the packed offsets.
#[inline(never)]
pub fn offsets_len(v: &Variant, shape: &ConvShape) -> usize {
    product(&[ranges(shape), scales_len(v, shape)])
}

/// Elements of the packed scales.
pub fn scales_len(v: &Variant, shape: &ConvShape) -> usize {
    product(&[shape.groups, padded_filters(v, shape)])
}

/// Whether a tile may skip the kernel rows that are in the padding for all its pixels.
pub(super) fn is_ranged(shape: &ConvShape) -> bool {
    shape.is_padded() && shape.kernel[0] <= MAX_RANGED_ROWS
}

/// Ranges of kernel rows that have their own offsets.
fn ranges(shape: &ConvShape) -> usize {
    if is_ranged(shape) { shape.kernel[0] * (shape.kernel[0] + 1) / 2 } else { 1 }
}

/// Index of the range of kernel rows `first..end`; the range of the whole kernel has index 0.
pub(super) fn range_index(rows: usize, first: usize, end: usize) -> usize {
    // Ranges that omit `out` rows come after the 1 + 2 + .. + out ranges that omit fewer.
    let out = rows - (end - first);
    out * (out + 1) / 2 + first
}

/// Packs the weights `[out_c, in_c / groups, kernel_h, kernel_w]` and the bias and scales of all filters, for
/// activations with zero point `zero`.
///
/// # Panics
/// If a length does not match `shape`.
#[inline(never)]
pub fn pack(
    v: &Variant,
    shape: &ConvShape,
    oihw: &[i8],
    zero: u8,
    (bias, scales): (&[i32], &[f32]),
    (to_weights, to_offsets, to_scales): (&mut [i8], &mut [i32], &mut [f32]),
) {
    assert!(bias.len() == shape.out_c && scales.len() == shape.out_c, "one bias and scale per filter");
    assert_eq!(to_scales.len(), scales_len(v, shape), "packed scale length");
    pack_weights(v, shape, oihw, to_weights, &Pace::free());
    pack_sums(v, shape, oihw, to_offsets, &Pace::free());
    let (padded, filters) = (padded_filters(v, shape), shape.group_out());
    for group in to_offsets.chunks_exact_mut(padded.max(1)).enumerate() {
        let (group, offsets) = (group.0 % shape.groups, group.1);
        offsets.iter_mut().for_each(|sum| *sum = offset(v, *sum, zero));
        for (offset, bias) in offsets.iter_mut().zip(&bias[group * filters..][..filters]) {
            *offset = offset.wrapping_add(*bias);
        }
    }
    for (group, to) in to_scales.chunks_exact_mut(padded.max(1)).enumerate() {
        to[..filters].copy_from_slice(&scales[group * filters..][..filters]);
    }
}

/// Packs the weights `[out_c, in_c / groups, kernel_h, kernel_w]`. Incomplete if the run is to stop.
///
/// # Panics
/// If a length does not match `shape`.
#[inline(never)]
pub fn pack_weights(v: &Variant, shape: &ConvShape, oihw: &[i8], to: &mut [i8], pace: &Pace<'_>) {
    let (taps, channels, filters) = (shape.taps(), shape.group_in(), shape.group_out());
    assert_eq!(oihw.len(), product(&[shape.out_c, channels, taps]), "weight length");
    assert_eq!(to.len(), weights_len(v, shape), "the packed weights");
    let padded = padded_filters(v, shape);
    let depth = (taps * channels).next_multiple_of(v.group);
    for group in 0..shape.groups {
        let mut to = to[group * depth * padded..][..depth * padded].iter_mut();
        let mut first = 0;
        for registers in v.panels(filters) {
            let columns = registers * v.lanes;
            for step in 0..depth / v.group {
                if pace.stops(8 * columns * v.group) {
                    return;
                }
                for filter in first..first + columns {
                    for (row, to) in (step * v.group..(step + 1) * v.group).zip(&mut to) {
                        let inside = filter < filters && row < taps * channels;
                        let at = || ((group * filters + filter) * channels + row % channels) * taps + row / channels;
                        *to = if inside { oihw[at()] } else { 0 };
                    }
                }
            }
            first += columns;
        }
    }
}

/// Packs the sums of the weights, which [`offsets`] turns into packed offsets: for each range of kernel rows, one sum
/// per filter. Incomplete if the run is to stop.
///
/// # Panics
/// If a length does not match `shape`.
#[inline(never)]
pub fn pack_sums(v: &Variant, shape: &ConvShape, oihw: &[i8], to: &mut [i32], pace: &Pace<'_>) {
    let (taps, channels, filters) = (shape.taps(), shape.group_in(), shape.group_out());
    assert_eq!(oihw.len(), product(&[shape.out_c, channels, taps]), "weight length");
    assert_eq!(to.len(), offsets_len(v, shape), "packed offset length");
    let (padded, [rows, columns]) = (padded_filters(v, shape), shape.kernel);
    to.fill(0);
    for (filter, weights) in oihw.chunks_exact((channels * taps).max(1)).enumerate() {
        if pace.stops(8 + 8 * weights.len()) {
            return;
        }
        let (group, column) = (filter / filters, filter % filters);
        let mut set = |index: usize, sum: i32| to[(index * shape.groups + group) * padded + column] = sum;
        if !is_ranged(shape) {
            set(0, weights.iter().map(|&w| i32::from(w)).sum());
            continue;
        }
        let mut lines = [0i32; MAX_RANGED_ROWS];
        for (at, &weight) in weights.iter().enumerate() {
            lines[at / columns % rows] += i32::from(weight);
        }
        for first in 0..rows {
            for end in first + 1..=rows {
                set(range_index(rows, first, end), lines[first..end].iter().sum());
            }
        }
    }
}

/// Computes the packed offsets of a product without bias from its packed `sums`, for activations with zero point
/// `zero`.
///
/// # Panics
/// If the lengths differ.
#[inline(never)]
pub fn offsets(v: &Variant, sums: &[i32], zero: u8, to: &mut [i32]) {
    assert_eq!(sums.len(), to.len(), "an offset for each sum");
    for (to, &sum) in to.iter_mut().zip(sums) {
        *to = offset(v, sum, zero);
    }
}

/// The term that weights with this sum add to a sum of products because of the zero point of the activations.
fn offset(v: &Variant, sum: i32, zero: u8) -> i32 {
    sum.wrapping_mul(i32::from(v.shift) - i32::from(zero))
}
