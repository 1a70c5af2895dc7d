//! ArgMax and ArgMin: where along an axis the extreme lies
//! ([ONNX ArgMax](https://onnx.ai/onnx/operators/onnx__ArgMax.html)).

use serde::{Deserialize, Serialize};

use super::arity::exactly;
use super::number::{Number, by_number, filled, words};
use super::{BindContext, Choice, Execute, Io, Operator, PlanContext};
use crate::error::OpError;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// The index of the extreme along an axis, as i64; the axis stays, with length 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArgMax {
    /// The axis.
    pub axis: usize,
    /// The largest, rather than the smallest.
    pub largest: bool,
    /// The last of equals, rather than the first.
    pub last: bool,
}

impl ArgMax {
    fn search<T: Number>(&self, shape: &Shape, x: &[T], y: &mut [i64]) {
        let axis = shape[self.axis];
        let inner: usize = shape[self.axis + 1..].iter().product();
        let better = |new: T, old: T| match (self.largest, self.last) {
            (true, false) => new > old,
            (true, true) => new >= old,
            (false, false) => new < old,
            (false, true) => new <= old,
        };
        for (plane, y) in x.chunks_exact((axis * inner).max(1)).zip(y.chunks_exact_mut(inner.max(1))) {
            y.fill(0);
            for (i, row) in plane.chunks_exact(inner.max(1)).enumerate().skip(1) {
                for (column, (&new, y)) in row.iter().zip(y.iter_mut()).enumerate() {
                    if better(new, plane[*y as usize * inner + column]) {
                        *y = i as i64;
                    }
                }
            }
        }
    }
}

impl Operator for ArgMax {
    fn name(&self) -> &str {
        if self.largest { "ArgMax" } else { "ArgMin" }
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        if x.dtype == DType::Bool {
            return Err(OpError::Type { index: 0, got: x.dtype, want: "a number" });
        }
        let mut dims = x.shape.to_vec();
        match dims.get_mut(self.axis) {
            Some(dim) if *dim > 0 => *dim = 1,
            _ => return Err(OpError::Attribute { name: "axis", reason: format!("{} of {}", self.axis, x.shape) }),
        }
        Ok(vec![Fact::new(DType::I64, Shape::new(&dims)?)])
    }

    #[cfg(any(feature = "passes", test))]
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let fact = self.infer(&[x.fact()])?.remove(0);
        let y = filled::<i64>(fact, |y| {
            by_number!(x.dtype(), T => self.search::<T>(x.shape(), words(x)?, y), else ());
            Ok(())
        })?;
        Ok(vec![y])
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        Ok(Choice { kernel: format!("argmax_{}", x.dtype), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let (this, shape, dtype) = (*self, x.shape.clone(), x.dtype);
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            by_number!(dtype, T => this.search::<T>(&shape, io.input(0)?, io.output(0)?), else ());
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    #[test]
    fn the_extreme_is_found_on_every_axis() {
        let mut random = Random(16);
        for axis in 0..3 {
            for (largest, last) in [(true, true), (true, false), (false, true), (false, false)] {
                for dtype in [DType::F32, DType::I64] {
                    let x = random.tensor(dtype, &[3, 7, 5]);
                    let y = check(ArgMax { axis, largest, last }, std::slice::from_ref(&x), 0.0);
                    let reduce = super::super::reduce::Reduce {
                        axes: vec![axis],
                        kind: if largest {
                            super::super::reduce::ReduceKind::Max
                        } else {
                            super::super::reduce::ReduceKind::Min
                        },
                        keep_dims: true,
                    };
                    let extreme = reduce.evaluate(&[&x]).unwrap().remove(0);
                    let picked = super::super::gather_elements::GatherElements { axis };
                    assert_eq!(picked.evaluate(&[&x, &y[0]]).unwrap()[0].bytes(), extreme.bytes());
                }
            }
        }
    }

    #[test]
    fn equals_go_to_the_first_or_the_last() {
        let x = Tensor::from_slice(&[4], &[1f32, 5.0, 5.0, 2.0]).unwrap();
        let at = |last| {
            check(ArgMax { axis: 0, largest: true, last }, std::slice::from_ref(&x), 0.0)[0].elements::<i64>().unwrap()
                [0]
        };
        assert_eq!((at(false), at(true)), (1, 2));
    }
}
