//! The smooth activations, which are products of a value with its own gate.
//!
//! ```text
//! x -> Sigmoid -> Mul(x)                                            =>    x -> Silu
//! x -> Div(sqrt 2) -> Erf -> Add(1) -> Mul(x) -> Mul(1/2)           =>    x -> Gelu
//! x -> (x + 0.044715 x^3) sqrt(2/pi) -> Tanh -> Add(1) -> Mul(x/2)  =>    x -> GeluTanh
//! ```
//!
//! When: factors and constants in any order; no intermediate value is read elsewhere.

use std::f32::consts::{FRAC_1_SQRT_2, FRAC_2_PI};

use skipstone_kernels::activation::Activation;

use super::super::{Graph, Node, ValueId};
use super::pattern::{Pattern, near};
use crate::error::Result;
use crate::ops::activate::Activate;
use crate::ops::binary::BinaryKind;
use crate::ops::unary::UnaryKind;
use crate::reserve;

/// The cubic coefficient in the tanh form of GELU.
const CUBIC: f32 = 0.044_715;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let pattern = Pattern::new(graph)?;
    let found = reserve::list(graph.nodes.iter().map(|node| gate(&pattern, node)))?;
    for (node, found) in graph.nodes.iter_mut().zip(found) {
        if let Some((x, activation)) = found {
            node.op = Activate { activation }.into();
            node.inputs = vec![x];
        }
    }
    Ok(())
}

fn gate(pattern: &Pattern<'_>, node: &Node) -> Option<(ValueId, Activation)> {
    let product = pattern.product(node);
    let &[a, b] = product.values.as_slice() else { return None };
    let of = |x: ValueId, gate: ValueId| {
        let affine = pattern.affine(gate);
        let (alpha, beta) = (affine.alpha * product.scale, affine.beta * product.scale);
        let inner = pattern.inner(affine.x)?;
        let activation = Pattern::activation(inner);
        if activation == Some((Activation::Sigmoid, x)) && near(alpha, 1.0) && beta == 0.0 {
            return Some((x, Activation::Silu));
        }
        if !near(alpha, 0.5) || !near(beta, 0.5) {
            return None;
        }
        if let Some(inside) = Pattern::unary(inner, UnaryKind::Erf) {
            let inside = pattern.factors(inside);
            return (inside.values == [x] && near(inside.scale, FRAC_1_SQRT_2)).then_some((x, Activation::Gelu));
        }
        match activation {
            Some((Activation::Tanh, inside)) if is_cubic(pattern, x, inside) => Some((x, Activation::GeluTanh)),
            _ => None,
        }
    };
    of(a, b).or_else(|| of(b, a))
}

/// Whether a value is `sqrt(2/pi) * (x + 0.044715 x^3)`, or the same with x factored out.
fn is_cubic(pattern: &Pattern<'_>, x: ValueId, value: ValueId) -> bool {
    let product = pattern.factors(value);
    if !near(product.scale, FRAC_2_PI.sqrt()) {
        return false;
    }
    match *product.values.as_slice() {
        [sum] => {
            let Some(terms) = pattern.inner(sum).and_then(|node| Pattern::operands(node, BinaryKind::Add)) else {
                return false;
            };
            let cubic = |term: ValueId| {
                let term = pattern.factors(term);
                near(term.scale, CUBIC) && term.values == [x; 3]
            };
            (terms[0] == x && cubic(terms[1])) || (terms[1] == x && cubic(terms[0]))
        }
        [a, b] => {
            let factor = |factor: ValueId| {
                let affine = pattern.affine(factor);
                let square = pattern.factors(affine.x);
                near(affine.beta, 1.0) && near(affine.alpha * square.scale, CUBIC) && square.values == [x; 2]
            };
            (a == x && factor(b)) || (b == x && factor(a))
        }
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{Build, only_activation};
    use super::*;

    #[test]
    fn silu() {
        let mut build = Build::new(&[3, 5]);
        let gate = build.activate(Activation::Sigmoid, build.x);
        let y = build.binary(BinaryKind::Mul, gate, build.x);
        assert_eq!(only_activation(&build.optimized(y, 1e-5)), Some(Activation::Silu));
    }

    #[test]
    fn gelu_in_several_orders() {
        type Spelling = fn(&mut Build, ValueId, ValueId) -> ValueId;
        let spellings: [Spelling; 3] = [
            |b, x, gate| {
                let product = b.binary(BinaryKind::Mul, x, gate);
                b.with(BinaryKind::Mul, product, 0.5)
            },
            |b, x, gate| {
                let half = b.with(BinaryKind::Mul, x, 0.5);
                b.binary(BinaryKind::Mul, half, gate)
            },
            |b, x, gate| {
                let half = b.with(BinaryKind::Mul, gate, 0.5);
                b.binary(BinaryKind::Mul, x, half)
            },
        ];
        for spelling in spellings {
            let mut build = Build::new(&[3, 5]);
            let scaled = build.with(BinaryKind::Div, build.x, std::f32::consts::SQRT_2);
            let erf = build.unary(UnaryKind::Erf, scaled);
            let gate = build.with(BinaryKind::Add, erf, 1.0);
            let x = build.x;
            let y = spelling(&mut build, x, gate);
            assert_eq!(only_activation(&build.optimized(y, 1e-5)), Some(Activation::Gelu));
        }
    }

    #[test]
    fn gelu_by_tanh_with_pow_and_with_products() {
        for with_pow in [true, false] {
            let mut build = Build::new(&[3, 5]);
            let x = build.x;
            let cube = if with_pow {
                build.with(BinaryKind::Pow, x, 3.0)
            } else {
                let square = build.binary(BinaryKind::Mul, x, x);
                build.binary(BinaryKind::Mul, square, x)
            };
            let term = build.with(BinaryKind::Mul, cube, CUBIC);
            let sum = build.binary(BinaryKind::Add, x, term);
            let inside = build.with(BinaryKind::Mul, sum, 0.797_884_6);
            let tanh = build.activate(Activation::Tanh, inside);
            let gate = build.with(BinaryKind::Add, tanh, 1.0);
            let half = build.with(BinaryKind::Mul, x, 0.5);
            let y = build.binary(BinaryKind::Mul, half, gate);
            assert_eq!(only_activation(&build.optimized(y, 1e-5)), Some(Activation::GeluTanh));
        }
    }

    #[test]
    fn the_gate_of_another_value_is_left_alone() {
        let mut build = Build::new(&[3]);
        let other = build.unary(UnaryKind::Neg, build.x);
        let gate = build.activate(Activation::Sigmoid, other);
        let y = build.binary(BinaryKind::Mul, gate, build.x);
        assert_eq!(only_activation(&build.optimized(y, 1e-5)), None);
    }
}
