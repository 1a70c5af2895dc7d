//! Gather: selects slices of a tensor by index along one axis ([ONNX
//! Gather](https://onnx.ai/onnx/operators/onnx__Gather.html)). Negative indices count from the end; an index out of
//! range is an error at run time.

use serde::{Deserialize, Serialize};
use skipstone_kernels::copy::copy;
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use crate::error::OpError;
use crate::operator::axes::{Axes, Elements, Link};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Element, Fact, Shape, Tensor};

/// A gather along an axis; inputs are the data and the indices (i64 or i32).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Gather {
    /// The axis of the data that the indices refer to.
    pub axis: usize,
}

/// An element type for indices.
pub(crate) trait Index: Element + Send + Sync {
    /// Its value.
    fn value(self) -> i64;
}

impl Index for i64 {
    fn value(self) -> i64 {
        self
    }
}

impl Index for i32 {
    fn value(self) -> i64 {
        i64::from(self)
    }
}

/// The position of `index` on an axis of length `dim`.
pub(crate) fn resolve(index: impl Index, dim: usize) -> Result<usize, OpError> {
    let index = index.value();
    let counted = if index < 0 {
        usize::try_from(index.unsigned_abs()).ok().and_then(|back| dim.checked_sub(back))
    } else {
        usize::try_from(index).ok().filter(|&i| i < dim)
    };
    counted.ok_or_else(|| OpError::Value(format!("index {index} is out of range for an axis of {dim}")))
}

/// An operand of indices, of either type.
#[derive(Clone, Copy)]
pub(super) enum Indices<'a> {
    Narrow(&'a [i32]),
    Wide(&'a [i64]),
}

impl<'a> Indices<'a> {
    /// The indices of a tensor.
    pub fn of(tensor: &'a Tensor) -> Result<Self, OpError> {
        Ok(match tensor.dtype() {
            DType::I32 => Self::Narrow(super::number::words(tensor)?),
            _ => Self::Wide(super::number::words(tensor)?),
        })
    }

    /// The indices of an operand of a running step.
    pub fn read(io: &Io<'a, '_>, operand: usize, narrow: bool) -> Result<Self, OpError> {
        Ok(if narrow { Self::Narrow(io.input(operand)?) } else { Self::Wide(io.input(operand)?) })
    }

    /// Their number.
    pub fn len(self) -> usize {
        match self {
            Self::Narrow(indices) => indices.len(),
            Self::Wide(indices) => indices.len(),
        }
    }

    /// The index at a position.
    pub fn get(self, at: usize) -> Result<i64, OpError> {
        let index = match self {
            Self::Narrow(indices) => indices.get(at).map(|&index| i64::from(index)),
            Self::Wide(indices) => indices.get(at).copied(),
        };
        index.ok_or(OpError::Operand(1))
    }
}

/// Refuses an input that is not of an index type.
pub(crate) fn index_type(index: usize, fact: &Fact) -> Result<(), OpError> {
    match fact.dtype {
        DType::I64 | DType::I32 => Ok(()),
        got => Err(OpError::Type { index, got, want: "i64 or i32" }),
    }
}

/// The data as `[outer, axis, inner]`, with the last in bytes.
#[derive(Clone, Copy)]
struct View {
    axis: usize,
    inner: usize,
}

fn gather<I: Index>(view: View, x: &[u8], indices: &[I], y: &mut [u8], pace: &Pace<'_>) -> Result<(), OpError> {
    let View { axis, inner } = view;
    if inner == 0 || y.is_empty() {
        return Ok(());
    }
    for (outer, y) in y.chunks_exact_mut(inner * indices.len()).enumerate() {
        for (&index, y) in indices.iter().zip(y.chunks_exact_mut(inner)) {
            let at = (outer * axis + resolve(index, axis)?) * inner;
            pace.spend(16)?;
            copy(x.get(at..at + inner).ok_or(OpError::Operand(0))?, y, pace)?;
        }
    }
    Ok(())
}

impl Gather {
    fn view(&self, x: &Fact) -> View {
        let inner = x.shape.iter().skip(self.axis + 1).product::<usize>() * x.dtype.size();
        View { axis: x.shape.get(self.axis).copied().unwrap_or(0), inner }
    }
}

impl Operator for Gather {
    fn name(&self) -> &str {
        "Gather"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x, indices] = exactly::<2, _>(inputs)?;
        index_type(1, indices)?;
        let (Some(before), Some(behind)) = (x.shape.get(..self.axis), x.shape.get(self.axis + 1..)) else {
            return Err(OpError::Attribute { name: "axis", reason: format!("{} of {}", self.axis, x.shape) });
        };
        Ok(vec![Fact::new(x.dtype, Shape::new(&[before, &indices.shape, behind].concat())?)])
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "gather".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x, indices] = exactly::<2, _>(&cx.inputs)?;
        let view = self.view(x);
        Ok(match indices.dtype {
            DType::I32 => Box::new(move |io: &mut Io<'_, '_>| {
                gather::<i32>(view, io.input_bytes(0)?, io.input(1)?, io.output_bytes(0)?, &io.pace())
            }),
            _ => Box::new(move |io: &mut Io<'_, '_>| {
                gather::<i64>(view, io.input_bytes(0)?, io.input(1)?, io.output_bytes(0)?, &io.pace())
            }),
        })
    }
}

