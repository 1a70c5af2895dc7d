//! CumSum: running sums along an axis
//! ([ONNX CumSum](https://onnx.ai/onnx/operators/onnx__CumSum.html)).

use serde::{Deserialize, Serialize};

use super::arity::exactly;
use super::number::{Number, by_number, filled, words};
use super::{BindContext, Choice, Execute, Io, Operator, PlanContext};
use crate::error::OpError;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// Running sums along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct CumSum {
    /// The axis.
    pub axis: usize,
    /// Whether an element's sum leaves the element itself out.
    pub exclusive: bool,
    /// Whether sums run from the end.
    pub reverse: bool,
}

impl CumSum {
    fn sum<T: Number>(&self, shape: &Shape, x: &[T], y: &mut [T]) {
        let axis = shape[self.axis];
        let inner: usize = shape[self.axis + 1..].iter().product();
        let plane = (axis * inner).max(1);
        for (x, y) in x.chunks_exact(plane).zip(y.chunks_exact_mut(plane)) {
            for column in 0..inner {
                let mut sum = T::ZERO;
                for step in 0..axis {
                    let at = if self.reverse { axis - 1 - step } else { step } * inner + column;
                    let through = sum.add(x[at]);
                    y[at] = if self.exclusive { sum } else { through };
                    sum = through;
                }
            }
        }
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

    #[cfg(any(feature = "passes", test))]
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let fact = self.infer(&[x.fact()])?.remove(0);
        let y = by_number!(fact.dtype, T => filled::<T>(fact, |y| {
            self.sum(x.shape(), words(x)?, y);
            Ok(())
        }), else Err(OpError::Operand(0)))?;
        Ok(vec![y])
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        Ok(Choice { kernel: format!("cumsum_{}", x.dtype), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let (this, shape) = (*self, x.shape.clone());
        Ok(by_number!(x.dtype, T => Box::new(move |io: &mut Io<'_, '_>| {
            this.sum::<T>(&shape, io.input(0)?, io.output(0)?);
            Ok(())
        }), else return Err(OpError::Operand(0))))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    #[test]
    fn sums_run_in_every_direction() {
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
