//! Scaled dot-product attention ([ONNX Attention](https://onnx.ai/onnx/operators/onnx__Attention.html), opsets 23 and
//! 24; com.microsoft MultiHeadAttention):
//!
//! ```text
//! scores = softcap(scale * q kᵀ) + mask        y = softmax(scores) v
//! ```
//!
//! The mask is added behind the soft cap, and a row whose keys are all masked gives zeros: both as in ONNX Runtime. (The
//! text of opset 23 has the cap behind the mask, which lets masked keys through again.)
//!
//! The scores of some rows of one head are held at a time, never those of all; keys and values of a head are packed once
//! for all query heads that share them.

use serde::{Deserialize, Serialize};
use skipstone_kernels::Isa;
use skipstone_kernels::activation::Activation;
use skipstone_kernels::epilogue::Epilogue;
use skipstone_kernels::gemm::{self, Gemm, Packed, Variant, Weights};
use skipstone_kernels::middle_axis::MiddleAxis;
use skipstone_kernels::softmax::{SoftmaxFn, softmax};
use skipstone_kernels::threads::Pool;
use skipstone_kernels::unary::activation_in_place;

use super::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::error::OpError;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// Rows of queries whose scores are held at a time: a multiple of what the products' tiles have.
const ROWS: usize = 48;

/// Scores that are a result of their own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Scores {
    /// The scaled products of queries and keys.
    Products,
    /// Behind the soft cap.
    Capped,
    /// Behind the mask.
    Masked,
    /// The softmax.
    Weights,
}

/// Attention of queries `[batch, heads, queries, size]` to keys `[batch, kv_heads, keys, size]` and values
/// `[batch, kv_heads, keys, v_size]`, or each as `[batch, length, heads * size]`; then, as far as the flags say so, a mask
/// that broadcasts to `[batch, heads, queries, keys]` (bool, or f32 to be added), past keys and values with 4 dimensions,
/// and the number of keys that count in each image (i64). Results are y, in the form of the queries, then the keys and
/// values with those of the past, and scores.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Attention {
    /// Heads of the queries.
    pub heads: usize,
    /// Heads of keys and values: a divisor of `heads`.
    pub kv_heads: usize,
    /// Factor of the products.
    pub scale: f32,
    /// Bound of the products, through a hyperbolic tangent; 0 for none.
    pub softcap: f32,
    /// Whether a query sees only keys up to its own place, counted behind the past, or from the last key that counts.
    pub causal: bool,
    /// Whether there is a mask.
    pub mask: bool,
    /// Whether there are past keys and values.
    pub past: bool,
    /// Whether the keys that count are given.
    pub lens: bool,
    /// Whether keys and values are results.
    pub present: bool,
    /// Scores that are a result.
    pub scores: Option<Scores>,
}

/// The sizes of an attention.
#[derive(Clone, Copy)]
struct Sizes {
    batch: usize,
    queries: usize,
    past: usize,
    /// Keys in all.
    keys: usize,
    size: usize,
    v_size: usize,
    /// Whether heads lie side by side in a row.
    rows: bool,
}

/// Where the rows of a head lie: its first element, and the elements from row to row.
#[derive(Clone, Copy)]
struct Head {
    start: usize,
    row: usize,
}

impl Head {
    /// Head `head` of `heads` of an image, of `len` rows of `size` elements.
    fn new(rows: bool, image: usize, (head, heads): (usize, usize), len: usize, size: usize) -> Self {
        match rows {
            true => Self { start: (image * len * heads + head) * size, row: heads * size },
            false => Self { start: (image * heads + head) * len * size, row: size },
        }
    }
}

