//! A whole model in tract: used if a shape depends on data, so that nothing can be planned.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use skipstone_onnx::proto::{Graph, Model, Tensor};
use tract_onnx::pb::tensor_shape_proto::dimension;
use tract_onnx::pb::{GraphProto, type_proto};
use tract_onnx::prelude::{Framework, InferenceModelExt, IntoRunnable, OutletId, TractResult, TypedModel};
use tract_onnx::tract_core::internal::bail;

use super::guard::guarded;
use super::plan::{TractPlan, refused, tract_error};
use super::{admit, convert, meter};
use crate::error::{Error, Result};
use crate::graph::{ForeignModel, Lowered};
use crate::info::Shapes;
use crate::onnx::import::{self, tensor::Files};
use crate::operator::Place;
use crate::ops::ForeignOp;
use crate::ops::aside::aside;
use crate::plan::Port;
use crate::reserve;
use crate::tensor::{Fact, Shape};

/// The information that tract needs on a model.
struct Whole {
    /// The file, with the folder of its external data.
    files: Files,
    /// The caller's inputs with their facts.
    inputs: Vec<(String, Fact)>,
    /// Names of the outputs, in order.
    outputs: Vec<String>,
    /// Why it could not be planned.
    reason: String,
}

/// Makes tract run a model whose shapes depend on its data, so that it could not be planned.
///
/// # Errors
/// An unsupported input type; operators that tract does not have; tract's errors.
pub(in crate::onnx) fn whole(model: &Model<'_>, files: &Files, shapes: &Shapes, reason: String) -> Result<Lowered> {
    model.graph.iter().try_for_each(|graph| understood(graph, &reason))?;
    let outputs = model.graph.iter().flat_map(|graph| &graph.outputs).map(|info| reserve::text(info.name));
    let outputs = reserve::results(outputs)?;
    let mut inputs = Vec::new();
    if let Some(graph) = &model.graph {
        for info in import::caller_inputs(graph)? {
            reserve::push(&mut inputs, (reserve::text(info.name)?, import::input_fact(info, shapes)?))?;
        }
    }
    let whole = Whole { files: files.clone(), inputs, outputs, reason: reason.clone() };
    let made = aside(&|| false, move |_| run(whole)).map_err(|error| error.at("graph"))?;
    made.map(Lowered::Foreign).map_err(|error| match error {
        Error::Unsupported { node, reason: theirs } => Error::Unsupported {
            node,
            reason: format!("{reason}; the fallback cannot run the whole model either: {theirs}"),
        },
        error => error,
    })
}

/// Refuses constants that tract takes for something else: starts of slices beyond the end, and empty lists of axes.
fn understood(graph: &Graph<'_>, reason: &str) -> Result<()> {
    let values = graph.nodes.iter().filter(|node| node.op_type == "Constant");
    let values = values.filter_map(|node| Some((*node.outputs.first()?, node.attribute("value")?.tensors.first()?)));
    let initializers = graph.initializers.iter().map(|tensor| (tensor.name, tensor));
    let constants: HashMap<&str, &Tensor<'_>> = reserve::map(initializers.chain(values))?;
    let integers = |name: &&str| constants.get(name).and_then(|tensor| tensor.integers());
    for node in &graph.nodes {
        node.subgraphs().try_for_each(|inner| understood(inner, reason))?;
        let Some(mut integers) = node.inputs.get(1).and_then(integers) else { continue };
        let what = match node.op_type {
            "Slice" if integers.any(|start| start.unsigned_abs() >= i32::MAX as u64) => "a start beyond the end",
            "Squeeze" if integers.next().is_none() => "an empty list of axes",
            _ => continue,
        };
        let reason = format!("{reason}; the fallback does not support {what} for {}", node.op_type);
        return Err(Error::Unsupported { node: node.name.to_owned(), reason });
    }
    Ok(())
}

