//! Tests of the operations that this module adds to the registers, lane by lane.

use super::*;
use crate::guard::{Edge, Guarded};
use crate::testing::SPECIALS;

/// Compares a vector operation with its definition for every pair of special values.
struct Pairs(Edge);

impl Vectorized for Pairs {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        for (a, b) in SPECIALS.iter().flat_map(|&a| SPECIALS.map(|b| (a, b))) {
            let (va, vb) = (simd.splat(a), simd.splat(b));
            let all = |v: S::F32, expected: f32, what: &str| {
                let mut y = Guarded::new(&vec![0.5; S::LANES], self.0);
                simd.store(v, &mut y);
                let same = |y: f32| y == expected || y.is_nan() && expected.is_nan();
                assert!(y.iter().all(|&y| same(y)), "{what} of {a} and {b}: {:?}", &*y);
            };
            let mask = |m: S::Mask, expected: bool, what: &str| {
                for len in 0..=S::LANES {
                    let mut y = Guarded::new(&vec![9u8; len], self.0);
                    simd.store_mask(m, &mut y);
                    assert!(y.iter().all(|&y| y == u8::from(expected)), "{what} of {a} and {b}");
                }
                all(simd.select(m, va, vb), if expected { a } else { b }, what);
            };
            let nan = a.is_nan() || b.is_nan();
            all(simd.min(va, vb), if nan { f32::NAN } else { a.min(b) }, "min");
            all(simd.max(va, vb), if nan { f32::NAN } else { a.max(b) }, "max");
            all(simd.sqrt(va), a.sqrt(), "sqrt");
            all(simd.floor(va), a.floor(), "floor");
            all(simd.ceil(va), a.ceil(), "ceil");
            mask(simd.equal(va, vb), a == b, "equal");
            mask(simd.less(va, vb), a < b, "less");
            mask(simd.less_equal(va, vb), a <= b, "less_equal");
        }
    }
}

/// Reads and writes every possible number of lanes at the edge of accessible memory.
struct PartialLanes(Edge);

impl Vectorized for PartialLanes {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        let numbers: Vec<f32> = (1..=S::LANES).map(|i| i as f32).collect();
        for len in 0..S::LANES {
            let x = Guarded::new(&numbers[..len], self.0);
            let mut y = Guarded::new(&vec![0.0; len], self.0);
            simd.store_partial(simd.load_partial(&x), &mut y);
            assert_eq!(*y, *x);
            let sum: f32 = x.iter().sum();
            assert_eq!(simd.sum_lanes(simd.load_partial(&x)), sum);
            assert_eq!(simd.sum_lanes(simd.load_or(&x, 1.0)), sum + (S::LANES - len) as f32);
        }
        let whole = simd.load(&numbers);
        assert_eq!(simd.fold_lanes(whole, f32::max), S::LANES as f32);
        assert_eq!(simd.sum_lanes(simd.each_lane(whole, |x| 2.0 * x)), 2.0 * numbers.iter().sum::<f32>());
    }
}

#[test]
fn operations_hold_for_special_numbers() {
    for isa in Isa::available().filter(|&isa| isa != Isa::Scalar) {
        Edge::BOTH.into_iter().for_each(|edge| dispatch(isa, Pairs(edge)));
    }
}

#[test]
fn parts_of_vectors_stay_inside_their_slices() {
    for isa in Isa::available().filter(|&isa| isa != Isa::Scalar) {
        Edge::BOTH.into_iter().for_each(|edge| dispatch(isa, PartialLanes(edge)));
    }
}

/// What makes results on 32-bit ARM differ: its vectors have no subnormal numbers, while they are loaded and stored as
/// they are, and divided as elsewhere.
#[cfg(target_arch = "arm")]
#[test]
fn subnormal_numbers_are_flushed_to_zero() {
    struct Sums;

    impl Vectorized for Sums {
        type Output = [f32; 4];

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> [f32; 4] {
            let small = simd.splat(1e-40);
            [small, small.add(simd.splat(0.0)), simd.splat(1e-20).mul(simd.splat(1e-20)), small.div(simd.splat(1.0))]
                .map(
                    #[inline(always)]
                    |x| {
                        let mut y = [0.5; 16];
                        simd.store(x, &mut y);
                        y[0]
                    },
                )
        }
    }

    if Isa::Neon32.is_available() {
        assert_eq!(dispatch(Isa::Neon32, Sums), [1e-40, 0.0, 0.0, 1e-40]);
    }
}
