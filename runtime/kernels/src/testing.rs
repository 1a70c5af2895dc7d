//! Helpers for the tests of the memory-bound families: random values, special values and comparison.

use crate::guard::{Edge, Guarded};
use crate::isa::Isa;
use crate::threads::Pool;

/// A small generator (xorshift) with a fixed seed, so that failures are reproducible.
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// One of `0..n`.
    pub(crate) fn below(&mut self, n: usize) -> usize {
        (self.next() >> 16) as usize % n
    }

    /// A length for a test: often 1, or near a multiple of a vector length.
    pub(crate) fn length(&mut self) -> usize {
        const LENGTHS: [usize; 16] = [1, 1, 2, 3, 4, 5, 7, 8, 9, 15, 16, 17, 31, 33, 40, 65];
        LENGTHS[self.below(LENGTHS.len())]
    }

    /// A value between -1 and 1.
    pub(crate) fn number(&mut self) -> f32 {
        (self.next() >> 40) as f32 / (1u64 << 23) as f32 - 1.0
    }

    /// `len` values between `-scale` and `scale`.
    pub(crate) fn numbers(&mut self, len: usize, scale: f32) -> Vec<f32> {
        (0..len).map(|_| self.number() * scale).collect()
    }

    /// Like `numbers`, but about one value in eight is special.
    pub(crate) fn numbers_with_specials(&mut self, len: usize, scale: f32) -> Vec<f32> {
        let special = |random: &mut Self| SPECIALS[random.below(SPECIALS.len())];
        (0..len).map(|_| if self.below(8) == 0 { special(self) } else { self.number() * scale }).collect()
    }
}

/// The vectors of 32-bit ARM flush subnormals, which `simd` tests; there the smallest other numbers stand for them.
const SUBNORMALS: [f32; 2] =
    if cfg!(target_arch = "arm") { [f32::MIN_POSITIVE, -f32::MIN_POSITIVE] } else { [1e-45, -1e-40] };

/// Zeros, subnormals, limits, infinities and NaN.
pub(crate) const SPECIALS: [f32; 14] = [
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -2.5,
    SUBNORMALS[0],
    SUBNORMALS[1],
    f32::MIN_POSITIVE,
    f32::MAX,
    f32::MIN,
    f32::INFINITY,
    f32::NEG_INFINITY,
    f32::NAN,
];

/// Calls `f` for every instruction set of this CPU, on one thread and on three, with buffers at both edges.
pub(crate) fn everywhere(mut f: impl FnMut(Isa, &Pool, Edge)) {
    for threads in [1, 3] {
        let pool = Pool::new(threads);
        for isa in Isa::available() {
            for edge in Edge::BOTH {
                f(isa, &pool, edge);
            }
        }
    }
}

/// An output buffer in which unwritten elements are recognizable.
pub(crate) fn unwritten(len: usize, edge: Edge) -> Guarded<f32> {
    Guarded::new(&vec![-12345.678; len], edge)
}

/// Panics unless every element is within `tolerance` of the expected one, relative to the larger of its magnitude and
/// 1. NaN and infinity match only themselves.
pub(crate) fn assert_close(actual: &[f32], expected: &[f32], tolerance: f32, what: &str) {
    assert_eq!(actual.len(), expected.len(), "{what}: length");
    for (i, (&a, &e)) in actual.iter().zip(expected).enumerate() {
        let close = (a - e).abs() <= tolerance * e.abs().max(1.0);
        assert!(a == e || close || (a.is_nan() && e.is_nan()), "{what}: {a} instead of {e} at {i}");
    }
}
