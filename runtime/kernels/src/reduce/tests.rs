//! Every reduction on every instruction set, against the formula in f64.

use super::*;
use crate::guard::Guarded;
use crate::testing::{Random, assert_close, everywhere, unwritten};

fn formula(f: ReduceFn, x: &[f64]) -> f64 {
    let sum = |map: fn(f64) -> f64| x.iter().map(|&x| map(x)).fold(0.0, |a, b| a + b);
    let extreme = |start: f64, pick: fn(f64, f64) -> f64| match x.iter().any(|x| x.is_nan()) {
        true => f64::NAN,
        false => x.iter().copied().fold(start, pick),
    };
    match f {
        ReduceFn::Sum => sum(|x| x),
        ReduceFn::Mean => sum(|x| x) / x.len() as f64,
        ReduceFn::Max => extreme(f64::NEG_INFINITY, f64::max),
        ReduceFn::Min => extreme(f64::INFINITY, f64::min),
        ReduceFn::Prod => x.iter().product(),
        ReduceFn::SumSquare => sum(|x| x * x),
        ReduceFn::L1 => sum(f64::abs),
        ReduceFn::L2 => sum(|x| x * x).sqrt(),
    }
}

fn expected(f: ReduceFn, view: MiddleAxis, x: &[f32]) -> Vec<f32> {
    let MiddleAxis { outer, axis, inner } = view;
    let column =
        |o: usize, i: usize| -> Vec<f64> { (0..axis).map(|a| f64::from(x[(o * axis + a) * inner + i])).collect() };
    (0..outer).flat_map(|o| (0..inner).map(move |i| (o, i))).map(|(o, i)| formula(f, &column(o, i)) as f32).collect()
}

#[test]
fn reductions_match_their_formulas() {
    let mut random = Random::new(7);
    everywhere(|isa, pool, edge| {
        let mut views = vec![
            MiddleAxis { outer: 1, axis: 0, inner: 5 },
            MiddleAxis { outer: 3, axis: 0, inner: 1 },
            MiddleAxis { outer: 0, axis: 3, inner: 2 },
            MiddleAxis { outer: 1, axis: 4097, inner: 1 },
            MiddleAxis { outer: 2, axis: 300, inner: 72 },
            MiddleAxis { outer: 70, axis: 9, inner: 111 },
        ];
        for _ in 0..12 {
            views.push(MiddleAxis { outer: random.below(4), axis: random.length(), inner: random.length() });
            views.push(MiddleAxis { outer: random.below(4), axis: random.length(), inner: 1 });
        }
        for view in views {
            // Near 1, so that a product neither vanishes nor overflows.
            let x: Vec<f32> = random.numbers(view.len(), 0.01).iter().map(|x| x + 1.0).collect();
            let x = Guarded::new(&x, edge);
            for f in ReduceFn::ALL {
                let mut y = unwritten(view.outer * view.inner, edge);
                reduce(isa, f, view, &x, &mut y, pool);
                let tolerance = if f == ReduceFn::Prod { 2e-5 } else { 2e-6 };
                assert_close(&y, &expected(f, view, &x), tolerance, &format!("{f:?} {view:?} {isa}"));
            }
        }
    });
}

#[test]
fn special_numbers_are_kept() {
    let mut random = Random::new(8);
    everywhere(|isa, pool, edge| {
        for view in [MiddleAxis { outer: 9, axis: 37, inner: 1 }, MiddleAxis { outer: 3, axis: 5, inner: 43 }] {
            let x = Guarded::new(&random.numbers_with_specials(view.len(), 2.0), edge);
            for f in [ReduceFn::Max, ReduceFn::Min] {
                let mut y = unwritten(view.outer * view.inner, edge);
                reduce(isa, f, view, &x, &mut y, pool);
                assert_close(&y, &expected(f, view, &x), 0.0, &format!("{f:?} {view:?} {isa}"));
            }
        }
    });
}

#[test]
fn long_sums_keep_their_digits() {
    // A plain running sum of a million values of 0.1 is off by one part in a thousand.
    let pool = Pool::new(1);
    for isa in Isa::available() {
        for view in [MiddleAxis { outer: 1, axis: 1 << 20, inner: 1 }, MiddleAxis { outer: 1, axis: 1 << 17, inner: 8 }]
        {
            let x = vec![0.1; view.len()];
            let mut y = vec![0.0; view.inner];
            reduce(isa, ReduceFn::Mean, view, &x, &mut y, &pool);
            assert_close(&y, &vec![0.1; view.inner], 1e-6, "mean of a constant");
        }
    }
}

#[test]
fn a_long_axis_is_reduced_like_a_short_one() {
    let (mut random, pool) = (Random::new(9), Pool::new(2));
    // Rows and columns of several parts, the last of which is short.
    let views = [
        MiddleAxis { outer: 1, axis: PIECE + 9, inner: 1 },
        MiddleAxis { outer: 2, axis: 5001, inner: 70 },
        MiddleAxis { outer: 1, axis: PIECE / 3 + 2, inner: 3 },
    ];
    for view in views {
        let mut x: Vec<f32> = random.numbers(view.len(), 0.001).iter().map(|x| x + 1.0).collect();
        for f in ReduceFn::ALL {
            let want = expected(f, view, &x);
            for isa in Isa::available() {
                let mut y = vec![0.0; view.outer * view.inner];
                reduce(isa, f, view, &x, &mut y, &pool);
                let tolerance = if f == ReduceFn::Prod { 1e-4 } else { 2e-6 };
                assert_close(&y, &want, tolerance, &format!("{f:?} {view:?} {isa}"));
            }
        }
        // In the last part.
        *x.last_mut().unwrap() = f32::NAN;
        for (f, isa) in Isa::available().flat_map(|isa| [(ReduceFn::Max, isa), (ReduceFn::Min, isa)]) {
            let mut y = vec![0.0; view.outer * view.inner];
            reduce(isa, f, view, &x, &mut y, &pool);
            assert!(y.last().unwrap().is_nan(), "{f:?} {view:?} {isa}");
        }
    }
}
