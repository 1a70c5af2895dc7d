//! Pad: adds elements around a tensor
//! ([ONNX Pad](https://onnx.ai/onnx/operators/onnx__Pad.html)).

use serde::{Deserialize, Serialize};
use skipstone_kernels::copy::fill;
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use super::number::{by_width, filled, words};
use super::strided::{BoxCopy, signed};
use crate::error::OpError;
use crate::operator::axes::{Axes, Elements, Nhwc};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::reserve;
use crate::tensor::{Fact, MAX_RANK, Shape, Tensor};

/// The values of the added elements.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum PadMode {
    /// A value: a tensor of one element, of the type of the input.
    Constant(Tensor),
    /// The nearest element of the input.
    Edge,
    /// The input mirrored at its first and last element, which are not repeated.
    Reflect,
}

/// Padding of every axis.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Pad {
    /// Elements added before and after, for every axis.
    #[serde(deserialize_with = "reserve::deserialize_list")]
    pub pads: Vec<(usize, usize)>,
    /// Their values.
    pub mode: PadMode,
}

impl Pad {
    /// The input's index along an axis of length `dim` for an index of the result; `None` for the constant value.
    fn source(mode: &PadMode, before: usize, dim: usize, index: usize) -> Option<usize> {
        let inside = index.checked_sub(before).filter(|&i| i < dim);
        match mode {
            PadMode::Constant(_) => inside,
            PadMode::Edge => Some(index.saturating_sub(before).min(dim.checked_sub(1)?)),
            PadMode::Reflect if inside.is_some() => inside,
            PadMode::Reflect if index < before => Some(before - index),
            // After the end: mirrored at the last element.
            PadMode::Reflect => (2 * dim + before).checked_sub(index + 2),
        }
    }

    /// The plain loop: reads the source of every element of the result.
    fn gather<T: Copy>(
        &self,
        (x, y_shape): (&Shape, &Shape),
        value: T,
        from: &[T],
        y: &mut [T],
        pace: &Pace<'_>,
    ) -> Result<(), OpError> {
        let strides = x.strides();
        let mut index = [0usize; MAX_RANK];
        for y in y {
            pace.spend(8 + 8 * self.pads.len())?;
            let mut at = Some(0);
            for (axis, &(before, _)) in self.pads.iter().enumerate() {
                let source = Self::source(&self.mode, before, x[axis], index[axis]);
                at = at.zip(source).map(|(at, i)| at + i * strides[axis]);
            }
            *y = match at {
                Some(at) => *from.get(at).ok_or(OpError::Operand(0))?,
                None => value,
            };
            for axis in (0..y_shape.rank()).rev() {
                index[axis] += 1;
                if index[axis] < y_shape[axis] {
                    break;
                }
                index[axis] = 0;
            }
        }
        Ok(())
    }

    fn value<T: crate::tensor::Element>(&self) -> Result<T, OpError> {
        match &self.mode {
            PadMode::Constant(value) => words(value)?.first().copied().ok_or(OpError::Operand(1)),
            PadMode::Edge | PadMode::Reflect => Ok(T::zeroed()),
        }
    }
}

