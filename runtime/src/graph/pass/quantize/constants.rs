//! Weights and biases of a quantized product: constants after a Dequantize, perhaps with elements moved.

use super::super::super::ValueId;
use super::QuantizePass;
use crate::error::OpError;
use crate::operator::Semantics;
use crate::ops::Op;
use crate::ops::quantized::flip;
use crate::reserve;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// int8 weights with zero point 0.
pub(super) struct ByteWeights {
    /// The elements, in the shape that the product reads.
    pub bytes: Tensor,
    /// The scale of each element, or a single one for all.
    scales: Vec<f32>,
}

impl ByteWeights {
    /// Weights of filters with `depth` elements each, contiguous.
    pub fn of_filters(bytes: Tensor, scales: &[f32], depth: usize) -> Result<Self, OpError> {
        let scales = reserve::list(scales.iter().flat_map(|&scale| std::iter::repeat_n(scale, depth)))?;
        Ok(Self { bytes, scales })
    }

    /// The scale of each filter, if all weights of a filter have the same; `filter` returns the offsets of a filter's
    /// weights.
    pub fn scales(&self, filters: usize, filter: impl Fn(usize) -> usize) -> Option<Vec<f32>> {
        if let &[scale] = self.scales.as_slice() {
            return reserve::copies(scale, filters).ok();
        }
        let mut scales = reserve::copies(None, filters).ok()?;
        for (at, &scale) in self.scales.iter().enumerate() {
            let held = scales.get_mut(filter(at))?;
            if *held.get_or_insert(scale) != scale {
                return None;
            }
        }
        reserve::all(scales)
    }
}

impl QuantizePass<'_> {
    /// The operators between a Dequantize of a constant and `id`, from the last to the first, and its operands.
    fn constant_behind(&self, mut id: ValueId) -> Option<(Vec<Op>, usize, [ValueId; 3])> {
        let mut moves = Vec::new();
        loop {
            let node = self.writer(id)?;
            match (&node.op, node.inputs.as_slice()) {
                (Op::Reshape(_) | Op::Transpose(_), &[x]) => {
                    moves.push(node.op.clone());
                    id = x;
                }
                (Op::Dequantize(op), &[x, scale, zero]) => return Some((moves, op.axis, [x, scale, zero])),
                _ => return None,
            }
        }
    }

    /// The weights that `id` is dequantized from.
    pub(super) fn weights(&self, id: ValueId) -> Option<ByteWeights> {
        let (moves, axis, operands) = self.constant_behind(id)?;
        let [x, scale, zero] = operands.map(|id| self.graph.constant(id));
        let (x, scale, zero) = (x?, scale?, zero?);
        let mut bytes = match (x.dtype(), zero.bytes()) {
            (DType::I8, zeros) if zeros.iter().all(|&zero| zero == 0) => Tensor::clone(x),
            (DType::U8, zeros) if zeros.iter().all(|&zero| zero == 128) => {
                let signed = Fact::new(DType::I8, x.shape().clone());
                Tensor::collected(signed, x.bytes().iter().map(|&byte| flip(byte))).ok()?
            }
            _ => return None,
        };
        let values = scale.elements::<f32>()?;
        crate::ops::quantized::check_scales(values).ok()?;
        let mut scales = match values {
            &[one] => Tensor::scalar(one),
            several => spread(x.shape(), axis, several)?,
        };
        for op in moves.iter().rev() {
            bytes = op.evaluate(&[&bytes]).ok()?.into_iter().next()?;
            if values.len() > 1 {
                scales = op.evaluate(&[&scales]).ok()?.into_iter().next()?;
            }
        }
        Some(ByteWeights { bytes, scales: reserve::list(scales.peek::<f32>()?.iter()).ok()? })
    }

    /// The bias `id` in the given `units`, one per filter: the integers themselves if it was quantized that way,
    /// otherwise the nearest integers.
    pub(super) fn bias(&self, id: ValueId, units: &[f32]) -> Option<Vec<i32>> {
        let nearest = |value: f64, unit: f32| {
            let bias = (value / f64::from(unit)).round_ties_even();
            (bias.abs() < f64::from(1 << 30)).then_some(bias as i32)
        };
        let numbers: Vec<f64> = match self.graph.constant(id).and_then(|t| t.elements::<f32>()) {
            Some(values) => reserve::list(values.iter().map(|&v| v.into())).ok()?,
            None => {
                let (_, _, operands) = self.constant_behind(id)?;
                let [x, scale, zero] = operands.map(|id| self.graph.constant(id));
                let (x, scale, zero) = (x?.elements::<i32>()?, scale?.elements::<f32>()?, zero?.elements::<i32>()?);
                crate::ops::quantized::check_scales(scale).ok()?;
                if zero.iter().any(|&zero| zero != 0) || (scale.len() != 1 && scale.len() != x.len()) {
                    return None;
                }
                let value = |(i, &x): (usize, &i32)| f64::from(x) * f64::from(scale[i % scale.len()]);
                reserve::list(x.iter().enumerate().map(value)).ok()?
            }
        };
        match numbers.as_slice() {
            &[one] => reserve::all(units.iter().map(|&unit| nearest(one, unit))),
            all if all.len() == units.len() => reserve::all(all.iter().zip(units).map(|(&v, &unit)| nearest(v, unit))),
            _ => None,
        }
    }
}

/// The scales of an axis, one for every element.
fn spread(shape: &Shape, axis: usize, scales: &[f32]) -> Option<Tensor> {
    let inner = shape.iter().skip(axis + 1).product::<usize>().max(1);
    let count = scales.len();
    let all = (0..shape.elements()).map(|i| scales[i / inner % count]);
    Tensor::collected(Fact::new(DType::F32, shape.clone()), all).ok()
}
