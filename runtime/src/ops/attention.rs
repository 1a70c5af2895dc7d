//! Scaled dot-product attention ([ONNX Attention](https://onnx.ai/onnx/operators/onnx__Attention.html), opsets 23 and
//! 24; com.microsoft MultiHeadAttention):
//!
//! ```text
//! scores = softcap(scale * q kᵀ) + mask        y = softmax(scores) v
//! ```
//!
//! The mask is added after the soft cap, and a row whose keys are all masked gives zeros: both as in ONNX Runtime. (By
//! the text of opset 23 the cap comes after the mask, which would unmask keys.)
//!
//! Only the scores of some rows of one head are kept at a time; keys and values of a head are packed once for all query
//! heads that share them.

use serde::{Deserialize, Serialize};
use skipstone_kernels::activation::Activation;
use skipstone_kernels::copy::{copy, fill};
use skipstone_kernels::gemm::{self, Weights};
use skipstone_kernels::pace::Pace;
use skipstone_kernels::unary::activation_in_place;

mod reference;
mod run;

use run::{Run, Scratch};

use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, saturating_product};
use crate::tensor::{DType, Fact, Shape};

/// Query rows whose scores are kept at a time: a multiple of the products' tile heights.
const ROWS: usize = 48;
/// Scores that one thread handles at once.
const PART: usize = 1 << 12;

/// Scores that are also a result.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scores {
    /// The scaled products of queries and keys.
    Products,
    /// After the soft cap.
    Capped,
    /// After the mask.
    Masked,
    /// The softmax.
    Weights,
}

/// Attention of queries `[batch, heads, queries, size]` to keys `[batch, kv_heads, keys, size]` and values `[batch,
/// kv_heads, keys, v_size]`, or each as `[batch, length, heads * size]`; then, if the flags say so, a mask that
/// broadcasts to `[batch, heads, queries, keys]` (bool, or f32 to be added), past keys and values with 4 dimensions,
/// and the number of valid keys in each image (i64). Results are y, with the layout of the queries, then the keys and
/// values including the past, and scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values: a divisor of `heads`.
    pub kv_heads: usize,
    /// Factor of the products.
    pub scale: f32,
    /// Bound on the products, applied with a hyperbolic tangent; 0 for none.
    pub softcap: f32,
    /// Whether a query sees only keys up to its own position, counted after the past, or back from the last valid key.
    pub causal: bool,
    /// Whether there is a mask.
    pub mask: bool,
    /// Whether there are past keys and values.
    pub past: bool,
    /// Whether the numbers of valid keys are given.
    pub lens: bool,
    /// Whether keys and values are results.
    pub present: bool,
    /// Which scores are a result, if any.
    pub scores: Option<Scores>,
}

/// The sizes of an attention.
#[derive(Clone, Copy)]
struct AttentionSizes {
    batch: usize,
    queries: usize,
    past: usize,
    /// Total number of keys.
    keys: usize,
    size: usize,
    v_size: usize,
    /// Whether heads are interleaved in a row.
    rows: bool,
}

/// Location of a head's rows: the offset of its first element, and the stride from row to row.
#[derive(Clone, Copy)]
struct Head {
    start: usize,
    row: usize,
}

impl Head {
    /// Head `head` of `heads` of an image, with `len` rows of `size` elements.
    fn new(rows: bool, image: usize, (head, heads): (usize, usize), len: usize, size: usize) -> Self {
        match rows {
            true => Self { start: (image * len * heads + head) * size, row: heads * size },
            false => Self { start: (image * heads + head) * len * size, row: size },
        }
    }
}

