//! Both kinds on every instruction set, against the definition in f64.

use super::*;
use crate::guard::Guarded;
use crate::testing::{Random, assert_close, everywhere, unwritten};

/// Half-pixel centers, clamped to the image.
fn linear_axis(len: usize, out: usize) -> LinearAxis {
    let at = |o: usize| ((o as f32 + 0.5) * len as f32 / out as f32 - 0.5).clamp(0.0, (len - 1) as f32);
    LinearAxis {
        lo: (0..out).map(|o| at(o) as u32).collect(),
        hi: (0..out).map(|o| (at(o) as u32 + 1).min(len as u32 - 1)).collect(),
        frac: (0..out).map(|o| at(o).fract()).collect(),
    }
}

fn random_image(random: &mut Random) -> (ImageShape, [usize; 2]) {
    let [height, width] = [1 + random.below(6), 1 + random.below(6)];
    let image = ImageShape { batch: 1 + random.below(2), height, width, channels: random.length() };
    (image, [1 + random.below(9), 1 + random.below(9)])
}

#[test]
fn linear_blends_four_pixels() {
    let mut random = Random::new(13);
    everywhere(|isa, pool, edge| {
        for case in 0..40 {
            let (image, [out_h, out_w]) = match case {
                0 => (ImageShape { batch: 1, height: 18, width: 18, channels: 67 }, [36, 36]),
                _ => random_image(&mut random),
            };
            let (rows, columns) = (linear_axis(image.height, out_h), linear_axis(image.width, out_w));
            let x = Guarded::new(&random.numbers(image.len(), 3.0), edge);
            let mut expected = vec![];
            for (n, oh) in (0..image.batch).flat_map(|n| (0..out_h).map(move |oh| (n, oh))) {
                for (ow, c) in (0..out_w).flat_map(|ow| (0..image.channels).map(move |c| (ow, c))) {
                    let at = |h: u32, w: u32| {
                        f64::from(x[((n * image.height + h as usize) * image.width + w as usize) * image.channels + c])
                    };
                    let (top, bottom, down) = (rows.lo[oh], rows.hi[oh], f64::from(rows.frac[oh]));
                    let (left, right, across) = (columns.lo[ow], columns.hi[ow], f64::from(columns.frac[ow]));
                    let y = (1.0 - down) * (1.0 - across) * at(top, left)
                        + (1.0 - down) * across * at(top, right)
                        + down * (1.0 - across) * at(bottom, left)
                        + down * across * at(bottom, right);
                    expected.push(y as f32);
                }
            }
            let mut y = unwritten(expected.len(), edge);
            resize_linear(isa, image, &rows, &columns, &x, &mut y, pool);
            assert_close(&y, &expected, 1e-6, &format!("{image:?} to {out_h}x{out_w} {isa}"));
        }
    });
}

#[test]
fn nearest_copies_pixels() {
    let mut random = Random::new(14);
    everywhere(|_, pool, edge| {
        for _ in 0..40 {
            let (image, [out_h, out_w]) = random_image(&mut random);
            let rows = NearestAxis((0..out_h).map(|_| random.below(image.height) as u32).collect());
            let columns = NearestAxis((0..out_w).map(|_| random.below(image.width) as u32).collect());
            let x = Guarded::new(&random.numbers(image.len(), 3.0), edge);
            let mut y = unwritten(image.batch * out_h * out_w * image.channels, edge);
            resize_nearest(image, &rows, &columns, &x, &mut y, pool);
            for (at, &y) in y.iter().enumerate() {
                let (c, at) = (at % image.channels, at / image.channels);
                let (w, at) = (columns.0[at % out_w] as usize, at / out_w);
                let (h, n) = (rows.0[at % out_h] as usize, at / out_h);
                assert_eq!(y, x[((n * image.height + h) * image.width + w) * image.channels + c]);
            }
        }
    });
}

#[test]
#[should_panic(expected = "tables in the image")]
fn a_table_that_leaves_the_image_panics() {
    let image = ImageShape { batch: 1, height: 2, width: 2, channels: 1 };
    let axis = NearestAxis(vec![0, 2]);
    resize_nearest(image, &axis, &axis, &[0.0; 4], &mut [0.0; 4], &Pool::new(1));
}
