//! Cast: the same numbers in another element type
//! ([ONNX Cast](https://onnx.ai/onnx/operators/onnx__Cast.html)).
//!
//! Floats become integers towards zero and saturate; integers keep their low bits; a number is
//! true where it is not zero.

use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use skipstone_kernels::{Isa, cast};

use super::arity::exactly;
use super::number::{Number, by_number, convert, filled, words};
use super::{BindContext, Choice, Execute, Io, Operator, PlanContext};
use crate::error::OpError;
use crate::tensor::{DType, Fact, Tensor};

/// A cast to a fixed type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cast {
    /// Type of the result.
    pub to: DType,
}

fn convert_all<X: Number, Y: Number>(x: &[X], y: &mut [Y]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = convert(x);
    }
}

fn truth<X: Number>(x: &[X], y: &mut [u8]) {
    for (y, &x) in y.iter_mut().zip(x) {
        *y = u8::from(x != X::ZERO);
    }
}

/// Whether a vector kernel converts these types.
fn has_kernel(from: DType, to: DType) -> bool {
    matches!((from, to), (DType::F32, DType::F16 | DType::Bf16) | (DType::F16 | DType::Bf16 | DType::U8, DType::F32))
}

fn by_kernel(isa: Isa, from: DType, to: DType, io: &mut Io<'_, '_>) -> Result<(), OpError> {
    match (from, to) {
        (DType::F32, DType::F16) => cast::cast::<f32, f16>(isa, io.input(0)?, io.output(0)?, io.pool()),
        (DType::F32, DType::Bf16) => cast::cast::<f32, bf16>(isa, io.input(0)?, io.output(0)?, io.pool()),
        (DType::F16, DType::F32) => cast::cast::<f16, f32>(isa, io.input(0)?, io.output(0)?, io.pool()),
        (DType::Bf16, DType::F32) => cast::cast::<bf16, f32>(isa, io.input(0)?, io.output(0)?, io.pool()),
        (DType::U8, DType::F32) => cast::cast::<u8, f32>(isa, io.input(0)?, io.output(0)?, io.pool()),
        _ => return Err(OpError::Type { index: 0, got: from, want: "a type with a kernel" }),
    }
    Ok(())
}

impl Operator for Cast {
    fn name(&self) -> &str {
        "Cast"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        Ok(vec![Fact::new(self.to, x.shape.clone())])
    }

    #[cfg(any(feature = "passes", test))]
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let fact = Fact::new(self.to, x.shape().clone());
        let from = x.dtype();
        let y = by_number!(self.to, Y => filled::<Y>(fact, |y| {
            by_number!(from, X => convert_all::<X, Y>(words(x)?, y), else convert_all::<u8, Y>(words(x)?, y));
            Ok(())
        }), else filled::<u8>(fact, |y| {
            by_number!(from, X => truth::<X>(words(x)?, y), else truth::<u8>(words(x)?, y));
            Ok(())
        }))?;
        Ok(vec![y])
    }

    fn alias(&self, inputs: &[&Fact]) -> Option<usize> {
        inputs.first().is_some_and(|x| x.dtype == self.to).then_some(0)
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let kernel = match has_kernel(x.dtype, self.to) {
            true => format!("cast_{}_{}_{}", x.dtype, self.to, cx.isa),
            false => format!("cast_{}_{}", x.dtype, self.to),
        };
        Ok(Choice { kernel, ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let (from, to, isa) = (x.dtype, self.to, cx.isa);
        if has_kernel(from, to) {
            return Ok(Box::new(move |io: &mut Io<'_, '_>| by_kernel(isa, from, to, io)));
        }
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            by_number!(to, Y => by_number!(from,
                X => convert_all::<X, Y>(io.input(0)?, io.output(0)?),
                else convert_all::<u8, Y>(io.input(0)?, io.output(0)?)),
            else by_number!(from,
                X => truth::<X>(io.input(0)?, io.output(0)?),
                else truth::<u8>(io.input(0)?, io.output(0)?)));
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    const TYPES: [DType; 13] = [
        DType::F32,
        DType::F64,
        DType::F16,
        DType::Bf16,
        DType::I8,
        DType::I16,
        DType::I32,
        DType::I64,
        DType::U8,
        DType::U16,
        DType::U32,
        DType::U64,
        DType::Bool,
    ];

    #[test]
    fn every_pair_of_types_agrees() {
        let mut random = Random(8);
        for from in TYPES {
            for to in TYPES {
                check(Cast { to }, &[random.tensor(from, &[3, 11])], 0.0);
            }
        }
    }

    #[test]
    fn floats_truncate_and_saturate_and_integers_wrap() {
        let x = Tensor::from_slice(&[4], &[1.9f32, -1.9, 1e9, f32::NAN]).unwrap();
        let y = check(Cast { to: DType::I8 }, &[x], 0.0);
        assert_eq!(y[0].elements::<i8>(), Some(&[1, -1, 127, 0][..]));
        let x = Tensor::from_slice(&[2], &[300i64, i64::MAX]).unwrap();
        let y = check(Cast { to: DType::U8 }, &[x], 0.0);
        assert_eq!(y[0].elements::<u8>(), Some(&[44, 255][..]));
        let x = Tensor::from_slice(&[1], &[i64::MAX]).unwrap();
        let y = check(Cast { to: DType::U64 }, &[x], 0.0);
        assert_eq!(y[0].elements::<u64>(), Some(&[i64::MAX as u64][..]));
    }
}
