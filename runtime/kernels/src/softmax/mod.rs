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
use crate::parallel;
use crate::simd::dispatch;
use crate::threads::Pool;

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
    parallel::split(pool, y, plane, x.len().saturating_mul(EXP_WORK), |offset, y| {
        let planes = x[offset..].chunks_exact(plane).zip(y.chunks_exact_mut(plane));
        for (x, y) in planes {
            match isa {
                Isa::Scalar => scalar::plane(f, axis, inner, x, y),
                _ if inner == 1 => dispatch(isa, vector::SoftmaxRow { f, x, y }),
                _ => dispatch(isa, vector::SoftmaxColumns { f, inner, x, y }),
            }
        }
    });
}
