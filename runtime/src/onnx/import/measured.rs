//! Operators that move elements, for values with lengths of the run ([`lengths`](super::lengths)) and for bounds and
//! shapes that are computed in it.

use super::build::{Halt, Imported};
use super::call::Call;
use super::lengths::{Known, MAX_LENGTH, Measured};
use super::structure::dims_of;
use crate::error::OpError;
use crate::graph::ValueId;
use crate::operator::axes::{Axes, How};
use crate::ops::binary::BinaryKind;
use crate::ops::broadcast::{Expand, Tile};
use crate::ops::cast::Cast;
use crate::ops::compare::CompareKind;
use crate::ops::concat::Concat;
use crate::ops::reshape::Reshape;
use crate::ops::slice::Slice;
use crate::tensor::{DType, Shape};

/// A dimension of a computed shape.
pub(super) enum Target {
    Constant(usize),
    /// What is known of it, and its position in the shape.
    Computed(Known, usize),
}

impl Target {
    /// The largest it can be.
    pub fn planned(&self) -> usize {
        match self {
            Self::Constant(dim) => *dim,
            Self::Computed(known, _) => usize::try_from(known.high).unwrap_or(0),
        }
    }
}

/// The dimensions of a shape in operand `index`, computed ones if they have a largest value.
pub(super) fn targets(cx: &Call<'_, '_>, index: usize) -> Result<Vec<Target>, Halt> {
    let known = cx.known(index)?;
    let known = known.ok_or_else(|| cx.at(OpError::Value(format!("input {index} is missing"))))?;
    let mut targets = cx.reserve(known.len())?;
    for (at, known) in known.iter().enumerate() {
        targets.push(match known.constant() {
            Some(dim) => Target::Constant(dims_of(cx, &[dim])?[0]),
            None if (0..=MAX_LENGTH).contains(&known.high) => Target::Computed(*known, at),
            None => return Err(cx.unmeasured(&format!("dimension {at} of the shape"))),
        });
    }
    Ok(targets)
}

/// A range of integers whose ends are computed within known limits.
pub(super) fn measured_range(cx: &mut Call<'_, '_>, dtype: DType) -> Imported {
    let mut ends = [Known::of(0); 3];
    for (index, end) in ends.iter_mut().enumerate() {
        let id = cx.input(index)?;
        let known = cx.build.known(id).filter(|known| known.len() == 1);
        *end = known.ok_or_else(|| cx.dynamic(&format!("input {index}")))?[0];
    }
    let [start, limit, delta] = ends;
    let step = delta.constant().filter(|&step| step != 0);
    let step = step.ok_or_else(|| cx.dynamic("the step"))?;
    let far = match step > 0 {
        true => i128::from(limit.high) - i128::from(start.low),
        false => i128::from(start.high) - i128::from(limit.low),
    };
    let size = i128::from(step.unsigned_abs());
    let most = ((far + size - 1) / size).max(0);
    let Some(most) = usize::try_from(most).ok().filter(|_| most <= i128::from(MAX_LENGTH)) else {
        return Err(cx.unmeasured("the number of elements"));
    };
    let [first, last] = [cx.element(0, 0, start)?, cx.element(1, 0, limit)?];
    let far = if step > 0 { cx.count(BinaryKind::Sub, last, first)? } else { cx.count(BinaryKind::Sub, first, last)? };
    let round = cx.scalar(step.abs() - 1)?;
    let far = cx.count(BinaryKind::Add, far, round)?;
    let size = cx.scalar(step.abs())?;
    let count = cx.count(BinaryKind::Div, far, size)?;
    let zero = cx.scalar(0i64)?;
    let count = cx.count(BinaryKind::Max, count, zero)?;
    let count = cx.length_below(count, most as i64)?;
    // Up to a length, there are as many.
    let count = limit.same.filter(|_| start.constant() == Some(0) && step == 1).unwrap_or(count);
    let steps = cx.collected(&[most], (0..most as i64).map(|at| at.wrapping_mul(step)))?;
    let mut y = cx.binary(BinaryKind::Add, steps, first)?;
    if cx.constant_of(y).is_some() {
        let name = cx.name().to_owned();
        y = cx.build.add_raw(&name, Cast { to: DType::I64 }, &[y])?[0];
    }
    let y = cx.cast(y, dtype)?;
    cx.measure(y, 0, count);
    Ok(vec![y])
}

