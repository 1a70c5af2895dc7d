//! Blocks: nodes inside a node, which decides when and how often they run.
//!
//! An If owns two blocks, a Loop one. A block reads outer values like its own nodes' results; the values that it writes
//! are only visible inside it. Blocks are built like the graph: between [`Graph::begin_block`] and [`Graph::end_block`]
//! every added node goes into the block, including nested blocks.
//!
//! ```text
//! graph.begin_block()?;
//! let (i, go) = (graph.add_parameter("i", int)?, graph.add_parameter("go", bool)?);
//! let sum = graph.add_parameter("sum", fact)?;
//! let next = graph.add_node("add", Binary::new(BinaryKind::Add), &[sum, x])?[0];
//! let body = graph.end_block(&[go, next])?;
//! let results = graph.add_control("loop", Loop { .. }, &[first], vec![body])?;
//! ```

use skipstone_reserve::NoMemory;

use super::{Graph, Node, ValueId};
use crate::error::{Error, Result};
use crate::operator::Operator;
use crate::ops::Op;
use crate::ops::control::Control;
use crate::reserve;
use crate::tensor::Fact;

/// Largest nesting depth of blocks.
pub const MAX_DEPTH: usize = 16;

/// Nodes owned by a node.
#[derive(Debug, Default)]
pub struct Block {
    /// Values that the owner writes before every run of the block.
    pub parameters: Vec<ValueId>,
    /// Nodes in topological order.
    pub nodes: Vec<Node>,
    /// Values that the owner reads after every run; they may be parameters, or outer values.
    pub results: Vec<ValueId>,
}

/// The contents of the graph's own fields while these hold a block's.
#[derive(Debug)]
pub(super) struct Outer {
    nodes: Vec<Node>,
    inputs: Vec<ValueId>,
    outputs: Vec<(String, ValueId)>,
}

impl Graph {
    /// The nodes around a block while it is the graph: those of every block around it, and the graph's own.
    pub(super) fn outer_nodes(&self) -> impl Iterator<Item = &Node> {
        self.outer.iter().flat_map(|outer| &outer.nodes)
    }

    /// Begins a block: nodes go into it until it ends.
    ///
    /// # Errors
    /// No memory.
    pub fn begin_block(&mut self) -> Result<()> {
        self.enter(Block::default())
    }

    /// Adds a parameter to the innermost open block.
    ///
    /// # Errors
    /// No memory.
    pub fn add_parameter(&mut self, name: impl Into<String>, fact: Fact) -> Result<ValueId, NoMemory> {
        self.add_input(name, fact)
    }

    /// Ends the innermost open block; its results may be outer values.
    ///
    /// # Errors
    /// No memory.
    pub fn end_block(&mut self, results: &[ValueId]) -> Result<Block> {
        self.outputs = unnamed(results)?;
        self.leave()
    }

    /// Appends a node that owns blocks.
    ///
    /// # Errors
    /// The error of the operator's rule for its blocks, with the node's name.
    pub fn add_control(
        &mut self,
        name: impl Into<String>,
        control: impl Into<Control>,
        inputs: &[ValueId],
        blocks: Vec<Block>,
    ) -> Result<Vec<ValueId>> {
        let mut node =
            Node { name: name.into(), op: control.into().into(), inputs: inputs.to_vec(), outputs: Vec::new(), blocks };
        let facts = self.infer(&node)?;
        for (at, fact) in facts.into_iter().enumerate() {
            let value = if at == 0 { node.name.clone() } else { format!("{}.{at}", node.name) };
            let id = self.add_value(value, fact, None)?;
            reserve::push(&mut node.outputs, id)?;
        }
        let outputs = node.outputs.clone();
        reserve::push(&mut self.nodes, node)?;
        Ok(outputs)
    }

    /// Facts of a node's results, computed by its operator's shape rule.
    ///
    /// # Errors
    /// The rule's error, with the node's name.
    pub fn infer(&self, node: &Node) -> Result<Vec<Fact>> {
        let inputs = self.facts(&node.inputs);
        let facts = match &node.op {
            Op::Control(control) => {
                let blocks = node.blocks.iter().map(|b| (self.facts(&b.parameters), self.facts(&b.results)));
                control.facts(&inputs, &blocks.collect::<Vec<_>>())
            }
            _ if !node.blocks.is_empty() => {
                return Err(Error::Internal(format!("the operator of node '{}' does not take blocks", node.name)));
            }
            op => op.infer(&inputs),
        };
        facts.map_err(|e| e.at(&node.name))
    }

