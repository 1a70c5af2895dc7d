//! The peak speed of a core.

use std::hint::black_box;

use skipstone_kernels::isa::Isa;

use crate::clock::best;

/// GFLOP/s of independent multiply-adds on registers.
pub fn peak(isa: Isa) -> f64 {
    const STEPS: u32 = 100_000;
    let per_step = match isa {
        Isa::Avx512 => 12.0 * 16.0,
        Isa::Avx2 => 12.0 * 8.0,
        _ => 12.0 * 4.0,
    };
    let seconds = best(|| match isa {
        // SAFETY: the instruction set is available.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx512 => unsafe { x86::avx512(STEPS) },
        // SAFETY: the instruction set is available.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { x86::avx2(STEPS) },
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => aarch64::neon(STEPS),
        _ => {}
    });
    2.0 * per_step * f64::from(STEPS) / seconds / 1e9
}

#[cfg(target_arch = "x86_64")]
mod x86 {
    use std::arch::x86_64::*;

    use super::black_box;

    #[target_feature(enable = "avx2,fma")]
    pub fn avx2(steps: u32) {
        let factor = _mm256_set1_ps(black_box(0.999));
        let mut sums = [_mm256_set1_ps(black_box(1.0)); 12];
        for _ in 0..steps {
            sums = sums.map(|sum| _mm256_fmadd_ps(sum, factor, factor));
        }
        black_box(sums);
    }

    #[target_feature(enable = "avx512f")]
    pub fn avx512(steps: u32) {
        let factor = _mm512_set1_ps(black_box(0.999));
        let mut sums = [_mm512_set1_ps(black_box(1.0)); 12];
        for _ in 0..steps {
            sums = sums.map(|sum| _mm512_fmadd_ps(sum, factor, factor));
        }
        black_box(sums);
    }
}

#[cfg(target_arch = "aarch64")]
mod aarch64 {
    use std::arch::aarch64::*;

    use super::black_box;

    pub fn neon(steps: u32) {
        // SAFETY: NEON is part of this target.
        unsafe {
            let factor = vdupq_n_f32(black_box(0.999));
            let mut sums = [vdupq_n_f32(black_box(1.0)); 12];
            for _ in 0..steps {
                sums = sums.map(|sum| vfmaq_f32(factor, sum, factor));
            }
            black_box(sums);
        }
    }
}
