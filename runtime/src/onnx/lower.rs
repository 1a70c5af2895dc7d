//! From tract's typed graph to ours, node by node.
//!
//! Every operator knows how it looks in tract's graph ([`Lower`]); a node that none of them
//! takes becomes a fallback step. tract's graph is lowered as typed, before its own
//! decluttering: that still has the model's structure (one Conv per convolution, one MatMul
//! per Gemm), which our passes recognise best.

use std::sync::Arc;

use tract_onnx::prelude::{OutletId, TDim, TypedModel};
use tract_onnx::tract_core::internal::TypedNode;
use tract_onnx::tract_core::ops::{konst::Const, source::TypedSource};

use super::hollow::Weights;
use super::{convert, fallback};
use crate::error::{Error, OpError, Result};
use crate::graph::{Graph, ValueId};
use crate::ops::{ForeignOp, LOWERINGS, Op};
use crate::tensor::Fact;

/// How an operator is recognised in tract's graph.
pub trait Lower {
    /// Adds this operator's node(s) for the front end's node, and answers their results;
    /// `None` where the node is something else, or a form that the operator does not take.
    ///
    /// # Errors
    /// What the operator's shape rule objects to.
    fn lower(cx: &mut Lowering<'_>) -> Result<Option<Vec<ValueId>>>;
}

/// Type of [`Lower::lower`].
pub type LowerFn = fn(&mut Lowering<'_>) -> Result<Option<Vec<ValueId>>>;

/// Why a model has no graph.
pub(super) enum Unlowered {
    /// The model is at fault, or asks for too much.
    Error(Error),
    /// A shape depends on data: the reason, for `inspect`.
    Dynamic(String),
}

impl From<Error> for Unlowered {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// One node of the front end, and the graph under construction.
pub struct Lowering<'a> {
    model: &'a TypedModel,
    node: &'a TypedNode,
    /// Our values of the node's inputs.
    pub inputs: Vec<ValueId>,
    /// Where to add nodes.
    pub graph: &'a mut Graph,
    added: usize,
}

impl Lowering<'_> {
    /// The front end's operator, where it is a `T`.
    #[must_use]
    pub fn op<T: tract_onnx::prelude::TypedOp>(&self) -> Option<&T> {
        self.node.op_as::<T>()
    }

    /// The front end's facts of an input and a result, as tract states them.
    #[must_use]
    pub fn tract_input(&self, index: usize) -> Option<&tract_onnx::prelude::TypedFact> {
        self.model.outlet_fact(*self.node.inputs.get(index)?).ok()
    }

    /// Our fact of result `index`.
    #[must_use]
    pub fn output(&self, index: usize) -> Option<Fact> {
        convert::fact(&self.node.outputs.get(index)?.fact)
    }

    /// Our fact of input `index`.
    ///
    /// # Panics
    /// Never: `index` is checked, and answers `None`.
    #[must_use]
    pub fn input(&self, index: usize) -> Option<&Fact> {
        self.inputs.get(index).map(|&id| self.graph.fact(id))
    }

    /// The node's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.node.name
    }

    /// Adds a node with one result. The first takes the front end's name, later ones a
    /// number behind it.
    ///
    /// # Errors
    /// What the shape rule objects to, with the node's name.
    pub fn add(&mut self, op: impl Into<Op>, inputs: &[ValueId]) -> Result<ValueId> {
        let name = match self.added {
            0 => self.node.name.clone(),
            n => format!("{}.{n}", self.node.name),
        };
        self.added += 1;
        let outputs = self.graph.add_node(name, op, inputs)?;
        outputs.first().copied().ok_or_else(|| Error::Internal(format!("{} has no result", self.node.name)))
    }

    /// Adds a constant of the node.
    pub fn constant(&mut self, tensor: crate::tensor::Tensor) -> ValueId {
        let name = format!("{}.constant", self.node.name);
        self.graph.add_constant(name, tensor)
    }
}

/// Names of a model's inputs and outputs, in the order of the file. A typed model does not keep
/// them: where a node changes nothing, its result and what it reads become one value of one name.
pub(super) struct Names {
    pub inputs: Vec<String>,
    pub outputs: Vec<String>,
}

impl Names {
    /// The inputs of a typed model of this one, with their names.
    pub fn inputs<'a>(&'a self, model: &'a TypedModel) -> Result<impl Iterator<Item = (&'a str, OutletId)>> {
        let outlets = model.input_outlets().map_err(|e| super::source::refused(&e.to_string()))?;
        Self::named(&self.inputs, outlets)
    }

    /// The outputs of a typed model of this one, with their names.
    pub fn outputs<'a>(&'a self, model: &'a TypedModel) -> Result<impl Iterator<Item = (&'a str, OutletId)>> {
        let outlets = model.output_outlets().map_err(|e| super::source::refused(&e.to_string()))?;
        Self::named(&self.outputs, outlets)
    }

    fn named<'a>(names: &'a [String], outlets: &'a [OutletId]) -> Result<impl Iterator<Item = (&'a str, OutletId)>> {
        if names.len() != outlets.len() {
            return Err(Error::Internal(format!("{} values are named {names:?}", outlets.len())));
        }
        Ok(names.iter().map(String::as_str).zip(outlets.iter().copied()))
    }
}

