//! Matrix products as the front end has them: a sum over axes with names.

use tract_onnx::tract_core::ops::einsum::EinSum;

use super::reshape::Reshape;
use super::transpose::Transpose;
use crate::error::{OpError, Result};
use crate::graph::ValueId;
use crate::onnx::lower::Lowering;
use crate::tensor::Shape;

/// An axis of a product: its length and where it stands in the operands and the result.
pub(super) struct Axis {
    len: usize,
    pub a: Option<usize>,
    pub b: Option<usize>,
    y: Option<usize>,
}

/// The axes of a product of two operands, by who has them.
pub(super) struct Product {
    /// Of both operands and the result.
    pub batch: Vec<Axis>,
    /// Of the first operand and the result.
    pub m: Vec<Axis>,
    /// Of the second operand and the result.
    pub n: Vec<Axis>,
    /// Of both operands: summed over.
    pub k: Vec<Axis>,
    y: Shape,
}

impl Product {
    /// The product that the front end's node is; `None` where it is something else.
    pub fn of(cx: &Lowering<'_>) -> Option<Self> {
        let mut product = Self { batch: vec![], m: vec![], n: vec![], k: vec![], y: cx.output(0)?.shape };
        for axis in axes(cx, cx.op::<EinSum>()?)? {
            match (axis.a, axis.b, axis.y) {
                (Some(_), Some(_), Some(_)) => product.batch.push(axis),
                (Some(_), None, Some(_)) => product.m.push(axis),
                (None, Some(_), Some(_)) => product.n.push(axis),
                (Some(_), Some(_), None) => product.k.push(axis),
                // A sum over one operand alone, or an axis of length 1 that is nobody's.
                _ if axis.len == 1 => {}
                _ => return None,
            }
        }
        product.batch.sort_by_key(|axis| axis.y);
        product.m.sort_by_key(|axis| axis.y);
        product.n.sort_by_key(|axis| axis.y);
        product.k.sort_by_key(|axis| axis.a);
        Some(product)
    }

    /// The lengths of all axes of batch, m, n and k together.
    pub fn lens(&self) -> [usize; 4] {
        [&self.batch, &self.m, &self.n, &self.k].map(|axes| len(axes))
    }

    /// An operand with its axes in the order of `groups`, one axis for each; `of` says where the operand has an axis.
    pub fn operand(
        &self,
        cx: &mut Lowering<'_>,
        mut value: ValueId,
        groups: [&Vec<Axis>; 3],
        of: fn(&Axis) -> Option<usize>,
    ) -> Result<ValueId> {
        let order: Vec<usize> = groups.iter().flat_map(|axes| axes.iter()).filter_map(of).collect();
        // Axes that were left out have length 1: they may stand anywhere.
        let rank = cx.graph.fact(value).shape.rank();
        let missing = (0..rank).filter(|axis| !order.contains(axis));
        let full: Vec<usize> = missing.chain(order.iter().copied()).collect();
        if let (false, Some(transpose)) = (full.is_sorted(), Transpose::new(&full)) {
            value = cx.add(transpose, &[value])?;
        }
        let shape = Shape::new(&groups.map(|axes| len(axes))).map_err(at)?;
        cx.add(Reshape { shape }, &[value])
    }

    /// The result as the model has it, from one whose axes are those of `groups` in that order.
    pub fn result(&self, cx: &mut Lowering<'_>, value: ValueId, groups: [&Vec<Axis>; 3]) -> Result<Option<ValueId>> {
        let held: Vec<usize> = groups.iter().flat_map(|axes| axes.iter()).filter_map(|axis| axis.y).collect();
        let unit = (0..self.y.rank()).filter(|axis| !held.contains(axis));
        let held: Vec<usize> = unit.chain(held.iter().copied()).collect();
        let dims: Vec<usize> = held.iter().map(|&axis| self.y[axis]).collect();
        let mut value = cx.add(Reshape { shape: Shape::new(&dims).map_err(at)? }, &[value])?;
        let back: Vec<usize> = (0..held.len()).filter_map(|axis| held.iter().position(|&h| h == axis)).collect();
        if let (false, Some(transpose)) = (back.is_sorted(), Transpose::new(&back)) {
            value = cx.add(transpose, &[value])?;
        }
        Ok((cx.graph.fact(value).shape == self.y).then_some(value))
    }
}

fn len(axes: &[Axis]) -> usize {
    axes.iter().map(|axis| axis.len).product()
}

fn at(error: OpError) -> crate::Error {
    error.at("MatMul")
}

/// The axes of the first two operands and the result, an axis of length 1 that one operand only has to be broadcast
/// counted as missing from it.
fn axes(cx: &Lowering<'_>, einsum: &EinSum) -> Option<Vec<Axis>> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    einsum
        .axes
        .iter_all_axes()
        .map(|axis| {
            let only = |at: &[usize]| match at {
                [] => Some(None),
                &[one] => Some(Some(one)),
                _ => None,
            };
            let (mut in_a, mut in_b) = (only(axis.inputs.first()?)?, only(axis.inputs.get(1)?)?);
            let y = only(axis.outputs.first()?)?;
            let len_a = in_a.map_or(1, |i| a.shape[i]);
            let len_b = in_b.map_or(1, |i| b.shape[i]);
            if len_a != len_b {
                match (len_a, len_b) {
                    (1, _) => in_a = None,
                    (_, 1) => in_b = None,
                    _ => return None,
                }
            }
            Some(Axis { len: len_a.max(len_b), a: in_a, b: in_b, y })
        })
        .collect()
}
