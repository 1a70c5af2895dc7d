//! The reductions on vectors, for every instruction set.
//!
//! Along the last axis, a row is folded lane by lane and then the lanes are combined. Along any other axis, the lanes
//! are adjacent columns.

use super::ReduceFn;
use crate::lanes::Lanes;
use crate::middle_axis::MiddleAxis;
use crate::simd::{Simd, Vectorized};

/// Computes the results `offset..offset + y.len()`.
pub(super) struct Reduce<'a> {
    pub(super) f: ReduceFn,
    pub(super) view: MiddleAxis,
    pub(super) x: &'a [f32],
    pub(super) offset: usize,
    pub(super) y: &'a mut [f32],
}

/// Independent accumulators: enough to hide the latency of an addition.
const UNROLL: usize = 4;
/// Minimum of groups of vectors (in a row) or rows (in a column) per block of a sum.
const BLOCK: usize = 128;

/// Summands per block, out of `n`: about as many as there are blocks, so that the sums within blocks and the sum over
/// the blocks have similar lengths.
#[inline(always)]
fn block_len(n: usize) -> usize {
    n.isqrt().max(BLOCK)
}

impl Vectorized for Reduce<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.f {
            // The final division is negligible, so both share a loop.
            ReduceFn::Sum | ReduceFn::Mean => self.fold(simd, ReduceFn::Sum),
            ReduceFn::SumSquare | ReduceFn::L2 => self.fold(simd, ReduceFn::SumSquare),
            ReduceFn::L1 => self.fold(simd, ReduceFn::L1),
            ReduceFn::Max => self.fold(simd, ReduceFn::Max),
            ReduceFn::Min => self.fold(simd, ReduceFn::Min),
            ReduceFn::Prod => self.fold(simd, ReduceFn::Prod),
        }
    }
}

impl Reduce<'_> {
    #[inline(always)]
    fn fold<S: Simd>(self, simd: S, f: ReduceFn) {
        let Reduce { f: whole, view: MiddleAxis { axis, inner, .. }, x, offset, y } = self;
        if axis == 0 {
            y.fill(finish(whole, 0, f.neutral()));
        } else if inner == 1 {
            let block = block_len(axis / UNROLL / S::LANES) * UNROLL * S::LANES;
            for (row, y) in x[offset * axis..].chunks_exact(axis).zip(y) {
                *y = finish(whole, axis, fold_row(simd, f, row, block));
            }
        } else {
            let mut rest = y;
            let mut at = offset;
            while !rest.is_empty() {
                let column = at % inner;
                let width = (inner - column).min(rest.len());
                let (y, after) = rest.split_at_mut(width);
                let plane = &x[at / inner * axis * inner..][..axis * inner];
                fold_columns(simd, f, plane, inner, column, y);
                for y in y {
                    *y = finish(whole, axis, *y);
                }
                at += width;
                rest = after;
            }
        }
    }
}

/// Reduces a row, in blocks of `block` elements.
#[inline(always)]
fn fold_row<S: Simd>(simd: S, f: ReduceFn, row: &[f32], block: usize) -> f32 {
    let neutral = simd.splat(f.neutral());
    let mut total = neutral;
    for block in row.chunks(block) {
        let mut acc = [neutral; UNROLL];
        let mut groups = block.chunks_exact(UNROLL * S::LANES);
        for group in &mut groups {
            for (acc, x) in acc.iter_mut().zip(group.chunks_exact(S::LANES)) {
                *acc = combine(simd, f, *acc, map(f, simd.load(x)));
            }
        }
        let mut rest = groups.remainder().chunks_exact(S::LANES);
        for x in &mut rest {
            acc[0] = combine(simd, f, acc[0], map(f, simd.load(x)));
        }
        if !rest.remainder().is_empty() {
            let x = match f.neutral() {
                0.0 => simd.load_partial(rest.remainder()),
                neutral => simd.load_or(rest.remainder(), neutral),
            };
            acc[1] = combine(simd, f, acc[1], map(f, x));
        }
        let [a, b, c, d] = acc;
        let acc = combine(simd, f, combine(simd, f, a, b), combine(simd, f, c, d));
        total = combine(simd, f, total, acc);
    }
    simd.fold_lanes(total, |a, b| combine_one(f, a, b))
}

