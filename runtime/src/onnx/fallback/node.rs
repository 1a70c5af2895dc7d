//! A single node in tract: a model with only this node's message, its operands as inputs of known shapes or as
//! constants.

use std::sync::Arc;

use skipstone_onnx::Limits;
use skipstone_onnx::write::{self, Message};
use tract_onnx::prelude::{Framework, InferenceModelExt, IntoRunnable, TractResult, TypedModel};
use tract_onnx::tract_core::internal::bail;

use super::guard::guarded;
use super::plan::{TractPlan, refused, tract_error};
use super::{ForeignNode, Made, admit, convert, meter};
use crate::error::Result;
use crate::limits;
use crate::ops::{Budget, Foreign, ForeignOp};
use crate::tensor::{DType, Fact, TensorView};

/// Steps of work that take less than a millisecond or two: about a thousand elements.
const QUICK: u64 = 1 << 18;

/// Makes a fallback step from a node.
///
/// # Errors
/// An operator that tract does not have either; tract's errors.
pub(in crate::onnx) fn node(step: &ForeignNode<'_, '_>) -> Result<Made> {
    let node = step.node;
    let name = if node.name.is_empty() { node.outputs.first().copied().unwrap_or(node.op_type) } else { node.name };
    let variable: Vec<_> = step.operands.iter().copied().filter(|(_, id)| step.graph.constant(*id).is_none()).collect();
    for (_, id) in step.operands {
        let dtype = step.graph.fact(*id).dtype;
        if !admit::supports(node.op_type, dtype) {
            return Err(refused(name, &format!("{} of {dtype}", node.op_type)));
        }
    }
    let file = file(step, name)?;
    // Its shapes are known now: apply our own rules first.
    skipstone_onnx::validate(&file, &Limits::default())?;
    let typed = guarded(|| typed(&file)).map_err(|panic| refused(name, &panic))?;
    let typed = typed.map_err(|e| tract_error(name, e))?;
    let outlets = typed.output_outlets().map_err(|e| refused(name, &e.to_string()))?.to_vec();
    let mut outputs: Vec<Fact> = Vec::with_capacity(outlets.len());
    for outlet in outlets {
        let fact = typed.outlet_fact(outlet).map_err(|e| refused(name, &e.to_string()))?;
        match convert::fact(fact) {
            Some(fact) => outputs.push(fact),
            None => {
                let what = format!(
                    "'{name}' ({}) returns {fact:?}: its type or shape is not known before the run",
                    node.op_type
                );
                return Ok(Made::Dynamic(what));
            }
        }
    }
    let inputs = typed.input_outlets().map_err(|e| refused(name, &e.to_string()))?.iter();
    let inputs = inputs.filter_map(|o| typed.outlet_fact(*o).ok().map(|f| f.datum_type)).collect();
    let (symbols, work) = (typed.symbols.clone(), meter::work(&typed));
    let plan = guarded(|| typed.into_runnable()).map_err(|panic| refused(name, &panic))?;
    let plan = plan.map_err(|e| refused(name, &format!("{e:#}")))?;
    let is_quick = work <= QUICK;
    let plan = TractPlan { name: node.op_type.to_owned(), symbols, plan, inputs, outputs, work, is_quick };
    if variable.is_empty() {
        let bytes = outputs_bytes(&plan.outputs);
        limits::check_fixed("bytes of constants to compute", bytes, step.room)?;
        limits::check_fixed("steps of work on constants", plan.work, Limits::default().max_folded_work)?;
        return plan
            .evaluate(&[] as &[TensorView<'_>], &Budget::UNBOUNDED)
            .map(Made::Constants)
            .map_err(|e| e.at(name));
    }
    Ok(Made::Step(ForeignOp(Arc::new(plan)), variable.into_iter().map(|(_, id)| id).collect()))
}

fn outputs_bytes(outputs: &[Fact]) -> u64 {
    outputs.iter().fold(0, |sum, fact| sum.saturating_add(fact.bytes() as u64))
}

/// Parses a model of one node and infers its types.
fn typed(file: &[u8]) -> TractResult<TypedModel> {
    let mut onnx = tract_onnx::onnx().with_ignore_output_shapes(true).with_ignore_value_info(true);
    admit::register(&mut onnx);
    let model = onnx.model_for_read(&mut &file[..])?;
    // The parser leaves unknown operators in the graph; type inference would only report a failure.
    if let Some(node) = model.nodes().iter().find(|n| n.op.name().starts_with("Unimplemented")) {
        bail!(
            "operator {} is not supported",
            node.op.name().trim_start_matches("Unimplemented(").trim_end_matches(')')
        );
    }
    model.into_typed()
}

/// The model of one node.
fn file(step: &ForeignNode<'_, '_>, name: &str) -> Result<Vec<u8>> {
    let (mut inputs, mut constants) = (Vec::new(), Vec::new());
    for (operand, id) in step.operands {
        let fact = step.graph.fact(*id);
        let element = element(fact.dtype);
        let dims: Vec<i64> = fact.shape.iter().map(|&dim| dim as i64).collect();
        match step.graph.constant(*id) {
            Some(tensor) => constants.push(write::tensor(operand, element, &dims, tensor.bytes())),
            None => inputs.push(write::value(operand, element, &dims)),
        }
    }
    let outputs: Vec<Message> =
        step.node.outputs.iter().filter(|output| !output.is_empty()).map(|output| write::named(output)).collect();
    if outputs.is_empty() {
        return Err(refused(name, "the node has no outputs"));
    }
    let mut opsets: Vec<_> = step.opsets.iter().map(|(domain, &version)| write::opset(domain, version)).collect();
    if !step.opsets.contains_key("") {
        opsets.push(write::opset("", 13));
    }
    let graph = write::graph(&[Message::of(step.node.bytes)], &constants, &inputs, &outputs);
    Ok(write::model_with(&graph, &opsets))
}

/// Code of an element type in the file.
fn element(dtype: DType) -> i64 {
    match dtype {
        DType::F32 => 1,
        DType::U8 => 2,
        DType::I8 => 3,
        DType::U16 => 4,
        DType::I16 => 5,
        DType::I32 => 6,
        DType::I64 => 7,
        DType::Bool => 9,
        DType::F16 => 10,
        DType::F64 => 11,
        DType::U32 => 12,
        DType::U64 => 13,
        DType::Bf16 => 16,
    }
}
