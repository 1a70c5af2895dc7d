//! Operators that move or count elements: constants, shapes, slices, concatenation.

use super::build::{Halt, Imported};
use super::call::Call;
use super::elementwise::{cast_to, expand_to, one_element};
use super::lengths::Known;
use super::measured::{
    Target, measured_concat, measured_expand, measured_range, measured_reshape, measured_slice, measured_tile,
    moved_axes, targets,
};
use super::selected::count;
use super::table::{Entry, microsoft, standard};
use super::tensor;
use crate::error::{OpError, list};
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::broadcast::{Expand, Tile};
use crate::ops::cast::Cast;
use crate::ops::compare::CompareKind;
use crate::ops::concat::Concat;
use crate::ops::select::Select;
use crate::ops::slice::Slice;
use crate::ops::transpose::Transpose;
use crate::tensor::{DType, Fact, Shape, Tensor};

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["Constant"], constant),
    standard(&["ConstantOfShape"], constant_of_shape),
    standard(&["Shape"], shape),
    standard(&["Size"], size),
    standard(&["Range"], range),
    standard(&["EyeLike"], eye_like),
    standard(&["Identity"], identity),
    standard(&["Dropout"], dropout),
    standard(&["Reshape"], reshape),
    standard(&["Flatten"], flatten),
    standard(&["Squeeze"], squeeze),
    standard(&["Unsqueeze"], unsqueeze),
    standard(&["Transpose"], transpose),
    standard(&["Concat"], concat),
    standard(&["Split"], split),
    standard(&["Slice"], slice),
    standard(&["Expand"], expand),
    standard(&["Tile"], tile),
    standard(&["DepthToSpace"], depth_to_space),
    standard(&["SpaceToDepth"], space_to_depth),
    standard(&["Trilu"], trilu),
    standard(&["OptionalGetElement"], identity),
    microsoft(&["Range"], range_of_ones),
    microsoft(&["Trilu"], trilu),
];

/// Most elements of a constant that a node creates, such as a Range: 64 MB of integers.
pub(super) const MAX_MADE: usize = 1 << 23;

fn constant(cx: &mut Call<'_, '_>) -> Imported {
    if let Some(tensor) = cx.tensor("value")? {
        let constant = tensor::dense(tensor, cx.files)?;
        return Ok(vec![cx.file_constant(constant)?]);
    }
    if let Some(values) = cx.floats("value_floats")? {
        return Ok(vec![cx.elements(&[values.len()], &values)?]);
    }
    if let Some(values) = cx.ints("value_ints")? {
        return Ok(vec![cx.elements(&[values.len()], &values)?]);
    }
    if cx.has("value_float") {
        let value = cx.float("value_float", 0.0)?;
        return Ok(vec![cx.scalar(value)?]);
    }
    if cx.has("value_int") {
        let value = cx.int("value_int", 0)?;
        return Ok(vec![cx.scalar(value)?]);
    }
    let sparse = cx.attributes.iter().find_map(|(_, attribute)| attribute.sparse_tensors.first());
    match sparse {
        Some(sparse) => {
            let constant = tensor::sparse(sparse, cx.files)?;
            cx.build.count_made(constant.tensor.fact())?;
            Ok(vec![cx.file_constant(constant)?])
        }
        None => Err(cx.attribute_error("value", "is text, which is not supported")),
    }
}

/// Dimensions from integers, which must not be negative.
pub(super) fn dims_of(cx: &Call<'_, '_>, integers: &[i64]) -> Result<Vec<usize>, Halt> {
    let mut dims = cx.reserve(integers.len())?;
    for &dim in integers {
        let dim = usize::try_from(dim);
        dims.push(dim.map_err(|_| cx.at(OpError::Value(format!("{} is not a shape", list(integers)))))?);
    }
    Ok(dims)
}

