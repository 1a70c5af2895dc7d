//! The sizes of nodes' results, as far as the file determines them.
//!
//! A few bytes can request any amount of memory: `ConstantOfShape` of a large shape, `Tile` of a tile, the outer
//! product of two vectors. Results that depend only on constants are even computed while the model is loaded. So shapes
//! are followed here from node to node, as long as all dimensions are known, and each result is checked against the
//! limits before it is allocated. Unknown shapes stay unknown: this is a guard, not shape inference.

use super::attributes::is_standard;
use super::call::Call;
use super::scope::Constant;
use super::shaping;
use crate::invalid::{Invalid, Rule, list};

/// What is known about a node's results.
#[derive(Default)]
pub(super) struct Outputs {
    /// Shape of the first output.
    pub shape: Option<Vec<u64>>,
    /// Whether all outputs depend only on constants.
    pub is_constant: bool,
}

/// The total computed from constants while the model is loaded.
#[derive(Default)]
pub(super) struct Folded {
    elements: u64,
    work: u64,
}

/// How many times the elements stored in the file may be computed again, beyond the limit: weights that are widened, or
/// that an exporter left transposed.
const FOLDS_OF_STORED: u64 = 2;

/// Results whose size depends on data may have this fraction of the folding limit.
const OF_DATA: u64 = 8;

/// Operators whose result is their first input with another name or shape.
const ALIASES: &[&str] = &["Dropout", "Flatten", "Identity", "Reshape", "Squeeze", "Unsqueeze"];

/// Finds the size of a node's first output and checks it against the limits. `stored` is the number of elements in the
/// file.
pub(super) fn infer(call: &Call<'_, '_>, folded: &mut Folded, stored: u64) -> Result<Outputs, Invalid> {
    if !is_standard(call.node.domain) {
        return Ok(Outputs::default());
    }
    let mut inputs = call.node.inputs.iter().filter(|name| !name.is_empty());
    // Random tensors are drawn in each run, and subgraphs may use more than the inputs.
    let is_random = call.node.op_type.starts_with("Random") || matches!(call.node.op_type, "Multinomial" | "Bernoulli");
    let is_constant =
        !is_random && call.node.subgraphs().next().is_none() && inputs.all(|name| call.scope.is_constant(name));
    let shape = result(call)?;
    // If data decides the size, no plan bounds the memory: the fallback copies its results several times.
    let limit = match call.node.op_type {
        "NonZero" | "NonMaxSuppression" => call.limits.max_folded_elements / OF_DATA,
        _ => u64::MAX,
    };
    let limit = limit.min(call.limits.max_tensor_elements);
    if most(call)?.is_some_and(|most| most > limit) {
        return Err(call.invalid(
            Rule::Generated,
            format!("the result may have more than {limit} elements (limits 'elements' and 'folded')"),
        ));
    }
    if is_constant {
        folded.work = folded.work.saturating_add(work(call)?);
        if folded.work > call.limits.max_folded_work {
            let what = format!(
                "more than {} steps are computed from constants (limit 'folded-work')",
                call.limits.max_folded_work
            );
            return Err(call.invalid(Rule::Generated, what));
        }
    }
    if let Some(shape) = &shape {
        if shape.len() > call.limits.max_rank {
            let what = format!("the result has more than {} dimensions (limit 'rank')", call.limits.max_rank);
            return Err(call.invalid(Rule::Generated, what));
        }
        let elements = elements(shape).filter(|elements| *elements <= call.limits.max_tensor_elements);
        let Some(elements) = elements else {
            let what =
                format!("the result has more than {} elements (limit 'elements')", call.limits.max_tensor_elements);
            return Err(call.invalid(Rule::Generated, what));
        };
        // The value of a Constant node is in the file, where its size was already counted; an alias takes no memory.
        if is_constant && call.node.op_type != "Constant" && !ALIASES.contains(&call.node.op_type) {
            folded.elements = folded.elements.saturating_add(elements);
            let allowed = call.limits.max_folded_elements.saturating_add(stored.saturating_mul(FOLDS_OF_STORED));
            if folded.elements > allowed {
                let what = format!("more than {allowed} elements are computed from constants (limit 'folded')");
                return Err(call.invalid(Rule::Generated, what));
            }
        }
    }
    Ok(Outputs { shape, is_constant })
}

