//! Pad, in all of its modes: [`ops::pad`](crate::ops::pad) has the modes that copy or fill, crops are slices, and an axis
//! that wraps around is gathered.

use super::build::{Halt, Imported};
use super::call::Call;
use super::elementwise::expand_to;
use super::structure::MAX_MADE;
use super::table::{Entry, microsoft, standard};
use crate::graph::ValueId;
use crate::ops::gather::Gather;
use crate::ops::pad::{Pad, PadMode};
use crate::ops::slice::Slice;
use crate::tensor::{DType, Fact, Shape, Tensor};

pub(super) const OPERATORS: &[Entry] = &[standard(&["Pad"], pad), microsoft(&["Pad"], pad)];

/// Pads were an attribute before opset 11; negative ones crop.
fn pad(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let rank = cx.rank(x);
    let pads = match (cx.ints("pads")?, cx.ints("paddings")?) {
        (Some(pads), _) | (_, Some(pads)) => pads,
        _ => cx.required_integers(1)?,
    };
    let axes = match cx.integers(3)? {
        None => (0..rank).collect(),
        Some(axes) => cx.each_axis(&axes, rank)?,
    };
    if pads.len() != 2 * axes.len() {
        return Err(cx.attribute_error("pads", format!("has {} entries for {} axes", pads.len(), axes.len())));
    }
    let mut sides = vec![(0i64, 0i64); rank];
    for (&axis, (&before, &after)) in axes.iter().zip(pads.iter().zip(&pads[axes.len()..])) {
        sides[axis] = (before, after);
    }
    let mode = cx.text("mode")?.unwrap_or("constant");
    if mode == "wrap" {
        return wrapped(cx, x, &sides);
    }
    let mode = match mode {
        "constant" => {
            let value = pad_value(cx, x)?;
            let Some(known) = cx.constant_of(value) else { return padded_with(cx, x, &sides, value) };
            let fact = Fact::new(cx.dtype(x), Shape::default());
            let bytes = known.bytes().get(..fact.dtype.size()).unwrap_or_default();
            PadMode::Constant(Tensor::from_bytes(fact, bytes).map_err(|e| cx.at(e))?)
        }
        "edge" => PadMode::Edge,
        "reflect" => PadMode::Reflect,
        other => return Err(cx.attribute_error("mode", format!("is '{other}'"))),
    };
    Ok(vec![padded(cx, x, &sides, mode)?])
}

/// Pads with a value that is only known at run time: it replaces the padding of a mask.
fn padded_with(cx: &mut Call<'_, '_>, x: ValueId, sides: &[(i64, i64)], value: ValueId) -> Imported {
    let dims = cx.shape(x).to_vec();
    let zero = Tensor::zeros(Fact::new(cx.dtype(x), Shape::default()));
    let y = padded(cx, x, sides, PadMode::Constant(zero))?;
    let inside = cx.scalar(1u8)?;
    let inside = expand_to(cx, inside, &dims)?;
    let inside = padded(cx, inside, sides, PadMode::Constant(Tensor::scalar(0u8)))?;
    let inside = cx.cast(inside, DType::Bool)?;
    Ok(vec![cx.select(inside, y, value)?])
}

/// Elements before and after each axis; negative numbers crop.
fn padded(cx: &mut Call<'_, '_>, x: ValueId, sides: &[(i64, i64)], mode: PadMode) -> Result<ValueId, Halt> {
    // Pad the original input first, then crop.
    let grown: Vec<(usize, usize)> = sides
        .iter()
        .map(|&(before, after)| (before.max(0).unsigned_abs() as usize, after.max(0).unsigned_abs() as usize))
        .collect();
    let mut y = x;
    if grown.iter().any(|&pads| pads != (0, 0)) {
        y = cx.add(Pad { pads: grown, mode }, &[x])?;
    }
    for (axis, &(before, after)) in sides.iter().enumerate() {
        let (before, after) = (before.min(0).unsigned_abs() as usize, after.min(0).unsigned_abs() as usize);
        if (before, after) != (0, 0) {
            let dim = cx.shape(y)[axis];
            let len = dim.checked_sub(before).and_then(|len| len.checked_sub(after));
            let len = len.ok_or_else(|| cx.attribute_error("pads", format!("cut more than axis {axis} has")))?;
            y = cx.add(Slice { axis, start: if len == 0 { 0 } else { before }, len, step: 1 }, &[y])?;
        }
    }
    Ok(y)
}

/// The value to pad with, of rank 0 and in the type of the data.
fn pad_value(cx: &mut Call<'_, '_>, x: ValueId) -> Result<ValueId, Halt> {
    let dtype = cx.dtype(x);
    let value = match cx.optional(2) {
        None => {
            let value = cx.float("value", 0.0)?;
            cx.scalar(value)?
        }
        Some(value) => value,
    };
    let value = cx.reshape(value, &[])?;
    cx.cast(value, dtype)
}

/// Wraps around an axis as often as needed; negative pads crop first, so that what is cut off does not come back.
fn wrapped(cx: &mut Call<'_, '_>, x: ValueId, sides: &[(i64, i64)]) -> Imported {
    let mut y = x;
    for (axis, &(before, after)) in sides.iter().enumerate() {
        if (before, after) == (0, 0) {
            continue;
        }
        let dim = cx.shape(y)[axis] as i128;
        let (start, end) = (-i128::from(before), dim + i128::from(after));
        let first = start.max(0);
        let left = end.min(dim) - first;
        if end < start || end - start > MAX_MADE as i128 || left <= 0 {
            return Err(cx.attribute_error("pads", format!("({before}, {after}) are too large for an axis of {dim}")));
        }
        let places = cx.list((start..end).map(|at| (first + (at - first).rem_euclid(left)) as i64))?;
        let places = cx.elements(&[places.len()], &places)?;
        y = cx.add(Gather { axis }, &[y, places])?;
    }
    Ok(vec![y])
}
