//! ArgMax and ArgMin: the index of the largest or smallest element along an axis
//! ([ONNX ArgMax](https://onnx.ai/onnx/operators/onnx__ArgMax.html)).

use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use super::number::filled;
use super::wide::{CHUNK, Wide, by_wide};
use crate::error::OpError;
use crate::operator::axes::{Axes, Elements};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Shape, Tensor, elements};

/// The index of the largest or smallest element of an axis, as i64; the axis is kept, with length 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ArgMax {
    /// The axis.
    pub axis: usize,
    /// The largest, rather than the smallest.
    pub largest: bool,
    /// The last of equals, rather than the first.
    pub last: bool,
}

/// Columns of which the best are searched at once.
const COLUMNS: usize = 1 << 12;

impl ArgMax {
    /// Element types without a vector kernel are compared one by one in a wide type.
    fn search_wide<T: Wide>(
        &self,
        dtype: DType,
        shape: &Shape,
        x: &[u8],
        y: &mut [i64],
        pace: &Pace<'_>,
    ) -> Result<(), OpError> {
        let (axis, inner) = (shape[self.axis], shape[self.axis + 1..].iter().product::<usize>());
        let mut read = [T::ZERO; CHUNK];
        for (at, y) in y.iter_mut().enumerate() {
            let first = at / inner.max(1) * axis * inner + at % inner.max(1);
            let mut best = T::ZERO;
            *y = 0;
            for index in 0..axis {
                pace.spend(16)?;
                T::load(dtype, x, &[first + index * inner], &mut read)?;
                if index == 0 || self.is_better(read[0], best) {
                    (best, *y) = (read[0], index as i64);
                }
            }
        }
        Ok(())
    }

    fn is_better<T: PartialOrd>(&self, new: T, old: T) -> bool {
        match (self.largest, self.last) {
            (true, false) => new > old,
            (true, true) => new >= old,
            (false, false) => new < old,
            (false, true) => new <= old,
        }
    }

    fn search(&self, shape: &Shape, x: &[f32], y: &mut [i64], pace: &Pace<'_>) -> Result<(), OpError> {
        let axis = shape[self.axis];
        let inner: usize = shape[self.axis + 1..].iter().product();
        for (plane, y) in x.chunks_exact((axis * inner).max(1)).zip(y.chunks_exact_mut(inner.max(1))) {
            for (first, y) in (0..inner).step_by(COLUMNS).zip(y.chunks_mut(COLUMNS)) {
                y.fill(0);
                for (i, row) in plane.chunks_exact(inner).enumerate().skip(1) {
                    pace.spend(4 + 4 * y.len())?;
                    for ((column, &new), y) in row.iter().enumerate().skip(first).zip(y.iter_mut()) {
                        if self.is_better(new, plane[*y as usize * inner + column]) {
                            *y = i as i64;
                        }
                    }
                }
            }
        }
        Ok(())
    }
}

/// The search for any element type.
fn search_all(
    op: &ArgMax,
    dtype: DType,
    shape: &Shape,
    x: &[u8],
    y: &mut [i64],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    if dtype == DType::F32 {
        return op.search(shape, elements(x).ok_or(OpError::Operand(0))?, y, pace);
    }
    by_wide!(dtype, T => op.search_wide::<T>(dtype, shape, x, y, pace), else Err(OpError::Operand(0)))
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

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        Ok(Choice { kernel: format!("argmax_{}", x.dtype), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let (this, shape, dtype) = (*self, x.shape.clone(), x.dtype);
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            search_all(&this, dtype, &shape, io.input_bytes(0)?, io.output(0)?, &io.pace())
        }))
    }
}

impl Semantics for ArgMax {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let fact = self.infer(&[x.fact()])?.remove(0);
        let y = filled::<i64>(fact, |y| search_all(self, x.dtype(), x.shape(), x.bytes(), y, &Pace::free()))?;
        Ok(vec![y])
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
    fn the_largest_and_smallest_are_found_on_every_axis() {
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
    fn ties_take_the_first_or_the_last() {
        let x = Tensor::from_slice(&[4], &[1f32, 5.0, 5.0, 2.0]).unwrap();
        let at = |last| {
            check(ArgMax { axis: 0, largest: true, last }, std::slice::from_ref(&x), 0.0)[0].elements::<i64>().unwrap()
                [0]
        };
        assert_eq!((at(false), at(true)), (1, 2));
    }
}
