//! Pooling on vectors of channels, for every instruction set.

use super::window::Taps;
use super::{PoolFn, Pooling};
use crate::lanes::Lanes;
use crate::simd::{Simd, Vectorized};

/// The pixels of an output row, counted over all images, from `first` on that fit in `y`.
pub(super) struct PoolRow<'a> {
    pub(super) pooling: &'a Pooling,
    pub(super) x: &'a [f32],
    pub(super) row: usize,
    pub(super) first: usize,
    pub(super) y: &'a mut [f32],
}

/// How many vectors of channels are accumulated at once.
const UNROLL: usize = 4;

/// The pixels of one window.
#[derive(Clone, Copy)]
struct WindowPixels<'a> {
    /// One image.
    x: &'a [f32],
    width: usize,
    channels: usize,
    rows: Taps,
    columns: Taps,
    /// The factor of the sum.
    factor: f32,
}

impl Vectorized for PoolRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.pooling.f {
            PoolFn::Max => self.with::<S, true>(simd),
            PoolFn::Average { .. } => self.with::<S, false>(simd),
        }
    }
}

impl PoolRow<'_> {
    #[inline(always)]
    fn with<S: Simd, const MAX: bool>(self, simd: S) {
        let PoolRow { pooling: p, x, row, first, y } = self;
        let channels = p.image.channels;
        let image_len = p.image.height * p.image.width * channels;
        let x = &x[row / p.out[0] * image_len..][..image_len];
        let rows = p.rows.at(row % p.out[0]);
        for (ow, y) in (first..).zip(y.chunks_exact_mut(channels)) {
            let columns = p.columns.at(ow);
            let factor = p.factor(rows, columns);
            let window = WindowPixels { x, width: p.image.width, channels, rows, columns, factor };
            pixel::<S, MAX>(simd, window, y);
        }
    }
}

/// Pools all channels of one output pixel.
#[inline(always)]
fn pixel<S: Simd, const MAX: bool>(simd: S, window: WindowPixels, y: &mut [f32]) {
    let mut c = 0;
    let mut groups = y.chunks_exact_mut(UNROLL * S::LANES);
    for group in &mut groups {
        let acc = whole::<S, MAX, UNROLL>(simd, window, c);
        for (acc, y) in acc.into_iter().zip(group.chunks_exact_mut(S::LANES)) {
            simd.store(acc, y);
        }
        c += UNROLL * S::LANES;
    }
    let mut vectors = groups.into_remainder().chunks_exact_mut(S::LANES);
    for y in &mut vectors {
        let [acc] = whole::<S, MAX, 1>(simd, window, c);
        simd.store(acc, y);
        c += S::LANES;
    }
    let y = vectors.into_remainder();
    if !y.is_empty() {
        let mut acc = start::<S, MAX>(simd);
        for h in window.rows.pixels() {
            for w in window.columns.pixels() {
                let x = &window.x[(h * window.width + w) * window.channels + c..][..y.len()];
                acc = combine::<S, MAX>(simd, acc, simd.load_partial(x));
            }
        }
        simd.store_partial(finish::<S, MAX>(simd, acc, window.factor), y);
    }
}

/// Pools `N` vectors of channels starting at channel `c`.
#[inline(always)]
fn whole<S: Simd, const MAX: bool, const N: usize>(simd: S, window: WindowPixels, c: usize) -> [S::F32; N] {
    let mut acc = [start::<S, MAX>(simd); N];
    for h in window.rows.pixels() {
        for w in window.columns.pixels() {
            let at = (h * window.width + w) * window.channels + c;
            let x = &window.x[at..][..N * S::LANES];
            for (acc, x) in acc.iter_mut().zip(x.chunks_exact(S::LANES)) {
                *acc = combine::<S, MAX>(simd, *acc, simd.load(x));
            }
        }
    }
    for acc in &mut acc {
        *acc = finish::<S, MAX>(simd, *acc, window.factor);
    }
    acc
}

#[inline(always)]
fn start<S: Simd, const MAX: bool>(simd: S) -> S::F32 {
    simd.splat(if MAX { f32::NEG_INFINITY } else { 0.0 })
}

#[inline(always)]
fn combine<S: Simd, const MAX: bool>(simd: S, acc: S::F32, x: S::F32) -> S::F32 {
    if MAX { simd.max(acc, x) } else { acc.add(x) }
}

#[inline(always)]
fn finish<S: Simd, const MAX: bool>(simd: S, acc: S::F32, factor: f32) -> S::F32 {
    if MAX { acc } else { acc.mul(simd.splat(factor)) }
}
