//! Blocks of a tensor addressed by tuples of indices: GatherND reads them, ScatterND writes them ([ONNX
//! GatherND](https://onnx.ai/onnx/operators/onnx__GatherND.html),
//! [ScatterND](https://onnx.ai/onnx/operators/onnx__ScatterND.html)). Negative indices count from the end; an index out
//! of range is an error at run time.

use serde::{Deserialize, Serialize};
use skipstone_kernels::copy::copy;
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use super::gather::resolve;
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, MAX_RANK, Shape, Tensor};

/// The blocks of x addressed by the rows of the indices (i64); inputs are x and the indices.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GatherNd {
    /// Leading axes shared by x and the indices, which indices do not address.
    pub batch_dims: usize,
}

/// A copy of x with the blocks addressed by the rows of the indices (i64) replaced; inputs are x, the indices and the
/// updates. Of equal rows the last one wins.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ScatterNd;

/// How tuples of indices address blocks of bytes.
#[derive(Clone, Debug)]
pub(super) struct AddressedBlocks {
    /// Bytes of x per batch element.
    batch: usize,
    /// Tuples per batch element.
    tuples: usize,
    /// Length of each addressed axis, and its stride in bytes.
    axes: heapless::Vec<(usize, usize), MAX_RANK>,
    /// Bytes of a block.
    block: usize,
}

impl AddressedBlocks {
    /// The geometry of indices of shape `[batch.., tuples.., axes]` into x.
    pub(super) fn new(x: &Fact, indices: &Shape, batch_dims: usize) -> Result<Self, OpError> {
        let wrong = || OpError::shapes("the last axis of the indices counts axes of the data", &[&x.shape, indices]);
        let (&pointed, outer) = indices.split_last().ok_or_else(wrong)?;
        let end = batch_dims.checked_add(pointed).filter(|&end| end <= x.shape.rank()).ok_or_else(wrong)?;
        let (Some(batch), Some(tuples)) = (outer.get(..batch_dims), outer.get(batch_dims..)) else {
            return Err(wrong());
        };
        if x.shape.get(..batch_dims) != Some(batch) {
            return Err(wrong());
        }
        let size = x.dtype.size();
        let strides = x.shape.strides();
        let axes = (batch_dims..end).map(|axis| (x.shape[axis], strides[axis] * size)).collect();
        Ok(Self {
            batch: x.shape[batch_dims..].iter().product::<usize>() * size,
            tuples: tuples.iter().product(),
            axes,
            block: x.shape[end..].iter().product::<usize>() * size,
        })
    }

    /// Calls `f` with the offset of every block in x, and the block's number.
    pub(super) fn each(
        &self,
        indices: &[i64],
        pace: &Pace<'_>,
        mut f: impl FnMut(std::ops::Range<usize>, usize) -> Result<(), OpError>,
    ) -> Result<(), OpError> {
        if self.block == 0 || indices.is_empty() && !self.axes.is_empty() {
            return Ok(());
        }
        for (number, tuple) in indices.chunks_exact(self.axes.len().max(1)).enumerate() {
            let mut at = number / self.tuples.max(1) * self.batch;
            for (&index, &(dim, step)) in tuple.iter().zip(&self.axes) {
                at += resolve(index, dim)? * step;
            }
            pace.spend(16 + 8 * self.axes.len())?;
            f(at..at + self.block, number)?;
        }
        Ok(())
    }

    fn gather(&self, x: &[u8], indices: &[i64], y: &mut [u8], pace: &Pace<'_>) -> Result<(), OpError> {
        self.each(indices, pace, |place, number| {
            let to = number * self.block;
            let y = y.get_mut(to..to + self.block).ok_or(OpError::Operand(0))?;
            Ok(copy(x.get(place).ok_or(OpError::Operand(0))?, y, pace)?)
        })
    }

    fn scatter(&self, indices: &[i64], updates: &[u8], y: &mut [u8], pace: &Pace<'_>) -> Result<(), OpError> {
        self.each(indices, pace, |place, number| {
            let from = number * self.block;
            let update = updates.get(from..from + self.block).ok_or(OpError::Operand(0))?;
            Ok(copy(update, y.get_mut(place).ok_or(OpError::Operand(0))?, pace)?)
        })
    }
}

/// Refuses indices that are not i64, or without an axis of tuples.
fn check_indices(indices: &Fact) -> Result<usize, OpError> {
    if indices.dtype != DType::I64 {
        return Err(OpError::Type { index: 1, got: indices.dtype, want: "i64" });
    }
    match indices.shape.last() {
        Some(&pointed) if pointed > 0 => Ok(pointed),
        _ => Err(OpError::Attribute { name: "indices", reason: format!("{} has no tuples", indices.shape) }),
    }
}

fn elements(indices: &Tensor) -> Result<&[i64], OpError> {
    super::number::words(indices)
}

