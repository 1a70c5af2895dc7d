//! Every function on every instruction set, against a loop over NumPy's indices.

use super::*;
use crate::guard::Guarded;
use crate::testing::{Random, assert_close, everywhere, unwritten};

fn formula(f: BinaryFn, a: f64, b: f64) -> f64 {
    let nan = a.is_nan() || b.is_nan();
    match f {
        BinaryFn::Add => a + b,
        BinaryFn::Sub => a - b,
        BinaryFn::Mul => a * b,
        BinaryFn::Div => a / b,
        BinaryFn::Min | BinaryFn::Max if nan => f64::NAN,
        BinaryFn::Min => a.min(b),
        BinaryFn::Max => a.max(b),
        BinaryFn::Pow => a.powf(b),
        BinaryFn::PRelu => {
            if a < 0.0 {
                a * b
            } else {
                a
            }
        }
        BinaryFn::SqDiff => (a - b) * (a - b),
    }
}

/// The pairs of elements that the broadcast of two shapes combines by NumPy's rule.
fn pairs(a_shape: &[usize], a: &[f32], b_shape: &[usize], b: &[f32]) -> Vec<(f32, f32)> {
    let rank = a_shape.len().max(b_shape.len());
    let axis = |shape: &[usize], i: usize| (i + shape.len()).checked_sub(rank).map_or(1, |i| shape[i]);
    let shape: Vec<usize> = (0..rank).map(|i| axis(a_shape, i).max(axis(b_shape, i))).collect();
    let len = shape.iter().product();
    let value = |own: &[usize], x: &[f32], mut at: usize| {
        let (mut offset, mut stride) = (0, 1);
        for i in (0..rank).rev() {
            let n = axis(own, i);
            offset += (at % shape[i]).min(n - 1) * stride;
            stride *= n;
            at /= shape[i];
        }
        x[offset]
    };
    (0..len).map(|at| (value(a_shape, a, at), value(b_shape, b, at))).collect()
}

/// Shapes as in real networks, and random ones.
fn shapes(random: &mut Random) -> Vec<(Vec<usize>, Vec<usize>)> {
    let mut shapes = vec![
        (vec![], vec![]),
        (vec![37], vec![37]),
        (vec![3, 19], vec![]),
        (vec![], vec![3, 19]),
        (vec![2, 5, 5, 24], vec![24]),
        (vec![2, 5, 5, 24], vec![2, 1, 1, 24]),
        (vec![2, 1, 1, 9], vec![2, 3, 5, 9]),
        (vec![4, 33], vec![4, 1]),
        (vec![2, 7, 11], vec![7, 1]),
        (vec![5, 1], vec![1, 6]),
        (vec![0, 3], vec![3]),
        (vec![40_000], vec![40_000]),
        (vec![100, 4, 251], vec![4, 1]),
    ];
    for _ in 0..40 {
        let full: Vec<usize> = (0..random.below(5)).map(|_| 1 + random.below(9)).collect();
        let mut part = |drop: usize| -> Vec<usize> {
            full.iter().skip(drop).map(|&n| if random.below(3) == 0 { 1 } else { n }).collect()
        };
        let a = part(0);
        let b = part(a.len() / 2);
        shapes.push((a, b));
    }
    shapes
}

