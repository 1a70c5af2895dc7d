//! The vector versions against the scalar definitions, over the whole range and at its ends.

use super::{Activation, scalar, vector};
use crate::isa::Isa;
use crate::simd::{Simd, Vectorized, dispatch};

const ACTIVATIONS: [Activation; 12] = [
    Activation::None,
    Activation::Relu,
    Activation::Clip { min: -1.5, max: 6.0 },
    Activation::Clip { min: f32::NEG_INFINITY, max: f32::INFINITY },
    Activation::LeakyRelu(0.2),
    Activation::HardSwish,
    Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
    Activation::Sigmoid,
    Activation::Tanh,
    Activation::Silu,
    Activation::Gelu,
    Activation::GeluTanh,
];

/// A function of one register.
#[derive(Clone, Copy)]
enum RegisterFn {
    Apply(Activation),
    Exp,
    Erf,
}

struct Sixteen<'a>(RegisterFn, &'a mut [f32; 16]);

impl Vectorized for Sixteen<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for chunk in self.1.chunks_exact_mut(S::LANES) {
            let x = simd.load(chunk);
            let y = match self.0 {
                RegisterFn::Apply(act) => vector::apply(act, x),
                RegisterFn::Exp => vector::exp(x),
                RegisterFn::Erf => vector::erf(x),
            };
            simd.store(y, chunk);
        }
    }
}

/// Values dense around zero and up to where every function saturates, and the special values.
fn inputs() -> Vec<f32> {
    let mut x: Vec<f32> = (-30_000..30_000).map(|i| i as f32 * 0.004).collect();
    x.extend((0..4000).map(|i| (i as f32 * 0.01 - 30.0).exp2()));
    x.extend([0.0, -0.0, f32::NAN, f32::INFINITY, f32::NEG_INFINITY, f32::MAX, f32::MIN, 88.8, -104.5]);
    x.resize(x.len().next_multiple_of(16), 1.0);
    x
}

/// Checks that `got` is near `want`, relative to `want` but with an absolute floor; checks NaN and infinity too.
fn check(isa: Isa, function: RegisterFn, want: impl Fn(f32) -> f32, tolerance: f32, floor: f32) {
    for chunk in inputs().chunks_exact(16) {
        let mut y: [f32; 16] = chunk.try_into().unwrap();
        dispatch(isa, Sixteen(function, &mut y));
        for (&x, got) in chunk.iter().zip(y) {
            let want = want(x);
            let close =
                got == want || (got.is_nan() && want.is_nan()) || (got - want).abs() <= tolerance * want.abs() + floor;
            assert!(close, "{isa}: f({x:e}) = {got:e}, expected {want:e}");
        }
    }
}

#[test]
fn vectors_agree_with_the_definition() {
    for isa in Isa::available().filter(|&isa| isa != Isa::Scalar) {
        // Subnormal results are zero on 32-bit ARM.
        let least = if isa == Isa::Neon32 { f32::MIN_POSITIVE } else { 1e-44 };
        check(isa, RegisterFn::Exp, f32::exp, 3e-7, least);
        check(isa, RegisterFn::Erf, scalar::erf, 3e-7, 0.0);
        for act in ACTIVATIONS {
            // GELU's factor 1 + erf cancels for negative x, and so do the hard gates near their zero: there the error
            // is relative to x instead of the result.
            let floor = match act {
                Activation::Gelu | Activation::GeluTanh => 2e-6,
                Activation::HardSwish | Activation::HardSigmoid { .. } => 1e-6,
                // A subnormal gate is taken for zero on 32-bit ARM.
                _ if isa == Isa::Neon32 => 128.0 * f32::MIN_POSITIVE,
                _ => 1e-37,
            };
            check(isa, RegisterFn::Apply(act), |x| scalar::apply(act, x), 5e-7, floor);
        }
    }
}

#[test]
fn erf_has_its_known_values() {
    // Abramowitz and Stegun, table 7.1.
    for (x, y) in [(0.0, 0.0), (0.5, 0.520_499_9), (1.0, 0.842_700_8), (2.0, 0.995_322_3), (3.0, 0.999_977_9)] {
        assert!((scalar::erf(x) - y).abs() < 1e-7 && (scalar::erf(-x) + y).abs() < 1e-7);
    }
}
