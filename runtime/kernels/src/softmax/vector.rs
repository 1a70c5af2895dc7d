//! The functions on vectors, for every instruction set.

use std::ops::Range;

use super::SoftmaxFn;
use crate::activation;
use crate::lanes::Lanes;
use crate::simd::{Simd, Vectorized};

/// Along a contiguous row: the lanes are adjacent elements of the axis.
pub(super) struct SoftmaxRow<'a> {
    pub(super) f: SoftmaxFn,
    pub(super) x: &'a [f32],
    pub(super) y: &'a mut [f32],
}

/// Along the first axis of an `[axis, inner]` plane: the lanes are adjacent columns.
pub(super) struct SoftmaxColumns<'a> {
    pub(super) f: SoftmaxFn,
    pub(super) inner: usize,
    pub(super) x: &'a [f32],
    pub(super) y: &'a mut [f32],
    pub(super) columns: Range<usize>,
}

impl Vectorized for SoftmaxRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let SoftmaxRow { f, x, y } = self;
        let max = simd.splat(largest(simd, x));
        let sum = exponentials(simd, x, max, y);
        let (scale, shift) = match f {
            SoftmaxFn::Softmax => (simd.splat(1.0 / sum), simd.splat(0.0)),
            SoftmaxFn::LogSoftmax => (simd.splat(1.0), simd.splat(sum.ln())),
        };
        let mut xs = x.chunks_exact(S::LANES);
        let mut ys = y.chunks_exact_mut(S::LANES);
        for (x, y) in (&mut xs).zip(&mut ys) {
            let v = match f {
                SoftmaxFn::Softmax => simd.load(y).mul(scale),
                SoftmaxFn::LogSoftmax => simd.load(x).sub(max).sub(shift),
            };
            simd.store(v, y);
        }
        let y = ys.into_remainder();
        let v = match f {
            SoftmaxFn::Softmax => simd.load_partial(y).mul(scale),
            SoftmaxFn::LogSoftmax => simd.load_partial(xs.remainder()).sub(max).sub(shift),
        };
        simd.store_partial(v, y);
    }
}

/// The maximum of a row; NaN if the row contains one.
#[inline(always)]
fn largest<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let mut xs = x.chunks_exact(S::LANES);
    let mut max = simd.splat(f32::NEG_INFINITY);
    for x in &mut xs {
        max = simd.max(max, simd.load(x));
    }
    let max = simd.max(max, simd.load_or(xs.remainder(), f32::NEG_INFINITY));
    simd.fold_lanes(max, |a, b| if a.is_nan() || a > b { a } else { b })
}

/// Computes `y = e^(x - max)` and returns the sum of `y`.
#[inline(always)]
fn exponentials<S: Simd>(simd: S, x: &[f32], max: S::F32, y: &mut [f32]) -> f32 {
    let mut xs = x.chunks_exact(S::LANES);
    let mut ys = y.chunks_exact_mut(S::LANES);
    let mut sum = simd.splat(0.0);
    for (x, y) in (&mut xs).zip(&mut ys) {
        let e = activation::vector::exp(simd.load(x).sub(max));
        sum = sum.add(e);
        simd.store(e, y);
    }
    let y = ys.into_remainder();
    let e = activation::vector::exp(simd.load_partial(xs.remainder()).sub(max));
    simd.store_partial(e, y);
    // Loading what was stored sets the lanes beyond the end of the row to zero.
    simd.sum_lanes(sum.add(simd.load_partial(y)))
}

impl Vectorized for SoftmaxColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let SoftmaxColumns { f, inner, x, y, columns } = self;
        let mut column = columns.start;
        while column < columns.end {
            let width = (columns.end - column).min(S::LANES);
            column_group(simd, f, inner, column, width, x, y);
            column += width;
        }
    }
}

/// Computes columns `column..column + width`, at most one vector of them.
#[inline(always)]
fn column_group<S: Simd>(simd: S, f: SoftmaxFn, inner: usize, column: usize, width: usize, x: &[f32], y: &mut [f32]) {
    let mut max = simd.splat(f32::NEG_INFINITY);
    for x in x.chunks_exact(inner) {
        max = simd.max(max, load(simd, &x[column..][..width]));
    }
    let mut sum = simd.splat(0.0);
    for (x, y) in x.chunks_exact(inner).zip(y.chunks_exact_mut(inner)) {
        let shifted = load(simd, &x[column..][..width]).sub(max);
        let e = activation::vector::exp(shifted);
        sum = sum.add(e);
        let v = match f {
            SoftmaxFn::Softmax => e,
            SoftmaxFn::LogSoftmax => shifted,
        };
        store(simd, v, &mut y[column..][..width]);
    }
    let factor = match f {
        SoftmaxFn::Softmax => simd.splat(1.0).div(sum),
        SoftmaxFn::LogSoftmax => simd.each_lane(sum, f32::ln),
    };
    for y in y.chunks_exact_mut(inner) {
        let y = &mut y[column..][..width];
        let v = load(simd, y);
        let v = match f {
            SoftmaxFn::Softmax => v.mul(factor),
            SoftmaxFn::LogSoftmax => v.sub(factor),
        };
        store(simd, v, y);
    }
}

/// Loads a whole vector, or fewer elements.
#[inline(always)]
fn load<S: Simd>(simd: S, x: &[f32]) -> S::F32 {
    if x.len() == S::LANES { simd.load(x) } else { simd.load_partial(x) }
}

/// Stores a whole vector, or fewer elements.
#[inline(always)]
fn store<S: Simd>(simd: S, v: S::F32, y: &mut [f32]) {
    if y.len() == S::LANES {
        simd.store(v, y);
    } else {
        simd.store_partial(v, y);
    }
}