fn elements(shape: &[u64]) -> Option<u64> {
    // As for tensors in the file, a dimension of zero does not lift the limit on the others.
    let all = shape.iter().try_fold(1u64, |all, dim| all.checked_mul((*dim).max(1)))?;
    Some(if shape.contains(&0) { 0 } else { all })
}

/// Upper bound on the elements of a result whose shape depends on data, or whose sizes are only checked here.
fn most(call: &Call<'_, '_>) -> Result<Option<u64>, Invalid> {
    let Some(shape) = call.full_shape(0) else { return Ok(None) };
    let all = |sizes: &[u64]| sizes.iter().fold(1u64, |all, size| all.saturating_mul((*size).max(1)));
    let last = |sizes: &[u64]| sizes.last().copied().unwrap_or(1).max(1);
    Ok(Some(match call.node.op_type {
        "NonZero" => all(&shape).saturating_mul(shape.len() as u64),
        // Three integers for each box that may be kept.
        "NonMaxSuppression" => {
            let Some(Selection { classes, kept, .. }) = Selection::of(call) else { return Ok(None) };
            classes.saturating_mul(kept).saturating_mul(3)
        }
        "GridSample" => {
            let Some(grid) = call.full_shape(1) else { return Ok(None) };
            let fits = grid.len() == shape.len() && shape.len() > 2 && shape.first() == grid.first();
            if !fits || last(&grid) != shape.len() as u64 - 2 {
                return Err(call.invalid(Rule::Shape, format!("a grid of {} samples {}", list(&grid), list(&shape))));
            }
            (all(&grid) / last(&grid)).saturating_mul(shape.get(1).copied().unwrap_or(1))
        }
        "DFT" => all(&shape).saturating_mul(2).saturating_mul(length(call, 1)?),
        "STFT" => {
            let step = length(call, 1)?;
            let window = call.full_shape(2).map_or(1, |shape| last(&shape)).max(length(call, 3)?);
            (all(&shape) / step + 1).saturating_mul(window).saturating_mul(2)
        }
        _ => return Ok(None),
    }))
}

/// What NonMaxSuppression does: it sorts the boxes of every class of every image, and compares each with those kept so
/// far.
struct Selection {
    /// Classes of all images.
    classes: u64,
    boxes: u64,
    /// Boxes that may be kept of each class.
    kept: u64,
}

impl Selection {
    /// Steps to compare two boxes.
    const PAIR: u64 = 4;

    /// Its sizes; `None` if they are not known.
    fn of(call: &Call<'_, '_>) -> Option<Self> {
        let scores = call.full_shape(1)?;
        let &[images, classes, boxes] = scores.as_slice() else { return None };
        // Without a number of boxes, none is kept; one that is computed may be any.
        let most = match call.input(2) {
            Some(_) => call.scalar(2).map_or(u64::MAX, |most| u64::try_from(most).unwrap_or(0)),
            None => 0,
        };
        Some(Self { classes: images.saturating_mul(classes), boxes, kept: boxes.min(most) })
    }

    /// Steps of work, never too few.
    fn work(&self) -> u64 {
        let sorted = u64::from(u64::BITS - self.boxes.leading_zeros());
        let of_box = sorted.saturating_add(self.kept).saturating_mul(Self::PAIR);
        self.classes.saturating_mul(self.boxes).saturating_mul(of_box)
    }
}

