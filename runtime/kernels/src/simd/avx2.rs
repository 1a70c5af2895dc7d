//! Eight lanes with AVX2 and FMA.

use core::arch::x86_64::*;

use super::{Simd, Vectorized};
use crate::lanes::avx2::F32x8;

/// Proof of AVX2, FMA and F16C.
#[derive(Clone, Copy)]
pub(crate) struct Avx2(());

/// Compiles `kernel` with AVX2, FMA and F16C enabled.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) fn run<K: Vectorized>(kernel: K) -> K::Output {
    kernel.run(Avx2(()))
}

/// Value intrinsics: the token proves that the CPU has them, and they touch no memory.
macro_rules! with_avx2 {
    ($body:expr) => {
        // SAFETY: an `Avx2` exists only inside `run`, whose caller has checked the CPU.
        unsafe { $body }
    };
}

impl Simd for Avx2 {
    type F32 = F32x8;
    type Mask = __m256;

    #[inline(always)]
    fn min(self, F32x8(a): F32x8, F32x8(b): F32x8) -> F32x8 {
        // The instruction returns `b` if either is NaN: only a NaN in `a` must be restored.
        F32x8(with_avx2!(_mm256_blendv_ps(_mm256_min_ps(a, b), a, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a))))
    }

    #[inline(always)]
    fn max(self, F32x8(a): F32x8, F32x8(b): F32x8) -> F32x8 {
        F32x8(with_avx2!(_mm256_blendv_ps(_mm256_max_ps(a, b), a, _mm256_cmp_ps::<_CMP_UNORD_Q>(a, a))))
    }

    #[inline(always)]
    fn sqrt(self, F32x8(a): F32x8) -> F32x8 {
        F32x8(with_avx2!(_mm256_sqrt_ps(a)))
    }

    #[inline(always)]
    fn floor(self, F32x8(a): F32x8) -> F32x8 {
        F32x8(with_avx2!(_mm256_floor_ps(a)))
    }

    #[inline(always)]
    fn ceil(self, F32x8(a): F32x8) -> F32x8 {
        F32x8(with_avx2!(_mm256_ceil_ps(a)))
    }

    #[inline(always)]
    fn equal(self, F32x8(a): F32x8, F32x8(b): F32x8) -> __m256 {
        with_avx2!(_mm256_cmp_ps::<_CMP_EQ_OQ>(a, b))
    }

    #[inline(always)]
    fn less(self, F32x8(a): F32x8, F32x8(b): F32x8) -> __m256 {
        with_avx2!(_mm256_cmp_ps::<_CMP_LT_OQ>(a, b))
    }

    #[inline(always)]
    fn less_equal(self, F32x8(a): F32x8, F32x8(b): F32x8) -> __m256 {
        with_avx2!(_mm256_cmp_ps::<_CMP_LE_OQ>(a, b))
    }

    #[inline(always)]
    fn select(self, mask: __m256, F32x8(yes): F32x8, F32x8(no): F32x8) -> F32x8 {
        F32x8(with_avx2!(_mm256_blendv_ps(no, yes, mask)))
    }

    #[inline(always)]
    fn store_mask(self, mask: __m256, y: &mut [u8]) {
        // -1 or 0 per lane, narrowed to bytes with saturation, then without the sign.
        let bytes = with_avx2!({
            let words = _mm256_castps_si256(mask);
            let halves = _mm_packs_epi32(_mm256_castsi256_si128(words), _mm256_extracti128_si256::<1>(words));
            let bytes = _mm_packs_epi16(halves, halves);
            _mm_cvtsi128_si64(_mm_and_si128(bytes, _mm_set1_epi8(1)))
        })
        .to_le_bytes();
        match y.first_chunk_mut::<8>() {
            Some(y) => *y = bytes,
            None => y.copy_from_slice(&bytes[..y.len()]),
        }
    }
}
