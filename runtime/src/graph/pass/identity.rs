//! Nodes that change nothing.
//!
//! ```text
//! x -> Mul(1) -> y            =>    x -> y
//! x -> Reshape -> Reshape     =>    x -> Reshape
//! ```
//!
//! When: the result has the type and shape of the operand, and the operator is a product or quotient with 1, a sum or
//! difference with 0, or one that shares its input's bytes: a cast to the same type, a reshape, expansion or slice to
//! the same shape. If an input of the graph is also an output, the copy stays.

use super::super::{Graph, Node, ValueId};
use super::pattern::Pattern;
use crate::error::Result;
use crate::operator::Operator;
use crate::ops::Op;
use crate::ops::binary::BinaryKind;
use crate::reserve;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    merge_reshapes(graph)?;
    let mut equals = reserve::list((0..graph.values().len()).map(ValueId))?;
    let pattern = Pattern::new(graph)?;
    let (mut given, mut gotten) = (reserve::copies(false, equals.len())?, reserve::copies(false, equals.len())?);
    graph.inputs.iter().for_each(|id| given[id.0] = true);
    graph.outputs.iter().for_each(|(_, id)| gotten[id.0] = true);
    for node in &graph.nodes {
        let (Some(x), &[y]) = (unchanged(&pattern, node), node.outputs.as_slice()) else { continue };
        let x = equals[x.0];
        if !(given[x.0] && gotten[y.0]) {
            equals[y.0] = x;
        }
    }
    graph.rename(|id| equals[id.0]);
    Ok(())
}

/// The operand that equals the node's result.
fn unchanged(pattern: &Pattern<'_>, node: &Node) -> Option<ValueId> {
    let neutral = |kind, number| {
        let (x, held) = pattern.with_number(node, kind)?;
        (held == number).then_some(x)
    };
    let shared = || node.op.alias(&pattern.graph.facts(&node.inputs)).and_then(|i| node.inputs.get(i).copied());
    let x = neutral(BinaryKind::Mul, 1.0)
        .or_else(|| neutral(BinaryKind::Div, 1.0))
        .or_else(|| neutral(BinaryKind::Add, 0.0))
        .or_else(|| neutral(BinaryKind::Sub, 0.0))
        .or_else(shared)?;
    (pattern.graph.fact(x) == pattern.graph.fact(*node.outputs.first()?)).then_some(x)
}

/// Replaces a reshape of a reshape by a single one.
fn merge_reshapes(graph: &mut Graph) -> Result<()> {
    let uses = graph.uses()?;
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let (Op::Reshape(_), &[input]) = (&node.op, node.inputs.as_slice()) else { continue };
        let Some(before) = uses.writer(input).and_then(|writer| graph.nodes.get(writer)) else { continue };
        if let (Op::Reshape(_), &[source]) = (&before.op, before.inputs.as_slice()) {
            graph.nodes[index].inputs = vec![source];
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::testing::Build;
    use super::*;
    use crate::ops::cast::Cast;
    use crate::ops::reshape::Reshape;
    use crate::ops::unary::UnaryKind;
    use crate::tensor::{DType, Shape};

    fn names(graph: &Graph) -> Vec<String> {
        graph.nodes.iter().map(|node| format!("{:?}", node.op)).collect()
    }

    #[test]
    fn neutral_constants_and_aliases_are_removed() {
        let mut build = Build::new(&[2, 3]);
        let x = build.unary(UnaryKind::Abs, build.x);
        let x = build.with(BinaryKind::Mul, x, 1.0);
        let x = build.with(BinaryKind::Sub, x, 0.0);
        let x = build.add(Cast { to: DType::F32 }, &[x]);
        let x = build.add(Reshape { shape: Shape::new(&[6]).unwrap() }, &[x]);
        let x = build.add(Reshape { shape: Shape::new(&[2, 3]).unwrap() }, &[x]);
        let y = build.unary(UnaryKind::Sqrt, x);
        assert_eq!(names(&build.optimized(y, 0.0)), ["Abs", "Sqrt"]);
    }

    #[test]
    fn operators_that_broadcast_or_change_values_stay() {
        let mut build = Build::new(&[1, 3]);
        let ones = build.constant(&[2, 3], &[1.0; 6]);
        let y = build.binary(BinaryKind::Mul, build.x, ones);
        assert_eq!(names(&build.optimized(y, 0.0)), ["Mul"]);
        let mut build = Build::new(&[3]);
        let zero = build.constant(&[], &[0.0]);
        let y = build.binary(BinaryKind::Sub, zero, build.x);
        assert_eq!(names(&build.optimized(y, 0.0)), ["Sub"]);
    }
}