fn run(model: Whole) -> Result<ForeignModel> {
    let at = |reason: &str| refused("graph", reason);
    let typed = guarded(|| typed(&model)).map_err(|panic| at(&panic))?;
    let typed = typed.map_err(|e| tract_error("graph", e))?;
    let port = |name: String, outlet: OutletId, place| {
        let fact = typed.outlet_fact(outlet).map_err(|e| at(&e.to_string()))?;
        let dtype = convert::dtype(fact.datum_type)
            .ok_or_else(|| at(&format!("'{name}' has the type {:?}", fact.datum_type)))?;
        let shape = fact.shape.as_concrete().and_then(|dims| Shape::new(dims).ok()).unwrap_or_default();
        Ok(Port { name, fact: Fact::new(dtype, shape), place })
    };
    let outlets = typed.output_outlets().map_err(|e| at(&e.to_string()))?.to_vec();
    let outputs = model.outputs.into_iter().zip(outlets);
    let outputs = outputs.map(|(name, outlet)| port(name, outlet, Place::Arena(0..0))).collect::<Result<Vec<_>>>()?;
    let inputs = model.inputs.into_iter().enumerate();
    let inputs: Vec<Port> = inputs.map(|(i, (name, fact))| Port { name, fact, place: Place::Input(i) }).collect();
    let types = typed.input_outlets().map_err(|e| at(&e.to_string()))?.to_vec();
    let types = types.iter().filter_map(|o| typed.outlet_fact(*o).ok().map(|f| f.datum_type)).collect();
    let (symbols, work) = (typed.symbols.clone(), meter::work(&typed));
    let plan = guarded(|| typed.into_decluttered()?.into_runnable());
    let plan = plan.map_err(|panic| at(&panic))?.map_err(|e| at(&format!("{e:#}")))?;
    let facts = outputs.iter().map(|p| p.fact.clone()).collect();
    let foreign =
        TractPlan { name: "graph".into(), symbols, plan, inputs: types, outputs: facts, work, is_quick: false };
    let foreign = ForeignOp(Arc::new(foreign));
    Ok(ForeignModel { foreign, inputs, outputs, reason: model.reason })
}

/// Removes symbolic dimensions, which may be any text, because tract parses them as formulas, recursively.
fn forget_symbols(graph: &mut GraphProto) {
    let values = graph.input.iter_mut().chain(&mut graph.output).chain(&mut graph.value_info);
    for value in values.filter_map(|info| info.r#type.as_mut()?.value.as_mut()) {
        let type_proto::Value::TensorType(tensor) = value;
        for dim in tensor.shape.iter_mut().flat_map(|shape| &mut shape.dim) {
            if let Some(dimension::Value::DimParam(_)) = dim.value {
                dim.value = None;
            }
        }
    }
    for attribute in graph.node.iter_mut().flat_map(|node| &mut node.attribute) {
        attribute.g.iter_mut().chain(&mut attribute.graphs).for_each(forget_symbols);
    }
}

fn typed(model: &Whole) -> TractResult<TypedModel> {
    let mut onnx = tract_onnx::onnx().with_ignore_output_shapes(true).with_ignore_value_info(true);
    admit::register(&mut onnx);
    let mut proto = onnx.proto_model_for_read(&mut &model.files.model[..])?;
    proto.graph.iter_mut().for_each(forget_symbols);
    let mut parsed = onnx.parse(&proto, model.files.folder.as_deref().and_then(Path::to_str))?.model;
    if let Some(node) = parsed.nodes().iter().find(|n| n.op.name().starts_with("Unimplemented")) {
        bail!("operator {} of node '{}' is not supported", node.op.name(), node.name);
    }
    let names: Vec<Option<String>> =
        parsed.inputs.iter().map(|outlet| parsed.nodes().get(outlet.node).map(|node| node.name.clone())).collect();
    for (name, fact) in &model.inputs {
        let Some(slot) = names.iter().position(|known| known.as_ref() == Some(name)) else { continue };
        let bound = parsed.input_fact(slot)?.clone().with_shape(fact.shape.dims());
        parsed.set_input_fact(slot, bound)?;
    }
    parsed.into_typed()
}