/// A mask, as its elements are read.
#[derive(Clone, Copy)]
enum Mask<'a> {
    Bool(&'a [u8]),
    Float(&'a [f32]),
}

impl Attention {
    /// With nothing beside queries, keys and values.
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

    /// Batch, rows and elements of a row of `heads` heads.
    fn split(&self, shape: &Shape, heads: usize) -> Result<[usize; 3], OpError> {
        match *shape.dims() {
            [batch, of_shape, len, size] if of_shape == heads => Ok([batch, len, size]),
            [batch, len, width] if heads > 0 && width % heads == 0 => Ok([batch, len, width / heads]),
            _ => Err(OpError::shapes("heads do not divide a tensor", &[shape])),
        }
    }

    fn sizes(&self, inputs: &[&Fact]) -> Result<Sizes, OpError> {
        let given = [self.mask, self.past, self.past, self.lens].iter().filter(|&&given| given).count();
        if inputs.len() != 3 + given {
            return Err(OpError::Arity { want: "queries, keys, values and what is given beside", got: inputs.len() });
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
            return misfit("queries, keys and values do not fit each other");
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
        let s = Sizes { batch, queries, past, keys, size, v_size, rows: rank == 3 };
        if let Some(at) = self.mask_at() {
            let whole = [batch, self.heads, queries];
            let fits = match shapes[at].dims().split_last() {
                // A mask that is too short hides the keys behind it.
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

    /// First element of the mask's row of a query, and how many there are.
    fn mask_row(&self, shape: &Shape, place: [usize; 3]) -> (usize, usize) {
        let strides = shape.strides();
        let rank = shape.rank();
        let dims = (0..rank.saturating_sub(1)).rev().zip(place.iter().rev());
        let start = dims.map(|(axis, &at)| if shape[axis] == 1 { 0 } else { at * strides[axis] }).sum();
        (start, shape.last().copied().unwrap_or(0))
    }

    /// How many keys a query may see at most.
    fn visible(&self, s: &Sizes, query: usize, len: Option<usize>) -> usize {
        let counting = len.unwrap_or(s.keys);
        let causal = match (self.causal, len) {
            (false, _) => s.keys,
            (true, None) => query + 1 + s.past,
            (true, Some(len)) => (query + 1 + len).saturating_sub(s.queries),
        };
        counting.min(causal)
    }

    /// Behind the soft cap: hides what a query does not see. Answers whether it sees anything.
    fn hide(&self, s: &Sizes, row: &mut [f32], mask: Option<(Mask<'_>, usize, usize)>, seen: usize) -> bool {
        if let Some((mask, start, len)) = mask {
            match mask {
                Mask::Bool(mask) => {
                    let hidden = row.iter_mut().zip(&mask[start..start + len]).filter(|(_, m)| **m == 0);
                    hidden.for_each(|(score, _)| *score = f32::NEG_INFINITY);
                }
                Mask::Float(mask) => row.iter_mut().zip(&mask[start..start + len]).for_each(|(s, m)| *s += m),
            }
            row[len..].fill(f32::NEG_INFINITY);
        }
        row[seen.min(s.keys)..].fill(f32::NEG_INFINITY);
        let masked = mask.is_some() || seen < s.keys;
        !masked || row.iter().any(|&score| score != f32::NEG_INFINITY)
    }
}

/// How many keys count in an image.
fn len_of(lens: Option<&[i64]>, image: usize, keys: usize) -> Result<Option<usize>, OpError> {
    let Some(&len) = lens.and_then(|lens| lens.get(image)) else { return Ok(None) };
    let known = usize::try_from(len).ok().filter(|&len| len <= keys);
    known.map(Some).ok_or_else(|| OpError::Value(format!("{len} keys count where there are {keys}")))
}

/// Copies the heads of keys or values, those of the past first, to `[batch, heads, keys, size]`.
fn gather(s: &Sizes, heads: usize, size: usize, new: &[f32], past: &[f32], out: &mut [f32]) {
    let (len, whole) = (s.keys - s.past, s.keys * size);
    if whole == 0 {
        return;
    }
    for (index, out) in out.chunks_exact_mut(whole).enumerate() {
        let (image, head) = (index / heads, index % heads);
        let (before, behind) = out.split_at_mut(s.past * size);
        before.copy_from_slice(&past[index * s.past * size..][..s.past * size]);
        let from = Head::new(s.rows, image, (head, heads), len, size);
        for (row, out) in behind.chunks_exact_mut(size).enumerate() {
            out.copy_from_slice(&new[from.start + row * from.row..][..size]);
        }
    }
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
        super::count(&[s.batch, self.heads, s.queries, s.keys, s.size.saturating_add(s.v_size)])
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
                (Some(fact), Some(at)) if fact.dtype == DType::Bool => Some(Mask::Bool(io.input_bytes(at)?)),
                (Some(_), Some(at)) => Some(Mask::Float(io.input(at)?)),
                _ => None,
            };
            let (mut k, mut v): (&[f32], &[f32]) = (io.input(1)?, io.input(2)?);
            let mut of_kv = s;
            if op.present {
                let past = op.past_at();
                let past = |next: usize| past.map_or(Ok(&[][..]), |at| io.input(at + next));
                let (past_k, past_v) = (past(0)?, past(1)?);
                let (out_k, out_v) = (io.output(1)?, io.output(2)?);
                gather(&s, op.kv_heads, s.size, k, past_k, out_k);
                gather(&s, op.kv_heads, s.v_size, v, past_v, out_v);
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
                        );
                    }
                    let of_q = Head::new(s.rows, image, (head, op.heads), s.queries, s.size);
                    let of_y = Head::new(s.rows, image, (head, op.heads), s.queries, s.v_size);
                    for first in (0..s.queries).step_by(ROWS) {
                        let count = ROWS.min(s.queries - first);
                        let held = run.products(&q[of_q.start + first * of_q.row..], of_q.row, count, op.scale);
                        let start = ((image * op.heads + head) * s.queries + first) * s.keys;
                        let mut keep = |stage: Scores, held: &[f32]| {
                            if let (Some(out), true) = (scores.as_deref_mut(), op.scores == Some(stage)) {
                                out[start..start + held.len()].copy_from_slice(held);
                            }
                        };
                        keep(Scores::Products, held);
                        if op.softcap > 0.0 {
                            held.iter_mut().for_each(|score| *score /= op.softcap);
                            activation_in_place(isa, Activation::Tanh, held, io.pool());
                            held.iter_mut().for_each(|score| *score *= op.softcap);
                        }
                        keep(Scores::Capped, held);
                        let mut blind = [false; ROWS];
                        for (row, blind) in (0..count).zip(&mut blind) {
                            let place = [image, head, first + row];
                            let mask = elements.zip(mask.as_ref()).map(|(elements, fact)| {
                                let (start, len) = op.mask_row(&fact.shape, place);
                                (elements, start, len)
                            });
                            let seen = op.visible(&s, first + row, len);
                            *blind = !op.hide(&s, &mut held[row * s.keys..][..s.keys], mask, seen);
                        }
                        keep(Scores::Masked, held);
                        let weights = run.softmax(count, &blind);
                        keep(Scores::Weights, weights);
                        run.values(&mut y[of_y.start + first * of_y.row..], of_y.row, count);
                    }
                }
            }
            Ok(())
        }))
    }
}

