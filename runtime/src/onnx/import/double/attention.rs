//! Attention of f64, by its definition: products, softmax and products.

use super::super::build::{Halt, Imported};
use super::super::call::Call;
use crate::error::OpError;
use crate::graph::ValueId;
use crate::ops::attention::{Attention, Scores};
use crate::ops::binary::BinaryKind;
use crate::ops::compare::CompareKind;
use crate::ops::concat::Concat;
use crate::ops::contract::Contract;
use crate::ops::pad::{Pad, PadMode};
use crate::ops::reduce::ReduceKind;
use crate::ops::softmax::{Softmax, SoftmaxKind};
use crate::ops::unary::UnaryKind;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// Operands of an attention besides queries, keys and values.
pub(in super::super) struct Rest {
    pub mask: Option<ValueId>,
    pub past: Option<[ValueId; 2]>,
    pub lens: Option<ValueId>,
}

/// Adds an attention over f64; returns its results in ONNX's order: y, present keys and values, scores.
pub(in super::super) fn attend(cx: &mut Call<'_, '_>, op: &Attention, qkv: [ValueId; 3], rest: &Rest) -> Imported {
    let counts = [op.heads, op.kv_heads, op.kv_heads];
    let is_rows = cx.rank(qkv[0]) == 3;
    let mut by_head = [qkv[0]; 3];
    for (slot, (id, heads)) in by_head.iter_mut().zip(qkv.into_iter().zip(counts)) {
        *slot = heads_first(cx, id, heads)?;
    }
    let [q, mut k, mut v] = by_head;
    if let Some([past_k, past_v]) = rest.past {
        k = cx.add(Concat { axis: 2 }, &[past_k, k])?;
        v = cx.add(Concat { axis: 2 }, &[past_v, v])?;
    }
    let (&[batch, heads, queries, size], &[_, kv_heads, keys, k_size]) = (cx.shape(q).dims(), cx.shape(k).dims())
    else {
        return Err(Halt::Foreign);
    };
    let &[_, _, v_keys, v_size] = cx.shape(v).dims() else { return Err(Halt::Foreign) };
    if kv_heads == 0 || !heads.is_multiple_of(kv_heads) || size != k_size || keys != v_keys {
        return Err(cx.shape_error("queries, keys and values must match", &[q, k, v]));
    }
    let group = heads / kv_heads;
    let grouped = cx.reshape(q, &[batch, kv_heads, group, queries, size])?;
    // Labels: image 0, head of keys 1, head in its group 2, query 3, key 4, element 5.
    let product = Contract { a: vec![0, 1, 2, 3, 5], b: vec![0, 1, 4, 5], y: vec![0, 1, 2, 3, 4] };
    let products = cx.add(product, &[grouped, k])?;
    let products = cx.reshape(products, &[batch, heads, queries, keys])?;
    let products = cx.with_number(BinaryKind::Mul, products, f64::from(op.scale))?;
    let mut capped = products;
    if op.softcap > 0.0 {
        let inside = cx.with_number(BinaryKind::Div, products, f64::from(op.softcap))?;
        let bent = cx.unary(UnaryKind::Tanh, inside)?;
        capped = cx.with_number(BinaryKind::Mul, bent, f64::from(op.softcap))?;
    }
    let past = rest.past.map_or(Ok(0), |[k, _]| {
        cx.shape(k).get(2).copied().ok_or_else(|| cx.shape_error("past keys must have 4 dimensions", &[k]))
    })?;
    let masked = masked(cx, op, capped, rest, past)?;
    let weights = cx.add(Softmax { axes: vec![3], kind: SoftmaxKind::Softmax }, &[masked])?;
    // A row whose keys are all hidden gives zeros.
    let most = cx.reduce(ReduceKind::Max, masked, &[3], true)?;
    let (lowest, zero) = (cx.scalar(f64::NEG_INFINITY)?, cx.scalar(0f64)?);
    let blind = cx.compare(CompareKind::Equal, most, lowest)?;
    let weights = cx.select(blind, zero, weights)?;
    let grouped = cx.reshape(weights, &[batch, kv_heads, group, queries, keys])?;
    let product = Contract { a: vec![0, 1, 2, 3, 4], b: vec![0, 1, 4, 5], y: vec![0, 1, 2, 3, 5] };
    let y = cx.add(product, &[grouped, v])?;
    let mut y = cx.reshape(y, &[batch, heads, queries, v_size])?;
    if is_rows {
        y = cx.transpose(y, &[0, 2, 1, 3])?;
        y = cx.reshape(y, &[batch, queries, heads * v_size])?;
    }
    let scores = match op.scores {
        Some(Scores::Products) | None => products,
        Some(Scores::Capped) => capped,
        Some(Scores::Masked) => masked,
        Some(Scores::Weights) => weights,
    };
    Ok(vec![y, k, v, scores])
}

