//! Normalizations.

use super::build::{Halt, Imported};
use super::call::Call;
use super::elementwise::expand_to;
use super::table::{Entry, microsoft, standard};
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::compare::CompareKind;
use crate::ops::gather::Gather;
use crate::ops::group_norm::GroupNorm;
use crate::ops::layernorm::{LayerNorm, Norm};
use crate::ops::reduce::ReduceKind;
use crate::ops::unary::UnaryKind;
use crate::tensor::DType;

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["BatchNormalization"], batch),
    standard(&["LayerNormalization"], layer),
    standard(&["RMSNormalization", "SimplifiedLayerNormalization"], root_mean_square),
    standard(&["InstanceNormalization"], instance),
    standard(&["GroupNormalization"], group),
    standard(&["LpNormalization"], lp),
    standard(&["MeanVarianceNormalization"], mean_variance),
    microsoft(&["EmbedLayerNormalization"], embed_layer),
    microsoft(&["QEmbedLayerNormalization"], embed_bytes),
    microsoft(&["LayerNormalization"], layer),
    microsoft(&["SkipLayerNormalization", "SkipSimplifiedLayerNormalization"], skip_layer),
];

/// One parameter per channel, aligned with axis 1 of `rank`.
fn per_channel(cx: &mut Call<'_, '_>, id: ValueId, channels: usize, rank: usize) -> Result<ValueId, Halt> {
    if cx.shape(id).elements() != channels || cx.rank(id) > 1 {
        return Err(cx.shape_error("there must be one parameter per channel", &[cx.input(0)?, id]));
    }
    let mut dims = vec![channels];
    dims.resize(rank.saturating_sub(1).max(1), 1);
    cx.reshape(id, &dims)
}

/// Mean and variance along axes, which are kept with length 1.
fn moments(cx: &mut Call<'_, '_>, x: ValueId, axes: &[usize]) -> Result<(ValueId, ValueId), Halt> {
    let mean = cx.reduce(ReduceKind::Mean, x, axes, true)?;
    let square = cx.binary(BinaryKind::SqDiff, x, mean)?;
    Ok((mean, cx.reduce(ReduceKind::Mean, square, axes, true)?))
}

/// `sqrt(variance + epsilon)`
fn deviation(cx: &mut Call<'_, '_>, variance: ValueId, epsilon: f32) -> Result<ValueId, Halt> {
    let sum = cx.with_number(BinaryKind::Add, variance, f64::from(epsilon))?;
    cx.unary(UnaryKind::Sqrt, sum)
}

/// `(x - mean) / sqrt(variance + epsilon) * scale + bias`, with statistics from training or, in training mode, of the
/// batch. With known statistics it is one product and one sum, which convolutions can absorb.
fn batch(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let (dims, epsilon) = (cx.shape(x).to_vec(), cx.float("epsilon", 1e-5)?);
    // Before opset 14, requesting statistics as results meant training mode.
    let training =
        cx.flag("training_mode", false)? || cx.opset < 14 && (1..cx.outputs()).any(|index| cx.is_requested(index));
    let spatial = cx.flag("spatial", true)?;
    if !matches!(cx.dtype(x), DType::F32 | DType::F64) {
        return Err(Halt::Foreign);
    }
    let (rank, channels) = (dims.len(), dims.get(1).copied().unwrap_or(1));
    let mut parameters = [x; 4];
    for (index, slot) in parameters.iter_mut().enumerate() {
        let id = cx.input(index + 1)?;
        let id = cx.cast(id, cx.dtype(x))?;
        // Before opset 9, there could be a parameter for each pixel of each channel.
        *slot = if spatial {
            per_channel(cx, id, channels, rank)?
        } else {
            cx.reshape(id, dims.get(1..).unwrap_or_default())?
        };
    }
    let [scale, bias, mean, variance] = parameters;
    if training {
        return of_batch(cx, x, [scale, bias], epsilon);
    }
    let deviation = deviation(cx, variance, epsilon)?;
    let factor = cx.binary(BinaryKind::Div, scale, deviation)?;
    let moved = cx.binary(BinaryKind::Mul, mean, factor)?;
    let shift = cx.binary(BinaryKind::Sub, bias, moved)?;
    let y = cx.binary(BinaryKind::Mul, x, factor)?;
    Ok(vec![cx.binary(BinaryKind::Add, y, shift)?])
}

