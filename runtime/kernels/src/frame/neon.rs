//! Camera frames with NEON: products of 16 bits summed in 32 bits, eight in two instructions.

use core::arch::aarch64::*;

use super::tile::{self, Job, MOST, Sums};
use super::{Across, FrameRows, scalar};
use crate::lanes::neon::F32x4;

/// Columns that are summed at once.
const COLUMNS: usize = 16;

/// Like [`super::down`].
///
/// # Safety
/// `rows` has a row for each weight, as long as `line`; there is at least one weight; the CPU has NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn down(rows: FrameRows<'_>, weights: &[i16], shift: u32, line: &mut [i16]) {
    let Some(last) = line.len().checked_sub(COLUMNS) else {
        return scalar::columns(rows, weights, shift, 0, line);
    };
    let mut x = 0;
    loop {
        // SAFETY: `x + COLUMNS` is at most the length of the line and so of every row.
        unsafe { strip(rows.bytes.as_ptr().add(x), rows.stride, weights, shift, line.as_mut_ptr().add(x)) };
        if x == last {
            break;
        }
        // The last strip may overlap the one before.
        x = (x + COLUMNS).min(last);
    }
}

/// Sums of `COLUMNS` columns.
///
/// # Safety
/// `bytes` points to a row of `COLUMNS` bytes per weight; `to` is writable for `COLUMNS` elements.
#[inline]
#[target_feature(enable = "neon")]
unsafe fn strip(bytes: *const u8, stride: usize, weights: &[i16], shift: u32, to: *mut i16) {
    let mut sums = [vdupq_n_u32(0); 4];
    for (i, &weight) in weights.iter().enumerate() {
        // SAFETY: row i has a weight.
        let row = unsafe { vld1q_u8(bytes.add(i * stride)) };
        let (low, high) = (vmovl_u8(vget_low_u8(row)), vmovl_high_u8(row));
        // No weight is negative.
        let weight = weight as u16;
        sums[0] = vmlal_n_u16(sums[0], vget_low_u16(low), weight);
        sums[1] = vmlal_high_n_u16(sums[1], low, weight);
        sums[2] = vmlal_n_u16(sums[2], vget_low_u16(high), weight);
        sums[3] = vmlal_high_n_u16(sums[3], high, weight);
    }
    // A left shift by a negative count is a rounding right shift.
    let right = vdupq_n_s32(-(shift as i32));
    let [a, b, c, d] = sums.map(|sum| vqmovn_s32(vreinterpretq_s32_u32(vrshlq_u32(sum, right))));
    // SAFETY: 16 elements are writable.
    unsafe {
        vst1q_s16(to, vcombine_s16(a, b));
        vst1q_s16(to.add(8), vcombine_s16(c, d));
    }
}

/// Like [`super::across`].
///
/// # Safety
/// The checks of `across` have passed; the CPU has NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn across<const J: usize>(job: &Job<'_, J>, out: &mut [f32]) {
    // SAFETY: guaranteed by the caller; the instruction set is enabled here.
    unsafe { tile::across::<F32x4, J>(job, out) }
}

impl Sums for F32x4 {
    #[inline(always)]
    unsafe fn sums(numbers: &[*const i16; MOST], weights: &[*const i16; MOST], count: usize) -> Self {
        // SAFETY: `count` elements are readable through every pointer, in blocks of 16; the caller has NEON.
        unsafe {
            let mut sums = [vdupq_n_s32(0); 4];
            for i in 0..4 {
                let mut t = 0;
                while t < count {
                    sums[i] = add_products(sums[i], numbers[i].add(t), weights[i].add(t));
                    sums[i] = add_products(sums[i], numbers[i].add(t + 8), weights[i].add(t + 8));
                    t += Across::BLOCK;
                }
            }
            let [a, b, c, d] = sums;
            F32x4(vcvtq_f32_s32(vpaddq_s32(vpaddq_s32(a, b), vpaddq_s32(c, d))))
        }
    }

    #[inline(always)]
    unsafe fn store_interleaved([a, b, c]: [Self; 3], to: *mut f32) {
        // SAFETY: guaranteed by the caller.
        unsafe { vst3q_f32(to, float32x4x3_t(a.0, b.0, c.0)) }
    }
}

/// `sum` plus eight products.
///
/// # Safety
/// Eight elements are readable through both pointers; the caller has NEON.
#[inline(always)]
unsafe fn add_products(sum: int32x4_t, numbers: *const i16, weights: *const i16) -> int32x4_t {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let (numbers, weights) = (vld1q_s16(numbers), vld1q_s16(weights));
        let sum = vmlal_s16(sum, vget_low_s16(numbers), vget_low_s16(weights));
        vmlal_high_s16(sum, numbers, weights)
    }
}
