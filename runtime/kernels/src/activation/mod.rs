//! Activation functions: the definition of each, and a vector version.
//!
//! A kernel applies its activation before it stores (see [`Epilogue`](crate::epilogue::Epilogue)), and the elementwise
//! kernels apply the same functions on their own, so they are defined here once. [`scalar`] is the definition; `vector`
//! gives the same values within about two units in the last place.

pub mod scalar;

use serde::{Deserialize, Serialize};
pub(crate) mod vector;

/// `sqrt(2 / pi)`, in the tanh form of GELU.
pub(crate) const GELU_TANH_SCALE: f32 = 0.797_884_6;
/// The cubic coefficient in the tanh form of GELU.
pub(crate) const GELU_TANH_CUBIC: f32 = 0.044_715;

/// An elementwise function that follows a layer.
#[derive(Clone, Copy, PartialEq, Debug, Default, Serialize, Deserialize)]
pub enum Activation {
    /// `x`
    #[default]
    None,
    /// `max(x, 0)`
    Relu,
    /// `min(max(x, min), max)`; ReLU6 is `min` 0 and `max` 6. The bounds are not NaN.
    Clip {
        /// Lower bound; may be minus infinity.
        min: f32,
        /// Upper bound; may be infinity.
        max: f32,
    },
    /// `x < 0 ? slope * x : x`
    LeakyRelu(f32),
    /// `x * min(max(x + 3, 0), 6) / 6`
    HardSwish,
    /// `min(max(alpha * x + beta, 0), 1)`
    HardSigmoid {
        /// Slope.
        alpha: f32,
        /// Value at zero.
        beta: f32,
    },
    /// `1 / (1 + e^-x)`
    Sigmoid,
    /// `tanh x`
    Tanh,
    /// `x / (1 + e^-x)`
    Silu,
    /// `x/2 * (1 + erf(x / sqrt 2))`
    Gelu,
    /// `x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))`
    GeluTanh,
}

#[cfg(test)]
mod tests;
