//! A build without tract: nodes for the fallback are refused by name.

use skipstone_onnx::proto::Model;

use super::super::import::tensor::Files;
use super::{ForeignNode, Made};
use crate::error::{Error, Result};
use crate::graph::Lowered;
use crate::info::Shapes;

/// Whether the fallback has this operator.
pub(in crate::onnx) fn is_admitted(_domain: &str, _op_type: &str) -> bool {
    false
}

/// Refuses a node without one of our operators.
///
/// # Errors
/// Always.
pub(in crate::onnx) fn node(step: &ForeignNode<'_, '_>) -> Result<Made> {
    let name = if step.node.name.is_empty() { step.node.outputs.first().copied() } else { Some(step.node.name) };
    let reason = format!("operator {} has no kernel, and this build has no fallback", step.node.op_type);
    Err(Error::Unsupported { node: name.unwrap_or_default().to_owned(), reason })
}

/// Refuses a model whose shapes depend on its data, so that it cannot be planned.
///
/// # Errors
/// Always.
pub(in crate::onnx) fn whole(_: &Model<'_>, _: &Files, _: &Shapes, reason: String) -> Result<Lowered> {
    Err(Error::Unsupported { node: "graph".into(), reason })
}