/// Without a value, f32 zeros.
fn constant_of_shape(cx: &mut Call<'_, '_>) -> Imported {
    let asked = targets(cx, 0)?;
    let dims = cx.list(asked.iter().map(Target::planned))?;
    let value = cx.tensor("value")?;
    let value = match one_element(cx, value)? {
        Some(value) => value,
        None => cx.scalar(0f32)?,
    };
    let shape = Shape::new(&dims).map_err(|e| cx.at(e))?;
    let declared = cx.build.half(value);
    let mut y = cx.add(Expand { shape }, &[value])?;
    if asked.iter().any(|target| matches!(target, Target::Computed(..))) && cx.constant_of(y).is_some() {
        // The lengths must not be those of a constant.
        let (name, to) = (cx.name().to_owned(), cx.dtype(y));
        y = cx.build.add_raw(&name, Cast { to }, &[y])?[0];
    }
    for (axis, target) in asked.into_iter().enumerate() {
        if let Target::Computed(known, at) = target {
            let len = cx.computed_length(0, at, known)?;
            cx.measure(y, axis, len);
        }
    }
    cx.build.declare(y, declared)?;
    Ok(vec![y])
}

fn shape(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let dims: Vec<i64> = cx.shape(x).iter().map(|&dim| dim as i64).collect();
    let rank = dims.len() as i64;
    let bound = |at: i64| (if at < 0 { at.saturating_add(rank) } else { at }).clamp(0, rank) as usize;
    let (start, end) = (bound(cx.int("start", 0)?), bound(cx.int("end", rank)?));
    if (start..end).any(|axis| cx.length(x, axis).is_some()) {
        return Ok(vec![cx.dims(x, start, end)?]);
    }
    let part = |dims: &[i64]| dims.get(start..end).unwrap_or_default().to_vec();
    let dims = part(&dims);
    let dims = cx.elements(&[dims.len()], &dims)?;
    count(cx, x, dims, part)
}

fn size(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    if cx.is_measured(x) {
        let mut elements = cx.scalar(1i64)?;
        for axis in 0..cx.rank(x) {
            let len = cx.length_of(x, axis)?;
            elements = cx.count(BinaryKind::Mul, elements, len)?;
        }
        return Ok(vec![elements]);
    }
    let elements = cx.scalar(cx.shape(x).elements() as i64)?;
    count(cx, x, elements, |dims| vec![dims.iter().product()])
}

/// `start, start + delta, ...` up to `limit`, which must be constants.
fn range(cx: &mut Call<'_, '_>) -> Imported {
    let ids = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let dtype = cx.dtype(ids[0]);
    if ids.iter().any(|&id| cx.constant_of(id).is_none()) {
        return measured_range(cx, dtype);
    }
    let mut ends = [0f64; 3];
    let mut integers = [0i64; 3];
    for (index, id) in ids.into_iter().enumerate() {
        let Some(tensor) = cx.constant_of(id) else { return Err(cx.dynamic(&format!("input {index}"))) };
        let one = tensor.shape().elements() == 1;
        let value = match dtype {
            DType::F32 => tensor.elements::<f32>().map(|v| f64::from(v[0])),
            DType::F64 => tensor.elements::<f64>().map(|v| v[0]),
            DType::I64 => tensor.elements::<i64>().map(|v| v[0] as f64),
            DType::I32 => tensor.elements::<i32>().map(|v| f64::from(v[0])),
            DType::I16 => tensor.elements::<i16>().map(|v| f64::from(v[0])),
            _ => return Err(Halt::Foreign),
        };
        let value = value.filter(|_| one);
        ends[index] =
            value.ok_or_else(|| cx.at(OpError::Value("start, limit and delta must have one element each".into())))?;
        integers[index] = tensor.elements::<i64>().map_or(ends[index] as i64, |v| v[0]);
    }
    let is_float = matches!(dtype, DType::F32 | DType::F64);
    let [start, limit, delta] = ends;
    if delta == 0.0 || !(start.is_finite() && limit.is_finite() && delta.is_finite()) {
        return Err(cx.at(OpError::Value(format!("a range from {start} to {limit} by {delta} does not end"))));
    }
    let count = if is_float {
        ((limit - start) / delta).ceil().max(0.0)
    } else {
        let (start, limit, delta) = (i128::from(integers[0]), i128::from(integers[1]), i128::from(integers[2]));
        let steps = if delta > 0 { (limit - start + delta - 1) / delta } else { (start - limit - delta - 1) / -delta };
        steps.max(0) as f64
    };
    if count > MAX_MADE as f64 {
        return Err(cx.at(OpError::TooLarge(format!("a range of {count} elements"))));
    }
    let count = count as usize;
    let declared = cx.build.half(ids[0]);
    let at = |i: usize| integers[0] + i as i64 * integers[2];
    let made = match dtype {
        // Like the reference: the start plus multiples of delta, in the type of the operands.
        DType::F32 => cx.collected(&[count], (0..count).map(|i| start as f32 + i as f32 * delta as f32)),
        DType::F64 => cx.collected(&[count], (0..count).map(|i| start + i as f64 * delta)),
        DType::I64 => cx.collected(&[count], (0..count).map(at)),
        DType::I32 => cx.collected(&[count], (0..count).map(|i| at(i) as i32)),
        _ => cx.collected(&[count], (0..count).map(|i| at(i) as i16)),
    }?;
    cx.build.declare(made, declared)?;
    Ok(vec![made])
}

