//! Expansions whose readers broadcast by themselves.
//!
//! ```text
//! gate [1, 8, 1, 1] -> Expand [1, 8, 5, 5] -> Mul(x [1, 8, 5, 5])    =>    gate [1, 8, 1, 1] -> Mul(x)
//! ```
//!
//! When: every reader is elementwise, and its result keeps its shape because another operand has that shape. The
//! operand keeps its number of axes, for the sake of [layout](super::layout): a reshape adds those that are missing.

use super::super::{Graph, Node, ValueId};
use crate::error::Result;
use crate::operator::axes::Elements;
use crate::operator::{Operator, Semantics};
use crate::ops::Op;
use crate::ops::reshape::Reshape;
use crate::tensor::{Fact, Shape};

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    // Every node is replaced in its place, and only readers of expansions change: the uses of other values stay valid.
    let uses = graph.uses()?;
    for index in 0..graph.nodes.len() {
        let node = &graph.nodes[index];
        let (Op::Expand(expand), &[x], &[y]) = (&node.op, node.inputs.as_slice(), node.outputs.as_slice()) else {
            continue;
        };
        let given = graph.fact(x);
        let mut dims = vec![1; expand.shape.rank().saturating_sub(given.shape.rank())];
        dims.extend_from_slice(&given.shape);
        let shape = Shape::new(&dims).map_err(|e| e.at(&node.name))?;
        let narrow = Fact::new(given.dtype, shape.clone());
        let readers = uses.readers(y);
        let all =
            readers.iter().all(|&at| graph.nodes.get(at).is_some_and(|reader| broadcasts(graph, reader, y, &narrow)));
        if !all {
            continue;
        }
        let name = node.name.clone();
        let reshape = graph.make_node(name, Reshape { shape }, &[x])?;
        for &at in readers {
            graph.nodes[at].inputs.iter_mut().filter(|id| **id == y).for_each(|id| *id = reshape.outputs[0]);
        }
        graph.nodes[index] = reshape;
    }
    Ok(())
}

/// Whether the results of a node stay the same if its operand `wide` is not expanded but broadcast.
fn broadcasts(graph: &Graph, reader: &Node, wide: ValueId, narrow: &Fact) -> bool {
    let facts: Vec<&Fact> = reader.inputs.iter().map(|&id| if id == wide { narrow } else { graph.fact(id) }).collect();
    let held: Vec<&Fact> = graph.facts(&reader.outputs);
    reader.blocks.is_empty()
        && reader.op.axes(&facts).elements == Elements::Each
        && reader.op.infer(&facts).is_ok_and(|results| results.iter().eq(held))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Build;
    use super::*;
    use crate::ops::binary::BinaryKind;
    use crate::ops::broadcast::Expand;
    use crate::ops::unary::UnaryKind;

    fn expand(build: &mut Build, x: ValueId, dims: &[usize]) -> ValueId {
        build.add(Expand { shape: Shape::new(dims).unwrap() }, &[x])
    }

    fn names(graph: &Graph) -> Vec<String> {
        graph.nodes.iter().map(|node| format!("{:?}", node.op)).collect()
    }

    #[test]
    fn an_operand_of_a_product_is_not_expanded() {
        for dims in [&[2, 3, 1, 1][..], &[3, 1, 1], &[1], &[]] {
            let mut build = Build::new(&[2, 3, 4, 5]);
            let image = build.unary(UnaryKind::Abs, build.x);
            let gate = build.constant(dims, &vec![0.5; dims.iter().product()]);
            let shift = build.constant(dims, &vec![2.0; dims.iter().product()]);
            let gate = build.binary(BinaryKind::Max, gate, shift);
            let gate = build.unary(UnaryKind::Sqrt, gate);
            let wide = expand(&mut build, gate, &[2, 3, 4, 5]);
            let y = build.binary(BinaryKind::Mul, wide, image);
            let z = build.binary(BinaryKind::Div, image, wide);
            let y = build.binary(BinaryKind::Add, y, z);
            assert!(!names(&build.optimized(y, 1e-6)).contains(&"Expand".to_owned()), "{dims:?}");
        }
    }

    #[test]
    fn an_expansion_of_computed_values_vanishes() {
        let mut build = Build::new(&[1, 3, 1, 1]);
        let x = build.unary(UnaryKind::Exp, build.x);
        let image = build.constant(&[1, 3, 2, 2], &[1.0; 12]);
        let wide = expand(&mut build, x, &[1, 3, 2, 2]);
        let y = build.binary(BinaryKind::Add, wide, image);
        assert_eq!(names(&build.optimized(y, 1e-6)), ["Exp", "Add"]);
    }

    #[test]
    fn an_expansion_that_gives_the_shape_stays() {
        let mut build = Build::new(&[3, 1]);
        let x = build.unary(UnaryKind::Abs, build.x);
        let wide = expand(&mut build, x, &[3, 4]);
        let row = build.constant(&[4], &[1.0, 2.0, 3.0, 4.0]);
        let y = build.binary(BinaryKind::Mul, wide, row);
        assert_eq!(names(&build.optimized(y, 1e-6)), ["Abs", "Mul"], "the other operand broadcasts too");

        let mut build = Build::new(&[3, 1]);
        let x = build.x;
        let wide = expand(&mut build, x, &[3, 4]);
        let y = build.binary(BinaryKind::Mul, wide, wide);
        assert_eq!(names(&build.optimized(y, 1e-6)), ["Expand", "Mul"]);

        let mut build = Build::new(&[3, 1]);
        let x = build.x;
        let wide = expand(&mut build, x, &[3, 4]);
        build.output(wide);
        let row = build.constant(&[3, 4], &[1.0; 12]);
        let y = build.binary(BinaryKind::Sub, wide, row);
        assert!(names(&build.optimized(y, 1e-6)).contains(&"Expand".to_owned()), "an output has its shape");
    }
}
