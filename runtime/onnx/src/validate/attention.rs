//! Attention and rotary embeddings, whose operands must agree in head counts, sequence lengths and
//! head sizes. The rules are those of the ONNX operator pages Attention and RotaryEmbedding, and
//! of the contrib operators of ONNX Runtime.

use super::call::Call;
use super::operators::MAX_SIZE;
use super::sizes::{Size, Sizes};
use crate::invalid::{Invalid, Rule, list};

const BATCH: Size = Size("batch", 1);
const QUERIES: Size = Size("number of queries", 1);
const KEYS: Size = Size("number of keys", 1);
const PAST: Size = Size("past length", 1);
const QUERY_HEADS: Size = Size("query heads", 1);
const KEY_HEADS: Size = Size("key heads", 1);
const HEAD: Size = Size("head size", 1);
const VALUE_HEAD: Size = Size("head size of the values", 1);

/// `Q[batch, query heads, queries, head]`, `K[batch, key heads, keys, head]`,
/// `V[batch, key heads, keys, value head]`, a mask that broadcasts to
/// `[batch, query heads, queries, past + keys]`, and past keys and values. With three dimensions,
/// `Q[batch, queries, query heads * head]` and so on; attributes give the head counts.
pub(super) fn attention(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let heads = [call.int_in("q_num_heads", 1..=MAX_SIZE)?, call.int_in("kv_num_heads", 1..=MAX_SIZE)?];
    call.int_in("is_causal", 0..=1)?;
    call.int_in("qk_matmul_output_mode", 0..=3)?;
    if call.input(4).is_some() != call.input(5).is_some() {
        return Err(call.invalid(Rule::Arity, "past keys and past values must be given together"));
    }
    let mut sizes = Sizes::new(call);
    match (0..3).find_map(|index| call.shape(index)).map(|shape| shape.len()) {
        Some(3) => {
            let [Some(queries), Some(keys)] = heads else {
                return call.bad_attribute("q_num_heads", "and kv_num_heads are needed for three dimensions");
            };
            split(&mut sizes, queries.unsigned_abs(), keys.unsigned_abs())?;
        }
        Some(_) => {
            sizes.operand(0, &[BATCH, QUERY_HEADS, QUERIES, HEAD])?;
            sizes.operand(1, &[BATCH, KEY_HEADS, KEYS, HEAD])?;
            sizes.operand(2, &[BATCH, KEY_HEADS, KEYS, VALUE_HEAD])?;
        }
        None => {}
    }
    sizes.operand(4, &[BATCH, KEY_HEADS, PAST, HEAD])?;
    sizes.operand(5, &[BATCH, KEY_HEADS, PAST, VALUE_HEAD])?;
    sizes.operand(6, &[BATCH])?;
    sizes.floats(&[0, 1, 2, 4, 5])?;
    let past = if call.input(4).is_some() { sizes.get(PAST.0) } else { Some(0) };
    products(call, &sizes, past, 3)
}

/// `query[batch, queries, heads * head]`, and key and value likewise (com.microsoft). After the biases of these and the
/// mask of the keys comes a bias of the scores.
pub(super) fn multi_head_attention(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let Some(heads) = call.int_in("num_heads", 1..=MAX_SIZE)? else {
        return call.bad_attribute("num_heads", "is missing");
    };
    let mut sizes = Sizes::new(call);
    split(&mut sizes, heads.unsigned_abs(), heads.unsigned_abs())?;
    sizes.floats(&[0, 1, 2])?;
    let past = if call.input(6).is_some() { None } else { Some(0) };
    products(call, &sizes, past, 5)
}

/// Queries, keys and values with three dimensions: the last one holds all heads, concatenated.
fn split(sizes: &mut Sizes<'_, '_, '_>, queries: u64, keys: u64) -> Result<(), Invalid> {
    sizes.set(QUERY_HEADS.0, queries);
    sizes.set(KEY_HEADS.0, keys);
    sizes.operand(0, &[BATCH, QUERIES, Size(HEAD.0, queries)])?;
    sizes.operand(1, &[BATCH, KEYS, Size(HEAD.0, keys)])?;
    sizes.operand(2, &[BATCH, KEYS, Size(VALUE_HEAD.0, keys)])
}