/// com.microsoft: the step is 1 if it is omitted.
fn range_of_ones(cx: &mut Call<'_, '_>) -> Imported {
    if cx.optional(2).is_none() {
        let (start, limit) = (cx.input(0)?, cx.input(1)?);
        let step = cx.scalar_of(cx.dtype(start), 1.0)?;
        cx.inputs = vec![Some(start), Some(limit), Some(step)];
    }
    range(cx)
}

/// Ones on a diagonal of zeros.
fn eye_like(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    cx.build.selections.refuse(&[x])?;
    let &[rows, columns] = cx.shape(x).dims() else {
        return Err(cx.shape_error("a matrix must have 2 dimensions", &[x]));
    };
    let to = match cx.has("dtype") {
        true => tensor::known_dtype(cx.int("dtype", 1)?, cx.name())?,
        false => cx.declared(x),
    };
    let offset = cx.int("k", 0)?;
    if rows.saturating_mul(columns) > MAX_MADE {
        return Err(cx.at(OpError::TooLarge(format!("{rows}x{columns}"))));
    }
    let mut ones = cx.copies(0u8, rows * columns)?;
    for row in 0..rows {
        let column = i64::try_from(row).ok().and_then(|row| row.checked_add(offset));
        if let Some(column) = column.and_then(|c| usize::try_from(c).ok()).filter(|&c| c < columns) {
            ones[row * columns + column] = 1;
        }
    }
    let ones = cx.elements(&[rows, columns], &ones)?;
    cx.inputs = vec![Some(ones)];
    cast_to(cx, to)
}

fn identity(cx: &mut Call<'_, '_>) -> Imported {
    Ok(vec![cx.input(0)?])
}

/// Changes nothing outside of training; the mask keeps everything.
fn dropout(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    if let Some(training) = cx.optional(2) {
        let off = cx.constant_of(training).map(|flag| flag.bytes().iter().all(|&byte| byte == 0));
        let ratio = cx.constant_floats(1).is_some_and(|ratio| ratio == [0.0]);
        if off != Some(true) && !ratio {
            return Err(cx.at(OpError::Value("training mode is not supported".into())));
        }
    }
    let mut results = vec![x];
    if cx.is_requested(1) {
        cx.build.selections.refuse(&[x])?;
        // The mask was of the data's type before opset 10.
        let dims = cx.shape(x).to_vec();
        let to = if cx.opset < 10 { cx.dtype(x) } else { DType::Bool };
        let one = cx.scalar(1u8)?;
        let one = cx.cast(one, to)?;
        results.push(expand_to(cx, one, &dims)?);
    }
    Ok(results)
}

