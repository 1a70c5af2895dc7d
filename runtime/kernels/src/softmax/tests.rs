//! Both functions on every instruction set, against the formula in f64.

use super::*;
use crate::guard::Guarded;
use crate::testing::{Random, assert_close, everywhere, unwritten};

fn expected(f: SoftmaxFn, view: MiddleAxis, x: &[f32]) -> Vec<f32> {
    let mut y = vec![0.0; x.len()];
    for o in 0..view.outer {
        for i in 0..view.inner {
            let at = |a: usize| (o * view.axis + a) * view.inner + i;
            let column: Vec<f64> = (0..view.axis).map(|a| f64::from(x[at(a)])).collect();
            let max = column.iter().copied().fold(f64::NEG_INFINITY, f64::max);
            let sum: f64 = column.iter().map(|x| (x - max).exp()).sum();
            for (a, x) in column.iter().enumerate() {
                y[at(a)] = match f {
                    SoftmaxFn::Softmax => (x - max).exp() / sum,
                    SoftmaxFn::LogSoftmax => x - max - sum.ln(),
                } as f32;
            }
        }
    }
    y
}

#[test]
fn softmax_and_log_softmax_match_the_formula() {
    let mut random = Random::new(9);
    everywhere(|isa, pool, edge| {
        let mut views = vec![
            MiddleAxis { outer: 1, axis: 1000, inner: 1 },
            MiddleAxis { outer: 50, axis: 197, inner: 1 },
            MiddleAxis { outer: 2, axis: 21, inner: 100 },
            MiddleAxis { outer: 3, axis: 49, inner: 4 },
            MiddleAxis { outer: 2, axis: 7, inner: 3 },
            MiddleAxis { outer: 2, axis: 0, inner: 3 },
        ];
        for _ in 0..20 {
            views.push(MiddleAxis { outer: random.below(4), axis: random.length(), inner: 1 });
            views.push(MiddleAxis { outer: random.below(4), axis: random.length(), inner: random.length() });
        }
        for view in views {
            let x = Guarded::new(&random.numbers(view.len(), 30.0), edge);
            for f in [SoftmaxFn::Softmax, SoftmaxFn::LogSoftmax] {
                let mut y = unwritten(x.len(), edge);
                softmax(isa, f, view, &x, &mut y, pool);
                assert_close(&y, &expected(f, view, &x), 1e-6, &format!("{f:?} {view:?} {isa}"));
            }
        }
    });
}

#[test]
fn special_numbers_follow_the_formula() {
    let (inf, nan) = (f32::INFINITY, f32::NAN);
    let rows = [
        [1.0, -inf, 2.0, -inf, 0.0, 3.0, 1.0, -1.0, 4.0],
        [1.0, nan, 2.0, 0.0, 0.0, 3.0, 1.0, -1.0, 4.0],
        [-inf; 9],
        [1.0, inf, 2.0, 0.0, 0.0, 3.0, 1.0, -1.0, 4.0],
        [3e38, -3e38, 0.0, 1.0, 1.0, 1.0, 1.0, 1.0, 3e38],
    ];
    let all_nan = [nan; 9];
    everywhere(|isa, pool, _| {
        for (i, x) in rows.iter().enumerate() {
            for (axis, inner, len) in [(9, 1, 9), (9, 5, 45)] {
                let view = MiddleAxis { outer: 1, axis, inner };
                let spread: Vec<f32> = (0..len).map(|at| x[at / inner]).collect();
                let mut y = vec![0.0; len];
                softmax(isa, SoftmaxFn::Softmax, view, &spread, &mut y, pool);
                let column: Vec<f32> = y.iter().step_by(inner).copied().collect();
                match i {
                    0 | 4 => assert_close(
                        &column,
                        &expected(SoftmaxFn::Softmax, view, &spread).iter().step_by(inner).copied().collect::<Vec<_>>(),
                        1e-6,
                        "row",
                    ),
                    // Infinity minus infinity is NaN; the other results may be zero or NaN.
                    3 => assert!(column[1].is_nan()),
                    _ => assert_close(&column, &all_nan, 0.0, "row"),
                }
            }
        }
    });
}

#[test]
fn long_rows_match_the_formula() {
    let (mut random, pool) = (Random::new(12), Pool::new(2));
    let view = MiddleAxis { outer: 2, axis: PIECE / EXP_WORK + 3, inner: 1 };
    let x = random.numbers(view.len(), 3.0);
    // In units of a uniform distribution.
    let scaled = |y: &[f32]| y.iter().map(|y| y * view.axis as f32).collect::<Vec<_>>();
    for f in [SoftmaxFn::Softmax, SoftmaxFn::LogSoftmax] {
        let want = expected(f, view, &x);
        for isa in Isa::available() {
            let mut y = vec![0.0; x.len()];
            softmax(isa, f, view, &x, &mut y, &pool);
            match f {
                SoftmaxFn::Softmax => assert_close(&scaled(&y), &scaled(&want), 1e-5, &format!("{f:?} {isa}")),
                SoftmaxFn::LogSoftmax => assert_close(&y, &want, 1e-6, &format!("{f:?} {isa}")),
            }
        }
    }
}
