//! A permutation of axes as a walk over the output.

use std::fmt;

use super::Matrix;
use crate::pace::Stopped;

/// The highest rank of a permutation, before axes are merged.
const MAX_RANK: usize = 8;

/// A permutation of the axes of a tensor of one shape.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Permutation {
    /// The merged axes of the output, outermost first; only the first `rank`, at least one, are used.
    axes: [PermutedAxis; MAX_RANK],
    rank: usize,
}

/// One axis of the output.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct PermutedAxis {
    len: usize,
    /// Stride in the input, in elements.
    from: usize,
    /// Stride in the output, in elements.
    to: usize,
}

/// The reason why axes cannot be permuted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PermutationError {
    /// More than 8 axes.
    Rank,
    /// Not every axis occurs exactly once.
    Axes,
    /// The element count does not fit in `usize`.
    TooLarge,
}

impl fmt::Display for PermutationError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            PermutationError::Rank => "more than 8 axes",
            PermutationError::Axes => "a permutation that does not name every axis once",
            PermutationError::TooLarge => "more elements than can be addressed",
        })
    }
}

impl std::error::Error for PermutationError {}

impl Permutation {
    /// Output axis `i` is axis `perm[i]` of a contiguous tensor of `shape`.
    pub fn new(shape: &[usize], perm: &[usize]) -> Result<Self, PermutationError> {
        let rank = shape.len();
        if rank > MAX_RANK {
            return Err(PermutationError::Rank);
        }
        let named_once = (0..rank).all(|axis| perm.iter().filter(|&&p| p == axis).count() == 1);
        if perm.len() != rank || !named_once {
            return Err(PermutationError::Axes);
        }
        let mut strides = [0; MAX_RANK];
        let mut len = 1usize;
        for i in (0..rank).rev() {
            strides[i] = len;
            len = len.checked_mul(shape[i]).ok_or(PermutationError::TooLarge)?;
        }
        let mut this = Permutation { axes: [PermutedAxis::default(); MAX_RANK], rank: 0 };
        for &p in perm.iter().filter(|&&p| shape[p] != 1) {
            this.push(PermutedAxis { len: shape[p], from: strides[p], to: 0 });
        }
        if this.rank == 0 {
            this.push(PermutedAxis { len: 1, from: 1, to: 1 });
        }
        let mut stride = 1;
        for axis in this.axes[..this.rank].iter_mut().rev() {
            axis.to = stride;
            stride *= axis.len;
        }
        Ok(this)
    }

    /// Adds the next inner axis, merging it with the one before if they are adjacent in the input.
    fn push(&mut self, inner: PermutedAxis) {
        if let Some(outer) = self.rank.checked_sub(1).map(|i| &mut self.axes[i])
            && outer.from == inner.from * inner.len
        {
            *outer = PermutedAxis { len: outer.len * inner.len, ..inner };
            return;
        }
        self.axes[self.rank] = inner;
        self.rank += 1;
    }

    /// The element count.
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.axes[0].len * self.row_len()
    }

    /// Elements of the output per index of its first axis.
    pub(super) fn row_len(&self) -> usize {
        self.axes[0].to
    }

    /// Indices `first..first + count` of the output's first axis, as a separate permutation.
    pub(super) fn rows(&self, first: usize, count: usize) -> Share {
        let mut steps = *self;
        steps.axes[0].len = count;
        Share { start: first * self.axes[0].from, steps }
    }

    /// Calls `f` with the copies and matrix transpositions that together make up this permutation, unless the run is
    /// to stop.
    pub(super) fn for_each_step(&self, mut f: impl FnMut(TransposeStep) -> Result<(), Stopped>) {
        let axes = &self.axes[..self.rank];
        let last = self.rank - 1;
        // The input's last axis. If its length was 1, it has been dropped, and the last axis of the output, whatever
        // its stride, is read element by element as a matrix with one column.
        let unit = axes.iter().position(|axis| axis.from == 1);
        let mut outer = *self;
        outer.axes[last].len = 1;
        if let Some(unit) = unit {
            outer.axes[unit].len = 1;
        }
        let mut index = [0; MAX_RANK];
        loop {
            let at = |stride: fn(&PermutedAxis) -> usize| {
                axes.iter().zip(index).map(|(axis, i)| stride(axis) * i).sum::<usize>()
            };
            let (from, to) = (at(|axis| axis.from), at(|axis| axis.to));
            let done = f(match unit {
                Some(unit) if unit == last => TransposeStep::Copy { from, to, len: axes[last].len },
                _ => TransposeStep::Matrix(Matrix {
                    rows: axes[last].len,
                    columns: unit.map_or(1, |unit| axes[unit].len),
                    from,
                    from_stride: axes[last].from,
                    to,
                    to_stride: unit.map_or(1, |unit| axes[unit].to),
                }),
            });
            if done.is_err() {
                return;
            }
            // Advances to the next index, innermost axis first.
            let Some(i) = (0..self.rank).rev().find(|&i| index[i] + 1 < outer.axes[i].len) else {
                return;
            };
            index[i] += 1;
            index[i + 1..].fill(0);
        }
    }
}

/// A part of a permutation along the output's first axis.
pub(super) struct Share {
    /// The first input element of the part.
    pub(super) start: usize,
    pub(super) steps: Permutation,
}

/// A piece of work with simple strides, in elements.
#[derive(Clone, Copy, Debug)]
pub(super) enum TransposeStep {
    /// A contiguous run, copied as it is.
    Copy { from: usize, to: usize, len: usize },
    /// A matrix transposition.
    Matrix(Matrix),
}
