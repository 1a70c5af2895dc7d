//! The Graph: Skipstone's representation of a model, between the importer and the plan.
//!
//! Nodes are in topological order; every value has a known type and shape, and is written once: by a node, by the
//! caller (an input) or by the model (a constant). Passes rewrite the graph, one file each, and leave it valid;
//! [`optimize`] runs them in order.

mod block;
#[cfg(test)]
mod control_tests;
#[cfg(any(feature = "passes", test))]
mod evaluate;
#[cfg(any(feature = "passes", test))]
mod pass;
mod source;

use std::fmt;
use std::sync::Arc;

use skipstone_reserve::NoMemory;

pub use block::{Block, MAX_DEPTH};
#[cfg(any(feature = "passes", test))]
pub use pass::{Channels, Track, optimize};
pub use source::ForeignModel;
pub(crate) use source::{Lowered, Source};

use crate::error::{Error, Result, list};
use crate::operator::Operator;
use crate::ops::Op;
use crate::reserve;
use crate::tensor::{DType, Fact, Tensor};

/// Index of a value in [`Graph::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// A tensor of the graph.
#[derive(Clone, Debug)]
pub struct Value {
    /// Name, if the model gives one.
    pub name: String,
    /// Type and shape.
    pub fact: Fact,
    /// The data, if it is a constant.
    pub constant: Option<Arc<Tensor>>,
    /// Whether it is a constant that a package stores only in packed form.
    pub packed: bool,
}

/// An operator applied to values.
#[derive(Debug)]
pub struct Node {
    /// Name, for errors, `inspect` and the profile.
    pub name: String,
    /// The operator.
    pub op: Op,
    /// Operands.
    pub inputs: Vec<ValueId>,
    /// Results.
    pub outputs: Vec<ValueId>,
    /// Nodes inside it, if its operator has any.
    pub blocks: Vec<Block>,
}

/// Channels that were removed from a node's weights because they are zero: sizes before and after.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Removed {
    /// Name of the node.
    pub node: String,
    /// Filters, or columns of a matrix.
    pub filters: [usize; 2],
    /// Input channels, or rows.
    pub channels: [usize; 2],
}

impl fmt::Display for Removed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { node, filters: [filters, left], channels: [channels, read] } = self;
        write!(f, "{node}: {left} of {filters} filters, {read} of {channels} input channels")
    }
}

/// An input whose value the session holds between runs; the caller may set it.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Its initial value; zeros if absent.
    pub initial: Option<Arc<Tensor>>,
    /// For state, the position of the output that replaces it after every run; `None` for a setting.
    pub next: Option<usize>,
}

/// A length of an output that only a run knows: the output is planned with the largest one, and the elements that it has
/// are the first ones.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct OutputLength {
    /// Position of the output.
    pub output: usize,
    /// Its axis.
    pub axis: usize,
}

/// A model with every shape known, or the largest one.
#[derive(Debug, Default)]
pub struct Graph {
    values: Vec<Value>,
    /// Nodes in topological order.
    pub nodes: Vec<Node>,
    /// Inputs given by the caller, in the model's order, followed by the variables.
    pub inputs: Vec<ValueId>,
    /// The variables, which are the last of the inputs.
    pub variables: Vec<Variable>,
    /// Values returned to the caller, with the names of the model's outputs.
    /// Behind them are the lengths, without names.
    pub outputs: Vec<(String, ValueId)>,
    /// What the last of the outputs are: lengths of the others, i64 of rank 0.
    pub lengths: Vec<OutputLength>,
    /// Channels that passes removed from weights.
    pub removed: Vec<Removed>,
    /// The saved contents of these fields while a block is built or rewritten in their place.
    outer: Vec<block::Outer>,
}

impl Graph {
    /// An empty graph.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// All values, in order of their ids.
    #[must_use]
    pub fn values(&self) -> &[Value] {
        &self.values
    }

    /// The value with an id from this graph.
    #[must_use]
    pub fn value(&self, id: ValueId) -> &Value {
        &self.values[id.0]
    }

    /// Type and shape of a value.
    #[must_use]
    pub fn fact(&self, id: ValueId) -> &Fact {
        &self.value(id).fact
    }

    /// The data of a constant.
    #[must_use]
    pub fn constant(&self, id: ValueId) -> Option<&Arc<Tensor>> {
        self.value(id).constant.as_ref()
    }

