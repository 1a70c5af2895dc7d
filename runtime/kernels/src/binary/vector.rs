//! The functions on vectors, for every instruction set.

use super::broadcast::{BroadcastRun, BroadcastRuns};
use super::{BinaryFn, CompareFn, scalar};
use crate::lanes::Lanes;
use crate::simd::{Simd, Vectorized};

/// `y = f(a, b)`; `rows` are the rows of `y`.
pub(super) struct Binary<'a> {
    pub(super) f: BinaryFn,
    pub(super) rows: BroadcastRuns<'a>,
    pub(super) a: &'a [f32],
    pub(super) b: &'a [f32],
    pub(super) y: &'a mut [f32],
}

/// `y = f(a, b)` as 1 or 0; `rows` are the rows of `y`.
pub(super) struct Compare<'a> {
    pub(super) f: CompareFn,
    pub(super) rows: BroadcastRuns<'a>,
    pub(super) a: &'a [f32],
    pub(super) b: &'a [f32],
    pub(super) y: &'a mut [u8],
}

impl Vectorized for Binary<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Binary { f, rows, a, b, y } = self;
        match f {
            BinaryFn::Add => walk(simd, BinaryFn::Add, rows, a, b, y),
            BinaryFn::Sub => walk(simd, BinaryFn::Sub, rows, a, b, y),
            BinaryFn::Mul => walk(simd, BinaryFn::Mul, rows, a, b, y),
            BinaryFn::Div => walk(simd, BinaryFn::Div, rows, a, b, y),
            BinaryFn::Min => walk(simd, BinaryFn::Min, rows, a, b, y),
            BinaryFn::Max => walk(simd, BinaryFn::Max, rows, a, b, y),
            BinaryFn::Pow => scalar::binary(BinaryFn::Pow, rows, a, b, y),
            BinaryFn::PRelu => walk(simd, BinaryFn::PRelu, rows, a, b, y),
            BinaryFn::SqDiff => walk(simd, BinaryFn::SqDiff, rows, a, b, y),
        }
    }
}

impl Vectorized for Compare<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let Compare { f, rows, a, b, y } = self;
        match f {
            CompareFn::Equal => walk(simd, CompareFn::Equal, rows, a, b, y),
            CompareFn::Less => walk(simd, CompareFn::Less, rows, a, b, y),
            CompareFn::LessEqual => walk(simd, CompareFn::LessEqual, rows, a, b, y),
            CompareFn::Greater | CompareFn::GreaterEqual => unreachable!("the caller turns them round"),
        }
    }
}

/// A function of two vectors whose results are stored as `Out`.
trait Apply: Copy {
    type Out;
    /// `f(a, b)` of one pair.
    fn one(self, a: f32, b: f32) -> Self::Out;
    /// `y = f(a, b)` for `LANES` pairs.
    fn whole<S: Simd>(self, simd: S, a: S::F32, b: S::F32, y: &mut [Self::Out]);
    /// `y = f(a, b)` for fewer pairs than `LANES`.
    fn part<S: Simd>(self, simd: S, a: S::F32, b: S::F32, y: &mut [Self::Out]);
}

impl Apply for BinaryFn {
    type Out = f32;

    #[inline(always)]
    fn one(self, a: f32, b: f32) -> f32 {
        scalar::eval(self, a, b)
    }

    #[inline(always)]
    fn whole<S: Simd>(self, simd: S, a: S::F32, b: S::F32, y: &mut [f32]) {
        simd.store(eval(simd, self, a, b), y);
    }

    #[inline(always)]
    fn part<S: Simd>(self, simd: S, a: S::F32, b: S::F32, y: &mut [f32]) {
        simd.store_partial(eval(simd, self, a, b), y);
    }
}

impl Apply for CompareFn {
    type Out = u8;

    #[inline(always)]
    fn one(self, a: f32, b: f32) -> u8 {
        u8::from(scalar::holds(self, a, b))
    }

    #[inline(always)]
    fn whole<S: Simd>(self, simd: S, a: S::F32, b: S::F32, y: &mut [u8]) {
        simd.store_mask(holds(simd, self, a, b), y);
    }