/// A constant length, which must be positive; 1 if it is unknown.
fn length(call: &Call<'_, '_>, index: usize) -> Result<u64, Invalid> {
    match call.scalar(index) {
        Some(length) if length < 1 => Err(call.invalid(Rule::Shape, format!("input {index} is {length}"))),
        length => Ok(length.map_or(1, i64::unsigned_abs)),
    }
}

/// Work of an operator beyond one step per element of its operands and results, as far as it is known;
/// never too low.
fn work(call: &Call<'_, '_>) -> Result<u64, Invalid> {
    let all = |sizes: &[u64]| sizes.iter().fold(1u64, |all, size| all.saturating_mul((*size).max(1)));
    let input = |index: usize| call.full_shape(index).map_or(1, |shape| all(&shape));
    Ok(match call.node.op_type {
        "MaxPool" | "AveragePool" | "LpPool" => {
            let kernel = call.ints("kernel_shape")?.unwrap_or_default();
            kernel.iter().fold(input(0), |all, size| all.saturating_mul(size.unsigned_abs()))
        }
        // Each pixel is multiplied by every weight of its channel, and each row by every column.
        "Conv" | "ConvTranspose" | "ConvInteger" | "MatMul" | "MatMulInteger" | "Gemm" | "QLinearMatMul" => {
            let (one, other) = if call.node.op_type == "QLinearMatMul" { (0, 3) } else { (0, 1) };
            let shared = call.full_shape(other).and_then(|shape| shape.iter().rev().nth(1).copied());
            input(one).saturating_mul(input(other)) / shared.unwrap_or(1).max(1)
        }
        "NonMaxSuppression" => Selection::of(call).map_or(0, |selection| selection.work()),
        "Einsum" => (0..call.node.inputs.len()).fold(1, |all, index| all.saturating_mul(input(index))),
        _ => 0,
    })
}

/// Shape of the first output, if all of it follows from the shapes and constants at hand.
fn result(call: &Call<'_, '_>) -> Result<Option<Vec<u64>>, Invalid> {
    Ok(match call.node.op_type {
        "Constant" => Constant::of_node(call.node).map(|constant| constant.shape()),
        "ConstantOfShape" => positive(call, call.dims(0)?)?,
        "RandomNormal" | "RandomUniform" => positive(call, call.ints("shape")?)?,
        "Expand" => expand(call)?,
        "Tile" => tile(call)?,
        "Pad" => pad(call)?,
        "Range" => range(call)?,
        "OneHot" => one_hot(call)?,
        "Resize" | "Upsample" => resize(call)?,
        "MelWeightMatrix" => mel_weight_matrix(call)?,
        "CenterCropPad" => center_crop_pad(call)?,
        "HannWindow" | "HammingWindow" | "BlackmanWindow" => positive(call, call.scalar(0).map(|size| vec![size]))?,
        "Reshape" => reshape(call)?,
        "Transpose" => transpose(call)?,
        "Unsqueeze" => unsqueeze(call)?,
        "Concat" => concat(call)?,
        "Gather" => gather(call)?,
        "MatMul" => matmul(call),
        "Shape" => {
            call.shape(0).filter(|_| !call.has("start") && !call.has("end")).map(|shape| vec![shape.len() as u64])
        }
        op if KEEPS_SHAPE.binary_search(&op).is_ok() => call.full_shape(0),
        op if BROADCASTS.binary_search(&op).is_ok() => broadcast_inputs(call),
        _ => None,
    })
}

