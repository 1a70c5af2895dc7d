//! Functions of one element with parameters, in addition to the activations that kernels fuse ([ONNX
//! Elu](https://onnx.ai/onnx/operators/onnx__Elu.html), Selu, Celu, Mish, Shrink, Softplus, Softsign, Swish,
//! ThresholdedRelu), and Affine and ScaledTanh of recurrent layers.
//!
//! Each is plain arithmetic on an exponential or a hyperbolic tangent, which the vector kernels compute for a block of
//! elements at a time. Intermediate values do not overflow: the exponential's argument is never positive, or the
//! formula also holds at infinity.

use serde::{Deserialize, Serialize};
use skipstone_kernels::Isa;
use skipstone_kernels::activation::Activation;
use skipstone_kernels::copy::copy;
use skipstone_kernels::pace::Pace;
use skipstone_kernels::threads::Pool;
use skipstone_kernels::unary::{UnaryFn, activation_in_place, unary_in_place};

use super::arity::exactly;
use crate::error::OpError;
use crate::operator::axes::Axes;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Tensor};

/// Elements per block: two blocks are on the stack.
const BLOCK: usize = 256;

/// A function of one element.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub enum Curve {
    /// `alpha * x + beta`
    Affine {
        /// Slope.
        alpha: f32,
        /// Value at zero.
        beta: f32,
    },
    /// `x > alpha ? x : 0`
    ThresholdedRelu(f32),
    /// `x < -lambda ? x + bias : x > lambda ? x - bias : 0`
    Shrink {
        /// Half the width of the interval that becomes zero.
        lambda: f32,
        /// Added below, subtracted above.
        bias: f32,
    },
    /// `x / (1 + |x|)`
    Softsign,
    /// `alpha * tanh(beta * x)`
    ScaledTanh {
        /// Factor of the result.
        alpha: f32,
        /// Factor of the argument.
        beta: f32,
    },
    /// `gamma * (x > 0 ? x : alpha * (e^x - 1))`; Elu has gamma 1.
    Selu {
        /// Factor below zero.
        alpha: f32,
        /// Factor of the whole.
        gamma: f32,
    },
    /// `max(0, x) + min(0, alpha * (e^(x / alpha) - 1))`
    Celu(f32),
    /// `log(1 + e^x)`
    Softplus,
    /// `x * tanh(log(1 + e^x))`
    Mish,
    /// `x / (1 + e^(-alpha * x))`
    Swish(f32),
}

impl Curve {
    /// Its value at `x`, in f64: the definition.
    pub(super) fn at(self, x: f64) -> f64 {
        let softplus = |x: f64| x.max(0.0) + (-x.abs()).exp().ln_1p();
        match self {
            Self::ThresholdedRelu(alpha) if x > f64::from(alpha) => x,
            Self::ThresholdedRelu(_) => 0.0,
            Self::Shrink { lambda, bias } if x < -f64::from(lambda) => x + f64::from(bias),
            Self::Shrink { lambda, bias } if x > f64::from(lambda) => x - f64::from(bias),
            Self::Shrink { .. } => 0.0,
            _ if x.is_nan() => x,
            Self::Affine { alpha, beta } => f64::from(alpha) * x + f64::from(beta),
            Self::Softsign => x / (1.0 + x.abs()),
            Self::ScaledTanh { alpha, beta } => f64::from(alpha) * (f64::from(beta) * x).tanh(),
            Self::Selu { gamma, .. } if x > 0.0 => f64::from(gamma) * x,
            Self::Selu { alpha, gamma } => f64::from(gamma) * f64::from(alpha) * x.exp_m1(),
            Self::Celu(alpha) => x.max(0.0) + (f64::from(alpha) * (x / f64::from(alpha)).exp_m1()).min(0.0),
            Self::Softplus => softplus(x),
            Self::Mish => x * softplus(x).tanh(),
            Self::Swish(alpha) => x / (1.0 + (-f64::from(alpha) * x).exp()),
        }
    }

