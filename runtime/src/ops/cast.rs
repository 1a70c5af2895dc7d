//! Cast: the same values in another element type ([ONNX Cast](https://onnx.ai/onnx/operators/onnx__Cast.html)).
//!
//! Floats are truncated to integers and saturate; integers keep their low bits; a bool is true for every value except
//! zero.

use half::{bf16, f16};
use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::Pace;
use skipstone_kernels::{Isa, cast};

use super::arity::exactly;
use super::number::convert;
use super::wide::{CHUNK, Wide, by_wide};
use crate::error::OpError;
use crate::operator::axes::Axes;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Tensor};

/// A cast to a fixed type.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cast {
    /// Type of the result.
    pub to: DType,
}

/// Converts chunk by chunk in wide types: `X` for the elements of `x`, `Y` for those of `y`.
fn convert_chunks<X: Wide, Y: Wide>(
    from: DType,
    x: &[u8],
    to: DType,
    y: &mut [u8],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    let (lowest, highest) = Y::limits(to);
    let mut offsets = [0; CHUNK];
    let (mut read, mut converted) = ([X::ZERO; CHUNK], [Y::ZERO; CHUNK]);
    for (chunk, y) in y.chunks_mut(CHUNK * to.size()).enumerate() {
        let count = y.len() / to.size();
        pace.spend(16 * count)?;
        let offsets = &mut offsets[..count];
        offsets.iter_mut().enumerate().for_each(|(i, offset)| *offset = chunk * CHUNK + i);
        X::load(from, x, offsets, &mut read)?;
        for (wide, &value) in converted.iter_mut().zip(&read[..count]) {
            *wide = convert(value);
            // Integers keep their low bits, floats saturate.
            if X::FLOAT && !Y::FLOAT {
                *wide = if *wide < lowest {
                    lowest
                } else if *wide > highest {
                    highest
                } else {
                    *wide
                };
            }
        }
        Y::store(to, &converted[..count], y)?;
    }
    Ok(())
}

/// 1 for every element that is not zero.
fn truth<X: Wide>(from: DType, x: &[u8], y: &mut [u8], pace: &Pace<'_>) -> Result<(), OpError> {
    let mut read = [X::ZERO; CHUNK];
    for (at, y) in y.iter_mut().enumerate() {
        pace.spend(16)?;
        X::load(from, x, &[at], &mut read)?;
        *y = u8::from(read[0] != X::ZERO);
    }
    Ok(())
}

/// Converts any type to any other. A bool is a byte of 0 or 1.
fn convert_all(from: DType, x: &[u8], to: DType, y: &mut [u8], pace: &Pace<'_>) -> Result<(), OpError> {
    let from = if from == DType::Bool { DType::U8 } else { from };
    by_wide!(from, X => {
        by_wide!(to, Y => convert_chunks::<X, Y>(from, x, to, y, pace), else truth::<X>(from, x, y, pace))
    }, else Err(OpError::Operand(0)))
}

/// Whether there is a vector kernel for these types.
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
            convert_all(from, io.input_bytes(0)?, to, io.output_bytes(0)?, &io.pace())
        }))
    }
}

impl Semantics for Cast {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        if x.dtype() == self.to {
            return Ok(vec![Tensor::clone(x)]);
        }
        let fact = Fact::new(self.to, x.shape().clone());
        let from = x.dtype();
        Ok(vec![Tensor::written(fact, |y| convert_all(from, x.bytes(), self.to, y, &Pace::free()))?])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        Axes::elementwise(inputs)
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
