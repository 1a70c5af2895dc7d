//! Elements and blocks read or written by index.

use super::build::{Halt, Imported};
use super::call::Call;
use super::elementwise::cast_to;
use super::lengths::{MAX_LENGTH, Measured, Rest};
use super::measured::moved_axes;
use super::table::{Entry, standard};
use crate::error::OpError;
use crate::graph::ValueId;
use crate::ops::accumulate::Accumulate;
use crate::ops::binary::BinaryKind;
use crate::ops::compare::CompareKind;
use crate::ops::gather::Gather;
use crate::ops::gather_elements::GatherElements;
use crate::ops::indexed::{GatherNd, ScatterNd};
use crate::ops::one_hot::OneHot;
use crate::ops::scatter_elements::ScatterElements;
use crate::ops::slice::Slice;
use crate::tensor::{DType, Fact, Shape, Tensor};

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["Gather"], gather),
    standard(&["GatherElements"], gather_elements),
    standard(&["GatherND"], gather_nd),
    standard(&["ScatterElements", "Scatter"], scatter_elements),
    standard(&["ScatterND"], scatter_nd),
    standard(&["OneHot"], one_hot),
];

/// One constant index is a slice, which costs nothing if it is at the start of a tensor.
fn gather(cx: &mut Call<'_, '_>) -> Imported {
    let (x, indices) = (cx.input(0)?, cx.input(1)?);
    let axis = cx.axis(0, cx.rank(x))?;
    if cx.length(x, axis).is_some() || cx.is_measured(indices) {
        return measured_gather(cx, x, indices, axis);
    }
    let Some(index) = single_index(cx) else { return cx.add_all(Gather { axis }, &[x, indices]) };
    let dim = cx.shape(x)[axis];
    let from_start = if index < 0 { index.saturating_add(dim as i64) } else { index };
    let Some(start) = usize::try_from(from_start).ok().filter(|&at| at < dim) else {
        return Err(cx.at(OpError::Value(format!("index {index} is outside of an axis of {dim}"))));
    };
    let dims = [&cx.shape(x)[..axis], cx.shape(indices), &cx.shape(x)[axis + 1..]].concat();
    let y = if dim == 1 { x } else { cx.add(Slice { axis, start, len: 1, step: 1 }, &[x])? };
    let shift = cx.rank(indices);
    Ok(vec![moved_axes(cx, y, &dims, |from| if from > axis { (from + shift).checked_sub(1) } else { Some(from) })?])
}

/// Slices of an axis whose length only the run knows, or at indices of which it knows the number.
fn measured_gather(cx: &mut Call<'_, '_>, x: ValueId, indices: ValueId, axis: usize) -> Imported {
    let name = cx.name().to_owned();
    let mut indices = cx.cast(indices, DType::I64)?;
    let every: Vec<usize> = (0..cx.rank(indices)).collect();
    let measured = cx.build.lengths.of(indices).to_vec();
    indices = cx.filled(indices, &every, Rest::Number(0.0))?;
    if let Some(len) = cx.length(x, axis) {
        // One index can be checked.
        if cx.shape(indices).elements() != 1 || !measured.is_empty() {
            return Err(cx.dynamic("whether the indices are in range"));
        }
        let dims = cx.shape(indices).to_vec();
        let index = cx.reshape(indices, &[])?;
        let (zero, one) = (cx.scalar(0i64)?, cx.scalar(1i64)?);
        let negative = cx.compare(CompareKind::Less, index, zero)?;
        let counted = cx.count(BinaryKind::Add, index, len)?;
        let index = cx.select(negative, counted, index)?;
        let behind = cx.count(BinaryKind::Add, index, one)?;
        // At least 0, and below the length.
        let checked = cx.checked_length(index, len)?;
        let behind = cx.checked_length(behind, len)?;
        let at = cx.count(BinaryKind::Sub, behind, one)?;
        let at = cx.count(BinaryKind::Max, at, checked)?;
        indices = cx.reshape(at, &dims)?;
    }
    let shift = cx.rank(indices);
    let others: Vec<Measured> = cx.build.lengths.of(x).iter().copied().filter(|of| of.axis != axis).collect();
    let y = cx.build.add_raw(&name, Gather { axis }, &[x, indices])?[0];
    for of in others {
        cx.measure(y, if of.axis < axis { of.axis } else { of.axis + shift - 1 }, of.len);
    }
    for of in measured {
        cx.measure(y, axis + of.axis, of.len);
    }
    Ok(vec![y])
}

