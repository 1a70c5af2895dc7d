//! Padded copies of planes, for kernels whose lanes are neighboring columns of an image.
//!
//! A copy has zeros where windows reach past the image, so such a kernel loads without masks. At horizontal stride 2,
//! the even and the odd columns of a row are stored separately, so that the inputs of neighboring outputs are neighbors
//! too.

use std::ops::Range;

use crate::conv::{ConvShape, product};
use crate::lanes::Lanes;

/// The layout of copied rows.
#[derive(Clone, Copy)]
pub(crate) struct Padded {
    in_h: usize,
    in_w: usize,
    pad_top: usize,
    pad_left: usize,
    /// Horizontal distance between windows: 1 or 2, which is also the number of parts of a row.
    stride: usize,
    /// Elements of a part of a row.
    columns: usize,
}

/// Largest reach of a kernel and largest padding: limits the size of the copy.
const MAX_REACH: usize = 64;

impl Padded {
    /// Whether the horizontal stride is 1 or 2, and windows and padding reach no further than `MAX_REACH`.
    pub fn takes(shape: &ConvShape) -> bool {
        let reach = |axis: usize| shape.kernel[axis].saturating_sub(1).saturating_mul(shape.dilation[axis]);
        let pads = [shape.pad_top, shape.pad_left];
        (1..=2).contains(&shape.stride[1])
            && (0..2).all(|axis| shape.kernel[axis] > 0 && reach(axis) <= MAX_REACH && pads[axis] <= MAX_REACH)
    }

    /// The layout for a convolution that this module [supports](Self::takes), and registers of `width` lanes. Register
    /// loads for outputs that do not exist stay inside the copy.
    pub fn new(s: &ConvShape, width: usize) -> Self {
        let stride = s.stride[1];
        let read = s.out_w.max(width) + (s.kernel[1] - 1) * s.dilation[1] / stride;
        let written = s.pad_left.div_ceil(stride) + s.in_w.div_ceil(stride).next_multiple_of(width);
        let &ConvShape { in_h, in_w, pad_top, pad_left, .. } = s;
        Padded { in_h, in_w, pad_top, pad_left, stride, columns: read.max(written) }
    }

    /// Elements from one row to the next.
    pub fn row_len(&self) -> usize {
        product(&[self.stride, self.columns])
    }

    /// Position in a row of column `at`, counted from the left end of the padding.
    #[inline(always)]
    pub fn column(&self, at: usize) -> usize {
        // A division would take longer than everything else.
        if self.stride == 1 { at } else { at % 2 * self.columns + at / 2 }
    }

    /// Copies rows of a plane, counted from the top of the padding. The zeros left and right of the image must already
    /// be present, and with `only_inside` also those above and below it.
    ///
    /// # Safety
    /// The CPU has the instructions of `L`, and the caller is compiled for them; the plane is readable, and `to` is
    /// writable for the rows; `self` was created for the width of `L`.
    #[inline(always)]
    pub unsafe fn copy<L: Lanes>(&self, plane: *const f32, rows: Range<usize>, to: *mut f32, only_inside: bool) {
        let row_len = self.row_len();
        let (even, odd) = (self.column(self.pad_left), self.column(self.pad_left + 1));
        // The rows that are inside the image.
        let first = self.pad_top.clamp(rows.start, rows.end);
        let end = (self.pad_top + self.in_h).clamp(first, rows.end);
        if !only_inside {
            // SAFETY: all rows are writable.
            unsafe {
                to.write_bytes(0, (first - rows.start) * row_len);
                to.add((end - rows.start) * row_len).write_bytes(0, (rows.end - end) * row_len);
            }
        }
        let at_once = self.stride * L::WIDTH;
        let whole = self.in_w - self.in_w % at_once;
        let tail = self.in_w - whole;
        let mut from = plane.wrapping_add((first - self.pad_top.min(first)) * self.in_w);
        let mut to = to.wrapping_add((first - rows.start) * row_len);
        for _ in first..end {
            // SAFETY: the plane has the row, whose last columns are `tail`. Writes stay inside the row of the copy:
            // every part of it has space for whole registers after the padding.
            unsafe {
                let mut x = 0;
                while x < self.in_w {
                    let at = from.add(x);
                    let zero = L::splat(0.0);
                    let (first, second) = if x < whole {
                        (L::load(at), if self.stride == 1 { zero } else { L::load(at.add(L::WIDTH)) })
                    } else if tail < L::WIDTH {
                        (L::load_first(at, tail), zero)
                    } else {
                        (L::load(at), L::load_first(at.add(L::WIDTH), tail - L::WIDTH))
                    };
                    if self.stride == 1 {
                        first.store(to.add(even + x));
                    } else {
                        let (first, second) = first.unzip(second);
                        first.store(to.add(even + x / 2));
                        second.store(to.add(odd + x / 2));
                    }
                    x += at_once;
                }
            }
            from = from.wrapping_add(self.in_w);
            to = to.wrapping_add(row_len);
        }
    }
}
