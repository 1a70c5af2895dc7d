//! The remaining terms of a quantized product whose weights have zero points, or whose scales are only known at run
//! time.
//!
//! ```text
//! windows   window[p, g] = sum over taps and channels of group g of (x - x_zero)
//! finish    y[p, n]      = sum[p, n] - zero[n] * window[p, group of n]      or the float  that * scale[n] + bias[n]
//! ```
//!
//! The product itself uses the raw weights: the sum of `(x - x_zero) * (w - zero)` is the product with `w` minus `zero`
//! times the sum of the window, which is the same for all filters of a group. Both functions take a small share of the
//! time of a product and are plain Rust, which the compiler vectorizes for each instruction set.

use crate::conv::{ConvShape, product};
use crate::isa::Isa;
use crate::pace::PIECE;
use crate::parallel;
use crate::simd::{Simd, Vectorized, dispatch};
use crate::threads::Pool;

/// Elements of [`windows`]: one for each group of each output pixel.
pub fn windows_len(shape: &ConvShape) -> usize {
    product(&[shape.pixels(), shape.groups])
}

/// Sums the windows of the images `input` (NHWC), relative to the zero point `zero`.
///
/// # Panics
/// If a length does not match `shape`.
pub fn windows(isa: Isa, shape: &ConvShape, input: &[u8], zero: u8, to: &mut [i32], pool: &Pool) {
    shape.check();
    assert_eq!(input.len(), shape.input_len(), "input length");
    assert_eq!(to.len(), windows_len(shape), "one sum for each group of each window");
    let line_len = product(&[shape.out_w, shape.groups]).max(1);
    // Moving four bytes takes as long as moving one 32-bit element.
    let work = shape.pixels().saturating_mul(shape.taps()).saturating_mul(shape.in_c) / 4;
    if to.is_empty() {
        return;
    }
    parallel::split_rows(pool, to, [line_len, shape.groups], work, |line, first, to| {
        on(isa, WindowSums { shape, input, zero, line, first, to, pool });
    });
}

/// The window sums of an output line from pixel `first` on.
struct WindowSums<'a> {
    shape: &'a ConvShape,
    input: &'a [u8],
    zero: u8,
    line: usize,
    first: usize,
    to: &'a mut [i32],
    pool: &'a Pool,
}

impl PlainLoop for WindowSums<'_> {
    #[inline(always)]
    fn plain(self) {
        let (s, depth) = (self.shape, self.shape.group_in());
        let (image, y) = (self.line / s.out_h, self.line % s.out_h);
        let mut read = 0;
        for (x, to) in (self.first..).zip(self.to.chunks_exact_mut(s.groups)) {
            let (rows, columns) = (s.valid_taps(0, y), s.valid_taps(1, x));
            let zeros = (rows.len() * columns.len() * depth) as i32 * i32::from(self.zero);
            to.fill(zeros.wrapping_neg());
            for ky in rows {
                let in_y = y * s.stride[0] + ky * s.dilation[0] - s.pad_top;
                for kx in columns.clone() {
                    read += s.in_c;
                    if read > PIECE {
                        read = 0;
                        if self.pool.stops() {
                            return;
                        }
                    }
                    let in_x = x * s.stride[1] + kx * s.dilation[1] - s.pad_left;
                    let pixel = &self.input[((image * s.in_h + in_y) * s.in_w + in_x) * s.in_c..][..s.in_c];
                    if depth == 1 {
                        for (to, &byte) in to.iter_mut().zip(pixel) {
                            *to += i32::from(byte);
                        }
                    } else {
                        for (to, run) in to.iter_mut().zip(pixel.chunks_exact(depth.max(1))) {
                            *to += run.iter().map(|&byte| i32::from(byte)).sum::<i32>();
                        }
                    }
                }
            }
        }
    }
}

/// The terms that zero points of the weights subtract.
#[derive(Clone, Copy, Debug)]
pub struct Zeros<'a> {
    /// Zero point of each filter.
    pub zeros: &'a [i32],
    /// Window sums from [`windows`].
    pub windows: &'a [i32],
    /// Groups of the convolution.
    pub groups: usize,
}

/// Scales and bias that turn sums into floats.
#[derive(Clone, Copy, Debug)]
pub struct Scales<'a> {
    /// For each filter.
    pub scales: &'a [f32],
    /// For each filter.
    pub bias: &'a [f32],
}

/// Finishes the sums `y` of all output pixels, `filters` each, in place. With `scales`, the elements become the bit
/// patterns of floats.
///
/// # Panics
/// If a length does not match.
pub fn finish(
    isa: Isa,
    filters: usize,
    y: &mut [i32],
    zeros: Option<Zeros<'_>>,
    scales: Option<Scales<'_>>,
    pool: &Pool,
) {
    if y.is_empty() || (zeros.is_none() && scales.is_none()) {
        return;
    }
    assert!(filters > 0 && y.len().is_multiple_of(filters), "as many sums for each pixel");
    let pixels = y.len() / filters;
    if let Some(Zeros { zeros, windows, groups }) = zeros {
        assert_eq!(zeros.len(), filters, "a zero point for each filter");
        assert!(groups > 0 && filters.is_multiple_of(groups), "groups of filters");
        assert_eq!(windows.len(), product(&[pixels, groups]), "a window for each group of each pixel");
    }
    if let Some(Scales { scales, bias }) = scales {
        assert!(scales.len() == filters && bias.len() == filters, "a scale and a bias for each filter");
    }
    parallel::split(pool, y, filters, pixels * filters, |offset, y| {
        on(isa, Finish { filters, y, first_pixel: offset / filters, zeros, scales });
    });
}

