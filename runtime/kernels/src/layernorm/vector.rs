//! The formula on vectors, for every instruction set.

use super::{LayerNorm, Norm};
use crate::lanes::Lanes;
use crate::simd::{Simd, Vectorized};

/// Normalizes whole rows.
pub(super) struct NormalizedRows<'a> {
    pub(super) params: &'a LayerNorm<'a>,
    pub(super) x: &'a [f32],
    pub(super) y: &'a mut [f32],
}

impl Vectorized for NormalizedRows<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let NormalizedRows { params: &LayerNorm { norm, scale, bias, epsilon }, x, y } = self;
        let len = scale.len();
        for (x, y) in x.chunks_exact(len).zip(y.chunks_exact_mut(len)) {
            let mean = match norm {
                Norm::Standard => sum(simd, x) / len as f32,
                Norm::RootMeanSquare => 0.0,
            };
            let square = sum_of_squares(simd, x, mean) / len as f32;
            let factor = 1.0 / (square + epsilon).sqrt();
            match bias {
                Some(bias) => shift_and_scale(simd, x, mean, factor, scale, bias, y),
                None => only_scale(simd, x, mean, factor, scale, y),
            }
        }
    }
}

/// `sum x`
#[inline(always)]
fn sum<S: Simd>(simd: S, x: &[f32]) -> f32 {
    let mut acc = [simd.splat(0.0); 2];
    let mut pairs = x.chunks_exact(2 * S::LANES);
    for pair in &mut pairs {
        acc[0] = acc[0].add(simd.load(pair));
        acc[1] = acc[1].add(simd.load(&pair[S::LANES..]));
    }
    let mut rest = pairs.remainder().chunks_exact(S::LANES);
    for x in &mut rest {
        acc[0] = acc[0].add(simd.load(x));
    }
    acc[1] = acc[1].add(simd.load_partial(rest.remainder()));
    simd.sum_lanes(acc[0].add(acc[1]))
}

/// `sum (x - mean)^2`
#[inline(always)]
fn sum_of_squares<S: Simd>(simd: S, x: &[f32], mean: f32) -> f32 {
    let center = simd.splat(mean);
    let mut acc = [simd.splat(0.0); 2];
    let mut pairs = x.chunks_exact(2 * S::LANES);
    for pair in &mut pairs {
        let (a, b) = (simd.load(pair).sub(center), simd.load(&pair[S::LANES..]).sub(center));
        acc[0] = a.mul_add(a, acc[0]);
        acc[1] = b.mul_add(b, acc[1]);
    }
    let mut rest = pairs.remainder().chunks_exact(S::LANES);
    for x in &mut rest {
        let a = simd.load(x).sub(center);
        acc[0] = a.mul_add(a, acc[0]);
    }
    // The lanes beyond the end are filled with the mean, so they add nothing.
    let a = simd.load_or(rest.remainder(), mean).sub(center);
    acc[1] = a.mul_add(a, acc[1]);
    simd.sum_lanes(acc[0].add(acc[1]))
}

/// `y = (x - mean) * factor * scale + bias`
#[inline(always)]
fn shift_and_scale<S: Simd>(simd: S, x: &[f32], mean: f32, factor: f32, scale: &[f32], bias: &[f32], y: &mut [f32]) {
    let (mean, factor) = (simd.splat(mean), simd.splat(factor));
    let mut xs = x.chunks_exact(S::LANES);
    let mut scales = scale.chunks_exact(S::LANES);
    let mut biases = bias.chunks_exact(S::LANES);
    let mut ys = y.chunks_exact_mut(S::LANES);
    for (((x, scale), bias), y) in (&mut xs).zip(&mut scales).zip(&mut biases).zip(&mut ys) {
        let normal = simd.load(x).sub(mean).mul(factor);
        simd.store(normal.mul_add(simd.load(scale), simd.load(bias)), y);
    }
    let normal = simd.load_partial(xs.remainder()).sub(mean).mul(factor);
    let scale = simd.load_partial(scales.remainder());
    let bias = simd.load_partial(biases.remainder());
    simd.store_partial(normal.mul_add(scale, bias), ys.into_remainder());
}

/// `y = (x - mean) * factor * scale`
#[inline(always)]
fn only_scale<S: Simd>(simd: S, x: &[f32], mean: f32, factor: f32, scale: &[f32], y: &mut [f32]) {
    let (mean, factor) = (simd.splat(mean), simd.splat(factor));
    let mut xs = x.chunks_exact(S::LANES);
    let mut scales = scale.chunks_exact(S::LANES);
    let mut ys = y.chunks_exact_mut(S::LANES);
    for ((x, scale), y) in (&mut xs).zip(&mut scales).zip(&mut ys) {
        simd.store(simd.load(x).sub(mean).mul(factor).mul(simd.load(scale)), y);
    }
    let normal = simd.load_partial(xs.remainder()).sub(mean).mul(factor);
    simd.store_partial(normal.mul(simd.load_partial(scales.remainder())), ys.into_remainder());
}
