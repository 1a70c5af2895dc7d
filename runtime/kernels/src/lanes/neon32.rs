//! Four lanes of f32 with the Advanced SIMD of 32-bit ARM.
//!
//! Stable Rust has no intrinsics for it, and no way to compile a function with it, so every operation is inline assembly.
//! A register of four lanes has no type either: it is a pair of 64-bit registers, each of which the compiler knows as an
//! f64, so that it places and spills them like any others. An operation on four lanes is then two instructions, which
//! take as long as one on 128 bits on the cores that have no 64-bit mode and on the small ones that do. Products, where
//! instructions matter most, are in [`gemm`](crate::gemm) with whole registers.
//!
//! This arithmetic flushes subnormal numbers, as operands and as results, to zero; NaNs lose their payload. Quotients and
//! roots are computed by the scalar unit, and are exact.

use std::arch::asm;

use half::f16;

use super::Lanes;

/// Four lanes: the first two and the last two. A value proves that the CPU has NEON and VFPv4.
#[derive(Clone, Copy)]
#[repr(C)]
pub(crate) struct F32x4(f64, f64);

/// One instruction on 64-bit registers: its template, in which `{y}` is the result, and its operands.
macro_rules! instruction {
    ($template:literal; $($operands:tt)+) => {{
        let y: f64;
        // SAFETY: an instruction on registers alone. Only unsafe functions, whose callers have NEON and VFPv4, create the
        // values that they are applied to.
        unsafe {
            asm!(
                ".fpu neon-vfpv4",
                $template,
                y = lateout(dreg) y,
                $($operands)+,
                options(pure, nomem, nostack, preserves_flags)
            );
        }
        y
    }};
}

impl F32x4 {
    /// `f` of both halves.
    #[inline(always)]
    fn map(self, f: impl Fn(f64) -> f64) -> Self {
        F32x4(f(self.0), f(self.1))
    }

    /// `f` of the halves of both.
    #[inline(always)]
    fn with(self, other: Self, f: impl Fn(f64, f64) -> f64) -> Self {
        F32x4(f(self.0, other.0), f(self.1, other.1))
    }

    /// The lanes one by one.
    #[inline(always)]
    pub(crate) fn lanes(self) -> [f32; 4] {
        let mut lanes = [0.0; 4];
        // SAFETY: four writable elements.
        unsafe { self.store(lanes.as_mut_ptr()) }
        lanes
    }

    /// `yes` where the bits of `self` are set, `no` where they are not.
    #[inline(always)]
    pub(crate) fn select(self, yes: Self, no: Self) -> Self {
        let half = |mut mask: f64, yes: f64, no: f64| {
            // SAFETY: an instruction on registers alone; the operands prove NEON.
            unsafe {
                asm!(".fpu neon-vfpv4", "vbsl {mask}, {yes}, {no}",
                    mask = inout(dreg) mask, yes = in(dreg) yes, no = in(dreg) no,
                    options(pure, nomem, nostack, preserves_flags));
            }
            mask
        };
        F32x4(half(self.0, yes.0, no.0), half(self.1, yes.1, no.1))
    }

    /// All bits of the lanes where `self == other`.
    #[inline(always)]
    pub(crate) fn equal(self, other: Self) -> Self {
        self.with(other, |a, b| instruction!("vceq.f32 {y}, {a}, {b}"; a = in(dreg) a, b = in(dreg) b))
    }

    /// All bits of the lanes where `self < other`.
    #[inline(always)]
    pub(crate) fn less(self, other: Self) -> Self {
        self.with(other, |a, b| instruction!("vcgt.f32 {y}, {b}, {a}"; a = in(dreg) a, b = in(dreg) b))
    }

    /// All bits of the lanes where `self <= other`.
    #[inline(always)]
    pub(crate) fn less_equal(self, other: Self) -> Self {
        self.with(other, |a, b| instruction!("vcge.f32 {y}, {b}, {a}"; a = in(dreg) a, b = in(dreg) b))
    }

    /// The square root of each lane; NaN below zero.
    #[inline(always)]
    pub(crate) fn sqrt(self) -> Self {
        self.map(|mut a| {
            // SAFETY: instructions on registers alone, of every VFP unit.
            unsafe {
                asm!("vsqrt.f32 s0, s0", "vsqrt.f32 s1, s1", inout("d0") a,
                    options(pure, nomem, nostack, preserves_flags));
            }
            a
        })
    }
}

impl Lanes for F32x4 {
    const WIDTH: usize = 4;
    const REGISTERS: usize = 16;

