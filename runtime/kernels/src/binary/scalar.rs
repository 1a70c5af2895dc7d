//! The functions in plain Rust.

use super::broadcast::BroadcastRuns;
use super::{BinaryFn, CompareFn};

pub(super) fn binary(f: BinaryFn, rows: BroadcastRuns, a: &[f32], b: &[f32], y: &mut [f32]) {
    for_each(rows, a, b, y, |a, b| eval(f, a, b));
}

pub(super) fn compare(f: CompareFn, rows: BroadcastRuns, a: &[f32], b: &[f32], y: &mut [u8]) {
    for_each(rows, a, b, y, |a, b| u8::from(holds(f, a, b)));
}

fn for_each<T>(rows: BroadcastRuns, a: &[f32], b: &[f32], y: &mut [T], f: impl Fn(f32, f32) -> T) {
    let mut start = 0;
    for row in rows {
        for (i, y) in y[start..][..row.len].iter_mut().enumerate() {
            *y = f(a[row.a + i * row.a_stride], b[row.b + i * row.b_stride]);
        }
        start += row.len;
    }
}

pub(super) fn eval(f: BinaryFn, a: f32, b: f32) -> f32 {
    match f {
        BinaryFn::Add => a + b,
        BinaryFn::Sub => a - b,
        BinaryFn::Mul => a * b,
        BinaryFn::Div => a / b,
        BinaryFn::Min if a.is_nan() || a < b => a,
        BinaryFn::Min => b,
        BinaryFn::Max if a.is_nan() || a > b => a,
        BinaryFn::Max => b,
        BinaryFn::Pow => a.powf(b),
        BinaryFn::PRelu if a < 0.0 => b * a,
        BinaryFn::PRelu => a,
        BinaryFn::SqDiff => (a - b) * (a - b),
    }
}

pub(super) fn holds(f: CompareFn, a: f32, b: f32) -> bool {
    match f {
        CompareFn::Equal => a == b,
        CompareFn::Less => a < b,
        CompareFn::LessEqual => a <= b,
        CompareFn::Greater => a > b,
        CompareFn::GreaterEqual => a >= b,
    }
}