/// Output pixels to finish.
struct Finish<'a> {
    filters: usize,
    y: &'a mut [i32],
    first_pixel: usize,
    zeros: Option<Zeros<'a>>,
    scales: Option<Scales<'a>>,
}

impl PlainLoop for Finish<'_> {
    #[inline(always)]
    fn plain(self) {
        for (pixel, y) in (self.first_pixel..).zip(self.y.chunks_exact_mut(self.filters)) {
            if let Some(Zeros { zeros, windows, groups }) = self.zeros {
                let len = self.filters / groups;
                let windows = &windows[pixel * groups..][..groups];
                for ((y, zeros), &window) in y.chunks_exact_mut(len).zip(zeros.chunks_exact(len)).zip(windows) {
                    for (y, &zero) in y.iter_mut().zip(zeros) {
                        *y = y.wrapping_sub(zero.wrapping_mul(window));
                    }
                }
            }
            if let Some(Scales { scales, bias }) = self.scales {
                for ((y, &scale), &bias) in y.iter_mut().zip(scales).zip(bias) {
                    *y = (*y as f32 * scale + bias).to_bits().cast_signed();
                }
            }
        }
    }
}

/// A loop in plain Rust, vectorized by the compiler.
trait PlainLoop {
    fn plain(self);
}

/// Runs a loop, compiled for an instruction set.
fn on(isa: Isa, of: impl PlainLoop) {
    match isa {
        Isa::Scalar => of.plain(),
        _ => dispatch(isa, Compiled(of)),
    }
}

struct Compiled<P>(P);

impl<P: PlainLoop> Vectorized for Compiled<P> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        self.0.plain();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Guarded;
    use crate::qgemm::tests::{bytes, signed, sums};
    use crate::testing::{Random, everywhere};

    #[test]
    fn weights_with_zero_points_follow_the_definition() {
        let mut random = Random::new(5);
        everywhere(|isa, pool, edge| {
            for round in 0..60 {
                let groups = [1, 1, 2, 5][random.below(4)];
                let (depth, per_group) = (random.length() % 20 + 1, random.length() % 20 + 1);
                // Every other round is depthwise.
                let (depth, per_group) = if round % 2 == 0 { (depth, per_group) } else { (1, 1) };
                let kernel = [1 + random.below(3), 1 + random.below(3)];
                let (stride, dilation) = ([1 + random.below(2), 1 + random.below(2)], [1 + random.below(2), 1]);
                let (pad_top, pad_left) = (random.below(3), random.below(3));
                let (in_h, in_w) = (5 + random.below(5), 5 + random.below(5));
                let out = |len: usize, axis: usize, pads: usize| {
                    (len + pads - (kernel[axis] - 1) * dilation[axis] - 1) / stride[axis] + 1
                };
                let shape = ConvShape {
                    batch: 1 + random.below(2),
                    in_h,
                    in_w,
                    in_c: groups * depth,
                    out_h: out(in_h, 0, 2 * pad_top),
                    out_w: out(in_w, 1, 2 * pad_left),
                    out_c: groups * per_group,
                    kernel,
                    stride,
                    dilation,
                    pad_top,
                    pad_left,
                    groups,
                };
                let x = Guarded::new(&bytes(round, shape.input_len()), edge);
                let weights = signed(round + 1, shape.out_c * depth * shape.taps());
                let zero = random.below(256) as u8;
                let zeros: Vec<i32> = signed(round + 2, shape.out_c).into_iter().map(i32::from).collect();
                let none = vec![0; shape.out_c];
                let mut y = Guarded::new(&sums(&shape, &x, zero, &weights, &none), edge);
                // With the zero point of a filter subtracted, weights may no longer fit in a byte: computed one tap at
                // a time.
                let ones = vec![1i8; weights.len()];
                let want: Vec<i32> = sums(&shape, &x, zero, &ones, &none)
                    .iter()
                    .zip(y.iter())
                    .enumerate()
                    .map(|(i, (window, sum))| sum - zeros[i % shape.out_c] * window)
                    .collect();
                let mut held = Guarded::new(&vec![77i32; windows_len(&shape)], edge);
                windows(isa, &shape, &x, zero, &mut held, pool);
                let of = Zeros { zeros: &zeros, windows: &held, groups };
                finish(isa, shape.out_c, &mut y, Some(of), None, pool);
                assert_eq!(&y[..], want, "{isa} {shape:?}");
                let scales: Vec<f32> = (0..shape.out_c).map(|_| random.number()).collect();
                let bias: Vec<f32> = (0..shape.out_c).map(|_| random.number()).collect();
                finish(isa, shape.out_c, &mut y, None, Some(Scales { scales: &scales, bias: &bias }), pool);
                for (i, (&y, &sum)) in y.iter().zip(&want).enumerate() {
                    let n = i % shape.out_c;
                    assert_eq!(y, (sum as f32 * scales[n] + bias[n]).to_bits().cast_signed(), "{isa}");
                }
            }
        });
    }
}
