//! The entry points: they check every length and turn a convolution into a matrix product.

use super::blocks::{Access, CheckedGemm, ConvInput, GemmRows, GemmSplit, LONG, MAX_LINES, SHORT_RUN};
use super::scale::{by_weights, scale_weights};
use super::{Packed, Variant, packed_conv_len, packed_len};
use crate::conv::{ConvShape, product};
use crate::epilogue::Epilogue;
use crate::pace::{PIECE, Pace};
use crate::threads::Pool;

/// A matrix product.
pub struct Gemm<'a> {
    /// Rows of A.
    pub m: usize,
    /// Columns of A, rows of B.
    pub k: usize,
    /// Columns of B.
    pub n: usize,
    /// A: row `i` begins at `i * lda`.
    pub a: &'a [f32],
    /// Elements from one row of A to the next, at least `k`.
    pub lda: usize,
    /// B, packed for the variant.
    pub packed: Packed<'a>,
    /// The product: row `i` begins at `i * ldc`.
    pub out: &'a mut [f32],
    /// Elements from one row of the product (and of a residual) to the next, at least `n`.
    pub ldc: usize,
    /// Applied to the sums.
    pub epilogue: Epilogue<'a>,
    /// One factor per column of A.
    pub a_scale: Option<&'a [f32]>,
}

/// A convolution.
pub struct GemmConv<'a> {
    /// Its geometry.
    pub shape: &'a ConvShape,
    /// NHWC.
    pub input: &'a [f32],
    /// Weights, packed by [`pack_conv`](super::pack_conv) for the variant.
    pub packed: Packed<'a>,
    /// NHWC.
    pub out: &'a mut [f32],
    /// Applied to the sums.
    pub epilogue: Epilogue<'a>,
    /// One factor per image and input channel.
    pub a_scale: Option<&'a [f32]>,
}

/// Scratch size in elements for [`gemm`]; 0 unless `A` is scaled.
pub fn gemm_scratch(v: &Variant, m: usize, k: usize, n: usize, scaled: bool, threads: usize) -> usize {
    GemmSplit::new(v, m, n, 1, k, 1, access(scaled), threads).scratch_len()
}

/// Computes a matrix product.
///
/// # Panics
/// If a slice is shorter than its description requires, or the CPU lacks the variant's instructions.
pub fn gemm(v: &Variant, args: Gemm<'_>, scratch: &mut [f32], pool: &Pool) {
    let split = GemmSplit::new(v, args.m, args.n, 1, args.k, 1, access(args.a_scale.is_some()), pool.threads());
    if let Some((product, out)) = checked(v, args) {
        product.run(&split, out, scratch, pool);
    }
}

/// Computes a matrix product with unscaled A on the calling thread: for kernels composed of several products. The pool
/// is only asked whether to stop.
///
/// # Panics
/// Like [`gemm`].
pub(crate) fn gemm_alone(v: &Variant, args: Gemm<'_>, pool: &Pool) {
    let split = GemmSplit::new(v, args.m, args.n, 1, args.k, 1, access(args.a_scale.is_some()), 1);
    if let Some((product, out)) = checked(v, args) {
        product.run_alone(&split, out, pool);
    }
}

/// The checked product and its output; `None` if the output is empty.
fn checked<'a>(v: &'a Variant, args: Gemm<'a>) -> Option<(CheckedGemm<'a>, &'a mut [f32])> {
    let Gemm { m, k, n, a, lda, packed, out, ldc, epilogue, a_scale } = args;
    if m == 0 || n == 0 {
        return None;
    }
    let end = product(&[m - 1, ldc]) + n;
    assert!(lda >= k && a.len() >= product(&[m - 1, lda]) + k, "A is too short");
    assert!(ldc >= n && out.len() >= end, "the output is too short");
    assert_eq!((packed.len(), packed.weights()), (packed_len(v, k, n), v.weights), "the packed weights");
    assert!(a_scale.is_none_or(|s| s.len() == k), "one factor per column of A");
    epilogue.check(n, end);
    let rows = GemmRows::Matrix { a, lda };
    Some((CheckedGemm { v, m, n, depth: k, groups: 1, rows, scale: a_scale, packed, ldc, epilogue }, out))
}

fn access(scaled: bool) -> Access {
    if scaled { Access::Gather } else { Access::InPlace }
}

