//! Concat: joins tensors along one axis
//! ([ONNX Concat](https://onnx.ai/onnx/operators/onnx__Concat.html)).

use serde::{Deserialize, Serialize};
use skipstone_kernels::copy::{Blocks, copy_blocks};

use super::image::NHWC_AXIS;
use crate::error::OpError;
use crate::operator::axes::{Axes, Elements, How, Link, Nhwc};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::reserve;
use crate::tensor::{Fact, Shape, Tensor};

/// Concatenation along an axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Concat {
    /// The axis.
    pub axis: usize,
}

impl Concat {
    /// The location of each input's bytes in the result, one block for every index of the axes before the axis.
    fn blocks(&self, inputs: &[&Fact], output: &Fact) -> Vec<Blocks> {
        let count: usize = output.shape.iter().take(self.axis).product();
        let bytes = |fact: &Fact| fact.shape.iter().skip(self.axis).product::<usize>() * fact.dtype.size();
        let to_step = bytes(output);
        let mut to = 0;
        inputs
            .iter()
            .map(|fact| {
                let len = bytes(fact);
                let blocks = Blocks { len, count, from: 0, from_step: len, to, to_step };
                to += len;
                blocks
            })
            .collect()
    }
}

impl Operator for Concat {
    fn name(&self) -> &str {
        "Concat"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [first, rest @ ..] = inputs else { return Err(OpError::Arity { want: "1 or more", got: 0 }) };
        let mut dims = first.shape.to_vec();
        for (index, fact) in (1..).zip(rest) {
            if fact.dtype != first.dtype {
                return Err(OpError::Type { index, got: fact.dtype, want: "the type of the first input" });
            }
            let alike = |(axis, (a, b)): (usize, (&usize, &usize))| axis == self.axis || a == b;
            if fact.shape.rank() != dims.len() || !dims.iter().zip(fact.shape.iter()).enumerate().all(alike) {
                return Err(OpError::shapes("only the joined axis may differ", &[&first.shape, &fact.shape]));
            }
            if let (Some(dim), Some(more)) = (dims.get_mut(self.axis), fact.shape.get(self.axis)) {
                *dim = dim.checked_add(*more).ok_or_else(|| OpError::TooLarge(format!("{dim} + {more}")))?;
            }
        }
        if self.axis >= dims.len() {
            return Err(OpError::Attribute { name: "axis", reason: format!("{} of {}", self.axis, first.shape) });
        }
        Ok(vec![Fact::new(first.dtype, Shape::new(&dims)?)])
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "copy_blocks".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let output = cx.outputs.first().ok_or(OpError::Operand(0))?;
        let blocks = self.blocks(&cx.inputs, output);
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let (y, pace) = (io.output_bytes(0)?, io.pace());
            for (i, blocks) in blocks.iter().enumerate() {
                copy_blocks(blocks, io.input_bytes(i)?, y, &pace)?;
            }
            Ok(())
        }))
    }
}

impl Semantics for Concat {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let facts: Vec<&Fact> = inputs.iter().map(|t| t.fact()).collect();
        let fact = self.infer(&facts)?.remove(0);
        let outer: usize = fact.shape.iter().take(self.axis).product();
        let mut bytes = reserve::empty(fact.bytes())?;
        for i in 0..outer {
            for x in inputs {
                let row = x.bytes().len() / outer;
                bytes.extend_from_slice(x.bytes().get(i * row..(i + 1) * row).ok_or(OpError::Operand(0))?);
            }
        }
        Ok(vec![Tensor::from_bytes(fact, &bytes)?])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        let mut at = 0;
        // A node may have thousands of operands.
        let count = inputs.iter().map(|fact| fact.shape.rank()).sum();
        let Ok(mut links) = reserve::empty(count) else { return Axes::unknown() };
        for (operand, fact) in inputs.iter().enumerate() {
            for axis in 0..fact.shape.rank() {
                let how = if axis == self.axis { How::At(at) } else { How::Same };
                links.push(Link { operand, from: axis, to: axis, how });
            }
            at += fact.shape.get(self.axis).copied().unwrap_or(0);
        }
        Axes::new(Elements::Moved, links)
    }

    fn nhwc(&self) -> Nhwc {
        if self.axis < NHWC_AXIS.len() { Nhwc::Can } else { Nhwc::Never }
    }

    fn turn_to_nhwc(&mut self) {
        self.axis = NHWC_AXIS[self.axis];
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};
    use crate::tensor::DType;

    #[test]
    fn any_axis_of_any_type() {
        let mut random = Random(9);
        for dtype in [DType::F32, DType::F16, DType::I64, DType::U8] {
            for axis in 0..3 {
                let inputs: Vec<Tensor> = [1, 0, 5]
                    .iter()
                    .map(|&len| {
                        let mut dims = [2, 3, 4];
                        dims[axis] = len;
                        random.tensor(dtype, &dims)
                    })
                    .collect();
                check(Concat { axis }, &inputs, 0.0);
            }
        }
    }

    #[test]
    fn rows_are_concatenated_side_by_side() {
        let a = Tensor::from_slice(&[2, 1], &[1i32, 2]).unwrap();
        let b = Tensor::from_slice(&[2, 2], &[3i32, 4, 5, 6]).unwrap();
        let y = check(Concat { axis: 1 }, &[a.clone(), b.clone()], 0.0);
        assert_eq!(y[0].elements::<i32>(), Some(&[1, 3, 4, 2, 5, 6][..]));
        assert!(Concat { axis: 0 }.infer(&[a.fact(), b.fact()]).is_err());
        assert!(Concat { axis: 2 }.infer(&[a.fact()]).is_err());
        assert!(Concat { axis: 0 }.infer(&[]).is_err());
    }
}
