//! Chains of transposes and reshapes, as one transpose.
//!
//! ```text
//! x [1, 8, 8, C] -> Transpose [1, C, 8, 8] -> Reshape [C * 4, 2, 4, 2] -> Transpose [C * 4, 4, 2, 2]
//!     -> Reshape [1, C, 16, 4] -> Transpose [1, 4, 16, C]
//!   =>
//! x -> Reshape [4, 2, 4, 2, C] -> Transpose [2, 2, 4, 4, C] -> Reshape [1, 4, 16, C]
//! ```
//!
//! Exporters write the folding of an image into patches or windows in several steps, with [layout](super::layout) adding
//! its own before the first and after the last. Together they often move whole runs of channels.
//!
//! When: at least two transposes move elements, the values between are read only here, every reshape splits axes
//! evenly, and the single transpose copies runs, or transposes matrices with no side shorter than a vector.

use super::super::{Graph, Node, ValueId};
use super::pattern::Pattern;
use crate::error::Result;
use crate::operator::Operator;
use crate::ops::Op;
use crate::ops::reshape::Reshape;
use crate::ops::transpose::Transpose;
use crate::reserve;
use crate::tensor::{MAX_RANK, Shape};

/// Most nodes of a chain.
const DEPTH: usize = 16;

/// Shortest side of a matrix that is transposed at full speed.
const SIDE: usize = 8;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let pattern = Pattern::new(graph)?;
    // From the end, so that a chain is found whole.
    let mut absorbed = reserve::copies(false, graph.nodes.len())?;
    let mut found = Vec::new();
    for index in (0..graph.nodes.len()).rev().filter(|&index| matches!(graph.nodes[index].op, Op::Transpose(_))) {
        if absorbed[index] {
            continue;
        }
        let chain = chain(&pattern, index);
        if let Some((x, moved)) = merged(graph, &chain) {
            chain.iter().for_each(|&at| absorbed[at] = true);
            reserve::push(&mut found, (index, x, moved))?;
        }
    }
    let mut nodes = reserve::empty(graph.nodes.len() + 2 * found.len())?;
    for (index, node) in std::mem::take(&mut graph.nodes).into_iter().enumerate() {
        let Some((_, x, moved)) = found.pop_if(|(at, ..)| *at == index) else {
            reserve::push(&mut nodes, node)?;
            continue;
        };
        let shape = |dims: &[usize]| Shape::new(dims).map_err(|e| e.at(&node.name));
        let mut inputs = vec![x];
        if !moved.transpose.axes.is_sorted() {
            let split =
                graph.make_node(format!("{}.split", node.name), Reshape { shape: shape(&moved.dims)? }, &[x])?;
            let transpose = graph.make_node(node.name.clone(), moved.transpose, &split.outputs)?;
            inputs.clone_from(&transpose.outputs);
            reserve::extend(&mut nodes, [split, transpose])?;
        }
        let shape = graph.fact(node.outputs[0]).shape.clone();
        let name = format!("{}.join", node.name);
        reserve::push(&mut nodes, Node { name, op: Reshape { shape }.into(), inputs, ..node })?;
    }
    graph.nodes = nodes;
    super::dead::run(graph)
}

/// The positions of the transposes and reshapes that end in a node, from the last to the first.
fn chain(pattern: &Pattern<'_>, last: usize) -> Vec<usize> {
    let mut chain = vec![last];
    while let Some(&at) = chain.last().filter(|_| chain.len() < DEPTH) {
        let Some(&x) = pattern.graph.nodes[at].inputs.first() else { break };
        let before = pattern.inner(x).and_then(|_| pattern.position(x));
        let is_move = |at: &usize| matches!(pattern.graph.nodes[*at].op, Op::Transpose(_) | Op::Reshape(_));
        let Some(before) = before.filter(is_move) else { break };
        chain.push(before);
    }
    chain
}

/// A transpose of a reshaped value.
struct Moved {
    dims: Vec<usize>,
    transpose: Transpose,
}

/// Part of an axis of the first value.
#[derive(Clone, Copy, PartialEq)]
struct Part {
    len: usize,
    /// Elements of the first value from one index to the next.
    stride: usize,
}

/// The value that the chain reads, and the transpose that replaces the chain.
fn merged(graph: &Graph, chain: &[usize]) -> Option<(ValueId, Moved)> {
    let moves = |&&at: &&usize| {
        let node = &graph.nodes[at];
        matches!(node.op, Op::Transpose(_)) && node.op.alias(&graph.facts(&node.inputs)).is_none()
    };
    let x = *graph.nodes[*chain.last()?].inputs.first()?;
    let shape = &graph.fact(x).shape;
    if chain.iter().filter(moves).count() < 2 || shape.elements() == 0 {
        return None;
    }
    let strides = shape.strides();
    let mut axes: Vec<Vec<Part>> =
        shape.iter().zip(&strides).map(|(&len, &stride)| vec![Part { len, stride }]).collect();
    for &at in chain.iter().rev() {
        axes = match &graph.nodes[at].op {
            Op::Transpose(transpose) => {
                transpose.axes.iter().map(|&axis| axes.get(axis).cloned()).collect::<Option<_>>()?
            }
            Op::Reshape(reshape) => split(axes.into_iter().flatten(), &reshape.shape)?,
            _ => return None,
        };
    }
    // Parts that follow each other before and after are one.
    let mut parts: Vec<Part> = Vec::new();
    for part in axes.into_iter().flatten().filter(|part| part.len != 1) {
        match parts.last_mut() {
            Some(outer) if outer.stride == part.stride * part.len => {
                *outer = Part { len: outer.len * part.len, ..part };
            }
            _ => parts.push(part),
        }
    }
    let mut order: Vec<usize> = (0..parts.len()).collect();
    order.sort_by_key(|&at| std::cmp::Reverse(parts[at].stride));
    if parts.len() > MAX_RANK || !is_fast(&parts) {
        return None;
    }
    let perm: Vec<usize> = (0..parts.len()).map(|at| order.iter().position(|&o| o == at)).collect::<Option<_>>()?;
    let dims = order.iter().map(|&at| parts[at].len).collect();
    Some((x, Moved { dims, transpose: Transpose::new(&perm)? }))
}

