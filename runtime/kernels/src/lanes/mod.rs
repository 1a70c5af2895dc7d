//! The vector registers that kernels are written with: one type per instruction set, all with the same operations.
//!
//! A microkernel is always unsafe code, because it walks raw pointers without checks. Code that is the same for every
//! instruction set (the epilogue, the activation polynomials, the Winograd transforms) is written once, generic over
//! [`Lanes`], and inlined into functions that enable the instruction set; code that differs (how an element of A is
//! multiplied by a row of B) is written per instruction set.
//!
//! A value of a `Lanes` type proves that the CPU has the instructions: only `unsafe` functions create such values, so
//! arithmetic on them is safe.

#[cfg(target_arch = "x86_64")]
pub(crate) mod avx2;
#[cfg(all(target_arch = "x86_64", feature = "avx512"))]
pub(crate) mod avx512;
#[cfg(target_arch = "aarch64")]
pub(crate) mod neon;
#[cfg(target_arch = "arm")]
pub(crate) mod neon32;
#[cfg(feature = "foreign")]
pub(crate) mod portable;

use half::f16;

/// An element type that weights are stored in.
pub(crate) trait Stored: Copy {
    /// Loads the `WIDTH` elements at `from`, widened to f32.
    ///
    /// # Safety
    /// The CPU has the instruction set of `L`, and the caller is compiled for it; `from` is readable for `WIDTH`
    /// elements.
    unsafe fn load<L: Lanes>(from: *const Self) -> L;
}

impl Stored for f32 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const f32) -> L {
        // SAFETY: guaranteed by the caller.
        unsafe { L::load(from) }
    }
}

impl Stored for f16 {
    #[inline(always)]
    unsafe fn load<L: Lanes>(from: *const f16) -> L {
        // SAFETY: guaranteed by the caller.
        unsafe { L::load_half(from) }
    }
}

/// A register of `WIDTH` f32 lanes.
pub(crate) trait Lanes: Copy {
    /// Lanes of the register.
    const WIDTH: usize;
    /// Registers of this type that the CPU has.
    const REGISTERS: usize;
    /// Whether a multiply-add takes a lane of a register as its factor.
    const BY_LANE: bool = false;

    /// All lanes `x`.
    ///
    /// # Safety
    /// The CPU has the instruction set, and the caller is compiled for it. This applies to every function that creates
    /// a value.
    unsafe fn splat(x: f32) -> Self;
    /// Loads the `WIDTH` elements at `from`.
    ///
    /// # Safety
    /// As for `splat`; `from` is readable for `WIDTH` elements, at any alignment of f32.
    unsafe fn load(from: *const f32) -> Self;
    /// Loads `count < WIDTH` elements into the first lanes; the other lanes are zero. Reads no memory past `count`
    /// elements.
    ///
    /// # Safety
    /// As for `splat`; `from` is readable for `count` elements.
    unsafe fn load_first(from: *const f32, count: usize) -> Self;
    /// Loads the `WIDTH` half-precision elements at `from`, widened.
    ///
    /// # Safety
    /// As for `splat`; `from` is readable for `WIDTH` elements.
    unsafe fn load_half(from: *const f16) -> Self;
    /// Writes all lanes.
    ///
    /// # Safety
    /// `to` is writable for `WIDTH` elements.
    unsafe fn store(self, to: *mut f32);
    /// Writes the first `count < WIDTH` lanes and touches no other memory.
    ///
    /// # Safety
    /// `to` is writable for `count` elements.
    unsafe fn store_first(self, to: *mut f32, count: usize);

    /// Lane `lanes[i]` of `self` in lane `i`.
    ///
    /// # Safety
    /// `lanes` is readable for `WIDTH` indices below `WIDTH`.
    unsafe fn pick(self, lanes: *const u8) -> Self;
    /// All lanes `x`; safe because `self` is the proof.
    fn like(self, x: f32) -> Self;
    /// `self + other`
    fn add(self, other: Self) -> Self;
    /// `self - other`
    fn sub(self, other: Self) -> Self;
    /// `self * other`
    fn mul(self, other: Self) -> Self;
    /// `self / other`
    fn div(self, other: Self) -> Self;
    /// `self * factor + addend`, rounded once.
    fn mul_add(self, factor: Self, addend: Self) -> Self;
    /// `self * factors[LANE] + addend`, rounded once; `LANE` is below 4.
    #[inline(always)]
    fn mul_add_lane<const LANE: i32>(self, factors: [f32; 4], addend: Self) -> Self {
        self.mul_add(self.like(factors[LANE as usize]), addend)
    }
    /// The larger of `self` and `bound`; a NaN in `self` stays, `bound` is not NaN.
    fn at_least(self, bound: Self) -> Self;
    /// The smaller of `self` and `bound`; a NaN in `self` stays, `bound` is not NaN.
    fn at_most(self, bound: Self) -> Self;
    /// `|self|`
    fn abs(self) -> Self;
    /// The magnitude of `self` with the sign of `sign`.
    fn copy_sign(self, sign: Self) -> Self;
    /// The nearest integer, ties to even.
    fn round(self) -> Self;
    /// 2 to the power of `self`, for integers `self` in -126..=127; unspecified where `self` is NaN.
    fn pow2(self) -> Self;
    /// `self * 2^n` for integers `n` in -252..=254: as two factors, so that neither leaves the normal range while the
    /// product does.
    #[inline(always)]
    fn scale(self, n: Self) -> Self {
        let half = n.mul(n.like(0.5)).round();
        self.mul(half.pow2()).mul(n.sub(half).pow2())
    }
    /// The lanes of `self` followed by `next` with even index, and those with odd index.
    fn unzip(self, next: Self) -> (Self, Self);
    /// `self < bound ? yes : no`; `no` where either is NaN.
    fn if_less(self, bound: Self, yes: Self, no: Self) -> Self;
}
