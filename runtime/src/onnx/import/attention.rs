//! Attention and related operators.

use super::build::{Halt, Imported};
use super::call::Call;
use super::double;
use super::product::{Order, of_operands};
use super::quantized::product_of_bytes;
use super::table::{Entry, microsoft, standard};
use crate::error::{OpError, list};
use crate::graph::ValueId;
use crate::ops::attention::{Attention, Scores};
use crate::ops::binary::BinaryKind;
use crate::ops::compare::CompareKind;
use crate::ops::concat::Concat;
use crate::ops::gather::Gather;
use crate::ops::slice::Slice;
use crate::tensor::DType;

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["Attention"], attention),
    standard(&["RotaryEmbedding"], rotary),
    microsoft(&["Attention"], packed),
    microsoft(&["QAttention"], packed_bytes),
    microsoft(&["MultiHeadAttention"], multi_head),
    microsoft(&["RotaryEmbedding"], rotary_with_places),
];

/// Most elements of a mask that is made of a window.
const MAX_WINDOW: usize = 1 << 23;

/// A number of heads.
fn heads(cx: &Call<'_, '_>, name: &'static str, x: ValueId) -> Result<usize, Halt> {
    if let &[_, heads, _, _] = cx.shape(x).dims() {
        return Ok(heads);
    }
    let heads = usize::try_from(cx.int(name, 0)?).ok().filter(|&heads| heads > 0);
    heads.ok_or_else(|| cx.attribute_error(name, "must be above 0"))
}

/// The factor of the products: by default one divided by the square root of the head size.
fn scale(cx: &Call<'_, '_>, q: ValueId, heads: usize) -> Result<f32, Halt> {
    let width = cx.shape(q).last().copied().unwrap_or(1);
    let size = if cx.rank(q) == 4 { width } else { width / heads };
    let given = cx.float("scale", 0.0)?;
    Ok(if given == 0.0 { (size.max(1) as f32).sqrt().recip() } else { given })
}

/// The operands of an attention besides queries, keys and values.
#[derive(Default)]
struct Beside {
    mask: Option<ValueId>,
    past: Option<[ValueId; 2]>,
    lens: Option<ValueId>,
}

/// Adds an attention; returns its results in ONNX's order: y, present keys and values, scores.
fn attend(cx: &mut Call<'_, '_>, mut op: Attention, qkv: [ValueId; 3], beside: Beside) -> Imported {
    let mut inputs = qkv.to_vec();
    inputs.extend(beside.mask);
    inputs.extend(beside.past.into_iter().flatten());
    inputs.extend(beside.lens);
    (op.mask, op.past, op.lens) = (beside.mask.is_some(), beside.past.is_some(), beside.lens.is_some());
    op.present = op.past || cx.is_requested(1) || cx.is_requested(2);
    op.scores = op.scores.filter(|_| cx.is_requested(3));
    if cx.dtype(qkv[0]) == DType::F64 {
        let Beside { mask, past, lens } = beside;
        return double::attend(cx, &op, qkv, &double::Rest { mask, past, lens });
    }
    let present = op.present;
    let mut results = cx.add_all(op, &inputs)?;
    if !present {
        // Results that are not requested.
        results.splice(1..1, [results[0], results[0]]);
    }
    Ok(results)
}

fn attention(cx: &mut Call<'_, '_>) -> Imported {
    let qkv = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let dtype = cx.dtype(qkv[0]);
    if !matches!(dtype, DType::F32 | DType::F64) || qkv.iter().any(|&id| cx.dtype(id) != dtype) {
        return Err(Halt::Foreign);
    }
    let (of_q, of_kv) = (heads(cx, "q_num_heads", qkv[0])?, heads(cx, "kv_num_heads", qkv[1])?);
    let mask = match cx.optional(3) {
        Some(mask) if cx.dtype(mask) != DType::Bool => Some(cx.cast(mask, dtype)?),
        mask => mask,
    };
    let past = cx.optional(4).zip(cx.optional(5)).map(|(k, v)| [k, v]);
    let mask = within_window(cx, mask, qkv, past)?;
    // As in ONNX Runtime: the text of the specification swaps the two values in the middle.
    let scores = match cx.int("qk_matmul_output_mode", 0)? {
        0 => Scores::Products,
        1 => Scores::Capped,
        2 => Scores::Masked,
        3 => Scores::Weights,
        mode => return Err(cx.attribute_error("qk_matmul_output_mode", format!("is {mode}"))),
    };
    let op = Attention {
        scale: scale(cx, qkv[0], of_q)?,
        softcap: cx.float("softcap", 0.0)?,
        causal: cx.flag("is_causal", false)?,
        scores: Some(scores),
        ..Attention::plain(of_q, of_kv)
    };
    let lens = cx.optional(6);
    attend(cx, op, qkv, Beside { mask, past, lens })
}

