//! Operators along axes: sums and other reductions, the largest elements, cumulative sums, softmax.

use super::build::{Halt, Imported};
use super::call::Call;
use super::lengths::{Known, Rest};
use super::measured::moved_axes;
use super::table::{Entry, standard};
use crate::error::OpError;
use crate::graph::ValueId;
use crate::ops::argmax::ArgMax;
use crate::ops::binary::BinaryKind;
use crate::ops::compare::CompareKind;
use crate::ops::cumsum::CumSum;
use crate::ops::one_hot::OneHot;
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::ops::softmax::{Softmax, SoftmaxKind};
use crate::ops::topk::TopK;
use crate::ops::unary::UnaryKind;
use crate::tensor::{DType, Tensor};

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["ReduceSum", "ReduceMean", "ReduceMax", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2"], reduce),
    standard(&["ReduceSumSquare", "ReduceLogSum", "ReduceLogSumExp"], reduce),
    standard(&["ArgMax", "ArgMin"], arg),
    standard(&["CumSum"], cum_sum),
    standard(&["TopK"], top_k),
    standard(&["Softmax", "LogSoftmax"], softmax),
    standard(&["Hardmax"], hardmax),
];

/// The axes that a node reduces; `None` if it leaves its operand unchanged. They were an attribute before opset 18 (for
/// sums before 13).
fn axes(cx: &Call<'_, '_>, rank: usize) -> Result<Option<Vec<usize>>, Halt> {
    let axes = cx.ints_or_input("axes", 1)?.filter(|axes| !axes.is_empty());
    match axes {
        Some(axes) => cx.axes_of(&axes, rank).map(Some),
        None if cx.flag("noop_with_empty_axes", false)? => Ok(None),
        None => Ok(Some((0..rank).collect())),
    }
}

impl Call<'_, '_> {
    /// Reduces `axes`.
    pub fn reduce(&mut self, kind: ReduceKind, x: ValueId, axes: &[usize], keep_dims: bool) -> Result<ValueId, Halt> {
        self.add(Reduce { axes: axes.to_vec(), kind, keep_dims }, &[x])
    }
}

fn reduce(cx: &mut Call<'_, '_>) -> Imported {
    let mut x = cx.input(0)?;
    let op = cx.node.op_type;
    let axes = axes(cx, cx.rank(x))?;
    let keep = cx.flag("keepdims", true)?;
    let dtype = cx.dtype(x);
    if op.starts_with("ReduceLogSum") && !matches!(dtype, DType::F32 | DType::F64) {
        // Of integers, only the result is rounded.
        let wide = cx.cast(x, DType::F64)?;
        cx.inputs[0] = Some(wide);
        let y = reduce(cx)?[0];
        return Ok(vec![cx.cast(y, dtype)?]);
    }
    let kind = match op {
        "ReduceSum" | "ReduceLogSum" => ReduceKind::Sum,
        "ReduceMean" => ReduceKind::Mean,
        "ReduceMax" => ReduceKind::Max,
        "ReduceMin" => ReduceKind::Min,
        "ReduceProd" => ReduceKind::Prod,
        "ReduceL1" => ReduceKind::L1,
        "ReduceL2" => ReduceKind::L2,
        "ReduceSumSquare" => ReduceKind::SumSquare,
        _ => {
            let along = axes.clone().unwrap_or_default();
            let x = cx.filled(x, &along, Rest::Lowest)?;
            return log_sum_exp(cx, x, axes, keep);
        }
    };
    // Without axes, only the elementwise part of the reduction remains.
    let axes = axes.unwrap_or_default();
    if axes.iter().any(|&axis| cx.length(x, axis).is_some()) {
        if kind == ReduceKind::Mean {
            return measured_mean(cx, x, &axes, keep);
        }
        let rest = match kind {
            ReduceKind::Max => Rest::Lowest,
            ReduceKind::Min => Rest::Highest,
            ReduceKind::Prod => Rest::Number(1.0),
            _ => Rest::Number(0.0),
        };
        x = cx.filled(x, &axes, rest)?;
    }
    let is_bool = cx.dtype(x) == DType::Bool;
    if is_bool && matches!(kind, ReduceKind::Max | ReduceKind::Min) {
        x = cx.cast(x, DType::U8)?;
    }
    let changes = matches!(kind, ReduceKind::L1 | ReduceKind::L2 | ReduceKind::SumSquare);
    let mut y = if axes.is_empty() && !changes { x } else { cx.reduce(kind, x, &axes, keep)? };
    if is_bool {
        y = cx.cast(y, DType::Bool)?;
    }
    if op == "ReduceLogSum" {
        y = cx.unary(UnaryKind::Log, y)?;
    }
    Ok(vec![y])
}

