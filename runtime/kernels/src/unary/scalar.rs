//! The functions in plain Rust.

use super::{ElementwiseFn, UnaryFn};
use crate::activation;

pub(super) fn map(f: ElementwiseFn, x: &[f32], y: &mut [f32]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = eval(f, x);
    }
}

pub(super) fn map_in_place(f: ElementwiseFn, y: &mut [f32]) {
    for y in y {
        *y = eval(f, *y);
    }
}

pub(super) fn eval(f: ElementwiseFn, x: f32) -> f32 {
    let f = match f {
        ElementwiseFn::Activation(act) => return activation::scalar::apply(act, x),
        ElementwiseFn::Unary(f) => f,
    };
    match f {
        UnaryFn::Neg => -x,
        UnaryFn::Abs => x.abs(),
        UnaryFn::Sqrt => x.sqrt(),
        UnaryFn::Exp => x.exp(),
        UnaryFn::Log => x.ln(),
        UnaryFn::Reciprocal => 1.0 / x,
        UnaryFn::Square => x * x,
        UnaryFn::Rsqrt => 1.0 / x.sqrt(),
        UnaryFn::Erf => activation::scalar::erf(x),
        UnaryFn::Floor => x.floor(),
        UnaryFn::Ceil => x.ceil(),
        UnaryFn::Round => x.round_ties_even(),
        UnaryFn::Sign if x == 0.0 || x.is_nan() => x,
        UnaryFn::Sign => 1f32.copysign(x),
    }
}
