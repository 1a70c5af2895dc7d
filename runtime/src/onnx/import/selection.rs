//! Operators whose result size depends on their data. Over constants they are computed here; in a run their results have
//! the largest size that they can have, and a length that the run knows ([`lengths`](super::lengths)). Where rows at the
//! positions that NonZero finds are computed and scattered again, all rows are ([`selected`](super::selected)).

use super::build::{Halt, Imported};
use super::call::Call;
use super::lengths::{Known, Rest};
use super::measured::moved_axes;
use super::selected::{MAX_POSITIONS, positions};
use super::table::{Entry, standard};
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::compare::CompareKind;
use crate::ops::concat::Concat;
use crate::ops::cumsum::CumSum;
use crate::ops::found::Found;
use crate::ops::gather::Gather;
use crate::ops::scatter_elements::ScatterElements;
use crate::ops::slice::Slice;
use crate::ops::suppress::Suppress;
use crate::ops::topk::TopK;
use crate::reserve;
use crate::tensor::{DType, Tensor};

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["Compress"], compress),
    standard(&["NonZero"], non_zero),
    standard(&["Unique"], unique),
    standard(&["NonMaxSuppression"], non_max_suppression),
];

/// The slices of an axis, or elements, for which a condition is true; what a condition has beyond the axis is not read, as
/// in ONNX Runtime.
fn compress(cx: &mut Call<'_, '_>) -> Imported {
    let (mut x, mut condition) = (cx.input(0)?, cx.input(1)?);
    if !cx.has("axis") && cx.is_measured(x) {
        return Err(cx.dynamic("where the elements of an axis begin"));
    }
    let axis = match cx.has("axis") {
        true => cx.axis(0, cx.rank(x))?,
        false => {
            let elements = cx.shape(x).elements();
            x = cx.reshape(x, &[elements])?;
            0
        }
    };
    if cx.dtype(condition) != DType::Bool || cx.rank(condition) != 1 {
        return Err(cx.shape_error("a condition must be bools along one axis", &[x, condition]));
    }
    if cx.constant_of(condition).is_none() || cx.length(x, axis).is_some() {
        condition = cx.filled(condition, &[0], Rest::Number(0.0))?;
        let dim = cx.shape(x)[axis];
        if cx.shape(condition)[0] > dim {
            condition = cx.add(Slice { axis: 0, start: 0, len: dim, step: 1 }, &[condition])?;
        }
        if let Some(len) = cx.length(x, axis) {
            let inside = cx.below(condition, 0, len)?;
            condition = cx.binary(BinaryKind::And, condition, inside)?;
        }
        let [kept, count] = found(cx, condition)?;
        return Ok(vec![cx.gathered(x, axis, kept, count)?]);
    }
    let Some(held) = cx.constant_of(condition) else { return Err(Halt::Foreign) };
    let dim = cx.shape(x)[axis] as i64;
    let kept = cx.list((0..dim).zip(held.bytes()).filter_map(|(at, &holds)| (holds != 0).then_some(at)))?;
    let kept = cx.elements(&[kept.len()], &kept)?;
    cx.add_all(Gather { axis }, &[x, kept])
}

/// The positions in a mask with one axis that are set, and their number.
fn found(cx: &mut Call<'_, '_>, mask: ValueId) -> Result<[ValueId; 2], Halt> {
    let name = cx.name().to_owned();
    let results = cx.build.add_raw(&name, Found, &[mask])?;
    let [positions, count] = <[ValueId; 2]>::try_from(results).map_err(|_| Halt::Foreign)?;
    cx.measure(positions, 0, count);
    Ok([positions, count])
}

/// The elements of a constant in order; `None` if it is not constant.
fn elements(cx: &mut Call<'_, '_>, x: ValueId) -> Result<Option<Vec<f64>>, Halt> {
    // Integers that f64 cannot represent are rare enough to be refused.
    let wide = cx.cast(x, DType::F64)?;
    let values = cx.constant_of(wide).and_then(Tensor::peek::<f64>);
    let values = values.map(|values| cx.list(values.iter())).transpose()?;
    Ok(values.filter(|values| values.iter().all(|value| value.abs() < 9e15 || !value.is_finite())))
}

/// The indices of nonzero elements, one row per axis.
fn non_zero(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let dims = cx.shape(x).to_vec();
    if dims.is_empty() {
        return Err(Halt::Foreign);
    }
    let values = match cx.is_measured(x) {
        true => None,
        false => elements(cx, x)?,
    };
    let Some(values) = values else {
        let all: usize = dims.iter().product();
        let compact = cx.build.compact || cx.is_measured(x) || all == 0 || all > MAX_POSITIONS;
        return if compact { compact_positions(cx, x) } else { positions(cx, x) };
    };
    let found = cx.list((0..values.len()).filter(|&at| values[at] != 0.0))?;
    let mut behind = values.len();
    let mut indices = cx.reserve(dims.len() * found.len())?;
    for &dim in &dims {
        behind /= dim.max(1);
        indices.extend(found.iter().map(|at| (at / behind.max(1) % dim.max(1)) as i64));
    }
    Ok(vec![cx.elements(&[dims.len(), found.len()], &indices)?])
}

