//! Losses, from graphs that were exported together with the training criterion.

use super::build::{Halt, Imported};
use super::call::Call;
use super::reduce::softmax_of;
use super::table::{Entry, standard};
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::compare::CompareKind;
use crate::ops::gather::Gather;
use crate::ops::gather_elements::GatherElements;
use crate::ops::reduce::ReduceKind;
use crate::ops::softmax::SoftmaxKind;
use crate::ops::unary::UnaryKind;
use crate::tensor::DType;

pub(super) const OPERATORS: &[Entry] =
    &[standard(&["NegativeLogLikelihoodLoss"], likelihood), standard(&["SoftmaxCrossEntropyLoss"], cross_entropy)];

/// `-weight[t] * x[n, t, ...]` for the class `t` of every target; an ignored target counts 0.
fn negative_log_likelihood(cx: &mut Call<'_, '_>, x: ValueId) -> Result<ValueId, Halt> {
    let (mut target, weights) = (cx.input(1)?, cx.optional(2));
    let dims = cx.shape(target).to_vec();
    let fits = cx.rank(x) == dims.len() + 1 && !dims.is_empty();
    if !fits || cx.shape(x)[0] != dims[0] || cx.shape(x)[2..] != dims[1..] {
        return Err(cx.shape_error("the target must have a class for every position except along axis 1", &[x, target]));
    }
    target = cx.cast(target, DType::I64)?;
    let mut ignored = None;
    if cx.has("ignore_index") {
        let index = cx.int("ignore_index", 0)?;
        let index = cx.scalar(index)?;
        let equal = cx.compare(CompareKind::Equal, target, index)?;
        // An ignored index need not be a class.
        let first = cx.scalar(0i64)?;
        target = cx.select(equal, first, target)?;
        ignored = Some(equal);
    }
    let mut along = dims.clone();
    along.insert(1, 1);
    let index = cx.reshape(target, &along)?;
    let picked = cx.add(GatherElements { axis: 1 }, &[x, index])?;
    let picked = cx.reshape(picked, &dims)?;
    let mut loss = cx.unary(UnaryKind::Neg, picked)?;

    let mut weight = match weights {
        Some(weights) => Some(cx.add(Gather { axis: 0 }, &[weights, target])?),
        None => None,
    };
    if let Some(ignored) = ignored {
        let (zero, one) = (cx.scalar_of(cx.dtype(x), 0.0)?, cx.scalar_of(cx.dtype(x), 1.0)?);
        weight = Some(cx.select(ignored, zero, weight.unwrap_or(one))?);
    }
    if let Some(weight) = weight {
        loss = cx.binary(BinaryKind::Mul, loss, weight)?;
    }
    let all: Vec<usize> = (0..dims.len()).collect();
    match (cx.text("reduction")?.unwrap_or("mean"), weight) {
        ("none", _) => Ok(loss),
        ("sum", _) => cx.reduce(ReduceKind::Sum, loss, &all, false),
        ("mean", None) => cx.reduce(ReduceKind::Mean, loss, &all, false),
        ("mean", Some(weight)) => {
            let sum = cx.reduce(ReduceKind::Sum, loss, &all, false)?;
            let weights = cx.reduce(ReduceKind::Sum, weight, &all, false)?;
            cx.binary(BinaryKind::Div, sum, weights)
        }
        (other, _) => Err(cx.attribute_error("reduction", format!("is '{other}', not none, sum or mean"))),
    }
}

/// The loss of log-probabilities.
fn likelihood(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    Ok(vec![negative_log_likelihood(cx, x)?])
}

/// The loss of scores, whose log-probabilities are the second result.
fn cross_entropy(cx: &mut Call<'_, '_>) -> Imported {
    let scores = cx.input(0)?;
    if cx.rank(scores) < 2 {
        return Err(cx.shape_error("scores must have a class axis", &[scores]));
    }
    let logs = softmax_of(cx, SoftmaxKind::LogSoftmax, scores, vec![1])?;
    Ok(vec![negative_log_likelihood(cx, logs)?, logs])
}
