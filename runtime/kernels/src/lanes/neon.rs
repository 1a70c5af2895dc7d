//! Four lanes of f32 with AArch64 Advanced SIMD.

use std::arch::aarch64::*;

use half::f16;

use super::Lanes;

/// A 128-bit register.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct F32x4(pub(crate) float32x4_t);

impl F32x4 {
    /// `a[LANE] * self + addend`, rounded once.
    #[inline(always)]
    pub(crate) fn mul_lane_add<const LANE: i32>(self, a: F32x4, addend: F32x4) -> F32x4 {
        // SAFETY: `self` proves NEON; LANE is in 0..4 or this does not compile.
        F32x4(unsafe { vfmaq_laneq_f32::<LANE>(addend.0, self.0, a.0) })
    }
}

impl Lanes for F32x4 {
    const WIDTH: usize = 4;
    const REGISTERS: usize = 32;
    const BY_LANE: bool = true;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller has NEON.
        F32x4(unsafe { vdupq_n_f32(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has NEON and four readable elements.
        F32x4(unsafe { vld1q_f32(from) })
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller has NEON; bit 1 of `count < 4` stands for two readable elements, bit 0 for one after them.
        F32x4(unsafe {
            let none = vdupq_n_f32(0.0);
            match (count & 2 != 0, count & 1 != 0) {
                (false, false) => none,
                (false, true) => vld1q_lane_f32::<0>(from, none),
                (true, false) => vcombine_f32(vld1_f32(from), vdup_n_f32(0.0)),
                (true, true) => vld1q_lane_f32::<2>(from.add(2), vcombine_f32(vld1_f32(from), vdup_n_f32(0.0))),
            }
        })
    }
    #[inline(always)]
    unsafe fn load_half(from: *const f16) -> Self {
        // SAFETY: the caller has NEON and four readable elements. Widening needs no half-precision arithmetic.
        F32x4(unsafe { vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(from.cast()))) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: four writable elements.
        unsafe { vst1q_f32(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        // SAFETY: bit 1 of `count < 4` stands for two writable elements, bit 0 for one after them.
        unsafe {
            match (count & 2 != 0, count & 1 != 0) {
                (false, false) => {}
                (false, true) => vst1q_lane_f32::<0>(to, self.0),
                (true, false) => vst1_f32(to, vget_low_f32(self.0)),
                (true, true) => {
                    vst1_f32(to, vget_low_f32(self.0));
                    vst1q_lane_f32::<2>(to.add(2), self.0);
                }
            }
        }
    }

    #[inline(always)]
    unsafe fn pick(self, lanes: *const u8) -> Self {
        // SAFETY: four readable indices; `self` proves NEON. Lane `i` has the bytes `4 i..4 i + 4`.
        F32x4(unsafe {
            let lanes = vcreate_u8(u64::from(lanes.cast::<u32>().read_unaligned()));
            let lanes = vmovl_u16(vget_low_u16(vmovl_u8(lanes)));
            let bytes = vmlaq_n_u32(vdupq_n_u32(0x0302_0100), lanes, 0x0404_0404);
            let picked = vqtbl1q_u8(vreinterpretq_u8_f32(self.0), vreinterpretq_u8_u32(bytes));
            vreinterpretq_f32_u8(picked)
        })
    }
    #[inline(always)]
    fn like(self, x: f32) -> Self {
        // SAFETY: `self` proves NEON, here and below.
        F32x4(unsafe { vdupq_n_f32(x) })
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x4(unsafe { vaddq_f32(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x4(unsafe { vsubq_f32(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x4(unsafe { vmulq_f32(self.0, other.0) })
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x4(unsafe { vdivq_f32(self.0, other.0) })
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x4(unsafe { vfmaq_f32(addend.0, self.0, factor.0) })
    }
    #[inline(always)]
    fn mul_add_lane<const LANE: i32>(self, factors: [f32; 4], addend: Self) -> Self {
        // SAFETY: four readable elements; `self` proves NEON.
        self.mul_lane_add::<LANE>(F32x4(unsafe { vld1q_f32(factors.as_ptr()) }), addend)
    }
    #[inline(always)]
    fn at_least(self, bound: Self) -> Self {
        // SAFETY: `self` is the proof. FMAX gives NaN when either is NaN.
        F32x4(unsafe { vmaxq_f32(bound.0, self.0) })
    }
    #[inline(always)]
    fn at_most(self, bound: Self) -> Self {
        // SAFETY: `self` is the proof. FMIN gives NaN when either is NaN.
        F32x4(unsafe { vminq_f32(bound.0, self.0) })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: `self` is the proof.
        F32x4(unsafe { vabsq_f32(self.0) })
    }
    #[inline(always)]
    fn copy_sign(self, sign: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x4(unsafe { vbslq_f32(vdupq_n_u32(1 << 31), sign.0, self.0) })
    }
    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: `self` is the proof.
        F32x4(unsafe { vrndnq_f32(self.0) })
    }
    #[inline(always)]
    fn pow2(self) -> Self {
        // SAFETY: `self` is the proof.
        F32x4(unsafe {
            let exponent = vaddq_s32(vcvtnq_s32_f32(self.0), vdupq_n_s32(127));
            vreinterpretq_f32_s32(vshlq_n_s32::<23>(exponent))
        })
    }
    #[inline(always)]
    fn unzip(self, next: Self) -> (Self, Self) {
        // SAFETY: `self` is the proof.
        unsafe { (F32x4(vuzp1q_f32(self.0, next.0)), F32x4(vuzp2q_f32(self.0, next.0))) }
    }
    #[inline(always)]
    fn if_less(self, bound: Self, yes: Self, no: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x4(unsafe { vbslq_f32(vcltq_f32(self.0, bound.0), yes.0, no.0) })
    }
}
