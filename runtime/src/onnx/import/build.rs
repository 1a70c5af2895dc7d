//! The graph under construction: nodes over constants are computed at once, which removes the shape arithmetic of
//! exporters, and half-precision values are stored as f32.

use std::collections::{HashMap, HashSet};
use std::rc::Rc;
use std::sync::Arc;

use skipstone_onnx::Invalid;
use skipstone_reserve::NoMemory;

use super::deferred::Deferred;
use super::lengths::Lengths;
use super::selected::Selections;
use crate::error::{Error, OpError};
use crate::graph::{Block, Graph, Node, ValueId};
use crate::limits;
use crate::operator::{Operator, Semantics};
use crate::ops::Op;
use crate::ops::control::Control;
use crate::reserve;
use crate::tensor::{DType, Fact, Tensor};

/// Most elements of a result computed while importing; larger constants are left to the passes.
const MAX_FOLDED: usize = 1 << 16;
/// Most work of all nodes computed while importing: a second of plain evaluation.
const FOLDING_WORK: u64 = 1 << 27;
/// Most bytes of all constants computed while importing, including by the fallback.
const FOLDING_BYTES: u64 = 64 << 20;

/// Most bytes of constants that importers make, such as the waves of a transform or the zeros of sparse tensors, in addition to [`MADE_PER_BYTE`] for
/// each byte of the file.
const MADE_BYTES: u64 = 64 << 20;
/// Attributes in the file become constants of wider types, or tables.
const MADE_PER_BYTE: u64 = 8;

/// Most nodes that a model is imported as: a node of the file with many results is as many nodes here.
const NODES: u64 = 1 << 18;

/// Why an operator is not imported as one of our nodes.
pub(super) enum Halt {
    /// The model is invalid, or exceeds a limit.
    Error(Error),
    /// A shape depends on data: the reason, for `inspect`.
    Dynamic(String),
    /// None of our operators supports this.
    Foreign,
}

impl From<Invalid> for Halt {
    fn from(invalid: Invalid) -> Self {
        Self::Error(invalid.into())
    }
}

impl From<NoMemory> for Halt {
    fn from(no_memory: NoMemory) -> Self {
        Self::Error(no_memory.into())
    }
}

impl From<Error> for Halt {
    fn from(error: Error) -> Self {
        Self::Error(error)
    }
}

/// Results of an imported node.
pub(super) type Imported = Result<Vec<ValueId>, Halt>;

/// The graph under construction.
#[derive(Default)]
pub(super) struct Build {
    pub graph: Graph,
    /// The file's element types of values that are half precision there and f32 here.
    declared: HashMap<ValueId, DType>,
    /// Values that are not tensors, and why they cannot be read as one.
    withheld: HashMap<ValueId, String>,
    /// Those among them that may be outputs: indices instead of text.
    indices: HashSet<ValueId>,
    /// The tensors of the sequences among them.
    sequences: HashMap<ValueId, Vec<ValueId>>,
    /// Values decided only by settings and constants, and the first of those settings.
    settings: HashMap<ValueId, Rc<str>>,
    /// Values that follow from constants.
    pub deferred: Deferred,
    /// Values with positions that only a run selects.
    pub selections: Selections,
    /// Whether the positions that NonZero finds are not selected among all, but moved together.
    pub compact: bool,
    /// Values with lengths that only a run knows.
    pub lengths: Lengths,
    /// How many nodes share a name, so that each gets a unique one.
    names: HashMap<String, usize>,
    /// Total work of what has been computed so far, and its bytes.
    folded_work: u64,
    folded_bytes: u64,
    /// Nodes made so far, also those that were computed at once.
    nodes: u64,
    /// Bytes of constants that importers made so far, and how many they may make.
    made_bytes: u64,
    most_made: u64,
    /// Operator and position of the node being imported, for messages.
    pub place: String,
}

impl Build {
    /// The beginning of a graph from a file of so many bytes, with the positions that NonZero finds moved together or
    /// selected among all.
    pub fn of_file(bytes: usize, compact: bool) -> Self {
        let most_made = MADE_BYTES.saturating_add((bytes as u64).saturating_mul(MADE_PER_BYTE));
        Self { most_made, compact, ..Self::default() }
    }

    /// Counts a constant that an importer makes.
    pub fn count_made(&mut self, fact: &Fact) -> Result<(), Error> {
        self.check_made(fact.bytes() as u64)?;
        self.made_bytes += fact.bytes() as u64;
        Ok(())
    }

