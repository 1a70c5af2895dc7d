//! The functions in plain Rust, straight from the formula.

use super::SoftmaxFn;
use crate::pace::Pace;

/// Computes one `[axis, inner]` plane, column by column.
pub(super) fn plane(f: SoftmaxFn, axis: usize, inner: usize, x: &[f32], y: &mut [f32], pace: &Pace<'_>) {
    for i in 0..inner {
        let at = |a: usize| a * inner + i;
        let all = || (0..axis).take_while(|_| !pace.stops(8));
        let max = all().map(|a| x[at(a)]).fold(f32::NEG_INFINITY, f32::max);
        let sum: f64 = all().map(|a| f64::from(x[at(a)] - max).exp()).sum();
        for a in all() {
            let x = f64::from(x[at(a)] - max);
            y[at(a)] = match f {
                SoftmaxFn::Softmax => x.exp() / sum,
                SoftmaxFn::LogSoftmax => x - sum.ln(),
            } as f32;
        }
    }
}