impl Semantics for Attention {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let facts: Vec<&Fact> = inputs.iter().map(|t| t.fact()).collect();
        let s = self.sizes(&facts)?;
        let elements = |at: usize| inputs[at].elements::<f32>().ok_or(OpError::Operand(at));
        let mut results: Vec<Vec<f32>> =
            self.infer(&facts)?.iter().map(|fact| vec![0.0; fact.shape.elements()]).collect();
        let no_past: (&[f32], &[f32]) = (&[], &[]);
        let past = self.past_at().map_or(Ok(no_past), |at| Ok::<_, OpError>((elements(at)?, elements(at + 1)?)))?;
        let mut k = vec![0.0; s.batch * self.kv_heads * s.keys * s.size];
        let mut v = vec![0.0; s.batch * self.kv_heads * s.keys * s.v_size];
        gather(&s, self.kv_heads, s.size, elements(1)?, past.0, &mut k);
        gather(&s, self.kv_heads, s.v_size, elements(2)?, past.1, &mut v);
        let q = elements(0)?;
        let lens = self.lens_at().and_then(|at| inputs[at].elements::<i64>());
        let empty = results[0].is_empty() && (self.scores.is_none() || results.last().is_none_or(Vec::is_empty));
        let images = if empty { 0 } else { s.batch };
        for (image, head) in (0..images).flat_map(|image| (0..self.heads).map(move |head| (image, head))) {
            let of_q = Head::new(s.rows, image, (head, self.heads), s.queries, s.size);
            let of_y = Head::new(s.rows, image, (head, self.heads), s.queries, s.v_size);
            let kv = image * self.kv_heads + head / (self.heads / self.kv_heads);
            for query in 0..s.queries {
                let q = &q[of_q.start + query * of_q.row..][..s.size];
                let mut stages: [Vec<f64>; 4] = Default::default();
                let seen = self.visible(&s, query, len_of(lens, image, s.keys)?);
                for key in 0..s.keys {
                    let k = &k[(kv * s.keys + key) * s.size..][..s.size];
                    let sum: f64 = q.iter().zip(k).map(|(&q, &k)| f64::from(q) * f64::from(k)).sum();
                    let (scaled, cap) = (sum * f64::from(self.scale), f64::from(self.softcap));
                    let capped = if cap > 0.0 { (scaled / cap).tanh() * cap } else { scaled };
                    let mask = self.mask_at().map_or(0.0, |at| {
                        let (start, len) = self.mask_row(inputs[at].shape(), [image, head, query]);
                        match (inputs[at].elements::<f32>(), inputs[at].bytes().get(start + key)) {
                            _ if key >= len => f64::NEG_INFINITY,
                            (Some(mask), _) => f64::from(mask[start + key]),
                            (None, Some(0)) => f64::NEG_INFINITY,
                            (None, _) => 0.0,
                        }
                    });
                    let masked = if key < seen { capped + mask } else { f64::NEG_INFINITY };
                    [scaled, capped, masked].into_iter().zip(&mut stages).for_each(|(score, stage)| stage.push(score));
                }
                let largest = stages[2].iter().copied().fold(f64::NEG_INFINITY, f64::max);
                let power = |score: f64| if largest == f64::NEG_INFINITY { 0.0 } else { (score - largest).exp() };
                let sum = stages[2].iter().map(|&score| power(score)).sum::<f64>();
                stages[3] = stages[2].iter().map(|&score| power(score) / if sum == 0.0 { 1.0 } else { sum }).collect();
                for (j, y) in results[0][of_y.start + query * of_y.row..][..s.v_size].iter_mut().enumerate() {
                    let terms = stages[3].iter().enumerate();
                    *y = terms.map(|(key, w)| w * f64::from(v[(kv * s.keys + key) * s.v_size + j])).sum::<f64>() as f32;
                }
                if let Some(scores) = self.scores {
                    let start = ((image * self.heads + head) * s.queries + query) * s.keys;
                    let out = &mut results.last_mut().ok_or(OpError::Operand(0))?[start..start + s.keys];
                    out.iter_mut().zip(&stages[scores as usize]).for_each(|(out, &score)| *out = score as f32);
                }
            }
        }
        if self.present {
            results[1] = k;
            results[2] = v;
        }
        let results = results.into_iter().zip(self.infer(&facts)?);
        results.map(|(elements, fact)| Tensor::from_slice(&fact.shape, &elements)).collect()
    }
}

