//! Masks: moves the product with a channel mask after operators that keep zeros, so that they can be fused into the
//! convolution before it, and the mask tells which channels of all of them are needed.
//!
//! ```text
//! Conv -> Mul(mask) -> Relu        =>    Conv -> Relu -> Mul(mask)
//! Conv -> Mul(mask) -> Mul(scale)  =>    Conv -> Mul(scale) -> Mul(mask)
//! Where(mask, x, 0) -> Relu        =>    Relu -> Where(mask, .., 0)
//! ```
//!
//! When: the mask is computed at run time and can only be 0 or 1 (the Cast of a comparison, Where between 1 and 0,
//! Round of a Sigmoid, products and complements of these), with one element per image and channel. The activation maps
//! 0 to 0, or the scale is a finite constant. The product has no other reader. A mask `[C, 1, 1]` of a single image
//! gets its batch axis.

use skipstone_kernels::activation::{Activation, scalar::apply};

use super::super::{Graph, Node, Uses, ValueId};
use super::pattern::Pattern;
use crate::error::Result;
use crate::ops::Op;
use crate::ops::activate::Activate;
use crate::ops::binary::{Binary, BinaryKind};
use crate::ops::cast::Cast;
use crate::ops::conv::Conv;
use crate::ops::image::{ImageDims, Layout};
use crate::ops::reshape::Reshape;
use crate::ops::unary::{Unary, UnaryKind};
use crate::reserve;
use crate::tensor::DType;

/// Most nodes between a mask and the comparison that it comes from.
const DEPTH: usize = 8;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let uses = graph.uses()?;
    for index in 0..graph.nodes.len() {
        let mut at = index;
        while let Some(reader) = follower(graph, &uses, at) {
            // The two swap places: the value between them is now the one before the mask.
            let (gate, next) = (graph.nodes[at].copy()?, graph.nodes[reader].copy()?);
            let between = graph.nodes[at].outputs[0];
            let Some(gated) = gated(graph, &uses, &gate, Layout::Nchw) else { break };
            let swap = |node: Node, from: ValueId, to: ValueId, outputs: Vec<ValueId>| {
                let inputs = node.inputs.iter().map(|&id| if id == from { to } else { id }).collect();
                Node { inputs, outputs, ..node }
            };
            let last = next.outputs.clone();
            graph.nodes[at] = swap(next, between, gated.x, vec![between]);
            graph.nodes[reader] = swap(gate, gated.x, between, last);
            at = reader;
        }
    }
    widen(graph)
}

/// The position of the node that reads a masked value, if it keeps zeros.
fn follower(graph: &Graph, uses: &Uses, at: usize) -> Option<usize> {
    let gated = gated(graph, uses, &graph.nodes[at], Layout::Nchw)?;
    let y = *graph.nodes[at].outputs.first()?;
    let reader = uses.only_reader(y)?;
    let node = graph.nodes.get(reader)?;
    let whole = graph.fact(*node.outputs.first()?) == graph.fact(gated.x);
    let keeps = match &node.op {
        Op::Activate(Activate { activation }) => apply(*activation, 0.0) == 0.0,
        Op::Binary(Binary { kind: BinaryKind::Mul, activation: Activation::None }) => {
            let scale = node.inputs.iter().find(|&&id| id != y).and_then(|&id| graph.constant(id)?.peek::<f32>());
            scale.is_some_and(|scale| scale.iter().all(f32::is_finite))
        }
        _ => false,
    };
    (whole && keeps).then_some(reader)
}

/// Adds the batch axis to masks of a single image, so that they follow its layout.
fn widen(graph: &mut Graph) -> Result<()> {
    let mut nodes = reserve::empty(graph.nodes.len())?;
    for mut node in std::mem::take(&mut graph.nodes) {
        let masked = matches!(node.op, Op::Select(_)) || Pattern::operands(&node, BinaryKind::Mul).is_some();
        let y = node.outputs.first().filter(|_| masked).map(|&id| graph.fact(id).shape.clone());
        if let Some(&[1, channels, _, _]) = y.as_ref().map(|y| y.dims()) {
            for at in 0..node.inputs.len() {
                let id = node.inputs[at];
                let narrow = graph.constant(id).is_none() && graph.fact(id).shape.dims() == [channels, 1, 1];
                if narrow {
                    let shape = ImageDims { batch: 1, channels, height: 1, width: 1 }.shape(Layout::Nchw);
                    let shape = shape.map_err(|e| e.at(&node.name))?;
                    let reshape = graph.make_node(format!("{}.mask", node.name), Reshape { shape }, &[id])?;
                    node.inputs[at] = reshape.outputs[0];
                    reserve::push(&mut nodes, reshape)?;
                }
            }
        }
        reserve::push(&mut nodes, node)?;
    }
    graph.nodes = nodes;
    Ok(())
}