/// Whether the innermost part stays innermost, or both it and the one that becomes innermost are long.
fn is_fast(parts: &[Part]) -> bool {
    let (Some(last), Some(unit)) = (parts.last(), parts.iter().find(|part| part.stride == 1)) else { return true };
    last == unit || last.len.min(unit.len) >= SIDE
}

/// The axes of a shape, made of these parts in order; `None` if a part would have to be split unevenly.
fn split(parts: impl Iterator<Item = Part>, shape: &Shape) -> Option<Vec<Vec<Part>>> {
    let mut parts = parts.filter(|part| part.len != 1);
    let mut rest = Part { len: 1, stride: 1 };
    let axis = |&len: &usize| {
        let (mut axis, mut missing) = (Vec::new(), len);
        while missing > 1 {
            if rest.len == 1 {
                rest = parts.next()?;
            }
            let taken = rest.len.min(missing);
            if !rest.len.is_multiple_of(taken) || !missing.is_multiple_of(taken) {
                return None;
            }
            rest.len /= taken;
            missing /= taken;
            axis.push(Part { len: taken, stride: rest.stride * rest.len });
        }
        Some(axis)
    };
    shape.iter().map(axis).collect()
}

#[cfg(test)]
mod tests {
    use super::super::testing::Build;
    use super::*;
    use crate::ops::unary::UnaryKind;

    /// A step of a chain: a permutation or a shape.
    enum Step {
        To(&'static [usize]),
        As(&'static [usize]),
    }
    use Step::{As, To};

    /// The number of transposes that remain of a chain between two other operators.
    fn transposes(dims: &[usize], steps: &[Step], read_after: Option<usize>) -> usize {
        let mut build = Build::new(dims);
        let mut x = build.unary(UnaryKind::Abs, build.x);
        for (at, step) in steps.iter().enumerate() {
            x = match step {
                To(axes) => build.add(Transpose::new(axes).unwrap(), &[x]),
                As(dims) => build.add(Reshape { shape: Shape::new(dims).unwrap() }, &[x]),
            };
            if read_after == Some(at) {
                build.output(x);
            }
        }
        let y = build.unary(UnaryKind::Exp, x);
        let graph = build.optimized(y, 0.0);
        graph.nodes.iter().filter(|node| matches!(node.op, Op::Transpose(_))).count()
    }

    /// Patches of two by two pixels of an image in NHWC, and back.
    const PATCHES: [Step; 5] =
        [To(&[0, 3, 1, 2]), As(&[40, 2, 4, 2]), To(&[0, 2, 1, 3]), As(&[1, 10, 16, 4]), To(&[0, 3, 2, 1])];
    const BACK: [Step; 5] =
        [To(&[0, 3, 2, 1]), As(&[40, 4, 2, 2]), To(&[0, 2, 1, 3]), As(&[1, 10, 8, 8]), To(&[0, 2, 3, 1])];

    #[test]
    fn folding_into_patches_is_one_transpose() {
        assert_eq!(transposes(&[1, 8, 8, 10], &PATCHES, None), 1);
        assert_eq!(transposes(&[1, 4, 16, 10], &BACK, None), 1);
    }

    #[test]
    fn a_chain_that_moves_nothing_vanishes() {
        assert_eq!(
            transposes(
                &[3, 4, 5],
                &[To(&[1, 0, 2]), As(&[2, 2, 3, 5]), As(&[4, 15]), As(&[4, 3, 5]), To(&[1, 0, 2])],
                None
            ),
            0
        );
        assert_eq!(transposes(&[2, 3, 9], &[To(&[2, 0, 1]), To(&[1, 2, 0])], None), 0);
    }

    #[test]
    fn values_that_are_read_between_stay() {
        assert_eq!(transposes(&[1, 8, 8, 10], &PATCHES, Some(2)), 3);
    }

    #[test]
    fn uneven_reshapes_and_narrow_matrices_stay() {
        let uneven = [To(&[1, 0]), As(&[9, 10]), To(&[1, 0])];
        assert_eq!(transposes(&[6, 15], &uneven, None), 2);
        // A matrix of two columns.
        let narrow = [To(&[1, 0]), As(&[8, 2, 12]), To(&[1, 0, 2])];
        assert_eq!(transposes(&[12, 16], &narrow, None), 2);
    }
}
