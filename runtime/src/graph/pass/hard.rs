//! The piecewise linear activations, in the various forms that exporters write.
//!
//! ```text
//! x -> Add(3) -> Clip(0, 6) -> Div(6)                      =>    x -> HardSigmoid(1/6, 1/2)
//! x -> Mul(a) -> Add(b) -> Clip(0, 1)                      =>    x -> HardSigmoid(a, b)
//! x -> Add(3) -> Clip(0, 6) -> Mul(x) -> Div(6)            =>    x -> HardSwish
//! x -> HardSigmoid(1/6, 1/2) -> Mul(x)                     =>    x -> HardSwish
//! ```
//!
//! When: sums, products and quotients with constants, in any order, and no intermediate value is read elsewhere. Bounds
//! are already activations (the pass `bounds`).

use skipstone_kernels::activation::Activation;

use super::super::{Graph, Node, ValueId};
use super::pattern::{Affine, Pattern, near};
use crate::error::Result;
use crate::ops::activate::Activate;
use crate::ops::binary::BinaryKind;
use crate::reserve;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let pattern = Pattern::new(graph)?;
    let find = |node: &Node| hard_swish(&pattern, node).or_else(|| hard_sigmoid(&pattern, node));
    let found = reserve::list(graph.nodes.iter().map(find))?;
    for (node, found) in graph.nodes.iter_mut().zip(found) {
        if let Some((x, activation)) = found {
            node.op = Activate { activation }.into();
            node.inputs = vec![x];
        }
    }
    Ok(())
}

/// `scale * clip(alpha * x + beta, 0, high)`: the common part of both functions.
#[derive(Clone, Copy)]
struct Ramp {
    x: ValueId,
    alpha: f32,
    beta: f32,
    high: f32,
}

impl Ramp {
    /// The ramp that a node computes, multiplied by `scale`.
    fn of(pattern: &Pattern<'_>, node: &Node, scale: f32) -> Option<Self> {
        let (activation, x) = Pattern::activation(node)?;
        let (inside, high) = match activation {
            Activation::Clip { min: 0.0, max } if max.is_finite() => (pattern.affine(x), max),
            Activation::HardSigmoid { alpha, beta } => (Affine { x, alpha, beta }, 1.0),
            _ => return None,
        };
        let Affine { x, alpha, beta } = inside;
        (scale > 0.0).then_some(Self { x, alpha: alpha * scale, beta: beta * scale, high: high * scale })
    }

    fn scaled(self, scale: f32) -> Option<Self> {
        let Self { x, alpha, beta, high } = self;
        (scale > 0.0).then_some(Self { x, alpha: alpha * scale, beta: beta * scale, high: high * scale })
    }
}

fn hard_sigmoid(pattern: &Pattern<'_>, node: &Node) -> Option<(ValueId, Activation)> {
    let product = pattern.product(node);
    let &[clipped] = product.values.as_slice() else { return None };
    // The last node is either the scale after the clip, or the clip.
    let ramp = match product.scale {
        1.0 => Ramp::of(pattern, node, 1.0)?,
        scale => Ramp::of(pattern, pattern.inner(clipped)?, scale)?,
    };
    // A plain clip between 0 and 1 stays a Clip.
    if ramp.alpha == 1.0 && ramp.beta == 0.0 {
        return None;
    }
    near(ramp.high, 1.0).then_some((ramp.x, Activation::HardSigmoid { alpha: ramp.alpha, beta: ramp.beta }))
}

