//! Boxes of bytes against index arithmetic, at the edge of readable memory.

use super::*;
use crate::guard::{Edge, Guarded};
use crate::testing::Random;

#[test]
fn blocks_concatenate_along_a_middle_axis() {
    // [2, 3, 4] and [2, 1, 4] become [2, 4, 4].
    let (a, b): (Vec<u8>, Vec<u8>) = ((0..24).collect(), (100..108).collect());
    for edge in Edge::BOTH {
        let (a, b) = (Guarded::new(&a, edge), Guarded::new(&b, edge));
        let mut y = Guarded::new(&[255u8; 32], edge);
        copy_blocks(
            &Blocks { len: 12, count: 2, from: 0, from_step: 12, to: 0, to_step: 16 },
            &a,
            &mut y,
            &Pace::free(),
        )
        .unwrap();
        copy_blocks(
            &Blocks { len: 4, count: 2, from: 0, from_step: 4, to: 12, to_step: 16 },
            &b,
            &mut y,
            &Pace::free(),
        )
        .unwrap();
        let expected: Vec<u8> = [&a[..12], &b[..4], &a[12..], &b[4..]].concat();
        assert_eq!(*y, expected);
    }
}

#[test]
fn boxes_move_between_any_strides() {
    let mut random = Random::new(16);
    for case in 0..400 {
        let edge = Edge::BOTH[case % 2];
        let size = [1, 2, 4, 8, 3][random.below(5)];
        let rank = random.below(5);
        let shape: Vec<usize> = (0..rank).map(|_| random.below(5) + usize::from(case % 7 != 0)).collect();
        // The input is a box with a step (possibly negative or 0) in a larger tensor, the output a box with a margin.
        let steps: Vec<isize> = (0..rank).map(|_| [1, 1, 1, 2, -1, -2, 0][random.below(7)]).collect();
        let in_shape: Vec<usize> =
            shape.iter().zip(&steps).map(|(&n, s)| n.saturating_sub(1) * s.unsigned_abs() + 1).collect();
        let margin: Vec<usize> = (0..rank).map(|_| random.below(2)).collect();
        let out_shape: Vec<usize> = shape.iter().zip(&margin).map(|(&n, m)| n + 2 * m).collect();
        let strides = |shape: &[usize]| -> Vec<isize> {
            (0..rank).map(|i| shape[i + 1..].iter().product::<usize>() as isize).collect()
        };
        let (in_strides, to_strides) = (strides(&in_shape), strides(&out_shape));
        let from_strides: Vec<isize> = in_strides.iter().zip(&steps).map(|(stride, step)| stride * step).collect();
        let first = |i: usize| if steps[i] < 0 { in_shape[i] - 1 } else { 0 };
        let from = (0..rank).map(|i| first(i) * in_strides[i] as usize).sum();
        let to = (0..rank).map(|i| margin[i] * to_strides[i] as usize).sum();

        let bytes = |shape: &[usize]| shape.iter().product::<usize>() * size;
        let x: Vec<u8> = (0..bytes(&in_shape)).map(|i| (i * 7 + 1) as u8).collect();
        let mut expected = vec![0xee; bytes(&out_shape)];
        for at in 0..shape.iter().product() {
            let (mut rest, mut i, mut o) = (at, from as isize, to as isize);
            for axis in (0..rank).rev() {
                let index = (rest % shape[axis]) as isize;
                rest /= shape[axis];
                i += index * from_strides[axis];
                o += index * to_strides[axis];
            }
            for byte in 0..size {
                expected[o as usize * size + byte] = x[i as usize * size + byte];
            }
        }

        let x = Guarded::new(&x, edge);
        let mut y = Guarded::new(&vec![0xee; expected.len()], edge);
        let copy = StridedCopy { shape: &shape, from, from_strides: &from_strides, to, to_strides: &to_strides };
        copy_strided(size, &copy, &x, &mut y, &Pace::free()).unwrap();
        assert_eq!(*y, expected, "{shape:?} {steps:?} {margin:?} of {size} bytes");
    }
}

#[test]
fn elements_are_stacked_and_taken_apart() {
    for size in [1, 2, 3, 4, 8] {
        for count in [0, 1, 2, 7, 40] {
            let x: Vec<u8> = (0..count * size).map(|i| (i * 5 + 1) as u8).collect();
            let mut both = vec![0; 2 * x.len()];
            for to in [0, size] {
                let blocks = Blocks { len: size, count, from: 0, from_step: size, to, to_step: 2 * size };
                copy_blocks(&blocks, &x, &mut both, &Pace::free()).unwrap();
            }
            let want: Vec<u8> = x.chunks(size).flat_map(|x| [x, x].concat()).collect();
            assert_eq!(both, want);
            for from in [0, 1] {
                let mut y = vec![0; x.len()];
                let copy = StridedCopy { shape: &[count], from, from_strides: &[2], to: 0, to_strides: &[1] };
                copy_strided(size, &copy, &both, &mut y, &Pace::free()).unwrap();
                assert_eq!(y, x);
            }
        }
    }
}

#[test]
#[should_panic]
fn a_longer_walk_of_every_other_element_panics() {
    let copy = StridedCopy { shape: &[3], from: 0, from_strides: &[2], to: 0, to_strides: &[1] };
    copy_strided(4, &copy, &[0; 16], &mut [0; 16], &Pace::free()).unwrap();
}

#[test]
#[should_panic]
fn a_walk_that_leaves_the_input_panics() {
    let copy = StridedCopy { shape: &[3], from: 1, from_strides: &[-1], to: 0, to_strides: &[1] };
    copy_strided(4, &copy, &[0; 16], &mut [0; 16], &Pace::free()).unwrap();
}

#[test]
fn fill_repeats_an_element() {
    let mut y = [0; 6];
    fill(&[1, 2], &mut y, &Pace::free()).unwrap();
    assert_eq!(y, [1, 2, 1, 2, 1, 2]);
    fill(&[9], &mut y, &Pace::free()).unwrap();
    assert_eq!(y, [9; 6]);
}
