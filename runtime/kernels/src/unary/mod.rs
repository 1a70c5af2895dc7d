//! Elementwise functions of one tensor: `y[i] = f(x[i])`.
//!
//! Used for activations that could not be fused into the previous kernel, and for the arithmetic of normalization
//! layers that were exported as single operators. Limited by memory bandwidth: two streams, a few operations per
//! element.
//!
//! The exponential, the error function and the activations have the accuracy documented in
//! [`activation`](crate::activation); the other functions are correctly rounded (`Log` to one unit in the last place)
//! in every instruction set. NaN gives NaN everywhere; infinities and subnormals follow IEEE 754,
//! except that the vectors of 32-bit ARM take subnormals for zeros.

mod scalar;
mod vector;

#[cfg(test)]
mod tests;

use crate::activation::Activation;
use crate::isa::Isa;
use crate::parallel;
use crate::simd::dispatch;
use crate::threads::Pool;

/// A function of one element.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum UnaryFn {
    /// `-x`
    Neg,
    /// `|x|`
    Abs,
    /// The square root; NaN below zero.
    Sqrt,
    /// `e^x`
    Exp,
    /// The natural logarithm; NaN below zero, minus infinity at zero.
    Log,
    /// `1 / x`
    Reciprocal,
    /// `x * x`
    Square,
    /// `1 / sqrt(x)`
    Rsqrt,
    /// The error function.
    Erf,
    /// The largest integer not above `x`.
    Floor,
    /// The smallest integer not below `x`.
    Ceil,
    /// The nearest integer, ties to even.
    Round,
    /// -1, 0 or 1; NaN for NaN.
    Sign,
}

impl UnaryFn {
    /// Every function.
    pub const ALL: [UnaryFn; 13] = [
        UnaryFn::Neg,
        UnaryFn::Abs,
        UnaryFn::Sqrt,
        UnaryFn::Exp,
        UnaryFn::Log,
        UnaryFn::Reciprocal,
        UnaryFn::Square,
        UnaryFn::Rsqrt,
        UnaryFn::Erf,
        UnaryFn::Floor,
        UnaryFn::Ceil,
        UnaryFn::Round,
        UnaryFn::Sign,
    ];
}

/// The functions that [`vector`] and [`scalar`] implement: an activation or another function.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ElementwiseFn {
    Activation(Activation),
    Unary(UnaryFn),
}

/// `y = act(x)`. Panics if the lengths differ.
pub fn activation(isa: Isa, act: Activation, x: &[f32], y: &mut [f32], pool: &Pool) {
    map(isa, ElementwiseFn::Activation(act), x, y, pool);
}

/// `y = act(y)`
pub fn activation_in_place(isa: Isa, act: Activation, y: &mut [f32], pool: &Pool) {
    map_in_place(isa, ElementwiseFn::Activation(act), y, pool);
}

/// `y = f(x)`. Panics if the lengths differ.
pub fn unary(isa: Isa, f: UnaryFn, x: &[f32], y: &mut [f32], pool: &Pool) {
    map(isa, ElementwiseFn::Unary(f), x, y, pool);
}

/// `y = f(y)`
pub fn unary_in_place(isa: Isa, f: UnaryFn, y: &mut [f32], pool: &Pool) {
    map_in_place(isa, ElementwiseFn::Unary(f), y, pool);
}

fn map(isa: Isa, f: ElementwiseFn, x: &[f32], y: &mut [f32], pool: &Pool) {
    assert_eq!(x.len(), y.len(), "input and output lengths differ");
    parallel::split(pool, y, 64, work(f, x.len()), |offset, y| {
        let x = &x[offset..][..y.len()];
        match isa {
            Isa::Scalar => scalar::map(f, x, y),
            _ => dispatch(isa, vector::Map { f, x: Some(x), y }),
        }
    });
}

fn map_in_place(isa: Isa, f: ElementwiseFn, y: &mut [f32], pool: &Pool) {
    let work = work(f, y.len());
    parallel::split(pool, y, 64, work, |_, y| map_slice_in_place(isa, f, y));
}

/// The work of a function of `len` elements. A logarithm, computed one by one, takes about as long as moving 16.
fn work(f: ElementwiseFn, len: usize) -> usize {
    len.saturating_mul(if matches!(f, ElementwiseFn::Unary(UnaryFn::Log)) { 16 } else { 1 })
}

/// One thread's share of `map_in_place`.
pub(crate) fn map_slice_in_place(isa: Isa, f: ElementwiseFn, y: &mut [f32]) {
    match isa {
        Isa::Scalar => scalar::map_in_place(f, y),
        _ => dispatch(isa, vector::Map { f, x: None, y }),
    }
}