/// `[batch, length, heads * size]` as `[batch, heads, length, size]`.
fn heads_first(cx: &mut Call<'_, '_>, id: ValueId, heads: usize) -> Result<ValueId, Halt> {
    match *cx.shape(id).dims() {
        [batch, len, width] if heads > 0 && width.is_multiple_of(heads) => {
            let split = cx.reshape(id, &[batch, len, heads, width / heads])?;
            cx.transpose(split, &[0, 2, 1, 3])
        }
        [_, of_shape, _, _] if of_shape == heads => Ok(id),
        _ => Err(cx.shape_error("heads do not divide a tensor", &[id])),
    }
}

/// The scores with the mask added, and negative infinity for what a query does not see.
fn masked(cx: &mut Call<'_, '_>, op: &Attention, scores: ValueId, rest: &Rest, past: usize) -> Result<ValueId, Halt> {
    let &[batch, _, queries, keys] = cx.shape(scores).dims() else { return Err(Halt::Foreign) };
    let mut y = scores;
    let lowest = cx.scalar(f64::NEG_INFINITY)?;
    if let Some(mut mask) = rest.mask {
        let is_bool = cx.dtype(mask) == DType::Bool;
        if !is_bool {
            mask = cx.cast(mask, DType::F64)?;
        }
        // Keys beyond the end of a short mask are hidden.
        let rank = cx.rank(mask);
        let last = cx.shape(mask).last().copied().unwrap_or(0);
        if last != keys {
            let missing = keys.checked_sub(last).filter(|_| last > 1);
            let missing = missing.ok_or_else(|| cx.shape_error("a mask must match the scores", &[mask, scores]))?;
            let hidden = match is_bool {
                true => Tensor::zeros(Fact::new(DType::Bool, Shape::default())),
                false => Tensor::scalar(f64::NEG_INFINITY),
            };
            let mut pads = cx.copies((0, 0), rank)?;
            pads[rank - 1] = (0, missing);
            mask = cx.add(Pad { pads, mode: PadMode::Constant(hidden) }, &[mask])?;
        }
        y = if is_bool { cx.select(mask, y, lowest)? } else { cx.binary(BinaryKind::Add, y, mask)? };
    }
    if !op.causal && rest.lens.is_none() {
        return Ok(y);
    }
    // A query sees the keys before some position: by its own, by the length, or by both.
    let places = cx.collected(&[1, 1, 1, keys], 0..keys as i64)?;
    let own = |extra: usize| (0..queries as i64).map(move |query| query + 1 + extra as i64);
    let mut limits = Vec::new();
    match rest.lens {
        None => limits.push(cx.collected(&[1, 1, queries, 1], own(past))?),
        Some(lens) => {
            if cx.shape(lens).elements() != batch {
                return Err(cx.at(OpError::shapes("one length for each image", &[cx.shape(lens)])));
            }
            let lens = cx.cast(lens, DType::I64)?;
            let lens = cx.reshape(lens, &[batch, 1, 1, 1])?;
            limits.push(lens);
            if op.causal {
                let own = cx.collected(&[1, 1, queries, 1], own(0).map(|place| place - queries as i64))?;
                limits.push(cx.binary(BinaryKind::Add, own, lens)?);
            }
        }
    }
    for limit in limits {
        let seen = cx.compare(CompareKind::Less, places, limit)?;
        y = cx.select(seen, y, lowest)?;
    }
    Ok(y)
}
