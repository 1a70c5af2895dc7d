//! The reductions in plain Rust, summed in f64.

use super::ReduceFn;
use crate::middle_axis::MiddleAxis;

/// Computes the results `offset..offset + y.len()`.
pub(super) fn reduce(f: ReduceFn, view: MiddleAxis, x: &[f32], offset: usize, y: &mut [f32]) {
    for (at, y) in (offset..).zip(y) {
        let (o, i) = (at / view.inner, at % view.inner);
        let values = (0..view.axis).map(|a| x[(o * view.axis + a) * view.inner + i]);
        *y = of(f, view.axis, values);
    }
}

fn of(f: ReduceFn, len: usize, x: impl Iterator<Item = f32>) -> f32 {
    let neutral = f.neutral();
    match f {
        ReduceFn::Sum => sum(x) as f32,
        ReduceFn::Mean => (sum(x) / len as f64) as f32,
        ReduceFn::Max => x.fold(neutral, |m, x| if x.is_nan() || x > m { x } else { m }),
        ReduceFn::Min => x.fold(neutral, |m, x| if x.is_nan() || x < m { x } else { m }),
        ReduceFn::Prod => x.map(f64::from).product::<f64>() as f32,
        ReduceFn::SumSquare => squares(x) as f32,
        ReduceFn::L1 => sum(x.map(f32::abs)) as f32,
        ReduceFn::L2 => squares(x).sqrt() as f32,
    }
}

fn sum(x: impl Iterator<Item = f32>) -> f64 {
    // `Iterator::sum` of floats starts at -0.0, which would be the sum of an empty axis.
    x.fold(0.0, |sum, x| sum + f64::from(x))
}

fn squares(x: impl Iterator<Item = f32>) -> f64 {
    x.fold(0.0, |sum, x| sum + f64::from(x) * f64::from(x))
}