    /// Refuses so many bytes of constants beyond what importers may make.
    pub fn check_made(&self, bytes: u64) -> Result<(), Error> {
        let all = self.made_bytes.saturating_add(bytes);
        limits::check_fixed("bytes of constants for its operators", all, self.most_made)
    }

    /// Most work to compute a constant for an importer.
    pub fn most_work(&self) -> u64 {
        FOLDING_WORK.saturating_add(self.most_made)
    }

    /// An operator's error as the error of a node.
    pub fn at(&self, name: &str, error: impl Into<OpError>) -> Error {
        Error::Node { node: name.to_owned(), place: self.place.clone(), source: error.into() }
    }

    /// The file's element type of a value.
    pub fn declared(&self, id: ValueId) -> DType {
        self.declared.get(&id).copied().unwrap_or_else(|| self.graph.fact(id).dtype)
    }

    /// Records that a value is half precision in the file.
    pub fn declare(&mut self, id: ValueId, declared: Option<DType>) -> Result<(), NoMemory> {
        if let Some(declared) = declared {
            reserve::insert(&mut self.declared, id, declared)?;
        }
        Ok(())
    }

    /// The half-precision type of a value in the file, if it has one.
    pub fn half(&self, id: ValueId) -> Option<DType> {
        self.declared.get(&id).copied()
    }

    /// Forbids reading a value as a tensor.
    pub fn withhold(&mut self, id: ValueId, reason: String) -> Result<(), NoMemory> {
        reserve::insert(&mut self.withheld, id, reason).map(drop)
    }

    /// Refuses, for the node or output `name`, to read a value that is not a tensor.
    pub fn readable(&self, id: ValueId, name: &str) -> Result<(), Error> {
        let Some(reason) = self.withheld.get(&id) else { return Ok(()) };
        Err(Error::Unsupported { node: name.to_owned(), reason: reason.clone() })
    }

    /// Forbids reading the indices of names by nodes, which would take them for the names; an output may be indices.
    pub fn withhold_names(&mut self, id: ValueId, reason: String) -> Result<(), NoMemory> {
        self.withhold(id, reason)?;
        reserve::add(&mut self.indices, id).map(drop)
    }

    /// Whether a value is indices of names.
    pub fn is_indices(&self, id: ValueId) -> bool {
        self.indices.contains(&id)
    }

    /// Records the tensors of a sequence.
    pub fn hold_sequence(&mut self, id: ValueId, parts: Vec<ValueId>) -> Result<(), NoMemory> {
        reserve::insert(&mut self.sequences, id, parts).map(drop)
    }

    /// The tensors of a sequence.
    pub fn sequence(&self, id: ValueId) -> Option<&[ValueId]> {
        self.sequences.get(&id).map(Vec::as_slice)
    }

    /// Records that a setting decides a value.
    pub fn mark_setting(&mut self, id: ValueId, name: &str) -> Result<(), NoMemory> {
        reserve::insert(&mut self.settings, id, name.into()).map(drop)
    }

    /// The setting that decides a value, if no data does.
    pub fn setting(&self, id: ValueId) -> Option<&Rc<str>> {
        self.settings.get(&id)
    }

    /// Adds a node, or its results as constants if its operands are constants and its results are small.
    pub fn add(&mut self, name: &str, op: Op, inputs: &[ValueId]) -> Imported {
        if inputs.iter().any(|&id| self.selections.is_selected(id)) {
            return self.add_selected(name, op, inputs);
        }
        if inputs.iter().any(|&id| !self.lengths.of(id).is_empty()) {
            return self.add_measured(name, op, inputs);
        }
        let node = self.node(name, op, inputs)?;
        let outputs = node.outputs.clone();
        if self.fold(&node.op, inputs, &outputs).map_err(|e| self.at(name, e))? {
            self.count_more(&node.op, inputs, &outputs).map_err(|e| self.at(name, e))?;
            return Ok(outputs);
        }
        self.selections.refuse(inputs)?;
        self.follow_known(&node.op, inputs, &outputs).map_err(|e| self.at(name, e))?;
        self.defer(&node)?;
        self.push(node, inputs, &outputs)?;
        Ok(outputs)
    }

    /// Adds a node to the graph.
    pub(super) fn push(&mut self, node: Node, inputs: &[ValueId], outputs: &[ValueId]) -> Result<(), NoMemory> {
        reserve::push(&mut self.graph.nodes, node)?;
        self.follow_settings(inputs, outputs)
    }

