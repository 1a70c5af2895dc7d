//! Converting between element types.
//!
//! | from, to          | rule                                                                 |
//! |-------------------|----------------------------------------------------------------------|
//! | f32 to f16, bf16  | nearest, ties to even; too large becomes infinite; NaN stays NaN     |
//! | f16, bf16 to f32  | exact                                                                |
//! | f32 to integer    | toward zero; too large becomes the limit of the type; NaN becomes 0  |
//! | integer to f32    | nearest, ties to even                                                |
//! | integer to integer| the low bits                                                         |
//!
//! Booleans are bytes 0 and 1: read as `u8`, written by [`nonzero`].
//!
//! Every conversion is branch-free arithmetic on one element (`pairs`). The loop over it is compiled once for each
//! instruction set, and the compiler vectorizes it, so there is no `vector.rs`.

mod half_bits;
mod pairs;

#[cfg(test)]
mod tests;

use crate::isa::Isa;
use crate::parallel;
use crate::simd::{Simd, Vectorized, dispatch};
use crate::threads::Pool;

pub use pairs::CastTo;

/// Converts `x` to another type.
///
/// # Panics
/// If the lengths differ.
pub fn cast<From: CastTo<To>, To: Send>(isa: Isa, x: &[From], y: &mut [To], pool: &Pool) {
    assert_eq!(x.len(), y.len(), "input and output lengths differ");
    parallel::split(pool, y, 64, x.len(), |offset, y| {
        let x = &x[offset..][..y.len()];
        match isa {
            Isa::Scalar => convert(x, y),
            _ => dispatch(isa, Cast { x, y }),
        }
    });
}

/// Writes 1 where `x` is nonzero or NaN, and 0 where it is zero.
///
/// # Panics
/// If the lengths differ.
pub fn nonzero<T: Copy + Default + PartialEq + Sync>(x: &[T], y: &mut [u8], pool: &Pool) {
    assert_eq!(x.len(), y.len(), "input and output lengths differ");
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

impl<From: CastTo<To>, To> Vectorized for Cast<'_, From, To> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _: S) {
        convert(self.x, self.y);
    }
}
