//! Pooling of quantized NHWC images: the maximum or the mean of each window.
//!
//! ```text
//! max    y = max over the window of x
//! mean   y = byte(sum over the window of (x - zero) * x_scale / (y_scale * count))
//! ```
//!
//! Padding has no value, but counts with `count_padding`, as in [`pool`](crate::pool). Channels are in the lanes; the
//! loop is plain Rust, compiled for each instruction set.

use serde::{Deserialize, Serialize};

use crate::isa::Isa;
use crate::parallel;
use crate::pool::{PoolFn, PoolShape};
use crate::requantize::Requantize;
use crate::simd::{Simd, Vectorized, dispatch};
use crate::threads::Pool;

/// Channels that are pooled at once.
const BLOCK: usize = 64;

/// Parameters of the mean. Max pooling does not change the scale.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub struct Mean {
    /// The zero point of the input.
    pub zero: u8,
    /// Scales of the input and of the output.
    pub scales: [f32; 2],
    /// Converts units of the output scale to bytes.
    pub by: Requantize,
}

/// The maximum of each window; 0 for a window without pixels.
///
/// # Panics
/// If the length of `x` or `y` does not match `shape`, or a stride or dilation is 0.
pub fn largest(isa: Isa, shape: &PoolShape, x: &[u8], y: &mut [u8], threads: &Pool) {
    let unused = Mean { zero: 0, scales: [1.0; 2], by: Requantize::all(0) };
    pool(isa, PoolFn::Max, unused, shape, x, y, threads);
}

/// The mean of each window, over its pixels or, with `count_padding`, over its positions inside the padded image; for a
/// window without any, the zero point of the output.
///
/// # Panics
/// If the length of `x` or `y` does not match `shape`, or a stride or dilation is 0.
pub fn mean(isa: Isa, mean: Mean, count_padding: bool, shape: &PoolShape, x: &[u8], y: &mut [u8], threads: &Pool) {
    pool(isa, PoolFn::Average { count_padding }, mean, shape, x, y, threads);
}

fn pool(isa: Isa, f: PoolFn, mean: Mean, shape: &PoolShape, x: &[u8], y: &mut [u8], threads: &Pool) {
    let len = |sizes: [usize; 4]| sizes.iter().try_fold(1usize, |len, &size| len.checked_mul(size));
    assert!(shape.stride.iter().chain(&shape.dilation).all(|&n| n > 0), "a stride or dilation is 0");
    assert_eq!(len([shape.batch, shape.in_h, shape.in_w, shape.channels]), Some(x.len()), "input length");
    assert_eq!(len([shape.batch, shape.out_h, shape.out_w, shape.channels]), Some(y.len()), "output length");
    if y.is_empty() {
        return;
    }
    let row_len = shape.out_w * shape.channels;
    let work = y.len().saturating_mul(shape.kernel[0] * shape.kernel[1]);
    parallel::split_rows(threads, y, [row_len, shape.channels], work, |row, first, y| {
        let row = BytePoolRow { f, mean, shape, x, row, first, y, pool: threads };
        match isa {
            Isa::Scalar => row.plain(),
            _ => dispatch(isa, row),
        }
    });
}

/// The pixels of an output row, counted over all images, from `first` on.
struct BytePoolRow<'a> {
    f: PoolFn,
    mean: Mean,
    shape: &'a PoolShape,
    x: &'a [u8],
    row: usize,
    first: usize,
    y: &'a mut [u8],
    pool: &'a Pool,
}

/// Pixels of a block of channels that are read before the thread asks whether to stop.
const READ: usize = if cfg!(test) { 2 } else { 1 << 12 };

impl Vectorized for BytePoolRow<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        self.plain();
    }
}