/// The shape was an attribute before opset 5. 0 keeps a dimension, -1 is computed from the others.
fn reshape(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    if !cx.has("shape") && (cx.is_measured(x) || cx.optional(1).is_some_and(|shape| cx.constant_of(shape).is_none())) {
        return measured_reshape(cx, x);
    }
    let asked = match cx.ints("shape")? {
        Some(shape) => shape,
        None => cx.required_integers(1)?,
    };
    let from = cx.shape(x).clone();
    let literal = cx.flag("allowzero", false)?;
    let mut dims = cx.reserve(asked.len())?;
    let mut open = None;
    for (axis, &dim) in asked.iter().enumerate() {
        dims.push(match dim {
            0 if !literal => *from.get(axis).ok_or_else(|| {
                cx.at(OpError::shapes(
                    "a 0 in the new shape refers to a dimension that the input does not have",
                    &[&from],
                ))
            })?,
            -1 if open.is_none() => {
                open = Some(axis);
                1
            }
            dim => {
                usize::try_from(dim).map_err(|_| cx.at(OpError::Value(format!("{} is not a shape", list(&asked)))))?
            }
        });
    }
    let product = |dims: &[usize]| dims.iter().try_fold(1usize, |all, &dim| all.checked_mul(dim));
    if let Some(axis) = open {
        let rest = product(&dims).filter(|&rest| rest > 0 && from.elements().is_multiple_of(rest));
        let rest = rest.ok_or_else(|| {
            cx.at(OpError::Value(format!(
                "{} elements of {from} do not fill the shape {}",
                from.elements(),
                list(&asked)
            )))
        })?;
        dims[axis] = from.elements() / rest;
    }
    if product(&dims) != Some(from.elements()) {
        let baked = asked.first() == Some(&1) && from.first().is_some_and(|&batch| batch > 1);
        let hint = if baked { "; the exporter has fixed the batch size to 1" } else { "" };
        let what = format!("{} elements of {from} do not fill the shape {}{hint}", from.elements(), list(&asked));
        return Err(cx.at(OpError::Value(what)));
    }
    Ok(vec![cx.reshape(x, &dims)?])
}

/// A matrix: the axes before `axis`, and the axes starting at it.
fn flatten(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let rank = cx.rank(x);
    let axis = match cx.int("axis", 1)? {
        // The default, for a scalar.
        1 if rank == 0 => 0,
        axis if axis == rank as i64 => rank,
        axis => cx.axis_of(axis, rank)?,
    };
    let (before, behind) = cx.shape(x).split_at(axis);
    let dims = [before.iter().product(), behind.iter().product()];
    if cx.is_measured(x) {
        // The axis with such a length stays alone in its part, or the other part is 1.
        let open = if (0..axis).any(|axis| cx.length(x, axis).is_some()) { 0 } else { 1 };
        let mut asked = [dims[0] as i64, dims[1] as i64];
        asked[open] = -1;
        let shape = cx.elements(&[2], &asked)?;
        cx.inputs = vec![Some(x), Some(shape)];
        return measured_reshape(cx, x);
    }
    Ok(vec![cx.reshape(x, &dims)?])
}