    /// Applies it to every element, unless the run is to stop.
    pub(super) fn apply(self, isa: Isa, y: &mut [f32], pool: &Pool) {
        let (mut block, pace) = ([0f32; BLOCK], Pace::of(pool));
        for y in y.chunks_mut(BLOCK) {
            if pace.stops(16 * y.len()) {
                return;
            }
            let e = &mut block[..y.len()];
            // Sets `e` to a kernel's function of `argument(x)`.
            let mut prepare = |f: UnaryFn, argument: &dyn Fn(f32) -> f32| {
                for (e, &x) in e.iter_mut().zip(&*y) {
                    *e = argument(x);
                }
                unary_in_place(isa, f, e, pool);
            };
            match self {
                Self::Affine { .. } | Self::ThresholdedRelu(_) | Self::Shrink { .. } | Self::Softsign => {}
                Self::ScaledTanh { beta, .. } => {
                    for (e, &x) in e.iter_mut().zip(&*y) {
                        *e = beta * x;
                    }
                    activation_in_place(isa, Activation::Tanh, e, pool);
                }
                Self::Selu { .. } => prepare(UnaryFn::Exp, &|x| if x > 0.0 { 0.0 } else { x }),
                Self::Celu(alpha) => prepare(UnaryFn::Exp, &|x| x / alpha),
                Self::Swish(alpha) => prepare(UnaryFn::Exp, &|x| -alpha * x),
                // Beyond 20, its hyperbolic tangent is 1.
                Self::Mish => prepare(UnaryFn::Exp, &|x| if x > 20.0 { 20.0 } else { x }),
                Self::Softplus => {
                    prepare(UnaryFn::Exp, &|x| -x.abs());
                    // log(1 + e), corrected for the rounding of 1 + e: log(u) * e / (u - 1).
                    let mut logarithms = [0f32; BLOCK];
                    let logarithms = &mut logarithms[..y.len()];
                    for (l, &e) in logarithms.iter_mut().zip(&*e) {
                        *l = 1.0 + e;
                    }
                    unary_in_place(isa, UnaryFn::Log, logarithms, pool);
                    for (e, &l) in e.iter_mut().zip(&*logarithms) {
                        let u = 1.0 + *e;
                        *e = if u == 1.0 { *e } else { l * *e / (u - 1.0) };
                    }
                }
            }
            for (y, &e) in y.iter_mut().zip(&*e) {
                let x = *y;
                *y = match self {
                    Self::ThresholdedRelu(alpha) if x > alpha => x,
                    Self::ThresholdedRelu(_) => 0.0,
                    Self::Shrink { lambda, bias } if x < -lambda => x + bias,
                    Self::Shrink { lambda, bias } if x > lambda => x - bias,
                    Self::Shrink { .. } => 0.0,
                    _ if x.is_nan() => x,
                    Self::Affine { alpha, beta } => alpha * x + beta,
                    Self::Softsign => x / (1.0 + x.abs()),
                    Self::ScaledTanh { alpha, .. } => alpha * e,
                    Self::Selu { gamma, .. } if x > 0.0 => gamma * x,
                    Self::Selu { alpha, gamma } => gamma * alpha * (e - 1.0),
                    Self::Celu(alpha) => x.max(0.0) + (alpha * (e - 1.0)).min(0.0),
                    Self::Softplus => x.max(0.0) + e,
                    // tanh(log(1 + e)) = n / (n + 2) with n = e (e + 2).
                    Self::Mish => x * (e * (e + 2.0) / (e * (e + 2.0) + 2.0)),
                    Self::Swish(_) => x / (1.0 + e),
                };
            }
        }
    }
}

impl Operator for Curve {
    fn name(&self) -> &str {
        match self {
            Self::Affine { .. } => "Affine",
            Self::ThresholdedRelu(_) => "ThresholdedRelu",
            Self::Shrink { .. } => "Shrink",
            Self::Softsign => "Softsign",
            Self::ScaledTanh { .. } => "ScaledTanh",
            Self::Selu { gamma: 1.0, .. } => "Elu",
            Self::Selu { .. } => "Selu",
            Self::Celu(_) => "Celu",
            Self::Softplus => "Softplus",
            Self::Mish => "Mish",
            Self::Swish(_) => "Swish",
        }
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        match x.dtype {
            DType::F32 => Ok(vec![(*x).clone()]),
            got => Err(OpError::Type { index: 0, got, want: "f32" }),
        }
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: format!("curve_f32_{}", cx.isa), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let (curve, isa) = (*self, cx.isa);
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let y: &mut [f32] = io.output(0)?;
            copy(io.input_bytes(0)?, bytemuck::cast_slice_mut(y), &io.pace())?;
            curve.apply(isa, y, io.pool());
            Ok(())
        }))
    }
}

