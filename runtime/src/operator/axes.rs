//! Axes: how a result lies to its operands, told by the operator itself.
//!
//! Passes that move axes (layout), take parts of them away (zero channels) or swap operators
//! (quantize) ask what follows what, and need no list of operators:
//!
//! ```text
//! Add(x [2, 8, 5, 5], b [8, 1, 1])     each element of one of x and one of b; axis 1 of b follows axis 1 of the result
//! Reshape([2, 8, 5, 5] -> [2, 200])    axis 1: 8 parts, of 1 element in the operand and of 25 in the result
//! Concat(a [2, 3], b [2, 4])           axis 1: a from element 0 on, b from element 3 on
//! ```

use crate::tensor::{Fact, Shape};

/// How the elements of a result are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Elements {
    /// Each is an element of an operand.
    Moved,
    /// Each is a function of one element of every operand, which are broadcast by numpy's rule.
    Each,
    /// Each is made of elements with the same place along the linked axes; along others, in any way.
    Mixed,
}

/// How the indices of two linked axes lie to each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// One to one.
    Same,
    /// By parts: index `i` of the operand is in part `i / inner[0] % count`, that of the result in part
    /// `i / inner[1] % count`; elements come from the same part.
    Parts {
        /// Number of parts.
        count: usize,
        /// Neighbors that belong to one part, in the operand and in the result.
        inner: [usize; 2],
    },
    /// The operand's begin in the result at this one; the others come from elsewhere.
    At(usize),
    /// The result's begin in the operand at this one; the others are left out.
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
    /// How their indices lie to each other.
    pub how: How,
}

impl Link {
    /// An axis whose indices are one to one.
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

/// What the axes of an operator's only result follow; an axis without a link follows nothing that can be told.
#[derive(Clone, Debug)]
pub struct Axes {
    /// How the elements are made.
    pub elements: Elements,
    /// The axes that follow others.
    pub links: Vec<Link>,
}

impl Axes {
    /// Of an operator that tells nothing.
    #[must_use]
    pub fn unknown() -> Self {
        Self::new(Elements::Mixed, [])
    }

    /// Of these links.
    #[must_use]
    pub fn new(elements: Elements, links: impl IntoIterator<Item = Link>) -> Self {
        Self { elements, links: links.into_iter().collect() }
    }

    /// Of a function of one element of every operand.
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

    /// Of an operator of one operand which does something along some axes, and keeps the others.
    #[must_use]
    pub fn except(elements: Elements, inputs: &[&Fact], axes: &[usize]) -> Self {
        let rank = inputs.first().map_or(0, |x| x.shape.rank());
        let kept = (0..rank).filter(|axis| !axes.contains(axis));
        Self::new(elements, kept.map(|axis| Link::same(0, axis, axis)))
    }

    /// Of elements in the same order under other dimensions.
    #[must_use]
    pub fn reshaped(from: &Shape, to: &Shape) -> Self {
        let mut links = Vec::new();
        for (a, (&n, &behind)) in from.iter().zip(&from.strides()).enumerate() {
            for (b, (&m, &beyond)) in to.iter().zip(&to.strides()).enumerate() {
                // The two axes have in common what lies between `low` and `high` in the order of all elements.
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

/// What is left of the indices of an axis, in order.
#[derive(Clone, Copy, Debug)]
pub struct Left<'a> {
    /// The axis.
    pub axis: usize,
    /// How many there were.
    pub of: usize,
    /// Those that stay.
    pub indices: &'a [usize],
}

impl Left<'_> {
    /// A shape with what is left of the axis.
    #[must_use]
    pub fn shape(&self, of: &Shape) -> Option<Shape> {
        let mut dims = of.to_vec();
        *dims.get_mut(self.axis)? = self.indices.len();
        Shape::new(&dims).ok()
    }
}

/// Whether an operator reads images that lie in NHWC.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nhwc {
    /// It does not.
    Never,
    /// It can, where they lie so.
    Can,
    /// Its kernels take nothing else.
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

    /// Wherever a link says that two indices belong to different parts, no element goes from one to the other.
    #[test]
    fn what_a_reshape_links_is_where_elements_go() {
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
