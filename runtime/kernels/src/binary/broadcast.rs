//! Two operands, walked along one output shape.

use std::fmt;
use std::ops::Range;

/// The highest rank of a broadcast, before axes are merged.
pub const MAX_RANK: usize = 8;

/// The positions of the operands of an elementwise function, for every element of the output.
///
/// The output is contiguous. Axes of length 1 are dropped, and axes that both operands traverse with a single stride
/// are merged, so the broadcast of two tensors of the same shape has one axis.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Broadcast {
    /// The merged axes, outermost first; only the first `rank`, at least one, are used.
    axes: [BroadcastAxis; MAX_RANK],
    rank: usize,
    len: usize,
}

/// One axis of the output, with the stride of each operand in elements.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct BroadcastAxis {
    len: usize,
    a: usize,
    b: usize,
}

/// Why two tensors cannot be broadcast.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum BroadcastError {
    /// More than [`MAX_RANK`] axes.
    Rank,
    /// The number of strides differs from the rank, or an operand's shape does not broadcast to the output's.
    Shape,
    /// The element count, or the reach of the strides, does not fit in `usize`.
    TooLarge,
}

impl fmt::Display for BroadcastError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            BroadcastError::Rank => "more than 8 axes",
            BroadcastError::Shape => "shapes that do not broadcast",
            BroadcastError::TooLarge => "more elements than can be addressed",
        })
    }
}

impl std::error::Error for BroadcastError {}

impl Broadcast {
    /// A broadcast to the contiguous output `shape`; `a` and `b` are the strides of the operands in elements, 0 along
    /// an axis where the operand is repeated.
    pub fn new(shape: &[usize], a: &[usize], b: &[usize]) -> Result<Self, BroadcastError> {
        if shape.len() > MAX_RANK {
            return Err(BroadcastError::Rank);
        }
        if a.len() != shape.len() || b.len() != shape.len() {
            return Err(BroadcastError::Shape);
        }
        let len = shape.iter().try_fold(1usize, |len, &axis| len.checked_mul(axis));
        let len = len.ok_or(BroadcastError::TooLarge)?;
        let mut this = Broadcast { axes: [BroadcastAxis::default(); MAX_RANK], rank: 0, len };
        for i in (0..shape.len()).filter(|&i| shape[i] != 1) {
            this.push(BroadcastAxis { len: shape[i], a: a[i], b: b[i] });
        }
        if this.rank == 0 {
            this.push(BroadcastAxis { len: 1, a: 0, b: 0 });
        }
        this.reach().ok_or(BroadcastError::TooLarge)?;
        Ok(this)
    }

    /// The broadcast of two contiguous tensors by NumPy's rule: shapes are aligned at the last axis, and an axis that
    /// is 1 or missing is repeated.
    pub fn of_shapes(a: &[usize], b: &[usize]) -> Result<Self, BroadcastError> {
        let rank = a.len().max(b.len());
        if rank > MAX_RANK {
            return Err(BroadcastError::Rank);
        }
        let (a_shape, b_shape) = (aligned(a, rank), aligned(b, rank));
        let mut shape = [1; MAX_RANK];
        for i in 0..rank {
            shape[i] = match (a_shape[i], b_shape[i]) {
                (a, b) if a == b => a,
                (1, b) => b,
                (a, 1) => a,
                _ => return Err(BroadcastError::Shape),
            };
        }
        let a = contiguous_strides(&a_shape[..rank]).ok_or(BroadcastError::TooLarge)?;
        let b = contiguous_strides(&b_shape[..rank]).ok_or(BroadcastError::TooLarge)?;
        Broadcast::new(&shape[..rank], &a[..rank], &b[..rank])
    }

    /// The same with the operands in the other order.
    pub(super) fn swapped(mut self) -> Self {
        for axis in &mut self.axes {
            (axis.a, axis.b) = (axis.b, axis.a);
        }
        self
    }

