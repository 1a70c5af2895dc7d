//! Replaces powers that have a dedicated function.
//!
//! ```text
//! x -> Pow(2)     =>    x -> Square
//! x -> Pow(1/2)   =>    x -> Sqrt
//! x -> Pow(-1)    =>    x -> Reciprocal
//! ```
//!
//! When: f32. At minus infinity the root is NaN while the power is infinite; trained networks do not get there.

use super::super::{Graph, Node, ValueId};
use super::pattern::Pattern;
use crate::error::Result;
use crate::ops::binary::BinaryKind;
use crate::ops::unary::{Unary, UnaryKind};
use crate::reserve;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let pattern = Pattern::new(graph)?;
    let found = reserve::list(graph.nodes.iter().map(|node| function(&pattern, node)))?;
    for (node, found) in graph.nodes.iter_mut().zip(found) {
        if let Some((x, kind)) = found {
            node.op = Unary { kind }.into();
            node.inputs = vec![x];
        }
    }
    Ok(())
}

fn function(pattern: &Pattern<'_>, node: &Node) -> Option<(ValueId, UnaryKind)> {
    let (x, power) = pattern.with_number(node, BinaryKind::Pow)?;
    let kind = match power {
        2.0 => UnaryKind::Square,
        0.5 => UnaryKind::Sqrt,
        -1.0 => UnaryKind::Reciprocal,
        _ => return None,
    };
    Some((x, kind))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Build;
    use super::*;

    #[test]
    fn common_powers_become_functions() {
        for (power, name) in [(2.0, "Square"), (0.5, "Sqrt"), (-1.0, "Reciprocal"), (3.0, "Pow")] {
            let mut build = Build::new(&[2, 5]);
            let positive = build.unary(UnaryKind::Exp, build.x);
            let y = build.with(BinaryKind::Pow, positive, power);
            assert_eq!(format!("{:?}", build.optimized(y, 1e-5).nodes[1].op), name);
        }
    }
}