/// Batch normalization with the statistics of the batch, which also update the running ones; those are results too.
fn of_batch(cx: &mut Call<'_, '_>, x: ValueId, [scale, bias]: [ValueId; 2], epsilon: f32) -> Imported {
    let rank = cx.rank(x);
    let axes: Vec<usize> = (0..rank).filter(|&axis| axis != 1).collect();
    let (mean, variance) = moments(cx, x, &axes)?;
    let deviation = deviation(cx, variance, epsilon)?;
    let factor = cx.binary(BinaryKind::Div, scale, deviation)?;
    // Subtract the mean first, so that large elements become small.
    let centered = cx.binary(BinaryKind::Sub, x, mean)?;
    let y = cx.binary(BinaryKind::Mul, centered, factor)?;
    let mut results = vec![cx.binary(BinaryKind::Add, y, bias)?];
    let momentum = f64::from(cx.float("momentum", 0.9)?);
    let channels = cx.shape(x).get(1).copied().unwrap_or(1);
    for (index, of_batch) in [(3, mean), (4, variance)] {
        let old = cx.with_number(BinaryKind::Mul, cx.input(index)?, momentum)?;
        let of_batch = cx.reshape(of_batch, &[channels])?;
        let of_batch = cx.cast(of_batch, cx.dtype(old))?;
        let new = cx.with_number(BinaryKind::Mul, of_batch, 1.0 - momentum)?;
        results.push(cx.binary(BinaryKind::Add, old, new)?);
    }
    for of_batch in [mean, variance] {
        results.push(cx.reshape(of_batch, &[channels])?);
    }
    Ok(results)
}

/// Scale and bias of rows, and the kind of normalization.
struct RowNormalization {
    axis: usize,
    epsilon: f32,
    norm: Norm,
    scale: Option<ValueId>,
    bias: Option<ValueId>,
}

/// A normalization over the axes from `axis`.
fn rows(
    cx: &mut Call<'_, '_>,
    x: ValueId,
    RowNormalization { axis, epsilon, norm, scale, bias }: RowNormalization,
) -> Result<ValueId, Halt> {
    let row = cx.shape(x)[axis..].to_vec();
    let count: usize = row.iter().product();
    // The result has the type of the scale.
    let result = scale.map_or(cx.dtype(x), |scale| cx.dtype(scale));
    if cx.dtype(x) == DType::F64 || result == DType::F64 {
        let axes: Vec<usize> = (axis..cx.rank(x)).collect();
        let wide = cx.cast(x, DType::F64)?;
        let mut y = normal(cx, wide, &axes, epsilon, norm)?;
        for (kind, parameter) in [(BinaryKind::Mul, scale), (BinaryKind::Add, bias)] {
            if let Some(parameter) = parameter {
                let parameter = cx.cast(parameter, DType::F64)?;
                let parameter = row_parameter(cx, parameter, &row)?;
                let parameter = cx.reshape(parameter, &row)?;
                y = cx.binary(kind, y, parameter)?;
            }
        }
        return cx.cast(y, result);
    }
    let scale = match scale {
        Some(scale) => row_parameter(cx, scale, &row)?,
        None => cx.collected(&[count], std::iter::repeat_n(1f32, count))?,
    };
    let mut inputs = vec![x, scale];
    if let Some(bias) = bias {
        inputs.push(row_parameter(cx, bias, &row)?);
    }
    cx.add(LayerNorm { axis, epsilon, norm }, &inputs)
}

/// `(x - mean) / sqrt(variance + epsilon)` along axes, or without the mean, by arithmetic.
fn normal(cx: &mut Call<'_, '_>, x: ValueId, axes: &[usize], epsilon: f32, norm: Norm) -> Result<ValueId, Halt> {
    let mut centered = x;
    if norm == Norm::Standard {
        let mean = cx.reduce(ReduceKind::Mean, x, axes, true)?;
        centered = cx.binary(BinaryKind::Sub, x, mean)?;
    }
    let square = cx.unary(UnaryKind::Square, centered)?;
    let variance = cx.reduce(ReduceKind::Mean, square, axes, true)?;
    let deviation = deviation(cx, variance, epsilon)?;
    cx.binary(BinaryKind::Div, centered, deviation)
}

/// A parameter of rows: one per element, or a shape that broadcasts to that.
fn row_parameter(cx: &mut Call<'_, '_>, id: ValueId, row: &[usize]) -> Result<ValueId, Halt> {
    if cx.shape(id).elements() == row.iter().product::<usize>() { Ok(id) } else { expand_to(cx, id, row) }
}

