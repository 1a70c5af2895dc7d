//! Select: chooses elements of one of two tensors by a boolean tensor, with NumPy broadcasting ([ONNX
//! Where](https://onnx.ai/onnx/operators/onnx__Where.html)).

use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use super::walk::Walk;
use crate::error::OpError;
use crate::operator::axes::Axes;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Shape, Tensor};

/// `y = condition ? a : b`; inputs in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Select;

/// Elements are `size` bytes. Inlined, so that it is specialized for every constant size at the call.
#[inline(always)]
fn choose(
    walk: &Walk<3>,
    size: usize,
    condition: &[u8],
    [a, b]: [&[u8]; 2],
    y: &mut [u8],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    let mut results = y.chunks_exact_mut(size);
    walk.try_each(pace, |[c, i, j]| {
        let taken = match condition.get(c) {
            Some(0) => b.get(j * size..(j + 1) * size),
            Some(_) => a.get(i * size..(i + 1) * size),
            None => None,
        };
        let y = results.next().ok_or(OpError::Operand(0))?;
        y.copy_from_slice(taken.ok_or(OpError::Operand(0))?);
        Ok(())
    })
}

impl Operator for Select {
    fn name(&self) -> &str {
        "Where"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [condition, a, b] = exactly::<3, _>(inputs)?;
        if condition.dtype != DType::Bool {
            return Err(OpError::Type { index: 0, got: condition.dtype, want: "bool" });
        }
        if a.dtype != b.dtype {
            return Err(OpError::Type { index: 2, got: b.dtype, want: "the type of the second input" });
        }
        Ok(vec![Fact::new(a.dtype, Shape::broadcast(&[&condition.shape, &a.shape, &b.shape])?)])
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let [_, a, _] = exactly::<3, _>(&cx.inputs)?;
        Ok(Choice { kernel: format!("select_{}", a.dtype), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [condition, a, b] = exactly::<3, _>(&cx.inputs)?;
        let [y] = exactly::<1, _>(&cx.outputs)?;
        let walk = Walk::broadcast(&y.shape, [&condition.shape, &a.shape, &b.shape]);
        let size = a.dtype.size();
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let operands = [io.input_bytes(1)?, io.input_bytes(2)?];
            let (condition, y, pace) = (io.input_bytes(0)?, io.output_bytes(0)?, io.pace());
            match size {
                4 => choose(&walk, 4, condition, operands, y, &pace),
                _ => choose(&walk, size, condition, operands, y, &pace),
            }
        }))
    }
}

impl Semantics for Select {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [condition, a, b] = exactly::<3, _>(inputs)?;
        let fact = self.infer(&[condition.fact(), a.fact(), b.fact()])?.remove(0);
        let walk = Walk::broadcast(&fact.shape, [condition.shape(), a.shape(), b.shape()]);
        let dtype = fact.dtype;
        Ok(vec![Tensor::written(fact, |y| {
            choose(&walk, dtype.size(), condition.bytes(), [a.bytes(), b.bytes()], y, &Pace::free())
        })?])
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
    fn elements_of_every_width_are_chosen() {
        let mut random = Random(7);
        for dtype in [DType::F32, DType::F16, DType::I64, DType::U8, DType::Bool] {
            let operands =
                [random.tensor(DType::Bool, &[3, 1]), random.tensor(dtype, &[3, 5]), random.tensor(dtype, &[5])];
            check(Select, &operands, 0.0);
        }
    }

    #[test]
    fn the_condition_selects_each_element() {
        let condition = Tensor::from_bytes(Fact::new(DType::Bool, crate::Shape::new(&[2]).unwrap()), &[1, 0]).unwrap();
        let a = Tensor::from_slice(&[2], &[1.0f32, 2.0]).unwrap();
        let y = check(Select, &[condition, a, Tensor::scalar(9.0f32)], 0.0);
        assert_eq!(y[0].elements::<f32>(), Some(&[1.0, 9.0][..]));
    }
}
