//! The functions in plain Rust, straight from the formula.

use super::SoftmaxFn;
use crate::pace::Pace;

/// Computes one `[axis, inner]` plane, column by column.
pub(super) fn plane(f: SoftmaxFn, axis: usize, inner: usize, x: &[f32], y: &mut [f32], pace: &Pace<'_>) {
    for i in 0..inner {
        if pace.stops(32 * axis) {
            return;
        }
        let at = |a: usize| a * inner + i;
        let max = (0..axis).map(|a| x[at(a)]).fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = (0..axis).map(|a| f64::from(x[at(a)] - max).exp()).sum();
        for a in 0..axis {
            let x = f64::from(x[at(a)] - max);
            y[at(a)] = match f {
                SoftmaxFn::Softmax => x.exp() / sum,
                SoftmaxFn::LogSoftmax => x - sum.ln(),
            } as f32;
        }
    }
}
