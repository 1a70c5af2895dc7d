//! The Graph: a model as Skipstone sees it, between the front end and the plan.
//!
//! Nodes stand in topological order; every value has a known type and shape, and is written
//! once: by a node, by the caller (an input) or by the model (a constant). Passes rewrite
//! the graph, one file each, and leave it valid; [`optimise`] runs them in order.

#[cfg(any(feature = "passes", test))]
mod pass;

use std::sync::Arc;

#[cfg(any(feature = "passes", test))]
pub use pass::optimise;

use crate::error::{Error, OpError, Result};
use crate::ops::{Op, Operator};
use crate::tensor::{Fact, Tensor};

/// Index of a value in [`Graph::values`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ValueId(pub usize);

/// A tensor of the graph.
#[derive(Clone, Debug)]
pub struct Value {
    /// Name, as far as the model gave one.
    pub name: String,
    /// Type and shape.
    pub fact: Fact,
    /// The data, where it belongs to the model.
    pub constant: Option<Arc<Tensor>>,
    /// Whether it is a constant of which a package holds the packed form only.
    pub packed: bool,
}

/// An operator applied to values.
#[derive(Clone, Debug)]
pub struct Node {
    /// Name, for errors, `inspect` and the profile.
    pub name: String,
    /// The operator.
    pub op: Op,
    /// Operands.
    pub inputs: Vec<ValueId>,
    /// Results.
    pub outputs: Vec<ValueId>,
}

/// A model with every shape known.
#[derive(Clone, Debug, Default)]
pub struct Graph {
    values: Vec<Value>,
    /// Nodes in topological order.
    pub nodes: Vec<Node>,
    /// Values that the caller gives, in the model's order.
    pub inputs: Vec<ValueId>,
    /// Values that the caller gets, with the names of the model's outputs.
    pub outputs: Vec<(String, ValueId)>,
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

    /// The value of an id that this graph gave out.
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
    pub fn add_input(&mut self, name: impl Into<String>, fact: Fact) -> ValueId {
        let id = self.add_value(name, fact, None);
        self.inputs.push(id);
        id
    }

    /// Adds a constant.
    pub fn add_constant(&mut self, name: impl Into<String>, tensor: impl Into<Arc<Tensor>>) -> ValueId {
        let tensor = tensor.into();
        self.add_value(name, tensor.fact().clone(), Some(tensor))
    }

    /// Adds a value that a node will write: a pass that inserts nodes makes their results here.
    pub fn add_value(&mut self, name: impl Into<String>, fact: Fact, constant: Option<Arc<Tensor>>) -> ValueId {
        self.values.push(Value { name: name.into(), fact, constant, packed: false });
        ValueId(self.values.len() - 1)
    }

    /// Appends a node whose results' facts come from its operator's shape rule.
    ///
    /// # Errors
    /// What the shape rule objects to, with the node's name.
    pub fn add_node(&mut self, name: impl Into<String>, op: impl Into<Op>, inputs: &[ValueId]) -> Result<Vec<ValueId>> {
        let node = self.make_node(name, op, inputs)?;
        let outputs = node.outputs.clone();
        self.nodes.push(node);
        Ok(outputs)
    }

    /// As [`add_node`](Self::add_node), without placing the node: for passes that insert it
    /// among the others.
    ///
    /// # Errors
    /// What the shape rule objects to, with the node's name.
    pub fn make_node(&mut self, name: impl Into<String>, op: impl Into<Op>, inputs: &[ValueId]) -> Result<Node> {
        let (name, op) = (name.into(), op.into());
        let facts = self.facts(inputs);
        let results = op.infer(&facts).map_err(|e| e.at(&name))?;
        let outputs = results
            .into_iter()
            .enumerate()
            .map(|(i, fact)| {
                let value = if i == 0 { name.clone() } else { format!("{name}.{i}") };
                self.add_value(value, fact, None)
            })
            .collect();
        Ok(Node { name, op, inputs: inputs.to_vec(), outputs })
    }

    /// Facts of several values.
    #[must_use]
    pub fn facts(&self, ids: &[ValueId]) -> Vec<&Fact> {
        ids.iter().map(|&id| self.fact(id)).collect()
    }

    /// Makes every reader of `old`, the graph's outputs included, read `new`.
    pub fn redirect(&mut self, old: ValueId, new: ValueId) {
        let readers = self.nodes.iter_mut().flat_map(|n| n.inputs.iter_mut());
        for id in readers.chain(self.outputs.iter_mut().map(|(_, id)| id)) {
            if *id == old {
                *id = new;
            }
        }
    }

    /// For every value: the node that writes it (index into [`Graph::nodes`]) and those that
    /// read it; an output of the graph counts as a reader past the last node.
    #[must_use]
    pub fn uses(&self) -> Uses {
        let read = || {
            let by_nodes =
                self.nodes.iter().enumerate().flat_map(|(at, node)| node.inputs.iter().map(move |&id| (id, at)));
            by_nodes.chain(self.outputs.iter().map(|&(_, id)| (id, self.nodes.len())))
        };
        let mut writer = vec![None; self.values.len()];
        for (index, node) in self.nodes.iter().enumerate() {
            for id in &node.outputs {
                writer[id.0] = Some(index);
            }
        }
        // Counted, then listed: where each value's readers end, then where they begin.
        let mut starts = vec![0; self.values.len() + 1];
        read().for_each(|(id, _)| starts[id.0] += 1);
        let mut end = 0;
        for start in &mut starts {
            end += *start;
            *start = end;
        }
        let mut readers = vec![0; end];
        for (id, at) in read().collect::<Vec<_>>().into_iter().rev() {
            starts[id.0] -= 1;
            readers[starts[id.0]] = at;
        }
        Uses { writer, readers, starts }
    }

