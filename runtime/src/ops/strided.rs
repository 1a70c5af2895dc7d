//! Strided copies of boxes of elements: the geometry of slices, pads, expansions and tiles, computed once and run by
//! one kernel.

use skipstone_kernels::copy::{StridedCopy, copy_strided};
use skipstone_kernels::pace::Pace;

use crate::error::OpError;

/// Most axes of a box: twice the rank of a tensor, since a tile has two axes for each.
const MAX_AXES: usize = 16;

type Dims = heapless::Vec<usize, MAX_AXES>;
type SignedStrides = heapless::Vec<isize, MAX_AXES>;

/// A box of elements in an input and in an output; strides and offsets in elements.
#[derive(Clone, Debug, Default)]
pub(crate) struct BoxCopy {
    dims: Dims,
    from: usize,
    from_strides: SignedStrides,
    to: usize,
    to_strides: SignedStrides,
}

impl BoxCopy {
    /// A box whose first element is copied from offset `from` to offset `to`.
    pub fn new(from: usize, to: usize) -> Self {
        Self { from, to, ..Self::default() }
    }

    /// Adds the next inner axis.
    ///
    /// # Errors
    /// [`OpError::TooLarge`] above 16 axes.
    pub fn push(&mut self, len: usize, from_stride: isize, to_stride: isize) -> Result<(), OpError> {
        let full = || OpError::TooLarge("more than 16 axes in a copy".into());
        self.dims.push(len).map_err(|_| full())?;
        self.from_strides.push(from_stride).map_err(|_| full())?;
        self.to_strides.push(to_stride).map_err(|_| full())
    }

    /// Copies the box; elements are `size` bytes.
    ///
    /// # Errors
    /// If the run is to stop.
    pub fn run(&self, size: usize, x: &[u8], y: &mut [u8], pace: &Pace<'_>) -> Result<(), OpError> {
        let copy = StridedCopy {
            shape: &self.dims,
            from: self.from,
            from_strides: &self.from_strides,
            to: self.to,
            to_strides: &self.to_strides,
        };
        Ok(copy_strided(size, &copy, x, y, pace)?)
    }
}

/// A stride in the kernels' type: shapes keep every offset below `isize::MAX`.
pub(crate) fn signed(stride: usize) -> isize {
    isize::try_from(stride).unwrap_or(isize::MAX)
}