/// A value of which a mask keeps some channels.
pub(super) struct Gated {
    /// All channels.
    pub x: ValueId,
    /// 1 (or true) for the kept channels, one element per image and channel.
    pub mask: ValueId,
    /// Whether the mask is inverted.
    pub inverted: bool,
}

/// The value and the mask, if the node is a product with a mask.
pub(super) fn gated(graph: &Graph, writers: &Uses, node: &Node, layout: Layout) -> Option<Gated> {
    let y = graph.fact(*node.outputs.first()?);
    let image = ImageDims::new(layout, &y.shape).ok()?;
    let per_channel = ImageDims { height: 1, width: 1, ..image }.shape(layout).ok()?;
    let fits = |x: ValueId, mask: ValueId| {
        graph.fact(x) == y && graph.fact(mask).shape == per_channel && graph.constant(x).is_none()
    };
    let zero = |id: ValueId| {
        let elements = graph.constant(id).and_then(|c| c.peek::<f32>());
        elements.is_some_and(|elements| elements.iter().all(|x| x == 0.0))
    };
    let found = |x, mask, inverted| Some(Gated { x, mask, inverted });
    if let Some([a, b]) = Pattern::operands(node, BinaryKind::Mul) {
        let is_gate = |x, mask| fits(x, mask) && is_binary(graph, writers, mask, DEPTH);
        return if is_gate(a, b) {
            found(a, b, false)
        } else if is_gate(b, a) {
            found(b, a, false)
        } else {
            None
        };
    }
    match (&node.op, node.inputs.as_slice()) {
        (Op::Select(_), &[mask, x, other]) if zero(other) && fits(x, mask) => found(x, mask, false),
        (Op::Select(_), &[mask, other, x]) if zero(other) && fits(x, mask) => found(x, mask, true),
        _ => None,
    }
}

/// Whether a product is one with a mask.
pub(super) fn is_gate(graph: &Graph, uses: &Uses, gate: &Node) -> bool {
    gated(graph, uses, gate, Layout::Nchw).is_some()
}

/// Whether a value computed at run time can only be 0 or 1.
fn is_binary(graph: &Graph, writers: &Uses, id: ValueId, depth: usize) -> bool {
    let Some(node) = writers.writer(id).and_then(|at| graph.nodes.get(at)).filter(|_| depth > 0) else { return false };
    let binary = |id: ValueId| is_binary(graph, writers, id, depth - 1);
    let number = |id: ValueId, number: f32| {
        let elements = graph.constant(id).and_then(|c| c.peek::<f32>());
        elements.is_some_and(|elements| elements.iter().all(|x| x == number))
    };
    match (&node.op, node.inputs.as_slice()) {
        (Op::Cast(Cast { to: DType::F32 }), &[x]) => graph.fact(x).dtype == DType::Bool || binary(x),
        (Op::Cast(_), &[x]) => graph.fact(x).dtype == DType::Bool,
        (Op::Select(_), &[_, a, b]) => {
            let one_or_zero = |id| number(id, 0.0) || number(id, 1.0) || binary(id);
            one_or_zero(a) && one_or_zero(b)
        }
        (Op::Unary(Unary { kind: UnaryKind::Round | UnaryKind::Floor | UnaryKind::Ceil }), &[x]) => {
            is_share(graph, writers, x, depth - 1)
        }
        (Op::Unary(Unary { kind: UnaryKind::Square | UnaryKind::Abs }), &[x]) => binary(x),
        (Op::Binary(Binary { kind: BinaryKind::Mul, activation: Activation::None }), &[a, b]) => binary(a) && binary(b),
        (Op::Binary(Binary { kind: BinaryKind::Sub, activation: Activation::None }), &[a, b]) => {
            number(a, 1.0) && binary(b)
        }
        (Op::Reshape(_) | Op::Transpose(_), &[x, ..]) => graph.fact(x).dtype == DType::Bool || binary(x),
        _ => false,
    }
}

/// Whether a value is between 0 and 1.
fn is_share(graph: &Graph, writers: &Uses, id: ValueId, depth: usize) -> bool {
    let Some(node) = writers.writer(id).and_then(|at| graph.nodes.get(at)).filter(|_| depth > 0) else { return false };
    match &node.op {
        Op::Activate(Activate { activation }) | Op::Conv(Conv { activation, .. }) => match *activation {
            Activation::Sigmoid | Activation::HardSigmoid { .. } => true,
            Activation::Clip { min, max } => min >= 0.0 && max <= 1.0,
            _ => false,
        },
        Op::Reshape(_) | Op::Transpose(_) => {
            node.inputs.first().is_some_and(|&x| is_share(graph, writers, x, depth - 1))
        }
        _ => is_binary(graph, writers, id, depth),
    }
}
