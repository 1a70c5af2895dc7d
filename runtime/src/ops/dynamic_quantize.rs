//! DynamicQuantizeLinear: quantizes floats to uint8 with a scale computed from them ([ONNX
//! DynamicQuantizeLinear](https://onnx.ai/onnx/operators/onnx__DynamicQuantizeLinear.html)).
//!
//! ```text
//! [min, max] = range of x and 0
//! scale      = (max - min) / 255                      1 if all elements are 0, as in ONNX Runtime
//! zero       = saturate(round(-min / scale))
//! y          = saturate(round(x / scale) + zero)
//! ```
//!
//! Both round ties to even.

use serde::{Deserialize, Serialize};
use skipstone_kernels::requantize::Requantize;
use skipstone_kernels::{Isa, qmap};

use super::arity::exactly;
use crate::error::OpError;
use crate::operator::axes::Nhwc;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Shape, Tensor};

/// Results: the quantized elements, their scale and their zero point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct DynamicQuantize;

/// The scale and the zero point for a range.
fn scheme([min, max]: [f32; 2]) -> (f32, u8) {
    let scale = if min == max { 1.0 } else { (max - min) / 255.0 };
    // Saturates; NaN becomes 0.
    (scale, (-min / scale).round_ties_even() as u8)
}

impl Operator for DynamicQuantize {
    fn name(&self) -> &str {
        "DynamicQuantize"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        if x.dtype != DType::F32 {
            return Err(OpError::Type { index: 0, got: x.dtype, want: "f32" });
        }
        let number = Shape::new(&[])?;
        let facts = [(DType::U8, x.shape.clone()), (DType::F32, number.clone()), (DType::U8, number)];
        Ok(facts.into_iter().map(|(dtype, shape)| Fact::new(dtype, shape)).collect())
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        self.infer(&cx.inputs)?;
        Ok(Choice { kernel: format!("dynamic_quantize_u8_{}", cx.isa), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let isa: Isa = cx.isa;
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let x: &[f32] = io.input(0)?;
            let (scale, zero) = scheme(qmap::range(isa, x, io.pool()));
            qmap::quantize(isa, x, scale, Requantize::all(zero), io.output(0)?, io.pool());
            io.output::<f32>(1)?.fill(scale);
            io.output::<u8>(2)?.fill(zero);
            Ok(())
        }))
    }
}

impl Semantics for DynamicQuantize {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        self.infer(&[x.fact()])?;
        let numbers: &[f32] = super::number::words(x)?;
        let extreme = |better: fn(&f32, &f32) -> bool| {
            numbers.iter().fold(0.0, |best, x| if better(x, &best) { *x } else { best })
        };
        let (scale, zero) = scheme([extreme(f32::lt), extreme(f32::gt)]);
        let bytes = numbers.iter().map(|&x| super::quantized::quantize(x, scale, zero));
        let bytes = Tensor::collected(Fact::new(DType::U8, x.shape().clone()), bytes)?;
        Ok(vec![bytes, Tensor::scalar(scale), Tensor::scalar(zero)])
    }

    fn nhwc(&self) -> Nhwc {
        Nhwc::Can
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    fn of(x: &[f32]) -> (Vec<u8>, f32, u8) {
        let y = check(DynamicQuantize, &[Tensor::from_slice(&[x.len()], x).unwrap()], 0.0);
        let (scale, zero) = (y[1].elements::<f32>().unwrap()[0], y[2].bytes()[0]);
        (y[0].bytes().to_vec(), scale, zero)
    }

    #[test]
    fn the_example_of_the_onnx_page() {
        assert_eq!(of(&[0.0, 2.0, -3.0, -2.5, 1.34, 0.5]), (vec![153, 255, 0, 26, 221, 179], 5.0 / 255.0, 153));
        assert_eq!(of(&[-1.0, -2.1, -1.3, -2.5, -3.34, -4.0]), (vec![191, 121, 172, 96, 42, 0], 4.0 / 255.0, 255));
    }

    #[test]
    fn constants_nan_and_extremes_are_quantized() {
        assert_eq!(of(&[0.0, -0.0]), (vec![0, 0], 1.0, 0));
        assert_eq!(of(&[f32::NAN, 255.0]), (vec![0, 255], 1.0, 0));
        for extremes in [[f32::INFINITY, 1.0], [f32::NEG_INFINITY, 1.0], [f32::MAX, f32::MIN], [1e-45, 0.0]] {
            of(&extremes);
        }
    }

    #[test]
    fn kernels_agree_with_the_definition() {
        let mut random = Random(29);
        for _ in 0..20 {
            let dims = random.dims(3);
            check(DynamicQuantize, &[random.floats(&dims)], 0.0);
        }
    }
}
