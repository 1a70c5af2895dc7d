//! Four lanes with the Advanced SIMD of 32-bit ARM.

use super::{Simd, Vectorized};
use crate::lanes::Lanes;
use crate::lanes::neon32::F32x4;

/// Proof of NEON and VFPv4.
#[derive(Clone, Copy)]
pub(crate) struct Neon32(());

/// Runs `kernel` with these registers. Nothing is enabled for the compiler: the registers' operations are assembly.
///
/// # Safety
/// The CPU has NEON and VFPv4.
pub(super) unsafe fn run<K: Vectorized>(kernel: K) -> K::Output {
    kernel.run(Neon32(()))
}

impl Simd for Neon32 {
    type F32 = F32x4;
    type Mask = F32x4;

    #[inline(always)]
    fn min(self, a: F32x4, b: F32x4) -> F32x4 {
        a.at_most(b)
    }

    #[inline(always)]
    fn max(self, a: F32x4, b: F32x4) -> F32x4 {
        a.at_least(b)
    }

    #[inline(always)]
    fn sqrt(self, a: F32x4) -> F32x4 {
        a.sqrt()
    }

    #[inline(always)]
    fn floor(self, a: F32x4) -> F32x4 {
        let nearest = a.round();
        a.if_less(nearest, nearest.sub(a.like(1.0)), nearest)
    }

    #[inline(always)]
    fn ceil(self, a: F32x4) -> F32x4 {
        let nearest = a.round();
        nearest.if_less(a, nearest.add(a.like(1.0)), nearest)
    }

    #[inline(always)]
    fn equal(self, a: F32x4, b: F32x4) -> F32x4 {
        a.equal(b)
    }

    #[inline(always)]
    fn less(self, a: F32x4, b: F32x4) -> F32x4 {
        a.less(b)
    }

    #[inline(always)]
    fn less_equal(self, a: F32x4, b: F32x4) -> F32x4 {
        a.less_equal(b)
    }

    #[inline(always)]
    fn select(self, mask: F32x4, yes: F32x4, no: F32x4) -> F32x4 {
        mask.select(yes, no)
    }

    #[inline(always)]
    fn store_mask(self, mask: F32x4, y: &mut [u8]) {
        for (y, lane) in y.iter_mut().zip(mask.lanes()) {
            *y = u8::from(lane.to_bits() != 0);
        }
    }
}
