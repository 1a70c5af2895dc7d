//! Operators whose result size depends on their data. Over constants they are computed here; in a run no plan could
//! place such a result, only one with all positions that NonZero may find ([`selected`](super::selected)).

use super::build::{Halt, Imported};
use super::call::Call;
use super::selected::positions;
use super::table::{Entry, standard};
use crate::graph::ValueId;
use crate::ops::gather::Gather;
use crate::reserve;
use crate::tensor::{DType, Tensor};

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["Compress"], compress),
    standard(&["NonZero"], non_zero),
    standard(&["Unique"], unique),
    standard(&["NonMaxSuppression"], non_max_suppression),
];

/// The slices of an axis, or elements, for which a constant condition is true.
fn compress(cx: &mut Call<'_, '_>) -> Imported {
    let (mut x, condition) = (cx.input(0)?, cx.input(1)?);
    let axis = match cx.has("axis") {
        true => cx.axis(0, cx.rank(x))?,
        false => {
            let elements = cx.shape(x).elements();
            x = cx.reshape(x, &[elements])?;
            0
        }
    };
    let Some(held) = cx.constant_of(condition) else {
        return Err(cx.dynamic("the number of elements that the condition keeps"));
    };
    if held.dtype() != DType::Bool || held.shape().rank() != 1 || held.bytes().len() > cx.shape(x)[axis] {
        return Err(cx.shape_error("a condition must have one axis, no longer than the data's", &[x, condition]));
    }
    let kept = cx.list((0i64..).zip(held.bytes()).filter_map(|(at, &holds)| (holds != 0).then_some(at)))?;
    let kept = cx.elements(&[kept.len()], &kept)?;
    cx.add_all(Gather { axis }, &[x, kept])
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
    let Some(values) = elements(cx, x)? else { return positions(cx, x) };
    let found = cx.list((0..values.len()).filter(|&at| values[at] != 0.0))?;
    let mut behind = values.len();
    let mut indices = cx.reserve(dims.len() * found.len())?;
    for &dim in &dims {
        behind /= dim.max(1);
        indices.extend(found.iter().map(|at| (at / behind.max(1) % dim.max(1)) as i64));
    }
    Ok(vec![cx.elements(&[dims.len(), found.len()], &indices)?])
}

/// Without a number of boxes for each class, none.
fn non_max_suppression(cx: &mut Call<'_, '_>) -> Imported {
    let most = match cx.optional(2) {
        None => Some(0),
        Some(most) if cx.constant_of(most).is_some() => cx.integer(2)?,
        Some(_) => None,
    };
    if most.is_some_and(|most| most <= 0) {
        return Ok(vec![cx.elements::<i64>(&[0, 3], &[])?]);
    }
    Err(Halt::Foreign)
}

/// The distinct elements of a constant, or distinct slices along an axis; with the index of the first occurrence of
/// each, the group of every element, and the size of each group.
fn unique(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let Some(values) = elements(cx, x)? else { return Err(cx.dynamic("the number of distinct elements")) };
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