    /// The element count of the output.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.len
    }

    /// Adds the next inner axis, merging it with the one before if the strides of both operands allow it.
    fn push(&mut self, inner: BroadcastAxis) {
        if let Some(outer) = self.rank.checked_sub(1).map(|i| &mut self.axes[i]) {
            let joins = |outer: usize, stride: usize| stride.checked_mul(inner.len) == Some(outer);
            if joins(outer.a, inner.a) && joins(outer.b, inner.b) {
                // Cannot overflow unless an axis is empty: the product divides `self.len`.
                *outer = BroadcastAxis { len: outer.len.saturating_mul(inner.len), ..inner };
                return;
            }
        }
        self.axes[self.rank] = inner;
        self.rank += 1;
    }

    /// How many elements of `a` and of `b` the walk spans, starting at the first.
    fn reach(&self) -> Option<(usize, usize)> {
        if self.len == 0 {
            return Some((0, 0));
        }
        self.axes[..self.rank].iter().try_fold((1usize, 1usize), |(a, b), axis| {
            let last = axis.len - 1;
            let a = a.checked_add(axis.a.checked_mul(last)?)?;
            let b = b.checked_add(axis.b.checked_mul(last)?)?;
            Some((a, b))
        })
    }

    /// Panics unless the walk stays inside operands and output of these lengths.
    pub(super) fn check(&self, a: usize, b: usize, y: usize) {
        let (a_reach, b_reach) = self.reach().expect("checked when built");
        assert!(a >= a_reach, "the first operand has {a} elements, not {a_reach}");
        assert!(b >= b_reach, "the second operand has {b} elements, not {b_reach}");
        assert_eq!(y, self.len, "output length");
    }

    /// The elements `range` of the output as parts of rows of the last axis.
    pub(super) fn rows(&self, range: Range<usize>) -> BroadcastRuns<'_> {
        let mut rows = BroadcastRuns { broadcast: self, index: [0; MAX_RANK], a: 0, b: 0, left: range.len() };
        let last = self.rank - 1;
        let mut rest = range.start;
        for (i, axis) in self.axes[..self.rank].iter().enumerate().rev() {
            let len = axis.len.max(1);
            rows.index[i] = rest % len;
            rest /= len;
            if i < last {
                rows.a += axis.a * rows.index[i];
                rows.b += axis.b * rows.index[i];
            }
        }
        rows
    }
}

/// `shape` padded with leading ones.
fn aligned(shape: &[usize], rank: usize) -> [usize; MAX_RANK] {
    let mut aligned = [1; MAX_RANK];
    aligned[rank - shape.len()..rank].copy_from_slice(shape);
    aligned
}

/// The strides of a contiguous tensor, 0 along axes of length 1.
fn contiguous_strides(shape: &[usize]) -> Option<[usize; MAX_RANK]> {
    let mut strides = [0; MAX_RANK];
    let mut stride = 1usize;
    for (i, &len) in shape.iter().enumerate().rev() {
        strides[i] = if len == 1 { 0 } else { stride };
        stride = stride.checked_mul(len)?;
    }
    Some(strides)
}

/// A run of consecutive outputs in one row of the last axis.
#[derive(Clone, Copy, Debug)]
pub(super) struct BroadcastRun {
    /// Start of the run in each operand.
    pub(super) a: usize,
    pub(super) b: usize,
    /// The stride of each operand along the run.
    pub(super) a_stride: usize,
    pub(super) b_stride: usize,
    /// Outputs in the run.
    pub(super) len: usize,
}

/// The runs of a range of outputs, in order.
#[derive(Clone)]
pub(super) struct BroadcastRuns<'a> {
    broadcast: &'a Broadcast,
    index: [usize; MAX_RANK],
    /// Start of the current row in each operand.
    a: usize,
    b: usize,
    left: usize,
}

impl Iterator for BroadcastRuns<'_> {
    type Item = BroadcastRun;

    #[inline(always)]
    fn next(&mut self) -> Option<BroadcastRun> {
        if self.left == 0 {
            return None;
        }
        let last = self.broadcast.rank - 1;
        let axis = self.broadcast.axes[last];
        let start = self.index[last];
        let row = BroadcastRun {
            a: self.a + start * axis.a,
            b: self.b + start * axis.b,
            a_stride: axis.a,
            b_stride: axis.b,
            len: (axis.len - start).min(self.left),
        };
        self.left -= row.len;
        self.index[last] = 0;
        self.step(last);
        Some(row)
    }
}

impl BroadcastRuns<'_> {
    /// Advances to the next index of the axes before `last`.
    #[inline(always)]
    fn step(&mut self, last: usize) {
        for i in (0..last).rev() {
            let axis = &self.broadcast.axes[i];
            self.index[i] += 1;
            self.a += axis.a;
            self.b += axis.b;
            if self.index[i] < axis.len {
                return;
            }
            self.index[i] = 0;
            self.a -= axis.a * axis.len;
            self.b -= axis.b * axis.len;
        }
    }
}
