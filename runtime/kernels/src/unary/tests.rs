//! Every function on every instruction set, against the formula in f64.

use super::*;
use crate::guard::Guarded;
use crate::testing::{Random, SPECIALS, assert_close, everywhere, unwritten};

fn formula(f: UnaryFn, x: f64) -> f64 {
    match f {
        UnaryFn::Neg => -x,
        UnaryFn::Abs => x.abs(),
        UnaryFn::Sqrt => x.sqrt(),
        UnaryFn::Exp => x.exp(),
        UnaryFn::Log => x.ln(),
        UnaryFn::Reciprocal => 1.0 / x,
        UnaryFn::Square => x * x,
        UnaryFn::Rsqrt => 1.0 / x.sqrt(),
        // There is no independent error function here: it is checked against a table below.
        UnaryFn::Erf => f64::from(crate::activation::scalar::erf(x as f32)),
        UnaryFn::Floor => x.floor(),
        UnaryFn::Ceil => x.ceil(),
        UnaryFn::Round => x.round_ties_even(),
        UnaryFn::Sign if x == 0.0 || x.is_nan() => x,
        UnaryFn::Sign => x.signum(),
    }
}

#[test]
fn functions_match_their_formulas() {
    let mut random = Random::new(1);
    everywhere(|isa, pool, edge| {
        for f in UnaryFn::ALL {
            for len in [0, 1, 3, 4, 7, 8, 15, 16, 17, 33, 100] {
                let mut x = random.numbers_with_specials(len, 10.0);
                x.iter_mut().zip(SPECIALS).take(if len == 100 { 14 } else { 0 }).for_each(|(x, s)| *x = s);
                let x = Guarded::new(&x, edge);
                let mut y = unwritten(len, edge);
                unary(isa, f, &x, &mut y, pool);
                let expected: Vec<f32> = x.iter().map(|&x| formula(f, f64::from(x)) as f32).collect();
                assert_close(&y, &expected, 4e-7, &format!("{f:?} {isa}"));
                let mut y = Guarded::new(&x, edge);
                unary_in_place(isa, f, &mut y, pool);
                assert_close(&y, &expected, 4e-7, &format!("{f:?} {isa} in place"));
            }
        }
    });
}

#[test]
fn error_function_matches_tabulated_values() {
    // Abramowitz and Stegun, table 7.1.
    let x = [0.0, 0.1, 0.5, 1.0, 1.5, 2.0, -0.5, -2.0];
    let expected = [0.0, 0.112_462_92, 0.520_499_9, 0.842_700_8, 0.966_105_1, 0.995_322_3, -0.520_499_9, -0.995_322_3];
    everywhere(|isa, pool, _| {
        let mut y = [0.0; 8];
        unary(isa, UnaryFn::Erf, &x, &mut y, pool);
        assert_close(&y, &expected, 2e-7, "erf");
    });
}

#[test]
fn activations_agree_with_their_definition_on_long_inputs() {
    let x = Random::new(2).numbers_with_specials(100_003, 8.0);
    let acts = [
        Activation::None,
        Activation::Relu,
        Activation::Clip { min: -1.0, max: 6.0 },
        Activation::LeakyRelu(0.2),
        Activation::HardSwish,
        Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
        Activation::Sigmoid,
        Activation::Tanh,
        Activation::Gelu,
        Activation::GeluTanh,
    ];
    everywhere(|isa, pool, edge| {
        let x = Guarded::new(&x, edge);
        let mut y = unwritten(x.len(), edge);
        for act in acts {
            let expected: Vec<f32> = x.iter().map(|&x| crate::activation::scalar::apply(act, x)).collect();
            activation(isa, act, &x, &mut y, pool);
            assert_close(&y, &expected, 1e-6, &format!("{act:?} {isa}"));
            y.copy_from_slice(&x);
            activation_in_place(isa, act, &mut y, pool);
            assert_close(&y, &expected, 1e-6, &format!("{act:?} {isa} in place"));
        }
    });
}