/// Mean and inverse deviation are results that only training requests.
fn layer(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let (axis, epsilon) = (cx.axis(-1, cx.rank(x))?, cx.float("epsilon", 1e-5)?);
    let (scale, bias) = (cx.optional(1), cx.optional(2));
    let mut results = vec![rows(cx, x, RowNormalization { axis, epsilon, norm: Norm::Standard, scale, bias })?];
    if cx.outputs() > 1 {
        let axes: Vec<usize> = (axis..cx.rank(x)).collect();
        let (mean, variance) = moments(cx, x, &axes)?;
        let deviation = deviation(cx, variance, epsilon)?;
        let inverse = cx.unary(UnaryKind::Reciprocal, deviation)?;
        // Statistics are f32, whatever the elements are.
        results.extend([cx.cast(mean, DType::F32)?, cx.cast(inverse, DType::F32)?]);
    }
    Ok(results)
}

/// Like `layer`, without the mean.
fn root_mean_square(cx: &mut Call<'_, '_>) -> Imported {
    if (1..cx.outputs()).any(|index| cx.is_requested(index)) {
        return Err(Halt::Foreign);
    }
    let x = cx.input(0)?;
    let (axis, epsilon) = (cx.axis(-1, cx.rank(x))?, cx.float("epsilon", 1e-5)?);
    let scale = cx.optional(1);
    Ok(vec![rows(cx, x, RowNormalization { axis, epsilon, norm: Norm::RootMeanSquare, scale, bias: None })?])
}

/// com.microsoft: normalizes a sum, which may be the fourth result. The simplified version has no mean and no bias.
fn skip_layer(cx: &mut Call<'_, '_>) -> Imported {
    if cx.is_requested(1) || cx.is_requested(2) {
        return Err(Halt::Foreign);
    }
    let simplified = cx.node.op_type == "SkipSimplifiedLayerNormalization";
    let mut sum = cx.binary(BinaryKind::Add, cx.input(0)?, cx.input(1)?)?;
    if let Some(bias) = cx.optional(if simplified { 3 } else { 4 }) {
        sum = cx.binary(BinaryKind::Add, sum, bias)?;
    }
    let axis = cx.axis_of(-1, cx.rank(sum))?;
    let epsilon = cx.float("epsilon", 1e-12)?;
    let norm = if simplified { Norm::RootMeanSquare } else { Norm::Standard };
    let (scale, bias) = (cx.optional(2), cx.optional(3).filter(|_| !simplified));
    let y = rows(cx, sum, RowNormalization { axis, epsilon, norm, scale, bias })?;
    Ok(vec![y, sum, sum, sum])
}

/// com.microsoft: the normalized sum of the embeddings of words, positions and segments; the third result is the sum.
fn embed_layer(cx: &mut Call<'_, '_>) -> Imported {
    let [words, table, places] = [cx.input(0)?, cx.input(2)?, cx.input(3)?];
    let &[batch, length] = cx.shape(words).dims() else {
        return Err(cx.shape_error("words must be rows of a batch", &[words]));
    };
    let mut sum = cx.add(Gather { axis: 0 }, &[table, words])?;
    let positions = match cx.optional(8) {
        Some(positions) => positions,
        None => cx.collected(&[1, length], 0..length as i64)?,
    };
    let positions = cx.add(Gather { axis: 0 }, &[places, positions])?;
    sum = cx.binary(BinaryKind::Add, sum, positions)?;
    if let (Some(segments), Some(table)) = (cx.optional(1), cx.optional(4)) {
        let segments = cx.add(Gather { axis: 0 }, &[table, segments])?;
        sum = cx.binary(BinaryKind::Add, sum, segments)?;
    }
    let (scale, bias) = (Some(cx.input(5)?), Some(cx.input(6)?));
    let (axis, epsilon) = (cx.axis_of(-1, cx.rank(sum))?, cx.float("epsilon", 1e-12)?);
    let y = rows(cx, sum, RowNormalization { axis, epsilon, norm: Norm::Standard, scale, bias })?;
    // The number of words that the mask keeps.
    let index = match cx.optional(7) {
        None => cx.collected(&[batch], std::iter::repeat_n(0i32, batch))?,
        Some(mask) => {
            let one = cx.scalar(1i32)?;
            let kept = cx.compare(CompareKind::Equal, mask, one)?;
            let kept = cx.cast(kept, DType::I32)?;
            cx.reduce(ReduceKind::Sum, kept, &[1], false)?
        }
    };
    Ok(vec![y, index, sum])
}