    /// Adds an input.
    ///
    /// # Errors
    /// No memory.
    pub fn add_input(&mut self, name: impl Into<String>, fact: Fact) -> Result<ValueId, NoMemory> {
        let id = self.add_value(name, fact, None)?;
        reserve::push(&mut self.inputs, id)?;
        Ok(id)
    }

    /// Adds a constant.
    ///
    /// # Errors
    /// No memory.
    pub fn add_constant(
        &mut self,
        name: impl Into<String>,
        tensor: impl Into<Arc<Tensor>>,
    ) -> Result<ValueId, NoMemory> {
        let tensor = tensor.into();
        self.add_value(name, tensor.fact().clone(), Some(tensor))
    }

    /// Adds a value that a node will write; passes that insert nodes use it for their results.
    ///
    /// # Errors
    /// No memory.
    pub fn add_value(
        &mut self,
        name: impl Into<String>,
        fact: Fact,
        constant: Option<Arc<Tensor>>,
    ) -> Result<ValueId, NoMemory> {
        reserve::push(&mut self.values, Value { name: name.into(), fact, constant, packed: false })?;
        Ok(ValueId(self.values.len() - 1))
    }

    /// Appends a node; its operator's shape rule computes the facts of its results.
    ///
    /// # Errors
    /// The shape rule's error, with the node's name; no memory.
    pub fn add_node(&mut self, name: impl Into<String>, op: impl Into<Op>, inputs: &[ValueId]) -> Result<Vec<ValueId>> {
        let node = self.make_node(name, op, inputs)?;
        let outputs = node.outputs.clone();
        reserve::push(&mut self.nodes, node)?;
        Ok(outputs)
    }

    /// Like [`add_node`](Self::add_node), but does not insert the node: for passes that insert it among the others.
    ///
    /// # Errors
    /// The shape rule's error, with the node's name.
    pub fn make_node(&mut self, name: impl Into<String>, op: impl Into<Op>, inputs: &[ValueId]) -> Result<Node> {
        let (name, op) = (name.into(), op.into());
        let facts = self.facts(inputs);
        let results = op.infer(&facts).map_err(|e| e.at(&name))?;
        let results = results.into_iter().enumerate().map(|(i, fact)| {
            let value = if i == 0 { name.clone() } else { format!("{name}.{i}") };
            self.add_value(value, fact, None)
        });
        let outputs = reserve::results(results)?;
        Ok(Node { name, op, inputs: inputs.to_vec(), outputs, blocks: Vec::new() })
    }

    /// Facts of several values.
    #[must_use]
    pub fn facts(&self, ids: &[ValueId]) -> Vec<&Fact> {
        ids.iter().map(|&id| self.fact(id)).collect()
    }

    /// Makes every reader of `old` read `new`, including the graph's outputs.
    pub fn redirect(&mut self, old: ValueId, new: ValueId) {
        self.rename(|id| if id == old { new } else { id });
    }

    /// Replaces the value that every reader reads, including the graph's outputs.
    fn rename(&mut self, name: impl Fn(ValueId) -> ValueId) {
        for node in &mut self.nodes {
            node.for_each_read_mut(&mut |id| *id = name(*id));
        }
        for (_, id) in &mut self.outputs {
            *id = name(*id);
        }
    }

    /// For every value: the node that writes it (an index into [`Graph::nodes`]) and the nodes that read it, directly
    /// or in a block; an output of the graph counts as a reader after the last node.
    ///
    /// # Errors
    /// No memory.
    pub fn uses(&self) -> Result<Uses> {
        let mut writer = reserve::copies(None, self.values.len())?;
        for (index, node) in self.nodes.iter().enumerate() {
            for id in &node.outputs {
                writer[id.0] = Some(index);
            }
        }
        // The readers of every value, by a counting sort: a start is first the end, and moves back as readers are listed.
        let mut starts = reserve::copies(0, self.values.len() + 1)?;
        let mut reads = 0;
        self.for_each_read(&mut |id, _| {
            starts[id.0] += 1;
            reads += 1;
        });
        let mut read = reserve::empty(reads)?;
        self.for_each_read(&mut |id, at| read.push((id, at)));
        let mut end = 0;
        for start in &mut starts {
            end += *start;
            *start = end;
        }
        let mut readers = reserve::copies(0, end)?;
        for (id, at) in read.into_iter().rev() {
            starts[id.0] -= 1;
            readers[starts[id.0]] = at;
        }
        Ok(Uses { writer, readers, starts })
    }