impl BytePoolRow<'_> {
    #[inline(always)]
    fn plain(self) {
        let BytePoolRow { f, mean, shape: s, x, row, first, y, pool } = self;
        let (image, oy) = (row / s.out_h, row % s.out_h);
        let mut read = 0;
        for (ox, y) in (first..).zip(y.chunks_exact_mut(s.channels)) {
            let rows = Taps::new(s, 0, oy);
            let columns = Taps::new(s, 1, ox);
            let factor = match f {
                PoolFn::Average { count_padding: true } => rows.padded * columns.padded,
                _ => rows.count * columns.count,
            };
            let factor = if factor == 0 { 0.0 } else { mean.scales[0] / (mean.scales[1] * factor as f32) };
            // The zero points of the window's pixels, summed.
            let zeros = i32::from(mean.zero) * (rows.count * columns.count) as i32;
            for (block, y) in y.chunks_mut(BLOCK).enumerate() {
                let mut sums = [0i32; BLOCK];
                let mut largest = [0u8; BLOCK];
                for ty in 0..rows.count {
                    // All of a row, unless it is long.
                    for begin in (0..columns.count).step_by(READ) {
                        let some = begin..columns.count.min(begin + READ);
                        read += some.len();
                        if read > READ {
                            read = 0;
                            if pool.stops() {
                                return;
                            }
                        }
                        for tx in some {
                            let (iy, ix) = (rows.pixel(ty), columns.pixel(tx));
                            let at = ((image * s.in_h + iy) * s.in_w + ix) * s.channels + block * BLOCK;
                            let x = &x[at..][..y.len()];
                            match (f, <&[u8; BLOCK]>::try_from(x)) {
                                (PoolFn::Max, Ok(x)) => take_largest(&mut largest, x),
                                (PoolFn::Max, Err(_)) => take_largest(&mut largest, x),
                                (_, Ok(x)) => add(&mut sums, x),
                                (_, Err(_)) => add(&mut sums, x),
                            }
                        }
                    }
                }
                match f {
                    PoolFn::Max => y.copy_from_slice(&largest[..y.len()]),
                    PoolFn::Average { .. } => {
                        for (y, sum) in y.iter_mut().zip(&sums) {
                            *y = mean.by.byte((sum - zeros) as f32 * factor);
                        }
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn take_largest(largest: &mut [u8; BLOCK], x: &[u8]) {
    for (largest, &x) in largest.iter_mut().zip(x) {
        *largest = x.max(*largest);
    }
}

#[inline(always)]
fn add(sums: &mut [i32; BLOCK], x: &[u8]) {
    for (sum, &x) in sums.iter_mut().zip(x) {
        *sum += i32::from(x);
    }
}

/// The positions of a window along one axis.
struct Taps {
    /// The first pixel inside the image.
    first: usize,
    /// Pixels inside the image.
    count: usize,
    /// Positions inside the padded image.
    padded: usize,
    step: usize,
}

impl Taps {
    #[inline(always)]
    fn new(s: &PoolShape, axis: usize, out: usize) -> Self {
        let (before, len, after) = match axis {
            0 => (s.pad_top, s.in_h, s.pad_bottom),
            _ => (s.pad_left, s.in_w, s.pad_right),
        };
        let (start, step, kernel) = (out * s.stride[axis], s.dilation[axis], s.kernel[axis]);
        // Positions before `end`, counted from the start of the padding.
        let places = |end: usize| end.saturating_sub(start).div_ceil(step).min(kernel);
        let (skipped, inside) = (places(before), places(before + len));
        let first = (start + skipped * step).saturating_sub(before);
        Taps { first, count: inside - skipped, padded: places(before + len + after), step }
    }

    #[inline(always)]
    fn pixel(&self, tap: usize) -> usize {
        self.first + tap * self.step
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Guarded;
    use crate::qgemm::tests::bytes;
    use crate::testing::{Random, everywhere};

    #[test]
    fn windows_follow_the_definition() {
        let mut random = Random::new(5);
        everywhere(|isa, threads, edge| {
            for round in 0..80 {
                let kernel = [1 + random.below(4), 1 + random.below(4)];
                let (stride, dilation) = ([1 + random.below(3), 1 + random.below(3)], [1 + random.below(2), 1]);
                let pads = [0; 4].map(|_: usize| random.below(3));
                let (in_h, in_w) = (1 + random.below(9), 1 + random.below(9));
                let out = |axis: usize, len: usize| {
                    len.checked_sub((kernel[axis] - 1) * dilation[axis] + 1).map_or(1, |room| room / stride[axis] + 1)
                };
                let s = PoolShape {
                    batch: 1 + random.below(2),
                    in_h,
                    in_w,
                    channels: random.length() * (1 + random.below(2)),
                    out_h: out(0, in_h + pads[0] + pads[2]),
                    out_w: out(1, in_w + pads[1] + pads[3]),
                    kernel,
                    stride,
                    dilation,
                    pad_top: pads[0],
                    pad_left: pads[1],
                    pad_bottom: pads[2],
                    pad_right: pads[3],
                };
                let x = Guarded::new(&bytes(round, s.batch * in_h * in_w * s.channels), edge);
                let zero = random.below(256) as u8;
                let mean = Mean {
                    zero,
                    scales: [0.1 + random.number().abs(), 0.7],
                    by: Requantize::all(random.below(256) as u8),
                };
                for f in
                    [PoolFn::Max, PoolFn::Average { count_padding: true }, PoolFn::Average { count_padding: false }]
                {
                    let mut y = Guarded::new(&vec![9u8; s.batch * s.out_h * s.out_w * s.channels], edge);
                    pool(isa, f, mean, &s, &x, &mut y, threads);
                    for (i, &y) in y.iter().enumerate() {
                        let (c, pixel) = (i % s.channels, i / s.channels);
                        let (image, oy, ox) = (pixel / s.out_w / s.out_h, pixel / s.out_w % s.out_h, pixel % s.out_w);
                        let (mut largest, mut sum, mut inside, mut padded) = (0u8, 0i32, 0, 0);
                        for ky in 0..kernel[0] {
                            for kx in 0..kernel[1] {
                                let (py, px) = (oy * stride[0] + ky * dilation[0], ox * stride[1] + kx * dilation[1]);
                                padded += i32::from(py < pads[0] + in_h + pads[2] && px < pads[1] + in_w + pads[3]);
                                if (pads[0]..pads[0] + in_h).contains(&py) && (pads[1]..pads[1] + in_w).contains(&px) {
                                    let at = ((image * in_h + py - pads[0]) * in_w + px - pads[1]) * s.channels + c;
                                    largest = largest.max(x[at]);
                                    sum += i32::from(x[at]) - i32::from(zero);
                                    inside += 1;
                                }
                            }
                        }
                        let count = if f == (PoolFn::Average { count_padding: true }) { padded } else { inside };
                        let want = match f {
                            PoolFn::Max => largest,
                            _ if count == 0 => mean.by.zero,
                            _ => mean.by.byte(sum as f32 * (mean.scales[0] / (mean.scales[1] * count as f32))),
                        };
                        assert_eq!(y, want, "{f:?} {s:?} {isa}");
                    }
                }
            }
        });
    }
}
