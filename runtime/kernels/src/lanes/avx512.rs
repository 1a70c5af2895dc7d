//! Sixteen lanes of f32 with AVX-512 F, BW, DQ and VL.

use std::arch::x86_64::*;

use half::f16;

use super::Lanes;

/// A 512-bit register.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct F32x16(pub(crate) __m512);

/// The lanes whose index is below `count < 16`.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    ((1u32 << count) - 1) as __mmask16
}

impl Lanes for F32x16 {
    const WIDTH: usize = 16;
    const REGISTERS: usize = 32;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller has AVX-512.
        F32x16(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has AVX-512 and sixteen readable elements.
        F32x16(unsafe { _mm512_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        // SAFETY: masked-off lanes are not accessed, even on an unreadable page.
        F32x16(unsafe { _mm512_maskz_loadu_ps(first(count), from) })
    }
    #[inline(always)]
    unsafe fn load_half(from: *const f16) -> Self {
        // SAFETY: the caller has AVX-512 and sixteen readable elements.
        F32x16(unsafe { _mm512_cvtph_ps(_mm256_loadu_si256(from.cast())) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: sixteen writable elements.
        unsafe { _mm512_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        // SAFETY: masked-off lanes are not accessed, even on an unwritable page.
        unsafe { _mm512_mask_storeu_ps(to, first(count), self.0) }
    }

    #[inline(always)]
    unsafe fn pick(self, lanes: *const u8) -> Self {
        // SAFETY: sixteen readable indices; `self` proves AVX-512.
        F32x16(unsafe { _mm512_permutexvar_ps(_mm512_cvtepu8_epi32(_mm_loadu_si128(lanes.cast())), self.0) })
    }
    #[inline(always)]
    fn like(self, x: f32) -> Self {
        // SAFETY: `self` proves AVX-512, here and below.
        F32x16(unsafe { _mm512_set1_ps(x) })
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x16(unsafe { _mm512_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x16(unsafe { _mm512_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x16(unsafe { _mm512_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x16(unsafe { _mm512_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x16(unsafe { _mm512_fmadd_ps(self.0, factor.0, addend.0) })
    }
    #[inline(always)]
    fn at_least(self, bound: Self) -> Self {
        // SAFETY: `self` is the proof. VMAXPS gives its second operand when either is NaN.
        F32x16(unsafe { _mm512_max_ps(bound.0, self.0) })
    }
    #[inline(always)]
    fn at_most(self, bound: Self) -> Self {
        // SAFETY: `self` is the proof. VMINPS gives its second operand when either is NaN.
        F32x16(unsafe { _mm512_min_ps(bound.0, self.0) })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: `self` is the proof.
        F32x16(unsafe { _mm512_andnot_ps(_mm512_set1_ps(-0.0), self.0) })
    }
    #[inline(always)]
    fn copy_sign(self, sign: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x16(unsafe {
            let bit = _mm512_set1_ps(-0.0);
            _mm512_or_ps(_mm512_andnot_ps(bit, self.0), _mm512_and_ps(bit, sign.0))
        })
    }
    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: `self` is the proof. The scale 2^0 rounds to integers, ties to even.
        F32x16(unsafe { _mm512_roundscale_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }
    #[inline(always)]
    fn pow2(self) -> Self {
        // SAFETY: `self` is the proof.
        F32x16(unsafe {
            let exponent = _mm512_add_epi32(_mm512_cvtps_epi32(self.0), _mm512_set1_epi32(127));
            _mm512_castsi512_ps(_mm512_slli_epi32::<23>(exponent))
        })
    }
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x16(unsafe { _mm512_scalef_ps(self.0, n.0) })
    }
    #[inline(always)]
    fn unzip(self, next: Self) -> (Self, Self) {
        // SAFETY: `self` is the proof.
        unsafe {
            let even = _mm512_setr_epi32(0, 2, 4, 6, 8, 10, 12, 14, 16, 18, 20, 22, 24, 26, 28, 30);
            let odd = _mm512_add_epi32(even, _mm512_set1_epi32(1));
            let pick = |lanes| F32x16(_mm512_permutex2var_ps(self.0, lanes, next.0));
            (pick(even), pick(odd))
        }
    }
    #[inline(always)]
    fn if_less(self, bound: Self, yes: Self, no: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x16(unsafe { _mm512_mask_blend_ps(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(self.0, bound.0), no.0, yes.0) })
    }
}
