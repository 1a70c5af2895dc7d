//! Reduce: one number for all those along some axes
//! ([ONNX ReduceSum](https://onnx.ai/onnx/operators/onnx__ReduceSum.html), ReduceMean, ReduceMax,
//! ReduceMin, ReduceProd, ReduceSumSquare, ReduceL1, ReduceL2; GlobalAveragePool is a mean).
//!
//! Axes that lie side by side run by a vector kernel for f32; everything else by a plain loop.

pub use skipstone_kernels::reduce::ReduceFn as ReduceKind;

use std::ops::Range;

use serde::{Deserialize, Serialize};
use skipstone_kernels::middle_axis::MiddleAxis;
use skipstone_kernels::reduce;

use super::arity::exactly;
use super::number::{Number, by_number, convert, filled, words};
use super::walk::{Strides, Walk};
use super::{BindContext, Choice, Execute, Io, Operator, PlanContext};
use crate::error::OpError;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// A reduction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reduce {
    /// The axes that are reduced, ascending.
    pub axes: Vec<usize>,
    /// How.
    pub kind: ReduceKind,
    /// Whether reduced axes stay, with length 1.
    pub keep_dims: bool,
}

impl Reduce {
    /// The run of axes to reduce, where they lie side by side; axes of length 1 may lie in
    /// between or be left out.
    fn adjacent(&self, shape: &Shape) -> Option<Range<usize>> {
        let wide = |axis: usize| shape.get(axis).is_some_and(|&dim| dim != 1);
        let reduced: Vec<usize> = self.axes.iter().copied().filter(|&axis| wide(axis)).collect();
        let (Some(&first), Some(&last)) = (reduced.first(), reduced.last()) else { return Some(0..0) };
        let whole = (first..=last).all(|axis| !wide(axis) || reduced.contains(&axis));
        whole.then_some(first..last + 1)
    }

    /// The two nested walks of the plain loop: over the results and, for each, over what is
    /// reduced to it.
    fn walks(&self, shape: &Shape) -> (Walk<1>, Walk<1>, usize) {
        let strides = shape.strides();
        let part = |reduced: bool| {
            let axes = (0..shape.rank()).filter(move |axis| self.axes.contains(axis) == reduced);
            let dims: Vec<usize> = axes.clone().map(|axis| shape[axis]).collect();
            let strides: Strides = axes.map(|axis| strides[axis]).collect();
            (Walk::new(&dims, [strides]), dims.iter().product())
        };
        let ((outer, _), (inner, count)) = (part(false), part(true));
        (outer, inner, count)
    }
}

/// The plain loop, accumulating in `A`.
fn reduce_plain<T: Number, A: Number>(
    kind: ReduceKind,
    (outer, inner, count): &(Walk<1>, Walk<1>, usize),
    x: &[T],
    y: &mut [T],
) -> Result<(), OpError> {
    let start = match kind {
        ReduceKind::Prod => A::ONE,
        ReduceKind::Max => A::LOWEST,
        ReduceKind::Min => A::HIGHEST,
        _ => A::ZERO,
    };
    let mut results = y.iter_mut();
    outer.try_each(|[at]| {
        let mut sum = start;
        inner.try_each(|[offset]| {
            let v: A = convert(*x.get(at + offset).ok_or(OpError::Operand(0))?);
            sum = match kind {
                ReduceKind::Sum | ReduceKind::Mean => sum.add(v),
                ReduceKind::Prod => sum.mul(v),
                ReduceKind::Max if v.is_nan() || v > sum => v,
                ReduceKind::Min if v.is_nan() || v < sum => v,
                ReduceKind::Max | ReduceKind::Min => sum,
                ReduceKind::SumSquare | ReduceKind::L2 => sum.add(v.mul(v)),
                ReduceKind::L1 if v < A::ZERO => sum.sub(v),
                ReduceKind::L1 => sum.add(v),
            };
            Ok(())
        })?;
        let result = match kind {
            ReduceKind::Mean => sum.div(A::from_i128(*count as i128))?,
            ReduceKind::L2 => A::from_f64(sum.to_f64().sqrt()),
            _ => sum,
        };
        *results.next().ok_or(OpError::Operand(0))? = convert(result);
        Ok(())
    })
}

/// The plain loop: floats accumulate in f64, integers in their own type.
fn reduce_any<T: Number>(
    kind: ReduceKind,
    walks: &(Walk<1>, Walk<1>, usize),
    x: &[T],
    y: &mut [T],
) -> Result<(), OpError> {
    match T::FLOAT {
        true => reduce_plain::<T, f64>(kind, walks, x, y),
        false => reduce_plain::<T, T>(kind, walks, x, y),
    }
}

fn not_a_number() -> OpError {
    OpError::Type { index: 0, got: DType::Bool, want: "a number" }
}

