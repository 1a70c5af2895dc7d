//! Shapes: the dimensions of a tensor.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::error::{OpError, list};

/// Highest rank of a tensor.
pub const MAX_RANK: usize = 8;

/// Dimensions, outermost first; at most [`MAX_RANK`] of them, kept inline.
#[derive(Clone, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(try_from = "heapless::Vec<usize, MAX_RANK>")]
pub struct Shape(heapless::Vec<usize, MAX_RANK>);

impl Shape {
    /// A shape of these dimensions.
    ///
    /// # Errors
    /// [`OpError::TooLarge`] above [`MAX_RANK`] dimensions or where the element count, in
    /// bytes of the widest type, passes the address space.
    pub fn new(dims: &[usize]) -> Result<Self, OpError> {
        let too_large = || OpError::TooLarge(list(dims));
        dims.iter()
            .try_fold(8usize, |all, &d| all.checked_mul(d.max(1)))
            .filter(|&bytes| isize::try_from(bytes).is_ok())
            .ok_or_else(too_large)?;
        heapless::Vec::from_slice(dims).map(Self).map_err(|_| too_large())
    }

    /// The dimensions.
    #[must_use]
    pub fn dims(&self) -> &[usize] {
        &self.0
    }

    /// Number of dimensions.
    #[must_use]
    pub fn rank(&self) -> usize {
        self.0.len()
    }

    /// Number of elements; 1 for a scalar.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.0.iter().product()
    }

    /// Dense row-major strides, in elements.
    #[must_use]
    pub fn strides(&self) -> heapless::Vec<usize, MAX_RANK> {
        let mut strides = self.0.clone();
        let mut step = 1;
        for (stride, &dim) in strides.iter_mut().zip(&self.0).rev() {
            *stride = step;
            step *= dim;
        }
        strides
    }

    /// The shape that all of these broadcast to by NumPy's rule: aligned at the last axis; a missing axis or one of
    /// size 1 is repeated.
    ///
    /// # Errors
    /// [`OpError::Shape`] if two axes of different lengths meet.
    pub fn broadcast(shapes: &[&Self]) -> Result<Self, OpError> {
        let rank = shapes.iter().map(|s| s.rank()).max().unwrap_or(0);
        let mut dims = heapless::Vec::<usize, MAX_RANK>::new();
        for axis in 0..rank {
            let mut joint = 1;
            for shape in shapes {
                let dim = (axis + shape.rank()).checked_sub(rank).map_or(1, |i| shape[i]);
                if dim != 1 && joint != 1 && dim != joint {
                    return Err(OpError::shapes("these shapes do not broadcast", shapes));
                }
                if dim != 1 {
                    joint = dim;
                }
            }
            // Cannot be full: a shape has at most MAX_RANK axes.
            let _ = dims.push(joint);
        }
        Self::new(&dims)
    }
}

impl TryFrom<heapless::Vec<usize, MAX_RANK>> for Shape {
    type Error = OpError;

    fn try_from(dims: heapless::Vec<usize, MAX_RANK>) -> Result<Self, OpError> {
        Self::new(&dims)
    }
}

impl std::ops::Deref for Shape {
    type Target = [usize];
    fn deref(&self) -> &[usize] {
        &self.0
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return f.write_str("scalar");
        }
        for (i, dim) in self.0.iter().enumerate() {
            write!(f, "{}{dim}", if i == 0 { "" } else { "x" })?;
        }
        Ok(())
    }
}

impl fmt::Debug for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shapes_align_at_the_last_axis() {
        let shape = |dims: &[usize]| Shape::new(dims).unwrap();
        let of = |a: &[usize], b: &[usize]| Shape::broadcast(&[&shape(a), &shape(b)]).map(|s| s.to_vec()).ok();
        assert_eq!(of(&[2, 3], &[3]), Some(vec![2, 3]));
        assert_eq!(of(&[2, 1, 4], &[3, 1]), Some(vec![2, 3, 4]));
        assert_eq!(of(&[], &[5]), Some(vec![5]));
        assert_eq!(of(&[0], &[1]), Some(vec![0]));
        assert_eq!(of(&[2], &[3]), None);
    }
}