impl Semantics for Curve {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let values = x.elements::<f32>().ok_or(OpError::Operand(0))?;
        Ok(vec![Tensor::collected(x.fact().clone(), values.iter().map(|&x| self.at(f64::from(x)) as f32))?])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        Axes::elementwise(inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, assert_close, check};

    const CURVES: [Curve; 12] = [
        Curve::Affine { alpha: 0.5, beta: -0.25 },
        Curve::ThresholdedRelu(0.7),
        Curve::Shrink { lambda: 1.0, bias: 0.5 },
        Curve::Softsign,
        Curve::ScaledTanh { alpha: 1.5, beta: 0.5 },
        Curve::Selu { alpha: 1.3, gamma: 1.0 },
        Curve::Selu { alpha: 1.673_263_2, gamma: 1.050_701 },
        Curve::Celu(0.5),
        Curve::Celu(-0.5),
        Curve::Softplus,
        Curve::Mish,
        Curve::Swish(1.702),
    ];

    #[test]
    fn every_curve_agrees_with_its_definition() {
        let mut random = Random(41);
        for curve in CURVES {
            for len in [0, 1, 7, 300] {
                check(curve, &[random.floats(&[len])], 1e-6);
            }
        }
    }

    #[test]
    fn no_magnitude_overflows() {
        let places = [-f32::INFINITY, -1e30, -200.0, -100.0, -88.0, -20.0, -1e-6, 0.0, 1e-6, 20.0, 88.0, 200.0, 1e30];
        let x = Tensor::from_slice(&[14], &[&places[..], &[f32::INFINITY]].concat()).unwrap();
        for curve in CURVES {
            // If the formula gives -inf / inf or 0 * inf, the definition is NaN too.
            check(curve, std::slice::from_ref(&x), 1e-6);
        }
        let y = check(Curve::Softplus, std::slice::from_ref(&x), 1e-6);
        let y = y[0].elements::<f32>().unwrap();
        assert!(y[2] == 0.0 && y[3] > 3.7e-44 && y[11] == 200.0 && y[13] == f32::INFINITY, "{y:?}");
    }

    /// Values of the formulas in f64 at -2, -0.5, 0.5 and 2.
    #[test]
    fn values_are_those_of_the_specification() {
        let x = Tensor::from_slice(&[4], &[-2f32, -0.5, 0.5, 2.0]).unwrap();
        let wanted: [(Curve, [f32; 4]); 8] = [
            (Curve::Celu(0.5), [-0.490_842_2, -0.316_060_3, 0.5, 2.0]),
            (
                Curve::Selu { alpha: 1.673_263_2, gamma: 1.050_701 },
                [-1.520_166_9, -0.691_758_2, 0.525_350_5, 2.101_402],
            ),
            (Curve::Shrink { lambda: 1.0, bias: 0.5 }, [-1.5, 0.0, 0.0, 1.5]),
            (Curve::Softplus, [0.126_928, 0.474_077, 0.974_077, 2.126_928]),
            (Curve::Mish, [-0.252_501_5, -0.220_742_5, 0.375_245_2, 1.943_959]),
            (Curve::ThresholdedRelu(0.7), [0.0, 0.0, 0.0, 2.0]),
            (Curve::Softsign, [-0.666_666_7, -0.333_333_3, 0.333_333_3, 0.666_666_7]),
            (Curve::Swish(1.702), [-0.064_341_4, -0.149_611_6, 0.350_388_4, 1.935_658_6]),
        ];
        for (curve, wanted) in wanted {
            let want = Tensor::from_slice(&[4], &wanted).unwrap();
            assert_close(&check(curve, std::slice::from_ref(&x), 1e-6)[0], &want, 2e-6, curve.name());
        }
    }
}
