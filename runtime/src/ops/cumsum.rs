//! CumSum: cumulative sums along an axis ([ONNX CumSum](https://onnx.ai/onnx/operators/onnx__CumSum.html)).

use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use super::wide::{CHUNK, Wide, by_wide};
use crate::error::OpError;
use crate::operator::axes::{Axes, Elements};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Shape, Tensor};

/// Cumulative sums along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CumSum {
    /// The axis.
    pub axis: usize,
    /// Whether an element's sum excludes the element itself.
    pub exclusive: bool,
    /// Whether sums start at the end.
    pub reverse: bool,
}

impl CumSum {
    /// Sums in a wide type; every sum is rounded to the element type once.
    fn sum<T: Wide>(
        &self,
        dtype: DType,
        shape: &Shape,
        x: &[u8],
        y: &mut [u8],
        pace: &Pace<'_>,
    ) -> Result<(), OpError> {
        let axis = shape[self.axis];
        let inner: usize = shape[self.axis + 1..].iter().product();
        let (size, planes) = (dtype.size(), shape.elements() / (axis * inner).max(1));
        let mut read = [T::ZERO; CHUNK];
        for row in 0..planes * inner {
            let first = row / inner * axis * inner + row % inner;
            let mut sum = T::ZERO;
            for step in 0..axis {
                pace.spend(16)?;
                let at = first + if self.reverse { axis - 1 - step } else { step } * inner;
                T::load(dtype, x, &[at], &mut read)?;
                let through = sum.add(read[0]);
                let place = y.get_mut(at * size..(at + 1) * size).ok_or(OpError::Operand(0))?;
                T::store(dtype, &[if self.exclusive { sum } else { through }], place)?;
                sum = through;
            }
        }
        Ok(())
    }

    fn sum_all(&self, fact: &Fact, x: &[u8], y: &mut [u8], pace: &Pace<'_>) -> Result<(), OpError> {
        by_wide!(fact.dtype, T => self.sum::<T>(fact.dtype, &fact.shape, x, y, pace), else Err(OpError::Operand(0)))
    }
}

impl Operator for CumSum {
    fn name(&self) -> &str {
        "CumSum"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        if x.dtype == DType::Bool {
            return Err(OpError::Type { index: 0, got: x.dtype, want: "a number" });
        }
        if self.axis >= x.shape.rank() {
            return Err(OpError::Attribute { name: "axis", reason: format!("{} of {}", self.axis, x.shape) });
        }
        Ok(vec![(*x).clone()])
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        Ok(Choice { kernel: format!("cumsum_{}", x.dtype), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let (this, fact) = (*self, (*x).clone());
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            this.sum_all(&fact, io.input_bytes(0)?, io.output_bytes(0)?, &io.pace())
        }))
    }
}

impl Semantics for CumSum {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let fact = self.infer(&[x.fact()])?.remove(0);
        Ok(vec![Tensor::written(fact, |y| self.sum_all(x.fact(), x.bytes(), y, &Pace::free()))?])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        Axes::except(Elements::Mixed, inputs, &[self.axis])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    #[test]
    fn sums_run_forward_and_backward() {
        let x = Tensor::from_slice(&[3], &[1i64, 2, 4]).unwrap();
        let sums = |exclusive, reverse| {
            let y = check(CumSum { axis: 0, exclusive, reverse }, std::slice::from_ref(&x), 0.0);
            y[0].elements::<i64>().unwrap().to_vec()
        };
        assert_eq!(sums(false, false), [1, 3, 7]);
        assert_eq!(sums(true, false), [0, 1, 3]);
        assert_eq!(sums(false, true), [7, 6, 4]);
        assert_eq!(sums(true, true), [6, 4, 0]);
        for axis in 0..3 {
            check(CumSum { axis, exclusive: false, reverse: true }, &[Random(24).floats(&[2, 3, 5])], 1e-6);
        }
    }
}