/// Scratch size in elements for [`conv`]: scaled weights, a row of zeros for the padding, and copied rows.
#[inline(never)]
pub fn conv_scratch(v: &Variant, shape: &ConvShape, scaled: bool, threads: usize) -> usize {
    let by_weights = scaled && by_weights(v, shape);
    let weights = if by_weights { packed_conv_len(v, shape) } else { 0 };
    let split = Reading::new(shape, scaled && !by_weights).split(v, shape, threads);
    weights + zeros(&split, shape) + split.scratch_len()
}

/// Computes a convolution.
///
/// # Panics
/// If the length of a slice does not match `shape`, if `scratch` is shorter than [`conv_scratch`], or if the CPU lacks
/// the variant's instructions.
#[inline(never)]
pub fn conv(v: &Variant, args: GemmConv<'_>, scratch: &mut [f32], pool: &Pool) {
    let GemmConv { shape, input, packed, out, epilogue, a_scale } = args;
    shape.check();
    assert_eq!(input.len(), shape.input_len(), "input length");
    assert_eq!(out.len(), shape.output_len(), "output length");
    assert_eq!((packed.len(), packed.weights()), (packed_conv_len(v, shape), v.weights), "the packed weights");
    assert!(a_scale.is_none_or(|s| s.len() == product(&[shape.batch, shape.in_c])), "one factor per image and channel");
    epilogue.check(shape.out_c, out.len());
    if out.is_empty() {
        return;
    }
    let pace = Pace::of(pool);
    let (packed, a_scale, scratch) = match (packed, a_scale) {
        (Packed::F32(packed), Some(scale)) if by_weights(v, shape) => {
            assert!(scratch.len() >= packed.len(), "the scratch is too short");
            let (weights, scratch) = scratch.split_at_mut(packed.len());
            scale_weights(v, shape, packed, scale, weights, &pace);
            (Packed::F32(weights), None, scratch)
        }
        _ => (packed, a_scale, scratch),
    };
    let reading = Reading::new(shape, a_scale.is_some());
    let split = reading.split(v, shape, pool.threads());
    assert!(scratch.len() >= zeros(&split, shape), "the scratch is too short");
    let (zeros, scratch) = scratch.split_at_mut(zeros(&split, shape));
    for zeros in zeros.chunks_mut(PIECE) {
        if pace.stops(zeros.len()) {
            return;
        }
        zeros.fill(0.0);
    }
    let image = ConvInput { shape, input, zeros };
    let rows = match reading.access {
        Access::CopyEdges => GemmRows::Lines(image),
        Access::InPlace if shape.is_pointwise() && shape.groups == 1 => GemmRows::Matrix { a: input, lda: shape.in_c },
        Access::InPlace | Access::Gather => GemmRows::Image(image),
    };
    CheckedGemm {
        v,
        m: shape.pixels(),
        n: shape.group_out(),
        depth: reading.depth,
        groups: shape.groups,
        rows,
        scale: a_scale,
        packed,
        ldc: shape.out_c,
        epilogue,
    }
    .run(&split, out, scratch, pool);
}

/// How a convolution reads its input.
struct Reading {
    access: Access,
    /// Contiguous runs that a window consists of.
    taps: usize,
    /// Elements in a run.
    depth: usize,
}

impl Reading {
    fn new(shape: &ConvShape, scaled: bool) -> Reading {
        shape.check();
        let (taps, depth) = (shape.taps(), shape.group_in());
        let short = taps > 1 && depth < SHORT_RUN;
        // With few channels, adjacent pixels of an image form one run, as long as the pointers of the runs fit.
        let fits = shape.kernel[0] <= MAX_LINES && product(&[taps, depth]) <= LONG;
        if short && !scaled && shape.groups == 1 && shape.dilation[1] == 1 && fits {
            return Reading {
                access: Access::CopyEdges,
                taps: shape.kernel[0],
                depth: product(&[shape.kernel[1], depth]),
            };
        }
        Reading { access: access(scaled || short), taps, depth }
    }

    fn split(&self, v: &Variant, shape: &ConvShape, threads: usize) -> GemmSplit {
        let (m, n) = (shape.pixels(), shape.group_out());
        GemmSplit::new(v, m, n, self.taps, self.depth, shape.groups, self.access, threads)
    }
}

/// Length of the row of zeros.
fn zeros(split: &GemmSplit, shape: &ConvShape) -> usize {
    if shape.is_padded() { split.zeros_len() } else { 0 }
}
