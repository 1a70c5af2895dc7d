//! Trim: the part of a tensor within the lengths that some of its axes have in a run, dense at the front of its bytes, as
//! a caller reads it. Each of the other axes is whole.

use serde::{Deserialize, Serialize};
use skipstone_kernels::copy::copy;
use skipstone_kernels::pace::Pace;

use super::length::one;
use super::number::words;
use crate::error::{OpError, list};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::reserve;
use crate::tensor::{Fact, MAX_RANK, Tensor};

/// The elements at indices below a length on each of some axes, one after the other, then zeros; inputs are the tensor,
/// and for each of these axes its length, an i64 of rank 0.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trim {
    /// The axes, ascending.
    pub axes: Vec<usize>,
}

const MISSING: OpError = OpError::Arity { want: "1 or more", got: 0 };

/// Bytes of zeros between two questions whether to stop.
const PART: usize = 1 << 16;

type Dims = heapless::Vec<usize, MAX_RANK>;

impl Trim {
    /// Copies the rows of `x` within `lens`; a row is what is dense in both.
    fn trim(&self, x: &Fact, bytes: &[u8], lens: &[usize], y: &mut [u8], pace: &Pace<'_>) -> Result<(), OpError> {
        let mut left: Dims = x.shape.iter().copied().collect();
        for (&axis, &len) in self.axes.iter().zip(lens) {
            let dim = left.get_mut(axis).ok_or(OpError::Operand(0))?;
            if len > *dim {
                return Err(OpError::Value(format!("a length is {len}, but the axis has {dim}")));
            }
            *dim = len;
        }
        // The last axis that is cut is the first of a row.
        let last = self.axes.last().copied().unwrap_or(0);
        let size = x.dtype.size();
        let strides = x.shape.strides();
        let row = left.iter().skip(last).product::<usize>() * size;
        let rows: usize = left.iter().take(last).product();
        let used = if row == 0 { 0 } else { rows * row };
        for number in 0..used / row.max(1) {
            let (mut at, mut rest) = (0, number);
            for axis in (0..last).rev() {
                let dim = left.get(axis).copied().unwrap_or(1).max(1);
                at += rest % dim * strides.get(axis).copied().unwrap_or(0) * size;
                rest /= dim;
            }
            pace.spend(16)?;
            let to = y.get_mut(number * row..(number + 1) * row).ok_or(OpError::Operand(0))?;
            copy(bytes.get(at..at + row).ok_or(OpError::Operand(0))?, to, pace)?;
        }
        for rest in y.get_mut(used..).ok_or(OpError::Operand(0))?.chunks_mut(PART) {
            pace.spend(PART / 4)?;
            rest.fill(0);
        }
        Ok(())
    }
}

fn length(len: &[i64]) -> Result<usize, OpError> {
    match len {
        &[len] => usize::try_from(len).map_err(|_| OpError::Value(format!("a length is {len}"))),
        _ => Err(OpError::Operand(1)),
    }
}

impl Operator for Trim {
    fn name(&self) -> &str {
        "Trim"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let x = *inputs.first().ok_or(MISSING)?;
        let lens = inputs.get(1..).unwrap_or_default();
        let ascending = self.axes.windows(2).all(|pair| pair[0] < pair[1]);
        if lens.len() != self.axes.len() || !ascending || self.axes.iter().any(|&axis| axis >= x.shape.rank()) {
            let reason = format!("{} of {} with {} lengths", list(&self.axes), x.shape, lens.len());
            return Err(OpError::Attribute { name: "axes", reason });
        }
        lens.iter().enumerate().try_for_each(|(index, len)| one(1 + index, len))?;
        Ok(vec![x.clone()])
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "trim".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let (this, fact) = (self.clone(), (*cx.inputs.first().ok_or(MISSING)?).clone());
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let mut lens = Dims::new();
            for index in 0..this.axes.len() {
                lens.push(length(io.input(1 + index)?)?).map_err(|_| OpError::Operand(1 + index))?;
            }
            this.trim(&fact, io.input_bytes(0)?, &lens, io.output_bytes(0)?, &io.pace())
        }))
    }
}

impl Semantics for Trim {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let facts: Vec<&Fact> = reserve::list(inputs.iter().map(|tensor| tensor.fact()))?;
        let fact = self.infer(&facts)?.remove(0);
        let x = *inputs.first().ok_or(MISSING)?;
        let lens = inputs.iter().skip(1).map(|len| length(words(len)?)).collect::<Result<Vec<_>, _>>()?;
        Ok(vec![Tensor::written(fact, |y| self.trim(x.fact(), x.bytes(), &lens, y, &Pace::free()))?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check, check_fails};
    use crate::tensor::DType;

    #[test]
    fn what_is_left_is_dense() {
        let x = Tensor::from_slice(&[2, 3], &[1i64, 2, 3, 4, 5, 6]).unwrap();
        let y = check(Trim { axes: vec![1] }, &[x.clone(), Tensor::scalar(2i64)], 0.0);
        assert_eq!(y[0].elements::<i64>(), Some(&[1, 2, 4, 5, 0, 0][..]));
        let y = check(Trim { axes: vec![0, 1] }, &[x.clone(), Tensor::scalar(1i64), Tensor::scalar(3i64)], 0.0);
        assert_eq!(y[0].elements::<i64>(), Some(&[1, 2, 3, 0, 0, 0][..]));
        check_fails(Trim { axes: vec![1] }, &[x.clone(), Tensor::scalar(4i64)]);
        check_fails(Trim { axes: vec![1] }, &[x, Tensor::scalar(-1i64)]);
    }

    /// By an index for each element.
    #[test]
    fn every_set_of_axes_is_cut() {
        let mut random = Random(5);
        for dtype in [DType::F32, DType::U8, DType::I64] {
            for axes in [vec![0], vec![2], vec![0, 2], vec![1, 2], vec![0, 1, 2], vec![1]] {
                let x = random.tensor(dtype, &[3, 5, 4]);
                let mut left = [3, 5, 4];
                for &axis in &axes {
                    left[axis] = random.below(left[axis] + 1);
                }
                let lens = axes.iter().map(|&axis| Tensor::scalar(left[axis] as i64));
                let inputs: Vec<Tensor> = std::iter::once(x.clone()).chain(lens).collect();
                let y = check(Trim { axes }, &inputs, 0.0).remove(0);
                let size = dtype.size();
                let mut want = Vec::new();
                for place in 0..60 {
                    let index = [place / 20, place / 4 % 5, place % 4];
                    if (0..3).all(|axis| index[axis] < left[axis]) {
                        want.extend_from_slice(&x.bytes()[place * size..(place + 1) * size]);
                    }
                }
                want.resize(60 * size, 0);
                assert_eq!(y.bytes(), want);
            }
        }
    }
}