impl Semantics for Gather {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x, indices] = exactly::<2, _>(inputs)?;
        let fact = self.infer(&[x.fact(), indices.fact()])?.remove(0);
        let view = self.view(x.fact());
        let y = Tensor::written(fact, |y| match (indices.elements::<i64>(), indices.elements::<i32>()) {
            (Some(indices), _) => gather(view, x.bytes(), indices, y, &Pace::free()),
            (_, Some(indices)) => gather(view, x.bytes(), indices, y, &Pace::free()),
            _ => Err(OpError::Operand(1)),
        });
        Ok(vec![y?])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        let [x, indices] = inputs else { return Axes::unknown() };
        let behind = |axis: usize| axis + indices.shape.rank() - 1;
        let links = (0..x.shape.rank()).filter(|&axis| axis != self.axis);
        let links = links.map(|axis| Link::same(0, axis, if axis < self.axis { axis } else { behind(axis) }));
        Axes::new(Elements::Moved, links)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check, check_fails};

    #[test]
    fn any_axis_and_any_width() {
        let mut random = Random(14);
        for dtype in [DType::F32, DType::F16, DType::I64, DType::U8] {
            for axis in 0..3 {
                let x = random.tensor(dtype, &[2, 3, 5]);
                let dim = x.shape()[axis] as i64;
                let indices = Tensor::from_slice(&[2, 2], &[0, dim - 1, -1, -dim]).unwrap();
                check(Gather { axis }, &[x.clone(), indices], 0.0);
                let scalar = Tensor::scalar(1i32);
                check(Gather { axis }, &[x, scalar], 0.0);
            }
        }
    }

    #[test]
    fn rows_of_a_table() {
        let table = Tensor::from_slice(&[3, 2], &[1f32, 2.0, 3.0, 4.0, 5.0, 6.0]).unwrap();
        let indices = Tensor::from_slice(&[2], &[2i64, -3]).unwrap();
        let y = check(Gather { axis: 0 }, &[table, indices], 0.0);
        assert_eq!(y[0].elements::<f32>(), Some(&[5.0, 6.0, 1.0, 2.0][..]));
    }

    #[test]
    fn an_index_out_of_range_is_an_error() {
        let table = Random(1).floats(&[3, 2]);
        for bad in [3, -4, i64::MAX, i64::MIN] {
            let indices = Tensor::from_slice(&[1], &[bad]).unwrap();
            check_fails(Gather { axis: 0 }, &[table.clone(), indices]);
        }
    }
}
