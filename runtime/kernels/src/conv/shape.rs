//! The geometry of a two-dimensional convolution.

use std::ops::Range;

/// Shape of a convolution over NHWC images. Padding after the last row and column follows from the output size.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConvShape {
    /// Images in the batch.
    pub batch: usize,
    /// Rows of the input.
    pub in_h: usize,
    /// Columns of the input.
    pub in_w: usize,
    /// Channels of the input.
    pub in_c: usize,
    /// Rows of the output.
    pub out_h: usize,
    /// Columns of the output.
    pub out_w: usize,
    /// Channels of the output.
    pub out_c: usize,
    /// Rows and columns of the kernel.
    pub kernel: [usize; 2],
    /// Distance between neighboring windows, vertical and horizontal; not 0.
    pub stride: [usize; 2],
    /// Distance between neighboring taps, vertical and horizontal; not 0.
    pub dilation: [usize; 2],
    /// Rows of zeros above the input.
    pub pad_top: usize,
    /// Columns of zeros left of the input.
    pub pad_left: usize,
    /// Channel groups; divides `in_c` and `out_c`.
    pub groups: usize,
}

/// Largest height, width, padding, stride or dilation: products of two of these and their sums stay inside 63 bits.
const MAX_SIZE: usize = 1 << 30;

impl ConvShape {
    /// The product of `[rows, depth]` and `[depth, columns]` as a convolution of one tap over an image of one column.
    pub fn matrix(rows: usize, depth: usize, columns: usize) -> Self {
        ConvShape {
            batch: 1,
            in_h: rows,
            in_w: 1,
            in_c: depth,
            out_h: rows,
            out_w: 1,
            out_c: columns,
            kernel: [1; 2],
            stride: [1; 2],
            dilation: [1; 2],
            pad_top: 0,
            pad_left: 0,
            groups: 1,
        }
    }

    /// Elements of the input.
    pub fn input_len(&self) -> usize {
        product(&[self.batch, self.in_h, self.in_w, self.in_c])
    }

    /// Elements of the output.
    pub fn output_len(&self) -> usize {
        product(&[self.pixels(), self.out_c])
    }

    /// Pixels of all outputs: the rows of the equivalent matrix product.
    pub fn pixels(&self) -> usize {
        product(&[self.batch, self.out_h, self.out_w])
    }

    /// Taps of the kernel.
    pub fn taps(&self) -> usize {
        product(&self.kernel)
    }

    /// Input channels of one group.
    pub fn group_in(&self) -> usize {
        self.in_c / self.groups
    }

    /// Output channels of one group.
    pub fn group_out(&self) -> usize {
        self.out_c / self.groups
    }

    /// Whether some window reaches past the input.
    pub fn is_padded(&self) -> bool {
        let reach = |axis: usize, out: usize| {
            (out.max(1) - 1) * self.stride[axis] + (self.kernel[axis].max(1) - 1) * self.dilation[axis]
        };
        self.pad_top > 0 || self.pad_left > 0 || reach(0, self.out_h) >= self.in_h || reach(1, self.out_w) >= self.in_w
    }

    /// Whether every output pixel is computed from the input pixel at the same position alone.
    pub fn is_pointwise(&self) -> bool {
        self.taps() == 1
            && self.stride == [1, 1]
            && !self.is_padded()
            && (self.in_h, self.in_w) == (self.out_h, self.out_w)
    }

    /// The taps of `axis` (0 rows, 1 columns) that fall inside the input for output index `out`.
    pub(crate) fn valid_taps(&self, axis: usize, out: usize) -> Range<usize> {
        let (pad, len) = if axis == 0 { (self.pad_top, self.in_h) } else { (self.pad_left, self.in_w) };
        let (start, dilation, kernel) = (out * self.stride[axis], self.dilation[axis], self.kernel[axis]);
        let first = pad.saturating_sub(start).div_ceil(dilation);
        let end = (len + pad).saturating_sub(start).div_ceil(dilation);
        first.min(kernel)..end.min(kernel).max(first.min(kernel))
    }

    /// Whether divisors are nonzero, channels divide into groups and no coordinate can overflow: every kernel requires
    /// this.
    #[must_use]
    pub fn is_sound(&self) -> bool {
        let plane = [self.in_h, self.in_w, self.out_h, self.out_w, self.pad_top, self.pad_left];
        let steps = self.kernel.iter().chain(&self.stride).chain(&self.dilation);
        plane.iter().chain(steps).all(|&size| size <= MAX_SIZE)
            && self.stride.iter().chain(&self.dilation).all(|&d| d > 0)
            && self.groups > 0
            && self.in_c.is_multiple_of(self.groups)
            && self.out_c.is_multiple_of(self.groups)
    }

    /// Panics unless the shape [is sound](Self::is_sound).
    pub(crate) fn check(&self) {
        assert!(self.is_sound(), "sizes out of range: {self:?}");
    }
}

/// The product of sizes.
///
/// # Panics
/// If it overflows: a wrapped length would be short enough to pass the checks.
pub(crate) fn product(sizes: &[usize]) -> usize {
    let mut product = 1usize;
    for &size in sizes {
        product = product.checked_mul(size).expect("size overflow");
    }
    product
}