/// The indices of nonzero elements, moved together, `[rank, count]`.
fn compact_positions(cx: &mut Call<'_, '_>, x: ValueId) -> Imported {
    let dims = cx.shape(x).to_vec();
    let all: usize = dims.iter().product();
    let axes: Vec<usize> = (0..dims.len()).collect();
    let mask = cx.cast(x, DType::Bool)?;
    let mask = cx.filled(mask, &axes, Rest::Number(0.0))?;
    let mask = cx.reshape(mask, &[all])?;
    let [positions, count] = found(cx, mask)?;
    let mut behind = all;
    let mut rows = cx.reserve(dims.len())?;
    for &dim in &dims {
        behind /= dim.max(1);
        let row = cx.with_number(BinaryKind::Div, positions, behind.max(1) as f64)?;
        let row = cx.with_number(BinaryKind::Rem, row, dim.max(1) as f64)?;
        rows.push(moved_axes(cx, row, &[1, all], |_| Some(1))?);
    }
    let y = match *rows.as_slice() {
        [one] => one,
        _ => {
            let name = cx.name().to_owned();
            cx.build.add_raw(&name, Concat { axis: 0 }, &rows)?[0]
        }
    };
    cx.measure(y, 1, count);
    Ok(vec![y])
}

/// The best boxes without those that overlap better ones. Without a number of boxes for each class, none.
fn non_max_suppression(cx: &mut Call<'_, '_>) -> Imported {
    let (boxes, scores) = (cx.input(0)?, cx.input(1)?);
    let most = match cx.optional(2) {
        None => Known::of(0),
        Some(id) => {
            let known = cx.build.known(id).filter(|known| known.len() == 1);
            known.ok_or_else(|| cx.shape_error("the number of boxes must be one integer", &[id]))?[0]
        }
    };
    if most.high <= 0 {
        return Ok(vec![cx.elements::<i64>(&[0, 3], &[])?]);
    }
    let centers = match cx.int("center_point_box", 0)? {
        0 => false,
        1 => true,
        other => return Err(cx.attribute_error("center_point_box", format!("is {other}"))),
    };
    let count = cx.shape(boxes).get(1).copied().unwrap_or(0);
    let most = usize::try_from(most.high).unwrap_or(count).min(count);
    let per_class = cx.input(2)?;
    let per_class = cx.reshape(per_class, &[])?;
    let mut inputs = vec![boxes, scores, per_class];
    for (index, required) in [(3, true), (4, false)] {
        match cx.optional(index) {
            Some(threshold) => inputs.push(threshold),
            None if required => inputs.push(cx.scalar(0f32)?),
            None => {}
        }
    }
    let op = Suppress { centers, most, threshold: inputs.len() == 5 };
    let name = cx.name().to_owned();
    let results = cx.build.add_raw(&name, op, &inputs)?;
    cx.measure(results[0], 0, results[1]);
    Ok(vec![results[0]])
}