/// Operators whose output has the shape of their first input; sorted.
const KEEPS_SHAPE: &[&str] = &[
    "Abs",
    "Acos",
    "Acosh",
    "Asin",
    "Asinh",
    "Atan",
    "Atanh",
    "BatchNormalization",
    "BitwiseNot",
    "Cast",
    "Ceil",
    "Celu",
    "Clip",
    "Cos",
    "Cosh",
    "CumSum",
    "DequantizeLinear",
    "Dropout",
    "Elu",
    "Erf",
    "Exp",
    "EyeLike",
    "Floor",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "IsInf",
    "IsNaN",
    "LRN",
    "LayerNormalization",
    "LeakyRelu",
    "Log",
    "LogSoftmax",
    "Mish",
    "Neg",
    "Not",
    "PRelu",
    "QuantizeLinear",
    "RandomNormalLike",
    "RandomUniformLike",
    "Reciprocal",
    "Relu",
    "Round",
    "ScatterElements",
    "ScatterND",
    "Selu",
    "Sigmoid",
    "Sign",
    "Sin",
    "Sinh",
    "Softmax",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Tan",
    "Tanh",
    "ThresholdedRelu",
    "Trilu",
];

/// Operators whose inputs are broadcast against each other; sorted.
const BROADCASTS: &[&str] = &[
    "Add",
    "And",
    "BitShift",
    "BitwiseAnd",
    "BitwiseOr",
    "BitwiseXor",
    "Div",
    "Equal",
    "Greater",
    "GreaterOrEqual",
    "Less",
    "LessOrEqual",
    "Max",
    "Mean",
    "Min",
    "Mod",
    "Mul",
    "Or",
    "Pow",
    "Sub",
    "Sum",
    "Where",
    "Xor",
];

/// Converts sizes that must not be negative.
fn positive(call: &Call<'_, '_>, dims: Option<Vec<i64>>) -> Result<Option<Vec<u64>>, Invalid> {
    let Some(dims) = dims else {
        return Ok(None);
    };
    match dims.iter().map(|dim| u64::try_from(*dim)).collect() {
        Ok(dims) => Ok(Some(dims)),
        Err(_) => Err(call.invalid(Rule::Shape, format!("the shape {} has a negative dimension", list(&dims)))),
    }
}

/// The shape that two shapes broadcast to; `None` if they do not.
fn broadcast(one: &[u64], other: &[u64]) -> Option<Vec<u64>> {
    let rank = one.len().max(other.len());
    let at =
        |shape: &[u64], i: usize| (i + shape.len()).checked_sub(rank).and_then(|i| shape.get(i).copied()).unwrap_or(1);
    (0..rank)
        .map(|i| match (at(one, i), at(other, i)) {
            (a, b) if a == b || b == 1 => Some(a),
            (1, b) => Some(b),
            _ => None,
        })
        .collect()
}

fn broadcast_inputs(call: &Call<'_, '_>) -> Option<Vec<u64>> {
    (1..call.node.inputs.len()).try_fold(call.full_shape(0)?, |shape, i| broadcast(&shape, &call.full_shape(i)?))
}

fn expand(call: &Call<'_, '_>) -> Result<Option<Vec<u64>>, Invalid> {
    let Some(target) = positive(call, call.dims(1)?)? else {
        return Ok(None);
    };
    // Without the input's shape, a lower bound: the result is at least as large as the target.
    Ok(Some(match call.full_shape(0) {
        Some(input) => broadcast(&input, &target).unwrap_or(target),
        None => {
            elements_fit(call, &target)?;
            return Ok(None);
        }
    }))
}

/// Checks a shape that is only a part of the result's.
fn elements_fit(call: &Call<'_, '_>, shape: &[u64]) -> Result<(), Invalid> {
    match elements(shape) {
        Some(elements) if elements <= call.limits.max_tensor_elements => Ok(()),
        _ => Err(call.invalid(
            Rule::Generated,
            format!("the result has more than {} elements (limit 'elements')", call.limits.max_tensor_elements),
        )),
    }
}

fn tile(call: &Call<'_, '_>) -> Result<Option<Vec<u64>>, Invalid> {
    let Some(repeats) = positive(call, call.dims(1)?)? else {
        return Ok(None);
    };
    elements_fit(call, &repeats)?;
    let Some(input) = call.full_shape(0) else {
        return Ok(None);
    };
    if input.len() != repeats.len() {
        let what = format!("there are {} repeats for {} dimensions", repeats.len(), input.len());
        return Err(call.invalid(Rule::Shape, what));
    }
    Ok(Some(input.iter().zip(&repeats).map(|(dim, by)| dim.saturating_mul(*by)).collect()))
}