    #[inline(always)]
    fn part<S: Simd>(self, simd: S, a: S::F32, b: S::F32, y: &mut [u8]) {
        simd.store_mask(holds(simd, self, a, b), y);
    }
}

#[inline(always)]
fn eval<S: Simd>(simd: S, f: BinaryFn, a: S::F32, b: S::F32) -> S::F32 {
    match f {
        BinaryFn::Add => a.add(b),
        BinaryFn::Sub => a.sub(b),
        BinaryFn::Mul => a.mul(b),
        BinaryFn::Div => a.div(b),
        BinaryFn::Min => simd.min(a, b),
        BinaryFn::Max => simd.max(a, b),
        BinaryFn::PRelu => a.if_less(simd.splat(0.0), a.mul(b), a),
        BinaryFn::SqDiff => {
            let difference = a.sub(b);
            difference.mul(difference)
        }
        BinaryFn::Pow => unreachable!("powers are computed one by one"),
    }
}

#[inline(always)]
fn holds<S: Simd>(simd: S, f: CompareFn, a: S::F32, b: S::F32) -> S::Mask {
    match f {
        CompareFn::Equal => simd.equal(a, b),
        CompareFn::Less => simd.less(a, b),
        CompareFn::LessEqual => simd.less_equal(a, b),
        CompareFn::Greater | CompareFn::GreaterEqual => unreachable!("the caller turns them round"),
    }
}

#[inline(always)]
fn walk<S: Simd, F: Apply>(simd: S, f: F, rows: BroadcastRuns, a: &[f32], b: &[f32], y: &mut [F::Out]) {
    let mut rest = y;
    for row in rows {
        let (y, after) = rest.split_at_mut(row.len);
        rest = after;
        let BroadcastRun { a: a0, b: b0, len, .. } = row;
        match (row.a_stride, row.b_stride) {
            (1, 1) => both_move(simd, f, &a[a0..][..len], &b[b0..][..len], y),
            (1, 0) => a_moves(simd, f, &a[a0..][..len], b[b0], y),
            (0, 1) => b_moves(simd, f, a[a0], &b[b0..][..len], y),
            (a_stride, b_stride) => {
                for (i, y) in y.iter_mut().enumerate() {
                    *y = f.one(a[a0 + i * a_stride], b[b0 + i * b_stride]);
                }
            }
        }
    }
}

#[inline(always)]
fn both_move<S: Simd, F: Apply>(simd: S, f: F, a: &[f32], b: &[f32], y: &mut [F::Out]) {
    let mut a = a.chunks_exact(S::LANES);
    let mut b = b.chunks_exact(S::LANES);
    let mut y = y.chunks_exact_mut(S::LANES);
    for ((a, b), y) in (&mut a).zip(&mut b).zip(&mut y) {
        f.whole(simd, simd.load(a), simd.load(b), y);
    }
    let y = y.into_remainder();
    if !y.is_empty() {
        let (a, b) = (simd.load_partial(a.remainder()), simd.load_partial(b.remainder()));
        f.part(simd, a, b, y);
    }
}

#[inline(always)]
fn a_moves<S: Simd, F: Apply>(simd: S, f: F, a: &[f32], b: f32, y: &mut [F::Out]) {
    let b = simd.splat(b);
    let mut a = a.chunks_exact(S::LANES);
    let mut y = y.chunks_exact_mut(S::LANES);
    for (a, y) in (&mut a).zip(&mut y) {
        f.whole(simd, simd.load(a), b, y);
    }
    let y = y.into_remainder();
    if !y.is_empty() {
        f.part(simd, simd.load_partial(a.remainder()), b, y);
    }
}

#[inline(always)]
fn b_moves<S: Simd, F: Apply>(simd: S, f: F, a: f32, b: &[f32], y: &mut [F::Out]) {
    let a = simd.splat(a);
    let mut b = b.chunks_exact(S::LANES);
    let mut y = y.chunks_exact_mut(S::LANES);
    for (b, y) in (&mut b).zip(&mut y) {
        f.whole(simd, a, simd.load(b), y);
    }
    let y = y.into_remainder();
    if !y.is_empty() {
        f.part(simd, a, simd.load_partial(b.remainder()), y);
    }
}
