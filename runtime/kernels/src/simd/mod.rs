//! One set of vector operations for the families that move more data than they compute.
//!
//! Elementwise, pooling, reduction and normalization kernels are limited by memory bandwidth: the same loop suits every
//! instruction set if the vector width is a parameter. Such a family writes its loop once, generic over [`Simd`], and
//! [`dispatch`] compiles it for each instruction set. Families whose inner loop depends on the register file (GEMM,
//! convolution) do not use this module.
//!
//! The registers are those of [`lanes`](crate::lanes). This module adds a token: a value of a type that implements
//! [`Simd`] proves that the CPU has the instructions, because only [`dispatch`] creates one, after the check. With the
//! token, loads and stores take slices and check their length, so the loops that use them are safe code; the compiler
//! removes the checks for slices from `chunks_exact`.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(all(target_arch = "x86_64", feature = "avx512"))]
mod avx512;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(target_arch = "arm")]
mod neon32;

use crate::isa::Isa;
use crate::lanes::Lanes;

/// The vector operations of one instruction set on `f32` lanes.
///
/// Every method is a few instructions and is inlined into the loop that uses it.
pub(crate) trait Simd: Copy + Send + Sync {
    /// A vector of [`Simd::LANES`] elements.
    type F32: Lanes;
    /// One truth value per lane.
    type Mask: Copy;
    /// Elements per vector: at most 16.
    const LANES: usize = <Self::F32 as Lanes>::WIDTH;

