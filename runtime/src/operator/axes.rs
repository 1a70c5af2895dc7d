//! Axes: how the axes of a result relate to those of its operands, as told by the operator itself.
//!
//! Passes that permute axes (layout), remove parts of them (zero channels) or swap operators (quantize) use this
//! instead of lists of operators:
//!
//! ```text
//! Add(x [2, 8, 5, 5], b [8, 1, 1])     elementwise in x and b; axis 1 of b follows axis 1 of the result
//! Reshape([2, 8, 5, 5] -> [2, 200])    axis 1: 8 parts, of 1 element in the operand and of 25 in the result
//! Concat(a [2, 3], b [2, 4])           axis 1: a from element 0, b from element 3
//! ```

use crate::tensor::{Fact, Shape};

/// How the elements of a result are computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elements {
    /// Each is an element of an operand.
    Moved,
    /// Each is a function of one element of every operand, broadcast by NumPy's rule.
    Each,
    /// Each depends on elements with the same position along the linked axes, and on any along the others.
    Mixed,
}

/// How the indices of two linked axes correspond.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// One to one.
    Same,
    /// By parts: index `i` of the operand is in part `i / inner[0] % count`, index `i` of the result in part `i /
    /// inner[1] % count`; elements come from the same part.
    Parts {
        /// Number of parts.
        count: usize,
        /// Consecutive indices per part, in the operand and in the result.
        inner: [usize; 2],
    },
    /// The operand's indices begin at this index of the result; the result's others come from elsewhere.
    At(usize),
    /// The result's indices begin at this index of the operand; the operand's others are dropped.
    From(usize),
}

/// An axis of an operand that an axis of the result follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Position of the operand.
    pub operand: usize,
    /// Its axis.
    pub from: usize,
    /// The result's axis.
    pub to: usize,
    /// How their indices correspond.
    pub how: How,
}

impl Link {
    /// A link between axes whose indices are the same.
    #[must_use]
    pub fn same(operand: usize, from: usize, to: usize) -> Self {
        Self { operand, from, to, how: How::Same }
    }

    /// The part of the link that index `i` of the operand is in.
    #[must_use]
    pub fn part_of_operand(&self, i: usize) -> Option<usize> {
        match self.how {
            How::Same | How::At(_) => Some(i),
            How::Parts { count, inner: [inner, _] } => (i / inner).checked_rem(count),
            How::From(start) => i.checked_sub(start),
        }
    }

    /// The part of the link that index `i` of the result is in.
    #[must_use]
    pub fn part_of_result(&self, i: usize) -> Option<usize> {
        match self.how {
            How::Same | How::From(_) => Some(i),
            How::Parts { count, inner: [_, inner] } => (i / inner).checked_rem(count),
            How::At(start) => i.checked_sub(start),
        }
    }
}

/// What the axes of an operator's only result follow; an axis without a link has no known relation.
#[derive(Clone, Debug)]
pub struct Axes {
    /// How the elements are computed.
    pub elements: Elements,
    /// The axes that follow others.
    pub links: Vec<Link>,
}

impl Axes {
    /// For an operator without known relations.
    #[must_use]
    pub fn unknown() -> Self {
        Self::new(Elements::Mixed, [])
    }

    /// With these links.
    #[must_use]
    pub fn new(elements: Elements, links: impl IntoIterator<Item = Link>) -> Self {
        Self { elements, links: links.into_iter().collect() }
    }

    /// For an elementwise function.
    #[must_use]
    pub fn elementwise(inputs: &[&Fact]) -> Self {
        let shapes: Vec<&Shape> = inputs.iter().map(|fact| &fact.shape).collect();
        let Ok(out) = Shape::broadcast(&shapes) else { return Self::unknown() };
        let links = shapes.iter().enumerate().flat_map(|(operand, shape)| {
            let first = out.rank() - shape.rank();
            let equal = (0..shape.rank()).filter(|&axis| shape.get(axis) == out.get(first + axis));
            equal.map(|axis| Link::same(operand, axis, first + axis)).collect::<Vec<_>>()
        });
        Self::new(Elements::Each, links)
    }

    /// For an operator with one operand that computes along some axes and keeps the others.
    #[must_use]
    pub fn except(elements: Elements, inputs: &[&Fact], axes: &[usize]) -> Self {
        let rank = inputs.first().map_or(0, |x| x.shape.rank());
        let kept = (0..rank).filter(|axis| !axes.contains(axis));
        Self::new(elements, kept.map(|axis| Link::same(0, axis, axis)))
    }

