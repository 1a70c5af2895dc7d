//! Resize of f64: an axis times the matrix of the weights of its elements.

use super::super::build::Halt;
use super::super::call::Call;
use crate::graph::ValueId;
use crate::ops::contract::Contract;
use crate::ops::resize_axis::ResizeAxis;
use crate::tensor::DType;

/// `x` resized along the axis of `op`, of which no crop is outside.
pub(in super::super) fn along_axis(cx: &mut Call<'_, '_>, x: ValueId, op: ResizeAxis) -> Result<ValueId, Halt> {
    let (axis, dims) = (op.axis, cx.shape(x).to_vec());
    let len = dims[axis];
    let ones = (0..len).flat_map(|row| (0..len).map(move |column| f32::from(u8::from(row == column))));
    let unit = cx.collected(&[len, len], ones)?;
    let weights = cx.add(ResizeAxis { axis: 0, ..op }, &[unit])?;
    let weights = cx.cast(weights, DType::F64)?;
    // Labels: an axis by its position, the resized one 100.
    let a: Vec<u8> = (0..dims.len() as u8).collect();
    let (mut y, axis) = (a.clone(), axis as u8);
    y[usize::from(axis)] = 100;
    cx.add(Contract { a, b: vec![100, axis], y }, &[x, weights])
}
