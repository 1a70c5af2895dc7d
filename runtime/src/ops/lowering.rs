//! Taking over a node of the front end whole.

use super::{Op, Operator};
use crate::error::Result;
use crate::graph::ValueId;
use crate::onnx::lower::Lowering;

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
