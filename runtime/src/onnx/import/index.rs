//! Elements and blocks read or written by index.

use super::build::{Halt, Imported};
use super::call::Call;
use super::elementwise::cast_to;
use super::table::{Entry, standard};
use crate::error::OpError;
use crate::ops::accumulate::Accumulate;
use crate::ops::binary::BinaryKind;
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
    let Some(index) = single_index(cx) else { return cx.add_all(Gather { axis }, &[x, indices]) };
    let dim = cx.shape(x)[axis];
    let from_start = if index < 0 { index.saturating_add(dim as i64) } else { index };
    let Some(start) = usize::try_from(from_start).ok().filter(|&at| at < dim) else {
        return Err(cx.at(OpError::Value(format!("index {index} is outside of an axis of {dim}"))));
    };
    let dims = [&cx.shape(x)[..axis], cx.shape(indices), &cx.shape(x)[axis + 1..]].concat();
    let y = if dim == 1 { x } else { cx.add(Slice { axis, start, len: 1, step: 1 }, &[x])? };
    Ok(vec![cx.reshape(y, &dims)?])
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
    cx.add_all(GatherNd { batch_dims }, &[x, indices])
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

/// Depth and values must be constant.
fn one_hot(cx: &mut Call<'_, '_>) -> Imported {
    let (mut indices, depth, values) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let axis = cx.axis(-1, cx.rank(indices) + 1)?;
    let depth = cx.cast(depth, DType::I64)?;
    let Some(depth) = cx.constant_of(depth) else { return Err(cx.dynamic("the depth")) };
    let depth = match depth.elements::<i64>() {
        Some(&[depth]) => usize::try_from(depth).ok(),
        _ => None,
    };
    let depth = depth.ok_or_else(|| cx.attribute_error("depth", "must be a single integer, at least 0"))?;
    if !matches!(cx.dtype(indices), DType::I64 | DType::I32) {
        indices = cx.cast(indices, DType::I64)?;
    }
    let Some(held) = cx.constant_of(values) else { return Err(Halt::Foreign) };
    let size = held.dtype().size();
    let value = |at: usize| {
        let bytes = held.bytes().get(at * size..(at + 1) * size)?;
        Tensor::from_bytes(Fact::new(held.dtype(), Shape::default()), bytes).ok()
    };
    let (Some(off), Some(on), 2) = (value(0), value(1), held.shape().elements()) else {
        return Err(cx.shape_error("there must be two values: off and on", &[values]));
    };
    let y = cx.add(OneHot { axis, depth, off, on }, &[indices])?;
    let declared = cx.declared(values);
    if declared == cx.dtype(y) {
        return Ok(vec![y]);
    }
    cx.inputs = vec![Some(y)];
    cast_to(cx, declared)
}