/// A new shape for a value with lengths of the run, or a computed one. Each axis with such a length stays an axis, or is
/// the first and is joined with the axes behind it, or split again: its elements are then the first ones.
pub(super) fn measured_reshape(cx: &mut Call<'_, '_>, x: ValueId) -> Imported {
    let asked = cx.known(1)?.ok_or_else(|| cx.at(OpError::Value("input 1 is missing".into())))?;
    let literal = cx.flag("allowzero", false)?;
    let from = cx.shape(x).to_vec();
    let unclear = |cx: &Call<'_, '_>| cx.dynamic("where the elements of a reshaped axis go");
    let lengths: Vec<Option<ValueId>> = (0..from.len()).map(|axis| cx.length(x, axis)).collect();
    // For every new axis: its planned dimension, and its length if a run knows it.
    let mut dims: Vec<(usize, Option<ValueId>)> = cx.reserve(asked.len())?;
    let mut open = None;
    for (axis, known) in asked.iter().enumerate() {
        let same = (0..from.len()).find(|&from| lengths[from].is_some_and(|len| known.is(len)));
        dims.push(match (known.constant(), same) {
            (Some(0), _) if !literal && axis < from.len() => (from[axis], lengths[axis]),
            (Some(-1), _) if open.is_none() => {
                open = Some(axis);
                (1, None)
            }
            (Some(dim), _) => (dims_of(cx, &[dim])?[0], None),
            (None, Some(same)) => (from[same], lengths[same]),
            (None, None) => return Err(unclear(cx)),
        });
    }
    let mut left: Vec<ValueId> = lengths.iter().copied().flatten().collect();
    for (_, len) in &dims {
        if let Some(len) = len {
            let Some(at) = left.iter().position(|other| other == len) else { return Err(unclear(cx)) };
            left.remove(at);
        }
    }
    let product = |dims: &[usize]| dims.iter().try_fold(1usize, |all, &dim| all.checked_mul(dim));
    let all: usize = from.iter().product();
    let mut planned: Vec<usize> = dims.iter().map(|(dim, _)| *dim).collect();
    let rest = product(&planned).filter(|&rest| rest > 0 && all.is_multiple_of(rest));
    if let Some(axis) = open {
        planned[axis] = all / rest.ok_or_else(|| unclear(cx))?;
    }
    if product(&planned) != Some(all) {
        return Err(unclear(cx));
    }
    // What the open axis is made of.
    let joined = match (left.as_slice(), open) {
        ([], _) => None,
        (&[len], Some(axis)) if lengths.iter().flatten().filter(|&&other| other == len).count() == 1 => {
            Some((len, axis))
        }
        _ => return Err(unclear(cx)),
    };
    let shape = Shape::new(&planned).map_err(|e| cx.at(e))?;
    let links = Axes::reshaped(cx.shape(x), &shape).links;
    let follows =
        |from: usize, to: usize| links.iter().any(|link| link.from == from && link.to == to && link.how == How::Same);
    let mut found: Vec<(usize, ValueId)> = Vec::new();
    for (from, len) in lengths.iter().enumerate() {
        let Some(len) = *len else { continue };
        let to = match joined {
            Some((other, axis)) if other == len => axis,
            _ => {
                let free = |&to: &usize| dims[to].1 == Some(len) && found.iter().all(|&(taken, _)| taken != to);
                (0..dims.len()).find(free).ok_or_else(|| unclear(cx))?
            }
        };
        if follows(from, to) || planned[to] == 1 && cx.shape(x)[from] == 1 {
            found.push((to, len));
            continue;
        }
        // The first axis of all, whose elements are the first: in groups of another size.
        let first = |dims: &[usize], axis: usize| dims[..axis].iter().all(|&dim| dim == 1);
        let only = lengths.iter().flatten().count() == 1 && first(cx.shape(x), from) && first(&planned, to);
        let (behind, beyond) = (cx.shape(x)[from + 1..].iter().product::<usize>(), planned[to + 1..].iter().product());
        if !only || beyond == 0 || joined.is_none() {
            return Err(unclear(cx));
        }
        let group = cx.scalar(behind as i64)?;
        let elements = cx.count(BinaryKind::Mul, len, group)?;
        let len = if behind.is_multiple_of(beyond) {
            let beyond = cx.scalar(beyond as i64)?;
            cx.count(BinaryKind::Div, elements, beyond)?
        } else {
            return Err(unclear(cx));
        };
        found.push((to, len));
    }
    let name = cx.name().to_owned();
    let y = cx.build.add_raw(&name, Reshape { shape }, &[x])?[0];
    for (axis, len) in found {
        cx.measure(y, axis, len);
    }
    Ok(vec![y])
}

