//! OneHot: one value at every index, another everywhere else
//! ([ONNX OneHot](https://onnx.ai/onnx/operators/onnx__OneHot.html)).

use serde::{Deserialize, Serialize};
use skipstone_kernels::copy::fill;
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use super::gather::{Indices, index_type, resolve};
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Shape, Tensor};

/// A new axis of length `depth`, with `on` at the index (i64 or i32) and `off` elsewhere. An index out of range has no
/// `on`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OneHot {
    /// Position of the new axis.
    pub axis: usize,
    /// Its length.
    pub depth: usize,
    /// A tensor of one element.
    pub off: Tensor,
    /// A tensor of one element of the same type.
    pub on: Tensor,
}

impl OneHot {
    /// Writes the result, `[outer, depth, inner]`.
    fn write(&self, inner: usize, indices: Indices<'_>, y: &mut [u8], pace: &Pace<'_>) -> Result<(), OpError> {
        let (on, off) = (self.on.bytes(), self.off.bytes());
        fill(off, y, pace)?;
        for i in 0..indices.len() {
            pace.spend(16)?;
            // Out of range is not an error here: ONNX defines all elements as `off`.
            let Ok(index) = resolve(indices.get(i)?, self.depth) else { continue };
            let (outer, column) = (i / inner, i % inner);
            let at = ((outer * self.depth + index) * inner + column) * on.len();
            y.get_mut(at..at + on.len()).ok_or(OpError::Operand(0))?.copy_from_slice(on);
        }
        Ok(())
    }

    fn inner(&self, indices: &Shape) -> usize {
        indices.iter().skip(self.axis).product()
    }
}

impl Operator for OneHot {
    fn name(&self) -> &str {
        "OneHot"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [indices] = exactly::<1, _>(inputs)?;
        index_type(0, indices)?;
        let scalars = self.on.shape().elements() == 1 && self.off.shape().elements() == 1;
        if !scalars || self.on.dtype() != self.off.dtype() {
            return Err(OpError::shapes("two values of one type", &[self.off.shape(), self.on.shape()]));
        }
        let (Some(outer), Some(inner)) = (indices.shape.get(..self.axis), indices.shape.get(self.axis..)) else {
            return Err(OpError::Attribute { name: "axis", reason: format!("{} of {}", self.axis, indices.shape) });
        };
        Ok(vec![Fact::new(self.on.dtype(), Shape::new(&[outer, &[self.depth], inner].concat())?)])
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "one_hot".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [indices] = exactly::<1, _>(&cx.inputs)?;
        let (this, narrow, inner) = (self.clone(), indices.dtype == DType::I32, self.inner(&indices.shape));
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let indices = Indices::read(io, 0, narrow)?;
            this.write(inner, indices, io.output_bytes(0)?, &io.pace())
        }))
    }
}

impl Semantics for OneHot {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [indices] = exactly::<1, _>(inputs)?;
        let fact = self.infer(&[indices.fact()])?.remove(0);
        Ok(vec![Tensor::written(fact, |y| {
            self.write(self.inner(indices.shape()), Indices::of(indices)?, y, &Pace::free())
        })?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::check;

    #[test]
    fn negative_indices_count_from_the_end_and_others_select_nothing() {
        let indices = Tensor::from_slice(&[2, 2], &[0i64, 2, -1, 7]).unwrap();
        let hot = |axis| {
            let op = OneHot { axis, depth: 3, off: Tensor::scalar(0u8), on: Tensor::scalar(1u8) };
            check(op, std::slice::from_ref(&indices), 0.0).remove(0)
        };
        assert_eq!(hot(2).elements::<u8>(), Some(&[1, 0, 0, 0, 0, 1, 0, 0, 1, 0, 0, 0][..]));
        assert_eq!(hot(1).elements::<u8>(), Some(&[1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0][..]));
        assert_eq!(hot(0).shape().dims(), [3, 2, 2]);
    }
}