/// Axes were an attribute before opset 13; an empty list counts as none, as in ONNX Runtime.
fn squeeze(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let dims = cx.shape(x).to_vec();
    let gone: Vec<usize> = match cx.ints_or_input("axes", 1)?.filter(|axes| !axes.is_empty()) {
        Some(axes) => cx.axes_of(&axes, dims.len())?,
        None if (0..dims.len()).any(|axis| dims[axis] > 0 && cx.length(x, axis).is_some()) => {
            return Err(cx.dynamic("which axes have length 1"));
        }
        None => (0..dims.len()).filter(|&axis| dims[axis] == 1).collect(),
    };
    if gone.iter().any(|&axis| cx.length(x, axis).is_some()) {
        return Err(cx.dynamic("whether a squeezed axis has length 1"));
    }
    if gone.iter().any(|&axis| dims[axis] != 1) {
        return Err(cx.shape_error("a squeezed axis must have length 1", &[x]));
    }
    let kept: Vec<usize> = (0..dims.len()).filter(|axis| !gone.contains(axis)).collect();
    let dims: Vec<usize> = kept.iter().map(|&axis| dims[axis]).collect();
    Ok(vec![moved_axes(cx, x, &dims, |axis| kept.iter().position(|&other| other == axis))?])
}

fn unsqueeze(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let Some(axes) = cx.ints_or_input("axes", 1)? else { return Err(cx.attribute_error("axes", "is missing")) };
    let new = cx.axes_of(&axes, cx.rank(x) + axes.len())?;
    let mut kept = cx.shape(x).to_vec().into_iter();
    let all = cx.rank(x) + new.len();
    let dims = (0..all).map(|axis| if new.contains(&axis) { 1 } else { kept.next().unwrap_or(1) });
    let dims = cx.list(dims)?;
    Ok(vec![moved_axes(cx, x, &dims, |axis| (0..all).filter(|to| !new.contains(to)).nth(axis))?])
}

impl Call<'_, '_> {
    /// A value with its axes permuted.
    pub fn transpose(&mut self, x: ValueId, axes: &[usize]) -> Result<ValueId, Halt> {
        if axes.is_sorted() {
            return Ok(x);
        }
        let transpose = Transpose::new(axes).ok_or_else(|| self.attribute_error("perm", "has too many axes"))?;
        self.add(transpose, &[x])
    }
}

fn transpose(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let rank = cx.rank(x);
    let axes = match cx.ints("perm")? {
        None => (0..rank).rev().collect(),
        Some(axes) => {
            let sorted = cx.axes_of(&axes, rank)?;
            if sorted.len() != rank {
                return Err(cx.attribute_error("perm", format!("is {} for a tensor of {rank} dimensions", list(&axes))));
            }
            cx.each_axis(&axes, rank)?
        }
    };
    Ok(vec![cx.transpose(x, &axes)?])
}

/// Before opset 4, the default axis was 1.
fn concat(cx: &mut Call<'_, '_>) -> Imported {
    let inputs = cx.all_inputs()?;
    let rank = inputs.first().map_or(0, |&id| cx.rank(id));
    let axis = cx.axis(1, rank)?;
    match *inputs.as_slice() {
        [one] => Ok(vec![one]),
        _ if inputs.iter().any(|&id| cx.length(id, axis).is_some()) => Ok(vec![measured_concat(cx, axis, &inputs)?]),
        _ => cx.add_all(Concat { axis }, &inputs),
    }
}

/// Parts with the given lengths (an attribute before opset 13), or equal parts, the last of which may be shorter.
fn split(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let axis = cx.axis(0, cx.rank(x))?;
    let dim = cx.shape(x)[axis];
    let lens = match cx.ints_or_input("split", 1)? {
        Some(lens) => dims_of(cx, &lens)?,
        None => {
            let parts = match cx.int("num_outputs", 0)? {
                0 => cx.node.outputs.len(),
                parts => usize::try_from(parts).map_err(|_| cx.attribute_error("num_outputs", "is negative"))?,
            };
            if parts == 0 || parts > dim.max(1) || (cx.opset < 18 && !dim.is_multiple_of(parts)) {
                return Err(cx.attribute_error("num_outputs", format!("is {parts} for an axis of {dim}")));
            }
            let len = dim.div_ceil(parts);
            cx.list((0..parts).map(|part| len.min(dim.saturating_sub(part * len))))?
        }
    };
    if lens.iter().try_fold(0usize, |all, &len| all.checked_add(len)) != Some(dim) || lens.len() < cx.outputs() {
        return Err(cx.attribute_error("split", format!("has parts {} of an axis of {dim}", list(&lens))));
    }
    let mut start = 0;
    let mut results = cx.reserve(lens.len())?;
    for len in lens {
        results.push(match (start, len) {
            (0, len) if len == dim => x,
            _ => cx.add(Slice { axis, start: if len == 0 { 0 } else { start }, len, step: 1 }, &[x])?,
        });
        start += len;
    }
    Ok(results)
}

