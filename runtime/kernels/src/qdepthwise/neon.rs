//! Depthwise rows for NEON, 16 channels at a time: four taps with `sdot` or `usdot`, otherwise one with 16-bit
//! products.
//!
//! As in the matrix products of bytes, for `sdot` 128 is subtracted from activations to make them signed, and the
//! packed offsets compensate for that.

use core::arch::aarch64::*;
use core::arch::asm;

use super::tile::{Block, OutputRow, Sums, Widths, row};
use crate::requantize::Requantize;

/// # Safety
/// As for [`RowFn`](super::tile::RowFn); the CPU has NEON with dot products.
#[target_feature(enable = "neon,dotprod")]
pub(super) unsafe fn dot(of: &OutputRow<'_>) {
    // SAFETY: guaranteed by the caller; the instructions are enabled here.
    unsafe { row::<Dot<true>>(of) }
}

/// # Safety
/// As for [`RowFn`](super::tile::RowFn); the CPU has NEON with products of 8-bit matrices.
#[target_feature(enable = "neon,dotprod,i8mm")]
pub(super) unsafe fn i8mm(of: &OutputRow<'_>) {
    // SAFETY: as for `dot`.
    unsafe { row::<Dot<false>>(of) }
}

/// # Safety
/// As for [`RowFn`](super::tile::RowFn); the CPU has NEON.
#[target_feature(enable = "neon")]
pub(super) unsafe fn plain(of: &OutputRow<'_>) {
    // SAFETY: as for `dot`.
    unsafe { row::<Plain>(of) }
}

/// All blocks are 16 wide.
impl<S: Sums> Widths for S {
    const GROUP: usize = S::GROUP;

    #[inline(always)]
    unsafe fn compute(block: &Block<'_>, _width: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe { block.compute::<S>() }
    }
}

/// Sixteen sums, with `sdot` on activations minus 128 (`FLIPPED`) or `usdot` on unchanged activations.
#[derive(Clone, Copy)]
struct Dot<const FLIPPED: bool>([int32x4_t; 4]);

impl<const FLIPPED: bool> Dot<FLIPPED> {
    /// # Safety
    /// The CPU has the instructions.
    #[inline(always)]
    unsafe fn add(mut sums: int32x4_t, a: uint8x16_t, w: int8x16_t) -> int32x4_t {
        // SAFETY: value instructions, which the CPU has as the caller guarantees.
        unsafe {
            if FLIPPED {
                asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sums, in(vreg) a, in(vreg) w,
                    options(pure, nomem, nostack, preserves_flags));
            } else {
                asm!("usdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sums, in(vreg) a, in(vreg) w,
                    options(pure, nomem, nostack, preserves_flags));
            }
        }
        sums
    }
}

impl<const FLIPPED: bool> Sums for Dot<FLIPPED> {
    const WIDTH: usize = 16;
    const GROUP: usize = 4;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has the instructions.
        Self([unsafe { vdupq_n_s32(0) }; 4])
    }

    #[inline(always)]
    unsafe fn add_products(self, taps: *const *const u8, channel: usize, weights: *const i8) -> Self {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let mut x = [vdupq_n_u8(0); 4];
            for (i, x) in x.iter_mut().enumerate() {
                let bytes = vld1q_u8((*taps.add(i)).add(channel));
                *x = if FLIPPED { veorq_u8(bytes, vdupq_n_u8(0x80)) } else { bytes };
            }
            // Interleaves the bytes of two taps, then of four.
            let low_ab = vreinterpretq_u16_u8(vzip1q_u8(x[0], x[1]));
            let high_ab = vreinterpretq_u16_u8(vzip2q_u8(x[0], x[1]));
            let low_cd = vreinterpretq_u16_u8(vzip1q_u8(x[2], x[3]));
            let high_cd = vreinterpretq_u16_u8(vzip2q_u8(x[2], x[3]));
            let fours = [
                vzip1q_u16(low_ab, low_cd),
                vzip2q_u16(low_ab, low_cd),
                vzip1q_u16(high_ab, high_cd),
                vzip2q_u16(high_ab, high_cd),
            ];
            let mut sums = self.0;
            for (i, sum) in sums.iter_mut().enumerate() {
                *sum = Self::add(*sum, vreinterpretq_u8_u16(fours[i]), vld1q_s8(weights.add(i * 16)));
            }
            Self(sums)
        }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, offsets: *const i32, scales: *const f32, by: &Requantize, to: *mut u8) {
        // SAFETY: guaranteed by the caller.
        unsafe { store_bytes(self.0, offsets, scales, by, to) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i32) {
        // SAFETY: guaranteed by the caller.
        unsafe { store(self.0, to) }
    }
}