    /// Makes a value a constant, which no node writes any more.
    pub(crate) fn set_constant(&mut self, id: ValueId, tensor: Tensor) {
        if let Some(value) = self.values.get_mut(id.0) {
            value.constant = Some(Arc::new(tensor));
        }
    }

    /// Makes a value a constant of which a package holds the packed form only.
    pub(crate) fn set_packed(&mut self, id: ValueId) {
        if let Some(value) = self.values.get_mut(id.0) {
            value.packed = true;
        }
    }

    /// Drops the data of a constant that nobody will read again.
    pub(crate) fn release_constant(&mut self, id: ValueId) {
        if let Some(value) = self.values.get_mut(id.0) {
            value.constant = None;
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

    /// Checks the invariants of the type's description: order, arity, facts, one writer for every value.
    ///
    /// # Errors
    /// [`Error::Internal`], naming the node, or the shape rule's own objection.
    pub fn check(&self) -> Result<()> {
        let mut known: Vec<bool> = self.values.iter().map(|value| value.constant.is_some() || value.packed).collect();
        let is_known = |known: &[bool], id: ValueId| known.get(id.0).copied().unwrap_or(false);
        // False where there is no such value, or it has been written.
        let write =
            |known: &mut [bool], id: ValueId| known.get_mut(id.0).is_some_and(|known| !std::mem::replace(known, true));
        if let Some(id) = self.inputs.iter().find(|&&id| !write(&mut known, id)) {
            return Err(Error::Internal(format!("the input {} is written twice, or no value", id.0)));
        }
        for node in &self.nodes {
            let broken = |what: String| Err(Error::Internal(format!("node '{}' {what}", node.name)));
            if let Some(id) = node.inputs.iter().find(|&&id| !is_known(&known, id)) {
                return broken(format!("reads value {} before it is written", id.0));
            }
            if let Some(id) = node.outputs.iter().find(|&&id| !write(&mut known, id)) {
                return broken(format!("writes value {}, which is written already, or is none", id.0));
            }
            let facts = node.op.infer(&self.facts(&node.inputs)).map_err(|e| e.at(&node.name))?;
            if !facts.iter().eq(self.facts(&node.outputs)) {
                return broken(format!("holds {:?}, its rule says {facts:?}", self.facts(&node.outputs)));
            }
        }
        match self.outputs.iter().find(|(_, id)| !is_known(&known, *id)) {
            Some((name, _)) => Err(Error::Internal(format!("nothing writes the output '{name}'"))),
            None => Ok(()),
        }
    }

    /// Runs the graph node by node with the operators' plain evaluation: slow, and the truth
    /// that plans are tested against.
    ///
    /// # Errors
    /// What an operator objects to, with the node's name.
    #[cfg(any(feature = "passes", test))]
    pub fn evaluate(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let mut held: Vec<Option<Arc<Tensor>>> = self.values.iter().map(|v| v.constant.clone()).collect();
        for (id, tensor) in self.inputs.iter().zip(inputs) {
            held[id.0] = Some(Arc::new(tensor.clone()));
        }
        let missing = |id: &ValueId| Error::Internal(format!("value {} was never computed", id.0));
        for node in &self.nodes {
            let operands: Vec<Arc<Tensor>> =
                node.inputs.iter().map(|id| held[id.0].clone().ok_or_else(|| missing(id))).collect::<Result<_>>()?;
            let operands: Vec<&Tensor> = operands.iter().map(AsRef::as_ref).collect();
            let results = node.op.evaluate(&operands).map_err(|e: OpError| e.at(&node.name))?;
            for (id, tensor) in node.outputs.iter().zip(results) {
                held[id.0] = Some(Arc::new(tensor));
            }
        }
        self.outputs.iter().map(|(_, id)| held[id.0].as_deref().cloned().ok_or_else(|| missing(id))).collect()
    }
}

/// Who writes and who reads each value, by [`ValueId`].
pub struct Uses {
    writer: Vec<Option<usize>>,
    /// Of all values, one after the other.
    readers: Vec<usize>,
    /// Where those of each value begin.
    starts: Vec<usize>,
}

impl Uses {
    /// The node that writes `id`; `None` for inputs and constants.
    #[must_use]
    pub fn writer(&self, id: ValueId) -> Option<usize> {
        self.writer.get(id.0).copied().flatten()
    }

    /// The nodes that read `id`, a node that reads it twice named twice.
    #[must_use]
    pub fn readers(&self, id: ValueId) -> &[usize] {
        let range = self.starts.get(id.0).zip(self.starts.get(id.0 + 1));
        range.and_then(|(&start, &end)| self.readers.get(start..end)).unwrap_or_default()
    }

    /// The one node that reads `id`; `None` where there are more, or none.
    #[must_use]
    pub fn only_reader(&self, id: ValueId) -> Option<usize> {
        match self.readers(id) {
            [one] => Some(*one),
            _ => None,
        }
    }
}
