//! ScatterElements: one element written for each index, along an axis
//! ([ONNX ScatterElements](https://onnx.ai/onnx/operators/onnx__ScatterElements.html), without
//! a reduction: of equal indices the last one counts).

use serde::{Deserialize, Serialize};

use super::arity::exactly;
use super::gather::{Index, index_type, resolve};
use super::number::{by_width, words};
use super::walk::Walk;
use super::{BindContext, Choice, Execute, Io, Operator, PlanContext};
use crate::error::OpError;
use crate::tensor::{DType, Fact, Tensor};

/// A copy of x with `y[.., indices[.., i, ..], ..] = updates[.., i, ..]`; inputs are x, the
/// indices and the updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScatterElements {
    /// The axis that indices point along.
    pub axis: usize,
}

/// A walk over the updates with the result's offset beside, standing at 0 along the axis.
#[derive(Clone)]
pub(super) struct Geometry {
    walk: Walk<1>,
    dim: usize,
    stride: usize,
}

impl Geometry {
    pub(super) fn new(axis: usize, x: &Fact, updates: &Fact) -> Self {
        let mut strides = x.shape.strides();
        let stride = strides.get(axis).copied().unwrap_or(0);
        if let Some(along) = strides.get_mut(axis) {
            *along = 0;
        }
        let dim = x.shape.get(axis).copied().unwrap_or(0);
        Self { walk: Walk::new(&updates.shape, [strides]), dim, stride }
    }

    /// Calls `f` with the offset in the result that every index points to.
    pub(super) fn each<I: Index>(
        &self,
        indices: &[I],
        mut f: impl FnMut(usize) -> Result<(), OpError>,
    ) -> Result<(), OpError> {
        let mut indices = indices.iter();
        self.walk.try_each(|[at]| {
            let &index = indices.next().ok_or(OpError::Operand(1))?;
            f(at + resolve(index, self.dim)? * self.stride)
        })
    }

    fn scatter<T: Copy, I: Index>(&self, indices: &[I], updates: &[T], y: &mut [T]) -> Result<(), OpError> {
        let mut updates = updates.iter();
        self.each(indices, |at| {
            *y.get_mut(at).ok_or(OpError::Operand(0))? = *updates.next().ok_or(OpError::Operand(2))?;
            Ok(())
        })
    }
}

impl Operator for ScatterElements {
    fn name(&self) -> &str {
        "ScatterElements"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x, indices, updates] = exactly::<3, _>(inputs)?;
        index_type(1, indices)?;
        if updates.dtype != x.dtype {
            return Err(OpError::Type { index: 2, got: updates.dtype, want: "the type of the first input" });
        }
        let mut pairs = x.shape.iter().zip(indices.shape.iter()).enumerate();
        let fits = indices.shape == updates.shape
            && x.shape.rank() == indices.shape.rank()
            && self.axis < x.shape.rank()
            && pairs.all(|(axis, (x, i))| axis == self.axis || i <= x);
        if !fits {
            let shapes = [&x.shape, &indices.shape, &updates.shape];
            return Err(OpError::shapes("indices and updates lie inside the data but for the axis", &shapes));
        }
        Ok(vec![(*x).clone()])
    }

    #[cfg(any(feature = "passes", test))]
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x, indices, updates] = exactly::<3, _>(inputs)?;
        let fact = self.infer(&[x.fact(), indices.fact(), updates.fact()])?.remove(0);
        let geometry = Geometry::new(self.axis, x.fact(), updates.fact());
        let y = by_width!(fact.dtype, T => {
            let mut y = words::<T>(x)?.to_vec();
            match indices.elements::<i64>() {
                Some(indices) => geometry.scatter(indices, words(updates)?, &mut y)?,
                None => geometry.scatter::<T, i32>(words(indices)?, words(updates)?, &mut y)?,
            }
            Tensor::from_bytes(fact, bytemuck::cast_slice(&y))?
        });
        Ok(vec![y])
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "scatter_elements".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x, indices, updates] = exactly::<3, _>(&cx.inputs)?;
        let geometry = Geometry::new(self.axis, x, updates);
        let narrow = indices.dtype == DType::I32;
        Ok(by_width!(x.dtype, T => Box::new(move |io: &mut Io<'_, '_>| {
            let y = io.output::<T>(0)?;
            y.copy_from_slice(io.input(0)?);
            match narrow {
                true => geometry.scatter::<T, i32>(io.input(1)?, io.input(2)?, y),
                false => geometry.scatter::<T, i64>(io.input(1)?, io.input(2)?, y),
            }
        })))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check, check_fails};

    #[test]
    fn elements_are_written_along_the_axis() {
        let x = Tensor::from_slice(&[2, 3], &[0f32; 6]).unwrap();
        let indices = Tensor::from_slice(&[2, 2], &[1i64, 2, -3, 2]).unwrap();
        let updates = Tensor::from_slice(&[2, 2], &[1f32, 2.0, 3.0, 4.0]).unwrap();
        let y = check(ScatterElements { axis: 1 }, &[x, indices, updates], 0.0);
        assert_eq!(y[0].elements::<f32>(), Some(&[0.0, 1.0, 2.0, 3.0, 0.0, 4.0][..]));
    }

    #[test]
    fn an_index_out_of_range_is_an_error() {
        let mut random = Random(23);
        for bad in [3i32, -4, i32::MIN] {
            let operands = [
                random.tensor(DType::U8, &[3]),
                Tensor::from_slice(&[1], &[bad]).unwrap(),
                random.tensor(DType::U8, &[1]),
            ];
            check_fails(ScatterElements { axis: 0 }, &operands);
        }
    }
}