impl Operator for Pad {
    fn name(&self) -> &str {
        "Pad"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let wrong = |reason: String| Err(OpError::Attribute { name: "pads", reason });
        if self.pads.len() != x.shape.rank() {
            return wrong(format!("{} axes of {}", self.pads.len(), x.shape));
        }
        let mut dims = Vec::with_capacity(self.pads.len());
        for (&dim, &(before, behind)) in x.shape.iter().zip(&self.pads) {
            let reach = match self.mode {
                PadMode::Constant(_) => usize::MAX,
                PadMode::Edge if dim > 0 => usize::MAX,
                PadMode::Edge => 0,
                PadMode::Reflect => dim.saturating_sub(1),
            };
            if before > reach || behind > reach {
                return wrong(format!("padding by {before} and {behind} is too large for an axis of {dim}"));
            }
            let padded = dim.checked_add(before).and_then(|dim| dim.checked_add(behind));
            dims.push(padded.ok_or_else(|| OpError::TooLarge(format!("{before} + {dim} + {behind}")))?);
        }
        if let PadMode::Constant(value) = &self.mode
            && (value.dtype() != x.dtype || value.shape().elements() != 1)
        {
            return Err(OpError::Type { index: 1, got: value.dtype(), want: "one element of the input's type" });
        }
        Ok(vec![Fact::new(x.dtype, Shape::new(&dims)?)])
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let kernel = match self.mode {
            PadMode::Constant(_) => "fill_copy_strided",
            PadMode::Edge => "pad_edge",
            PadMode::Reflect => "pad_reflect",
        };
        Ok(Choice { kernel: kernel.into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let [y] = exactly::<1, _>(&cx.outputs)?;
        let (from, to) = (x.shape.strides(), y.shape.strides());
        if let PadMode::Constant(value) = &self.mode {
            let first = self.pads.iter().zip(&to).map(|(&(before, _), &stride)| before * stride).sum();
            let mut copy = BoxCopy::new(0, first);
            for ((&dim, &from), &to) in x.shape.iter().zip(&from).zip(&to) {
                copy.push(dim, signed(from), signed(to))?;
            }
            let (size, value) = (x.dtype.size(), value.clone());
            return Ok(Box::new(move |io: &mut Io<'_, '_>| {
                let y = io.output_bytes(0)?;
                let pace = io.pace();
                fill(value.bytes(), y, &pace)?;
                copy.run(size, io.input_bytes(0)?, y, &pace)
            }));
        }
        let (pad, x_shape, y_shape) = (self.clone(), x.shape.clone(), y.shape.clone());
        Ok(by_width!(x.dtype, T => Box::new(move |io: &mut Io<'_, '_>| {
            pad.gather::<T>((&x_shape, &y_shape), 0, io.input(0)?, io.output(0)?, &io.pace())
        })))
    }
}

impl Semantics for Pad {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let fact = self.infer(&[x.fact()])?.remove(0);
        let shape = fact.shape.clone();
        let y = by_width!(fact.dtype, T => filled::<T>(fact, |y| {
            self.gather((x.shape(), &shape), self.value::<T>()?, words(x)?, y, &Pace::free())
        }))?;
        Ok(vec![y])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        let padded: Vec<usize> = (0..self.pads.len()).filter(|&axis| self.pads[axis] != (0, 0)).collect();
        Axes::except(Elements::Mixed, inputs, &padded)
    }

    fn nhwc(&self) -> Nhwc {
        if self.pads.len() == 4 { Nhwc::Can } else { Nhwc::Never }
    }

    fn turn_to_nhwc(&mut self) {
        // The channels move after rows and columns.
        self.pads[1..].rotate_left(1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};
    use crate::tensor::DType;

    #[test]
    fn every_mode_and_width_agrees() {
        let mut random = Random(11);
        for dtype in [DType::F32, DType::F16, DType::I64, DType::U8] {
            let value = random.tensor(dtype, &[]);
            for mode in [PadMode::Constant(value.clone()), PadMode::Edge, PadMode::Reflect] {
                let pads = vec![(1, 0), (2, 1), (0, 3)];
                check(Pad { pads, mode }, &[random.tensor(dtype, &[2, 3, 5])], 0.0);
            }
        }
    }

    #[test]
    fn modes_mean_what_onnx_says() {
        let x = Tensor::from_slice(&[3], &[1i32, 2, 3]).unwrap();
        let padded = |mode| {
            let y = check(Pad { pads: vec![(2, 2)], mode }, std::slice::from_ref(&x), 0.0);
            y[0].elements::<i32>().unwrap().to_vec()
        };
        assert_eq!(padded(PadMode::Constant(Tensor::scalar(9i32))), [9, 9, 1, 2, 3, 9, 9]);
        assert_eq!(padded(PadMode::Edge), [1, 1, 1, 2, 3, 3, 3]);
        assert_eq!(padded(PadMode::Reflect), [3, 2, 1, 2, 3, 2, 1]);
    }

    #[test]
    fn pads_that_do_not_fit_are_refused() {
        let x = Random(1).floats(&[3]);
        let refused = |pads, mode| Pad { pads, mode }.infer(&[x.fact()]).is_err();
        assert!(refused(vec![(3, 0)], PadMode::Reflect));
        assert!(refused(vec![(1, 1), (1, 1)], PadMode::Edge));
        assert!(refused(vec![(usize::MAX, 1)], PadMode::Edge));
        assert!(refused(vec![(1, 1)], PadMode::Constant(Tensor::scalar(1i64))));
    }
}