/// A value with other axes of length 1; `to` is where each of its axes with a length of the run goes.
pub(super) fn moved_axes(
    cx: &mut Call<'_, '_>,
    x: ValueId,
    dims: &[usize],
    to: impl Fn(usize) -> Option<usize>,
) -> Result<ValueId, Halt> {
    if !cx.is_measured(x) {
        return cx.reshape(x, dims);
    }
    let shape = Shape::new(dims).map_err(|e| cx.at(e))?;
    let name = cx.name().to_owned();
    let measured = cx.build.lengths.of(x).to_vec();
    let y = cx.build.add_raw(&name, Reshape { shape }, &[x])?[0];
    for of in measured {
        if let Some(axis) = to(of.axis) {
            cx.measure(y, axis, of.len);
        }
    }
    Ok(y)
}

/// Concatenates values along an axis of which some have a length of the run: each begins where the one before it ends.
pub(super) fn measured_concat(cx: &mut Call<'_, '_>, axis: usize, inputs: &[ValueId]) -> Result<ValueId, Halt> {
    let name = cx.name().to_owned();
    let mut all: Option<ValueId> = None;
    for &next in inputs {
        let Some(before) = all else {
            all = Some(next);
            continue;
        };
        let (own, others) = (cx.shape(before)[axis] as i64, [before, next]);
        let lengths = [cx.length_of(before, axis)?, cx.length_of(next, axis)?];
        let shifted = cx.length(before, axis).is_some();
        // The other axes must have the same lengths.
        let mut rest = others.map(|id| cx.build.lengths.of(id).to_vec());
        rest.iter_mut().for_each(|of| of.retain(|of| of.axis != axis));
        if rest[0] != rest[1] {
            return Err(cx.dynamic("whether the lengths of the other axes are the same"));
        }
        let y = cx.build.add_raw(&name, Concat { axis }, &others)?[0];
        cx.build.lengths.set(y, rest[0].clone());
        let len = cx.count(BinaryKind::Add, lengths[0], lengths[1])?;
        all = Some(if shifted {
            let count = cx.shape(y)[axis];
            let steps = cx.steps(1, 0, count)?;
            let first = cx.compare(CompareKind::Less, steps, lengths[0])?;
            let own = cx.scalar(own)?;
            let skipped = cx.count(BinaryKind::Sub, own, lengths[0])?;
            let behind = cx.binary(BinaryKind::Add, steps, skipped)?;
            let places = cx.select(first, steps, behind)?;
            cx.gathered(y, axis, places, len)?
        } else {
            cx.measure(y, axis, len);
            y
        });
    }
    all.ok_or_else(|| cx.at(OpError::Value("there is nothing to concatenate".into())))
}

