//! Sixteen lanes with AVX-512.

use core::arch::x86_64::*;

use super::{Simd, Vectorized};
use crate::lanes::avx512::F32x16;

/// Proof of AVX-512 F, BW, DQ and VL, and of everything that [`Avx2`](super::avx2::Avx2) proves.
#[derive(Clone, Copy)]
pub(crate) struct Avx512(());

/// Compiles `kernel` with AVX-512 enabled.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) fn run<K: Vectorized>(kernel: K) -> K::Output {
    kernel.run(Avx512(()))
}

/// Value intrinsics: the token proves that the CPU has them, and they touch no memory.
macro_rules! with_avx512 {
    ($body:expr) => {
        // SAFETY: an `Avx512` exists only inside `run`, whose caller has checked the CPU.
        unsafe { $body }
    };
}

/// The mask of the first `n` lanes.
#[inline(always)]
fn first(n: usize) -> __mmask16 {
    // `n.min(16)` ones: shifting a u32 by at most 16 cannot overflow.
    ((1u32 << n.min(16)) - 1) as __mmask16
}

impl Simd for Avx512 {
    type F32 = F32x16;
    type Mask = __mmask16;

    #[inline(always)]
    fn min(self, F32x16(a): F32x16, F32x16(b): F32x16) -> F32x16 {
        // The instruction returns `b` if either is NaN: only a NaN in `a` must be restored.
        F32x16(with_avx512!({
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a);
            _mm512_mask_mov_ps(_mm512_min_ps(a, b), nan, a)
        }))
    }

    #[inline(always)]
    fn max(self, F32x16(a): F32x16, F32x16(b): F32x16) -> F32x16 {
        F32x16(with_avx512!({
            let nan = _mm512_cmp_ps_mask::<_CMP_UNORD_Q>(a, a);
            _mm512_mask_mov_ps(_mm512_max_ps(a, b), nan, a)
        }))
    }

    #[inline(always)]
    fn sqrt(self, F32x16(a): F32x16) -> F32x16 {
        F32x16(with_avx512!(_mm512_sqrt_ps(a)))
    }

    #[inline(always)]
    fn floor(self, F32x16(a): F32x16) -> F32x16 {
        F32x16(with_avx512!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_NEG_INF | _MM_FROUND_NO_EXC }>(a)))
    }

    #[inline(always)]
    fn ceil(self, F32x16(a): F32x16) -> F32x16 {
        F32x16(with_avx512!(_mm512_roundscale_ps::<{ _MM_FROUND_TO_POS_INF | _MM_FROUND_NO_EXC }>(a)))
    }

    #[inline(always)]
    fn equal(self, F32x16(a): F32x16, F32x16(b): F32x16) -> __mmask16 {
        with_avx512!(_mm512_cmp_ps_mask::<_CMP_EQ_OQ>(a, b))
    }

    #[inline(always)]
    fn less(self, F32x16(a): F32x16, F32x16(b): F32x16) -> __mmask16 {
        with_avx512!(_mm512_cmp_ps_mask::<_CMP_LT_OQ>(a, b))
    }

    #[inline(always)]
    fn less_equal(self, F32x16(a): F32x16, F32x16(b): F32x16) -> __mmask16 {
        with_avx512!(_mm512_cmp_ps_mask::<_CMP_LE_OQ>(a, b))
    }

    #[inline(always)]
    fn select(self, mask: __mmask16, F32x16(yes): F32x16, F32x16(no): F32x16) -> F32x16 {
        F32x16(with_avx512!(_mm512_mask_mov_ps(no, mask, yes)))
    }

    #[inline(always)]
    fn store_mask(self, mask: __mmask16, y: &mut [u8]) {
        let bytes = with_avx512!(_mm_maskz_set1_epi8(mask, 1));
        // SAFETY: the mask selects only bytes inside the slice, and the others are not accessed.
        unsafe { _mm_mask_storeu_epi8(y.as_mut_ptr().cast(), first(y.len()), bytes) }
    }
}