/// Working memory of one head.
struct Scratch<'a> {
    k: &'a mut [f32],
    v: &'a mut [f32],
    scores: &'a mut [f32],
    weights: &'a mut [f32],
}

impl<'a> Scratch<'a> {
    fn lens(s: &Sizes, qk: &Variant, pv: &Variant) -> [usize; 4] {
        let rows = s.queries.min(ROWS) * s.keys;
        [gemm::packed_len(qk, s.size, s.keys), gemm::packed_len(pv, s.keys, s.v_size), rows, rows]
    }

    fn new(s: &Sizes, qk: &Variant, pv: &Variant, scratch: &'a mut [f32]) -> Result<Self, OpError> {
        let [k, v, scores, weights] = Self::lens(s, qk, pv);
        let missing = || OpError::Operand(0);
        let (k, scratch) = scratch.split_at_mut_checked(k).ok_or_else(missing)?;
        let (v, scratch) = scratch.split_at_mut_checked(v).ok_or_else(missing)?;
        let (scores, scratch) = scratch.split_at_mut_checked(scores).ok_or_else(missing)?;
        let weights = scratch.get_mut(..weights).ok_or_else(missing)?;
        Ok(Self { k, v, scores, weights })
    }
}

/// An attention at work.
struct Run<'a> {
    s: &'a Sizes,
    isa: Isa,
    qk: &'static Variant,
    pv: &'static Variant,
    pool: &'a Pool,
    scratch: Scratch<'a>,
}

