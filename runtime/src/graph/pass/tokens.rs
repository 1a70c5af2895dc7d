//! Bias and activation behind the reshape of a matrix product.
//!
//! ```text
//! MatMul -> Reshape -> Add(bias) -> Activate    =>    MatMul -> Add(bias) -> Activate -> Reshape
//! ```
//!
//! A product of more than three axes is imported as one of three between two reshapes. Then the pass
//! [`fuse`](super::fuse) finds its bias and activation.
//!
//! When: the reshape keeps the last axis, constants have one element or one for each index of that axis, and each value
//! is read only here.

use std::sync::Arc;

use super::super::{Graph, Node, Uses};
use crate::error::Result;
use crate::ops::Op;
use crate::reserve;
use crate::tensor::{Shape, Tensor};

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    // Two nodes exchange their operators, and the value between them is new: the uses of other values stay valid.
    let uses = graph.uses()?;
    let mut of_product = reserve::list(graph.nodes.iter().map(|node| reshapes_product(graph, &uses, node)))?;
    for index in 0..graph.nodes.len() {
        let Some((reshape, constant)) = behind_reshape(graph, &uses, &of_product, index) else { continue };
        let (node, before) = (graph.nodes[index].copy()?, graph.nodes[reshape].copy()?);
        let ([product], [reshaped]) = (before.inputs.as_slice(), before.outputs.as_slice()) else { continue };
        let constant = constant.map(|row| graph.add_constant(format!("{}.row", node.name), row)).transpose()?;
        let inputs = node.inputs.iter().map(|id| if id == reshaped { Some(*product) } else { constant });
        let inputs = inputs.flatten().collect();
        let result = graph.add_value(node.name.clone(), graph.fact(*product).clone(), None)?;
        graph.nodes[reshape] = Node { inputs, outputs: vec![result], ..node.copy()? };
        graph.nodes[index] = Node { inputs: vec![result], outputs: node.outputs, ..before };
        of_product[index] = true;
    }
    Ok(())
}

/// Whether a node reshapes a matrix product, which nothing else reads, and keeps its last axis.
fn reshapes_product(graph: &Graph, uses: &Uses, node: &Node) -> bool {
    let (Op::Reshape(reshape), &[x]) = (&node.op, node.inputs.as_slice()) else { return false };
    let product = uses.only_reader(x).and_then(|_| uses.writer(x)).and_then(|at| graph.nodes.get(at));
    product.is_some_and(|node| matches!(node.op, Op::MatMul(_))) && graph.fact(x).shape.last() == reshape.shape.last()
}

/// The reshape in front of an elementwise node, and the node's constant operand, if they can exchange their places.
fn behind_reshape(
    graph: &Graph,
    uses: &Uses,
    of_product: &[bool],
    index: usize,
) -> Option<(usize, Option<Arc<Tensor>>)> {
    let node = graph.nodes.get(index)?;
    let (x, constant) = match (&node.op, node.inputs.as_slice()) {
        (Op::Activate(_), &[x]) => (x, None),
        (Op::Binary(_), &[a, b]) => match (graph.constant(a), graph.constant(b)) {
            (None, Some(constant)) => (a, Some(constant)),
            (Some(constant), None) => (b, Some(constant)),
            _ => return None,
        },
        _ => return None,
    };
    let reshape = uses.only_reader(x).and_then(|_| uses.writer(x)).filter(|&at| of_product[at])?;
    let shape = &graph.fact(x).shape;
    if graph.fact(*node.outputs.first()?) != graph.fact(x) {
        return None;
    }
    let constant = match constant {
        Some(constant) => Some(row(constant, *shape.last()?)?),
        None => None,
    };
    Some((reshape, constant))
}

/// The constant as a row of `len` elements, or a single one.
fn row(constant: &Tensor, len: usize) -> Option<Arc<Tensor>> {
    let shape = match constant.shape().split_last() {
        _ if constant.shape().elements() == 1 => Shape::new(&[]),
        Some((last, before)) if *last == len && before.iter().all(|&dim| dim == 1) => Shape::new(&[len]),
        _ => return None,
    };
    Some(Arc::new(constant.clone().reshaped(shape.ok()?).ok()?))
}

#[cfg(test)]
mod tests {
    use skipstone_kernels::activation::Activation;

    use super::super::testing::Build;
    use super::*;
    use crate::ops::binary::BinaryKind;
    use crate::ops::check::Random;
    use crate::ops::matmul::MatMul;
    use crate::ops::reshape::Reshape;

    /// `[2, 5, 3] * [3, 4]` as `dims`, then the bias and Relu; returns the operators that remain.
    fn names(dims: &[usize], bias: &[usize], also_read: bool) -> Vec<String> {
        let mut build = Build::new(&[2, 5, 3]);
        let weights = build.graph.add_constant("w", Random(2).floats(&[1, 3, 4])).unwrap();
        let x = build.add(MatMul { transposed: false, activation: Activation::None }, &[build.x, weights]);
        let x = build.add(Reshape { shape: Shape::new(dims).unwrap() }, &[x]);
        if also_read {
            build.output(x);
        }
        let bias = build.graph.add_constant("b", Random(3).floats(bias)).unwrap();
        let x = build.binary(BinaryKind::Add, bias, x);
        let y = build.activate(Activation::Relu, x);
        build.optimized(y, 1e-5).nodes.iter().map(|node| format!("{:?}", node.op)).collect()
    }

    #[test]
    fn bias_and_activation_are_fused_through_a_reshape() {
        for bias in [&[4][..], &[1, 1, 4], &[1], &[]] {
            assert_eq!(names(&[1, 5, 2, 4], bias, false), ["MatMul", "Reshape"], "{bias:?}");
        }
    }

    #[test]
    fn other_axes_and_other_readers_stay() {
        assert!(names(&[5, 2, 2, 2], &[2], false).contains(&"Add".to_owned()));
        assert!(names(&[1, 5, 2, 4], &[5, 1, 4], false).contains(&"Add".to_owned()));
        assert!(names(&[1, 5, 2, 4], &[4], true).contains(&"Add".to_owned()));
        // The constant adds an axis.
        assert!(names(&[10, 4], &[1, 1, 4], false).contains(&"Add".to_owned()));
    }
}
