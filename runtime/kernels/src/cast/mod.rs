//! Converting between element types.
//!
//! | from, to          | rule                                                                 |
//! |-------------------|----------------------------------------------------------------------|
//! | f32 to f16, bf16  | nearest, halves to even; too large becomes infinite; NaN stays NaN   |
//! | f16, bf16 to f32  | exact                                                                |
//! | f32 to integer    | towards zero; too large becomes the limit of the type; NaN becomes 0 |
//! | integer to f32    | nearest, halves to even                                              |
//! | integer to integer| the low bits                                                         |
//!
//! Truth values are bytes 0 and 1: read as `u8`, written by [`nonzero`].
//!
//! Every conversion is branch-free arithmetic on one number ([`pairs`]); the loop over it is compiled
//! once for each instruction set, and the compiler turns it into vectors. So there is no `vector.rs`.

mod half_bits;
mod pairs;

#[cfg(test)]
mod tests;

use crate::isa::Isa;
use crate::parallel;
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::Pool;

pub use pairs::CastTo;

/// `y = x` in another type.
///
/// # Panics
/// If the lengths differ.
pub fn cast<From: CastTo<To>, To: Send>(isa: Isa, x: &[From], y: &mut [To], pool: &Pool) {
    assert_eq!(x.len(), y.len(), "input and output have one length");
    parallel::split(pool, y, 64, x.len(), |offset, y| {
        let x = &x[offset..][..y.len()];
        match isa {
            Isa::Scalar => convert(x, y),
            _ => dispatch(isa, Cast { x, y }),
        }
    });
}

/// 1 where `x` is not zero (NaN is not), 0 where it is.
///
/// # Panics
/// If the lengths differ.
pub fn nonzero<T: Copy + Default + PartialEq + Sync>(x: &[T], y: &mut [u8], pool: &Pool) {
    assert_eq!(x.len(), y.len(), "input and output have one length");
    parallel::split(pool, y, 64, x.len(), |offset, y| {
        for (y, &x) in y.iter_mut().zip(&x[offset..]) {
            *y = u8::from(x != T::default());
        }
    });
}

#[inline(always)]
fn convert<From: CastTo<To>, To>(x: &[From], y: &mut [To]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = x.cast();
    }
}

/// The loop, to be compiled for an instruction set.
struct Cast<'a, From, To> {
    x: &'a [From],
    y: &'a mut [To],
}

impl<From: CastTo<To>, To> Kernel for Cast<'_, From, To> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        convert(self.x, self.y);
    }
}
