//! Reduce: combines the elements along some axes into one ([ONNX
//! ReduceSum](https://onnx.ai/onnx/operators/onnx__ReduceSum.html), ReduceMean, ReduceMax, ReduceMin, ReduceProd,
//! ReduceSumSquare, ReduceL1, ReduceL2; GlobalAveragePool is a mean).
//!
//! Adjacent axes use a vector kernel for f32; everything else uses a plain loop.

pub use skipstone_kernels::reduce::ReduceFn as ReduceKind;

use std::ops::Range;

use serde::{Deserialize, Serialize};
use skipstone_kernels::middle_axis::MiddleAxis;
use skipstone_kernels::pace::Pace;
use skipstone_kernels::reduce;

use super::arity::exactly;
use super::image::NHWC_AXIS;
use super::number::Number;
use super::walk::{Strides, Walk};
use super::wide::{CHUNK, Wide, by_wide};
use crate::error::{OpError, list};
use crate::operator::axes::{Axes, Elements, Link, Nhwc};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// A reduction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reduce {
    /// The reduced axes, ascending.
    #[serde(deserialize_with = "reserve::deserialize_list")]
    pub axes: Vec<usize>,
    /// The kind of reduction.
    pub kind: ReduceKind,
    /// Whether reduced axes are kept, with length 1.
    pub keep_dims: bool,
}

impl Reduce {
    /// The range of the reduced axes, if they are adjacent; axes of length 1 may be between them or missing.
    fn adjacent(&self, shape: &Shape) -> Option<Range<usize>> {
        let wide = |axis: usize| shape.get(axis).is_some_and(|&dim| dim != 1);
        let reduced: Vec<usize> = self.axes.iter().copied().filter(|&axis| wide(axis)).collect();
        let (Some(&first), Some(&last)) = (reduced.first(), reduced.last()) else { return Some(0..0) };
        let whole = (first..=last).all(|axis| !wide(axis) || reduced.contains(&axis));
        whole.then_some(first..last + 1)
    }

    /// How many elements there are in a row, if rows that are adjacent in memory are reduced.
    fn row(&self, shape: &Shape) -> Option<usize> {
        let axes = self.adjacent(shape)?;
        let count: usize = shape[axes.clone()].iter().product();
        (count > 0 && shape[axes.end..].iter().all(|&dim| dim == 1)).then_some(count)
    }

