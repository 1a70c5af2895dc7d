//! GatherElements: selects one element for each index, along an axis
//! ([ONNX GatherElements](https://onnx.ai/onnx/operators/onnx__GatherElements.html)).

use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use super::gather::{Indices, index_type, resolve};
use super::walk::Walk;
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Tensor};

/// `y[.., i, ..] = x[.., indices[.., i, ..], ..]`; inputs are the data and the indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatherElements {
    /// The axis that the indices refer to.
    pub axis: usize,
}

/// A walk over the indices together with the data's offset at index 0 of the axis.
#[derive(Clone)]
struct Geometry {
    walk: Walk<1>,
    dim: usize,
    stride: usize,
}

impl GatherElements {
    fn geometry(&self, x: &Fact, indices: &Fact) -> Geometry {
        let mut strides = x.shape.strides();
        let stride = strides.get(self.axis).copied().unwrap_or(0);
        if let Some(along) = strides.get_mut(self.axis) {
            *along = 0;
        }
        let dim = x.shape.get(self.axis).copied().unwrap_or(0);
        Geometry { walk: Walk::new(&indices.shape, [strides]), dim, stride }
    }
}

/// Elements are `size` bytes. Inlined, so that it is specialized for every constant size at the call.
#[inline(always)]
fn gather(
    geometry: &Geometry,
    size: usize,
    x: &[u8],
    indices: Indices<'_>,
    y: &mut [u8],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    let mut results = y.chunks_exact_mut(size).enumerate();
    geometry.walk.try_each(pace, |[at]| {
        let (number, y) = results.next().ok_or(OpError::Operand(1))?;
        let at = (at + resolve(indices.get(number)?, geometry.dim)? * geometry.stride) * size;
        y.copy_from_slice(x.get(at..at + size).ok_or(OpError::Operand(0))?);
        Ok(())
    })
}

impl Operator for GatherElements {
    fn name(&self) -> &str {
        "GatherElements"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x, indices] = exactly::<2, _>(inputs)?;
        index_type(1, indices)?;
        let mut pairs = x.shape.iter().zip(indices.shape.iter()).enumerate();
        let fits = x.shape.rank() == indices.shape.rank()
            && self.axis < x.shape.rank()
            && pairs.all(|(axis, (x, i))| axis == self.axis || i <= x);
        if !fits {
            return Err(OpError::shapes("indices must fit the data in all other axes", &[&x.shape, &indices.shape]));
        }
        Ok(vec![Fact::new(x.dtype, indices.shape.clone())])
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "gather_elements".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x, indices] = exactly::<2, _>(&cx.inputs)?;
        let geometry = self.geometry(x, indices);
        let (narrow, size) = (indices.dtype == DType::I32, x.dtype.size());
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let (x, indices, y) = (io.input_bytes(0)?, Indices::read(io, 1, narrow)?, io.output_bytes(0)?);
            match size {
                4 => gather(&geometry, 4, x, indices, y, &io.pace()),
                _ => gather(&geometry, size, x, indices, y, &io.pace()),
            }
        }))
    }
}

impl Semantics for GatherElements {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x, indices] = exactly::<2, _>(inputs)?;
        let fact = self.infer(&[x.fact(), indices.fact()])?.remove(0);
        let geometry = self.geometry(x.fact(), indices.fact());
        let dtype = fact.dtype;
        Ok(vec![Tensor::written(fact, |y| {
            gather(&geometry, dtype.size(), x.bytes(), Indices::of(indices)?, y, &Pace::free())
        })?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check, check_fails};

    #[test]
    fn elements_are_picked_along_the_axis() {
        let x = Tensor::from_slice(&[3, 2], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let indices = Tensor::from_slice(&[2, 2], &[2i64, 0, -2, 1]).unwrap();
        let y = check(GatherElements { axis: 0 }, &[x, indices], 0.0);
        assert_eq!(y[0].elements::<f32>(), Some(&[5.0, 2.0, 3.0, 4.0][..]));
    }

    #[test]
    fn an_index_out_of_range_is_an_error() {
        let x = Random(1).tensor(DType::U8, &[3]);
        for bad in [3i32, -4, i32::MIN] {
            check_fails(GatherElements { axis: 0 }, &[x.clone(), Tensor::from_slice(&[1], &[bad]).unwrap()]);
        }
    }
}
