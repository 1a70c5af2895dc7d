//! Every element size on every instruction set, against index arithmetic.

use super::*;
use crate::guard::Guarded;
use crate::testing::{Random, everywhere};

/// The input index of each element of the output.
fn sources(shape: &[usize], perm: &[usize]) -> Vec<usize> {
    let rank = shape.len();
    let stride = |axis: usize| shape[axis + 1..].iter().product::<usize>();
    (0..shape.iter().product())
        .map(|mut at| {
            let mut source = 0;
            for i in (0..rank).rev() {
                source += at % shape[perm[i]] * stride(perm[i]);
                at /= shape[perm[i]];
            }
            source
        })
        .collect()
}

fn check(isa: Isa, size: usize, shape: &[usize], perm: &[usize], pool: &Pool, edge: crate::guard::Edge) {
    let p = Permutation::new(shape, perm).unwrap();
    let sources = sources(shape, perm);
    // The bytes of element `i` are derived from `i`, so that a torn element is detected.
    let element = |i: usize| (i as u64).wrapping_mul(0x0123_4567_89ab_cdef).to_le_bytes();
    let bytes = |order: &mut dyn Iterator<Item = usize>| -> Vec<u8> {
        order.flat_map(|i| element(i)[8 - size..].to_vec()).collect()
    };
    let x = Guarded::new(&bytes(&mut (0..sources.len())), edge);
    let mut y = Guarded::new(&vec![0xaau8; x.len()], edge);
    transpose(isa, size, &p, &x, &mut y, pool);
    assert!(*y == *bytes(&mut sources.iter().copied()), "{size} bytes {shape:?} {perm:?} {isa}");
}

#[test]
fn axes_are_permuted() {
    let mut random = Random::new(15);
    let mut cases: Vec<(Vec<usize>, Vec<usize>)> = vec![
        (vec![], vec![]),
        (vec![1, 1], vec![1, 0]),
        (vec![5], vec![0]),
        (vec![0, 3], vec![1, 0]),
        (vec![2, 3, 31, 33], vec![0, 2, 3, 1]),
        (vec![2, 31, 33, 3], vec![0, 3, 1, 2]),
        (vec![1, 70, 150], vec![0, 2, 1]),
        (vec![1, 197, 6, 64], vec![0, 2, 1, 3]),
        (vec![1, 24, 56, 56], vec![0, 2, 3, 1]),
        (vec![3, 4, 5, 6], vec![3, 2, 1, 0]),
        (vec![16, 1, 24], vec![2, 1, 0]),
    ];
    for _ in 0..30 {
        let rank = 1 + random.below(5);
        let mut perm: Vec<usize> = (0..rank).collect();
        (0..rank).for_each(|i| perm.swap(i, random.below(rank)));
        cases.push(((0..rank).map(|_| 1 + random.below(11)).collect(), perm));
    }
    everywhere(|isa, pool, edge| {
        for (shape, perm) in &cases {
            for size in [1, 2, 4, 8] {
                check(isa, size, shape, perm, pool, edge);
            }
        }
    });
}

#[test]
fn permutations_that_do_not_name_every_axis_are_refused() {
    assert_eq!(Permutation::new(&[2, 3], &[0, 0]), Err(PermutationError::Axes));
    assert_eq!(Permutation::new(&[2, 3], &[0]), Err(PermutationError::Axes));
    assert_eq!(Permutation::new(&[2, 3], &[0, 2]), Err(PermutationError::Axes));
    assert_eq!(Permutation::new(&[1; 9], &[0; 9]), Err(PermutationError::Rank));
    assert_eq!(Permutation::new(&[usize::MAX, 2], &[1, 0]), Err(PermutationError::TooLarge));
}

#[test]
#[should_panic(expected = "elements of 3 bytes")]
fn other_element_sizes_panic() {
    let p = Permutation::new(&[2, 2], &[1, 0]).unwrap();
    transpose(Isa::Scalar, 3, &p, &[0; 12], &mut [0; 12], &Pool::new(1));
}