    /// For the same elements in the same order with other dimensions.
    #[must_use]
    pub fn reshaped(from: &Shape, to: &Shape) -> Self {
        let mut links = Vec::new();
        for (a, (&n, &behind)) in from.iter().zip(&from.strides()).enumerate() {
            for (b, (&m, &beyond)) in to.iter().zip(&to.strides()).enumerate() {
                // The two axes share the strides from `low` to `high` in the order of all elements.
                let (low, high) = (behind.max(beyond), (n * behind).min(m * beyond));
                let whole =
                    |axis: usize, behind: usize| low.is_multiple_of(behind) && (axis * behind).is_multiple_of(high);
                if low == 0 || high <= low || !high.is_multiple_of(low) || !whole(n, behind) || !whole(m, beyond) {
                    continue;
                }
                let how = match high / low {
                    count if count == n && count == m => How::Same,
                    count => How::Parts { count, inner: [low / behind, low / beyond] },
                };
                links.push(Link { operand: 0, from: a, to: b, how });
            }
        }
        Self::new(Elements::Moved, links)
    }
}

/// The remaining indices of an axis, in order.
#[derive(Clone, Copy, Debug)]
pub struct Left<'a> {
    /// The axis.
    pub axis: usize,
    /// Length of the axis before.
    pub of: usize,
    /// The remaining indices.
    pub indices: &'a [usize],
}

impl Left<'_> {
    /// The shape with only the remaining indices of the axis.
    #[must_use]
    pub fn shape(&self, of: &Shape) -> Option<Shape> {
        let mut dims = of.to_vec();
        *dims.get_mut(self.axis)? = self.indices.len();
        Shape::new(&dims).ok()
    }
}

/// Whether an operator reads images in NHWC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nhwc {
    /// It does not.
    Never,
    /// It can.
    Can,
    /// Its kernels support nothing else.
    Must,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::DType;

    fn shape(dims: &[usize]) -> Shape {
        Shape::new(dims).unwrap()
    }

    /// The links of a reshape as `from -> to: count, inner`.
    fn reshape(from: &[usize], to: &[usize]) -> Vec<String> {
        let show = |link: &Link| match link.how {
            How::Parts { count, inner: [a, b] } => format!("{}->{}: {count} of {a}, {b}", link.from, link.to),
            _ => format!("{}->{}", link.from, link.to),
        };
        Axes::reshaped(&shape(from), &shape(to)).links.iter().map(show).collect()
    }

    #[test]
    fn reshapes_split_and_merge() {
        assert_eq!(reshape(&[2, 8, 5, 1], &[2, 40]), ["0->0", "1->1: 8 of 1, 5", "2->1: 5 of 1, 1"]);
        assert_eq!(reshape(&[1, 4, 12], &[4, 3, 4]), ["1->0", "2->1: 3 of 4, 1", "2->2: 4 of 1, 1"]);
        assert_eq!(reshape(&[2, 3, 4], &[6, 4]), ["0->0: 2 of 1, 3", "1->0: 3 of 1, 1", "2->1"]);
        assert_eq!(reshape(&[6, 4], &[4, 6]), [""; 0]);
        assert_eq!(reshape(&[3, 5], &[5, 3]), [""; 0]);
        assert_eq!(reshape(&[3, 0], &[0, 3]), [""; 0]);
        assert!(reshape(&[], &[1]).is_empty());
    }

    /// No element moves between indices that a link puts into different parts.
    #[test]
    fn a_reshape_links_the_axes_that_its_elements_follow() {
        for (from, to) in
            [([2, 6, 4], [4, 3, 4]), ([4, 6, 5], [2, 12, 5]), ([8, 3, 2], [2, 4, 6]), ([6, 6, 1], [4, 3, 3])]
        {
            let (a, b) = (shape(&from), shape(&to));
            for link in Axes::reshaped(&a, &b).links {
                for at in 0..a.elements() {
                    let i = at / a.strides()[link.from] % a[link.from];
                    let j = at / b.strides()[link.to] % b[link.to];
                    assert_eq!(link.part_of_operand(i), link.part_of_result(j), "{link:?} of {from:?} as {to:?}");
                }
            }
        }
    }

    #[test]
    fn operands_that_are_repeated_are_not_followed() {
        let fact = |dims: &[usize]| Fact::new(DType::F32, shape(dims));
        let axes = Axes::elementwise(&[&fact(&[2, 3, 1, 5]), &fact(&[3, 4, 1])]);
        let want = [(0, 0, 0), (0, 1, 1), (0, 3, 3), (1, 0, 1), (1, 1, 2)];
        assert_eq!(axes.links, want.map(|(operand, from, to)| Link::same(operand, from, to)));
    }
}
