//! Eight lanes of f32 with AVX2 and FMA.

use std::arch::x86_64::*;

use half::f16;

use super::Lanes;

/// A 256-bit register.
#[derive(Clone, Copy)]
#[repr(transparent)]
pub(crate) struct F32x8(pub(crate) __m256);

impl F32x8 {
    /// The lanes whose index is below `count`.
    ///
    /// # Safety
    /// The CPU has AVX2.
    #[inline(always)]
    unsafe fn first(count: usize) -> __m256i {
        // SAFETY: value instructions of AVX2.
        unsafe { _mm256_cmpgt_epi32(_mm256_set1_epi32(count as i32), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7)) }
    }
}

impl Lanes for F32x8 {
    const WIDTH: usize = 8;
    const REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        // SAFETY: the caller has AVX2.
        F32x8(unsafe { _mm256_set1_ps(x) })
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has AVX2 and eight readable elements.
        F32x8(unsafe { _mm256_loadu_ps(from) })
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        // SAFETY: masked-off lanes are not accessed, even on an unreadable page.
        F32x8(unsafe { _mm256_maskload_ps(from, Self::first(count)) })
    }
    #[inline(always)]
    unsafe fn load_half(from: *const f16) -> Self {
        // SAFETY: the caller has F16C and eight readable elements.
        F32x8(unsafe { _mm256_cvtph_ps(_mm_loadu_si128(from.cast())) })
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: eight writable elements.
        unsafe { _mm256_storeu_ps(to, self.0) }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        // SAFETY: masked-off lanes are not accessed, even on an unwritable page.
        unsafe { _mm256_maskstore_ps(to, Self::first(count), self.0) }
    }

    #[inline(always)]
    unsafe fn pick(self, lanes: *const u8) -> Self {
        // SAFETY: eight readable indices; `self` proves AVX2.
        F32x8(unsafe { _mm256_permutevar8x32_ps(self.0, _mm256_cvtepu8_epi32(_mm_loadl_epi64(lanes.cast()))) })
    }
    #[inline(always)]
    fn like(self, x: f32) -> Self {
        // SAFETY: `self` proves AVX2 and FMA, here and below.
        F32x8(unsafe { _mm256_set1_ps(x) })
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x8(unsafe { _mm256_add_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x8(unsafe { _mm256_sub_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x8(unsafe { _mm256_mul_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x8(unsafe { _mm256_div_ps(self.0, other.0) })
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x8(unsafe { _mm256_fmadd_ps(self.0, factor.0, addend.0) })
    }
    #[inline(always)]
    fn at_least(self, bound: Self) -> Self {
        // SAFETY: `self` is the proof. MAXPS gives its second operand when either is NaN.
        F32x8(unsafe { _mm256_max_ps(bound.0, self.0) })
    }
    #[inline(always)]
    fn at_most(self, bound: Self) -> Self {
        // SAFETY: `self` is the proof. MINPS gives its second operand when either is NaN.
        F32x8(unsafe { _mm256_min_ps(bound.0, self.0) })
    }
    #[inline(always)]
    fn abs(self) -> Self {
        // SAFETY: `self` is the proof.
        F32x8(unsafe { _mm256_andnot_ps(_mm256_set1_ps(-0.0), self.0) })
    }
    #[inline(always)]
    fn copy_sign(self, sign: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x8(unsafe {
            let bit = _mm256_set1_ps(-0.0);
            _mm256_or_ps(_mm256_andnot_ps(bit, self.0), _mm256_and_ps(bit, sign.0))
        })
    }
    #[inline(always)]
    fn round(self) -> Self {
        // SAFETY: `self` is the proof.
        F32x8(unsafe { _mm256_round_ps::<{ _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC }>(self.0) })
    }
    #[inline(always)]
    fn pow2(self) -> Self {
        // SAFETY: `self` is the proof.
        F32x8(unsafe {
            let exponent = _mm256_add_epi32(_mm256_cvtps_epi32(self.0), _mm256_set1_epi32(127));
            _mm256_castsi256_ps(_mm256_slli_epi32::<23>(exponent))
        })
    }
    #[inline(always)]
    fn unzip(self, next: Self) -> (Self, Self) {
        // SAFETY: `self` is the proof. The shuffles work within 128 bits; the permutation orders their results.
        unsafe {
            let order = |x| F32x8(_mm256_castpd_ps(_mm256_permute4x64_pd::<0xd8>(_mm256_castps_pd(x))));
            (order(_mm256_shuffle_ps::<0x88>(self.0, next.0)), order(_mm256_shuffle_ps::<0xdd>(self.0, next.0)))
        }
    }
    #[inline(always)]
    fn if_less(self, bound: Self, yes: Self, no: Self) -> Self {
        // SAFETY: `self` is the proof.
        F32x8(unsafe { _mm256_blendv_ps(no.0, yes.0, _mm256_cmp_ps::<_CMP_LT_OQ>(self.0, bound.0)) })
    }
}