/// A mask, by its element type.
#[derive(Clone, Copy)]
enum AttentionMask<'a> {
    Bool(&'a [u8]),
    Float(&'a [f32]),
}

impl Attention {
    /// With only queries, keys and values.
    #[must_use]
    pub fn plain(heads: usize, kv_heads: usize) -> Self {
        let (scale, softcap, causal, mask, past, lens, present, scores) =
            (1.0, 0.0, false, false, false, false, false, None);
        Self { heads, kv_heads, scale, softcap, causal, mask, past, lens, present, scores }
    }

    fn mask_at(&self) -> Option<usize> {
        self.mask.then_some(3)
    }

    fn past_at(&self) -> Option<usize> {
        self.past.then_some(3 + usize::from(self.mask))
    }

    fn lens_at(&self) -> Option<usize> {
        self.lens.then_some(3 + usize::from(self.mask) + 2 * usize::from(self.past))
    }

    /// Batch, rows, and elements per head in a row of `heads` heads.
    fn split(&self, shape: &Shape, heads: usize) -> Result<[usize; 3], OpError> {
        match *shape.dims() {
            [batch, of_shape, len, size] if of_shape == heads => Ok([batch, len, size]),
            [batch, len, width] if heads > 0 && width % heads == 0 => Ok([batch, len, width / heads]),
            _ => Err(OpError::shapes("heads do not divide a tensor", &[shape])),
        }
    }

    fn sizes(&self, inputs: &[&Fact]) -> Result<AttentionSizes, OpError> {
        let given = [self.mask, self.past, self.past, self.lens].iter().filter(|&&given| given).count();
        if inputs.len() != 3 + given {
            return Err(OpError::Arity { want: "queries, keys, values and the flagged operands", got: inputs.len() });
        }
        for (index, fact) in inputs.iter().enumerate() {
            let right = match fact.dtype {
                DType::F32 => self.lens_at() != Some(index),
                DType::Bool => self.mask_at() == Some(index),
                DType::I64 => self.lens_at() == Some(index),
                _ => false,
            };
            if !right {
                return Err(OpError::Type { index, got: fact.dtype, want: "f32, a mask of bool, lengths of i64" });
            }
        }
        let shapes: Vec<&Shape> = inputs.iter().map(|fact| &fact.shape).collect();
        let misfit = |rule| Err(OpError::shapes(rule, &shapes));
        if self.heads == 0 || self.kv_heads == 0 || !self.heads.is_multiple_of(self.kv_heads) {
            let reason = format!("{} heads of queries, {} of keys", self.heads, self.kv_heads);
            return Err(OpError::Attribute { name: "q_num_heads", reason });
        }
        if !self.scale.is_finite() || !self.softcap.is_finite() || self.softcap < 0.0 {
            return Err(OpError::Attribute { name: "scale", reason: "scale and softcap are finite".into() });
        }
        let [batch, queries, size] = self.split(shapes[0], self.heads)?;
        let [k_batch, new, k_size] = self.split(shapes[1], self.kv_heads)?;
        let [v_batch, v_new, v_size] = self.split(shapes[2], self.kv_heads)?;
        let rank = shapes[0].rank();
        if [k_batch, v_batch, k_size, v_new] != [batch, batch, size, new]
            || shapes[1..3].iter().any(|s| s.rank() != rank)
        {
            return misfit("queries, keys and values do not match");
        }
        let past = match self.past_at() {
            None => 0,
            Some(at) => match (shapes[at].dims(), shapes[at + 1].dims()) {
                (&[a, b, past, c], &[d, e, v_past, f])
                    if [a, b, c, d, e, f, v_past]
                        == [batch, self.kv_heads, size, batch, self.kv_heads, v_size, past] =>
                {
                    past
                }
                _ => return misfit("past keys and values are [batch, heads, length, size]"),
            },
        };
        let keys = past.checked_add(new).ok_or_else(|| OpError::TooLarge("keys and past keys".into()))?;
        let s = AttentionSizes { batch, queries, past, keys, size, v_size, rows: rank == 3 };
        if let Some(at) = self.mask_at() {
            let whole = [batch, self.heads, queries];
            let fits = match shapes[at].dims().split_last() {
                // Keys beyond the end of a short mask are hidden.
                Some((&last, front)) => {
                    let front_fits = front.iter().rev().zip(whole.iter().rev()).all(|(&m, &w)| m == w || m == 1);
                    front.len() <= 3 && front_fits && (last == keys || (1 < last && last < keys))
                }
                None => false,
            };
            if !fits {
                return misfit("a mask broadcasts to [batch, heads, queries, keys]");
            }
        }
        if self.lens_at().is_some_and(|at| shapes[at].dims() != [batch]) {
            return misfit("one length for each image");
        }
        if self.past && (!self.present || self.lens) {
            return Err(OpError::Value("past keys go with present ones, and without lengths".into()));
        }
        Shape::new(&[ROWS, keys])?;
        Ok(s)
    }

    /// Offset of the mask's row for a query, and its length.
    fn mask_row(&self, shape: &Shape, place: [usize; 3]) -> (usize, usize) {
        let strides = shape.strides();
        let rank = shape.rank();
        let dims = (0..rank.saturating_sub(1)).rev().zip(place.iter().rev());
        let start = dims.map(|(axis, &at)| if shape[axis] == 1 { 0 } else { at * strides[axis] }).sum();
        (start, shape.last().copied().unwrap_or(0))
    }

    /// The largest number of keys that a query may see.
    fn visible(&self, s: &AttentionSizes, query: usize, len: Option<usize>) -> usize {
        let counting = len.unwrap_or(s.keys);
        let causal = match (self.causal, len) {
            (false, _) => s.keys,
            (true, None) => query + 1 + s.past,
            (true, Some(len)) => (query + 1 + len).saturating_sub(s.queries),
        };
        counting.min(causal)
    }

    /// Applied after the soft cap: hides what a query does not see. Returns whether it sees anything.
    fn hide(
        &self,
        s: &AttentionSizes,
        row: &mut [f32],
        mask: Option<(AttentionMask<'_>, usize, usize)>,
        seen: usize,
        pace: &Pace<'_>,
    ) -> Result<bool, OpError> {
        let hide = |row: &mut [f32]| fill(&f32::NEG_INFINITY.to_ne_bytes(), bytemuck::cast_slice_mut(row), pace);
        if let Some((mask, start, len)) = mask {
            for first in (0..len).step_by(PART) {
                let count = PART.min(len - first);
                let (row, at) = (&mut row[first..first + count], start + first..start + first + count);
                pace.spend(2 * count)?;
                match mask {
                    AttentionMask::Bool(mask) => {
                        let hidden = row.iter_mut().zip(&mask[at]).filter(|(_, m)| **m == 0);
                        hidden.for_each(|(score, _)| *score = f32::NEG_INFINITY);
                    }
                    AttentionMask::Float(mask) => row.iter_mut().zip(&mask[at]).for_each(|(s, m)| *s += m),
                }
            }
            hide(&mut row[len..])?;
        }
        hide(&mut row[seen.min(s.keys)..])?;
        let masked = mask.is_some() || seen < s.keys;
        let sees = |some: &[f32]| pace.stops(some.len()) || some.iter().any(|&score| score != f32::NEG_INFINITY);
        Ok(!masked || row.chunks(PART).any(sees))
    }
}

/// The number of valid keys in an image.
fn len_of(lens: Option<&[i64]>, image: usize, keys: usize) -> Result<Option<usize>, OpError> {
    let Some(&len) = lens.and_then(|lens| lens.get(image)) else { return Ok(None) };
    let known = usize::try_from(len).ok().filter(|&len| len <= keys);
    known.map(Some).ok_or_else(|| OpError::Value(format!("{len} valid keys of {keys}")))
}

/// Copies the heads of keys or values, those of the past first, to `[batch, heads, keys, size]`.
fn gather(
    s: &AttentionSizes,
    (heads, size): (usize, usize),
    new: &[f32],
    past: &[f32],
    out: &mut [f32],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    let (len, whole) = (s.keys - s.past, s.keys * size);
    if whole == 0 {
        return Ok(());
    }
    for (index, out) in out.chunks_exact_mut(whole).enumerate() {
        let (image, head) = (index / heads, index % heads);
        let (before, behind) = out.split_at_mut(s.past * size);
        copy_all(&past[index * s.past * size..][..s.past * size], before, pace)?;
        let from = Head::new(s.rows, image, (head, heads), len, size);
        for (row, out) in behind.chunks_exact_mut(size).enumerate() {
            pace.spend(8)?;
            copy_all(&new[from.start + row * from.row..][..size], out, pace)?;
        }
    }
    Ok(())
}

#[inline(never)]
fn copy_all(from: &[f32], to: &mut [f32], pace: &Pace<'_>) -> Result<(), OpError> {
    Ok(copy(bytemuck::cast_slice(from), bytemuck::cast_slice_mut(to), pace)?)
}

/// Multiplies all scores.
fn scale_all(scores: &mut [f32], by: f32, pace: &Pace<'_>) -> Result<(), OpError> {
    for scores in scores.chunks_mut(PART) {
        pace.spend(scores.len())?;
        scores.iter_mut().for_each(|score| *score *= by);
    }
    Ok(())
}

impl Operator for Attention {
    fn name(&self) -> &str {
        "Attention"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let s = self.sizes(inputs)?;
        let fact = |dims: &[usize]| Ok::<_, OpError>(Fact::new(DType::F32, Shape::new(dims)?));
        let y = match s.rows {
            true => fact(&[s.batch, s.queries, self.heads.saturating_mul(s.v_size)])?,
            false => fact(&[s.batch, self.heads, s.queries, s.v_size])?,
        };
        let mut results = vec![y];
        if self.present {
            results.push(fact(&[s.batch, self.kv_heads, s.keys, s.size])?);
            results.push(fact(&[s.batch, self.kv_heads, s.keys, s.v_size])?);
        }
        if self.scores.is_some() {
            results.push(fact(&[s.batch, self.heads, s.queries, s.keys])?);
        }
        Ok(results)
    }

    fn macs(&self, inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        let Ok(s) = self.sizes(inputs) else { return 0 };
        saturating_product(&[s.batch, self.heads, s.queries, s.keys, s.size.saturating_add(s.v_size)])
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let s = self.sizes(&cx.inputs)?;
        let rows = s.queries.min(ROWS);
        let qk = gemm::choose(cx.isa, Weights::F32, rows, s.size, s.keys);
        let pv = gemm::choose(cx.isa, Weights::F32, rows, s.keys, s.v_size);
        let scratch = Scratch::lens(&s, qk, pv).iter().sum::<usize>() * size_of::<f32>();
        Ok(Choice { kernel: format!("{} {}", qk.name, pv.name), scratch, ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let (op, s, isa) = (self.clone(), self.sizes(&cx.inputs)?, cx.isa);
        let mut names = cx.kernel.split(' ').map(gemm::by_name);
        let (Some(qk), Some(pv)) = (names.next().flatten(), names.next().flatten()) else {
            return Err(OpError::Value(format!("this build has no kernels {}", cx.kernel)));
        };
        let mask = self.mask_at().map(|at| cx.inputs[at].clone());
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let lens: Option<&[i64]> = op.lens_at().map(|at| io.input(at)).transpose()?;
            let elements = match (&mask, op.mask_at()) {
                (Some(fact), Some(at)) if fact.dtype == DType::Bool => Some(AttentionMask::Bool(io.input_bytes(at)?)),
                (Some(_), Some(at)) => Some(AttentionMask::Float(io.input(at)?)),
                _ => None,
            };
            let (mut k, mut v): (&[f32], &[f32]) = (io.input(1)?, io.input(2)?);
            let pace = io.pace();
            let mut of_kv = s;
            if op.present {
                let past = op.past_at();
                let past = |next: usize| past.map_or(Ok(&[][..]), |at| io.input(at + next));
                let (past_k, past_v) = (past(0)?, past(1)?);
                let (out_k, out_v) = (io.output(1)?, io.output(2)?);
                gather(&s, (op.kv_heads, s.size), k, past_k, out_k, &pace)?;
                gather(&s, (op.kv_heads, s.v_size), v, past_v, out_v, &pace)?;
                (k, v) = (out_k, out_v);
                of_kv.rows = false;
            }
            let mut scores: Option<&mut [f32]> = match op.scores {
                Some(_) => Some(io.output(if op.present { 3 } else { 1 })?),
                None => None,
            };
            let (q, y): (&[f32], &mut [f32]) = (io.input(0)?, io.output(0)?);
            if y.is_empty() && scores.as_deref().is_none_or(<[f32]>::is_empty) {
                return Ok(());
            }
            let mut run =
                Run { s: &s, isa, qk, pv, pool: io.pool(), scratch: Scratch::new(&s, qk, pv, io.scratch()?)? };
            let group = op.heads / op.kv_heads;
            for image in 0..s.batch {
                let len = len_of(lens, image, s.keys)?;
                for head in 0..op.heads {
                    if head % group == 0 {
                        let kv = (head / group, op.kv_heads);
                        run.pack(
                            (k, Head::new(of_kv.rows, image, kv, s.keys, s.size)),
                            (v, Head::new(of_kv.rows, image, kv, s.keys, s.v_size)),
                            &pace,
                        );
                    }
                    let of_q = Head::new(s.rows, image, (head, op.heads), s.queries, s.size);
                    let of_y = Head::new(s.rows, image, (head, op.heads), s.queries, s.v_size);
                    for first in (0..s.queries).step_by(ROWS) {
                        let count = ROWS.min(s.queries - first);
                        let held = run.products(&q[of_q.start + first * of_q.row..], of_q.row, count);
                        scale_all(held, op.scale, &pace)?;
                        let start = ((image * op.heads + head) * s.queries + first) * s.keys;
                        let mut keep = |stage: Scores, held: &[f32]| match scores.as_deref_mut() {
                            Some(out) if op.scores == Some(stage) => {
                                copy_all(held, &mut out[start..start + held.len()], &pace)
                            }
                            _ => Ok(()),
                        };
                        keep(Scores::Products, held)?;
                        if op.softcap > 0.0 {
                            for held in held.chunks_mut(PART) {
                                pace.spend(4 * held.len())?;
                                held.iter_mut().for_each(|score| *score /= op.softcap);
                            }
                            activation_in_place(isa, Activation::Tanh, held, io.pool());
                            scale_all(held, op.softcap, &pace)?;
                        }
                        keep(Scores::Capped, held)?;
                        let mut blind = [false; ROWS];
                        for (row, blind) in (0..count).zip(&mut blind) {
                            let place = [image, head, first + row];
                            let mask = elements.zip(mask.as_ref()).map(|(elements, fact)| {
                                let (start, len) = op.mask_row(&fact.shape, place);
                                (elements, start, len)
                            });
                            let seen = op.visible(&s, first + row, len);
                            *blind = !op.hide(&s, &mut held[row * s.keys..][..s.keys], mask, seen, &pace)?;
                        }
                        keep(Scores::Masked, held)?;
                        let weights = run.softmax(count, &blind, &pace)?;
                        keep(Scores::Weights, weights)?;
                        run.values(&mut y[of_y.start + first * of_y.row..], of_y.row, count);
                    }
                }
            }
            Ok(())
        }))
    }
}

#[cfg(test)]
mod tests;