/// Lowers a typed model whose inputs have concrete shapes; those that are named in `weights` are constants.
pub(super) fn lower(model: &TypedModel, names: &Names, weights: &Weights) -> Result<Graph, Unlowered> {
    contradictions(model)?;
    let mut graph = Graph::new();
    let mut values: Vec<Vec<Option<ValueId>>> = model.nodes().iter().map(|n| vec![None; n.outputs.len()]).collect();
    let order = model.eval_order().map_err(|e| super::source::refused(&format!("{e:#}")))?;
    // Inputs first, in the model's order: one that no node reads is an input all the same.
    for (name, outlet) in names.inputs(model)? {
        values[outlet.node][outlet.slot] = Some(match weights.get(name) {
            Some(tensor) => graph.add_constant(name, tensor.clone()),
            None => graph.add_input(name, concrete(model, outlet)?),
        });
    }
    for id in order {
        let node = model.node(id);
        if node.op_is::<TypedSource>() {
            continue;
        }
        // A value that the front end knows already needs no node: constants, shape arithmetic.
        if let Some(tensors) = known(node) {
            for (slot, tensor) in tensors.iter().enumerate() {
                let tensor = convert::from_tract(tensor).map_err(|e| e.at(&node.name))?;
                values[id][slot] = Some(graph.add_constant(&node.name, tensor));
            }
            continue;
        }
        for slot in 0..node.outputs.len() {
            concrete(model, OutletId::new(id, slot))?;
        }
        let read = |outlet: &OutletId| values[outlet.node][outlet.slot];
        let inputs: Option<Vec<ValueId>> = node.inputs.iter().map(read).collect();
        let inputs = inputs.ok_or_else(|| Error::Internal(format!("'{}' reads what was not lowered", node.name)))?;
        let mut cx = Lowering { model, node, inputs, graph: &mut graph, added: 0 };
        let mut outputs = None;
        for lowering in LOWERINGS {
            outputs = lowering(&mut cx)?;
            if outputs.is_some() {
                break;
            }
        }
        let outputs = match outputs {
            Some(outputs) => outputs,
            None => foreign(&mut cx)?,
        };
        for (slot, value) in outputs.into_iter().enumerate() {
            values[id][slot] = Some(value);
        }
    }
    for (name, outlet) in names.outputs(model)? {
        let value = values[outlet.node][outlet.slot];
        let value = value.ok_or_else(|| Error::Internal(format!("nothing writes the output '{name}'")))?;
        graph.outputs.push((name.to_owned(), value));
    }
    graph.check()?;
    Ok(graph)
}

/// The results of a node, where all are known without running it.
fn known(node: &TypedNode) -> Option<Vec<Arc<tract_onnx::prelude::Tensor>>> {
    if let Some(constant) = node.op_as::<Const>() {
        return Some(vec![constant.val().clone()]);
    }
    node.outputs.iter().map(|o| o.fact.konst.clone()).collect::<Option<Vec<_>>>().filter(|all| !all.is_empty())
}

/// Refuses shapes that can never be: where operands do not broadcast, the front end leaves the
/// broadcast standing as a formula, though all in it are numbers.
fn contradictions(model: &TypedModel) -> Result<()> {
    for node in model.nodes() {
        let shapes = node.outputs.iter().map(|output| &output.fact.shape);
        if let Some(shape) = shapes.into_iter().find(|shape| shape.iter().any(is_contradiction)) {
            let inputs = node.inputs.iter().filter_map(|&input| model.outlet_fact(input).ok());
            let inputs: Vec<String> = inputs.map(|fact| format!("{:?}", fact.shape)).collect();
            let shapes = format!("{} give {shape:?}", inputs.join(" and "));
            let source = OpError::Shape { rule: "the shapes contradict each other", shapes };
            return Err(source.at(&node.name));
        }
    }
    Ok(())
}

/// Whether a dimension has no value though it depends on no symbol.
fn is_contradiction(dim: &TDim) -> bool {
    dim.to_i64().is_err() && dim.symbols().is_empty()
}

fn concrete(model: &TypedModel, outlet: OutletId) -> Result<Fact, Unlowered> {
    let fact = model.outlet_fact(outlet).map_err(|e| super::source::refused(&e.to_string()))?;
    convert::fact(fact).ok_or_else(|| {
        let name = &model.node(outlet.node).name;
        Unlowered::Dynamic(format!("'{name}' is {fact:?}: its type or shape is not known before the run"))
    })
}

/// Adds the front end's own operator as a fallback step.
fn foreign(cx: &mut Lowering<'_>) -> Result<Vec<ValueId>> {
    let konst = |o: &OutletId| cx.model.outlet_fact(*o).is_ok_and(|f| f.konst.is_some());
    let variable: Vec<usize> =
        cx.node.inputs.iter().enumerate().filter(|(_, o)| !konst(o)).map(|(position, _)| position).collect();
    let outputs = (0..cx.node.outputs.len()).filter_map(|slot| cx.output(slot)).collect();
    let foreign = fallback::node(cx.model, cx.node, &variable, outputs)?;
    let inputs: Vec<ValueId> = variable.iter().filter_map(|&i| cx.inputs.get(i).copied()).collect();
    cx.graph.add_node(&cx.node.name, ForeignOp(foreign), &inputs)
}