    #[inline(always)]
    unsafe fn splat(x: f32) -> Self {
        let x = instruction!("vdup.32 {y}, {x}"; x = in(reg) x.to_bits());
        F32x4(x, x)
    }
    #[inline(always)]
    unsafe fn load(from: *const f32) -> Self {
        let (low, high);
        // SAFETY: the caller has NEON and four readable elements; these loads need the alignment of f32.
        unsafe {
            asm!(
                "vldr {low}, [{from}]",
                "vldr {high}, [{from}, #8]",
                from = in(reg) from,
                low = lateout(dreg) low,
                high = lateout(dreg) high,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        F32x4(low, high)
    }
    #[inline(always)]
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        let mut lanes = [0.0; 4];
        // SAFETY: the caller has `count < 4` readable elements; `lanes` has four.
        unsafe {
            std::ptr::copy_nonoverlapping(from, lanes.as_mut_ptr(), count);
            Self::load(lanes.as_ptr())
        }
    }
    #[inline(always)]
    unsafe fn load_half(from: *const f16) -> Self {
        let (low, high);
        // SAFETY: the caller has VFPv4 and four readable elements; this load needs the alignment of f16.
        unsafe {
            asm!(
                ".fpu neon-vfpv4",
                "vld1.16 {{d0}}, [{from}]",
                "vcvt.f32.f16 q0, d0",
                from = in(reg) from,
                out("d0") low,
                out("d1") high,
                options(pure, readonly, nostack, preserves_flags)
            );
        }
        F32x4(low, high)
    }
    #[inline(always)]
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: four writable elements; these stores need the alignment of f32.
        unsafe {
            asm!(
                "vstr {low}, [{to}]",
                "vstr {high}, [{to}, #8]",
                to = in(reg) to,
                low = in(dreg) self.0,
                high = in(dreg) self.1,
                options(nostack, preserves_flags)
            );
        }
    }
    #[inline(always)]
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        let lanes = self.lanes();
        // SAFETY: the caller has `count < 4` writable elements.
        unsafe { std::ptr::copy_nonoverlapping(lanes.as_ptr(), to, count) }
    }

    #[inline(always)]
    unsafe fn pick(self, lanes: *const u8) -> Self {
        let from = self.lanes();
        // SAFETY: four readable indices.
        let picked: [f32; 4] = std::array::from_fn(|i| from[usize::from(unsafe { lanes.add(i).read() }) % 4]);
        // SAFETY: `self` proves NEON.
        unsafe { Self::load(picked.as_ptr()) }
    }
    #[inline(always)]
    fn like(self, x: f32) -> Self {
        // SAFETY: `self` proves NEON.
        unsafe { Self::splat(x) }
    }
    #[inline(always)]
    fn add(self, other: Self) -> Self {
        self.with(other, |a, b| instruction!("vadd.f32 {y}, {a}, {b}"; a = in(dreg) a, b = in(dreg) b))
    }
    #[inline(always)]
    fn sub(self, other: Self) -> Self {
        self.with(other, |a, b| instruction!("vsub.f32 {y}, {a}, {b}"; a = in(dreg) a, b = in(dreg) b))
    }
    #[inline(always)]
    fn mul(self, other: Self) -> Self {
        self.with(other, |a, b| instruction!("vmul.f32 {y}, {a}, {b}"; a = in(dreg) a, b = in(dreg) b))
    }
    #[inline(always)]
    fn div(self, other: Self) -> Self {
        self.with(other, |mut a, b| {
            // SAFETY: instructions on registers alone, of every VFP unit.
            unsafe {
                asm!("vdiv.f32 s0, s0, s2", "vdiv.f32 s1, s1, s3", inout("d0") a, in("d1") b,
                    options(pure, nomem, nostack, preserves_flags));
            }
            a
        })
    }
    #[inline(always)]
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        let fused = |a: f64, b: f64, mut sum: f64| {
            // SAFETY: an instruction on registers alone; the operands prove NEON and VFPv4.
            unsafe {
                asm!(".fpu neon-vfpv4", "vfma.f32 {sum}, {a}, {b}",
                    sum = inout(dreg) sum, a = in(dreg) a, b = in(dreg) b,
                    options(pure, nomem, nostack, preserves_flags));
            }
            sum
        };
        F32x4(fused(self.0, factor.0, addend.0), fused(self.1, factor.1, addend.1))
    }
    #[inline(always)]
    fn at_least(self, bound: Self) -> Self {
        // VMAX gives NaN when either is NaN.
        self.with(bound, |a, b| instruction!("vmax.f32 {y}, {a}, {b}"; a = in(dreg) a, b = in(dreg) b))
    }
    #[inline(always)]
    fn at_most(self, bound: Self) -> Self {
        // VMIN gives NaN when either is NaN.
        self.with(bound, |a, b| instruction!("vmin.f32 {y}, {a}, {b}"; a = in(dreg) a, b = in(dreg) b))
    }
    #[inline(always)]
    fn abs(self) -> Self {
        self.map(|a| instruction!("vabs.f32 {y}, {a}"; a = in(dreg) a))
    }
    #[inline(always)]
    fn copy_sign(self, sign: Self) -> Self {
        // -0 has the bit of the sign alone.
        self.like(-0.0).select(sign, self)
    }
    #[inline(always)]
    fn round(self) -> Self {
        // Adding 2^23 to a smaller number leaves no place for bits below 1, and rounds ties to even; larger numbers have
        // none.
        let (size, first) = (self.abs(), self.like(8_388_608.0));
        size.if_less(first, size.add(first).sub(first).copy_sign(self), self)
    }
    #[inline(always)]
    fn pow2(self) -> Self {
        // The integer 127 in all lanes.
        let bias = self.like(f32::from_bits(127));
        let exponent = self
            .map(|a| instruction!("vcvt.s32.f32 {y}, {a}"; a = in(dreg) a))
            .with(bias, |a, b| instruction!("vadd.i32 {y}, {a}, {b}"; a = in(dreg) a, b = in(dreg) b));
        exponent.map(|a| instruction!("vshl.i32 {y}, {a}, #23"; a = in(dreg) a))
    }
    #[inline(always)]
    fn unzip(self, next: Self) -> (Self, Self) {
        let pair = |mut a: f64, mut b: f64| {
            // SAFETY: an instruction on registers alone; `self` proves NEON.
            unsafe {
                asm!(".fpu neon-vfpv4", "vtrn.32 {a}, {b}", a = inout(dreg) a, b = inout(dreg) b,
                    options(pure, nomem, nostack, preserves_flags));
            }
            (a, b)
        };
        let ((even, odd), (next_even, next_odd)) = (pair(self.0, self.1), pair(next.0, next.1));
        (F32x4(even, next_even), F32x4(odd, next_odd))
    }
    #[inline(always)]
    fn if_less(self, bound: Self, yes: Self, no: Self) -> Self {
        self.less(bound).select(yes, no)
    }
}
