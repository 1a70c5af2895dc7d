//! Sums, extrema and norms along an axis: `y[o, i] = reduce over a of x[o, a, i]`.
//!
//! Global pooling is a reduction over pixels, and the mean over tokens pools a sentence. Sums are accumulated in
//! registers within a block and then over the blocks, so that the rounding error grows with the number of blocks
//! instead of the length of the axis.
//!
//! NaN anywhere along the axis gives NaN, also for `Max` and `Min`. An empty axis gives the neutral element (0, 1, or
//! plus or minus infinity), and NaN for `Mean`.

mod scalar;
mod vector;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::isa::Isa;
use crate::middle_axis::MiddleAxis;
use crate::pace::{PIECE, Pace};
use crate::parallel;
use crate::simd::dispatch;
use crate::threads::Pool;

/// The function that reduces an axis to one element.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum ReduceFn {
    /// `sum x`
    Sum,
    /// `sum x / n`
    Mean,
    /// The largest.
    Max,
    /// The smallest.
    Min,
    /// The product.
    Prod,
    /// `sum x^2`
    SumSquare,
    /// `sum |x|`
    L1,
    /// `sqrt(sum x^2)`
    L2,
}

impl ReduceFn {
    /// Every reduction.
    pub const ALL: [ReduceFn; 8] = [
        ReduceFn::Sum,
        ReduceFn::Mean,
        ReduceFn::Max,
        ReduceFn::Min,
        ReduceFn::Prod,
        ReduceFn::SumSquare,
        ReduceFn::L1,
        ReduceFn::L2,
    ];

    /// The neutral element of the reduction.
    fn neutral(self) -> f32 {
        match self {
            ReduceFn::Max => f32::NEG_INFINITY,
            ReduceFn::Min => f32::INFINITY,
            ReduceFn::Prod => 1.0,
            _ => 0.0,
        }
    }
}

/// Reduces the middle axis of `x`: `view.outer * view.inner` results.
///
/// # Panics
/// If the length of `x` or `y` does not match `view`.
pub fn reduce(isa: Isa, f: ReduceFn, view: MiddleAxis, x: &[f32], y: &mut [f32], pool: &Pool) {
    assert_eq!(x.len(), view.len(), "input length");
    assert_eq!(Some(y.len()), view.outer.checked_mul(view.inner), "output length");
    let long = PIECE / view.inner.clamp(1, COLUMNS);
    parallel::split(pool, y, COLUMNS, x.len(), |offset, y| match view.axis > PIECE / COLUMNS {
        true => in_parts((isa, f), view, x, (offset, y), long, &Pace::of(pool)),
        false => results(isa, f, view, x, offset, y),
    });
}

/// Columns that are reduced together.
const COLUMNS: usize = 64;

/// Computes the results `offset..offset + y.len()`.
#[inline(never)]
fn results(isa: Isa, f: ReduceFn, view: MiddleAxis, x: &[f32], offset: usize, y: &mut [f32]) {
    match isa {
        Isa::Scalar => scalar::reduce(f, view, x, offset, y),
        _ => dispatch(isa, vector::Reduce { f, view, x, offset, y }),
    }
}

/// Like `results`, for a long axis: in parts of `len` of its elements. Incomplete if the run is to stop.
fn in_parts(
    (isa, f): (Isa, ReduceFn),
    MiddleAxis { axis, inner, .. }: MiddleAxis,
    x: &[f32],
    (offset, y): (usize, &mut [f32]),
    len: usize,
    pace: &Pace<'_>,
) {
    // The function within a part, and that of the parts.
    let (within, among) = match f {
        ReduceFn::Mean => (ReduceFn::Sum, ReduceFn::Sum),
        ReduceFn::L1 => (f, ReduceFn::Sum),
        ReduceFn::SumSquare | ReduceFn::L2 => (ReduceFn::SumSquare, ReduceFn::Sum),
        f => (f, f),
    };
    let (mut at, mut rest) = (offset, y);
    while !rest.is_empty() {
        let column = at % inner;
        let (y, after) = rest.split_at_mut((inner - column).min(rest.len()).min(COLUMNS));
        let plane = &x[at / inner * axis * inner..][..axis * inner];
        y.fill(f.neutral());
        for rows in plane.chunks(len * inner) {
            let view = MiddleAxis { outer: 1, axis: rows.len() / inner, inner };
            if pace.stops(view.axis * y.len()) {
                return;
            }
            let mut both = [0.0; 2 * COLUMNS];
            let both = &mut both[..2 * y.len()];
            let (before, part) = both.split_at_mut(y.len());
            before.copy_from_slice(y);
            results(isa, within, view, rows, column, part);
            results(isa, among, MiddleAxis { outer: 1, axis: 2, inner: y.len() }, both, 0, y);
        }
        match f {
            ReduceFn::Mean => y.iter_mut().for_each(|y| *y /= axis as f32),
            ReduceFn::L2 => y.iter_mut().for_each(|y| *y = y.sqrt()),
            _ => {}
        }
        at += y.len();
        rest = after;
    }
}
