//! Operators that select elements: constant indices must be in range, and steps must not be zero.

use super::call::Call;
use super::scope::PartialShape;
use crate::invalid::{Invalid, Rule, list};

/// Constant indices are in range along the axis.
pub(super) fn gather(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let Some(data) = call.shape(0) else {
        return Ok(());
    };
    let axis = call.axis(call.int("axis")?.unwrap_or(0), data.len())?;
    in_range(call, data.get(axis).copied().flatten())
}

/// GatherElements and ScatterElements: as Gather, and the indices have the rank of the data.
pub(super) fn elements(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let Some(data) = call.shape(0) else {
        return Ok(());
    };
    if call.shape(1).is_some_and(|indices| indices.len() != data.len()) {
        return Err(call.invalid(Rule::Shape, "data and indices differ in their number of dimensions"));
    }
    let axis = call.axis(call.int("axis")?.unwrap_or(0), data.len())?;
    in_range(call, data.get(axis).copied().flatten())
}

fn in_range(call: &Call<'_, '_>, size: Option<u64>) -> Result<(), Invalid> {
    let range = call.summary(1)?.and_then(|summary| summary.ints);
    let (Some(size), Some((min, max))) = (size, range) else {
        return Ok(());
    };
    let size = i64::try_from(size).unwrap_or(i64::MAX);
    for index in [min, max] {
        if index < -size || index >= size {
            return Err(call.invalid(Rule::Index, format!("index {index} is outside of a dimension of {size}")));
        }
    }
    Ok(())
}

/// GatherND and ScatterND: each index tuple, along the last dimension, addresses leading
/// dimensions of the data.
pub(super) fn tuples(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let batch = call.int_in("batch_dims", 0..=call.limits.max_rank as i64)?.unwrap_or(0);
    let batch = usize::try_from(batch).unwrap_or(0);
    let (Some(data), Some(indices)) = (call.shape(0), call.shape(1)) else {
        return Ok(());
    };
    let Some(width) = indices.last() else {
        return Err(call.invalid(Rule::Shape, "the indices have no dimensions"));
    };
    if batch >= data.len().max(1) || batch >= indices.len() {
        return call.bad_attribute("batch_dims", "is not below the rank of data and indices");
    }
    let Some(width) = width.and_then(|width| usize::try_from(width).ok()) else {
        return Ok(());
    };
    let addressed = data.get(batch..).and_then(|data| data.get(..width));
    let Some(addressed) = addressed.filter(|_| width > 0) else {
        return Err(
            call.invalid(Rule::Shape, format!("tuples of {width} indices do not fit a tensor of rank {}", data.len()))
        );
    };
    tuples_in_range(call, addressed)
}

/// Checks each constant tuple against the dimensions that it addresses. Many nodes may share one
/// tensor of indices, and this reads it for each of them, so it skips tensors of more than `MOST`
/// elements.
fn tuples_in_range(call: &Call<'_, '_>, addressed: &[Option<u64>]) -> Result<(), Invalid> {
    const MOST: u64 = 1 << 10;
    let Some(indices) = call.constant(1).filter(|constant| constant.len() <= MOST) else {
        return Ok(());
    };
    for (index, size) in indices.ints().into_iter().flatten().zip(addressed.iter().cycle()) {
        let Some(size) = size.and_then(|size| i64::try_from(size).ok()) else {
            continue;
        };
        if index < -size || index >= size {
            return Err(call.invalid(Rule::Index, format!("index {index} is outside of a dimension of {size}")));
        }
    }
    Ok(())
}

/// Starts, ends, axes and steps have equal length, no axis is repeated, and no step is zero.
pub(super) fn slice(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let from_attributes = call.has("starts");
    let [starts, ends, axes] = if from_attributes {
        [call.ints("starts")?, call.ints("ends")?, call.ints("axes")?]
    } else {
        [call.dims(1)?, call.dims(2)?, call.dims(3)?]
    };
    let steps = if from_attributes { None } else { call.dims(4)? };
    if !from_attributes && (call.input(1).is_none() || call.input(2).is_none()) {
        return Err(call.invalid(Rule::Arity, "Slice lacks its starts or ends"));
    }
    let lists = [&starts, &ends, &axes, &steps];
    let mut lengths = lists.iter().filter_map(|list| list.as_ref().map(Vec::len));
    if let Some(first) = lengths.next()
        && lengths.any(|length| length != first)
    {
        return Err(call.invalid(Rule::Shape, "starts, ends, axes and steps differ in length"));
    }
    if steps.iter().flatten().any(|step| *step == 0) {
        return Err(call.invalid(Rule::Index, "a step is zero"));
    }
    if steps.iter().flatten().any(|step| *step == i64::MIN) {
        return Err(call.invalid(Rule::Index, "a step cannot be negated"));
    }
    let rank = call.shape(0).map_or(call.limits.max_rank, |shape| shape.len());
    if starts.as_ref().is_some_and(|starts| starts.len() > rank) {
        return Err(call.invalid(Rule::Shape, format!("more axes are sliced than the rank of the input, {rank}")));
    }
    let mut seen = Vec::new();
    for axis in axes.into_iter().flatten() {
        let position = call.axis(axis, rank)?;
        if seen.contains(&position) {
            return Err(call.invalid(Rule::Index, format!("axis {axis} is repeated")));
        }
        seen.push(position);
    }
    Ok(())
}

/// `k` is at least 0 and at most the size of the axis.
pub(super) fn top_k(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let k = if call.has("k") { call.int("k")? } else { call.scalar(1) };
    if call.input(1).is_none() && !call.has("k") {
        return Err(call.invalid(Rule::Arity, "TopK lacks its k"));
    }
    let size = match &call.shape(0) {
        Some(shape) => size_along(call, shape, call.int("axis")?.unwrap_or(-1))?,
        None => None,
    };
    match (k, size) {
        (Some(k), _) if k < 0 => Err(call.invalid(Rule::Index, format!("k is {k}"))),
        (Some(k), Some(size)) if k.unsigned_abs() > size => {
            Err(call.invalid(Rule::Index, format!("k is {k}, but the axis has {size} elements")))
        }
        _ => Ok(()),
    }
}

fn size_along(call: &Call<'_, '_>, shape: &PartialShape, axis: i64) -> Result<Option<u64>, Invalid> {
    Ok(shape.get(call.axis(axis, shape.len())?).copied().flatten())
}

/// NonMaxSuppression: every image has boxes of four numbers, and of every class a score for each box.
pub(super) fn boxes(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let (Some(boxes), Some(scores)) = (call.full_shape(0), call.full_shape(1)) else {
        return Ok(());
    };
    match (boxes.as_slice(), scores.as_slice()) {
        (&[images, boxes, 4], &[scored, _, scores]) if images == scored && boxes == scores => Ok(()),
        _ => Err(call.invalid(Rule::Shape, format!("boxes {} have scores {}", list(&boxes), list(&scores)))),
    }
}
