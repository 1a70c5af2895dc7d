//! Walks operands along an output shape: NumPy's broadcasting rule, and the plain loop.

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
    /// The first error of `f`.
    pub(crate) fn try_each(&self, mut f: impl FnMut([usize; N]) -> Result<(), OpError>) -> Result<(), OpError> {
        if self.dims.contains(&0) {
            return Ok(());
        }
        let mut index = [0usize; MAX_RANK];
        let mut offsets = [0usize; N];
        loop {
            f(offsets)?;
            // Like an odometer: the last axis that has not reached its end advances, and those after it restart.
            let mut axis = self.dims.len();
            loop {
                let Some(next) = axis.checked_sub(1) else { return Ok(()) };
                axis = next;
                index[axis] += 1;
                if index[axis] < self.dims[axis] {
                    break;
                }
                index[axis] = 0;
                for (offset, strides) in offsets.iter_mut().zip(&self.strides) {
                    *offset -= strides[axis] * (self.dims[axis] - 1);
                }
            }
            for (offset, strides) in offsets.iter_mut().zip(&self.strides) {
                *offset += strides[axis];
            }
        }
    }

    /// Like [`try_each`](Self::try_each), for functions that cannot fail.
    pub(crate) fn each(&self, mut f: impl FnMut([usize; N])) {
        // The closure never returns an error.
        let _ = self.try_each(|offsets| {
            f(offsets);
            Ok(())
        });
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
    fn an_empty_output_is_not_visited() {
        Walk::broadcast(&shape(&[2, 0]), [&shape(&[2, 1])]).each(|_| panic!("visited"));
    }
}
