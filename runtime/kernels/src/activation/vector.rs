//! The activations on registers of any width.
//!
//! The polynomials are interpolations at Chebyshev nodes, computed with 40 digits and rounded to f32. The error given
//! in each comment is the largest relative error of the rounded coefficients, without the rounding of the evaluation.

use std::f32::consts::FRAC_2_SQRT_PI;

use super::Activation;
use crate::lanes::Lanes;

/// `act(x)`. The match is meant to be hoisted out of the caller's loop.
#[inline(always)]
pub(crate) fn apply<L: Lanes>(act: Activation, x: L) -> L {
    let (zero, one, half) = (x.like(0.0), x.like(1.0), x.like(0.5));
    match act {
        Activation::None => x,
        Activation::Relu => x.at_least(zero),
        Activation::Clip { min, max } => x.at_least(x.like(min)).at_most(x.like(max)),
        Activation::LeakyRelu(slope) => x.if_less(zero, x.mul(x.like(slope)), x),
        Activation::HardSwish => hard_swish(x),
        Activation::HardSigmoid { alpha, beta } => x.mul_add(x.like(alpha), x.like(beta)).at_least(zero).at_most(one),
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => tanh(x),
        Activation::Silu => x.mul(sigmoid(x)),
        Activation::Gelu => x.mul(half).mul(one.add(erf(x.mul(x.like(std::f32::consts::FRAC_1_SQRT_2))))),
        Activation::GeluTanh => {
            let cubic = x.mul(x).mul_add(x.like(super::GELU_TANH_CUBIC), one).mul(x);
            x.mul(half).mul(one.add(tanh(cubic.mul(x.like(super::GELU_TANH_SCALE)))))
        }
    }
}

/// `x * min(max(x + 3, 0), 6) / 6`
#[inline(always)]
pub(crate) fn hard_swish<L: Lanes>(x: L) -> L {
    let gate = x.add(x.like(3.0)).at_least(x.like(0.0)).at_most(x.like(6.0));
    x.mul(gate.mul(x.like(1.0 / 6.0)))
}

/// `e^x`: 0 below the smallest subnormal, infinity above the largest finite value.
///
/// `e^x = 2^n e^r` with integer `n` and `|r| <= ln(2)/2`, where `e^r = 1 + r + r^2 p(r)` within 1e-8. The power of two
/// is applied as two factors, so that neither leaves the normal range while the product does.
#[inline(always)]
pub(crate) fn exp<L: Lanes>(x: L) -> L {
    // ln 2 in two parts, so that n times the first is exact.
    const LN_2_HIGH: f32 = 0.693_359_4;
    const LN_2_LOW: f32 = -2.121_944_4e-4;
    let x = x.at_least(x.like(-105.0)).at_most(x.like(89.0));
    let n = x.mul(x.like(std::f32::consts::LOG2_E)).round();
    let r = n.mul_add(x.like(-LN_2_HIGH), x);
    let r = n.mul_add(x.like(-LN_2_LOW), r);
    let p = polynomial(r, &[1.392_692_7e-3, 8.363_774e-3, 4.166_655e-2, 0.166_665_73, 0.5]);
    let e = p.mul_add(r.mul(r), r).add(r.like(1.0));
    let half = n.mul(n.like(0.5)).round();
    e.mul(half.pow2()).mul(n.sub(half).pow2())
}

/// `1 / (1 + e^-x)`
#[inline(always)]
pub(crate) fn sigmoid<L: Lanes>(x: L) -> L {
    let one = x.like(1.0);
    one.div(one.add(exp(x.mul(x.like(-1.0)))))
}

/// `tanh x`: up to 0.625 the odd polynomial `x + x^3 p(x^2)` within 2e-8, beyond it `1 - 2 / (e^2x + 1)`.
#[inline(always)]
pub(crate) fn tanh<L: Lanes>(x: L) -> L {
    let (one, two) = (x.like(1.0), x.like(2.0));
    let magnitude = x.abs();
    let square = x.mul(x);
    let p = polynomial(square, &[-6.096_714e-3, 2.099_718e-2, -5.385_090_8e-2, 0.133_327_7, -0.333_333_28]);
    let small = p.mul(square).mul_add(x, x);
    let large = one.sub(two.div(exp(magnitude.mul(two)).add(one))).copy_sign(x);
    magnitude.if_less(x.like(0.625), small, large)
}

/// The error function: up to 1, `x p(x^2)` within 6e-8; beyond it `1 - e^q(|x|)`, where `q` is the logarithm of the
/// complement on 1..4 (5e-8 of the result); at 4 and above the result is 1.
#[inline(always)]
pub(crate) fn erf<L: Lanes>(x: L) -> L {
    let magnitude = x.abs();
    let p = polynomial(
        x.mul(x),
        &[-5.648_06e-4, 4.921_762e-3, -2.671_505_5e-2, 0.112_803_17, -0.376_123_43, FRAC_2_SQRT_PI],
    );
    let q = polynomial(
        magnitude.at_most(x.like(4.0)),
        &[
            -1.327_236_2e-5,
            3.169_370_2e-4,
            -3.432_351_4e-3,
            2.260_477_3e-2,
            -0.103_281_12,
            -0.639_141_26,
            -1.125_893_6,
            -7.658_978e-4,
        ],
    );
    let large = x.like(1.0).sub(exp(q)).copy_sign(x);
    magnitude.if_less(x.like(1.0), p.mul(x), large)
}

/// `((c[0] x + c[1]) x + c[2]) ...`
#[inline(always)]
fn polynomial<L: Lanes, const N: usize>(x: L, coefficients: &[f32; N]) -> L {
    let mut sum = x.like(coefficients[0]);
    for &coefficient in &coefficients[1..] {
        sum = sum.mul_add(x, x.like(coefficient));
    }
    sum
}
