//! The activations in plain Rust: the definition, and the reference that the vector versions are tested against.

use super::Activation;

/// `act(x)`. NaN stays NaN.
pub fn apply(act: Activation, x: f32) -> f32 {
    match act {
        Activation::None => x,
        Activation::Relu => at_least(x, 0.0),
        Activation::Clip { min, max } => at_most(at_least(x, min), max),
        Activation::LeakyRelu(slope) => {
            if x < 0.0 {
                slope * x
            } else {
                x
            }
        }
        Activation::HardSwish => x * (at_most(at_least(x + 3.0, 0.0), 6.0) / 6.0),
        Activation::HardSigmoid { alpha, beta } => at_most(at_least(alpha * x + beta, 0.0), 1.0),
        Activation::Sigmoid => sigmoid(x),
        Activation::Tanh => x.tanh(),
        Activation::Silu => x * sigmoid(x),
        Activation::Gelu => 0.5 * x * (1.0 + erf(x * std::f32::consts::FRAC_1_SQRT_2)),
        Activation::GeluTanh => {
            let inner = super::GELU_TANH_SCALE * (x + super::GELU_TANH_CUBIC * x * x * x);
            0.5 * x * (1.0 + inner.tanh())
        }
    }
}

/// The logistic function `1 / (1 + e^-x)`.
pub fn sigmoid(x: f32) -> f32 {
    1.0 / (1.0 + (-x).exp())
}

/// The error function, by its Taylor series in f64: `2/sqrt(pi) * sum (-1)^n x^(2n+1) / (n! (2n+1))`.
///
/// Beyond 4 the result is 1 to the last bit of f32. Up to there the alternating terms stay below 1e6, so that f64 keeps
/// ten digits of the sum.
pub fn erf(x: f32) -> f32 {
    if x.is_nan() {
        return x;
    }
    if x.abs() >= 4.0 {
        return 1f32.copysign(x);
    }
    let x = f64::from(x);
    let square = x * x;
    let (mut power, mut sum, mut n) = (x, x, 0.0);
    while power.abs() > 1e-17 * x.abs() && n < 200.0 {
        n += 1.0;
        power *= -square / n;
        sum += power / (2.0 * n + 1.0);
    }
    (sum * std::f64::consts::FRAC_2_SQRT_PI) as f32
}

/// The larger of the two; a NaN in `x` stays.
fn at_least(x: f32, bound: f32) -> f32 {
    if x < bound { bound } else { x }
}

/// The smaller of the two; a NaN in `x` stays.
fn at_most(x: f32, bound: f32) -> f32 {
    if x > bound { bound } else { x }
}
