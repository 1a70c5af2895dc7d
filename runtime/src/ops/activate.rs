//! Activation functions as separate steps, if no producing kernel fused them ([ONNX
//! Relu](https://onnx.ai/onnx/operators/onnx__Relu.html), Clip, LeakyRelu, HardSwish, HardSigmoid, Sigmoid, Tanh, Gelu,
//! and Swish/SiLU as exporters write it).

use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use skipstone_kernels::activation::{Activation, scalar};
use skipstone_kernels::pace::Pace;
use skipstone_kernels::unary;

use super::arity::exactly;
use crate::error::OpError;
use crate::operator::axes::Axes;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Element, Fact, Tensor};

/// `y = activation(x)`, elementwise.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Activate {
    /// The function.
    pub activation: Activation,
}

/// Name of an activation, as `inspect` prints it.
#[must_use]
pub fn activation_name(activation: Activation) -> &'static str {
    match activation {
        Activation::None => "Identity",
        Activation::Relu => "Relu",
        Activation::Clip { .. } => "Clip",
        Activation::LeakyRelu(_) => "LeakyRelu",
        Activation::HardSwish => "HardSwish",
        Activation::HardSigmoid { .. } => "HardSigmoid",
        Activation::Sigmoid => "Sigmoid",
        Activation::Tanh => "Tanh",
        Activation::Silu => "Silu",
        Activation::Gelu => "Gelu",
        Activation::GeluTanh => "GeluTanh",
    }
}

/// A half-precision type that is computed in f32.
trait Half: Element {
    fn widen(self) -> f32;
    fn narrow(value: f32) -> Self;
}

impl Half for f16 {
    fn widen(self) -> f32 {
        self.to_f32()
    }
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

impl Half for bf16 {
    fn widen(self) -> f32 {
        self.to_f32()
    }
    fn narrow(value: f32) -> Self {
        Self::from_f32(value)
    }
}

fn apply_half<T: Half>(activation: Activation, x: &[T], y: &mut [T], pace: &Pace<'_>) -> Result<(), OpError> {
    for (y, x) in y.iter_mut().zip(x) {
        // As long as an exponential.
        pace.spend(32)?;
        *y = T::narrow(scalar::apply(activation, x.widen()));
    }
    Ok(())
}

fn wrong_type(got: DType) -> OpError {
    OpError::Type { index: 0, got, want: "f32, f16 or bf16" }
}

impl Operator for Activate {
    fn name(&self) -> &str {
        activation_name(self.activation)
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        match x.dtype {
            DType::F32 | DType::F16 | DType::Bf16 => Ok(vec![(*x).clone()]),
            got => Err(wrong_type(got)),
        }
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let kernel = match x.dtype {
            DType::F32 => format!("activation_f32_{}", cx.isa),
            dtype => format!("activation_{dtype}"),
        };
        Ok(Choice { kernel, ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let (isa, activation) = (cx.isa, self.activation);
        Ok(match x.dtype {
            DType::F32 => Box::new(move |io: &mut Io<'_, '_>| {
                unary::activation(isa, activation, io.input(0)?, io.output(0)?, io.pool());
                Ok(())
            }),
            DType::F16 => Box::new(move |io: &mut Io<'_, '_>| {
                apply_half::<f16>(activation, io.input(0)?, io.output(0)?, &io.pace())
            }),
            DType::Bf16 => Box::new(move |io: &mut Io<'_, '_>| {
                apply_half::<bf16>(activation, io.input(0)?, io.output(0)?, &io.pace())
            }),
            got => return Err(wrong_type(got)),
        })
    }
}

impl Semantics for Activate {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let mut y = Tensor::try_zeros(x.fact().clone())?;
        if let (Some(x), Some(y)) = (x.elements::<f32>(), y.elements_mut::<f32>()) {
            for (y, &x) in y.iter_mut().zip(x) {
                *y = scalar::apply(self.activation, x);
            }
        } else if let (Some(x), Some(y)) = (x.elements::<f16>(), y.elements_mut()) {
            apply_half(self.activation, x, y, &Pace::free())?;
        } else if let (Some(x), Some(y)) = (x.elements::<bf16>(), y.elements_mut()) {
            apply_half(self.activation, x, y, &Pace::free())?;
        } else {
            return Err(wrong_type(x.dtype()));
        }
        Ok(vec![y])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        Axes::elementwise(inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    #[test]
    fn every_activation_agrees_with_its_definition() {
        let mut random = Random(1);
        let activations = [
            Activation::Relu,
            Activation::Clip { min: -0.5, max: 2.0 },
            Activation::LeakyRelu(0.1),
            Activation::HardSwish,
            Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
            Activation::Sigmoid,
            Activation::Tanh,
            Activation::Silu,
            Activation::Gelu,
            Activation::GeluTanh,
        ];
        for activation in activations {
            for _ in 0..4 {
                let dims = random.dims(2);
                let x = random.floats(&dims);
                check(Activate { activation }, &[x], 1e-6);
                let x = random.tensor(DType::F16, &dims);
                check(Activate { activation }, &[x], 0.0);
            }
        }
    }

    #[test]
    fn integers_are_refused() {
        let fact = Random(1).tensor(DType::I64, &[3]).fact().clone();
        assert!(Activate { activation: Activation::Relu }.infer(&[&fact]).is_err());
    }
}
