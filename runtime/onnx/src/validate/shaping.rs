//! Operators that only rearrange elements, and reductions: target shapes, axes and permutations.

use super::call::Call;
use super::operators::MAX_SIZE;
use crate::invalid::{Invalid, Rule};

/// A constant target shape contains at most one -1, and has as many elements as the input, if
/// that is known.
pub(super) fn reshape(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let invalid = |what: String| Err(call.invalid(Rule::Shape, what));
    let keeps_zero = call.int("allowzero")?.unwrap_or(0) != 0;
    let Some(target) = call.dims(1)? else {
        return Ok(());
    };
    if target.len() > call.limits.max_rank {
        return invalid(format!("the target shape has more than {} dimensions", call.limits.max_rank));
    }
    if let Some(dim) = target.iter().find(|dim| **dim < -1) {
        return invalid(format!("the target shape contains {dim}"));
    }
    let inferred = target.iter().filter(|dim| **dim == -1).count();
    if inferred > 1 {
        return invalid("the target shape contains -1 more than once".into());
    }
    if keeps_zero && inferred > 0 && target.contains(&0) {
        return invalid("the target shape contains both 0 and -1, with allowzero".into());
    }
    let input = call.shape(0);
    let mut product = 1u64;
    let mut complete = true;
    for (i, dim) in target.iter().enumerate() {
        let dim = match (*dim, &input) {
            (-1, _) => continue,
            (0, _) if keeps_zero => Some(0),
            // Zero copies the dimension of the input.
            (0, Some(input)) => match input.get(i) {
                Some(dim) => *dim,
                None => return invalid(format!("dimension {i} is copied from the input, which does not have it")),
            },
            (0, None) => None,
            (dim, _) => Some(dim.unsigned_abs()),
        };
        complete &= dim.is_some();
        product = match product.checked_mul(dim.unwrap_or(1)) {
            Some(product) if product <= call.limits.max_tensor_elements => product,
            _ => {
                return invalid(format!("the target shape has more than {} elements", call.limits.max_tensor_elements));
            }
        };
    }
    let elements = call.full_shape(0).and_then(|shape| shape.iter().try_fold(1u64, |all, dim| all.checked_mul(*dim)));
    match elements {
        Some(elements) if complete && inferred == 0 && elements != product => {
            invalid(format!("{elements} elements do not fit a shape of {product}"))
        }
        Some(elements) if complete && inferred == 1 && product > 0 && elements % product != 0 => {
            invalid(format!("{elements} elements are not a multiple of {product}"))
        }
        _ => Ok(()),
    }
}

/// The permutation names each axis once.
pub(super) fn transpose(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let Some(order) = call.ints("perm")? else {
        return Ok(());
    };
    let mut sorted = order.clone();
    sorted.sort_unstable();
    if sorted.iter().zip(0..).any(|(axis, position)| *axis != position) {
        return call.bad_attribute("perm", "is not a permutation");
    }
    match call.shape(0) {
        Some(shape) if shape.len() != order.len() => call
            .bad_attribute("perm", format!("has {} entries for a tensor of {} dimensions", order.len(), shape.len())),
        _ => Ok(()),
    }
}

/// Axes of Squeeze and Unsqueeze, as attribute or constant input, are in range and distinct.
pub(super) fn squeeze(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let adds = call.node.op_type == "Unsqueeze";
    let Some(axes) = axes(call)? else {
        if adds && call.input(1).is_none() && !call.has("axes") {
            return Err(call.invalid(Rule::Arity, "Unsqueeze lacks its axes"));
        }
        return Ok(());
    };
    let shape = call.shape(0);
    let rank = match &shape {
        Some(shape) if adds => shape.len() + axes.len(),
        Some(shape) => shape.len(),
        None => call.limits.max_rank,
    };
    let mut seen = Vec::new();
    for axis in axes {
        // If the rank is unknown, a negative and a positive axis may be the same.
        let position = call.axis(axis, rank)?;
        if seen.contains(&position) {
            return Err(call.invalid(Rule::Index, format!("axis {axis} is there twice")));
        }
        seen.push(position);
        let size = shape.as_ref().filter(|_| !adds).and_then(|shape| shape.get(position).copied().flatten());
        if size.is_some_and(|size| size != 1) {
            return Err(call.invalid(Rule::Shape, format!("axis {axis} is squeezed, but its size is not 1")));
        }
    }
    Ok(())
}

/// Axes of an operator, from its attribute or its second input.
pub(super) fn axes(call: &Call<'_, '_>) -> Result<Option<Vec<i64>>, Invalid> {
    match call.ints("axes")? {
        Some(axes) => Ok(Some(axes)),
        None => call.dims(1),
    }
}

/// The axis, if given, is in range.
pub(super) fn axis(call: &Call<'_, '_>) -> Result<(), Invalid> {
    match (call.int("axis")?, call.shape(0)) {
        (Some(axis), Some(shape)) => call.axis(axis, shape.len()).map(drop),
        _ => Ok(()),
    }
}

