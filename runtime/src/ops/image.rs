//! The memory layout of a batch of images.
//!
//! ONNX uses `[N, C, H, W]`. The dense kernels need the channels innermost, `[N, H, W, C]`; the layout pass rewrites
//! every spatial operator to that. Before that pass, and in plain evaluation, both layouts are read through this
//! module.

use serde::{Deserialize, Serialize};

use crate::error::OpError;
use crate::tensor::Shape;

/// Order of the axes of a batch of images.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Layout {
    /// Channels before pixels, as in ONNX.
    #[default]
    Nchw,
    /// Channels innermost, as the kernels need.
    Nhwc,
}

/// The position of each NCHW axis in NHWC.
pub const NHWC_AXIS: [usize; 4] = [0, 3, 1, 2];

impl Layout {
    /// The position of the channels axis.
    #[must_use]
    pub fn channels_axis(self) -> usize {
        match self {
            Self::Nchw => 1,
            Self::Nhwc => 3,
        }
    }

    /// Refuses to plan an operator that the layout pass has not rewritten.
    pub(crate) fn kernel(self) -> Result<(), OpError> {
        match self {
            Self::Nhwc => Ok(()),
            Self::Nchw => Err(OpError::Attribute {
                name: "layout",
                reason: "kernels take NHWC; the layout pass was left out".into(),
            }),
        }
    }
}

/// Dimensions of a batch of images.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ImageDims {
    /// Images.
    pub batch: usize,
    /// Channels.
    pub channels: usize,
    /// Rows.
    pub height: usize,
    /// Columns.
    pub width: usize,
}

impl ImageDims {
    /// Reads a rank-4 shape.
    ///
    /// # Errors
    /// [`OpError::Shape`] for any other rank.
    pub fn new(layout: Layout, shape: &Shape) -> Result<Self, OpError> {
        let &[batch, a, b, c] = shape.dims() else {
            return Err(OpError::shapes("a batch of images has 4 dimensions", &[shape]));
        };
        Ok(match layout {
            Layout::Nchw => Self { batch, channels: a, height: b, width: c },
            Layout::Nhwc => Self { batch, channels: c, height: a, width: b },
        })
    }

    /// The shape of these images in a layout.
    ///
    /// # Errors
    /// [`OpError::TooLarge`] past the address space.
    pub fn shape(&self, layout: Layout) -> Result<Shape, OpError> {
        match layout {
            Layout::Nchw => Shape::new(&[self.batch, self.channels, self.height, self.width]),
            Layout::Nhwc => Shape::new(&[self.batch, self.height, self.width, self.channels]),
        }
    }

    /// The offset of the element with this image, channel, row and column.
    #[must_use]
    pub fn offset(&self, layout: Layout, [n, c, y, x]: [usize; 4]) -> usize {
        match layout {
            Layout::Nchw => ((n * self.channels + c) * self.height + y) * self.width + x,
            Layout::Nhwc => ((n * self.height + y) * self.width + x) * self.channels + c,
        }
    }

    /// Elements from a channel to the next one of the same pixel.
    #[must_use]
    pub fn channel_step(&self, layout: Layout) -> usize {
        match layout {
            Layout::Nchw => self.height * self.width,
            Layout::Nhwc => 1,
        }
    }

    /// All `[image, channel, row, column]`, in memory order of the layout.
    pub fn positions(self, layout: Layout) -> impl Iterator<Item = [usize; 4]> {
        let (outer, middle, inner) = match layout {
            Layout::Nchw => (self.channels, self.height, self.width),
            Layout::Nhwc => (self.height, self.width, self.channels),
        };
        (0..self.batch).flat_map(move |n| {
            (0..outer).flat_map(move |a| {
                (0..middle).flat_map(move |b| {
                    (0..inner).map(move |c| match layout {
                        Layout::Nchw => [n, a, b, c],
                        Layout::Nhwc => [n, c, a, b],
                    })
                })
            })
        })
    }
}

/// The taps of a window along one axis that are inside the image: pairs of tap and pixel.
pub(crate) fn taps(
    out: usize,
    stride: usize,
    dilation: usize,
    pad: usize,
    kernel: usize,
    len: usize,
) -> impl Iterator<Item = (usize, usize)> {
    (0..kernel).filter_map(move |tap| {
        let pixel = (out * stride + tap * dilation).checked_sub(pad)?;
        (pixel < len).then_some((tap, pixel))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_walk_memory_in_order() {
        let image = ImageDims { batch: 2, channels: 3, height: 2, width: 5 };
        for layout in [Layout::Nchw, Layout::Nhwc] {
            let offsets: Vec<usize> = image.positions(layout).map(|at| image.offset(layout, at)).collect();
            assert_eq!(offsets, (0..60).collect::<Vec<_>>());
            assert_eq!(ImageDims::new(layout, &image.shape(layout).unwrap()).unwrap(), image);
        }
    }
}
