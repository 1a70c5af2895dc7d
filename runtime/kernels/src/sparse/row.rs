//! Filters of an image with a single pixel: the product of a sparse matrix and a vector.
//!
//! A filter has few weights, so that the time is in what surrounds their sum: one call computes several filters, and the
//! epilogue is applied afterwards to all of them at once.

use super::FewFilters;

/// The arguments of a kernel.
pub(super) struct SparseRow<'a> {
    pub weights: FewFilters<'a>,
    /// One element per channel, or per tap of a channel.
    pub input: &'a [f32],
    /// One value per filter.
    pub bias: Option<&'a [f32]>,
    /// The output of the first filter.
    pub out: *mut f32,
}

/// Computes the filters.
///
/// # Safety
/// The CPU has the instruction set. The weights' channels are elements of the input, the output has these filters, and
/// nothing else accesses them.
///
/// # Panics
/// If a filter's weights are out of range.
pub(super) type RowFn = unsafe fn(&SparseRow<'_>);

/// # Safety
/// As for [`RowFn`].
#[inline(always)]
unsafe fn filters(row: &SparseRow<'_>) {
    for filter in row.weights.filters.clone() {
        let (values, channels) = row.weights.of(filter);
        let bias = row.bias.map_or(0.0, |bias| bias[filter]);
        // SAFETY: guaranteed by the caller.
        unsafe { *row.out.add(filter) = sum(values, channels, row.input) + bias };
    }
}

/// Sums that successive weights use alternately, so that no multiply-add waits for the previous one.
const SUMS: usize = 8;

/// The sum of the products of weights and their channels' elements.
///
/// # Safety
/// The channels are elements of the input.
#[inline(always)]
unsafe fn sum(values: &[f32], channels: &[u16], input: &[f32]) -> f32 {
    // SAFETY: guaranteed by the caller.
    let element = |channel: u16| unsafe { *input.get_unchecked(usize::from(channel)) };
    let mut sums = [0.0f32; SUMS];
    let (whole, last) = (values.chunks_exact(SUMS), channels.chunks_exact(SUMS));
    let (values, channels) = (whole.remainder(), last.remainder());
    for (values, channels) in whole.zip(last) {
        for ((sum, &value), &channel) in sums.iter_mut().zip(values).zip(channels) {
            *sum = element(channel).mul_add(value, *sum);
        }
    }
    for ((sum, &value), &channel) in sums.iter_mut().zip(values).zip(channels) {
        *sum = element(channel).mul_add(value, *sum);
    }
    let [a, b, c, d, e, f, g, h] = sums;
    ((a + b) + (c + d)) + ((e + f) + (g + h))
}

/// # Safety
/// As for [`RowFn`]; the CPU has AVX-512 F, BW, DQ and VL.
#[cfg(all(target_arch = "x86_64", feature = "avx512"))]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn avx512(row: &SparseRow<'_>) {
    // SAFETY: guaranteed by the caller; the instruction set is enabled here.
    unsafe { filters(row) }
}

/// # Safety
/// As for [`RowFn`]; the CPU has AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn avx2(row: &SparseRow<'_>) {
    // SAFETY: guaranteed by the caller; the instruction set is enabled here.
    unsafe { filters(row) }
}

/// # Safety
/// As for [`RowFn`]; the CPU has NEON.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub(super) unsafe fn neon(row: &SparseRow<'_>) {
    // SAFETY: guaranteed by the caller; the instruction set is enabled here.
    unsafe { filters(row) }
}

/// # Safety
/// As for [`RowFn`].
pub(super) unsafe fn scalar(row: &SparseRow<'_>) {
    for filter in row.weights.filters.clone() {
        let (values, channels) = row.weights.of(filter);
        let products = values.iter().zip(channels).map(|(value, &channel)| value * row.input[usize::from(channel)]);
        let sum = row.bias.map_or(0.0, |bias| bias[filter]) + products.sum::<f32>();
        // SAFETY: guaranteed by the caller.
        unsafe { *row.out.add(filter) = sum };
    }
}
