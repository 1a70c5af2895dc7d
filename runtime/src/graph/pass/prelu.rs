//! PRelu, which the importer writes as a Where.
//!
//! ```text
//! Where(x < 0, x * slope, x)    =>    PRelu(x, slope)
//! Where(x > 0, x, x * slope)    =>    PRelu(x, slope)
//! ```
//!
//! When: f32, and condition and product are read only here. A single slope makes it LeakyRelu.

use skipstone_kernels::activation::Activation;

use super::super::{Graph, Node, ValueId};
use super::pattern::Pattern;
use crate::error::Result;
use crate::ops::Op;
use crate::ops::activate::Activate;
use crate::ops::binary::{Binary, BinaryKind};
use crate::ops::compare::{Compare, CompareKind};
use crate::reserve;
use crate::tensor::DType;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let pattern = Pattern::new(graph)?;
    let find = |node: &Node| {
        let (x, slope) = prelu(&pattern, node)?;
        Some((x, slope, pattern.number(slope)))
    };
    let found = reserve::list(graph.nodes.iter().map(find))?;
    for (node, found) in graph.nodes.iter_mut().zip(found) {
        match found {
            Some((x, _, Some(number))) => {
                node.op = Activate { activation: Activation::LeakyRelu(number) }.into();
                node.inputs = vec![x];
            }
            Some((x, slope, None)) => {
                node.op = Binary::new(BinaryKind::PRelu).into();
                node.inputs = vec![x, slope];
            }
            None => {}
        }
    }
    Ok(())
}

fn prelu(pattern: &Pattern<'_>, node: &Node) -> Option<(ValueId, ValueId)> {
    let Op::Select(_) = node.op else { return None };
    let &[condition, yes, no] = node.inputs.as_slice() else { return None };
    let (x, negative) = sign(pattern, pattern.inner(condition)?)?;
    let (same, scaled) = if negative { (no, yes) } else { (yes, no) };
    let [a, b] = Pattern::operands(pattern.inner(scaled)?, BinaryKind::Mul)?;
    let slope = if a == x { b } else { a };
    let result = pattern.graph.fact(*node.outputs.first()?);
    let fits = same == x && (a == x || b == x) && pattern.graph.fact(x) == result && result.dtype == DType::F32;
    fits.then_some((x, slope))
}

/// The value whose sign is tested, and whether the condition is true for negative elements. At zero both cases give
/// zero.
fn sign(pattern: &Pattern<'_>, node: &Node) -> Option<(ValueId, bool)> {
    let Op::Compare(Compare { kind }) = node.op else { return None };
    let &[a, b] = node.inputs.as_slice() else { return None };
    let less = match kind {
        CompareKind::Less | CompareKind::LessEqual => true,
        CompareKind::Greater | CompareKind::GreaterEqual => false,
        CompareKind::Equal | CompareKind::NotEqual => return None,
    };
    match (pattern.number(a), pattern.number(b)) {
        (None, Some(0.0)) => Some((a, less)),
        (Some(0.0), None) => Some((b, !less)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Build, only_activation};
    use super::*;
    use crate::ops::select::Select;

    fn choice(build: &mut Build, slope: ValueId, kind: CompareKind, zero_first: bool, product_first: bool) -> Graph {
        let x = build.x;
        let zero = build.constant(&[1, 1], &[0.0]);
        let operands = if zero_first { [zero, x] } else { [x, zero] };
        let condition = build.add(Compare { kind }, &operands);
        let product = build.binary(BinaryKind::Mul, x, slope);
        let branches = if product_first { [condition, product, x] } else { [condition, x, product] };
        let y = build.add(Select, &branches);
        std::mem::replace(build, Build::new(&[1])).optimized(y, 1e-6)
    }

    #[test]
    fn both_directions() {
        for (kind, zero_first, product_first) in [
            (CompareKind::Greater, true, true),
            (CompareKind::Less, false, true),
            (CompareKind::Greater, false, false),
            (CompareKind::LessEqual, true, false),
        ] {
            let mut build = Build::new(&[3, 2]);
            let slope = build.constant(&[1, 2], &[0.1, 0.3]);
            let graph = choice(&mut build, slope, kind, zero_first, product_first);
            assert_eq!(graph.nodes.iter().map(|n| format!("{:?}", n.op)).collect::<Vec<_>>(), ["PRelu"]);
        }
    }

    #[test]
    fn a_uniform_slope_is_leaky_relu() {
        let mut build = Build::new(&[3, 2]);
        let slope = build.constant(&[1, 1], &[0.1]);
        let graph = choice(&mut build, slope, CompareKind::Greater, true, true);
        assert_eq!(only_activation(&graph), Some(Activation::LeakyRelu(0.1)));
    }

    #[test]
    fn the_wrong_branch_is_left_alone() {
        let mut build = Build::new(&[3, 2]);
        let slope = build.constant(&[1, 2], &[0.1, 0.3]);
        assert!(choice(&mut build, slope, CompareKind::Less, true, true).nodes.len() > 1);
    }
}
