//! A single node in tract: a model with only this node's message, its operands as inputs of known shapes or as
//! constants. It is made on a thread of its own, as it is run.

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
use crate::ops::aside::aside;
use crate::ops::{Budget, Foreign, ForeignOp};
use crate::reserve::{self, NoMemory};
use crate::tensor::{DType, Fact, Tensor, TensorView};

/// Steps of work that take less than a millisecond or two, and whose operands and results are small: a hundred elements.
const QUICK: u64 = 1 << 15;

/// Makes a fallback step from a node.
///
/// # Errors
/// An operator that tract does not have either; tract's errors; no memory.
pub(in crate::onnx) fn node(step: &ForeignNode<'_, '_>) -> Result<Made> {
    let wanted = Wanted::new(step)?;
    let name = wanted.name.clone();
    match aside(&|| false, move |_| wanted.made()).map_err(|error| error.at(&name))?? {
        Unbound::Constants(tensors) => Ok(Made::Constants(tensors)),
        Unbound::Dynamic(reason) => Ok(Made::Dynamic(reason)),
        Unbound::Step(op) => {
            let variable = step.operands.iter().filter(|(_, id)| step.graph.constant(*id).is_none());
            Ok(Made::Step(op, reserve::list(variable.map(|(_, id)| *id))?))
        }
    }
}

/// What was made, which does not know the graph.
enum Unbound {
    Constants(Vec<Tensor>),
    Step(ForeignOp),
    Dynamic(String),
}

/// A node with all that is known of its operands.
struct Wanted {
    /// Its name in errors.
    name: String,
    op_type: String,
    /// Its message.
    bytes: Vec<u8>,
    operands: Vec<Operand>,
    /// The outputs with names.
    outputs: Vec<String>,
    opsets: Vec<(String, i64)>,
    /// Bytes that constants may still take.
    room: u64,
}

struct Operand {
    name: String,
    fact: Fact,
    constant: Option<Arc<Tensor>>,
}

impl Wanted {
    fn new(step: &ForeignNode<'_, '_>) -> Result<Self> {
        let node = step.node;
        let name = if node.name.is_empty() { node.outputs.first().copied().unwrap_or(node.op_type) } else { node.name };
        let operands = step.operands.iter().map(|&(operand, id)| {
            let fact = step.graph.fact(id);
            if !admit::supports(node.op_type, fact.dtype) {
                return Err(refused(name, &format!("{} of {}", node.op_type, fact.dtype)));
            }
            let constant = step.graph.constant(id).cloned();
            Ok(Operand { name: reserve::text(operand)?, fact: fact.clone(), constant })
        });
        let outputs = node.outputs.iter().filter(|output| !output.is_empty()).map(|output| reserve::text(output));
        let opsets = step.opsets.iter().map(|(domain, &version)| Ok::<_, NoMemory>((reserve::text(domain)?, version)));
        Ok(Self {
            operands: reserve::results(operands)?,
            outputs: reserve::results(outputs)?,
            opsets: reserve::results(opsets)?,
            name: reserve::text(name)?,
            op_type: reserve::text(node.op_type)?,
            bytes: reserve::list(node.bytes.iter().copied())?,
            room: step.room,
        })
    }

    fn made(&self) -> Result<Unbound> {
        let name = &self.name;
        let file = self.file()?;
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
                    return Ok(Unbound::Dynamic(format!(
                        "'{name}' ({}) returns {fact:?}: its type or shape is not known before the run",
                        self.op_type
                    )));
                }
            }
        }
        let inputs = typed.input_outlets().map_err(|e| refused(name, &e.to_string()))?.iter();
        let inputs = inputs.filter_map(|o| typed.outlet_fact(*o).ok().map(|f| f.datum_type)).collect();
        let (symbols, work) = (typed.symbols.clone(), meter::work(&typed));
        let plan = guarded(|| typed.into_runnable()).map_err(|panic| refused(name, &panic))?;
        let plan = plan.map_err(|e| refused(name, &format!("{e:#}")))?;
        let is_quick = work <= QUICK;
        let plan = TractPlan { name: self.op_type.clone(), symbols, plan, inputs, outputs, work, is_quick };
        if self.operands.iter().any(|operand| operand.constant.is_none()) {
            return Ok(Unbound::Step(ForeignOp(Arc::new(plan))));
        }
        let bytes = plan.outputs.iter().fold(0, |sum: u64, fact| sum.saturating_add(fact.bytes() as u64));
        limits::check_fixed("bytes of constants to compute", bytes, self.room)?;
        limits::check_fixed("steps of work on constants", plan.work, Limits::default().max_folded_work)?;
        let results = plan.evaluate(&[] as &[TensorView<'_>], &Budget::UNBOUNDED);
        results.map(Unbound::Constants).map_err(|e| e.at(name))
    }

    /// The model of this node.
    fn file(&self) -> Result<Vec<u8>> {
        let (mut inputs, mut constants) = (Vec::new(), Vec::new());
        for Operand { name, fact, constant } in &self.operands {
            let element = element(fact.dtype);
            let dims: Vec<i64> = fact.shape.iter().map(|&dim| dim as i64).collect();
            match constant {
                Some(tensor) => constants.push(write::tensor(name, element, &dims, tensor.bytes())),
                None => inputs.push(write::value(name, element, &dims)),
            }
        }
        let outputs: Vec<Message> = self.outputs.iter().map(|output| write::named(output)).collect();
        if outputs.is_empty() {
            return Err(refused(&self.name, "the node has no outputs"));
        }
        let mut opsets: Vec<_> = self.opsets.iter().map(|(domain, version)| write::opset(domain, *version)).collect();
        if !self.opsets.iter().any(|(domain, _)| domain.is_empty()) {
            opsets.push(write::opset("", 13));
        }
        let graph = write::graph(&[Message::of(&self.bytes)], &constants, &inputs, &outputs);
        Ok(write::model_with(&graph, &opsets))
    }
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
