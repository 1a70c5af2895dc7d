//! Helpers for recognizing patterns: which node computes a value, and whether the value is read elsewhere.
//!
//! A pattern is matched from its last node backwards. Values inside it must have no readers outside, otherwise they
//! would have to be computed anyway; [`Pattern`] returns only such values.

use super::super::{Graph, Node, Uses, ValueId};
use crate::error::Result;
use crate::ops::Op;
use crate::ops::activate::Activate;
use crate::ops::binary::{Binary, BinaryKind};
use crate::ops::unary::{Unary, UnaryKind};
use skipstone_kernels::activation::Activation;

/// Longest chain of arithmetic that is treated as one expression: every activation that exporters write has fewer
/// nodes. Without a limit, a graph that is one long chain would be walked from each of its nodes.
const DEPTH: usize = 16;

/// A graph under inspection, with its uses.
pub(super) struct Pattern<'a> {
    pub graph: &'a Graph,
    uses: Uses,
}

/// `alpha * x + beta`
#[derive(Clone, Copy, Debug)]
pub(super) struct Affine {
    pub x: ValueId,
    pub alpha: f32,
    pub beta: f32,
}

/// A product of values and a constant.
#[derive(Clone, Debug)]
pub(super) struct ScaledProduct {
    pub scale: f32,
    pub values: Vec<ValueId>,
}

impl<'a> Pattern<'a> {
    /// # Errors
    /// No memory.
    pub fn new(graph: &'a Graph) -> Result<Self> {
        Ok(Self { graph, uses: graph.uses()? })
    }

    /// The node that writes `id`, however many readers it has.
    pub fn writer(&self, id: ValueId) -> Option<&'a Node> {
        self.graph.nodes.get(self.uses.writer(id)?)
    }

    /// The position of the node that writes `id`.
    pub fn position(&self, id: ValueId) -> Option<usize> {
        self.uses.writer(id)
    }

    /// The node that writes `id`, if only one node reads it.
    pub fn inner(&self, id: ValueId) -> Option<&'a Node> {
        self.uses.only_reader(id).and_then(|_| self.writer(id))
    }

    /// How many times `id` is read.
    pub fn readers(&self, id: ValueId) -> usize {
        self.uses.readers(id).len()
    }

    /// The value, if `id` is an f32 constant with all elements equal.
    pub fn number(&self, id: ValueId) -> Option<f32> {
        let elements = self.graph.constant(id)?.peek::<f32>()?;
        elements.get(0).filter(|&first| elements.iter().all(|other| other == first))
    }

    /// The operands, if the node is a plain `kind`.
    pub fn operands(node: &Node, kind: BinaryKind) -> Option<[ValueId; 2]> {
        match node.op {
            Op::Binary(Binary { kind: held, activation: Activation::None }) if held == kind => {
                node.inputs.as_slice().try_into().ok()
            }
            _ => None,
        }
    }

    /// The value and the number of a plain `kind` with a number, if the result has the shape of the value: operands in
    /// either order if `kind` commutes, otherwise the number second.
    pub fn with_number(&self, node: &Node, kind: BinaryKind) -> Option<(ValueId, f32)> {
        let [a, b] = Self::operands(node, kind)?;
        let swapped = || if kind.is_commutative() { Some((b, self.number(a)?)) } else { None };
        let (x, number) = self.number(b).map(|number| (a, number)).or_else(swapped)?;
        (self.graph.fact(x) == self.graph.fact(*node.outputs.first()?)).then_some((x, number))
    }

    /// The operand of a function of one element.
    pub fn unary(node: &Node, kind: UnaryKind) -> Option<ValueId> {
        match node.op {
            Op::Unary(Unary { kind: held }) if held == kind => node.inputs.first().copied(),
            _ => None,
        }
    }

    /// The activation and its operand.
    pub fn activation(node: &Node) -> Option<(Activation, ValueId)> {
        match node.op {
            Op::Activate(Activate { activation }) => Some((activation, *node.inputs.first()?)),
            _ => None,
        }
    }

    /// `id` as a chain of sums and products with constants; at least `id` itself.
    pub fn affine(&self, id: ValueId) -> Affine {
        let mut seen = Affine { x: id, alpha: 1.0, beta: 0.0 };
        for _ in 0..DEPTH {
            let Some(step) = self.inner(seen.x).and_then(|node| self.affine_step(node)) else { break };
            seen = Affine { x: step.x, alpha: seen.alpha * step.alpha, beta: seen.alpha * step.beta + seen.beta };
        }
        seen
    }

    /// One link of such a chain.
    pub fn affine_step(&self, node: &Node) -> Option<Affine> {
        if let Some((x, beta)) = self.with_number(node, BinaryKind::Add) {
            return Some(Affine { x, alpha: 1.0, beta });
        }
        if let Some((x, number)) = self.with_number(node, BinaryKind::Sub) {
            return Some(Affine { x, alpha: 1.0, beta: -number });
        }
        self.scale_step(node).map(|(x, alpha)| Affine { x, alpha, beta: 0.0 })
    }

    /// A value times a number, or divided by one.
    fn scale_step(&self, node: &Node) -> Option<(ValueId, f32)> {
        let divided = || self.with_number(node, BinaryKind::Div).map(|(x, number)| (x, number.recip()));
        self.with_number(node, BinaryKind::Mul).or_else(divided)
    }

    /// The factors of the value that `node` writes: products are expanded, and powers two and three count as two or
    /// three factors.
    pub fn product(&self, node: &Node) -> ScaledProduct {
        let mut product = ScaledProduct { scale: 1.0, values: Vec::new() };
        if !self.multiply(node, &mut product, DEPTH) {
            product.values.extend(node.outputs.first());
        }
        product
    }

    /// Like `product`, for a value that is only read by the pattern; otherwise the value itself.
    pub fn factors(&self, id: ValueId) -> ScaledProduct {
        match self.inner(id) {
            Some(node) => self.product(node),
            None => ScaledProduct { scale: 1.0, values: vec![id] },
        }
    }

    /// Multiplies a node's factors into `product`, going back at most `depth` nodes and to a few factors; returns false
    /// if it is not a product.
    fn multiply(&self, node: &Node, product: &mut ScaledProduct, depth: usize) -> bool {
        if depth == 0 || product.values.len() > DEPTH {
            return false;
        }
        let mut operands = Vec::new();
        if let Some((x, scale)) = self.scale_step(node) {
            product.scale *= scale;
            operands.push(x);
        } else if let Some(pair) = Self::operands(node, BinaryKind::Mul) {
            operands.extend(pair);
        } else if let Some(x) = Self::unary(node, UnaryKind::Square) {
            operands.extend([x; 2]);
        } else if let Some((x, power)) = self.with_number(node, BinaryKind::Pow)
            && (power == 2.0 || power == 3.0)
        {
            operands.extend(std::iter::repeat_n(x, power as usize));
        } else {
            return false;
        }
        // A value that the pattern reads twice (a square) is not expanded further.
        let single = operands.len() == 1 || operands.first() != operands.get(1);
        for id in operands {
            if !self.inner(id).is_some_and(|inner| single && self.multiply(inner, product, depth - 1)) {
                product.values.push(id);
            }
        }
        true
    }
}

/// Whether two constants are equal up to an exporter's rounding.
pub(super) fn near(a: f32, b: f32) -> bool {
    (a - b).abs() <= 1e-5 * b.abs().max(1e-3)
}