/// The mask that also hides keys farther from a query than the attributes allow, or the given one if they allow all.
fn within_window(
    cx: &mut Call<'_, '_>,
    mask: Option<ValueId>,
    [q, k, _]: [ValueId; 3],
    past: Option<[ValueId; 2]>,
) -> Result<Option<ValueId>, Halt> {
    let sides = [cx.int("left_window_size", -1)?, cx.int("right_window_size", -1)?];
    if sides.iter().all(|&side| side < 0) {
        return Ok(mask);
    }
    if cx.optional(6).is_some() {
        return Err(cx.attribute_error("left_window_size", "with lengths of the valid keys is not supported"));
    }
    // [batch, length, width] or [batch, heads, length, size].
    let length = |id: ValueId| cx.shape(id).iter().rev().nth(1).copied().unwrap_or(0);
    let before = past.map_or(0, |[k, _]| length(k));
    let (queries, keys) = (length(q), length(k) + before);
    if queries.saturating_mul(keys) > MAX_WINDOW {
        return Err(cx.at(OpError::TooLarge(format!("a mask of {queries}x{keys}"))));
    }
    let [left, right] = sides.map(|side| if side < 0 { i64::MAX } else { side });
    let places = (0..queries as i64).flat_map(|query| (0..keys as i64).map(move |key| key - query - before as i64));
    let seen: Vec<u8> = places.map(|apart| u8::from(-left <= apart && apart <= right)).collect();
    let seen = cx.elements(&[queries, keys], &seen)?;
    let seen = cx.cast(seen, DType::Bool)?;
    match mask {
        None => Ok(Some(seen)),
        Some(mask) if cx.dtype(mask) == DType::Bool => cx.binary(BinaryKind::And, mask, seen).map(Some),
        Some(mask) => {
            let hidden = cx.scalar(f32::NEG_INFINITY)?;
            cx.select(seen, mask, hidden).map(Some)
        }
    }
}

/// `len` elements of the last axis, from `start`.
fn columns(cx: &mut Call<'_, '_>, x: ValueId, start: usize, len: usize) -> Result<ValueId, Halt> {
    let axis = cx.axis_of(-1, cx.rank(x))?;
    cx.add(Slice { axis, start, len, step: 1 }, &[x])
}

/// com.microsoft: an i32 mask `[batch, keys]`, or with more axes, in which 0 hides, or with one axis the numbers of
/// valid keys, then perhaps the first valid ones; and a bias of the scores. `None` if there is neither. Hidden keys
/// have their scores lowered, not removed: if all of them are hidden, the result is as if none was.
fn mask_of(
    cx: &mut Call<'_, '_>,
    mask: Option<ValueId>,
    bias: Option<ValueId>,
    [batch, keys]: [usize; 2],
) -> Result<Option<ValueId>, Halt> {
    let Some(mask) = mask else { return Ok(bias) };
    let dims = match *cx.shape(mask).dims() {
        [ends] if ends == batch || ends == 2 * batch => vec![batch, 1, 1, keys],
        [batch, keys] => vec![batch, 1, 1, keys],
        [batch, queries, keys] => vec![batch, 1, queries, keys],
        // Offsets of packed sequences.
        _ => return Err(Halt::Foreign),
    };
    let mask = match cx.rank(mask) {
        1 => valid_keys(cx, mask, [batch, keys])?,
        _ => cx.cast(mask, DType::Bool)?,
    };
    let mask = cx.reshape(mask, &dims)?;
    let (zero, hidden) = (cx.scalar(0f32)?, cx.float("mask_filter_value", -10000.0)?);
    let hidden = cx.scalar(hidden)?;
    let mask = cx.select(mask, zero, hidden)?;
    match bias {
        Some(bias) => cx.binary(BinaryKind::Add, mask, bias).map(Some),
        None => Ok(Some(mask)),
    }
}

/// Whether each key is before the end of its image's keys, and not before the start, if starts follow the ends.
fn valid_keys(cx: &mut Call<'_, '_>, bounds: ValueId, [batch, keys]: [usize; 2]) -> Result<ValueId, Halt> {
    let starts = cx.shape(bounds).elements() > batch;
    let bounds = cx.cast(bounds, DType::I64)?;
    let places = cx.elements(&[1, keys], &(0..keys as i64).collect::<Vec<_>>())?;
    let part = |cx: &mut Call<'_, '_>, start| {
        let part = cx.add(Slice { axis: 0, start, len: batch, step: 1 }, &[bounds])?;
        cx.reshape(part, &[batch, 1])
    };
    let ends = part(cx, 0)?;
    let valid = cx.compare(CompareKind::Less, places, ends)?;
    if !starts {
        return Ok(valid);
    }
    let starts = part(cx, batch)?;
    let started = cx.compare(CompareKind::GreaterEqual, places, starts)?;
    cx.binary(BinaryKind::And, valid, started)
}