/// Pads as constant input or, before opset 11, as attribute. Negative ones crop.
fn pad(call: &Call<'_, '_>) -> Result<Option<Vec<u64>>, Invalid> {
    let pads = match call.ints("pads")? {
        Some(pads) => Some(pads),
        None => call.dims(1)?,
    };
    let Some(pads) = pads else {
        return Ok(None);
    };
    let most = i64::try_from(call.limits.max_tensor_elements).unwrap_or(i64::MAX);
    if let Some(pad) = pads.iter().find(|pad| !(-most..=most).contains(*pad)) {
        return Err(call.invalid(Rule::Generated, format!("a pad of {pad} is past every tensor")));
    }
    let Some(input) = call.full_shape(0) else {
        return Ok(None);
    };
    let axes: Vec<usize> = match (call.input(3), call.dims(3)?) {
        (None, _) => (0..input.len()).collect(),
        (Some(_), Some(axes)) => axes.into_iter().map(|axis| call.axis(axis, input.len())).collect::<Result<_, _>>()?,
        (Some(_), None) => return Ok(None),
    };
    if pads.len() != 2 * axes.len() {
        return Err(call.invalid(Rule::Shape, format!("there are {} pads for {} axes", pads.len(), axes.len())));
    }
    let (before, after) = pads.split_at(axes.len());
    let mut shape = input;
    for ((axis, before), after) in axes.iter().zip(before).zip(after) {
        if let Some(dim) = shape.get_mut(*axis) {
            let size = i64::try_from(*dim).unwrap_or(i64::MAX).saturating_add(*before).saturating_add(*after);
            *dim = u64::try_from(size).map_err(|_| {
                call.invalid(Rule::Shape, format!("a dimension of {dim} is cropped by more than it has"))
            })?;
        }
    }
    Ok(Some(shape))
}

fn range(call: &Call<'_, '_>) -> Result<Option<Vec<u64>>, Invalid> {
    let (start, limit, delta) = (call.number(0), call.number(1), call.number(2));
    if delta == Some(0.0) {
        return Err(call.invalid(Rule::Generated, "a range with steps of zero never ends"));
    }
    let (Some(start), Some(limit), Some(delta)) = (start, limit, delta) else {
        return Ok(None);
    };
    let count = ((limit - start) / delta).ceil();
    if !count.is_finite() || count > call.limits.max_tensor_elements as f64 {
        return Err(call.invalid(
            Rule::Generated,
            format!("the range has more than {} elements (limit 'elements')", call.limits.max_tensor_elements),
        ));
    }
    Ok(Some(vec![count.max(0.0) as u64]))
}

fn one_hot(call: &Call<'_, '_>) -> Result<Option<Vec<u64>>, Invalid> {
    let Some(depth) = call.number(1) else {
        return Ok(None);
    };
    if !(1.0..=call.limits.max_tensor_elements as f64).contains(&depth) {
        return Err(call.invalid(Rule::Generated, format!("a depth of {depth} is not a size")));
    }
    let Some(mut shape) = call.full_shape(0) else {
        return Ok(None);
    };
    // The position of the new axis does not change the size, but later nodes may need it.
    let axis = call.axis(call.int("axis")?.unwrap_or(-1), shape.len() + 1)?;
    shape.insert(axis, depth as u64);
    Ok(Some(shape))
}