/// The distinct elements of a tensor that only the run knows: those of its sorted elements that differ from the one
/// before them.
fn measured_unique(cx: &mut Call<'_, '_>, x: ValueId) -> Imported {
    let count = cx.shape(x).elements();
    if cx.has("axis") && cx.rank(x) != 1 {
        return Err(cx.dynamic("the number of distinct slices"));
    }
    if cx.is_measured(x) || count == 0 || cx.dtype(x) == DType::Bool {
        return Err(cx.dynamic("the number of distinct elements"));
    }
    let flat = cx.reshape(x, &[count])?;
    let smallest = TopK { axis: 0, k: count, largest: false };
    let sorted = cx.add_all(smallest, &[flat])?;
    let [values, order] = <[ValueId; 2]>::try_from(sorted).map_err(|_| Halt::Foreign)?;
    let own = cx.add(Slice { axis: 0, start: 1, len: count - 1, step: 1 }, &[values])?;
    let before = cx.add(Slice { axis: 0, start: 0, len: count - 1, step: 1 }, &[values])?;
    let differs = cx.compare(CompareKind::NotEqual, own, before)?;
    let begins = cx.elements(&[1], &[1u8])?;
    let begins = cx.cast(begins, DType::Bool)?;
    let begins = cx.add(Concat { axis: 0 }, &[begins, differs])?;
    // Of equal elements the first in the tensor comes first.
    let [places, groups] = found(cx, begins)?;
    let first = cx.gathered(order, 0, places, groups)?;
    let y = cx.gathered(values, 0, places, groups)?;
    let numbers = cx.cast(begins, DType::I64)?;
    let through = CumSum { axis: 0, exclusive: false, reverse: false };
    let numbers = cx.add(through, &[numbers])?;
    let numbers = cx.with_number(BinaryKind::Sub, numbers, 1.0)?;
    let zeros = cx.copies(0i64, count)?;
    let zeros = cx.elements(&[count], &zeros)?;
    let inverse = cx.add(ScatterElements { axis: 0 }, &[zeros, order, numbers])?;
    // Where the next group begins, or the elements end.
    let ends = cx.filled(places, &[0], Rest::Number(count as f64))?;
    let ends = cx.add(Slice { axis: 0, start: 1, len: count - 1, step: 1 }, &[ends])?;
    let end = cx.elements(&[1], &[count as i64])?;
    let ends = cx.add(Concat { axis: 0 }, &[ends, end])?;
    cx.measure(ends, 0, groups);
    let counts = cx.binary(BinaryKind::Sub, ends, places)?;
    if cx.flag("sorted", true)? {
        return Ok(vec![y, first, inverse, counts]);
    }
    // In the order of the first occurrence.
    let whole = cx.filled(first, &[0], Rest::Highest)?;
    let ranked = cx.add_all(smallest, &[whole])?;
    let [_, ranked] = <[ValueId; 2]>::try_from(ranked).map_err(|_| Halt::Foreign)?;
    let steps = cx.steps(1, 0, count)?;
    let rank = cx.add(ScatterElements { axis: 0 }, &[zeros, ranked, steps])?;
    let inverse = cx.add(Gather { axis: 0 }, &[rank, inverse])?;
    let name = cx.name().to_owned();
    let mut results = Vec::new();
    for of in [y, first, counts] {
        let of = cx.filled(of, &[0], Rest::Number(0.0))?;
        let moved = cx.build.add_raw(&name, Gather { axis: 0 }, &[of, ranked])?[0];
        cx.measure(moved, 0, groups);
        results.push(moved);
    }
    Ok(vec![results[0], results[1], inverse, results[2]])
}

/// The distinct elements of a constant, or distinct slices along an axis; with the index of the first occurrence of
/// each, the group of every element, and the size of each group.
fn unique(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let values = match cx.is_measured(x) {
        true => None,
        false => elements(cx, x)?,
    };
    let Some(values) = values else { return measured_unique(cx, x) };
    let dims = cx.shape(x).to_vec();
    let axis = if cx.has("axis") { Some(cx.axis(0, dims.len())?) } else { None };
    let (before, count, behind) = match axis {
        Some(axis) => (dims[..axis].iter().product(), dims[axis], dims[axis + 1..].iter().product::<usize>()),
        None => (1, values.len(), 1),
    };
    let slice = |at: usize| {
        let rows = (0..before).flat_map(|row| (0..behind).map(move |i| (row * count + at) * behind + i));
        cx.list(rows.filter_map(|place| values.get(place).copied()))
    };
    let mut slices = cx.reserve(count)?;
    for at in 0..count {
        slices.push(slice(at)?);
    }
    let compare = |a: &usize, b: &usize| {
        let pairs = slices[*a].iter().zip(&slices[*b]);
        // -0 is 0.
        let order = pairs.map(|(a, b)| (a + 0.0).total_cmp(&(b + 0.0))).find(|order| order.is_ne());
        order.unwrap_or(std::cmp::Ordering::Equal)
    };
    let mut sorted = cx.list(0..count)?;
    // A stable sort would need memory.
    sorted.sort_unstable_by(|a, b| compare(a, b).then(a.cmp(b)));
    // Equal ones are adjacent, in their original order.
    let mut groups: Vec<Vec<usize>> = cx.reserve(count)?;
    for at in sorted {
        match groups.last_mut() {
            Some(group) if compare(&group[0], &at).is_eq() => reserve::push(group, at).map_err(|e| cx.at(e))?,
            _ => groups.push(vec![at]),
        }
    }
    if !cx.flag("sorted", true)? {
        groups.sort_unstable_by_key(|group| group[0]);
    }
    let first = cx.list(groups.iter().map(|group| group[0] as i64))?;
    let counts = cx.list(groups.iter().map(|group| group.len() as i64))?;
    let mut inverse = cx.copies(0i64, count)?;
    for (number, group) in (0..).zip(&groups) {
        for &at in group {
            inverse[at] = number;
        }
    }
    let source = if axis.is_some() { x } else { cx.reshape(x, &[count])? };
    let [first, inverse, counts] = [first, inverse, counts].map(|values| cx.elements(&[values.len()], &values));
    let first = first?;
    let y = cx.add(Gather { axis: axis.unwrap_or(0) }, &[source, first])?;
    Ok(vec![y, first, inverse?, counts?])
}
