//! Every kind of pooling on every instruction set, against a loop over the padded image.

use super::*;
use crate::guard::Guarded;
use crate::testing::{Random, assert_close, everywhere, unwritten};

const KINDS: [PoolFn; 3] =
    [PoolFn::Max, PoolFn::Average { count_padding: false }, PoolFn::Average { count_padding: true }];

/// Pools the pixels of a window, which has `places` positions if padding counts.
fn formula(f: PoolFn, window: &[f64], places: usize) -> f32 {
    let sum: f64 = window.iter().sum();
    let mean = |n: usize| if n == 0 { 0.0 } else { sum / n as f64 };
    (match f {
        PoolFn::Max if window.iter().any(|x| x.is_nan()) => f64::NAN,
        PoolFn::Max => window.iter().copied().fold(f64::NEG_INFINITY, f64::max),
        PoolFn::Average { count_padding: true } => mean(places),
        PoolFn::Average { count_padding: false } => mean(window.len()),
    }) as f32
}

fn expected(f: PoolFn, s: &PoolShape, x: &[f32]) -> Vec<f32> {
    let mut y = vec![];
    for n in 0..s.batch {
        for oh in 0..s.out_h {
            for ow in 0..s.out_w {
                for c in 0..s.channels {
                    let (mut window, mut places) = (vec![], 0);
                    for kh in 0..s.kernel[0] {
                        for kw in 0..s.kernel[1] {
                            let h = oh * s.stride[0] + kh * s.dilation[0];
                            let w = ow * s.stride[1] + kw * s.dilation[1];
                            if h < s.pad_top + s.in_h + s.pad_bottom && w < s.pad_left + s.in_w + s.pad_right {
                                places += 1;
                            }
                            let rows = s.pad_top..s.pad_top + s.in_h;
                            let columns = s.pad_left..s.pad_left + s.in_w;
                            if rows.contains(&h) && columns.contains(&w) {
                                let (h, w) = (h - s.pad_top, w - s.pad_left);
                                window.push(f64::from(x[((n * s.in_h + h) * s.in_w + w) * s.channels + c]));
                            }
                        }
                    }
                    y.push(formula(f, &window, places));
                }
            }
        }
    }
    y
}

fn random_shape(random: &mut Random) -> PoolShape {
    let kernel = [1 + random.below(4), 1 + random.below(4)];
    let stride = [1 + random.below(3), 1 + random.below(3)];
    let dilation = [1 + random.below(2), 1 + random.below(2)];
    let (in_h, in_w) = (1 + random.below(9), 1 + random.below(9));
    let [pad_top, pad_left, pad_bottom, pad_right] = [0; 4].map(|_: usize| random.below(3));
    let out = |i: usize, len: usize, extra: usize| {
        let reach = (kernel[i] - 1) * dilation[i] + 1;
        // As with ceil_mode, the last window may reach past the padding.
        len.checked_sub(reach).map_or(1, |room| (room + extra) / stride[i] + 1)
    };
    let (up, across) = (random.below(stride[0]), random.below(stride[1]));
    PoolShape {
        batch: 1 + random.below(2),
        in_h,
        in_w,
        channels: random.length(),
        out_h: out(0, in_h + pad_top + pad_bottom, up),
        out_w: out(1, in_w + pad_left + pad_right, across),
        kernel,
        stride,
        dilation,
        pad_top,
        pad_left,
        pad_bottom,
        pad_right,
    }
}

#[test]
fn regular_windows() {
    let mut random = Random::new(11);
    let large = PoolShape {
        batch: 1,
        in_h: 30,
        in_w: 31,
        channels: 72,
        out_h: 15,
        out_w: 16,
        kernel: [3, 3],
        stride: [2, 2],
        dilation: [1, 1],
        pad_top: 1,
        pad_left: 1,
        pad_bottom: 1,
        pad_right: 1,
    };
    everywhere(|isa, pool_of_threads, edge| {
        let shapes = std::iter::once(large).chain((0..60).map(|_| random_shape(&mut random)));
        for s in shapes.collect::<Vec<_>>() {
            let len = s.batch * s.in_h * s.in_w * s.channels;
            for x in [random.numbers(len, 5.0), random.numbers_with_specials(len, 5.0)] {
                let x = Guarded::new(&x, edge);
                for f in KINDS {
                    let mut y = unwritten(s.batch * s.out_h * s.out_w * s.channels, edge);
                    pool(isa, f, &s, &x, &mut y, pool_of_threads);
                    let mut expected = expected(f, &s, &x);
                    // Ignores sums that overflow in f32 along the way but not in f64.
                    if !matches!(f, PoolFn::Max) {
                        y.iter_mut().zip(&mut expected).filter(|(_, e)| e.abs() > 1e30 || e.is_nan()).for_each(
                            |(y, e)| {
                                assert!(y.is_nan() || y.abs() >= 1e30);
                                (*y, *e) = (0.0, 0.0);
                            },
                        );
                    }
                    assert_close(&y, &expected, 2e-6, &format!("{f:?} {s:?} {isa}"));
                }
            }
        }
    });
}

#[test]
fn a_window_of_more_than_a_piece() {
    let (mut random, threads) = (Random::new(13), Pool::new(2));
    let shape = PoolShape {
        batch: 1,
        in_h: 400,
        in_w: 401,
        channels: 3,
        out_h: 1,
        out_w: 2,
        kernel: [400, 400],
        stride: [1, 1],
        dilation: [1, 1],
        pad_top: 0,
        pad_left: 0,
        pad_bottom: 0,
        pad_right: 0,
    };
    let x = random.numbers(shape.in_h * shape.in_w * shape.channels, 5.0);
    for f in KINDS {
        let want = expected(f, &shape, &x);
        for isa in Isa::available() {
            let mut y = vec![0.0; want.len()];
            pool(isa, f, &shape, &x, &mut y, &threads);
            assert_close(&y, &want, 1e-5, &format!("{f:?} {isa}"));
        }
    }
}
