//! The 16-bit floats against the `half` crate for every bit pattern, the others against the language's rules.

use half::{bf16, f16};

use super::*;
use crate::guard::Guarded;
use crate::testing::{Random, everywhere};

/// Converts on every instruction set and compares bit for bit.
fn check<From, To>(x: &[From], expected: &[To])
where
    From: CastTo<To>,
    To: Copy + Default + Send + PartialEq + std::fmt::Debug,
{
    everywhere(|isa, pool, edge| {
        for len in [x.len(), x.len().min(1), x.len().min(37), 0] {
            let x = Guarded::new(&x[..len], edge);
            let mut y = Guarded::new(&vec![To::default(); len], edge);
            cast(isa, &x, &mut y, pool);
            assert_eq!(*y, expected[..len], "{isa}");
        }
    });
}

/// Values at, just below and just above every 16-bit float and every midpoint between two of them.
fn around(widen: impl Fn(u16) -> f32) -> Vec<f32> {
    let whole: Vec<f32> = (0..=u16::MAX).map(widen).filter(|x| !x.is_nan()).collect();
    let middle = |x: f32| f32::from_bits(x.to_bits() | 0x1000);
    let near = |x: f32| [x, f32::from_bits(x.to_bits().wrapping_add(1)), f32::from_bits(x.to_bits().wrapping_sub(1))];
    let mut x: Vec<f32> = whole.iter().flat_map(|&x| [x, middle(x)]).flat_map(near).collect();
    x.extend((0..100_000u32).map(|i| f32::from_bits(i.wrapping_mul(42_949))));
    x.retain(|x| !x.is_nan());
    x
}

#[test]
fn every_f16_and_bf16_widens_exactly() {
    let bits: Vec<u16> = (0..=u16::MAX).filter(|&b| !f16::from_bits(b).is_nan()).collect();
    let x: Vec<f16> = bits.iter().map(|&b| f16::from_bits(b)).collect();
    check(&x, &x.iter().map(|x| x.to_f32()).collect::<Vec<f32>>());
    let bits: Vec<u16> = (0..=u16::MAX).filter(|&b| !bf16::from_bits(b).is_nan()).collect();
    let x: Vec<bf16> = bits.iter().map(|&b| bf16::from_bits(b)).collect();
    check(&x, &x.iter().map(|x| x.to_f32()).collect::<Vec<f32>>());
}

#[test]
fn f32_narrows_to_the_nearest() {
    let x = around(|b| f16::from_bits(b).to_f32());
    let to_bits = |x: &[f32]| x.iter().map(|&x| f16::from_f32(x)).collect::<Vec<_>>();
    check(&x, &to_bits(&x));
    let x = around(|b| bf16::from_bits(b).to_f32());
    check(&x, &x.iter().map(|&x| bf16::from_f32(x)).collect::<Vec<_>>());
}

#[test]
fn nan_stays_nan() {
    let nans: Vec<f32> = [0x7f80_0001u32, 0x7fc0_0000, 0xff80_0001, 0xffff_ffff].map(f32::from_bits).to_vec();
    everywhere(|isa, pool, _| {
        let (mut half, mut brain, mut wide) = ([f16::ZERO; 4], [bf16::ZERO; 4], [0.0f32; 4]);
        cast(isa, &nans, &mut half, pool);
        cast(isa, &nans, &mut brain, pool);
        assert!(half.iter().all(|x| x.is_nan()) && brain.iter().all(|x| x.is_nan()));
        cast(isa, &half, &mut wide, pool);
        assert!(wide.iter().all(|x| x.is_nan()));
        cast(isa, &brain, &mut wide, pool);
        assert!(wide.iter().all(|x| x.is_nan()));
    });
}

#[test]
fn numbers_become_integers_and_back() {
    let x = [0.0f32, -0.0, 1.5, -1.5, 2.9, 300.0, -7.0, 3e9, -3e9, 1e20, -1e20, f32::INFINITY, f32::NAN];
    let (max, min) = (i32::MAX, i32::MIN);
    check(&x, &[0i32, 0, 1, -1, 2, 300, -7, max, min, max, min, max, 0]);
    let (max, min) = (i64::MAX, i64::MIN);
    check(&x, &[0i64, 0, 1, -1, 2, 300, -7, 3_000_000_000, -3_000_000_000, max, min, max, 0]);
    check(&x, &[0u8, 0, 1, 0, 2, 255, 0, 255, 0, 255, 0, 255, 0]);
    check(&[0i64, 16_777_217, -5, 1 << 40], &[0.0f32, 16_777_216.0, -5.0, 1_099_511_627_776.0]);
    check(&[0i32, 16_777_219, -5], &[0.0f32, 16_777_220.0, -5.0]);
    check(&[0u8, 1, 255], &[0.0f32, 1.0, 255.0]);
    check(&[(1i64 << 32) + 5, -1], &[5i32, -1]);
    check(&[5i32, -1], &[5i64, -1]);
}

#[test]
fn long_inputs_are_shared_among_threads() {
    let x = Random::new(17).numbers(100_001, 1000.0);
    check(&x, &x.iter().map(|&x| x as i32).collect::<Vec<_>>());
}

#[test]
fn everything_but_zero_is_true() {
    let mut y = [7; 5];
    nonzero(&[0.0f32, -0.0, 1e-45, f32::NAN, -3.0], &mut y, &Pool::new(1));
    assert_eq!(y, [0, 0, 1, 1, 1]);
    nonzero(&[0i64, 1 << 40, -1, 0, 5], &mut y, &Pool::new(1));
    assert_eq!(y, [0, 1, 1, 0, 1]);
}
