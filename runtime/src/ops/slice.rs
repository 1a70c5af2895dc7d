//! Slice: every `step`th index of one axis, from `start`
//! ([ONNX Slice](https://onnx.ai/onnx/operators/onnx__Slice.html); a Split is a slice for each
//! part, a slice of several axes one node for each).

use serde::{Deserialize, Serialize};

use super::arity::exactly;
use super::image::NHWC_AXIS;
use super::strided::{BoxCopy, signed};
use crate::error::OpError;
use crate::operator::axes::{Axes, Elements, How, Left, Link, Nhwc};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::reserve;
use crate::tensor::{Fact, Shape, Tensor};

/// A slice of one axis: the result's index `i` is the input's `start + i * step`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Slice {
    /// The axis.
    pub axis: usize,
    /// The first index.
    pub start: usize,
    /// The number of indices.
    pub len: usize,
    /// The distance between indices; negative to go backwards, never 0.
    pub step: isize,
}

impl Slice {
    /// The slice for ONNX's `start`, `end` and `step` on an axis of length `dim`: negative bounds count from the end,
    /// and bounds out of range are clamped, a start to an element even if the slice goes backwards.
    #[must_use]
    pub fn from_bounds(axis: usize, dim: usize, start: i64, end: i64, step: i64) -> Option<Self> {
        let dim = i128::try_from(dim).ok()?;
        let (start, end, step) = (i128::from(start), i128::from(end), i128::from(step));
        let from_end = |bound: i128| if bound < 0 { bound + dim } else { bound };
        let (start, end, len) = if step > 0 {
            let (start, end) = (from_end(start).clamp(0, dim), from_end(end).clamp(0, dim));
            (start, end, (end - start + step - 1).div_euclid(step).max(0))
        } else if step < 0 {
            let (start, end) = (from_end(start).clamp(0, dim.max(1) - 1), from_end(end).clamp(-1, dim - 1));
            (start, end, if dim == 0 { 0 } else { (start - end - step - 1).div_euclid(-step).max(0) })
        } else {
            return None;
        };
        debug_assert!(len == 0 || start != end);
        // A single element needs no step, and large steps do not fit everywhere.
        let step = if len <= 1 { 1 } else { isize::try_from(step).ok()? };
        let start = if len == 0 { 0 } else { start };
        Some(Self { axis, start: usize::try_from(start).ok()?, len: usize::try_from(len).ok()?, step })
    }

    /// The input's index of the last element.
    fn last(&self) -> Option<usize> {
        let steps = isize::try_from(self.len.checked_sub(1)?).ok()?;
        self.start.checked_add_signed(self.step.checked_mul(steps)?)
    }
}

impl Operator for Slice {
    fn name(&self) -> &str {
        "Slice"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let mut dims = x.shape.to_vec();
        let Some(dim) = dims.get_mut(self.axis) else {
            return Err(OpError::Attribute { name: "axis", reason: format!("{} of {}", self.axis, x.shape) });
        };
        let inside = self.len == 0 || (self.start < *dim && self.last().is_some_and(|last| last < *dim));
        if !inside || self.step == 0 {
            let reason = format!("{} from {} by {} of {dim}", self.len, self.start, self.step);
            return Err(OpError::Attribute { name: "slice", reason });
        }
        *dim = self.len;
        Ok(vec![Fact::new(x.dtype, Shape::new(&dims)?)])
    }

    fn alias(&self, inputs: &[&Fact]) -> Option<usize> {
        let whole = |x: &&Fact| self.step == 1 && self.start == 0 && x.shape.get(self.axis) == Some(&self.len);
        inputs.first().is_some_and(whole).then_some(0)
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "copy_strided".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let [y] = exactly::<1, _>(&cx.outputs)?;
        let (from, to) = (x.shape.strides(), y.shape.strides());
        let first = from.get(self.axis).map_or(0, |stride| stride * self.start);
        let mut copy = BoxCopy::new(first, 0);
        for (axis, (&from, &to)) in from.iter().zip(&to).enumerate() {
            let step = if axis == self.axis { self.step } else { 1 };
            let from = signed(from).checked_mul(step).ok_or_else(|| OpError::TooLarge(x.shape.to_string()))?;
            copy.push(y.shape[axis], from, signed(to))?;
        }
        let size = x.dtype.size();
        Ok(Box::new(move |io: &mut Io<'_, '_>| copy.run(size, io.input_bytes(0)?, io.output_bytes(0)?, &io.pace())))
    }
}