/// Reduces columns `column..column + y.len()` of a plane whose rows have `inner` elements.
#[inline(always)]
fn fold_columns<S: Simd>(simd: S, f: ReduceFn, plane: &[f32], inner: usize, mut column: usize, y: &mut [f32]) {
    let mut groups = y.chunks_exact_mut(UNROLL * S::LANES);
    for group in &mut groups {
        let acc = fold_column_group::<S, UNROLL>(simd, f, plane, inner, column);
        for (acc, y) in acc.into_iter().zip(group.chunks_exact_mut(S::LANES)) {
            simd.store(acc, y);
        }
        column += UNROLL * S::LANES;
    }
    let mut vectors = groups.into_remainder().chunks_exact_mut(S::LANES);
    for y in &mut vectors {
        let [acc] = fold_column_group::<S, 1>(simd, f, plane, inner, column);
        simd.store(acc, y);
        column += S::LANES;
    }
    let y = vectors.into_remainder();
    if !y.is_empty() {
        let mut total = simd.splat(f.neutral());
        for block in plane.chunks(block_len(plane.len() / inner) * inner) {
            let mut acc = simd.splat(f.neutral());
            for row in block.chunks_exact(inner) {
                let x = simd.load_partial(&row[column..][..y.len()]);
                acc = combine(simd, f, acc, map(f, x));
            }
            total = combine(simd, f, total, acc);
        }
        simd.store_partial(total, y);
    }
}

/// Reduces `N` vectors of columns starting at `column`.
#[inline(always)]
fn fold_column_group<S: Simd, const N: usize>(
    simd: S,
    f: ReduceFn,
    plane: &[f32],
    inner: usize,
    column: usize,
) -> [S::F32; N] {
    let neutral = simd.splat(f.neutral());
    let mut total = [neutral; N];
    for block in plane.chunks(block_len(plane.len() / inner) * inner) {
        let mut acc = [neutral; N];
        for row in block.chunks_exact(inner) {
            let row = &row[column..][..N * S::LANES];
            for (acc, x) in acc.iter_mut().zip(row.chunks_exact(S::LANES)) {
                *acc = combine(simd, f, *acc, map(f, simd.load(x)));
            }
        }
        for (total, acc) in total.iter_mut().zip(acc) {
            *total = combine(simd, f, *total, acc);
        }
    }
    total
}

/// The function applied to each element before it is combined.
#[inline(always)]
fn map<V: Lanes>(f: ReduceFn, x: V) -> V {
    match f {
        ReduceFn::SumSquare => x.mul(x),
        ReduceFn::L1 => x.abs(),
        _ => x,
    }
}

#[inline(always)]
fn combine<S: Simd>(simd: S, f: ReduceFn, a: S::F32, b: S::F32) -> S::F32 {
    match f {
        ReduceFn::Max => simd.max(a, b),
        ReduceFn::Min => simd.min(a, b),
        ReduceFn::Prod => a.mul(b),
        _ => a.add(b),
    }
}

#[inline(always)]
fn combine_one(f: ReduceFn, a: f32, b: f32) -> f32 {
    match f {
        ReduceFn::Max if a.is_nan() || a > b => a,
        ReduceFn::Min if a.is_nan() || a < b => a,
        ReduceFn::Max | ReduceFn::Min => b,
        ReduceFn::Prod => a * b,
        _ => a + b,
    }
}

/// The function applied to the combined value.
#[inline(always)]
fn finish(f: ReduceFn, len: usize, x: f32) -> f32 {
    match f {
        ReduceFn::Mean => x / len as f32,
        ReduceFn::L2 => x.sqrt(),
        _ => x,
    }
}
