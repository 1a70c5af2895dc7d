//! QuantizeLinear: floats to integers with a scale and a zero point
//! ([ONNX QuantizeLinear](https://onnx.ai/onnx/operators/onnx__QuantizeLinear.html)).
//!
//! `y = saturate(round(x / scale) + zero)`, with ties to even. 8-bit results with one scale use a vector kernel.

use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::{PIECE, Pace};
use skipstone_kernels::qmap;
use skipstone_kernels::requantize::Requantize;

use super::arity::exactly;
use super::number::{Number, filled, words};
use super::quantized::{Channels, by_quantized, check_scales, flip, is_quantized, quantize};
use crate::error::OpError;
use crate::operator::axes::Axes;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Tensor};

/// Operands: elements, scale, zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Quantize {
    /// The axis of the scales, if there are several.
    pub axis: usize,
    /// Type of the result: an integer of 8 or 16 bits.
    pub to: DType,
}

impl Quantize {
    fn channels(&self, inputs: &[&Fact]) -> Result<Channels, OpError> {
        let [x, scale, zero] = exactly::<3, _>(inputs)?;
        if x.dtype != DType::F32 {
            return Err(OpError::Type { index: 0, got: x.dtype, want: "f32" });
        }
        if !is_quantized(self.to) {
            return Err(OpError::Type { index: 2, got: self.to, want: "u8, i8, u16 or i16" });
        }
        Channels::new(self.axis, x, scale, zero, self.to)
    }
}

fn quantize_all<T: Number>(
    channels: &Channels,
    x: &[f32],
    scale: &[f32],
    zero: &[T],
    y: &mut [T],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    check_scales(scale)?;
    channels.each(y.len(), pace, &mut |part, channel| {
        for (y, &x) in y[part.clone()].iter_mut().zip(&x[part]) {
            *y = quantize(x, scale[channel], zero[channel]);
        }
    })
}

impl Operator for Quantize {
    fn name(&self) -> &str {
        "Quantize"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        self.channels(inputs)?;
        Ok(vec![Fact::new(self.to, inputs[0].shape.clone())])
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let channels = self.channels(&cx.inputs)?;
        if let Some(scale) = cx.constants.get(1).copied().flatten() {
            check_scales(words(scale)?)?;
        }
        let kernel = match (self.to, channels.channels) {
            (DType::U8 | DType::I8, 1) => format!("quantize_{}_{}", self.to, cx.isa),
            _ => format!("quantize_{}", self.to),
        };
        Ok(Choice { kernel, ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let (channels, to, isa) = (self.channels(&cx.inputs)?, self.to, cx.isa);
        let is_bytes = matches!(to, DType::U8 | DType::I8);
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let (x, scale): (&[f32], &[f32]) = (io.input(0)?, io.input(1)?);
            if is_bytes && let (&[scale], &[zero]) = (scale, io.input::<u8>(2)?) {
                check_scales(&[scale])?;
                // int8 is uint8 minus 128.
                let signed = to == DType::I8;
                let y = io.output_bytes(0)?;
                let by = Requantize::all(if signed { flip(zero) } else { zero });
                qmap::quantize(isa, x, scale, by, y, io.pool());
                let pace = io.pace();
                for y in y.chunks_mut(PIECE / 4).take_while(|y| signed && !pace.stops(y.len())) {
                    y.iter_mut().for_each(|y| *y = flip(*y));
                }
                return Ok(());
            }
            by_quantized!(to, T => quantize_all::<T>(&channels, x, scale, io.input(2)?, io.output(0)?, &io.pace()),
                else Err(OpError::Operand(2)))
        }))
    }
}

impl Semantics for Quantize {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x, scale, zero] = exactly::<3, _>(inputs)?;
        let channels = self.channels(&[x.fact(), scale.fact(), zero.fact()])?;
        let fact = Fact::new(self.to, x.shape().clone());
        let y = by_quantized!(self.to, T => filled::<T>(fact, |y| {
            quantize_all::<T>(&channels, words(x)?, words(scale)?, words(zero)?, y, &Pace::free())
        }), else return Err(OpError::Operand(2)))?;
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
    fn numbers_are_rounded_to_even_and_saturate() {
        let x = Tensor::from_slice(&[6], &[0.5f32, 1.5, -0.5, 1000.0, -1000.0, 2.6]).unwrap();
        let scale = Tensor::scalar(1f32);
        let y = check(Quantize { axis: 1, to: DType::U8 }, &[x.clone(), scale.clone(), Tensor::scalar(10u8)], 0.0);
        assert_eq!(y[0].elements::<u8>(), Some(&[10, 12, 10, 255, 0, 13][..]));
        let y = check(Quantize { axis: 1, to: DType::I8 }, &[x, scale, Tensor::scalar(-10i8)], 0.0);
        assert_eq!(y[0].elements::<i8>(), Some(&[-10, -8, -10, 127, -128, -7][..]));
    }

    #[test]
    fn every_type_agrees_with_its_definition() {
        let mut random = Random(3);
        for to in [DType::U8, DType::I8, DType::U16, DType::I16] {
            for axis in 0..3 {
                let dims = random.dims(3);
                let x = random.floats(&dims);
                let n = dims[axis];
                let scales: Vec<f32> = (0..n).map(|_| random.float().abs() * 0.05 + 0.01).collect();
                let scale = Tensor::from_slice(&[n], &scales).unwrap();
                check(Quantize { axis, to }, &[x, scale, random.tensor(to, &[n])], 0.0);
            }
        }
    }

    #[test]
    fn bad_scales_are_errors() {
        let x = Tensor::from_slice(&[2, 2], &[1f32; 4]).unwrap();
        for bad in [0.0, -1.0, f32::NAN, f32::INFINITY] {
            check_fails(Quantize { axis: 0, to: DType::U8 }, &[x.clone(), Tensor::scalar(bad), Tensor::scalar(0u8)]);
        }
        let infer = |scale: &Tensor, zero: &Tensor| {
            Quantize { axis: 0, to: DType::U8 }.infer(&[x.fact(), scale.fact(), zero.fact()])
        };
        let scales = |n: usize| Tensor::from_slice(&[n], &vec![1f32; n]).unwrap();
        let zeros = |n: usize| Tensor::from_slice(&[n], &vec![0u8; n]).unwrap();
        assert!(infer(&scales(2), &zeros(2)).is_ok());
        assert!(infer(&scales(3), &zeros(3)).is_err());
        assert!(infer(&scales(2), &zeros(1)).is_err());
        assert!(infer(&scales(1), &Tensor::scalar(0i8)).is_err());
        assert!(infer(&Tensor::scalar(1f64), &zeros(1)).is_err());
    }
}
