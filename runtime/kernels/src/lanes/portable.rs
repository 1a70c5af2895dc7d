//! Registers in plain Rust: used to pack weights for the instruction set of another CPU.

use half::f16;

use super::Lanes;

/// `N` elements.
#[derive(Clone, Copy)]
pub(crate) struct Portable<const N: usize>([f32; N]);

impl<const N: usize> Portable<N> {
    fn map(self, f: impl Fn(f32) -> f32) -> Self {
        Self(self.0.map(f))
    }

    fn with(self, other: Self, f: impl Fn(f32, f32) -> f32) -> Self {
        Self(std::array::from_fn(|i| f(self.0[i], other.0[i])))
    }
}

impl<const N: usize> Lanes for Portable<N> {
    const WIDTH: usize = N;
    const REGISTERS: usize = 16;

    unsafe fn splat(x: f32) -> Self {
        Self([x; N])
    }
    unsafe fn load(from: *const f32) -> Self {
        // SAFETY: the caller has N readable elements.
        Self(unsafe { from.cast::<[f32; N]>().read_unaligned() })
    }
    unsafe fn load_first(from: *const f32, count: usize) -> Self {
        // SAFETY: the caller has `count` readable elements.
        Self(std::array::from_fn(|i| if i < count { unsafe { from.add(i).read() } } else { 0.0 }))
    }
    unsafe fn load_half(from: *const f16) -> Self {
        // SAFETY: the caller has N readable elements.
        Self(unsafe { from.cast::<[f16; N]>().read_unaligned() }.map(f16::to_f32))
    }
    unsafe fn store(self, to: *mut f32) {
        // SAFETY: the caller has N writable elements.
        unsafe { to.cast::<[f32; N]>().write_unaligned(self.0) }
    }
    unsafe fn store_first(self, to: *mut f32, count: usize) {
        for (i, &x) in self.0.iter().enumerate().take(count) {
            // SAFETY: the caller has `count` writable elements.
            unsafe { to.add(i).write(x) }
        }
    }

    unsafe fn pick(self, lanes: *const u8) -> Self {
        // SAFETY: the caller has N readable indices.
        Self(std::array::from_fn(|i| self.0[usize::from(unsafe { lanes.add(i).read() })]))
    }
    fn like(self, x: f32) -> Self {
        Self([x; N])
    }
    fn add(self, other: Self) -> Self {
        self.with(other, |a, b| a + b)
    }
    fn sub(self, other: Self) -> Self {
        self.with(other, |a, b| a - b)
    }
    fn mul(self, other: Self) -> Self {
        self.with(other, |a, b| a * b)
    }
    fn div(self, other: Self) -> Self {
        self.with(other, |a, b| a / b)
    }
    fn mul_add(self, factor: Self, addend: Self) -> Self {
        Self(std::array::from_fn(|i| self.0[i].mul_add(factor.0[i], addend.0[i])))
    }
    fn at_least(self, bound: Self) -> Self {
        self.with(bound, |x, bound| if x < bound { bound } else { x })
    }
    fn at_most(self, bound: Self) -> Self {
        self.with(bound, |x, bound| if x > bound { bound } else { x })
    }
    fn abs(self) -> Self {
        self.map(f32::abs)
    }
    fn copy_sign(self, sign: Self) -> Self {
        self.with(sign, f32::copysign)
    }
    fn round(self) -> Self {
        self.map(f32::round_ties_even)
    }
    fn pow2(self) -> Self {
        self.map(f32::exp2)
    }
    fn unzip(self, next: Self) -> (Self, Self) {
        let at = |i: usize| if i < N { self.0[i] } else { next.0[i - N] };
        (Self(std::array::from_fn(|i| at(2 * i))), Self(std::array::from_fn(|i| at(2 * i + 1))))
    }
    fn if_less(self, bound: Self, yes: Self, no: Self) -> Self {
        Self(std::array::from_fn(|i| if self.0[i] < bound.0[i] { yes.0[i] } else { no.0[i] }))
    }
}