/// Bounds were attributes before opset 10.
fn slice(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let (starts, ends, axes, steps) = match (cx.ints("starts")?, cx.ints("ends")?) {
        (Some(starts), Some(ends)) => {
            let constant = |of: Vec<i64>| of.into_iter().map(Known::of).collect::<Vec<_>>();
            (constant(starts), constant(ends), cx.ints("axes")?, None)
        }
        _ => {
            let missing = |index: usize| cx.at(OpError::Value(format!("input {index} is missing")));
            let (starts, ends) = (cx.known(1)?, cx.known(2)?);
            let (starts, ends) = (starts.ok_or_else(|| missing(1))?, ends.ok_or_else(|| missing(2))?);
            (starts, ends, cx.integers(3)?, cx.known(4)?)
        }
    };
    let axes = axes.map_or_else(|| cx.list(0..starts.len() as i64), Ok)?;
    let steps = steps.map_or_else(|| cx.copies(Known::of(1), starts.len()), Ok)?;
    if [ends.len(), axes.len(), steps.len()] != [starts.len(); 3] {
        return Err(cx.at(OpError::Value("starts, ends, axes and steps have different lengths".into())));
    }
    cx.axes_of(&axes, cx.rank(x))?;
    let mut y = x;
    for (at, axis) in axes.into_iter().enumerate() {
        let axis = cx.axis_of(axis, cx.rank(x))?;
        let bounds = [starts[at], ends[at], steps[at]];
        let constants = bounds.map(|known| known.constant());
        let ([Some(start), Some(end), Some(step)], None) = (constants, cx.length(y, axis)) else {
            y = measured_slice(cx, y, axis, at, bounds)?;
            continue;
        };
        let dim = cx.shape(y)[axis];
        let slice = Slice::from_bounds(axis, dim, start, end, step);
        let slice = slice.ok_or_else(|| cx.attribute_error("steps", "is 0, or too large"))?;
        if slice.start != 0 || slice.len != dim || slice.step != 1 {
            y = cx.add(slice, &[y])?;
        }
    }
    Ok(vec![y])
}

fn expand(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let computed = cx.optional(1).is_some_and(|shape| cx.constant_of(shape).is_none());
    if computed || cx.is_measured(x) {
        return measured_expand(cx, x);
    }
    let dims = cx.required_integers(1)?;
    let dims = dims_of(cx, &dims)?;
    Ok(vec![expand_to(cx, x, &dims)?])
}

/// Before opset 6, a number of tiles along one axis.
fn tile(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    if cx.is_measured(x) || cx.optional(1).is_some_and(|repeats| cx.constant_of(repeats).is_none()) {
        return measured_tile(cx, x);
    }
    let repeats = cx.required_integers(1)?;
    let repeats = dims_of(cx, &repeats)?;
    if repeats.len() != cx.rank(x) {
        return Err(cx.at(OpError::Value(format!("{} repeats for {} axes", repeats.len(), cx.rank(x)))));
    }
    if repeats.iter().all(|&count| count == 1) {
        return Ok(vec![x]);
    }
    cx.add_all(Tile { repeats }, &[x])
}

