//! Gathers that only reorder an axis, as a transpose.
//!
//! ```text
//! x [1, 8, 6] -> Gather(axis 2, [[0, 2, 4], [1, 3, 5]])
//!     =>    x -> Reshape [1, 8, 3, 2] -> Transpose [1, 8, 2, 3]
//! ```
//!
//! PyTorch's unfold is exported in this form. The pass [`moves`](super::moves) then joins several of them.
//!
//! When: the indices are constant and name every element of the axis once, with a fixed step along each of their own
//! axes.

use super::super::{Graph, Node, ValueId};
use crate::error::Result;
use crate::ops::Op;
use crate::ops::reshape::Reshape;
use crate::ops::transpose::Transpose;
use crate::reserve;
use crate::tensor::{MAX_RANK, Shape, Tensor};

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let mut nodes = reserve::empty(graph.nodes.len())?;
    for node in std::mem::take(&mut graph.nodes) {
        let Some((x, dims, transpose)) = reordered(graph, &node) else {
            reserve::push(&mut nodes, node)?;
            continue;
        };
        let shape = Shape::new(&dims).map_err(|e| e.at(&node.name))?;
        let split = graph.make_node(format!("{}.split", node.name), Reshape { shape }, &[x])?;
        let inputs = split.outputs.clone();
        reserve::push(&mut nodes, split)?;
        reserve::push(&mut nodes, Node { op: transpose.into(), inputs, ..node })?;
    }
    graph.nodes = nodes;
    Ok(())
}

/// What a gather reads, the dimensions in which it reads it, and the order of the result's.
fn reordered(graph: &Graph, node: &Node) -> Option<(ValueId, Vec<usize>, Transpose)> {
    let (Op::Gather(gather), &[x, indices]) = (&node.op, node.inputs.as_slice()) else { return None };
    let shape = &graph.fact(x).shape;
    let order = order(graph.constant(indices)?, *shape.get(gather.axis)?)?;
    if shape.rank() + order.len() > MAX_RANK + 1 {
        return None;
    }
    // The axes of the indices, from the largest step to the smallest.
    let index_dims = graph.fact(indices).shape.dims();
    let inner = order.iter().map(|&axis| index_dims[axis]);
    let (before, after) = (shape.dims().get(..gather.axis)?, shape.dims().get(gather.axis + 1..)?);
    let dims = before.iter().copied().chain(inner).chain(after.iter().copied()).collect();
    let place = |axis: usize| order.iter().position(|&held| held == axis).map(|at| gather.axis + at);
    let behind = gather.axis + order.len()..shape.rank() + order.len() - 1;
    let axes: Vec<usize> =
        (0..gather.axis).map(Some).chain((0..order.len()).map(place)).chain(behind.map(Some)).collect::<Option<_>>()?;
    Some((x, dims, Transpose::new(&axes)?))
}

/// The axes of the indices, from the largest step to the smallest, if they name each of `len` elements once.
fn order(indices: &Tensor, len: usize) -> Option<Vec<usize>> {
    let shape = indices.shape();
    if shape.elements() != len || len == 0 {
        return None;
    }
    let numbers: Vec<i64> = match indices.peek::<i64>() {
        Some(numbers) => reserve::list(numbers.iter()).ok()?,
        None => reserve::list(indices.peek::<i32>()?.iter().map(i64::from)).ok()?,
    };
    let at = |index: usize| numbers.get(index).map(|&number| if number < 0 { number + len as i64 } else { number });
    let strides = shape.strides();
    let steps: Vec<i64> = (0..shape.rank())
        .map(|axis| if shape[axis] == 1 { Some(0) } else { at(strides[axis]) })
        .collect::<Option<_>>()?;
    // Axes of one element go last.
    let mut order: Vec<usize> = (0..shape.rank()).collect();
    order.sort_by_key(|&axis| std::cmp::Reverse(steps[axis]));
    let mut dense = 1;
    for &axis in order.iter().rev().filter(|&&axis| shape[axis] != 1) {
        if steps[axis] != dense {
            return None;
        }
        dense *= shape[axis] as i64;
    }
    let expected = |index: usize| {
        (0..shape.rank()).map(|axis| (index / strides[axis] % shape[axis]) as i64 * steps[axis]).sum::<i64>()
    };
    (0..len).all(|index| at(index) == Some(expected(index))).then_some(order)
}

#[cfg(test)]
mod tests {
    use super::super::testing::Build;
    use super::*;
    use crate::ops::gather::Gather;

    fn names(dims: &[usize], axis: usize, shape: &[usize], indices: &[i64]) -> Vec<String> {
        let mut build = Build::new(dims);
        let indices = build.graph.add_constant("i", Tensor::from_slice(shape, indices).unwrap()).unwrap();
        let y = build.add(Gather { axis }, &[build.x, indices]);
        build.optimized(y, 0.0).nodes.iter().map(|node| format!("{:?}", node.op)).collect()
    }

    #[test]
    fn indices_with_fixed_steps_are_a_transpose() {
        assert_eq!(names(&[2, 6, 3], 1, &[2, 3], &[0, 2, 4, 1, 3, 5]), ["Reshape", "Transpose"]);
        assert_eq!(names(&[2, 6], 1, &[2, 1, 3], &[0, 2, 4, -5, 3, -1]), ["Reshape", "Transpose"]);
        let mixed: Vec<i64> = (0..24).map(|at| at / 12 * 3 + at / 3 % 4 * 6 + at % 3).collect();
        assert_eq!(names(&[24, 5], 0, &[2, 4, 3], &mixed), ["Reshape", "Transpose"]);
    }

    #[test]
    fn other_indices_stay() {
        for (shape, indices) in [
            (&[2, 2][..], &[0, 2, 1, 2][..]),
            (&[4], &[3, 2, 1, 0]),
            (&[2], &[0, 2]),
            (&[2, 2], &[1, 0, 3, 2]),
            (&[2, 4], &[0, 1, 2, 3, 0, 1, 2, 3]),
        ] {
            assert_eq!(names(&[4, 3], 0, shape, indices), ["Gather"], "{indices:?}");
        }
    }
}