#[test]
fn functions_broadcast_like_numpy() {
    let mut random = Random::new(3);
    let shapes = shapes(&mut random);
    everywhere(|isa, pool, edge| {
        for (a_shape, b_shape) in &shapes {
            let a = random.numbers_with_specials(a_shape.iter().product(), 4.0);
            let b = random.numbers_with_specials(b_shape.iter().product(), 4.0);
            let (a, b) = (Guarded::new(&a, edge), Guarded::new(&b, edge));
            let pairs = match a_shape.contains(&0) {
                true => vec![],
                false => pairs(a_shape, &a, b_shape, &b),
            };
            let broadcast = Broadcast::of_shapes(a_shape, b_shape).unwrap();
            for f in BinaryFn::ALL {
                let mut y = unwritten(pairs.len(), edge);
                binary(isa, f, &broadcast, &a, &b, &mut y, Activation::None, pool);
                let expected: Vec<f32> = pairs.iter().map(|&(a, b)| formula(f, a.into(), b.into()) as f32).collect();
                let what = format!("{f:?} {a_shape:?} {b_shape:?} {isa}");
                // The tolerance is for the square of a rounded difference.
                assert_close(&y, &expected, 4e-7, &what);
            }
            for f in CompareFn::ALL {
                let mut y = Guarded::new(&vec![7u8; pairs.len()], edge);
                compare(isa, f, &broadcast, &a, &b, &mut y, pool);
                let holds = |&(a, b): &(f32, f32)| match f {
                    CompareFn::Equal => a == b,
                    CompareFn::Less => a < b,
                    CompareFn::LessEqual => a <= b,
                    CompareFn::Greater => a > b,
                    CompareFn::GreaterEqual => a >= b,
                };
                let expected: Vec<u8> = pairs.iter().map(|pair| u8::from(holds(pair))).collect();
                assert_eq!(*y, expected, "{f:?} {a_shape:?} {b_shape:?} {isa}");
            }
        }
    });
}

#[test]
fn an_activation_is_applied_to_the_result() {
    let mut random = Random::new(4);
    let (a, b) = (random.numbers(20_000, 3.0), random.numbers(20_000, 3.0));
    let broadcast = Broadcast::of_shapes(&[20_000], &[20_000]).unwrap();
    let expected: Vec<f32> = a.iter().zip(&b).map(|(a, b)| (a + b).max(0.0)).collect();
    everywhere(|isa, pool, edge| {
        let mut y = unwritten(a.len(), edge);
        binary(isa, BinaryFn::Add, &broadcast, &a, &b, &mut y, Activation::Relu, pool);
        assert_close(&y, &expected, 0.0, "relu(a + b)");
    });
}

#[test]
fn any_strides_are_walked() {
    // The second operand is a transposed view: strides 1 and 5 over a 3 x 5 output.
    let (a, b) = (Random::new(5).numbers(15, 1.0), Random::new(6).numbers(15, 1.0));
    let broadcast = Broadcast::new(&[3, 5], &[5, 1], &[1, 3]).unwrap();
    let expected: Vec<f32> = (0..15).map(|i| a[i] - b[i / 5 + i % 5 * 3]).collect();
    everywhere(|isa, pool, edge| {
        let mut y = unwritten(15, edge);
        let (a, b) = (Guarded::new(&a, edge), Guarded::new(&b, edge));
        binary(isa, BinaryFn::Sub, &broadcast, &a, &b, &mut y, Activation::None, pool);
        assert_close(&y, &expected, 0.0, "strided");
    });
}

#[test]
fn shapes_that_do_not_fit_are_refused() {
    assert_eq!(Broadcast::of_shapes(&[2, 3], &[2]), Err(BroadcastError::Shape));
    assert_eq!(Broadcast::of_shapes(&[1; 9], &[1]), Err(BroadcastError::Rank));
    assert_eq!(Broadcast::new(&[2, 2], &[1], &[2, 1]), Err(BroadcastError::Shape));
    assert_eq!(Broadcast::new(&[usize::MAX, 2], &[0, 0], &[0, 0]), Err(BroadcastError::TooLarge));
    assert_eq!(Broadcast::new(&[3], &[usize::MAX], &[1]), Err(BroadcastError::TooLarge));
}

#[test]
#[should_panic(expected = "second operand")]
fn a_short_operand_panics() {
    let broadcast = Broadcast::of_shapes(&[4, 4], &[4]).unwrap();
    let pool = Pool::new(1);
    binary(Isa::detect(), BinaryFn::Add, &broadcast, &[0.0; 16], &[0.0; 3], &mut [0.0; 16], Activation::None, &pool);
}
