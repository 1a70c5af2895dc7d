//! Pooling over windows of an NHWC image: the maximum or the mean of each window, per channel.
//!
//! `y[n, oh, ow, c] = max or mean over the window's (h, w) of x[n, h, w, c]`, where the window of output row `o` has
//! the input rows `o * stride - pad_top + k * dilation` for `k < kernel` that exist. Channels are in the lanes, so one
//! loop serves any kernel size, stride and padding.
//!
//! Padding has no value: the maximum is taken over actual pixels only (minus infinity if a window has none). A mean
//! divides by the number of pixels in the window or, with `count_padding`, by the number of its positions inside the
//! padded image (the mean is 0 if there are none). NaN in a window gives NaN.
//!
//! Global pooling is a [reduction](crate::reduce) over pixels.

mod scalar;
mod vector;
mod window;

#[cfg(test)]
mod tests;

use crate::isa::Isa;
use crate::pace::{PIECE, Pace};
use crate::parallel;
use crate::simd::dispatch;
use crate::threads::Pool;
use serde::{Deserialize, Serialize};
use window::{Taps, Windows};

/// The function of a window.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum PoolFn {
    /// The maximum.
    Max,
    /// The mean.
    Average {
        /// Whether padding counts as zeros.
        count_padding: bool,
    },
}

/// The shape of a pooling operation, in pixels and channels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct PoolShape {
    /// Images.
    pub batch: usize,
    /// Rows of the input.
    pub in_h: usize,
    /// Columns of the input.
    pub in_w: usize,
    /// Channels of input and output.
    pub channels: usize,
    /// Rows of the output; the caller has rounded the quotient up or down.
    pub out_h: usize,
    /// Columns of the output.
    pub out_w: usize,
    /// Rows and columns of a window.
    pub kernel: [usize; 2],
    /// Rows and columns from one window to the next.
    pub stride: [usize; 2],
    /// Rows and columns from one position of a window to the next.
    pub dilation: [usize; 2],
    /// Rows of padding above.
    pub pad_top: usize,
    /// Columns of padding on the left.
    pub pad_left: usize,
    /// Rows of padding below.
    pub pad_bottom: usize,
    /// Columns of padding on the right.
    pub pad_right: usize,
}

/// The sizes of an NHWC image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ImageShape {
    /// Images.
    pub batch: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
    /// Channels.
    pub channels: usize,
}

impl ImageShape {
    /// The element count. Panics if it does not fit in `usize`.
    pub(crate) fn len(&self) -> usize {
        [self.height, self.width, self.channels]
            .iter()
            .try_fold(self.batch, |len, &n| len.checked_mul(n))
            .expect("an image that fits in memory")
    }
}

/// Pools over all windows.
///
/// # Panics
/// If the length of `x` or `y` does not match `shape`, or a stride or dilation is 0.
pub fn pool(isa: Isa, f: PoolFn, shape: &PoolShape, x: &[f32], y: &mut [f32], pool: &Pool) {
    let axis = |i: usize, len, before, after| Windows {
        len,
        kernel: shape.kernel[i],
        stride: shape.stride[i],
        dilation: shape.dilation[i],
        before,
        after,
    };
    assert!(shape.stride.iter().chain(&shape.dilation).all(|&n| n > 0), "a stride or dilation is 0");
    let image = ImageShape { batch: shape.batch, height: shape.in_h, width: shape.in_w, channels: shape.channels };
    let windows = Pooling {
        f,
        image,
        out: [shape.out_h, shape.out_w],
        rows: axis(0, shape.in_h, shape.pad_top, shape.pad_bottom),
        columns: axis(1, shape.in_w, shape.pad_left, shape.pad_right),
    };
    run(isa, &windows, shape.kernel[0] * shape.kernel[1], x, y, pool);
}

/// A pooling operation as the kernels see it.
#[derive(Clone, Copy)]
struct Pooling {
    f: PoolFn,
    image: ImageShape,
    /// Rows and columns of the output.
    out: [usize; 2],
    rows: Windows,
    columns: Windows,
}

impl Pooling {
    /// The factor of the sum of a window; 0 if the window is empty.
    #[inline(always)]
    fn factor(&self, rows: Taps, columns: Taps) -> f32 {
        let count = match self.f {
            PoolFn::Average { count_padding: true } => rows.padded_count * columns.padded_count,
            _ => rows.count * columns.count,
        };
        if count == 0 { 0.0 } else { 1.0 / count as f32 }
    }
}

fn run(isa: Isa, p: &Pooling, taps: usize, x: &[f32], y: &mut [f32], pool: &Pool) {
    assert_eq!(x.len(), p.image.len(), "input length");
    let out = ImageShape { height: p.out[0], width: p.out[1], ..p.image };
    assert_eq!(y.len(), out.len(), "output length");
    if y.is_empty() {
        return;
    }
    let channels = p.image.channels;
    let work = y.len().saturating_mul(taps);
    parallel::split_rows(pool, y, [p.out[1] * channels, channels], work, |row, first, y| match isa {
        _ if taps.saturating_mul(channels) > PIECE => large(p, x, (row, first), y, &Pace::of(pool)),
        Isa::Scalar => scalar::row(p, x, (row, first), y),
        _ => dispatch(isa, vector::PoolRow { pooling: p, x, row, first, y }),
    });
}

/// Channels that are pooled at once over windows that take long.
const MANY: usize = if cfg!(test) { 100 } else { 1 << 14 };

/// Pools over windows each of which takes long: adds up `y` pixel by pixel of the window, and asks in between.
fn large<'a>(p: &Pooling, x: &[f32], (row, first): (usize, usize), y: &'a mut [f32], pace: &Pace<'_>) {
    let ImageShape { height, width, channels, .. } = p.image;
    let (image, rows) = (row / p.out[0] * height, p.rows.at(row % p.out[0]));
    let parts = |(y, column): (&'a mut [f32], usize)| {
        y.chunks_mut(MANY).enumerate().map(move |(part, y)| (y, part * MANY, column))
    };
    for (y, channel, column) in y.chunks_exact_mut(channels).zip(first..).flat_map(parts) {
        let columns = p.columns.at(column);
        y.fill(if p.f == PoolFn::Max { f32::NEG_INFINITY } else { 0.0 });
        for (h, w) in rows.pixels().flat_map(|h| columns.pixels().map(move |w| (h, w))) {
            let x = &x[((image + h) * width + w) * channels + channel..][..y.len()];
            if pace.stops(y.len() + 4) {
                return;
            }
            let is_max = p.f == PoolFn::Max;
            for (y, &x) in y.iter_mut().zip(x) {
                *y = match is_max {
                    true if x.is_nan() || x > *y => x,
                    true => *y,
                    false => *y + x,
                };
            }
        }
        if p.f != PoolFn::Max {
            let factor = p.factor(rows, columns);
            y.iter_mut().for_each(|y| *y *= factor);
        }
    }
}
