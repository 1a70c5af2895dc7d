//! DequantizeLinear: quantized integers to floats
//! ([ONNX DequantizeLinear](https://onnx.ai/onnx/operators/onnx__DequantizeLinear.html)).
//!
//! `y = (x - zero) * scale`. uint8 with one scale uses a vector kernel.

use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::Pace;
use skipstone_kernels::qmap::{self, Bytes};

use super::arity::exactly;
use super::number::{Number, filled, words};
use super::quantized::{Channels, by_quantized, check_scales, dequantize, is_quantized};
use crate::error::OpError;
use crate::operator::axes::Axes;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Tensor};

/// Operands: integers of 8, 16 or 32 bits, scale, zero point of their type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Dequantize {
    /// The axis of the scales, if there are several.
    pub axis: usize,
}

impl Dequantize {
    fn channels(&self, inputs: &[&Fact]) -> Result<Channels, OpError> {
        let [x, scale, zero] = exactly::<3, _>(inputs)?;
        if !is_quantized(x.dtype) && x.dtype != DType::I32 {
            return Err(OpError::Type { index: 0, got: x.dtype, want: "u8, i8, u16, i16 or i32" });
        }
        Channels::new(self.axis, x, scale, zero, x.dtype)
    }
}

fn dequantize_all<T: Number>(
    channels: &Channels,
    x: &[T],
    scale: &[f32],
    zero: &[T],
    y: &mut [f32],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    check_scales(scale)?;
    channels.each(y.len(), pace, &mut |part, channel| {
        for (y, &x) in y[part.clone()].iter_mut().zip(&x[part]) {
            *y = dequantize(x, scale[channel], zero[channel]);
        }
    })
}

impl Operator for Dequantize {
    fn name(&self) -> &str {
        "Dequantize"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        self.channels(inputs)?;
        Ok(vec![Fact::new(DType::F32, inputs[0].shape.clone())])
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let channels = self.channels(&cx.inputs)?;
        if let Some(scale) = cx.constants.get(1).copied().flatten() {
            check_scales(words(scale)?)?;
        }
        let kernel = match (cx.inputs[0].dtype, channels.channels) {
            (DType::U8, 1) => format!("dequantize_u8_{}", cx.isa),
            (dtype, _) => format!("dequantize_{dtype}"),
        };
        Ok(Choice { kernel, ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let (channels, from, isa) = (self.channels(&cx.inputs)?, cx.inputs[0].dtype, cx.isa);
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let scale: &[f32] = io.input(1)?;
            if from == DType::U8
                && let (&[scale], &[zero]) = (scale, io.input::<u8>(2)?)
            {
                check_scales(&[scale])?;
                let x = Bytes { bytes: io.input(0)?, zero };
                qmap::dequantize(isa, x, scale, io.output(0)?, io.pool());
                return Ok(());
            }
            by_quantized!(from, T => {
                dequantize_all::<T>(&channels, io.input(0)?, scale, io.input(2)?, io.output(0)?, &io.pace())
            }, else Err(OpError::Operand(0)))
        }))
    }
}

impl Semantics for Dequantize {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x, scale, zero] = exactly::<3, _>(inputs)?;
        let channels = self.channels(&[x.fact(), scale.fact(), zero.fact()])?;
        let fact = Fact::new(DType::F32, x.shape().clone());
        let y = by_quantized!(x.dtype(), T => filled::<f32>(fact, |y| {
            dequantize_all::<T>(&channels, words(x)?, words(scale)?, words(zero)?, y, &Pace::free())
        }), else return Err(OpError::Operand(0)))?;
        Ok(vec![y])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        match inputs.get(1).is_some_and(|scale| scale.shape.elements() == 1) {
            true => Axes::elementwise(inputs),
            // Scales belong to an axis.
            false => Axes::unknown(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check, check_fails};

    #[test]
    fn every_type_agrees_with_its_definition() {
        let mut random = Random(4);
        for from in [DType::U8, DType::I8, DType::U16, DType::I16, DType::I32] {
            for axis in 0..3 {
                let dims = random.dims(3);
                let x = random.tensor(from, &dims);
                for n in [1, dims[axis]] {
                    let scales: Vec<f32> = (0..n).map(|_| random.float().abs() + 0.01).collect();
                    let scale = Tensor::from_slice(&[n], &scales).unwrap();
                    check(Dequantize { axis }, &[x.clone(), scale, random.tensor(from, &[n])], 0.0);
                }
            }
        }
    }

    #[test]
    fn zero_and_nan_scales_are_errors() {
        let x = Tensor::from_slice(&[2], &[1u8, 2]).unwrap();
        for bad in [0.0, f32::NAN] {
            check_fails(Dequantize { axis: 0 }, &[x.clone(), Tensor::scalar(bad), Tensor::scalar(0u8)]);
        }
    }
}