fn hard_swish(pattern: &Pattern<'_>, node: &Node) -> Option<(ValueId, Activation)> {
    Pattern::operands(node, BinaryKind::Mul).or(Pattern::operands(node, BinaryKind::Div))?;
    let product = pattern.product(node);
    let &[a, b] = product.values.as_slice() else { return None };
    let swish = |x: ValueId, clipped: ValueId| {
        let ramp = Ramp::of(pattern, pattern.inner(clipped)?, 1.0)?.scaled(product.scale)?;
        let fits = ramp.x == x && near(ramp.high, 1.0) && near(ramp.alpha, 1.0 / 6.0) && near(ramp.beta, 0.5);
        fits.then_some((x, Activation::HardSwish))
    };
    swish(a, b).or_else(|| swish(b, a))
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Build, only_activation};
    use super::*;

    /// clip(x + 3, 0, 6)
    fn ramp(build: &mut Build, x: ValueId) -> ValueId {
        let sum = build.with(BinaryKind::Add, x, 3.0);
        let low = build.with(BinaryKind::Max, sum, 0.0);
        build.with(BinaryKind::Min, low, 6.0)
    }

    #[test]
    fn every_form_of_hard_swish() {
        type Spelling = fn(&mut Build, ValueId) -> ValueId;
        let spellings: [Spelling; 6] = [
            |b, x| {
                let r = ramp(b, x);
                let product = b.binary(BinaryKind::Mul, x, r);
                b.with(BinaryKind::Div, product, 6.0)
            },
            |b, x| {
                let r = ramp(b, x);
                let product = b.binary(BinaryKind::Mul, r, x);
                b.with(BinaryKind::Mul, product, 1.0 / 6.0)
            },
            |b, x| {
                let r = ramp(b, x);
                let gate = b.with(BinaryKind::Div, r, 6.0);
                b.binary(BinaryKind::Mul, x, gate)
            },
            |b, x| {
                let scaled = b.with(BinaryKind::Mul, x, 0.166_666_67);
                let r = ramp(b, x);
                b.binary(BinaryKind::Mul, scaled, r)
            },
            |b, x| {
                let scaled = b.with(BinaryKind::Mul, x, 1.0 / 6.0);
                let sum = b.with(BinaryKind::Add, scaled, 0.5);
                let low = b.with(BinaryKind::Min, sum, 1.0);
                let gate = b.with(BinaryKind::Max, low, 0.0);
                b.binary(BinaryKind::Mul, gate, x)
            },
            |b, x| {
                let scaled = b.with(BinaryKind::Div, x, 6.0);
                let sum = b.with(BinaryKind::Add, scaled, 0.5);
                let low = b.with(BinaryKind::Max, sum, 0.0);
                let gate = b.with(BinaryKind::Min, low, 1.0);
                b.binary(BinaryKind::Mul, x, gate)
            },
        ];
        for (i, spelling) in spellings.iter().enumerate() {
            let mut build = Build::new(&[2, 5]);
            let x = build.x;
            let y = spelling(&mut build, x);
            assert_eq!(only_activation(&build.optimized(y, 1e-5)), Some(Activation::HardSwish), "spelling {i}");
        }
    }

    #[test]
    fn hard_sigmoid_of_any_slope() {
        let mut build = Build::new(&[7]);
        let scaled = build.with(BinaryKind::Mul, build.x, 0.2);
        let sum = build.with(BinaryKind::Add, scaled, 0.5);
        let low = build.with(BinaryKind::Max, sum, 0.0);
        let y = build.with(BinaryKind::Min, low, 1.0);
        let graph = build.optimized(y, 1e-5);
        assert_eq!(only_activation(&graph), Some(Activation::HardSigmoid { alpha: 0.2, beta: 0.5 }));
    }

    #[test]
    fn another_gate_is_left_alone() {
        let mut build = Build::new(&[7]);
        let x = build.x;
        let r = ramp(&mut build, x);
        let product = build.binary(BinaryKind::Mul, build.x, r);
        let y = build.with(BinaryKind::Div, product, 5.0);
        assert_eq!(only_activation(&build.optimized(y, 1e-5)), None);
    }

    #[test]
    fn a_gate_that_is_read_elsewhere_stays() {
        let mut build = Build::new(&[7]);
        let x = build.x;
        let r = ramp(&mut build, x);
        let gate = build.with(BinaryKind::Div, r, 6.0);
        let y = build.binary(BinaryKind::Mul, build.x, gate);
        build.output(gate);
        assert!(build.optimized(y, 1e-5).nodes.len() > 1);
    }
}
