//! A view of a contiguous tensor as `[outer, axis, inner]`.
//!
//! Reductions and softmax work along one axis (or a run of adjacent axes). The axes before it merge into one, and so do
//! the axes after it, so such a kernel needs only three sizes.

/// The lengths of a view `[outer, axis, inner]` of a contiguous tensor.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct MiddleAxis {
    /// The product of the axes before it.
    pub outer: usize,
    /// The length of the axis that the kernel works along.
    pub axis: usize,
    /// The product of the axes after it: 1 if the axis is the last.
    pub inner: usize,
}

impl MiddleAxis {
    /// The view of a tensor of `shape` in which `axes` are the middle axis.
    ///
    /// `None` if `axes` does not lie inside the shape or a product does not fit in `usize`.
    pub fn new(shape: &[usize], axes: std::ops::Range<usize>) -> Option<Self> {
        let product = |axes: &[usize]| axes.iter().try_fold(1usize, |len, &n| len.checked_mul(n));
        let view = MiddleAxis {
            outer: product(shape.get(..axes.start)?)?,
            axis: product(shape.get(axes.clone())?)?,
            inner: product(shape.get(axes.end..)?)?,
        };
        view.outer.checked_mul(view.axis)?.checked_mul(view.inner)?;
        Some(view)
    }

    /// The element count of the tensor. Panics if it does not fit in `usize`.
    pub(crate) fn len(&self) -> usize {
        let len = self.outer.checked_mul(self.axis).and_then(|len| len.checked_mul(self.inner));
        len.expect("a tensor that fits in memory")
    }
}