/// Resize by `sizes` or `scales`, Upsample by `scales` as input or attribute.
fn resize(call: &Call<'_, '_>) -> Result<Option<Vec<u64>>, Invalid> {
    let (scales_at, sizes_at) = match (call.node.op_type, call.opset) {
        ("Resize", 11..) => (2, 3),
        _ => (1, usize::MAX),
    };
    let input = call.full_shape(0);
    let axes: Option<Vec<usize>> = match (call.ints("axes")?, call.shape(0)) {
        (None, Some(shape)) => Some((0..shape.len()).collect()),
        (Some(axes), Some(shape)) => {
            Some(axes.into_iter().map(|axis| call.axis(axis, shape.len())).collect::<Result<_, _>>()?)
        }
        (_, None) => None,
    };
    let check_count = |count: usize| match &axes {
        Some(axes) if axes.len() != count => {
            Err(call.invalid(Rule::Shape, format!("there are {count} sizes or scales for {} axes", axes.len())))
        }
        _ => Ok(()),
    };
    if let Some(sizes) = positive(call, call.dims(sizes_at)?)?.filter(|sizes| !sizes.is_empty()) {
        check_count(sizes.len())?;
        elements_fit(call, &sizes)?;
        if sizes.contains(&0) {
            return Err(call.invalid(Rule::Shape, "a size to resize to is zero"));
        }
        let stretches = call.text("keep_aspect_ratio_policy")?.is_none_or(|policy| policy == "stretch");
        let (Some(mut shape), Some(axes)) = (input.filter(|_| stretches), axes) else {
            return Ok(None);
        };
        for (axis, size) in axes.iter().zip(sizes) {
            if let Some(dim) = shape.get_mut(*axis) {
                *dim = size;
            }
        }
        return Ok(Some(shape));
    }
    let scales = match call.floats("scales")? {
        Some(scales) => Some(scales),
        None => call.scales(scales_at)?,
    };
    let Some(scales) = scales.filter(|scales| !scales.is_empty()) else {
        return Ok(None);
    };
    check_count(scales.len())?;
    let most = call.limits.max_tensor_elements as f64;
    if let Some(scale) = scales.iter().find(|scale| !(**scale > 0.0 && **scale <= most)) {
        return Err(call.invalid(Rule::Shape, format!("{scale} is not a valid scale")));
    }
    if scales.iter().product::<f64>() > most {
        return Err(call.invalid(
            Rule::Generated,
            format!("the result has more than {} elements (limit 'elements')", call.limits.max_tensor_elements),
        ));
    }
    let (Some(mut shape), Some(axes)) = (input, axes) else {
        return Ok(None);
    };
    for (axis, scale) in axes.iter().zip(&scales) {
        if let Some(dim) = shape.get_mut(*axis) {
            // Float to integer conversion saturates.
            *dim = (*dim as f64 * scale).floor() as u64;
        }
    }
    Ok(Some(shape))
}

/// A row for each frequency of the transform, a column for each bin.
fn mel_weight_matrix(call: &Call<'_, '_>) -> Result<Option<Vec<u64>>, Invalid> {
    let sizes = [call.scalar(0), call.scalar(1)].into_iter().flatten().collect();
    Ok(match positive(call, Some(sizes))?.as_deref() {
        Some(&[bins, transform]) => Some(vec![transform / 2 + 1, bins]),
        _ => None,
    })
}

fn center_crop_pad(call: &Call<'_, '_>) -> Result<Option<Vec<u64>>, Invalid> {
    let (Some(target), Some(mut shape)) = (positive(call, call.dims(1)?)?, call.full_shape(0)) else {
        return Ok(None);
    };
    let axes: Vec<usize> = match call.ints("axes")? {
        Some(axes) => axes.into_iter().map(|axis| call.axis(axis, shape.len())).collect::<Result<_, _>>()?,
        None => (0..shape.len()).collect(),
    };
    for (axis, size) in axes.iter().zip(target) {
        if let Some(dim) = shape.get_mut(*axis) {
            *dim = size;
        }
    }
    Ok(Some(shape))
}