/// The axes of a reduction are in range and distinct.
pub(super) fn reduce(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let (Some(axes), Some(shape)) = (axes(call)?, call.shape(0)) else {
        return Ok(());
    };
    let mut seen = Vec::new();
    for axis in axes {
        let position = call.axis(axis, shape.len())?;
        if seen.contains(&position) {
            return Err(call.invalid(Rule::Index, format!("axis {axis} is there twice")));
        }
        seen.push(position);
    }
    Ok(())
}

/// The axis is given and in range.
pub(super) fn concat(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let axis = call.int("axis")?;
    if !call.has("axis") {
        return call.bad_attribute("axis", "is missing");
    }
    if let (Some(axis), Some(shape)) = (axis, call.shape(0)) {
        call.axis(axis, shape.len())?;
    }
    Ok(())
}

/// Constant parts are not negative, add up to the size of the axis, and there is one per output.
pub(super) fn split(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let to_sequence = call.node.op_type == "SplitToSequence";
    let outputs = call.node.outputs.len();
    let shape = call.shape(0);
    let axis = call.int("axis")?.unwrap_or(0);
    let size = match &shape {
        Some(shape) => shape.get(call.axis(axis, shape.len())?).copied().flatten(),
        None => None,
    };
    if let Some(parts) = call.int_in("num_outputs", 1..=MAX_SIZE)?
        && parts.unsigned_abs() != outputs as u64
    {
        return call.bad_attribute("num_outputs", format!("is {parts}, but the node has {outputs} outputs"));
    }
    let Some(constant) = call.constant(1) else {
        // Before opset 13 the parts were an attribute.
        let parts = call.node.attribute("split").filter(|attribute| attribute.kind == 7 && !to_sequence);
        let Some(parts) = parts.map(|attribute| attribute.ints) else {
            return Ok(());
        };
        return check_parts(call, parts.ints(), parts.count, size, outputs);
    };
    let scalar = to_sequence && constant.shape().is_empty();
    let Some(mut parts) = constant.ints() else {
        return Ok(());
    };
    if scalar {
        return match parts.next() {
            Some(part) if part < 1 => {
                Err(call.invalid(Rule::Shape, format!("the tensor is split into parts of {part}")))
            }
            _ => Ok(()),
        };
    }
    if to_sequence {
        // The output count does not bound the count of parts here, so only the cached summary is
        // checked, which reads each tensor once.
        let negative = call.summary(1)?.and_then(|parts| parts.ints).is_some_and(|(min, _)| min < 0);
        return if negative { Err(call.invalid(Rule::Shape, "a part of the split is negative")) } else { Ok(()) };
    }
    check_parts(call, parts, constant.len(), size, outputs)
}

fn check_parts(
    call: &Call<'_, '_>,
    mut parts: impl Iterator<Item = i64>,
    count: u64,
    size: Option<u64>,
    outputs: usize,
) -> Result<(), Invalid> {
    let invalid = |what: String| Err(call.invalid(Rule::Shape, what));
    if outputs as u64 != count {
        return invalid(format!("the tensor is split into {count} parts for {outputs} outputs"));
    }
    let Some(total) = parts.try_fold(0u64, |total, part| total.checked_add(u64::try_from(part).ok()?)) else {
        return invalid("a part of the split is negative".into());
    };
    match size {
        Some(size) if size != total => invalid(format!("the parts of the split add up to {total}, not to {size}")),
        _ => Ok(()),
    }
}

/// The block size divides the channels (DepthToSpace) or the height and width (SpaceToDepth).
pub(super) fn blocks(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let block = call.int_in("blocksize", 1..=1 << 12)?;
    if !call.has("blocksize") {
        return call.bad_attribute("blocksize", "is missing");
    }
    let (Some(block), Some(shape)) = (block, call.shape(0)) else {
        return Ok(());
    };
    let block = block.unsigned_abs();
    let [_, channels, height, width] = shape[..] else {
        return Err(call.invalid(Rule::Shape, format!("the input has {} dimensions, expected 4", shape.len())));
    };
    let fits = |dim: Option<u64>, by: u64| dim.is_none_or(|dim| dim % by == 0);
    let sound = match call.node.op_type {
        "DepthToSpace" => fits(channels, block * block),
        _ => fits(height, block) && fits(width, block),
    };
    if sound { Ok(()) } else { call.bad_attribute("blocksize", format!("is {block}, which does not divide the input")) }
}

/// The axis is in `-rank..=rank`.
pub(super) fn flatten(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let axis = call.int("axis")?.unwrap_or(1);
    match call.shape(0) {
        // The default, which the reference evaluator accepts for a scalar.
        Some(shape) if shape.is_empty() && axis == 1 => Ok(()),
        Some(shape) if axis != shape.len() as i64 => call.axis(axis, shape.len()).map(drop),
        _ => Ok(()),
    }
}
