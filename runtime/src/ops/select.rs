//! Select: one of two tensors' elements, by a third tensor of truth values, with numpy
//! broadcasting ([ONNX Where](https://onnx.ai/onnx/operators/onnx__Where.html)).

use serde::{Deserialize, Serialize};

use super::arity::exactly;
use super::number::{by_width, filled, words};
use super::walk::{Walk, broadcast_shape};
use super::{BindContext, Choice, Execute, Io, Operator, PlanContext};
use crate::error::OpError;
use crate::tensor::{DType, Fact, Tensor};

/// `y = condition ? a : b`; inputs in this order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Select;

fn choose<T: Copy>(walk: &Walk<3>, condition: &[u8], a: &[T], b: &[T], y: &mut [T]) -> Result<(), OpError> {
    let mut results = y.iter_mut();
    walk.try_each(|[c, i, j]| {
        let taken = match condition.get(c) {
            Some(0) => b.get(j),
            Some(_) => a.get(i),
            None => None,
        };
        *results.next().ok_or(OpError::Operand(0))? = *taken.ok_or(OpError::Operand(0))?;
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
        Ok(vec![Fact::new(a.dtype, broadcast_shape(&[&condition.shape, &a.shape, &b.shape])?)])
    }

    #[cfg(any(feature = "passes", test))]
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [condition, a, b] = exactly::<3, _>(inputs)?;
        let fact = self.infer(&[condition.fact(), a.fact(), b.fact()])?.remove(0);
        let walk = Walk::broadcast(&fact.shape, [condition.shape(), a.shape(), b.shape()]);
        let y = by_width!(fact.dtype, T => filled::<T>(fact, |y| {
            choose(&walk, condition.bytes(), words(a)?, words(b)?, y)
        }))?;
        Ok(vec![y])
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let [_, a, _] = exactly::<3, _>(&cx.inputs)?;
        Ok(Choice { kernel: format!("select_{}", a.dtype), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [condition, a, b] = exactly::<3, _>(&cx.inputs)?;
        let [y] = exactly::<1, _>(&cx.outputs)?;
        let walk = Walk::broadcast(&y.shape, [&condition.shape, &a.shape, &b.shape]);
        Ok(by_width!(a.dtype, T => Box::new(move |io: &mut Io<'_, '_>| {
            choose::<T>(&walk, io.input(0)?, io.input(1)?, io.input(2)?, io.output(0)?)
        })))
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
    fn the_condition_decides() {
        let condition = Tensor::from_bytes(Fact::new(DType::Bool, crate::Shape::new(&[2]).unwrap()), &[1, 0]).unwrap();
        let a = Tensor::from_slice(&[2], &[1.0f32, 2.0]).unwrap();
        let y = check(Select, &[condition, a, Tensor::scalar(9.0f32)], 0.0);
        assert_eq!(y[0].elements::<f32>(), Some(&[1.0, 9.0][..]));
    }
}