/// A slice of one axis whose bounds, or whose length, only the run knows; element `at` of the operands has the bounds.
pub(super) fn measured_slice(
    cx: &mut Call<'_, '_>,
    x: ValueId,
    axis: usize,
    at: usize,
    [start, end, step]: [Known; 3],
) -> Result<ValueId, Halt> {
    let dim = cx.shape(x)[axis] as i64;
    let len = cx.length_of(x, axis)?;
    let (zero, one) = (cx.scalar(0i64)?, cx.scalar(1i64)?);
    // Bounds beyond both ends are cut first, so that nothing overflows.
    let (low, high) = (cx.scalar(-dim - 1)?, cx.scalar(dim + 1)?);
    let from_end = |cx: &mut Call<'_, '_>, index: usize, known: Known| -> Result<ValueId, Halt> {
        let bound = cx.element(index, at, known)?;
        let bound = cx.clamped(bound, low, high)?;
        if known.low >= 0 {
            return Ok(bound);
        }
        let negative = cx.compare(CompareKind::Less, bound, zero)?;
        let counted = cx.count(BinaryKind::Add, bound, len)?;
        cx.select(negative, counted, bound)
    };
    let (first, last) = (from_end(cx, 1, start)?, from_end(cx, 2, end)?);
    if start.constant() == Some(0) && step.constant() == Some(1) {
        // Only the end moves.
        let most = usize::try_from(end.high).unwrap_or(0).min(dim.unsigned_abs() as usize);
        let most = if end.low >= 0 { most } else { dim.unsigned_abs() as usize };
        let len = cx.clamped(last, zero, len)?;
        let measured: Vec<Measured> = cx.build.lengths.of(x).iter().copied().filter(|of| of.axis != axis).collect();
        let name = cx.name().to_owned();
        let y = cx.build.add_raw(&name, Slice { axis, start: 0, len: most, step: 1 }, &[x])?[0];
        cx.build.lengths.set(y, measured);
        // Up to a length that is no longer than the axis, it is that one.
        let own = cx.length(x, axis);
        let len = match end.same.filter(|same| end.high <= dim && own.is_none_or(|own| own == *same)) {
            Some(same) => same,
            None => cx.length_below(len, most as i64)?,
        };
        cx.measure(y, axis, len);
        return Ok(y);
    }
    let step_value = cx.element(4, at, step)?;
    let step_value = cx.clamped(step_value, low, high)?;
    let minus = cx.scalar(-1i64)?;
    let before = cx.count(BinaryKind::Sub, len, one)?;
    let mut results = Vec::new();
    for forward in [true, false] {
        if forward && step.high < 0 || !forward && step.low > 0 {
            continue;
        }
        let (first, last) = if forward {
            (cx.clamped(first, zero, len)?, cx.clamped(last, zero, len)?)
        } else {
            let end = cx.count(BinaryKind::Max, before, zero)?;
            (cx.clamped(first, zero, end)?, cx.clamped(last, minus, before)?)
        };
        let (far, size) = if forward {
            (cx.count(BinaryKind::Sub, last, first)?, step_value)
        } else {
            (cx.count(BinaryKind::Sub, first, last)?, cx.count(BinaryKind::Sub, zero, step_value)?)
        };
        // In the direction that is not taken the size is negative.
        let size = cx.count(BinaryKind::Max, size, one)?;
        let round = cx.count(BinaryKind::Sub, size, one)?;
        let far = cx.count(BinaryKind::Add, far, round)?;
        let count = cx.count(BinaryKind::Div, far, size)?;
        results.push((first, cx.clamped(count, zero, len)?));
    }
    let (first, count) = match *results.as_slice() {
        [one] => one,
        [(ahead, count), (back, counted)] => {
            let forward = cx.compare(CompareKind::Less, zero, step_value)?;
            (cx.select(forward, ahead, back)?, cx.select(forward, count, counted)?)
        }
        _ => return Err(cx.attribute_error("steps", "is 0")),
    };
    let most = match step.constant() {
        Some(step) => dim.unsigned_abs().div_ceil(step.unsigned_abs().max(1)),
        None => dim.unsigned_abs(),
    };
    let count = cx.length_below(count, most as i64)?;
    let steps = cx.steps(1, 0, usize::try_from(most).unwrap_or(0))?;
    let moved = cx.binary(BinaryKind::Mul, steps, step_value)?;
    let places = cx.binary(BinaryKind::Add, moved, first)?;
    cx.gathered(x, axis, places, count)
}