    /// Calls `visit` for every read of a value by a node, at its index, or as an output.
    fn for_each_read(&self, visit: &mut dyn FnMut(ValueId, usize)) {
        for (at, node) in self.nodes.iter().enumerate() {
            node.for_each_read(&mut |id| visit(id, at));
        }
        self.outputs.iter().for_each(|&(_, id)| visit(id, self.nodes.len()));
    }

    /// A copy, which shares the data of constants.
    ///
    /// # Errors
    /// No memory.
    pub fn copy(&self) -> Result<Self> {
        let outer = self.outer.iter().map(block::Outer::copy);
        Ok(Self {
            values: reserve::list(self.values.iter().cloned())?,
            nodes: Node::copies(&self.nodes)?,
            inputs: reserve::list(self.inputs.iter().copied())?,
            variables: reserve::list(self.variables.iter().cloned())?,
            outputs: reserve::list(self.outputs.iter().cloned())?,
            lengths: reserve::list(self.lengths.iter().copied())?,
            removed: reserve::list(self.removed.iter().cloned())?,
            outer: reserve::results(outer)?,
        })
    }

    /// Makes a value a constant; no node may write it any more.
    pub(crate) fn set_constant(&mut self, id: ValueId, tensor: Tensor) {
        if let Some(value) = self.values.get_mut(id.0) {
            value.constant = Some(Arc::new(tensor));
        }
    }

    /// Makes a value a constant that a package stores only in packed form.
    pub(crate) fn set_packed(&mut self, id: ValueId) {
        if let Some(value) = self.values.get_mut(id.0) {
            value.packed = true;
        }
    }

    /// Drops the data of a constant that is not read again, and its pages if it is in a mapped file.
    pub(crate) fn release_constant(&mut self, id: ValueId) {
        if let Some(constant) = self.values.get_mut(id.0).and_then(|value| value.constant.take()) {
            constant.evict();
        }
    }

    /// Drops the data of constants that are not `live` (indexed by [`ValueId`]).
    fn release_constants(&mut self, live: &[bool]) {
        for (value, live) in self.values.iter_mut().zip(live) {
            if !live {
                value.constant = None;
            }
        }
    }

    /// Checks the graph's invariants: order, arity, facts, a single writer for every value, in blocks too.
    ///
    /// # Errors
    /// [`Error::Internal`], naming the node, or the shape rule's own error; no memory.
    pub fn check(&self) -> Result<()> {
        let known = || reserve::list(self.values.iter().map(|value| value.constant.is_some() || value.packed));
        let mut check = Check { graph: self, written: known()?, known: known()?, depth: 0 };
        if let Some(id) = self.inputs.iter().find(|&&id| !check.write(id)) {
            return Err(Error::Internal(format!("the input {} is written twice, or does not exist", id.0)));
        }
        check.nodes(&self.nodes)?;
        self.check_variables()?;
        self.check_lengths()?;
        match self.outputs.iter().find(|(_, id)| !check.is_known(*id)) {
            Some((name, _)) => Err(Error::Internal(format!("nothing writes the output '{name}'"))),
            None => Ok(()),
        }
    }
}

impl Graph {
    /// Checks that every length is one of an axis of an output.
    ///
    /// # Errors
    /// [`Error::Internal`], which a package's reader replaces by its own.
    pub(crate) fn check_lengths(&self) -> Result<()> {
        let odd = |what: &str| Err(Error::Internal(format!("a length of an output {what}")));
        let Some(given) = self.outputs.len().checked_sub(self.lengths.len()) else { return odd("is missing") };
        let (outputs, lengths) = self.outputs.split_at(given);
        for ((_, id), OutputLength { output, axis }) in lengths.iter().zip(&self.lengths) {
            let Some((_, of)) = outputs.get(*output) else { return odd("belongs to none") };
            let (Some(of), Some(len)) = (self.values.get(of.0), self.values.get(id.0)) else {
                return odd("does not exist");
            };
            if *axis >= of.fact.shape.rank() || len.fact.shape.rank() != 0 || len.fact.dtype != DType::I64 {
                return odd("is none of an axis");
            }
        }
        Ok(())
    }

