//! The parsed model, kept as tract's inference model: any set of input shapes can be typed
//! from it, and cloning it shares the weights.

use std::path::Path;

use tract_onnx::prelude::{Framework, InferenceFact, InferenceModelExt, TypedModel};
use tract_onnx::tract_core::internal::DimLike;
use tract_onnx::tract_hir::infer::{Factoid, GenericFactoid, InferenceModel};

use super::guard::guarded;
use super::hollow::Weights;
use super::lower::{self, Names};
use super::{Checked, Invalid, admit, fallback, qoperator, quantized};
use crate::error::{Error, Result};
use crate::model::{Lowered, Shapes, Source};

/// A parsed ONNX model.
pub(super) struct OnnxSource {
    model: InferenceModel,
    names: Names,
    weights: Weights,
}

impl OnnxSource {
    /// Parses bytes that were validated and whose `weights` were taken out; external data lies below `directory`.
    pub(super) fn parse(bytes: &[u8], weights: Weights, checked: &Checked, directory: Option<&Path>) -> Result<Self> {
        let parsed = guarded(|| {
            let mut onnx = tract_onnx::onnx().with_ignore_output_shapes(true).with_ignore_value_info(true);
            admit::register(&mut onnx);
            quantized::register(&mut onnx);
            let mut proto = onnx.proto_model_for_read(&mut &bytes[..])?;
            qoperator::spell_out(&mut proto);
            let result = onnx.parse(&proto, directory.and_then(Path::to_str))?;
            // Parsing leaves operators it does not know in the graph; typing would only say that
            // it failed.
            if let Some(node) = result.model.nodes().iter().find(|n| n.op.name().starts_with("Unimplemented")) {
                tract_onnx::tract_core::internal::bail!(
                    "operator {} of node '{}' is not implemented",
                    node.op.name(),
                    node.name
                );
            }
            Ok(result.model)
        });
        let model = parsed.map_err(|panic| refused(&panic))?.map_err(|e| refused(&format!("{e:#}")))?;
        let inputs = model.inputs.iter().filter_map(|outlet| Some(model.nodes().get(outlet.node)?.name.clone()));
        let outputs = checked.outputs.iter().map(|output| output.name.clone());
        let names = Names { inputs: inputs.collect(), outputs: outputs.collect() };
        Ok(Self { model, names, weights })
    }

    /// The caller's inputs. Those that stand for weights are behind them.
    fn inputs(&self) -> impl Iterator<Item = (&str, &InferenceFact)> {
        let inputs = self.model.inputs.iter().filter_map(|outlet| {
            let node = self.model.nodes().get(outlet.node)?;
            Some((node.name.as_str(), &node.outputs.get(outlet.slot)?.fact))
        });
        inputs.filter(|(name, _)| !self.weights.contains_key(*name))
    }

    /// The inference model with every input bound to a concrete shape.
    fn bind(&self, shapes: &Shapes) -> Result<InferenceModel> {
        let names: Vec<&str> = self.inputs().map(|(name, _)| name).collect();
        if let Some(name) = shapes.keys().find(|name| !names.contains(&name.as_str())) {
            return Err(Error::UnknownInput { name: name.clone(), known: names.join(", ") });
        }
        let mut model = self.model.clone();
        for (slot, (name, fact)) in self.inputs().enumerate() {
            let Some(shape) = shapes.get(name) else {
                if fact.shape.as_concrete_finite().ok().flatten().is_none() {
                    return Err(Error::UnboundShape { input: name.to_owned(), shape: format!("{:?}", fact.shape) });
                }
                continue;
            };
            let rank_differs = fact.shape.rank().concretize().is_some_and(|r| usize::try_from(r) != Ok(shape.len()));
            let dim_differs = fact.shape.dims().zip(shape).any(|(known, &asked)| match known {
                GenericFactoid::Only(dim) => dim.to_usize().is_ok_and(|dim| dim != asked),
                GenericFactoid::Any => false,
            });
            if rank_differs || dim_differs {
                return Err(Error::InputMismatch {
                    name: name.to_owned(),
                    got: format!("bound to {shape:?}"),
                    want: format!("{:?}", fact.shape),
                });
            }
            let bound = fact.clone().with_shape(shape.as_slice());
            model.set_input_fact(slot, bound).map_err(|e| refused(&format!("{e:#}")))?;
        }
        Ok(model)
    }
}

impl Source for OnnxSource {
    fn is_dynamic(&self) -> bool {
        self.inputs().any(|(_, fact)| fact.shape.as_concrete_finite().ok().flatten().is_none())
    }

    fn lower(&self, shapes: &Shapes) -> Result<Lowered> {
        let bound = self.bind(shapes)?;
        let typed = guarded(|| bound.into_typed());
        let typed: TypedModel = typed.map_err(|panic| refused(&panic))?.map_err(|e| match e.downcast::<Invalid>() {
            Ok(invalid) => invalid.into(),
            Err(e) => refused(&format!("{e:#}")),
        })?;
        match guarded(|| lower::lower(&typed, &self.names, &self.weights)).map_err(|panic| refused(&panic))? {
            Ok(graph) => Ok(Lowered::Graph(graph)),
            Err(lower::Unlowered::Error(error)) => Err(error),
            Err(lower::Unlowered::Dynamic(reason)) => {
                fallback::whole(typed, &self.names, &self.weights, reason).map(Lowered::Foreign)
            }
        }
    }
}

/// A refusal in tract's words.
pub(super) fn refused(reason: &str) -> Error {
    Error::Unsupported { node: "graph".into(), reason: one_line(reason) }
}

/// What tract says, on one line, without the stack that the errors in its panics bring along.
pub(super) fn one_line(text: &str) -> String {
    let text = text.split_once("Stack backtrace:").map_or(text, |(message, _)| message);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_without_a_stack() {
        let text = "no such axis: 9\n\nCaused by:\n    rank 2\n\nStack backtrace:\n   0: main\n";
        assert_eq!(one_line(text), "no such axis: 9 Caused by: rank 2");
    }
}
