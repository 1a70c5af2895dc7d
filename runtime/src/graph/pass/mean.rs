//! The mean, which the importer writes as a sum and a quotient.
//!
//! ```text
//! x -> ReduceSum(axes) -> Div(n)      =>    x -> ReduceMean(axes)
//! x -> ReduceSum(axes) -> Mul(1/n)    =>    x -> ReduceMean(axes)
//! ```
//!
//! When: f32, `n` is the number of summed elements, and the sum is read only here.

use super::super::{Graph, Node, ValueId};
use super::pattern::{Pattern, near};
use crate::error::Result;
use crate::ops::Op;
use crate::ops::binary::BinaryKind;
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::reserve;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let pattern = Pattern::new(graph)?;
    let found = reserve::list(graph.nodes.iter().map(|node| mean(&pattern, node)))?;
    for (node, found) in graph.nodes.iter_mut().zip(found) {
        if let Some((x, reduce)) = found {
            node.op = reduce.into();
            node.inputs = vec![x];
        }
    }
    Ok(())
}

fn mean(pattern: &Pattern<'_>, node: &Node) -> Option<(ValueId, Reduce)> {
    let quotient = pattern.with_number(node, BinaryKind::Div);
    let product = || pattern.with_number(node, BinaryKind::Mul).map(|(sum, number)| (sum, number.recip()));
    let (sum, count) = quotient.or_else(product)?;
    let inner = pattern.inner(sum)?;
    let Op::Reduce(reduce @ Reduce { kind: ReduceKind::Sum, .. }) = &inner.op else { return None };
    let &[x] = inner.inputs.as_slice() else { return None };
    let shape = &pattern.graph.fact(x).shape;
    let elements: usize = reduce.axes.iter().filter_map(|&axis| shape.get(axis)).product();
    near(count, elements as f32).then(|| (x, Reduce { kind: ReduceKind::Mean, ..reduce.clone() }))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Build;
    use super::*;

    fn kinds(number: f32, kind: BinaryKind) -> Vec<String> {
        let mut build = Build::new(&[2, 3, 4]);
        let sum = build.add(Reduce { axes: vec![1, 2], kind: ReduceKind::Sum, keep_dims: true }, &[build.x]);
        let y = build.with(kind, sum, number);
        build.optimized(y, 1e-5).nodes.iter().map(|node| format!("{:?}", node.op)).collect()
    }

    #[test]
    fn a_sum_over_its_count_is_a_mean() {
        assert_eq!(kinds(12.0, BinaryKind::Div), ["ReduceMean"]);
        assert_eq!(kinds(1.0 / 12.0, BinaryKind::Mul), ["ReduceMean"]);
        assert_eq!(kinds(11.0, BinaryKind::Div), ["ReduceSum", "Div"]);
    }
}