    /// The smaller of the two; NaN if either is NaN.
    fn min(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The larger of the two; NaN if either is NaN.
    fn max(self, a: Self::F32, b: Self::F32) -> Self::F32;
    /// The square root; NaN below zero.
    fn sqrt(self, a: Self::F32) -> Self::F32;
    /// The largest integer not above `a`.
    fn floor(self, a: Self::F32) -> Self::F32;
    /// The smallest integer not below `a`.
    fn ceil(self, a: Self::F32) -> Self::F32;

    /// `a == b`; false if either is NaN.
    fn equal(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a < b`; false if either is NaN.
    fn less(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `a <= b`; false if either is NaN.
    fn less_equal(self, a: Self::F32, b: Self::F32) -> Self::Mask;
    /// `yes` in the lanes where `mask` holds, `no` in the others.
    fn select(self, mask: Self::Mask, yes: Self::F32, no: Self::F32) -> Self::F32;
    /// Writes 1 or 0 for each of the first `min(LANES, y.len())` lanes.
    fn store_mask(self, mask: Self::Mask, y: &mut [u8]);

    /// All lanes set to `x`.
    #[inline(always)]
    fn splat(self, x: f32) -> Self::F32 {
        // SAFETY: the token proves the instruction set.
        unsafe { Self::F32::splat(x) }
    }

    /// The first `LANES` elements of `x`. Panics if there are fewer.
    #[inline(always)]
    fn load(self, x: &[f32]) -> Self::F32 {
        assert!(x.len() >= Self::LANES);
        // SAFETY: the token proves the instruction set; the slice holds `LANES` elements.
        unsafe { Self::F32::load(x.as_ptr()) }
    }

    /// All elements of `x`, fewer than `LANES`; zero in the other lanes. Panics if there are `LANES` or more.
    #[inline(always)]
    fn load_partial(self, x: &[f32]) -> Self::F32 {
        assert!(x.len() < Self::LANES);
        // SAFETY: the token proves the instruction set; only lanes inside the slice are read.
        unsafe { Self::F32::load_first(x.as_ptr(), x.len()) }
    }

    /// Like `load_partial`, with `fill` in the other lanes.
    #[inline(always)]
    fn load_or(self, x: &[f32], fill: f32) -> Self::F32 {
        let mut lanes = [fill; 16];
        lanes[..x.len()].copy_from_slice(x);
        self.load(&lanes)
    }

    /// Writes all lanes to the start of `y`. Panics if `y` is shorter.
    #[inline(always)]
    fn store(self, v: Self::F32, y: &mut [f32]) {
        assert!(y.len() >= Self::LANES);
        // SAFETY: the slice holds `LANES` elements.
        unsafe { v.store(y.as_mut_ptr()) }
    }

    /// Fills `y`, shorter than `LANES`, with the first lanes. Panics if it is not shorter.
    #[inline(always)]
    fn store_partial(self, v: Self::F32, y: &mut [f32]) {
        assert!(y.len() < Self::LANES);
        // SAFETY: only lanes inside the slice are written.
        unsafe { v.store_first(y.as_mut_ptr(), y.len()) }
    }

    /// Lane `lanes[i]` of `v` in lane `i`.
    #[inline(always)]
    fn pick(self, v: Self::F32, lanes: &[u8; 16]) -> Self::F32 {
        debug_assert!(lanes[..Self::LANES].iter().all(|&lane| usize::from(lane) < Self::LANES));
        // SAFETY: no register has more lanes than there are indices. An index out of range, which no caller passes,
        // selects an arbitrary lane or zero.
        unsafe { v.pick(lanes.as_ptr()) }
    }

    /// Applies `f` to every lane, one by one.
    #[inline(always)]
    fn each_lane(self, v: Self::F32, f: impl Fn(f32) -> f32) -> Self::F32 {
        let mut lanes = [0.0; 16];
        self.store(v, &mut lanes);
        for lane in &mut lanes[..Self::LANES] {
            *lane = f(*lane);
        }
        self.load(&lanes)
    }

    /// The sum of all lanes, added in a tree.
    #[inline(always)]
    fn sum_lanes(self, v: Self::F32) -> f32 {
        self.fold_lanes(v, |a, b| a + b)
    }

    /// All lanes combined in a tree by `f`.
    #[inline(always)]
    fn fold_lanes(self, v: Self::F32, f: impl Fn(f32, f32) -> f32) -> f32 {
        let mut lanes = [0.0; 16];
        self.store(v, &mut lanes);
        let mut width = Self::LANES;
        while width > 1 {
            width /= 2;
            for i in 0..width {
                lanes[i] = f(lanes[i], lanes[i + width]);
            }
        }
        lanes[0]
    }
}

/// A loop that can be compiled for any instruction set.
///
/// `run` and the functions it calls with the token must be `#[inline(always)]`: the instruction set is enabled on the
/// function that [`dispatch`] wraps around them, and only code inlined into it is compiled for that set.
pub(crate) trait Vectorized {
    /// What the loop returns.
    type Output;
    /// Runs the loop with the vectors of `S`.
    fn run<S: Simd>(self, simd: S) -> Self::Output;
}

/// Runs `kernel` with the vectors of `isa`.
///
/// # Panics
/// If this CPU does not have `isa`, or if it is `Isa::Scalar`: every family has a readable reference for that instead.
#[inline]
pub(crate) fn dispatch<K: Vectorized>(isa: Isa, kernel: K) -> K::Output {
    assert!(isa.is_available(), "this CPU does not have {isa}");
    match isa {
        // SAFETY: `is_available` has found AVX2, FMA and F16C on this CPU.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 => unsafe { avx2::run(kernel) },
        // SAFETY: `is_available` has found AVX-512 F, BW, DQ, VL and all that `Isa::Avx2` requires.
        #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
        Isa::Avx512 => unsafe { avx512::run(kernel) },
        // SAFETY: `is_available` has found NEON on this CPU.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { neon::run(kernel) },
        // SAFETY: `is_available` has found NEON and VFPv4 on this CPU.
        #[cfg(target_arch = "arm")]
        Isa::Neon32 => unsafe { neon32::run(kernel) },
        _ => unreachable!("{isa} has no vectors"),
    }
}

#[cfg(test)]
mod tests;
