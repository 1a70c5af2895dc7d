//! The functions on vectors, for every instruction set.

use std::ops::Range;

use super::{EXP_WORK, SoftmaxFn};
use crate::activation;
use crate::lanes::Lanes;
use crate::pace::Pace;
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
    /// Asked whether to stop if the axis is long.
    pub(super) pace: &'a Pace<'a>,
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

/// The maximum of a row. If the row contains NaN, the sum of its exponentials is NaN, whatever this is.
#[inline(always)]
fn largest<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let mut xs = x.chunks_exact(S::LANES);
    let mut max = simd.splat(f32::NEG_INFINITY);
    for x in &mut xs {
        max = simd.load(x).at_least(max);
    }
    let max = simd.load_or(xs.remainder(), f32::NEG_INFINITY).at_least(max);
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
    if y.is_empty() {
        return simd.sum_lanes(sum);
    }
    let e = activation::vector::exp(simd.load_partial(xs.remainder()).sub(max));
    simd.store_partial(e, y);
    // Loading what was stored sets the lanes beyond the end of the row to zero.
    simd.sum_lanes(sum.add(simd.load_partial(y)))
}

impl Vectorized for SoftmaxColumns<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let SoftmaxColumns { f, inner, x, y, columns, pace } = self;
        let rows = S::LANES / inner;
        if rows > 1 && columns.len() == inner {
            let group = Group { pitch: rows * inner, column: 0, width: rows * inner, inner };
            return column_group(simd, f, group, x, y, pace);
        }
        let mut column = columns.start;
        while column < columns.end {
            let width = (columns.end - column).min(S::LANES);
            column_group(simd, f, Group { pitch: inner, column, width, inner: width }, x, y, pace);
            column += width;
        }
    }
}

/// A vector of columns: elements `column..column + width` of every `pitch`. The columns of a narrow plane repeat every
/// `inner` lanes: each vector holds several rows.
#[derive(Clone, Copy)]
struct Group {
    pitch: usize,
    column: usize,
    width: usize,
    inner: usize,
}

impl Group {
    /// The part of a run of `pitch` elements; the last run of a narrow plane may be shorter.
    #[inline(always)]
    fn of(self, len: usize) -> Range<usize> {
        self.column..len.min(self.column + self.width)
    }

    /// The first elements in the lanes. Those that the last rows lack count for nothing: `e^-inf` is 0.
    #[inline(always)]
    fn load<S: Simd>(self, simd: S, x: &[f32]) -> S::F32 {
        match x.len() {
            len if len == S::LANES => simd.load(x),
            len if len == self.width => simd.load_partial(x),
            _ => simd.load_or(x, f32::NEG_INFINITY),
        }
    }

    /// Combines the lanes of every column by `f`.
    #[inline(always)]
    fn fold<S: Simd>(self, simd: S, v: S::F32, f: impl Fn(f32, f32) -> f32) -> S::F32 {
        if self.inner == self.width {
            return v;
        }
        let mut lanes = [0.0; 16];
        simd.store(v, &mut lanes);
        for lane in self.inner..self.width {
            lanes[lane % self.inner] = f(lanes[lane % self.inner], lanes[lane]);
        }
        for lane in self.inner..self.width {
            lanes[lane] = lanes[lane % self.inner];
        }
        simd.load(&lanes)
    }
}

/// Runs of columns between two questions whether to stop.
const RUNS: usize = if cfg!(test) { 5 } else { 1 << 12 };

/// Computes a group of columns. Incomplete if the run is to stop.
#[inline(always)]
fn column_group<S: Simd>(simd: S, f: SoftmaxFn, group: Group, x: &[f32], y: &mut [f32], pace: &Pace<'_>) {
    // All of most columns.
    let some = group.pitch.saturating_mul(RUNS);
    let stops = |part: usize| part > 0 && pace.stops(EXP_WORK * RUNS * group.width);
    let mut max = simd.splat(f32::NEG_INFINITY);
    for (part, x) in x.chunks(some).enumerate() {
        if stops(part) {
            return;
        }
        for x in x.chunks(group.pitch) {
            max = group.load(simd, &x[group.of(x.len())]).at_least(max);
        }
    }
    let max = group.fold(simd, max, |a, b| if a.is_nan() || a > b { a } else { b });
    let mut sum = simd.splat(0.0);
    for (part, (x, y)) in x.chunks(some).zip(y.chunks_mut(some)).enumerate() {
        if stops(part) {
            return;
        }
        for (x, y) in x.chunks(group.pitch).zip(y.chunks_mut(group.pitch)) {
            let shifted = group.load(simd, &x[group.of(x.len())]).sub(max);
            let e = activation::vector::exp(shifted);
            sum = sum.add(e);
            let v = match f {
                SoftmaxFn::Softmax => e,
                SoftmaxFn::LogSoftmax => shifted,
            };
            store(simd, v, &mut y[group.of(x.len())]);
        }
    }
    let sum = group.fold(simd, sum, |a, b| a + b);
    let factor = match f {
        SoftmaxFn::Softmax => simd.splat(1.0).div(sum),
        SoftmaxFn::LogSoftmax => simd.each_lane(sum, f32::ln),
    };
    for (part, y) in y.chunks_mut(some).enumerate() {
        if stops(part) {
            return;
        }
        for y in y.chunks_mut(group.pitch) {
            let columns = group.of(y.len());
            let y = &mut y[columns];
            let v = group.load(simd, y);
            let v = match f {
                SoftmaxFn::Softmax => v.mul(factor),
                SoftmaxFn::LogSoftmax => v.sub(factor),
            };
            store(simd, v, y);
        }
    }
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
