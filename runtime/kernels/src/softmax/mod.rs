//! Softmax and its logarithm along an axis.
//!
//! `softmax(x)[a] = e^(x[a] - m) / sum over b of e^(x[b] - m)`, where `m` is the maximum along the axis, so that no
//! exponent is above zero. The logarithm is `x[a] - m - ln(sum)`. If the axis contains NaN, or nothing but minus
//! infinity, all results along it are NaN.

mod scalar;
mod vector;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::isa::Isa;
use crate::middle_axis::MiddleAxis;
use crate::pace::{PIECE, Pace};
use crate::parallel;
use crate::reduce::{ReduceFn, reduce};
use crate::simd::dispatch;
use crate::threads::Pool;
use crate::unary::{ElementwiseFn, UnaryFn, map_slice_in_place};

/// Softmax or its logarithm.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum SoftmaxFn {
    /// Probabilities that sum to 1.
    Softmax,
    /// Their natural logarithms.
    LogSoftmax,
}

/// An exponential costs about as much as moving this many elements.
const EXP_WORK: usize = 4;

/// Applies `f` along the middle axis of `x`.
///
/// # Panics
/// If the length of `x` or `y` does not match `view`.
pub fn softmax(isa: Isa, f: SoftmaxFn, view: MiddleAxis, x: &[f32], y: &mut [f32], pool: &Pool) {
    assert_eq!(x.len(), view.len(), "input length");
    assert_eq!(y.len(), x.len(), "input and output lengths differ");
    let MiddleAxis { axis, inner, .. } = view;
    let plane = (axis * inner).max(1);
    if inner == 1 && axis > PIECE / EXP_WORK {
        x.chunks_exact(axis).zip(y.chunks_exact_mut(axis)).for_each(|(x, y)| long_row(isa, f, x, y, pool));
        return;
    }
    parallel::split(pool, y, plane, x.len().saturating_mul(EXP_WORK), |offset, y| {
        let planes = x[offset..].chunks_exact(plane).zip(y.chunks_exact_mut(plane));
        let pace = Pace::of(pool);
        for (x, y) in planes {
            match isa {
                Isa::Scalar => scalar::plane(f, axis, inner, x, y, &pace),
                _ if inner == 1 => dispatch(isa, vector::SoftmaxRow { f, x, y }),
                _ => {
                    for first in (0..inner).step_by(COLUMNS) {
                        let columns = first..inner.min(first + COLUMNS);
                        if pace.stops(axis * columns.len() * EXP_WORK) {
                            return;
                        }
                        dispatch(isa, vector::SoftmaxColumns { f, inner, x, y, columns, pace: &pace });
                    }
                }
            }
        }
    });
}

/// Columns of a plane that are computed at once: some registers of them.
const COLUMNS: usize = 32;

/// Computes a row that takes long, in steps that are each cut into pieces.
fn long_row(isa: Isa, f: SoftmaxFn, x: &[f32], y: &mut [f32], pool: &Pool) {
    let view = MiddleAxis { outer: 1, axis: x.len(), inner: 1 };
    let (mut max, mut sum) = ([0.0], [0.0]);
    reduce(isa, ReduceFn::Max, view, x, &mut max, pool);
    let work = x.len().saturating_mul(EXP_WORK);
    parallel::split(pool, y, 64, work, |offset, y| {
        y.iter_mut().zip(&x[offset..]).for_each(|(y, x)| *y = x - max[0]);
        map_slice_in_place(isa, ElementwiseFn::Unary(UnaryFn::Exp), y);
    });
    reduce(isa, ReduceFn::Sum, view, y, &mut sum, pool);
    let (scale, shift) = (1.0 / sum[0], sum[0].ln());
    parallel::split(pool, y, 64, work, |offset, y| match f {
        SoftmaxFn::Softmax => y.iter_mut().for_each(|y| *y *= scale),
        SoftmaxFn::LogSoftmax => y.iter_mut().zip(&x[offset..]).for_each(|(y, x)| *y = x - max[0] - shift),
    });
}