impl Operator for GatherNd {
    fn name(&self) -> &str {
        "GatherND"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x, indices] = exactly::<2, _>(inputs)?;
        let pointed = check_indices(indices)?;
        AddressedBlocks::new(x, &indices.shape, self.batch_dims)?;
        let outer = &indices.shape[..indices.shape.rank() - 1];
        let dims = [outer, &x.shape[self.batch_dims + pointed..]].concat();
        Ok(vec![Fact::new(x.dtype, Shape::new(&dims)?)])
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "gather_nd".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x, indices] = exactly::<2, _>(&cx.inputs)?;
        let blocks = AddressedBlocks::new(x, &indices.shape, self.batch_dims)?;
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            blocks.gather(io.input_bytes(0)?, io.input(1)?, io.output_bytes(0)?, &io.pace())
        }))
    }
}

impl Semantics for GatherNd {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x, indices] = exactly::<2, _>(inputs)?;
        let fact = self.infer(&[x.fact(), indices.fact()])?.remove(0);
        let blocks = AddressedBlocks::new(x.fact(), indices.shape(), self.batch_dims)?;
        Ok(vec![Tensor::written(fact, |y| blocks.gather(x.bytes(), elements(indices)?, y, &Pace::free()))?])
    }
}

impl Operator for ScatterNd {
    fn name(&self) -> &str {
        "ScatterND"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x, indices, updates] = exactly::<3, _>(inputs)?;
        let wanted = GatherNd { batch_dims: 0 }.infer(&[x, indices])?;
        match wanted.as_slice() {
            [wanted] if wanted == *updates => Ok(vec![(*x).clone()]),
            _ => Err(OpError::shapes("one update for each tuple", &[&indices.shape, &updates.shape])),
        }
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "scatter_nd".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x, indices, _] = exactly::<3, _>(&cx.inputs)?;
        let blocks = AddressedBlocks::new(x, &indices.shape, 0)?;
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let (y, pace) = (io.output_bytes(0)?, io.pace());
            copy(io.input_bytes(0)?, y, &pace)?;
            blocks.scatter(io.input(1)?, io.input_bytes(2)?, y, &pace)
        }))
    }
}

impl Semantics for ScatterNd {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x, indices, updates] = exactly::<3, _>(inputs)?;
        let fact = self.infer(&[x.fact(), indices.fact(), updates.fact()])?.remove(0);
        let blocks = AddressedBlocks::new(x.fact(), indices.shape(), 0)?;
        let y = Tensor::written(fact, |y| {
            y.copy_from_slice(x.bytes());
            blocks.scatter(elements(indices)?, updates.bytes(), y, &Pace::free())
        });
        Ok(vec![y?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check, check_fails};

    fn tuples(dims: &[usize], indices: &[i64]) -> Tensor {
        Tensor::from_slice(dims, indices).unwrap()
    }

    #[test]
    fn blocks_are_read_by_tuple() {
        let x = Tensor::from_slice(&[2, 2, 2], &[0f32, 1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]).unwrap();
        let y = check(GatherNd { batch_dims: 0 }, &[x.clone(), tuples(&[2, 2], &[0, 1, -1, 0])], 0.0);
        assert_eq!(y[0].elements::<f32>(), Some(&[2.0, 3.0, 4.0, 5.0][..]));
        let y = check(GatherNd { batch_dims: 1 }, &[x, tuples(&[2, 1], &[1, 0])], 0.0);
        assert_eq!(y[0].elements::<f32>(), Some(&[2.0, 3.0, 4.0, 5.0][..]));
    }

    #[test]
    fn blocks_are_written_by_tuple() {
        let x = Tensor::from_slice(&[3, 2], &[0i32, 1, 2, 3, 4, 5]).unwrap();
        let updates = Tensor::from_slice(&[2, 2], &[9i32, 8, 7, 6]).unwrap();
        let y = check(ScatterNd, &[x, tuples(&[2, 1], &[2, -3]), updates], 0.0);
        assert_eq!(y[0].elements::<i32>(), Some(&[7, 6, 2, 3, 9, 8][..]));
    }

    #[test]
    fn bad_indices_are_errors() {
        let mut random = Random(22);
        let (x, update) = (random.floats(&[3, 2]), random.floats(&[1, 2]));
        for bad in [3, -4, i64::MIN] {
            check_fails(GatherNd { batch_dims: 0 }, &[x.clone(), tuples(&[1, 1], &[bad])]);
            check_fails(ScatterNd, &[x.clone(), tuples(&[1, 1], &[bad]), update.clone()]);
        }
        let indices = tuples(&[1, 3], &[0; 3]);
        assert!(GatherNd { batch_dims: 0 }.infer(&[x.fact(), indices.fact()]).is_err());
        assert!(GatherNd { batch_dims: 9 }.infer(&[x.fact(), indices.fact()]).is_err());
        assert!(ScatterNd.infer(&[x.fact(), tuples(&[1, 1], &[0]).fact(), x.fact()]).is_err());
    }
}