/// com.microsoft MultiHeadAttention of queries, keys and values `[batch, length, heads * size]`.
fn multi_head(cx: &mut Call<'_, '_>) -> Imported {
    let (Some(mut k), Some(mut v)) = (cx.optional(1), cx.optional(2)) else { return Err(Halt::Foreign) };
    let mut q = cx.input(0)?;
    if [q, k, v].iter().any(|&id| cx.rank(id) != 3 || cx.dtype(id) != DType::F32)
        || cx.inputs.iter().skip(8).any(Option::is_some)
    {
        return Err(Halt::Foreign);
    }
    if let Some(bias) = cx.optional(3) {
        let mut start = 0;
        for id in [&mut q, &mut k, &mut v] {
            let width = cx.shape(*id)[2];
            let part = columns(cx, bias, start, width)?;
            *id = cx.binary(BinaryKind::Add, *id, part)?;
            start += width;
        }
    }
    let count = heads(cx, "num_heads", q)?;
    let past = cx.optional(6).zip(cx.optional(7)).map(|(k, v)| [k, v]);
    let before = past.map_or(0, |[k, _]| cx.shape(k).dims().get(2).copied().unwrap_or(0));
    let sizes = [cx.shape(k)[0], cx.shape(k)[1] + before];
    let mask = mask_of(cx, cx.optional(4), cx.optional(5), sizes)?;
    let causal = cx.flag("unidirectional", false)?;
    let op = Attention { scale: scale(cx, q, count)?, causal, ..Attention::plain(count, count) };
    attend(cx, op, [q, k, v], Beside { mask, past, lens: None })
}

/// com.microsoft Attention: queries, keys and values are one product of the input.
fn packed(cx: &mut Call<'_, '_>) -> Imported {
    let (x, weights) = (cx.input(0)?, cx.input(1)?);
    let rotary = cx.flag("do_rotary", false)?;
    if cx.dtype(x) != DType::F32 || cx.rank(x) != 3 || cx.optional(4).is_some() || rotary || cx.is_requested(1) {
        return Err(Halt::Foreign);
    }
    let product = of_operands(cx, x, weights)?;
    let all = product.multiply(cx, x, weights)?;
    let mut all = product.result(cx, all, Order::Plain)?;
    if let Some(bias) = cx.optional(2) {
        all = cx.binary(BinaryKind::Add, all, bias)?;
    }
    of_product(cx, all, cx.optional(3), cx.optional(5))
}

/// com.microsoft QAttention: like Attention, with a product of bytes.
fn packed_bytes(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let rotary = cx.flag("do_rotary", false)?;
    if cx.rank(x) != 3 || cx.optional(8).is_some() || rotary || cx.is_requested(1) {
        return Err(Halt::Foreign);
    }
    let (bias, scales) = (cx.input(2)?, [cx.input(3)?, cx.input(4)?]);
    let all = product_of_bytes(cx, scales, 6, Some(bias))?;
    of_product(cx, all, cx.optional(5), None)
}

/// The attention of queries, keys and values side by side, with a mask and a bias of the scores.
fn of_product(cx: &mut Call<'_, '_>, all: ValueId, mask: Option<ValueId>, bias: Option<ValueId>) -> Imported {
    let whole = cx.shape(all)[2];
    let widths = match cx.ints("qkv_hidden_sizes")? {
        Some(sizes) => sizes.iter().map(|&size| usize::try_from(size).unwrap_or(0)).collect(),
        None => vec![whole / 3; 3],
    };
    let &[q_width, k_width, v_width] = widths.as_slice() else {
        return Err(cx.attribute_error("qkv_hidden_sizes", "does not have three entries"));
    };
    if q_width.checked_add(k_width).and_then(|sum| sum.checked_add(v_width)) != Some(whole) {
        return Err(cx.attribute_error("qkv_hidden_sizes", format!("{} do not add up to {whole}", list(&widths))));
    }
    let qkv = [
        columns(cx, all, 0, q_width)?,
        columns(cx, all, q_width, k_width)?,
        columns(cx, all, q_width + k_width, v_width)?,
    ];
    let count = heads(cx, "num_heads", qkv[0])?;
    let sizes = [cx.shape(all)[0], cx.shape(all)[1]];
    let mask = mask_of(cx, mask, bias, sizes)?;
    let causal = cx.flag("unidirectional", false)?;
    let op = Attention { scale: scale(cx, qkv[0], count)?, causal, ..Attention::plain(count, count) };
    attend(cx, op, qkv, Beside { mask, ..Beside::default() })
}

fn rotary(cx: &mut Call<'_, '_>) -> Imported {
    let (cos, sin) = (cx.input(1)?, cx.input(2)?);
    rotated(cx, cos, sin, cx.optional(3))
}