/// The mean of axes whose lengths only the run knows.
fn measured_mean(cx: &mut Call<'_, '_>, x: ValueId, axes: &[usize], keep: bool) -> Imported {
    let dtype = cx.dtype(x);
    if !matches!(dtype, DType::F32 | DType::F64) {
        return Err(cx.dynamic("the number of integers that the mean is of"));
    }
    let mut count = cx.scalar(1i64)?;
    for &axis in axes {
        let len = cx.length_of(x, axis)?;
        count = cx.count(BinaryKind::Mul, count, len)?;
    }
    let whole = cx.filled(x, axes, Rest::Number(0.0))?;
    let sum = cx.reduce(ReduceKind::Sum, whole, axes, keep)?;
    let count = cx.cast(count, dtype)?;
    Ok(vec![cx.binary(BinaryKind::Div, sum, count)?])
}

/// `log(sum(e^x))` as `max + log(sum(e^(x - max)))`, which does not overflow.
fn log_sum_exp(cx: &mut Call<'_, '_>, x: ValueId, axes: Option<Vec<usize>>, keep: bool) -> Imported {
    let Some(axes) = axes.filter(|axes| !axes.is_empty()) else { return Ok(vec![x]) };
    let from = cx.shape(x).to_vec();
    if axes.iter().any(|&axis| from[axis] == 0) {
        // Without elements there is no maximum: the logarithm of an empty sum.
        let power = cx.unary(UnaryKind::Exp, x)?;
        let sum = cx.reduce(ReduceKind::Sum, power, &axes, keep)?;
        return Ok(vec![cx.unary(UnaryKind::Log, sum)?]);
    }
    let max = cx.reduce(ReduceKind::Max, x, &axes, true)?;
    // Infinity minus infinity is NaN, so an infinite maximum is not subtracted.
    let size = cx.unary(UnaryKind::Abs, max)?;
    let (infinity, zero) = (cx.scalar_of(cx.dtype(x), f64::INFINITY)?, cx.scalar_of(cx.dtype(x), 0.0)?);
    let finite = cx.compare(CompareKind::Less, size, infinity)?;
    let shift = cx.select(finite, max, zero)?;
    let moved = cx.binary(BinaryKind::Sub, x, shift)?;
    let power = cx.unary(UnaryKind::Exp, moved)?;
    let sum = cx.reduce(ReduceKind::Sum, power, &axes, true)?;
    let log = cx.unary(UnaryKind::Log, sum)?;
    let y = cx.binary(BinaryKind::Add, log, shift)?;
    if keep {
        return Ok(vec![y]);
    }
    let kept: Vec<usize> = (0..from.len()).filter(|axis| !axes.contains(axis)).collect();
    let dims: Vec<usize> = kept.iter().map(|&axis| from[axis]).collect();
    Ok(vec![moved_axes(cx, y, &dims, |axis| kept.iter().position(|&other| other == axis))?])
}

/// Index of the largest or smallest element along an axis.
fn arg(cx: &mut Call<'_, '_>) -> Imported {
    let mut x = cx.input(0)?;
    let axis = cx.axis(0, cx.rank(x))?;
    if cx.length(x, axis).is_some() {
        // What stands behind the last element comes after an equal one.
        if cx.flag("select_last_index", false)? {
            return Err(cx.dynamic("the length of the axis"));
        }
        x = cx.filled(x, &[axis], if cx.node.op_type == "ArgMax" { Rest::Lowest } else { Rest::Highest })?;
    }
    let op = ArgMax { axis, largest: cx.node.op_type == "ArgMax", last: cx.flag("select_last_index", false)? };
    let y = cx.add(op, &[x])?;
    if cx.flag("keepdims", true)? {
        return Ok(vec![y]);
    }
    let mut dims = cx.shape(y).to_vec();
    dims.remove(axis);
    Ok(vec![moved_axes(cx, y, &dims, |from| if from > axis { from.checked_sub(1) } else { Some(from) })?])
}

fn cum_sum(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let Some(axis) = cx.integer(1)? else { return Err(cx.attribute_error("axis", "is missing")) };
    let axis = cx.axis_of(axis, cx.rank(x))?;
    let op = CumSum { axis, exclusive: cx.flag("exclusive", false)?, reverse: cx.flag("reverse", false)? };
    let Some(len) = cx.length(x, axis) else { return cx.add_all(op, &[x]) };
    let whole = cx.filled(x, &[axis], Rest::Number(0.0))?;
    let y = cx.add(op, &[whole])?;
    cx.measure(y, axis, len);
    Ok(vec![y])
}