/// Repeats a value to a computed shape, or along the other axes than those with lengths of the run.
pub(super) fn measured_expand(cx: &mut Call<'_, '_>, x: ValueId) -> Imported {
    let asked = targets(cx, 1)?;
    let rank = asked.len().max(cx.rank(x));
    let unclear = |cx: &Call<'_, '_>| cx.dynamic("whether an axis is repeated");
    let mut dims = vec![1; rank];
    let mut lengths = Vec::new();
    for (axis, planned) in dims.iter_mut().enumerate() {
        let own = (axis + cx.rank(x)).checked_sub(rank).map(|own| (cx.shape(x)[own], cx.length(x, own)));
        let target = (axis + asked.len()).checked_sub(rank).map(|at| &asked[at]);
        *planned = match (own, target) {
            (Some((dim, Some(len))), target) => {
                match target {
                    None | Some(Target::Constant(1)) => {}
                    Some(Target::Computed(known, _)) if known.is(len) => {}
                    Some(_) => return Err(unclear(cx)),
                }
                lengths.push((axis, len));
                dim
            }
            (Some((dim, None)), None | Some(Target::Constant(1))) => dim,
            (Some((1, None)) | None, Some(Target::Constant(dim))) => *dim,
            (Some((dim, None)), Some(Target::Constant(other))) if dim == *other => dim,
            (Some((1, None)) | None, Some(&Target::Computed(known, at))) => {
                lengths.push((axis, cx.computed_length(1, at, known)?));
                usize::try_from(known.high).unwrap_or(0)
            }
            (None, None) => 1,
            _ => return Err(unclear(cx)),
        };
    }
    let shape = Shape::new(&dims).map_err(|e| cx.at(e))?;
    let name = cx.name().to_owned();
    let y = cx.build.add_raw(&name, Expand { shape }, &[x])?[0];
    for (axis, len) in lengths {
        cx.measure(y, axis, len);
    }
    Ok(vec![y])
}

/// Tiles of computed numbers, or of a value with lengths of the run along its other axes.
pub(super) fn measured_tile(cx: &mut Call<'_, '_>, x: ValueId) -> Imported {
    let repeats = targets(cx, 1)?;
    if repeats.len() != cx.rank(x) {
        return Err(cx.at(OpError::Value(format!("{} repeats for {} axes", repeats.len(), cx.rank(x)))));
    }
    let mut lengths = Vec::new();
    for (axis, repeat) in repeats.iter().enumerate() {
        match (cx.length(x, axis), repeat) {
            (Some(len), Target::Constant(1)) => lengths.push((axis, len)),
            (Some(_), _) => return Err(cx.dynamic("where the tiles of an axis begin")),
            (None, Target::Constant(_)) => {}
            (None, &Target::Computed(known, at)) => {
                let count = cx.computed_length(1, at, known)?;
                let dim = cx.scalar(cx.shape(x)[axis] as i64)?;
                lengths.push((axis, cx.count(BinaryKind::Mul, count, dim)?));
            }
        }
    }
    let repeats = cx.list(repeats.iter().map(Target::planned))?;
    let name = cx.name().to_owned();
    let y = cx.build.add_raw(&name, Tile { repeats }, &[x])?[0];
    for (axis, len) in lengths {
        cx.measure(y, axis, len);
    }
    Ok(vec![y])
}
