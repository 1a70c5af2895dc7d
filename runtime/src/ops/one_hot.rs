//! OneHot: one value at every index, another everywhere else
//! ([ONNX OneHot](https://onnx.ai/onnx/operators/onnx__OneHot.html)).

use serde::{Deserialize, Serialize};

use super::arity::exactly;
use super::gather::{Index, index_type, resolve};
use super::number::{by_width, filled, words};
use super::{BindContext, Choice, Execute, Io, Operator, PlanContext};
use crate::error::OpError;
use crate::tensor::{DType, Element, Fact, Shape, Tensor};

/// A new axis of `depth`, which holds `on` at the index (i64 or i32) and `off` elsewhere. An
/// index out of range has no `on`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct OneHot {
    /// Where the axis is inserted.
    pub axis: usize,
    /// Its length.
    pub depth: usize,
    /// A tensor of one element.
    pub off: Tensor,
    /// A tensor of one element of the same type.
    pub on: Tensor,
}

/// The result as `[outer, depth, inner]`, and its two values.
#[derive(Clone, Copy)]
struct Geometry<T> {
    depth: usize,
    inner: usize,
    off: T,
    on: T,
}

impl<T: Element> Geometry<T> {
    fn new(op: &OneHot, indices: &Shape) -> Result<Self, OpError> {
        let one = |value: &Tensor| words::<T>(value)?.first().copied().ok_or(OpError::Operand(0));
        let inner = indices.iter().skip(op.axis).product();
        Ok(Self { depth: op.depth, inner, off: one(&op.off)?, on: one(&op.on)? })
    }

    fn write<I: Index>(&self, indices: &[I], y: &mut [T]) -> Result<(), OpError> {
        y.fill(self.off);
        for (i, &index) in indices.iter().enumerate() {
            // Out of range is not an error here: ONNX wants all of them off.
            let Ok(index) = resolve(index, self.depth) else { continue };
            let (outer, column) = (i / self.inner, i % self.inner);
            let at = (outer * self.depth + index) * self.inner + column;
            *y.get_mut(at).ok_or(OpError::Operand(0))? = self.on;
        }
        Ok(())
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

    #[cfg(any(feature = "passes", test))]
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [indices] = exactly::<1, _>(inputs)?;
        let fact = self.infer(&[indices.fact()])?.remove(0);
        let y = by_width!(fact.dtype, T => {
            let geometry = Geometry::<T>::new(self, indices.shape())?;
            filled::<T>(fact, |y| match indices.elements::<i64>() {
                Some(indices) => geometry.write(indices, y),
                None => geometry.write::<i32>(words(indices)?, y),
            })?
        });
        Ok(vec![y])
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "one_hot".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [indices] = exactly::<1, _>(&cx.inputs)?;
        let narrow = indices.dtype == DType::I32;
        Ok(by_width!(self.on.dtype(), T => {
            let geometry = Geometry::<T>::new(self, &indices.shape)?;
            Box::new(move |io: &mut Io<'_, '_>| match narrow {
                true => geometry.write::<i32>(io.input(0)?, io.output(0)?),
                false => geometry.write::<i64>(io.input(0)?, io.output(0)?),
            })
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::check;

    #[test]
    fn the_index_is_on_and_out_of_range_is_off() {
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
