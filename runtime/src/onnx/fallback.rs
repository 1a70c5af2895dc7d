//! tract's own evaluation, for operators that have no kernel of ours.
//!
//! A fallback step is a small tract plan of one node, control flow included. Where shapes
//! depend on data, nothing can be planned and the whole model is one such plan.

use std::sync::Arc;

use tract_onnx::prelude::{
    DatumType, IntoArcTensor, IntoRunnable, OutletId, RunnableModel, TValue, TVec, TypedFact, TypedModel, TypedOp,
};
use tract_onnx::tract_core::internal::{SpecialOps, TypedNode};
use tract_onnx::tract_core::ops::konst::Const;

use super::convert;
use super::guard::guarded;
use super::hollow::Weights;
use super::lower::Names;
use super::source::{one_line, refused};
use crate::error::{Error, OpError, Result};
use crate::model::ForeignModel;
use crate::ops::{Foreign, Place};
use crate::plan::Port;
use crate::tensor::{Fact, Shape, Tensor, TensorView};

type Runnable = Arc<RunnableModel<TypedFact, Box<dyn TypedOp>>>;

/// A tract plan behind our [`Foreign`].
struct TractPlan {
    name: String,
    plan: Runnable,
    /// Types that tract wants its inputs in.
    inputs: Vec<DatumType>,
    outputs: Vec<Fact>,
}

impl Foreign for TractPlan {
    fn name(&self) -> &str {
        &self.name
    }

    fn outputs(&self) -> &[Fact] {
        &self.outputs
    }

    fn evaluate(&self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>, OpError> {
        let values =
            inputs.iter().zip(&self.inputs).map(|(view, &want)| Ok(TValue::from(convert::to_tract(view, want)?)));
        let values: TVec<TValue> = values.collect::<Result<_, OpError>>()?;
        let results = guarded(|| self.plan.run(values)).map_err(OpError::Value)?;
        let results = results.map_err(|e| OpError::Value(one_line(&format!("{e:#}"))))?;
        results.iter().map(|value| convert::from_tract(value)).collect()
    }
}

/// A fallback for one node; `variable` are the positions of its inputs that are not constants.
pub(super) fn node(
    model: &TypedModel,
    node: &TypedNode,
    variable: &[usize],
    outputs: Vec<Fact>,
) -> Result<Arc<dyn Foreign>> {
    let build = || {
        let mut single = TypedModel { symbols: model.symbols.clone(), ..TypedModel::default() };
        let mut wires = TVec::new();
        let mut sources = Vec::new();
        for (position, &outlet) in node.inputs.iter().enumerate() {
            let fact = model.outlet_fact(outlet)?;
            wires.push(match (&fact.konst, variable.contains(&position)) {
                (Some(tensor), false) => single.add_const(format!("constant.{position}"), tensor.clone())?,
                _ => {
                    sources.push(fact.datum_type);
                    single.add_source(format!("input.{position}"), fact.without_value())?
                }
            });
        }
        let results = single.wire_node(&node.name, node.op.clone(), &wires)?;
        single.select_output_outlets(&results)?;
        Ok((single.into_runnable()?, sources))
    };
    let fail = |reason: String| Error::Unsupported { node: node.name.clone(), reason: one_line(&reason) };
    let built: tract_onnx::prelude::TractResult<_> = guarded(build).map_err(fail)?;
    let (plan, inputs) = built.map_err(|e| fail(format!("{e:#}")))?;
    Ok(Arc::new(TractPlan { name: node.op.name().into_owned(), plan, inputs, outputs }))
}

/// A fallback for the whole model, with the weights put back.
pub(super) fn whole(mut model: TypedModel, names: &Names, weights: &Weights, reason: String) -> Result<ForeignModel> {
    let inputs: Vec<(String, OutletId)> = names.inputs(&model)?.map(|(name, at)| (name.to_owned(), at)).collect();
    let (held, inputs): (Vec<_>, Vec<_>) = inputs.into_iter().partition(|(name, _)| weights.contains_key(name));
    for (name, outlet) in held {
        let Some(tensor) = weights.get(&name) else { continue };
        let datum = convert::datum(tensor.dtype()).unwrap_or(DatumType::F32);
        let tensor = convert::to_tract(&tensor.view(), datum).map_err(|e| e.at(&name))?.into_arc_tensor();
        let constant = Const::new(tensor.clone()).map_err(|e| refused(&e.to_string()))?;
        let fact = TypedFact::try_from(tensor).map_err(|e| refused(&e.to_string()))?;
        model.node_mut(outlet.node).op = Box::new(constant);
        model.set_outlet_fact(outlet, fact).map_err(|e| refused(&e.to_string()))?;
    }
    let outlets: Vec<OutletId> = inputs.iter().map(|(_, outlet)| *outlet).collect();
    model.set_input_outlets(&outlets).map_err(|e| refused(&e.to_string()))?;

    let port = |name: &str, outlet, place| {
        let fact = model.outlet_fact(outlet).map_err(|e| refused(&e.to_string()))?;
        let dtype = convert::dtype(fact.datum_type)
            .ok_or_else(|| refused(&format!("'{name}' has the type {:?}", fact.datum_type)))?;
        let shape = fact.shape.as_concrete().and_then(|dims| Shape::new(dims).ok()).unwrap_or_default();
        Ok(Port { name: name.to_owned(), fact: Fact::new(dtype, shape), place })
    };
    let inputs = inputs.into_iter().enumerate();
    let inputs = inputs.map(|(i, (name, outlet))| port(&name, outlet, Place::Input(i))).collect::<Result<Vec<_>>>()?;
    let outputs = names.outputs(&model)?;
    let outputs = outputs.map(|(name, outlet)| port(name, outlet, Place::Arena(0..0))).collect::<Result<Vec<_>>>()?;
    let types = model.input_outlets().map_err(|e| refused(&e.to_string()))?;
    let types = types.iter().filter_map(|o| model.outlet_fact(*o).ok().map(|f| f.datum_type)).collect();
    let runnable = guarded(|| model.into_decluttered()?.into_runnable());
    let plan = runnable.map_err(|p| refused(&p))?.map_err(|e| refused(&format!("{e:#}")))?;
    let facts = outputs.iter().map(|p| p.fact.clone()).collect();
    let foreign = Box::new(TractPlan { name: "graph".into(), plan, inputs: types, outputs: facts });
    Ok(ForeignModel { foreign, inputs, outputs, reason })
}