    /// A node that is not yet in the graph.
    pub(super) fn node(&mut self, name: &str, op: Op, inputs: &[ValueId]) -> Result<Node, Halt> {
        self.nodes += 1;
        limits::check_fixed("nodes, as its operators are imported,", self.nodes, NODES)?;
        let own = self.fresh(name)?;
        self.graph.make_node(own, op, inputs).map_err(|error| match error {
            // An unsupported element type is not an error of the model.
            Error::Node { source: OpError::Type { .. }, .. } => Halt::Foreign,
            Error::Node { source, .. } => Halt::Error(self.at(name, source)),
            error => error.into(),
        })
    }

    fn follow_settings(&mut self, inputs: &[ValueId], outputs: &[ValueId]) -> Result<(), NoMemory> {
        let data = |id: &&ValueId| self.graph.constant(**id).is_none() && self.setting(**id).is_none();
        let setting = inputs.iter().find_map(|&id| self.setting(id)).cloned();
        if let (Some(setting), None) = (setting, inputs.iter().find(data)) {
            for &id in outputs {
                reserve::insert(&mut self.settings, id, setting.clone())?;
            }
        }
        Ok(())
    }

    /// Adds a node that owns blocks.
    pub fn add_control(&mut self, name: &str, control: Control, inputs: &[ValueId], blocks: Vec<Block>) -> Imported {
        self.selections.refuse(inputs)?;
        self.refuse_measured(name, inputs)?;
        for block in &blocks {
            self.selections.refuse(&block.results)?;
            self.refuse_measured(name, &block.results)?;
        }
        let own = self.fresh(name)?;
        self.graph.add_control(own, control, inputs, blocks).map_err(|error| match error {
            Error::Node { source, .. } => Halt::Error(self.at(name, source)),
            error => error.into(),
        })
    }

    /// A unique name for a node.
    fn fresh(&mut self, name: &str) -> Result<String, NoMemory> {
        if let Some(count) = self.names.get_mut(name) {
            *count += 1;
            return Ok(format!("{name}.{}", *count - 1));
        }
        reserve::insert(&mut self.names, reserve::text(name)?, 1)?;
        reserve::text(name)
    }

    /// Bytes that computed constants may still take.
    pub fn folding_room(&self) -> u64 {
        FOLDING_BYTES.saturating_sub(self.folded_bytes)
    }

    /// Counts constants computed by the fallback, within [`folding_room`](Self::folding_room).
    pub fn count_folded(&mut self, tensors: &[Tensor]) {
        self.folded_bytes = tensors.iter().fold(self.folded_bytes, |sum, t| sum.saturating_add(t.bytes().len() as u64));
    }

    /// Computes the results of an operator over constants; returns false if it has to be a node.
    fn fold(&mut self, op: &Op, inputs: &[ValueId], outputs: &[ValueId]) -> Result<bool, OpError> {
        // Kernels need the quantized weights, not the dequantized ones.
        let kept = matches!(op, Op::Dequantize(_) | Op::Foreign(_));
        let large = |id: &ValueId| self.graph.fact(*id).shape.elements() > MAX_FOLDED;
        let shares = matches!(op, Op::Reshape(_));
        let facts = self.graph.facts(outputs);
        let bytes = if shares { 0 } else { facts.iter().fold(0, |sum, fact| fact.bytes() as u64 + sum) };
        let work = if shares { 1 } else { op.work(&self.graph.facts(inputs), &facts) };
        if kept || !shares && (outputs.iter().any(large) || inputs.iter().any(large)) {
            return Ok(false);
        }
        if inputs.iter().any(|&id| self.graph.constant(id).is_none()) {
            return Ok(false);
        }
        let constants: Vec<Arc<Tensor>> =
            reserve::list(inputs.iter().filter_map(|&id| self.graph.constant(id).cloned()))?;
        let operands: Vec<&Tensor> = reserve::list(constants.iter().map(AsRef::as_ref))?;
        let (all_work, all_bytes) = (self.folded_work.saturating_add(work), self.folded_bytes.saturating_add(bytes));
        // What is not computed now becomes a node: the passes have their own budget, and a run has a limit.
        if all_work > FOLDING_WORK || all_bytes > FOLDING_BYTES {
            return Ok(false);
        }
        operands.iter().try_for_each(|operand| operand.align())?;
        (self.folded_work, self.folded_bytes) = (all_work, all_bytes);
        for (&id, tensor) in outputs.iter().zip(op.evaluate(&operands)?) {
            self.graph.set_constant(id, tensor);
        }
        Ok(true)
    }
}