    /// The two nested loops of the plain loop: over the results and, for each, over its terms.
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

/// The initial value of a reduction of elements of type `dtype`.
fn start<W: Wide>(kind: ReduceKind, dtype: DType) -> W {
    match kind {
        ReduceKind::Prod => W::ONE,
        ReduceKind::Max => W::limits(dtype).0,
        ReduceKind::Min => W::limits(dtype).1,
        _ => W::ZERO,
    }
}

/// Adds one element to the intermediate value.
fn step<W: Number>(kind: ReduceKind, sum: W, v: W) -> W {
    match kind {
        ReduceKind::Sum | ReduceKind::Mean => sum.add(v),
        ReduceKind::Prod => sum.mul(v),
        ReduceKind::Max if v.is_nan() || v > sum => v,
        ReduceKind::Min if v.is_nan() || v < sum => v,
        ReduceKind::Max | ReduceKind::Min => sum,
        ReduceKind::SumSquare | ReduceKind::L2 => sum.add(v.mul(v)),
        ReduceKind::L1 if v < W::ZERO => sum.sub(v),
        ReduceKind::L1 => sum.add(v),
    }
}

/// The result of a reduction of `count` elements.
fn finish<W: Number>(kind: ReduceKind, sum: W, count: usize) -> Result<W, OpError> {
    match kind {
        ReduceKind::Mean => sum.div(W::from_i128(count as i128)),
        ReduceKind::L2 => Ok(W::from_f64(sum.to_f64().sqrt())),
        _ => Ok(sum),
    }
}

/// The plain loop for f32, computed in f64.
fn reduce_f32(
    kind: ReduceKind,
    (outer, inner, count): &(Walk<1>, Walk<1>, usize),
    x: &[f32],
    y: &mut [f32],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    let mut results = y.iter_mut();
    outer.try_each(pace, |[at]| {
        let mut sum: f64 = start(kind, DType::F32);
        inner.try_each(pace, |[offset]| {
            sum = step(kind, sum, f64::from(*x.get(at + offset).ok_or(OpError::Operand(0))?));
            Ok(())
        })?;
        *results.next().ok_or(OpError::Operand(0))? = finish(kind, sum, *count)? as f32;
        Ok(())
    })
}

/// The plain loop for elements of type `dtype`, computed in `W`.
fn reduce_wide<W: Wide>(
    kind: ReduceKind,
    dtype: DType,
    (outer, inner, count): &(Walk<1>, Walk<1>, usize),
    x: &[u8],
    y: &mut [u8],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    let mut wide = [W::ZERO; CHUNK];
    let mut results = y.chunks_exact_mut(dtype.size());
    outer.try_each(pace, |[at]| {
        // Out of range if there are no elements.
        let x = x.get(at * dtype.size()..).unwrap_or_default();
        let mut sum = start::<W>(kind, dtype);
        inner.try_chunks(pace, &mut |[offsets]| {
            W::load(dtype, x, offsets, &mut wide)?;
            sum = wide[..offsets.len()].iter().fold(sum, |sum, &v| step(kind, sum, v));
            Ok(())
        })?;
        W::store(dtype, &[finish(kind, sum, *count)?], results.next().ok_or(OpError::Operand(0))?)?;
        Ok(())
    })
}

/// The plain loop for any type.
fn reduce_any(
    kind: ReduceKind,
    dtype: DType,
    walks: &(Walk<1>, Walk<1>, usize),
    x: &[u8],
    y: &mut [u8],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    by_wide!(dtype, W => reduce_wide::<W>(kind, dtype, walks, x, y, pace), else Err(not_a_number()))
}

/// Partial results of a row at a time: one would wait for each of its additions.
const PARTS: usize = 8;

/// Reduces rows of `count` f32 elements, which are adjacent in memory, in f64. The bytes of a file may be unaligned.
fn reduce_rows(kind: ReduceKind, count: usize, x: &[[u8; 4]], y: &mut [u8]) -> Result<(), OpError> {
    // Squares and magnitudes were taken already.
    let join = match kind {
        ReduceKind::SumSquare | ReduceKind::L1 | ReduceKind::L2 => ReduceKind::Sum,
        kind => kind,
    };
    let value = |bytes: [u8; 4]| f64::from(f32::from_ne_bytes(bytes));
    for (row, y) in x.chunks_exact(count).zip(y.as_chunks_mut().0) {
        let mut parts = [start::<f64>(kind, DType::F32); PARTS];
        let (groups, rest) = row.as_chunks::<PARTS>();
        for group in groups {
            for (part, &v) in parts.iter_mut().zip(group) {
                *part = step(kind, *part, value(v));
            }
        }
        for (part, &v) in parts.iter_mut().zip(rest) {
            *part = step(kind, *part, value(v));
        }
        let sum = parts[1..].iter().fold(parts[0], |sum, &part| step(join, sum, part));
        *y = (finish(kind, sum, count)? as f32).to_ne_bytes();
    }
    Ok(())
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
            return Err(OpError::Attribute { name: "axes", reason: format!("{} of {}", list(&self.axes), x.shape) });
        }
        let dims = x.shape.iter().enumerate().filter_map(|(axis, &dim)| match self.axes.contains(&axis) {
            true => self.keep_dims.then_some(1),
            false => Some(dim),
        });
        Ok(vec![Fact::new(x.dtype, Shape::new(&dims.collect::<Vec<_>>())?)])
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
        Ok(match dtype {
            DType::F32 => {
                Box::new(move |io: &mut Io<'_, '_>| reduce_f32(kind, &walks, io.input(0)?, io.output(0)?, &io.pace()))
            }
            _ => Box::new(move |io: &mut Io<'_, '_>| {
                reduce_any(kind, dtype, &walks, io.input_bytes(0)?, io.output_bytes(0)?, &io.pace())
            }),
        })
    }
}