/// The only index, if it is constant.
fn single_index(cx: &Call<'_, '_>) -> Option<i64> {
    let tensor = cx.constant_of(cx.optional(1)?)?;
    match (tensor.elements::<i64>(), tensor.elements::<i32>()) {
        (Some(&[index]), _) => Some(index),
        (_, Some(&[index])) => Some(index.into()),
        _ => None,
    }
}

fn gather_elements(cx: &mut Call<'_, '_>) -> Imported {
    let (x, indices) = (cx.input(0)?, cx.input(1)?);
    let axis = cx.axis(0, cx.rank(x))?;
    cx.add_all(GatherElements { axis }, &[x, indices])
}

fn gather_nd(cx: &mut Call<'_, '_>) -> Imported {
    let (x, indices) = (cx.input(0)?, cx.input(1)?);
    let batch_dims = usize::try_from(cx.int("batch_dims", 0)?);
    let batch_dims = batch_dims.map_err(|_| cx.attribute_error("batch_dims", "is negative"))?;
    if !cx.is_measured(indices) && !cx.is_measured(x) {
        return cx.add_all(GatherNd { batch_dims }, &[x, indices]);
    }
    // Of tuples of which only the run knows the number.
    let measured = cx.build.lengths.of(indices).to_vec();
    if cx.is_measured(x) || batch_dims > 0 || measured.iter().any(|of| of.axis + 1 == cx.rank(indices)) {
        return Err(cx.dynamic("the length of an axis"));
    }
    let every: Vec<usize> = (0..cx.rank(indices)).collect();
    let indices = cx.filled(indices, &every, Rest::Number(0.0))?;
    let name = cx.name().to_owned();
    let y = cx.build.add_raw(&name, GatherNd { batch_dims }, &[x, indices])?[0];
    measured.into_iter().for_each(|of| cx.measure(y, of.axis, of.len));
    Ok(vec![y])
}

/// How updates are combined with existing elements; `None` if they replace them.
fn reduction(cx: &Call<'_, '_>) -> Result<Option<BinaryKind>, Halt> {
    Ok(match cx.text("reduction")? {
        None | Some("none") => None,
        Some("add") => Some(BinaryKind::Add),
        Some("mul") => Some(BinaryKind::Mul),
        Some("max") => Some(BinaryKind::Max),
        Some("min") => Some(BinaryKind::Min),
        Some(other) => return Err(cx.attribute_error("reduction", format!("is '{other}'"))),
    })
}

fn scatter_elements(cx: &mut Call<'_, '_>) -> Imported {
    let [x, indices, updates] = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let axis = cx.axis(0, cx.rank(x))?;
    let Some(kind) = reduction(cx)? else { return cx.add_all(ScatterElements { axis }, &[x, indices, updates]) };
    let indices = cx.cast(indices, DType::I64)?;
    cx.add_all(Accumulate { axis: Some(axis), kind }, &[x, indices, updates])
}

fn scatter_nd(cx: &mut Call<'_, '_>) -> Imported {
    let inputs = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    match reduction(cx)? {
        None => cx.add_all(ScatterNd, &inputs),
        Some(kind) => cx.add_all(Accumulate { axis: None, kind }, &inputs),
    }
}

