//! Resizing an NHWC image to another height and width.
//!
//! The operator determines which input pixels an output pixel reads (half-pixel centers, aligned corners, rounding) and
//! passes one table per axis. For the nearest pixel, `y[oh, ow] = x[rows[oh], columns[ow]]`. For linear interpolation,
//! with `lerp(a, b, f) = a + f * (b - a)`, the pixels `(lo, hi)` of the two axes are blended along the columns and then
//! along the rows.

mod scalar;
mod vector;

#[cfg(test)]
mod tests;

use crate::isa::Isa;
use crate::parallel;
use crate::pool::ImageShape;
use crate::simd::dispatch;
use crate::threads::Pool;

/// The input pixel of every output pixel along one axis.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NearestAxis(pub Vec<u32>);

/// The two input pixels of every output pixel along one axis, and its position between them.
#[derive(Clone, PartialEq, Debug)]
pub struct LinearAxis {
    /// The pixel before it.
    pub lo: Vec<u32>,
    /// The pixel after it.
    pub hi: Vec<u32>,
    /// 0 at `lo`, 1 at `hi`.
    pub frac: Vec<f32>,
}

impl LinearAxis {
    /// The number of output pixels, if the tables have equal lengths and all indices are below `len`.
    fn checked_len(&self, len: usize) -> Option<usize> {
        let inside = |table: &[u32]| table.iter().all(|&at| (at as usize) < len);
        let n = self.frac.len();
        let agree = self.lo.len() == n && self.hi.len() == n;
        (agree && inside(&self.lo) && inside(&self.hi)).then_some(n)
    }

    /// The entry of output pixel `o`.
    #[inline(always)]
    fn at(&self, o: usize) -> (usize, usize, f32) {
        (self.lo[o] as usize, self.hi[o] as usize, self.frac[o])
    }
}

/// Copies the nearest pixel: `[batch, rows, columns, channels]` results.
///
/// # Panics
/// If a table index lies outside the image, or the length of `x` or `y` does not match.
pub fn resize_nearest(
    image: ImageShape,
    rows: &NearestAxis,
    columns: &NearestAxis,
    x: &[f32],
    y: &mut [f32],
    pool: &Pool,
) {
    let inside = |axis: &NearestAxis, len| axis.0.iter().all(|&at| (at as usize) < len);
    assert!(inside(rows, image.height) && inside(columns, image.width), "tables in the image");
    let (rows, columns) = (&rows.0, &columns.0);
    each_row(image, rows.len(), columns.len(), x, y, pool, |x, oh, first, y| {
        let row_len = image.width * image.channels;
        let row = &x[rows[oh] as usize * row_len..][..row_len];
        // Copying pixels is the same on every instruction set.
        for (&w, y) in columns[first..].iter().zip(y.chunks_exact_mut(image.channels)) {
            y.copy_from_slice(&row[w as usize * image.channels..][..image.channels]);
        }
    });
}

/// Interpolates between four pixels: `[batch, rows, columns, channels]` results.
///
/// # Panics
/// If the tables of an axis differ in length, an index lies outside the image, or the length of `x` or `y` does not
/// match.
pub fn resize_linear(
    isa: Isa,
    image: ImageShape,
    rows: &LinearAxis,
    columns: &LinearAxis,
    x: &[f32],
    y: &mut [f32],
    pool: &Pool,
) {
    let out_h = rows.checked_len(image.height).expect("a row table in the image");
    let out_w = columns.checked_len(image.width).expect("a column table in the image");
    each_row(image, out_h, out_w, x, y, pool, |x, oh, first, y| {
        let (lo, hi, frac) = rows.at(oh);
        let row_len = image.width * image.channels;
        let row = RowPair {
            above: &x[lo * row_len..][..row_len],
            below: &x[hi * row_len..][..row_len],
            frac,
            channels: image.channels,
            columns,
            first,
        };
        match isa {
            Isa::Scalar => scalar::linear_row(&row, y),
            // With fewer channels than the smallest vector, lanes would stay empty.
            _ if image.channels < 4 => scalar::linear_row(&row, y),
            _ => dispatch(isa, vector::LinearRow { row, y }),
        }
    });
}

/// The two input rows that one row of the output is blended from.
struct RowPair<'a> {
    above: &'a [f32],
    below: &'a [f32],
    /// 0 at `above`, 1 at `below`.
    frac: f32,
    channels: usize,
    columns: &'a LinearAxis,
    /// The first column that is computed.
    first: usize,
}

/// Calls `f(x, oh, first, y)` for each image `x` and its output rows `oh`, or parts of them from column `first` on.
fn each_row(
    image: ImageShape,
    out_h: usize,
    out_w: usize,
    x: &[f32],
    y: &mut [f32],
    pool: &Pool,
    f: impl Fn(&[f32], usize, usize, &mut [f32]) + Sync,
) {
    let out = ImageShape { height: out_h, width: out_w, ..image };
    assert_eq!(x.len(), image.len(), "input length");
    assert_eq!(y.len(), out.len(), "output length");
    if y.is_empty() {
        return;
    }
    let image_len = image.height * image.width * image.channels;
    let work = 2 * y.len();
    parallel::split_rows(pool, y, [out_w * image.channels, image.channels], work, |row, first, y| {
        f(&x[row / out_h * image_len..][..image_len], row % out_h, first, y);
    });
}