impl Semantics for Reduce {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let fact = self.infer(&[x.fact()])?.remove(0);
        if let (DType::F32, Some(count)) = (fact.dtype, self.row(x.shape())) {
            let (elements, _) = x.bytes().as_chunks();
            return Ok(vec![Tensor::written(fact, |y| reduce_rows(self.kind, count, elements, y))?]);
        }
        let walks = self.walks(x.shape());
        let dtype = fact.dtype;
        Ok(vec![Tensor::written(fact, |y| reduce_any(self.kind, dtype, &walks, x.bytes(), y, &Pace::free()))?])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        let rank = inputs.first().map_or(0, |x| x.shape.rank());
        let kept = (0..rank).filter(|axis| !self.axes.contains(axis));
        let links = kept.enumerate().map(|(at, axis)| Link::same(0, axis, if self.keep_dims { axis } else { at }));
        Axes::new(Elements::Mixed, links)
    }

    fn nhwc(&self) -> Nhwc {
        let of_images = self.axes.iter().all(|&axis| axis < NHWC_AXIS.len());
        // The remaining axes must stay in order.
        let left = (0..4).filter(|axis| !self.axes.contains(axis)).map(|axis| NHWC_AXIS[axis]);
        match of_images && (self.keep_dims || left.is_sorted()) {
            true => Nhwc::Can,
            false => Nhwc::Never,
        }
    }

    fn turn_to_nhwc(&mut self) {
        self.axes.iter_mut().for_each(|axis| *axis = NHWC_AXIS[*axis]);
        self.axes.sort_unstable();
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

    /// Rows are evaluated by a loop of their own.
    #[test]
    fn rows_are_reduced_like_other_axes() {
        let mut random = Random(16);
        for kind in ReduceKind::ALL {
            for (dims, axes) in [(vec![3, 21], vec![1]), (vec![1, 5, 40], vec![0, 2]), (vec![2, 4, 2, 1], vec![1, 2])] {
                let x = random.floats(&dims);
                let reduce = Reduce { axes, kind, keep_dims: true };
                let rows = check(reduce.clone(), std::slice::from_ref(&x), 2e-6);
                let walks = reduce.walks(x.shape());
                let plain = Tensor::written(rows[0].fact().clone(), |y| {
                    reduce_any(kind, DType::F32, &walks, x.bytes(), y, &Pace::free())
                });
                let plain = plain.unwrap();
                let mut pairs = rows[0].elements::<f32>().unwrap().iter().zip(plain.elements::<f32>().unwrap());
                assert!(pairs.all(|(a, b)| (a - b).abs() <= 1e-6 * b.abs()), "{kind:?}");
            }
        }
        let nan = Tensor::from_slice(&[1, 9], &[1f32, 2.0, f32::NAN, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0]).unwrap();
        for kind in [ReduceKind::Max, ReduceKind::Min] {
            let reduce = Reduce { axes: vec![1], kind, keep_dims: false };
            assert!(reduce.evaluate(&[&nan]).unwrap()[0].elements::<f32>().unwrap()[0].is_nan());
        }
    }

    #[test]
    fn a_mean_of_bytes_may_divide_by_more_than_a_byte() {
        let x = Tensor::from_slice(&[300, 1], &[-7i8; 300]).unwrap();
        let mean = Reduce { axes: vec![0], kind: ReduceKind::Mean, keep_dims: false };
        assert_eq!(check(mean, &[x], 0.0)[0].elements::<i8>(), Some(&[-7][..]));
    }

    #[test]
    fn the_largest_of_no_bytes_is_the_lowest_byte() {
        let x = Tensor::from_slice::<i8>(&[0, 1], &[]).unwrap();
        for (kind, of_none) in [(ReduceKind::Max, i8::MIN), (ReduceKind::Min, i8::MAX)] {
            let y = Reduce { axes: vec![0], kind, keep_dims: false }.evaluate(&[&x]).unwrap();
            assert_eq!(y[0].elements::<i8>(), Some(&[of_none][..]));
        }
    }

    #[test]
    fn sums_over_empty_axes_are_zero() {
        for dtype in [DType::F32, DType::F64, DType::I32] {
            let x = Tensor::zeros(Fact::new(dtype, Shape::new(&[2, 0, 4]).unwrap()));
            let sum = Reduce { axes: vec![1], kind: ReduceKind::Sum, keep_dims: true };
            let y = check(sum, &[x], 0.0);
            assert_eq!((y[0].shape().dims(), y[0].bytes().iter().all(|&byte| byte == 0)), (&[2, 1, 4][..], true));
        }
    }

    #[test]
    fn the_mean_of_no_integers_is_an_error() {
        let x = Tensor::from_slice::<i64>(&[0], &[]).unwrap();
        let mean = Reduce { axes: vec![0], kind: ReduceKind::Mean, keep_dims: false };
        assert!(mean.evaluate(&[&x]).is_err());
        assert!(Reduce { axes: vec![1], ..mean.clone() }.infer(&[x.fact()]).is_err());
        assert!(Reduce { axes: vec![0, 0], ..mean }.infer(&[x.fact()]).is_err());
    }
}