/// A one-hot of values that a run computes: where it is on, the second of them.
fn selected_one_hot(
    cx: &mut Call<'_, '_>,
    [indices, values]: [ValueId; 2],
    (axis, depth): (usize, usize),
    len: Option<ValueId>,
) -> Imported {
    if cx.shape(values).dims() != [2] {
        return Err(cx.shape_error("there must be two values: off and on", &[values]));
    }
    let of_bool = |on: u8| Tensor::from_bytes(Fact::new(DType::Bool, Shape::default()), &[on]);
    let (off, on) = (of_bool(0).map_err(|e| cx.at(e))?, of_bool(1).map_err(|e| cx.at(e))?);
    let is_on = cx.add(OneHot { axis, depth, off, on }, &[indices])?;
    if let Some(len) = len {
        cx.measure(is_on, axis, len);
    }
    let mut value = |at: usize| {
        let one = cx.add(Slice { axis: 0, start: at, len: 1, step: 1 }, &[values])?;
        cx.reshape(one, &[])
    };
    let (off, on) = (value(0)?, value(1)?);
    Ok(vec![cx.select(is_on, on, off)?])
}

/// The depth must have a largest value.
fn one_hot(cx: &mut Call<'_, '_>) -> Imported {
    let (mut indices, depth, values) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let axis = cx.axis(-1, cx.rank(indices) + 1)?;
    let depth = cx.cast(depth, DType::I64)?;
    let mut computed = None;
    if cx.constant_of(depth).is_none() {
        let known = cx.build.known(depth).filter(|known| known.len() == 1).map(|known| known[0]);
        let known = known.filter(|known| (0..=MAX_LENGTH).contains(&known.high));
        let known = known.ok_or_else(|| cx.unmeasured("the depth"))?;
        let len = cx.reshape(depth, &[])?;
        let len = cx.length_below(len, known.high)?;
        // Negative indices count from the end, which only the run knows.
        indices = cx.cast(indices, DType::I64)?;
        let zero = cx.scalar(0i64)?;
        let negative = cx.compare(CompareKind::Less, indices, zero)?;
        let counted = cx.binary(BinaryKind::Add, indices, len)?;
        // One that is too small is none.
        let most = cx.scalar(known.high)?;
        let outside = cx.compare(CompareKind::Less, counted, zero)?;
        let counted = cx.select(outside, most, counted)?;
        indices = cx.select(negative, counted, indices)?;
        computed = Some((len, known.high));
    }
    let depth = match computed {
        Some((_, most)) => cx.scalar(most)?,
        None => depth,
    };
    let Some(depth) = cx.constant_of(depth) else { return Err(cx.dynamic("the depth")) };
    let depth = match depth.elements::<i64>() {
        Some(&[depth]) => usize::try_from(depth).ok(),
        _ => None,
    };
    let depth = depth.ok_or_else(|| cx.attribute_error("depth", "must be a single integer, at least 0"))?;
    if !matches!(cx.dtype(indices), DType::I64 | DType::I32) {
        indices = cx.cast(indices, DType::I64)?;
    }
    let Some(held) = cx.constant_of(values) else {
        return selected_one_hot(cx, [indices, values], (axis, depth), computed.map(|(len, _)| len));
    };
    let size = held.dtype().size();
    let value = |at: usize| {
        let bytes = held.bytes().get(at * size..(at + 1) * size)?;
        Tensor::from_bytes(Fact::new(held.dtype(), Shape::default()), bytes).ok()
    };
    let (Some(off), Some(on), 2) = (value(0), value(1), held.shape().elements()) else {
        return Err(cx.shape_error("there must be two values: off and on", &[values]));
    };
    let y = cx.add(OneHot { axis, depth, off, on }, &[indices])?;
    if let Some((len, _)) = computed {
        cx.measure(y, axis, len);
    }
    let declared = cx.declared(values);
    if declared == cx.dtype(y) {
        return Ok(vec![y]);
    }
    cx.inputs = vec![Some(y)];
    cast_to(cx, declared)
}
