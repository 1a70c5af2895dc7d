//! Filters of an image with a single pixel: the product of a sparse matrix and a vector.
//!
//! A filter has few weights, so that the time is in what surrounds their sum: one call computes several filters, and the
//! epilogue is applied afterwards to all of them at once.

use super::{BLOCK, FewFilters};

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
    // SAFETY: guaranteed by the caller.
    unsafe { if row.weights.all.block == 1 { singles(row) } else { groups::<BLOCK, 4>(row) } }
}

/// Computes filters of single weights.
///
/// # Safety
/// As for [`RowFn`].
#[inline(always)]
unsafe fn singles(row: &SparseRow<'_>) {
    for group in row.weights.groups.clone() {
        let (values, channels, _) = row.weights.of(group);
        let bias = row.bias.map_or(0.0, |bias| bias[group]);
        // SAFETY: guaranteed by the caller.
        unsafe { *row.out.add(group) = sum(values, channels, row.input) + bias };
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

/// Computes groups of `B` filters, with `S` sets of sums that successive blocks use alternately, so that no multiply-add
/// waits for the previous one.
///
/// # Safety
/// As for [`RowFn`]; groups have `B` filters.
#[inline(always)]
unsafe fn groups<const B: usize, const S: usize>(row: &SparseRow<'_>) {
    for group in row.weights.groups.clone() {
        let (values, channels, filters) = row.weights.of(group);
        // SAFETY: guaranteed by the caller.
        let sums = unsafe { sums::<B, S>(values.as_chunks().0, channels, row.input) };
        for (filter, sum) in filters.zip(sums) {
            let bias = row.bias.map_or(0.0, |bias| bias[filter]);
            // SAFETY: guaranteed by the caller.
            unsafe { *row.out.add(filter) = sum + bias };
        }
    }
}

/// The sums of the products of blocks and their channels' elements.
///
/// # Safety
/// The channels are elements of the input.
#[inline(always)]
unsafe fn sums<const B: usize, const S: usize>(blocks: &[[f32; B]], channels: &[u16], input: &[f32]) -> [f32; B] {
    let mut sums = [[0.0f32; B]; S];
    let (whole, last) = (blocks.chunks_exact(S), channels.chunks_exact(S));
    let rest = whole.remainder().iter().zip(last.remainder());
    for (blocks, channels) in whole.zip(last) {
        for ((sums, block), &channel) in sums.iter_mut().zip(blocks).zip(channels) {
            // SAFETY: guaranteed by the caller.
            unsafe { add(sums, block, channel, input) };
        }
    }
    for (sums, (block, &channel)) in sums.iter_mut().zip(rest) {
        // SAFETY: guaranteed by the caller.
        unsafe { add(sums, block, channel, input) };
    }
    // In pairs.
    let mut count = S;
    while count > 1 {
        for at in 0..count / 2 {
            let (even, odd) = (sums[2 * at], sums[2 * at + 1]);
            for (sum, (even, odd)) in sums[at].iter_mut().zip(even.into_iter().zip(odd)) {
                *sum = even + odd;
            }
        }
        count /= 2;
    }
    sums[0]
}

/// Adds the products of a block. A function instead of a closure: one that is not inlined is compiled without the
/// instruction set.
///
/// # Safety
/// The channel is an element of the input.
#[inline(always)]
unsafe fn add<const B: usize>(sums: &mut [f32; B], block: &[f32; B], channel: u16, input: &[f32]) {
    // SAFETY: guaranteed by the caller.
    let element = unsafe { *input.get_unchecked(usize::from(channel)) };
    for (sum, &weight) in sums.iter_mut().zip(block) {
        *sum = element.mul_add(weight, *sum);
    }
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
    for group in row.weights.groups.clone() {
        let (values, channels, filters) = row.weights.of(group);
        for (at, filter) in filters.enumerate() {
            let products = values.iter().skip(at).step_by(row.weights.all.block).zip(channels);
            let sum = products.map(|(w, &channel)| w * row.input[usize::from(channel)]).sum::<f32>();
            // SAFETY: guaranteed by the caller.
            unsafe { *row.out.add(filter) = row.bias.map_or(0.0, |bias| bias[filter]) + sum };
        }
    }
}