/// com.microsoft: the positions come before the tables.
fn rotary_with_places(cx: &mut Call<'_, '_>) -> Imported {
    let (places, cos, sin) = (cx.input(1)?, cx.input(2)?, cx.input(3)?);
    let plain = cx.float("scale", 1.0)? == 1.0 && !cx.flag("is_packed_batching", false)?;
    if !plain {
        return Err(Halt::Foreign);
    }
    let places = match cx.rank(places) {
        2 => places,
        // A single position is that of the first row.
        _ => {
            let x = cx.input(0)?;
            let length = cx.shape(x).get(if cx.rank(x) == 3 { 1 } else { 2 }).copied().unwrap_or(0);
            let rows = cx.collected(&[1, length], 0..length as i64)?;
            let first = cx.cast(places, DType::I64)?;
            let first = cx.reshape(first, &[1, 1])?;
            cx.binary(BinaryKind::Add, rows, first)?
        }
    };
    rotated(cx, cos, sin, Some(places))
}

/// Pairs of elements rotated by the angles of their positions.
fn rotated(cx: &mut Call<'_, '_>, cos: ValueId, sin: ValueId, places: Option<ValueId>) -> Imported {
    let x = cx.input(0)?;
    let dims = cx.shape(x).to_vec();
    let half = cx.shape(cos).last().copied().unwrap_or(0);
    // Before the last axis: the lengths and the heads, in either order.
    let by_heads = match *dims.as_slice() {
        [batch, len, width] => {
            let heads = match usize::try_from(cx.int("num_heads", 0)?).unwrap_or(0) {
                0 => width / (2 * half).max(1),
                heads => heads,
            };
            if heads == 0 || width % heads != 0 {
                return Err(cx.attribute_error("num_heads", format!("{heads} heads of {width} elements")));
            }
            vec![batch, len, heads, width / heads]
        }
        [_, _, _, _] => dims.clone(),
        _ => return Err(cx.shape_error("3 or 4 dimensions", &[x])),
    };
    let (len_axis, size) = (if dims.len() == 3 { 1 } else { 2 }, by_heads[3]);
    let turned = match usize::try_from(cx.int("rotary_embedding_dim", 0)?).unwrap_or(0) {
        0 => size,
        turned => turned,
    };
    if half == 0 || turned != 2 * half || turned > size {
        return Err(cx.shape_error("tables must have half as many columns as there are rotated elements", &[x, cos]));
    }
    let mut tables = [cos, sin];
    for table in &mut tables {
        if let Some(places) = places {
            *table = cx.add(Gather { axis: 0 }, &[*table, places])?;
        }
        let &[batch, len, columns] = cx.shape(*table).dims() else {
            return Err(cx.shape_error("tables must be [batch, length, half]", &[*table]));
        };
        let mut wanted = [batch, 1, 1, columns];
        wanted[len_axis] = len;
        *table = cx.reshape(*table, &wanted)?;
    }
    let [cos, sin] = tables;
    let x = cx.reshape(x, &by_heads)?;
    let interleaved = cx.flag("interleaved", false)?;
    let pairs = columns(cx, x, 0, turned)?;
    let mut shape = by_heads.clone();
    shape[3] = half;
    let (first, second) = if interleaved {
        let paired = cx.reshape(pairs, &[&shape[..], &[2]].concat())?;
        let (first, second) = (columns(cx, paired, 0, 1)?, columns(cx, paired, 1, 1)?);
        (cx.reshape(first, &shape)?, cx.reshape(second, &shape)?)
    } else {
        (columns(cx, pairs, 0, half)?, columns(cx, pairs, half, half)?)
    };
    let turn = |cx: &mut Call<'_, '_>, kind, a: [ValueId; 2], b: [ValueId; 2]| {
        let a = cx.binary(BinaryKind::Mul, a[0], a[1])?;
        let b = cx.binary(BinaryKind::Mul, b[0], b[1])?;
        cx.binary(kind, a, b)
    };
    let real = turn(cx, BinaryKind::Sub, [cos, first], [sin, second])?;
    let imaginary = turn(cx, BinaryKind::Add, [sin, first], [cos, second])?;
    shape[3] = turned;
    let mut y = if interleaved {
        let unit = [&by_heads[..3], &[half, 1]].concat();
        let parts = [cx.reshape(real, &unit)?, cx.reshape(imaginary, &unit)?];
        let y = cx.add(Concat { axis: 4 }, &parts)?;
        cx.reshape(y, &shape)?
    } else {
        cx.add(Concat { axis: 3 }, &[real, imaginary])?
    };
    if turned < size {
        let rest = columns(cx, x, turned, size - turned)?;
        y = cx.add(Concat { axis: 3 }, &[y, rest])?;
    }
    Ok(vec![cx.reshape(y, &dims)?])
}
