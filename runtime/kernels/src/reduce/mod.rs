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
    parallel::split(pool, y, 64, x.len(), |offset, y| match isa {
        Isa::Scalar => scalar::reduce(f, view, x, offset, y),
        _ => dispatch(isa, vector::Reduce { f, view, x, offset, y }),
    });
}