/// Sixteen sums, with 16-bit products.
#[derive(Clone, Copy)]
struct Plain([int32x4_t; 4]);

impl Sums for Plain {
    const WIDTH: usize = 16;
    const GROUP: usize = 1;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has the instructions.
        Self([unsafe { vdupq_n_s32(0) }; 4])
    }

    #[inline(always)]
    unsafe fn add_products(self, taps: *const *const u8, channel: usize, weights: *const i8) -> Self {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let (x, w) = (vld1q_u8((*taps).add(channel)), vld1q_s8(weights));
            let low = vreinterpretq_s16_u16(vmovl_u8(vget_low_u8(x)));
            let high = vreinterpretq_s16_u16(vmovl_high_u8(x));
            let (low_w, high_w) = (vmovl_s8(vget_low_s8(w)), vmovl_high_s8(w));
            let sums = self.0;
            Self([
                vmlal_s16(sums[0], vget_low_s16(low), vget_low_s16(low_w)),
                vmlal_high_s16(sums[1], low, low_w),
                vmlal_s16(sums[2], vget_low_s16(high), vget_low_s16(high_w)),
                vmlal_high_s16(sums[3], high, high_w),
            ])
        }
    }

    #[inline(always)]
    unsafe fn store_bytes(self, offsets: *const i32, scales: *const f32, by: &Requantize, to: *mut u8) {
        // SAFETY: guaranteed by the caller.
        unsafe { store_bytes(self.0, offsets, scales, by, to) }
    }

    #[inline(always)]
    unsafe fn store(self, to: *mut i32) {
        // SAFETY: guaranteed by the caller.
        unsafe { store(self.0, to) }
    }
}

/// # Safety
/// The CPU has NEON; 16 offsets and scales are readable, `to` is writable for 16 bytes.
#[inline(always)]
unsafe fn store_bytes(sums: [int32x4_t; 4], offsets: *const i32, scales: *const f32, by: &Requantize, to: *mut u8) {
    let (low, high) = by.bounds();
    // SAFETY: guaranteed by the caller.
    unsafe {
        let mut words = [vdup_n_s16(0); 4];
        for (i, words) in words.iter_mut().enumerate() {
            let sum = vaddq_s32(sums[i], vld1q_s32(offsets.add(i * 4)));
            let value = vmulq_f32(vcvtq_f32_s32(sum), vld1q_f32(scales.add(i * 4)));
            let value = vminq_f32(vmaxq_f32(value, vdupq_n_f32(low)), vdupq_n_f32(high));
            *words = vqmovn_s32(vaddq_s32(vcvtnq_s32_f32(value), vdupq_n_s32(by.zero.into())));
        }
        let (low, high) = (vcombine_s16(words[0], words[1]), vcombine_s16(words[2], words[3]));
        vst1q_u8(to, vcombine_u8(vqmovun_s16(low), vqmovun_s16(high)));
    }
}

/// # Safety
/// The CPU has NEON; `to` is writable for 16 elements.
#[inline(always)]
unsafe fn store(sums: [int32x4_t; 4], to: *mut i32) {
    for (i, sum) in sums.into_iter().enumerate() {
        // SAFETY: guaranteed by the caller.
        unsafe { vst1q_s32(to.add(i * 4), sum) }
    }
}
