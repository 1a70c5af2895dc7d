//! The activations on registers of any width.
//!
//! The polynomials are interpolations at Chebyshev nodes, computed with 40 digits and rounded to f32. The error given
//! in each comment is the largest relative error of the rounded coefficients, without the rounding of the evaluation.

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
/// `e^x = 2^n e^r` with integer `n` and `|r| <= ln(2)/2`, where `e^r = 1 + r + r^2 p(r)` within 1e-8.
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
    e.scale(n)
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

/// The error function: `x p(x^2) / q(x^2)` within 2e-8 up to 3.92, where the quotient reaches 1 in f32, as the function
/// does a little later. A fit of least squares whose weights level the relative error.
#[allow(clippy::approx_constant, reason = "the last coefficient of p is that of the fit, not 2 / sqrt pi")]
#[inline(always)]
pub(crate) fn erf<L: Lanes>(x: L) -> L {
    let x = x.at_least(x.like(-3.92)).at_most(x.like(3.92));
    let square = x.mul(x);
    let p = polynomial(
        square,
        &[2.025_913_8e-6, 2.846_863_4e-4, 3.808_110_5e-3, 5.287_528_8e-2, 0.191_549_15, 1.128_379_1],
    );
    let q = polynomial(square, &[3.783_178_5e-5, 1.170_712_9e-3, 1.505_498_8e-2, 0.114_559_144, 0.503_088_7, 1.0]);
    x.mul(p).div(q).at_least(x.like(-1.0)).at_most(x.like(1.0))
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