/// Like `embed_layer` with tables and parameters of bytes: their scales follow the mask, then their zero points.
fn embed_bytes(cx: &mut Call<'_, '_>) -> Imported {
    const TABLES: [usize; 5] = [2, 3, 4, 5, 6];
    let mut inputs = cx.list(cx.inputs.iter().copied().take(8))?;
    for (at, table) in TABLES.into_iter().enumerate() {
        let Some(bytes) = cx.optional(table) else { continue };
        let (scale, zero) = (cx.input(8 + at)?, cx.optional(8 + TABLES.len() + at));
        inputs[table] = Some(cx.dequantized(bytes, scale, zero, -1)?);
    }
    cx.inputs = inputs;
    embed_layer(cx)
}

/// Each channel of each image with its own statistics.
fn instance(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    if cx.rank(x) < 3 {
        return Err(cx.shape_error("images must have at least 3 dimensions", &[x]));
    }
    grouped(cx, x, cx.shape(x)[1], false)
}

/// Groups of channels with their own statistics. Scale and bias are per channel since opset 21, before that per group.
fn group(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let groups = usize::try_from(cx.int("num_groups", 0)?).ok().filter(|&groups| groups > 0);
    let groups = groups.ok_or_else(|| cx.attribute_error("num_groups", "must be above 0"))?;
    let of_groups = cx.opset < 21;
    grouped(cx, x, groups, of_groups)
}

fn grouped(cx: &mut Call<'_, '_>, x: ValueId, groups: usize, of_groups: bool) -> Imported {
    let dims = cx.shape(x).to_vec();
    let &[_, channels, ..] = dims.as_slice() else {
        return Err(cx.shape_error("images must have at least 2 dimensions", &[x]));
    };
    if !channels.is_multiple_of(groups) {
        return Err(cx.attribute_error("num_groups", format!("{groups} groups do not divide {channels} channels")));
    }
    let dtype = cx.dtype(x);
    if !matches!(dtype, DType::F32 | DType::F64) {
        return Err(Halt::Foreign);
    }
    let mut inputs = vec![x];
    for index in 1..3 {
        let mut id = cx.input(index)?;
        if of_groups && groups != channels {
            let wide = cx.reshape(id, &[groups, 1])?;
            let wide = expand_to(cx, wide, &[groups, channels / groups])?;
            id = cx.reshape(wide, &[channels])?;
        }
        inputs.push(id);
    }
    let epsilon = cx.float("epsilon", 1e-5)?;
    if dtype == DType::F32 {
        return cx.add_all(GroupNorm { groups, epsilon }, &inputs);
    }
    let rest = dims[2..].iter().product::<usize>() * (channels / groups);
    let split = cx.reshape(x, &[dims[0], groups, rest])?;
    let y = normal(cx, split, &[2], epsilon, Norm::Standard)?;
    let mut y = cx.reshape(y, &dims)?;
    for (kind, &parameter) in [BinaryKind::Mul, BinaryKind::Add].into_iter().zip(&inputs[1..]) {
        let parameter = per_channel(cx, parameter, channels, dims.len())?;
        y = cx.binary(kind, y, parameter)?;
    }
    Ok(vec![y])
}

/// Each row divided by its norm: the sum of absolute values (p = 1) or the root of the sum of squares (p = 2).
fn lp(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let axis = cx.axis(-1, cx.rank(x))?;
    let kind = match cx.int("p", 2)? {
        1 => ReduceKind::L1,
        2 => ReduceKind::L2,
        p => return Err(cx.attribute_error("p", format!("is {p}, not 1 or 2"))),
    };
    let length = cx.reduce(kind, x, &[axis], true)?;
    // A row of zeros stays zero.
    let (zero, one) = (cx.scalar_of(cx.dtype(x), 0.0)?, cx.scalar_of(cx.dtype(x), 1.0)?);
    let empty = cx.compare(CompareKind::Equal, length, zero)?;
    let length = cx.select(empty, one, length)?;
    Ok(vec![cx.binary(BinaryKind::Div, x, length)?])
}

/// `(x - mean) / (deviation + 1e-9)` along axes, by default all but the channels.
fn mean_variance(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let axes = cx.ints("axes")?.unwrap_or_else(|| vec![0, 2, 3]);
    let axes = cx.axes_of(&axes, cx.rank(x))?;
    let mean = cx.reduce(ReduceKind::Mean, x, &axes, true)?;
    let centered = cx.binary(BinaryKind::Sub, x, mean)?;
    let square = cx.unary(UnaryKind::Square, centered)?;
    let variance = cx.reduce(ReduceKind::Mean, square, &axes, true)?;
    let deviation = cx.unary(UnaryKind::Sqrt, variance)?;
    let below = cx.with_number(BinaryKind::Add, deviation, 1e-9)?;
    Ok(vec![cx.binary(BinaryKind::Div, centered, below)?])
}
