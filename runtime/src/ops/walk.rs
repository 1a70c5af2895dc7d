//! Walks operands along an output shape: NumPy's broadcasting rule, and the plain loop.

use skipstone_kernels::pace::{PIECE, Pace};

use crate::error::OpError;
use crate::tensor::{MAX_RANK, Shape};

/// Strides of an operand along the axes of an output, in elements.
pub(crate) type Strides = heapless::Vec<usize, MAX_RANK>;

/// Strides of a dense operand of shape `from` along the axes of `to`, 0 where it is repeated.
///
/// `from` must broadcast to `to`.
pub(crate) fn broadcast_strides(from: &Shape, to: &Shape) -> Strides {
    let dense = from.strides();
    (0..to.rank())
        .map(|axis| match (axis + from.rank()).checked_sub(to.rank()) {
            Some(i) if from[i] != 1 => dense[i],
            _ => 0,
        })
        .collect()
}

/// A walk over all elements of a dense output, with the offsets of `N` operands.
#[derive(Clone, Debug)]
pub(crate) struct Walk<const N: usize> {
    dims: Strides,
    strides: [Strides; N],
}

impl<const N: usize> Walk<N> {
    /// A walk over `shape`; `strides` are those of each operand, one per axis.
    pub(crate) fn new(shape: &[usize], strides: [Strides; N]) -> Self {
        Self { dims: shape.iter().copied().take(MAX_RANK).collect(), strides }
    }

    /// A walk over `to` of dense operands that broadcast to it.
    pub(crate) fn broadcast(to: &Shape, from: [&Shape; N]) -> Self {
        Self::new(to, from.map(|shape| broadcast_strides(shape, to)))
    }

    /// Calls `f` for every element of the output, in order, with the operands' offsets.
    ///
    /// # Errors
    /// The first error of `f`, or if the run is to stop.
    pub(crate) fn try_each(
        &self,
        pace: &Pace<'_>,
        mut f: impl FnMut([usize; N]) -> Result<(), OpError>,
    ) -> Result<(), OpError> {
        self.try_runs(pace, |mut offsets, steps, len| {
            for _ in 0..len {
                f(offsets)?;
                for (offset, step) in offsets.iter_mut().zip(steps) {
                    *offset += step;
                }
            }
            Ok(())
        })
    }

    /// Calls `f` for runs of elements along the last axis, in order, with the operands' offsets, the distances between
    /// their elements, and the number of elements.
    ///
    /// # Errors
    /// Like [`try_each`](Self::try_each).
    pub(crate) fn try_runs(
        &self,
        pace: &Pace<'_>,
        mut f: impl FnMut([usize; N], [usize; N], usize) -> Result<(), OpError>,
    ) -> Result<(), OpError> {
        let steps = self.strides.each_ref().map(|strides| strides.last().copied().unwrap_or(0));
        let mut first = [0; N];
        let mut runs = Runs::new(&self.dims, &self.strides, &mut first);
        let mut offsets = [0; N];
        while let Some(len) = runs.next(pace, &mut offsets)? {
            f(offsets, steps, len)?;
        }
        Ok(())
    }

    /// Like [`try_each`](Self::try_each), for functions that cannot fail.
    pub(crate) fn each(&self, mut f: impl FnMut([usize; N])) {
        // Neither the closure nor the pace returns an error.
        let _ = self.try_each(&Pace::free(), |offsets| {
            f(offsets);
            Ok(())
        });
    }
}

/// Most elements of a run.
const RUN: usize = PIECE / 16;

/// The elements of a walk, in runs along the last axis. Compiled once, for any number of operands.
struct Runs<'a> {
    dims: &'a [usize],
    strides: &'a [Strides],
    index: [usize; MAX_RANK],
    offsets: &'a mut [usize],
    ended: bool,
}

impl<'a> Runs<'a> {
    /// A walk from its first element on; `offsets` are zeros.
    #[inline(never)]
    fn new(dims: &'a [usize], strides: &'a [Strides], offsets: &'a mut [usize]) -> Self {
        Runs { dims, strides, index: [0; MAX_RANK], offsets, ended: dims.contains(&0) }
    }

    /// Writes the offsets of the next run, and returns its length.
    #[inline(never)]
    fn next(&mut self, pace: &Pace<'_>, offsets: &mut [usize]) -> Result<Option<usize>, OpError> {
        if self.ended {
            return Ok(None);
        }
        offsets.copy_from_slice(self.offsets);
        let Some(last) = self.dims.len().checked_sub(1) else {
            self.ended = true;
            return Ok(Some(1));
        };
        let len = (self.dims[last] - self.index[last]).min(RUN);
        // An element takes as long as several steps, and so does a run.
        pace.spend(16 + 4 * len)?;
        // Like an odometer: an axis that has reached its end restarts, and the one before it advances.
        let (mut axis, mut by) = (last, len);
        loop {
            self.index[axis] += by;
            let at_end = self.index[axis] == self.dims[axis];
            for (offset, strides) in self.offsets.iter_mut().zip(self.strides) {
                *offset += strides[axis] * by;
                if at_end {
                    *offset -= strides[axis] * self.dims[axis];
                }
            }
            if !at_end {
                break;
            }
            self.index[axis] = 0;
            let Some(next) = axis.checked_sub(1) else {
                self.ended = true;
                break;
            };
            (axis, by) = (next, 1);
        }
        Ok(Some(len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(dims: &[usize]) -> Shape {
        Shape::new(dims).unwrap()
    }

    #[test]
    fn a_walk_visits_operands_in_the_outputs_order() {
        let walk = Walk::broadcast(&shape(&[2, 3]), [&shape(&[2, 1]), &shape(&[3])]);
        let mut seen = Vec::new();
        walk.each(|offsets| seen.push(offsets));
        assert_eq!(seen, [[0, 0], [0, 1], [0, 2], [1, 0], [1, 1], [1, 2]]);
    }

    #[test]
    fn a_long_walk_is_the_same_in_runs() {
        for dims in [&[3, 2 * RUN + 5][..], &[RUN, 3], &[2 * RUN + 1], &[]] {
            let walk = Walk::broadcast(&shape(dims), [&shape(dims)]);
            let mut next = 0;
            walk.each(|[at]| {
                assert_eq!(at, next);
                next += 1;
            });
            assert_eq!(next, dims.iter().product::<usize>());
        }
    }

    #[test]
    fn an_empty_output_is_not_visited() {
        Walk::broadcast(&shape(&[2, 0]), [&shape(&[2, 1])]).each(|_| panic!("visited"));
    }
}