    /// Checks that every variable has an input, and that its initial and next value have the input's type and shape.
    fn check_variables(&self) -> Result<()> {
        let given = self.inputs.len().checked_sub(self.variables.len());
        let given = given.ok_or_else(|| Error::Internal("there are more variables than inputs".into()))?;
        for (&id, Variable { initial, next }) in self.inputs[given..].iter().zip(&self.variables) {
            let Value { name, fact, .. } = self.value(id);
            let next = match next.map(|at| self.outputs.get(at)) {
                None => None,
                Some(Some((_, id))) => Some(self.fact(*id)),
                Some(None) => return Err(Error::Internal(format!("the next value of '{name}' is not an output"))),
            };
            if let Some(other) = initial.as_ref().map(|held| held.fact()).into_iter().chain(next).find(|&f| f != fact) {
                return Err(Error::Internal(format!("'{name}' is {fact}, its initial or next value is {other}")));
            }
        }
        Ok(())
    }
}

/// Walks through a graph in execution order.
struct Check<'a> {
    graph: &'a Graph,
    /// Values that may be read at this point.
    known: Vec<bool>,
    /// Values that were written, including those in blocks that have ended.
    written: Vec<bool>,
    /// Nesting depth of blocks.
    depth: usize,
}

impl Check<'_> {
    fn is_known(&self, id: ValueId) -> bool {
        self.known.get(id.0).copied().unwrap_or(false)
    }

    /// Returns false if there is no such value, or if it was already written.
    fn write(&mut self, id: ValueId) -> bool {
        let fresh = self.written.get_mut(id.0).is_some_and(|written| !std::mem::replace(written, true));
        if fresh {
            self.known[id.0] = true;
        }
        fresh
    }

    fn nodes(&mut self, nodes: &[Node]) -> Result<()> {
        for node in nodes {
            let broken = |what: String| Err(Error::Internal(format!("node '{}' {what}", node.name)));
            if let Some(id) = node.inputs.iter().find(|&&id| !self.is_known(id)) {
                return broken(format!("reads value {} before it is written", id.0));
            }
            for block in &node.blocks {
                self.block(node, block)?;
            }
            if let Some(id) = node.outputs.iter().find(|&&id| !self.write(id)) {
                return broken(format!("writes value {}, which was already written or does not exist", id.0));
            }
            let facts = self.graph.infer(node)?;
            let held = self.graph.facts(&node.outputs);
            if !facts.iter().eq(held.iter().copied()) {
                return broken(format!("holds {}, its rule says {}", list(&held), list(&facts)));
            }
        }
        Ok(())
    }

    fn block(&mut self, owner: &Node, block: &Block) -> Result<()> {
        let broken = |what: String| Err(Error::Internal(format!("a block of node '{}' {what}", owner.name)));
        if self.depth == MAX_DEPTH {
            return broken(format!("is nested in {MAX_DEPTH} others, the limit"));
        }
        if let Some(id) = block.parameters.iter().find(|&&id| !self.write(id)) {
            return broken(format!("has the parameter {}, which is written elsewhere or does not exist", id.0));
        }
        self.depth += 1;
        self.nodes(&block.nodes)?;
        self.depth -= 1;
        if let Some(id) = block.results.iter().find(|&&id| !self.is_known(id)) {
            return broken(format!("returns value {}, which nothing writes", id.0));
        }
        // The values that it wrote are only visible inside it.
        for id in block.nodes.iter().flat_map(|node| &node.outputs).chain(&block.parameters) {
            self.known[id.0] = false;
        }
        Ok(())
    }
}

/// The writer and the readers of each value, by [`ValueId`].
pub struct Uses {
    writer: Vec<Option<usize>>,
    /// The readers of all values, concatenated.
    readers: Vec<usize>,
    /// The start of each value's readers.
    starts: Vec<usize>,
}

impl Uses {
    /// The node that writes `id`; `None` for inputs and constants.
    #[must_use]
    pub fn writer(&self, id: ValueId) -> Option<usize> {
        self.writer.get(id.0).copied().flatten()
    }

    /// The nodes that read `id`; a node that reads it twice is listed twice.
    #[must_use]
    pub fn readers(&self, id: ValueId) -> &[usize] {
        let range = self.starts.get(id.0).zip(self.starts.get(id.0 + 1));
        range.and_then(|(&start, &end)| self.readers.get(start..end)).unwrap_or_default()
    }

    /// The only node that reads `id`; `None` if there are more, or none.
    #[must_use]
    pub fn only_reader(&self, id: ValueId) -> Option<usize> {
        match self.readers(id) {
            [one] => Some(*one),
            _ => None,
        }
    }
}
