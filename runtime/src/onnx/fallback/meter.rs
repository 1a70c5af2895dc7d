//! What tract's steps take: counted when they are made, if all shapes are known, and before each of them in a run.
//!
//! The shapes of a model that tract runs as a whole depend on its data: NonZero finds as many positions as there are
//! elements, and an outer product of them is as large as the square. So each node is admitted only when its operands
//! are there: its results must fit what is left of the memory, and its work what is left of the run's. Between two
//! nodes the run may be stopped.

use std::collections::HashMap;

use tract_onnx::prelude::{DatumType, DatumTypeExt, IntoArcTensor, TDim, TValue, TVec, TractResult, TypedFact};
use tract_onnx::tract_core::internal::{EvalContext, TypedModel, TypedNode, bail, ensure};

use super::replaced;
use crate::ops::Budget;

/// Steps of work for each element that tract reads or writes: it is built to be small, not to be fast.
const PER_ELEMENT: u64 = 256;

/// The work of all nodes whose shapes are known.
pub(super) fn work(model: &TypedModel) -> u64 {
    let of_node = |node: &TypedNode| {
        let inputs = model.node_input_facts(node.id).unwrap_or_default();
        let elements = |fact: &TypedFact| fact.shape.as_concrete().map_or(0, product);
        let written = node.outputs.iter().fold(0, |sum: u64, output| sum.saturating_add(elements(&output.fact)));
        work_of(node, &inputs, written)
    };
    model.nodes().iter().map(of_node).fold(0, u64::saturating_add)
}

fn work_of(node: &TypedNode, inputs: &[&TypedFact], written: u64) -> u64 {
    if let Some(work) = replaced::work(node, inputs) {
        return work;
    }
    let read = inputs.iter().filter_map(|fact| fact.shape.as_concrete()).map(product);
    let moved = read.fold(written, u64::saturating_add);
    let costs = node.op.cost(inputs).unwrap_or_default();
    let costs = costs.iter().filter_map(|(_, count)| u64::try_from(count.to_i64().ok()?).ok());
    costs.fold(moved.saturating_mul(PER_ELEMENT), u64::saturating_add)
}

pub(super) fn product(dims: &[usize]) -> u64 {
    dims.iter().fold(1, |all: u64, &dim| all.saturating_mul(dim as u64))
}

/// What a run has taken so far.
pub(super) struct Meter<'a> {
    budget: &'a Budget<'a>,
    work: u64,
    /// Bytes of the results that later nodes read, or that are results of the model.
    bytes: u64,
    /// The same for each node, and how many are still to read them.
    held: HashMap<usize, (u64, usize)>,
}

impl<'a> Meter<'a> {
    pub(super) fn new(budget: &'a Budget<'a>) -> Self {
        Self { budget, work: 0, bytes: 0, held: HashMap::new() }
    }

    /// Runs a node with `eval` if the budget allows it.
    pub(super) fn run(
        &mut self,
        cx: &EvalContext<'_>,
        node: &TypedNode,
        inputs: TVec<TValue>,
        eval: impl FnOnce(TVec<TValue>) -> TractResult<TVec<TValue>>,
    ) -> TractResult<TVec<TValue>> {
        if (self.budget.stops)() {
            bail!("the run was stopped");
        }
        let asked = asked(cx, node, &inputs)?;
        let with = |sum: u64, &(elements, size): &(u64, u64)| sum.saturating_add(elements.saturating_mul(size));
        let bytes = asked.iter().fold(self.bytes, with);
        let most = self.budget.bytes;
        ensure!(bytes <= most, "'{}' needs {bytes} bytes, the limit 'memory' is {most}", node.name);
        // Numbers may decide how much work there is.
        let fact = |value: &TValue| match value.len() {
            1 => TypedFact::try_from(value.clone().into_arc_tensor()),
            _ => Ok(value.datum_type().fact(value.shape())),
        };
        let facts = inputs.iter().map(fact).collect::<TractResult<Vec<TypedFact>>>()?;
        let written = asked.iter().fold(0, |sum: u64, &(elements, _)| sum.saturating_add(elements));
        self.work = self.work.saturating_add(work_of(node, &facts.iter().collect::<Vec<_>>(), written));
        let (work, most) = (self.work, self.budget.work);
        ensure!(work <= most, "'{}' is step {work} of work, the limit 'work' is {most}", node.name);
        let results = match replaced::run(node, &inputs, self.budget.stops)? {
            Some(results) => results,
            None => eval(inputs)?,
        };
        self.hold(node, &results);
        Ok(results)
    }

    /// Counts what a node has returned, and no longer what nothing is to read after it.
    fn hold(&mut self, node: &TypedNode, results: &[TValue]) {
        let size = |value: &TValue| product(value.shape()).saturating_mul(value.datum_type().size_of() as u64);
        let bytes = results.iter().map(size).fold(0, u64::saturating_add);
        self.bytes = self.bytes.saturating_add(bytes);
        self.held.insert(node.id, (bytes, node.outputs.iter().map(|output| output.successors.len()).sum()));
        for input in &node.inputs {
            let Some((bytes, left)) = self.held.get_mut(&input.node) else { continue };
            *left = left.saturating_sub(1);
            if *left == 0 {
                self.bytes = self.bytes.saturating_sub(std::mem::take(bytes));
            }
        }
    }
}

/// Elements of each of a node's results, as far as they are known before it runs, and bytes of an element.
fn asked(cx: &EvalContext<'_>, node: &TypedNode, inputs: &[TValue]) -> TractResult<Vec<(u64, u64)>> {
    let of_result = |fact: &TypedFact| {
        let size = fact.datum_type.size_of() as u64;
        if let Ok(dims) = fact.shape.eval_to_usize(cx.symbols) {
            return Ok((product(&dims), size));
        }
        // The size is that of this very result.
        let read = inputs.iter().map(|value| product(value.shape())).fold(1, u64::saturating_add);
        let elements = match (&*node.op.name(), inputs) {
            ("Range", [start, end, step]) => {
                let [start, end, step] = [start, end, step].map(|value| numbers(cx, value));
                let steps = (end?.iter().sum::<f64>() - start?.iter().sum::<f64>()) / step?.iter().sum::<f64>();
                // A conversion saturates; NaN becomes 0.
                steps.abs().ceil() as u64
            }
            ("DynTile", [tile, repeats]) => {
                let repeats = numbers(cx, repeats)?;
                repeats.iter().fold(product(tile.shape()), |all, &repeats| all.saturating_mul(repeats as u64))
            }
            // As many as there are operands at most, and of each its position.
            _ => read.saturating_mul(inputs.iter().map(|value| value.rank()).max().unwrap_or(0).max(3) as u64),
        };
        Ok((elements, size))
    };
    node.outputs.iter().map(|output| of_result(&output.fact)).collect()
}

/// The numbers of a tensor.
fn numbers(cx: &EvalContext<'_>, value: &TValue) -> TractResult<Vec<f64>> {
    if value.datum_type() == DatumType::TDim {
        let plain = value.try_as_plain_ram()?;
        return plain.as_slice::<TDim>()?.iter().map(|dim| Ok(dim.eval_to_i64(cx.symbols)? as f64)).collect();
    }
    let cast = value.cast_to::<f64>()?;
    Ok(cast.try_as_plain_ram()?.as_slice::<f64>()?.to_vec())
}
