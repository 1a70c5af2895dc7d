//! ScatterElements: writes one element for each index, along an axis ([ONNX
//! ScatterElements](https://onnx.ai/onnx/operators/onnx__ScatterElements.html), without a reduction: of equal indices
//! the last one wins).

use serde::{Deserialize, Serialize};
use skipstone_kernels::copy::copy;
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use super::gather::{Indices, index_type, resolve};
use super::walk::Walk;
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Tensor};

/// A copy of x with `y[.., indices[.., i, ..], ..] = updates[.., i, ..]`; inputs are x, the
/// indices and the updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScatterElements {
    /// The axis that indices refer to.
    pub axis: usize,
}

/// A walk over the updates together with the result's offset at index 0 of the axis.
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

    /// Calls `f` with the offset in the result for every index, and the index's number.
    pub(super) fn each(
        &self,
        indices: Indices<'_>,
        pace: &Pace<'_>,
        mut f: impl FnMut(usize, usize) -> Result<(), OpError>,
    ) -> Result<(), OpError> {
        let mut numbers = 0..indices.len();
        self.walk.try_each(pace, |[at]| {
            let number = numbers.next().ok_or(OpError::Operand(1))?;
            f(at + resolve(indices.get(number)?, self.dim)? * self.stride, number)
        })
    }

    /// Writes updates of `size` bytes each.
    fn scatter(
        &self,
        size: usize,
        indices: Indices<'_>,
        updates: &[u8],
        y: &mut [u8],
        pace: &Pace<'_>,
    ) -> Result<(), OpError> {
        self.each(indices, pace, |at, number| {
            let update = updates.get(number * size..(number + 1) * size).ok_or(OpError::Operand(2))?;
            y.get_mut(at * size..(at + 1) * size).ok_or(OpError::Operand(0))?.copy_from_slice(update);
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
            return Err(OpError::shapes("indices and updates must fit the data in all other axes", &shapes));
        }
        Ok(vec![(*x).clone()])
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "scatter_elements".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x, indices, updates] = exactly::<3, _>(&cx.inputs)?;
        let geometry = Geometry::new(self.axis, x, updates);
        let (narrow, size) = (indices.dtype == DType::I32, x.dtype.size());
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let (y, pace) = (io.output_bytes(0)?, io.pace());
            copy(io.input_bytes(0)?, y, &pace)?;
            geometry.scatter(size, Indices::read(io, 1, narrow)?, io.input_bytes(2)?, y, &pace)
        }))
    }
}

impl Semantics for ScatterElements {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x, indices, updates] = exactly::<3, _>(inputs)?;
        let fact = self.infer(&[x.fact(), indices.fact(), updates.fact()])?.remove(0);
        let geometry = Geometry::new(self.axis, x.fact(), updates.fact());
        let size = fact.dtype.size();
        let y = Tensor::written(fact, |y| {
            y.copy_from_slice(x.bytes());
            geometry.scatter(size, Indices::of(indices)?, updates.bytes(), y, &Pace::free())
        });
        Ok(vec![y?])
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