/// The query head count is a multiple of the key head count, the scores stay within the limits,
/// and the mask, input `mask`, broadcasts to them. Since opset 24 a mask may end before the keys, which hides the
/// others.
fn products(call: &Call<'_, '_>, sizes: &Sizes<'_, '_, '_>, past: Option<u64>, mask: usize) -> Result<(), Invalid> {
    let [batch, heads, queries, keys] = [BATCH, QUERY_HEADS, QUERIES, KEYS].map(|size| sizes.get(size.0));
    if let (Some(heads), Some(keys)) = (heads, sizes.get(KEY_HEADS.0))
        && heads % keys.max(1) != 0
    {
        return Err(call.invalid(Rule::Shape, format!("{heads} query heads are not a multiple of {keys} key heads")));
    }
    let keys = keys.zip(past).map(|(keys, past)| keys.saturating_add(past));
    let scores = [batch, heads, queries, keys];
    let count = scores.iter().fold(1u64, |count, size| count.saturating_mul(size.unwrap_or(1)));
    if count > call.limits.max_tensor_elements {
        let what =
            format!("there are more than {} attention scores (limit 'elements')", call.limits.max_tensor_elements);
        return Err(call.invalid(Rule::Generated, what));
    }
    let Some(mask) = call.shape(mask) else {
        return Ok(());
    };
    let unfit = mask.iter().rev().zip(scores.iter().rev()).enumerate().any(|(at, (mask, size))| match (mask, size) {
        (Some(mask), Some(size)) => *mask != 1 && mask != size && (at > 0 || mask > size || call.opset < 24),
        _ => false,
    });
    if mask.len() > 4 || mask.is_empty() || unfit {
        let shown = |sizes: &[Option<u64>]| {
            let shown = sizes.iter().map(|size| size.map_or("?".into(), |size| size.to_string()));
            list(&shown.collect::<Vec<String>>())
        };
        let (mask, scores) = (shown(&mask), shown(&scores));
        let what = format!("the mask {mask} does not broadcast to {scores}: batch, heads, queries, keys");
        return Err(call.invalid(Rule::Shape, what));
    }
    Ok(())
}

/// `X[batch, heads, sequence, head]` or `X[batch, sequence, heads * head]`. The caches of cosines
/// and sines are `[positions, rotary / 2]` if position ids `[batch, sequence]` are given, and
/// `[batch, sequence, rotary / 2]` if not. In com.microsoft the position ids are input 1, or the position of the first
/// row, and the number of heads may follow from the caches.
pub(super) fn rotary_embedding(call: &Call<'_, '_>, contrib: bool) -> Result<(), Invalid> {
    let [cos, sin, positions] = if contrib { [2, 3, 1] } else { [1, 2, 3] };
    let heads = call.int_in("num_heads", 0..=MAX_SIZE)?.unwrap_or(0).unsigned_abs();
    let rotary = call.int_in("rotary_embedding_dim", 0..=MAX_SIZE)?.unwrap_or(0).unsigned_abs();
    call.int_in("interleaved", 0..=1)?;
    let [batch, sequence, half] = [Size("batch", 1), Size("sequence length", 1), Size("rotated half", 1)];
    let mut sizes = Sizes::new(call);
    match call.shape(0).map(|shape| shape.len()) {
        Some(3) if heads == 0 && contrib => sizes.operand(0, &[batch, sequence, Size("hidden size", 1)])?,
        Some(3) if heads == 0 => return call.bad_attribute("num_heads", "is needed for three dimensions"),
        Some(3) => sizes.operand(0, &[batch, sequence, Size(HEAD.0, heads)])?,
        Some(_) => sizes.operand(0, &[batch, Size("heads", 1), sequence, HEAD])?,
        None => {}
    }
    let rotated = if rotary == 0 { sizes.get(HEAD.0) } else { Some(rotary) };
    if let Some(rotated) = rotated {
        if rotated % 2 != 0 || sizes.get(HEAD.0).is_some_and(|head| rotated > head) {
            return Err(call.invalid(Rule::Shape, format!("{rotated} channels of a head cannot be rotated in pairs")));
        }
        sizes.set(half.0, rotated / 2);
    }
    if call.input(positions).is_some() {
        match call.shape(positions).map(|shape| shape.len()) {
            Some(1) if contrib => {
                sizes.set("first position", 1);
                sizes.operand(positions, &[Size("first position", 1)])?;
            }
            _ => sizes.operand(positions, &[batch, sequence])?,
        }
        for cache in [cos, sin] {
            sizes.operand(cache, &[Size("positions", 1), half])?;
        }
    } else {
        for cache in [cos, sin] {
            sizes.operand(cache, &[batch, sequence, half])?;
        }
    }
    sizes.floats(&[0, cos, sin])?;
    match (call.summary(positions)?.and_then(|positions| positions.ints), sizes.get("positions")) {
        (Some((least, most)), Some(count)) if least < 0 || most.unsigned_abs() >= count => {
            Err(call.invalid(Rule::Index, format!("positions {least} to {most} exceed a cache of {count} positions")))
        }
        _ => Ok(()),
    }
}