fn block_size(cx: &Call<'_, '_>) -> Result<usize, Halt> {
    let size = usize::try_from(cx.int("blocksize", 0)?).ok().filter(|&size| size > 0);
    size.ok_or_else(|| cx.attribute_error("blocksize", "must be above 0"))
}

fn image(cx: &Call<'_, '_>, x: ValueId) -> Result<[usize; 4], Halt> {
    <[usize; 4]>::try_from(cx.shape(x).dims()).map_err(|_| cx.shape_error("images must have 4 dimensions", &[x]))
}

/// Moves channels to pixels: in `DCR` order the block comes first, in `CRD` order the channel.
fn depth_to_space(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let ([n, c, h, w], b) = (image(cx, x)?, block_size(cx)?);
    if !c.is_multiple_of(b * b) {
        return Err(cx.attribute_error("blocksize", format!("{b} squared does not divide {c} channels")));
    }
    let depth = c / (b * b);
    let (dims, axes) = match cx.text("mode")?.unwrap_or("DCR") {
        "DCR" => ([n, b, b, depth, h, w], [0, 3, 4, 1, 5, 2]),
        "CRD" => ([n, depth, b, b, h, w], [0, 1, 4, 2, 5, 3]),
        other => return Err(cx.attribute_error("mode", format!("is '{other}', not DCR or CRD"))),
    };
    let blocks = cx.reshape(x, &dims)?;
    let moved = cx.transpose(blocks, &axes)?;
    Ok(vec![cx.reshape(moved, &[n, depth, h * b, w * b])?])
}

/// Moves pixels to channels.
fn space_to_depth(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let ([n, c, h, w], b) = (image(cx, x)?, block_size(cx)?);
    if !h.is_multiple_of(b) || !w.is_multiple_of(b) {
        return Err(cx.attribute_error("blocksize", format!("{b} does not divide an image of {h}x{w}")));
    }
    let blocks = cx.reshape(x, &[n, c, h / b, b, w / b, b])?;
    let moved = cx.transpose(blocks, &[0, 3, 5, 1, 2, 4])?;
    Ok(vec![cx.reshape(moved, &[n, c * b * b, h / b, w / b])?])
}

/// The upper or lower triangle of the last two axes; the rest is 0. The diagonal may be known only at run time.
fn trilu(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let kind = if cx.flag("upper", true)? { CompareKind::GreaterEqual } else { CompareKind::LessEqual };
    let &[.., rows, columns] = cx.shape(x).dims() else {
        return Err(cx.shape_error("a matrix must have 2 dimensions", &[x]));
    };
    if rows.saturating_mul(columns) > MAX_MADE {
        return Err(cx.at(OpError::TooLarge(format!("{rows}x{columns}"))));
    }
    let diagonals = (0..rows as i64).flat_map(|row| (0..columns as i64).map(move |column| column - row));
    let known = match cx.optional(1) {
        Some(k) if cx.constant_of(k).is_none() => None,
        _ => Some(cx.integer(1)?.unwrap_or(0)),
    };
    let inside = match known {
        Some(k) => {
            let upper = kind == CompareKind::GreaterEqual;
            let inside = |at: i64| u8::from(if upper { at >= k } else { at <= k });
            let shape = Shape::new(&[rows, columns]).map_err(|e| cx.at(e))?;
            let mask = Tensor::collected(Fact::new(DType::Bool, shape), diagonals.map(inside));
            let mask = mask.map_err(|e| cx.at(e))?;
            cx.constant(mask)?
        }
        None => {
            let k = cx.input(1)?;
            let k = cx.cast(k, DType::I64)?;
            let k = cx.reshape(k, &[])?;
            let diagonals = cx.collected(&[rows, columns], diagonals)?;
            cx.compare(kind, diagonals, k)?
        }
    };
    let zero = cx.scalar(0u8)?;
    let zero = cx.cast(zero, cx.dtype(x))?;
    cx.add_all(Select, &[inside, x, zero])
}