impl Run<'_> {
    /// Packs keys and values of a head.
    fn pack(&mut self, (k, of_k): (&[f32], Head), (v, of_v): (&[f32], Head)) {
        let s = self.s;
        let (k, v) = (k.get(of_k.start..).unwrap_or(&[]), v.get(of_v.start..).unwrap_or(&[]));
        gemm::pack(self.qk, s.size, s.keys, k, 1, of_k.row, self.scratch.k);
        gemm::pack(self.pv, s.keys, s.v_size, v, of_v.row, 1, self.scratch.v);
    }

    /// The scaled products of some queries with all keys.
    fn products(&mut self, a: &[f32], lda: usize, m: usize, scale: f32) -> &mut [f32] {
        let (s, out) = (self.s, &mut self.scratch.scores[..m * self.s.keys]);
        let packed = Packed::F32(self.scratch.k);
        let (k, n, epilogue) = (s.size, s.keys, Epilogue::NONE);
        gemm::gemm(self.qk, Gemm { m, k, n, a, lda, packed, out, ldc: n, epilogue, a_scale: None }, &mut [], self.pool);
        out.iter_mut().for_each(|score| *score *= scale);
        out
    }

    /// The softmax of some rows of scores; zeros where a row is blind.
    fn softmax(&mut self, count: usize, blind: &[bool]) -> &[f32] {
        let (len, keys) = (count * self.s.keys, self.s.keys);
        let weights = &mut self.scratch.weights[..len];
        if let Some(view) = MiddleAxis::new(&[count, keys], 1..2) {
            softmax(self.isa, SoftmaxFn::Softmax, view, &self.scratch.scores[..len], weights, self.pool);
        }
        for (row, _) in blind.iter().enumerate().filter(|(_, blind)| **blind) {
            weights[row * keys..][..keys].fill(0.0);
        }
        weights
    }

    /// The weighted sums of the values.
    fn values(&mut self, out: &mut [f32], ldc: usize, m: usize) {
        let (s, a) = (self.s, &self.scratch.weights[..m * self.s.keys]);
        let packed = Packed::F32(self.scratch.v);
        let (k, n, lda, epilogue) = (s.keys, s.v_size, s.keys, Epilogue::NONE);
        gemm::gemm(self.pv, Gemm { m, k, n, a, lda, packed, out, ldc, epilogue, a_scale: None }, &mut [], self.pool);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, assert_close, check, check_fails};

    fn plain(heads: usize, kv_heads: usize) -> Attention {
        Attention { scale: 0.3, ..Attention::plain(heads, kv_heads) }
    }

    #[test]
    fn every_form_agrees_with_the_definition() {
        let mut random = Random(51);
        for case in 0..40 {
            let [batch, kv_heads, group, size, v_size] = std::array::from_fn(|_| random.pick(&[1, 2, 3]));
            let (heads, queries, new) = (kv_heads * group, random.pick(&[1, 3, 50]), random.pick(&[1, 4, 17]));
            let (past, mask, lens) = (case % 3 == 0, random.below(3), case % 3 == 1);
            let past_len = if past { random.below(4) } else { 0 };
            let keys = new + past_len;
            let rows = case % 2 == 0;
            let form = |heads: usize, len: usize, size: usize| match rows {
                true => vec![batch, len, heads * size],
                false => vec![batch, heads, len, size],
            };
            let mut inputs = vec![
                random.floats(&form(heads, queries, size)),
                random.floats(&form(kv_heads, new, size)),
                random.floats(&form(kv_heads, new, v_size)),
            ];
            if mask > 0 {
                let whole = [batch, heads, queries, keys];
                let mut dims = whole[random.below(4)..].to_vec();
                for dim in dims.iter_mut().rev().skip(1) {
                    *dim = random.pick(&[1, *dim]);
                }
                inputs.push(random.tensor(if mask == 1 { DType::Bool } else { DType::F32 }, &dims));
            }
            if past {
                inputs.push(random.floats(&[batch, kv_heads, past_len, size]));
                inputs.push(random.floats(&[batch, kv_heads, past_len, v_size]));
            }
            if lens {
                let lens: Vec<i64> = (0..batch).map(|_| random.below(keys + 1) as i64).collect();
                inputs.push(Tensor::from_slice(&[batch], &lens).unwrap());
            }
            let op = Attention {
                softcap: random.pick(&[0.0, 1.5]),
                causal: random.below(2) == 1,
                mask: mask > 0,
                past,
                lens,
                present: past || random.below(2) == 1,
                scores: random.pick(&[
                    None,
                    Some(Scores::Products),
                    Some(Scores::Capped),
                    Some(Scores::Masked),
                    Some(Scores::Weights),
                ]),
                ..plain(heads, kv_heads)
            };
            check(op, &inputs, 2e-5);
        }
    }

    #[test]
    fn masked_rows_are_zeros_and_short_masks_hide_the_rest() {
        let mut random = Random(52);
        let inputs = |random: &mut Random, mask: Tensor| {
            vec![random.floats(&[1, 1, 2, 3]), random.floats(&[1, 1, 4, 3]), random.floats(&[1, 1, 4, 2]), mask]
        };
        let op = Attention { mask: true, ..plain(1, 1) };
        let mask = Tensor::from_slice(&[2, 4], &[0f32, 0.0, 0.0, 0.0].map(|_| f32::NEG_INFINITY).repeat(2)).unwrap();
        let y = check(op.clone(), &inputs(&mut random, mask), 1e-6);
        assert_eq!(y[0].elements::<f32>().unwrap(), [0.0; 4]);
        check(op, &inputs(&mut random, Tensor::from_slice(&[2, 3], &[0.5f32; 6]).unwrap()), 1e-6);
    }

    #[test]
    fn empty_operands_end_at_once() {
        let mut random = Random(53);
        for [batch, queries, keys, size] in [[0, 2, 3, 4], [1, 0, 3, 4], [1, 2, 0, 4], [1, 2, 3, 0]] {
            let [q, k] = [queries, keys].map(|len| random.floats(&[batch, 1, len, size]));
            check(plain(1, 1), &[q, k.clone(), k], 1e-6);
        }
    }

    /// ONNX Runtime 1.32: soft cap, mask and causality together, with elements made as the script made them.
    #[test]
    fn values_are_those_of_onnx_runtime() {
        let make = |seed: usize, dims: &[usize], factor: f32| {
            let element = |i: usize| (((i * 29 + seed * 17 + i * i % 13) % 64) as f32 / 32.0 - 1.0) * factor;
            Tensor::from_slice(dims, &(0..dims.iter().product()).map(element).collect::<Vec<f32>>()).unwrap()
        };
        let op = Attention { softcap: 1.5, causal: true, mask: true, ..plain(2, 2) };
        let inputs = [
            make(1, &[1, 2, 3, 4], 3.0),
            make(2, &[1, 2, 5, 4], 3.0),
            make(3, &[1, 2, 5, 2], 1.0),
            make(4, &[3, 5], 2.0),
        ];
        let wanted = [
            0.59375f32, -0.46875, 0.532085, -0.407085, 0.578193, -0.469835, -0.0625, 0.6875, -0.158132, 0.619192,
            -0.597989, 0.358791,
        ];
        let want = Tensor::from_slice(&[1, 2, 3, 2], &wanted).unwrap();
        assert_close(&check(op, &inputs, 1e-5)[0], &want, 1e-5, "ONNX Runtime");
    }

    #[test]
    fn what_does_not_fit_is_refused() {
        let mut random = Random(54);
        let [q, k] = [2, 5].map(|len| random.floats(&[2, len, 12]));
        let refused =
            |op: Attention, inputs: &[&Tensor]| op.infer(&inputs.iter().map(|t| t.fact()).collect::<Vec<_>>()).is_err();
        assert!(!refused(plain(4, 4), &[&q, &k, &k]));
        assert!(refused(plain(5, 5), &[&q, &k, &k]));
        assert!(refused(plain(4, 3), &[&q, &k, &k]));
        assert!(refused(plain(4, 4), &[&q, &k, &q]));
        assert!(refused(Attention { scale: f32::NAN, ..plain(4, 4) }, &[&q, &k, &k]));
        for dims in [&[2, 4][..], &[2, 1], &[3, 1, 2, 5], &[1, 1, 1, 2, 5], &[2, 6], &[]] {
            let mask = random.floats(dims);
            let refusal = refused(Attention { mask: true, ..plain(4, 4) }, &[&q, &k, &k, &mask]);
            assert_eq!(refusal, dims != [2, 4], "{dims:?}");
        }
        let lens = Tensor::from_slice(&[2], &[1i64, 6]).unwrap();
        check_fails(Attention { lens: true, ..plain(4, 4) }, &[q, k.clone(), k, lens]);
    }
}
