//! Taking over a node of the front end whole.

use skipstone_kernels::activation::Activation;

use super::binary::{Binary, BinaryKind};
use super::reshape::Reshape;
use super::{Op, Operator};
use crate::error::Result;
use crate::graph::ValueId;
use crate::onnx::lower::Lowering;
use crate::tensor::{Fact, Shape, Tensor};

/// Adds `op` for the front end's node, where our shape rule accepts `inputs` and answers what
/// the front end answers; else declines, so that the node becomes a fallback step.
pub(crate) fn take(cx: &mut Lowering<'_>, op: impl Into<Op>, inputs: &[ValueId]) -> Result<Option<Vec<ValueId>>> {
    let op = op.into();
    let Ok(results) = op.infer(&cx.graph.facts(inputs)) else { return Ok(None) };
    if results.iter().enumerate().any(|(i, fact)| cx.output(i).as_ref() != Some(fact)) {
        return Ok(None);
    }
    let name = cx.name().to_owned();
    cx.graph.add_node(name, op, inputs).map(Some)
}

/// The value under `shape`, which it broadcasts to by repetition: a scalar bias made one per
/// channel.
pub(crate) fn broadcast_to(cx: &mut Lowering<'_>, value: ValueId, shape: &Shape) -> Result<ValueId> {
    let fact = cx.graph.fact(value).clone();
    if fact.shape == *shape {
        return Ok(value);
    }
    if fact.shape.elements() == shape.elements() {
        return cx.add(Reshape { shape: shape.clone() }, &[value]);
    }
    let zeros = cx.constant(Tensor::zeros(Fact::new(fact.dtype, shape.clone())));
    cx.add(Binary { kind: BinaryKind::Add, activation: Activation::None }, &[zeros, value])
}
