//! Four lanes with NEON.

use core::arch::aarch64::*;

use super::{Simd, Vectorized};
use crate::lanes::neon::F32x4;

/// Proof of NEON, which every supported aarch64 CPU has.
#[derive(Clone, Copy)]
pub(crate) struct Neon(());

/// Compiles `kernel` with NEON enabled.
#[target_feature(enable = "neon")]
pub(super) fn run<K: Vectorized>(kernel: K) -> K::Output {
    kernel.run(Neon(()))
}

/// Value intrinsics: the token proves that the CPU has them, and they touch no memory.
macro_rules! with_neon {
    ($body:expr) => {
        // SAFETY: a `Neon` exists only inside `run`, whose caller has checked the CPU.
        unsafe { $body }
    };
}

impl Simd for Neon {
    type F32 = F32x4;
    type Mask = uint32x4_t;

    #[inline(always)]
    fn min(self, F32x4(a): F32x4, F32x4(b): F32x4) -> F32x4 {
        F32x4(with_neon!(vminq_f32(a, b)))
    }

    #[inline(always)]
    fn max(self, F32x4(a): F32x4, F32x4(b): F32x4) -> F32x4 {
        F32x4(with_neon!(vmaxq_f32(a, b)))
    }

    #[inline(always)]
    fn sqrt(self, F32x4(a): F32x4) -> F32x4 {
        F32x4(with_neon!(vsqrtq_f32(a)))
    }

    #[inline(always)]
    fn floor(self, F32x4(a): F32x4) -> F32x4 {
        F32x4(with_neon!(vrndmq_f32(a)))
    }

    #[inline(always)]
    fn ceil(self, F32x4(a): F32x4) -> F32x4 {
        F32x4(with_neon!(vrndpq_f32(a)))
    }

    #[inline(always)]
    fn equal(self, F32x4(a): F32x4, F32x4(b): F32x4) -> uint32x4_t {
        with_neon!(vceqq_f32(a, b))
    }

    #[inline(always)]
    fn less(self, F32x4(a): F32x4, F32x4(b): F32x4) -> uint32x4_t {
        with_neon!(vcltq_f32(a, b))
    }

    #[inline(always)]
    fn less_equal(self, F32x4(a): F32x4, F32x4(b): F32x4) -> uint32x4_t {
        with_neon!(vcleq_f32(a, b))
    }

    #[inline(always)]
    fn select(self, mask: uint32x4_t, F32x4(yes): F32x4, F32x4(no): F32x4) -> F32x4 {
        F32x4(with_neon!(vbslq_f32(mask, yes, no)))
    }

    #[inline(always)]
    fn store_mask(self, mask: uint32x4_t, y: &mut [u8]) {
        // All ones or zeros per lane, narrowed to one byte each and masked to the lowest bit.
        let bytes = with_neon!({
            let halves = vmovn_u32(mask);
            let bytes = vmovn_u16(vcombine_u16(halves, halves));
            vget_lane_u32::<0>(vreinterpret_u32_u8(vand_u8(bytes, vdup_n_u8(1))))
        })
        .to_le_bytes();
        match y.first_chunk_mut::<4>() {
            Some(y) => *y = bytes,
            None => y.copy_from_slice(&bytes[..y.len()]),
        }
    }
}