impl Semantics for Slice {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let fact = self.infer(&[x.fact()])?.remove(0);
        let outer: usize = fact.shape.iter().take(self.axis).product();
        let inner = fact.shape.iter().skip(self.axis + 1).product::<usize>() * fact.dtype.size();
        let dim = x.shape().get(self.axis).copied().unwrap_or(0);
        let mut bytes = reserve::empty(fact.bytes())?;
        for i in 0..outer {
            for taken in 0..self.len {
                let index = self.start.wrapping_add_signed(self.step * signed(taken));
                let at = (i * dim + index) * inner;
                bytes.extend_from_slice(x.bytes().get(at..at + inner).ok_or(OpError::Operand(0))?);
            }
        }
        Ok(vec![Tensor::from_bytes(fact, &bytes)?])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        let mut axes = Axes::except(Elements::Moved, inputs, &[self.axis]);
        if self.step == 1 {
            axes.links.push(Link { operand: 0, from: self.axis, to: self.axis, how: How::From(self.start) });
        }
        axes
    }

    fn nhwc(&self) -> Nhwc {
        if self.axis < NHWC_AXIS.len() { Nhwc::Can } else { Nhwc::Never }
    }

    fn turn_to_nhwc(&mut self) {
        self.axis = NHWC_AXIS[self.axis];
    }

    fn narrow(&mut self, from: Left<'_>, to: Left<'_>) {
        if to.axis == self.axis {
            self.start = from.indices.iter().filter(|&&index| index < self.start).count();
            self.len = to.indices.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};
    use crate::tensor::DType;

    #[test]
    fn slices_agree_on_every_axis_and_step() {
        let mut random = Random(10);
        for dtype in [DType::F32, DType::F16, DType::I64, DType::U8] {
            for axis in 0..3 {
                let x = random.tensor(dtype, &[3, 5, 7]);
                let dim = x.shape()[axis];
                for (start, end, step) in [(0, dim as i64, 1), (1, 3, 1), (-1, i64::MIN, -1), (0, 99, 2), (-1, 0, -2)] {
                    check(Slice::from_bounds(axis, dim, start, end, step).unwrap(), std::slice::from_ref(&x), 0.0);
                }
            }
        }
    }

    #[test]
    fn bounds_mean_what_onnx_says() {
        let taken = |dim: usize, start, end, step| {
            let slice = Slice::from_bounds(0, dim, start, end, step).unwrap();
            (0..slice.len).map(|i| slice.start as isize + i as isize * slice.step).collect::<Vec<_>>()
        };
        assert_eq!(taken(5, 1, 4, 1), [1, 2, 3]);
        assert_eq!(taken(5, -2, i64::MAX, 1), [3, 4]);
        assert_eq!(taken(5, 0, 5, 2), [0, 2, 4]);
        assert_eq!(taken(5, 4, i64::MIN, -2), [4, 2, 0]);
        assert_eq!(taken(5, 9, -9, -3), [4, 1]);
        assert_eq!(taken(5, 3, 1, 1), [] as [isize; 0]);
        assert_eq!(taken(0, 0, 9, 1), [] as [isize; 0]);
        // A start before the axis is clamped to its first element, in either direction.
        assert_eq!(taken(5, -9, i64::MIN, -2), [0]);
        assert_eq!(taken(0, -1, i64::MIN, -1), [] as [isize; 0]);
        assert_eq!(taken(5, 0, 5, i64::MAX), [0]);
        assert!(Slice::from_bounds(0, 5, 0, 5, 0).is_none());
    }

    #[test]
    fn slices_beyond_the_axis_are_refused() {
        let fact = Random(1).floats(&[4]).fact().clone();
        for slice in [
            Slice { axis: 1, start: 0, len: 1, step: 1 },
            Slice { axis: 0, start: 2, len: 3, step: 1 },
            Slice { axis: 0, start: 1, len: 3, step: -1 },
            Slice { axis: 0, start: 0, len: usize::MAX, step: isize::MAX },
        ] {
            assert!(slice.infer(&[&fact]).is_err());
        }
    }
}