    /// Replaces the graph's own nodes, inputs and outputs by those of a block, until [`leave`](Self::leave).
    ///
    /// # Errors
    /// No memory.
    pub(super) fn enter(&mut self, block: Block) -> Result<()> {
        let outputs = unnamed(&block.results)?;
        let outer = Outer {
            nodes: std::mem::replace(&mut self.nodes, block.nodes),
            inputs: std::mem::replace(&mut self.inputs, block.parameters),
            outputs: std::mem::replace(&mut self.outputs, outputs),
        };
        Ok(reserve::push(&mut self.outer, outer)?)
    }

    /// The block entered last, in its current state.
    ///
    /// # Errors
    /// No memory.
    pub(super) fn leave(&mut self) -> Result<Block> {
        let Some(Outer { nodes, inputs, outputs }) = self.outer.pop() else { return Ok(Block::default()) };
        let results = reserve::list(self.outputs.iter().map(|(_, id)| *id));
        self.outputs = outputs;
        Ok(Block {
            nodes: std::mem::replace(&mut self.nodes, nodes),
            parameters: std::mem::replace(&mut self.inputs, inputs),
            results: results?,
        })
    }

    /// Every node; nodes in blocks come after the node that owns them.
    pub fn walk(&self) -> impl Iterator<Item = &Node> {
        let mut ahead = vec![self.nodes.iter()];
        std::iter::from_fn(move || {
            loop {
                match ahead.last_mut()?.next() {
                    Some(node) => {
                        ahead.extend(node.blocks.iter().rev().map(|block| block.nodes.iter()));
                        return Some(node);
                    }
                    None => drop(ahead.pop()),
                }
            }
        })
    }
}

/// A block's results as the outputs of a graph.
fn unnamed(results: &[ValueId]) -> Result<Vec<(String, ValueId)>, NoMemory> {
    reserve::list(results.iter().map(|&id| (String::new(), id)))
}

impl Outer {
    /// A copy.
    ///
    /// # Errors
    /// No memory.
    pub fn copy(&self) -> Result<Self> {
        Ok(Self {
            nodes: Node::copies(&self.nodes)?,
            inputs: reserve::list(self.inputs.iter().copied())?,
            outputs: reserve::list(self.outputs.iter().cloned())?,
        })
    }
}

impl Block {
    fn copy(&self) -> Result<Self> {
        Ok(Self {
            parameters: reserve::list(self.parameters.iter().copied())?,
            nodes: Node::copies(&self.nodes)?,
            results: reserve::list(self.results.iter().copied())?,
        })
    }
}

impl Node {
    /// A copy, with the nodes inside it.
    ///
    /// # Errors
    /// No memory.
    pub fn copy(&self) -> Result<Self> {
        Ok(Self {
            name: self.name.clone(),
            op: self.op.clone(),
            inputs: self.inputs.clone(),
            outputs: self.outputs.clone(),
            blocks: reserve::results(self.blocks.iter().map(Block::copy))?,
        })
    }

    /// Copies of these nodes.
    pub(super) fn copies(nodes: &[Self]) -> Result<Vec<Self>> {
        reserve::results(nodes.iter().map(Self::copy))
    }

    /// Calls `visit` for every value that the node or its blocks read.
    pub fn for_each_read(&self, visit: &mut dyn FnMut(ValueId)) {
        self.inputs.iter().for_each(|&id| visit(id));
        for block in &self.blocks {
            block.nodes.iter().for_each(|node| node.for_each_read(visit));
            block.results.iter().for_each(|&id| visit(id));
        }
    }

    /// Like [`for_each_read`](Self::for_each_read), allowing `visit` to replace the value.
    pub(crate) fn for_each_read_mut(&mut self, visit: &mut dyn FnMut(&mut ValueId)) {
        self.inputs.iter_mut().for_each(&mut *visit);
        for block in &mut self.blocks {
            block.nodes.iter_mut().for_each(|node| node.for_each_read_mut(visit));
            block.results.iter_mut().for_each(&mut *visit);
        }
    }
}