/// The number of elements was an attribute before opset 10.
fn top_k(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let axis = cx.axis(-1, cx.rank(x))?;
    let k = match cx.has("k") {
        true => Some(Known::of(cx.int("k", 0)?)),
        false => cx.known(1)?.and_then(|known| known.first().copied()),
    };
    let k = k.ok_or_else(|| cx.attribute_error("k", "must be given"))?;
    let largest = cx.flag("largest", true)?;
    if k.constant().is_none() || cx.length(x, axis).is_some() {
        return measured_top_k(cx, x, axis, k, largest);
    }
    let k = k.constant().and_then(|k| usize::try_from(k).ok());
    let k = k.ok_or_else(|| cx.attribute_error("k", "must not be negative"))?;
    cx.add_all(TopK { axis, k, largest }, &[x])
}

/// The best elements of an axis: as many as the run says, or of one whose length only the run knows.
fn measured_top_k(cx: &mut Call<'_, '_>, x: ValueId, axis: usize, k: Known, largest: bool) -> Imported {
    let (len, dim) = (cx.length_of(x, axis)?, cx.shape(x)[axis]);
    let count = cx.element(1, 0, k)?;
    let count = cx.checked_length(count, len)?;
    let whole = cx.filled(x, &[axis], if largest { Rest::Lowest } else { Rest::Highest })?;
    let measured = cx.build.lengths.of(whole).to_vec();
    let k = usize::try_from(k.high.max(0)).unwrap_or(dim).min(dim);
    let name = cx.name().to_owned();
    let results = cx.build.add_raw(&name, TopK { axis, k, largest }, &[whole])?;
    for &result in &results {
        cx.build.lengths.set(result, measured.clone());
        cx.measure(result, axis, count);
    }
    Ok(results)
}

/// The axes of a softmax: one since opset 13, all from some axis on before that.
fn softmax_axes(cx: &Call<'_, '_>, rank: usize) -> Result<Vec<usize>, Halt> {
    if cx.opset >= 13 {
        return Ok(vec![cx.axis(-1, rank)?]);
    }
    Ok((cx.axis(1, rank)?..rank).collect())
}

fn softmax(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let kind = if cx.node.op_type == "Softmax" { SoftmaxKind::Softmax } else { SoftmaxKind::LogSoftmax };
    let axes = softmax_axes(cx, cx.rank(x))?;
    let measured: Vec<_> = cx.build.lengths.of(x).iter().copied().filter(|of| axes.contains(&of.axis)).collect();
    let whole = cx.filled(x, &axes, Rest::Lowest)?;
    let y = softmax_of(cx, kind, whole, axes)?;
    measured.into_iter().for_each(|of| cx.measure(y, of.axis, of.len));
    Ok(vec![y])
}

/// The softmax over some axes, or its logarithm.
pub(super) fn softmax_of(
    cx: &mut Call<'_, '_>,
    kind: SoftmaxKind,
    x: ValueId,
    axes: Vec<usize>,
) -> Result<ValueId, Halt> {
    cx.add(Softmax { axes, kind }, &[x])
}

/// 1 at the first of the largest elements, otherwise 0.
fn hardmax(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let (off, on) = match cx.dtype(x) {
        DType::F32 => (Tensor::scalar(0f32), Tensor::scalar(1f32)),
        DType::F64 => (Tensor::scalar(0f64), Tensor::scalar(1f64)),
        _ => return Err(Halt::Foreign),
    };
    let dims = cx.shape(x).to_vec();
    let axes = softmax_axes(cx, dims.len())?;
    if dims.contains(&0) {
        return Ok(vec![x]);
    }
    let (before, rest) = dims.split_at(axes[0]);
    let (row, behind) = rest.split_at(axes.len());
    let [before, row, behind] = [before, row, behind].map(|dims| dims.iter().product::<usize>());
    let flat = cx.reshape(x, &[before, row, behind])?;
    let at = cx.add(ArgMax { axis: 1, largest: true, last: false }, &[flat])?;
    let at = cx.reshape(at, &[before, behind])?;
    let y = cx.add(OneHot { axis: 1, depth: row, off, on }, &[at])?;
    if cx.shape(y).elements() != cx.shape(x).elements() {
        return Err(cx.at(OpError::shapes("there must be one index per row", &[cx.shape(x), cx.shape(y)])));
    }
    Ok(vec![cx.reshape(y, &dims)?])
}
