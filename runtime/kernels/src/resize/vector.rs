//! Interpolation on vectors of channels, for every instruction set.

use super::RowPair;
use crate::lanes::Lanes;
use crate::simd::{Simd, Vectorized};

/// One row of the output.
pub(super) struct LinearRow<'a> {
    pub(super) row: RowPair<'a>,
    pub(super) y: &'a mut [f32],
}

impl Vectorized for LinearRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let LinearRow { row, y } = self;
        let channels = row.channels;
        let down = simd.splat(row.frac);
        for (ow, y) in (row.first..).zip(y.chunks_exact_mut(channels)) {
            let (left, right, frac) = row.columns.at(ow);
            let across = simd.splat(frac);
            let corners = [
                &row.above[left * channels..][..channels],
                &row.above[right * channels..][..channels],
                &row.below[left * channels..][..channels],
                &row.below[right * channels..][..channels],
            ];
            let mut c = 0;
            let mut ys = y.chunks_exact_mut(S::LANES);
            for y in &mut ys {
                let at = corners.map(|corner| simd.load(&corner[c..][..S::LANES]));
                simd.store(blend(at, across, down), y);
                c += S::LANES;
            }
            let y = ys.into_remainder();
            if !y.is_empty() {
                let at = corners.map(|corner| simd.load_partial(&corner[c..]));
                simd.store_partial(blend(at, across, down), y);
            }
        }
    }
}

/// Blends left and right, then above and below.
#[inline(always)]
fn blend<V: Lanes>([a, b, c, d]: [V; 4], across: V, down: V) -> V {
    let above = across.mul_add(b.sub(a), a);
    let below = across.mul_add(d.sub(c), c);
    down.mul_add(below.sub(above), above)
}