/// Only if no dimension has to be inferred; the product was checked before.
fn reshape(call: &Call<'_, '_>) -> Result<Option<Vec<u64>>, Invalid> {
    let (Some(input), Some(target)) = (call.full_shape(0), call.dims(1)?) else {
        return Ok(None);
    };
    let keeps_zero = call.int("allowzero")?.unwrap_or(0) != 0;
    let Some(elements) = elements(&input) else {
        return Ok(None);
    };
    let copied = |i: usize, dim: i64| match dim {
        0 if !keeps_zero => input.get(i).copied(),
        -1 => Some(1),
        dim => u64::try_from(dim).ok(),
    };
    let Some(mut shape) = target.iter().enumerate().map(|(i, dim)| copied(i, *dim)).collect::<Option<Vec<u64>>>()
    else {
        return Ok(None);
    };
    if let Some(inferred) = target.iter().position(|dim| *dim == -1) {
        let rest = shape.iter().try_fold(1u64, |all, dim| all.checked_mul(*dim)).filter(|rest| *rest > 0);
        match (rest, shape.get_mut(inferred)) {
            (Some(rest), Some(dim)) => *dim = elements / rest,
            _ => return Ok(None),
        }
    }
    Ok(Some(shape))
}

fn transpose(call: &Call<'_, '_>) -> Result<Option<Vec<u64>>, Invalid> {
    let Some(shape) = call.full_shape(0) else {
        return Ok(None);
    };
    Ok(match call.ints("perm")? {
        Some(order) => order.iter().map(|axis| shape.get(usize::try_from(*axis).ok()?).copied()).collect(),
        None => Some(shape.into_iter().rev().collect()),
    })
}

fn unsqueeze(call: &Call<'_, '_>) -> Result<Option<Vec<u64>>, Invalid> {
    let (Some(mut shape), Some(axes)) = (call.full_shape(0), shaping::axes(call)?) else {
        return Ok(None);
    };
    let rank = shape.len() + axes.len();
    let mut axes: Vec<usize> = axes.into_iter().map(|axis| call.axis(axis, rank)).collect::<Result<_, _>>()?;
    axes.sort_unstable();
    for axis in axes {
        shape.insert(axis.min(shape.len()), 1);
    }
    Ok(Some(shape))
}

fn concat(call: &Call<'_, '_>) -> Result<Option<Vec<u64>>, Invalid> {
    let (Some(mut shape), Some(axis)) = (call.full_shape(0), call.int("axis")?) else {
        return Ok(None);
    };
    let axis = call.axis(axis, shape.len())?;
    for i in 1..call.node.inputs.len() {
        let part = call.full_shape(i).and_then(|part| part.get(axis).copied());
        let (Some(part), Some(dim)) = (part, shape.get_mut(axis)) else {
            return Ok(None);
        };
        *dim = dim.saturating_add(part);
    }
    Ok(Some(shape))
}

fn gather(call: &Call<'_, '_>) -> Result<Option<Vec<u64>>, Invalid> {
    let (Some(mut shape), Some(indices)) = (call.full_shape(0), call.full_shape(1)) else {
        return Ok(None);
    };
    let axis = call.axis(call.int("axis")?.unwrap_or(0), shape.len())?;
    shape.splice(axis..=axis, indices);
    Ok(Some(shape))
}

fn matmul(call: &Call<'_, '_>) -> Option<Vec<u64>> {
    let (one, other) = (call.full_shape(0)?, call.full_shape(1)?);
    let [one_batch @ .., rows, _] = &one[..] else {
        return None;
    };
    let [other_batch @ .., _, columns] = &other[..] else {
        return None;
    };
    let mut shape = broadcast(one_batch, other_batch)?;
    shape.extend([*rows, *columns]);
    Some(shape)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_are_sorted_so_that_every_row_is_found() {
        for table in [KEEPS_SHAPE, BROADCASTS] {
            assert!(table.windows(2).all(|pair| pair[0] < pair[1]));
        }
    }
}