impl Operator for Reduce {
    fn name(&self) -> &str {
        match self.kind {
            ReduceKind::Sum => "ReduceSum",
            ReduceKind::Mean => "ReduceMean",
            ReduceKind::Max => "ReduceMax",
            ReduceKind::Min => "ReduceMin",
            ReduceKind::Prod => "ReduceProd",
            ReduceKind::SumSquare => "ReduceSumSquare",
            ReduceKind::L1 => "ReduceL1",
            ReduceKind::L2 => "ReduceL2",
        }
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        if x.dtype == DType::Bool {
            return Err(not_a_number());
        }
        let ascending = self.axes.windows(2).all(|pair| pair[0] < pair[1]);
        if !ascending || self.axes.iter().any(|&axis| axis >= x.shape.rank()) {
            return Err(OpError::Attribute { name: "axes", reason: format!("{:?} of {}", self.axes, x.shape) });
        }
        let dims = x.shape.iter().enumerate().filter_map(|(axis, &dim)| match self.axes.contains(&axis) {
            true => self.keep_dims.then_some(1),
            false => Some(dim),
        });
        Ok(vec![Fact::new(x.dtype, Shape::new(&dims.collect::<Vec<_>>())?)])
    }

    #[cfg(any(feature = "passes", test))]
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let fact = self.infer(&[x.fact()])?.remove(0);
        let walks = self.walks(x.shape());
        let y = by_number!(fact.dtype, T => filled::<T>(fact, |y| reduce_any(self.kind, &walks, words(x)?, y)),
            else Err(not_a_number()))?;
        Ok(vec![y])
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let kernel = match (x.dtype, self.adjacent(&x.shape)) {
            (DType::F32, Some(_)) => format!("reduce_f32_{}", cx.isa),
            (dtype, _) => format!("reduce_{dtype}"),
        };
        Ok(Choice { kernel, ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let (kind, isa, dtype) = (self.kind, cx.isa, x.dtype);
        if let (DType::F32, Some(axes)) = (dtype, self.adjacent(&x.shape)) {
            let view = MiddleAxis::new(&x.shape, axes).ok_or_else(|| OpError::TooLarge(x.shape.to_string()))?;
            return Ok(Box::new(move |io: &mut Io<'_, '_>| {
                reduce::reduce(isa, kind, view, io.input(0)?, io.output(0)?, io.pool());
                Ok(())
            }));
        }
        let walks = self.walks(&x.shape);
        Ok(by_number!(dtype, T => Box::new(move |io: &mut Io<'_, '_>| {
            reduce_any::<T>(kind, &walks, io.input(0)?, io.output(0)?)
        }), else return Err(not_a_number())))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    #[test]
    fn every_kind_over_every_set_of_axes() {
        let mut random = Random(15);
        for kind in ReduceKind::ALL {
            for set in 0..8u32 {
                let axes: Vec<usize> = (0..3).filter(|axis| set >> axis & 1 == 1).collect();
                for keep_dims in [true, false] {
                    let dims = random.dims(3).iter().map(|&d| d.min(9)).collect::<Vec<_>>();
                    let reduce = Reduce { axes: axes.clone(), kind, keep_dims };
                    check(reduce.clone(), &[random.floats(&dims)], 2e-6);
                    check(reduce, &[random.tensor(DType::I64, &dims)], 0.0);
                }
            }
        }
    }

    #[test]
    fn known_results() {
        let x = Tensor::from_slice(&[2, 3], &[1f32, -2.0, 2.0, 3.0, 0.0, -4.0]).unwrap();
        let of = |kind, axes: &[usize]| {
            let y = check(Reduce { axes: axes.to_vec(), kind, keep_dims: false }, std::slice::from_ref(&x), 1e-6);
            y[0].elements::<f32>().unwrap().to_vec()
        };
        assert_eq!(of(ReduceKind::L2, &[1]), [3.0, 5.0]);
        assert_eq!(of(ReduceKind::L1, &[0, 1]), [12.0]);
        assert_eq!(of(ReduceKind::Max, &[0]), [3.0, 0.0, 2.0]);
        assert_eq!(of(ReduceKind::Mean, &[0, 1]), [0.0]);
    }

    #[test]
    fn integers_of_nothing_have_no_mean_but_do_not_panic() {
        let x = Tensor::from_slice::<i64>(&[0], &[]).unwrap();
        let mean = Reduce { axes: vec![0], kind: ReduceKind::Mean, keep_dims: false };
        assert!(mean.evaluate(&[&x]).is_err());
        assert!(Reduce { axes: vec![1], ..mean.clone() }.infer(&[x.fact()]).is_err());
        assert!(Reduce { axes: vec![0, 0], ..mean }.infer(&[x.fact()]).is_err());
    }
}
