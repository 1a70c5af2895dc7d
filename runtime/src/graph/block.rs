//! Blocks: nodes inside a node, run when and as often as it says.
//!
//! A branch owns two blocks, a loop one. A block reads the values around it as its own nodes' results; what it writes
//! is seen inside it alone. Blocks are built as the graph is: between [`Graph::begin_block`] and [`Graph::end_block`]
//! every node that is added goes into the block, blocks inside it too.
//!
//! ```text
//! graph.begin_block();
//! let (i, go) = (graph.add_parameter("i", int), graph.add_parameter("go", bool));
//! let sum = graph.add_parameter("sum", fact);
//! let next = graph.add_node("add", Binary::new(BinaryKind::Add), &[sum, x])?[0];
//! let body = graph.end_block(&[go, next]);
//! let results = graph.add_control("loop", Loop { .. }, &[first], vec![body])?;
//! ```

use super::{Graph, Node, ValueId};
use crate::error::{Error, Result};
use crate::operator::Operator;
use crate::ops::Op;
use crate::ops::control::Control;
use crate::tensor::Fact;

/// Most blocks that lie in one another.
pub const MAX_DEPTH: usize = 16;

/// Nodes that a node owns.
#[derive(Clone, Debug, Default)]
pub struct Block {
    /// Values that the owner writes before every run of the block.
    pub parameters: Vec<ValueId>,
    /// Nodes in topological order.
    pub nodes: Vec<Node>,
    /// Values that the owner reads behind every run; they may be parameters, or come from around the block.
    pub results: Vec<ValueId>,
}

/// What a graph's own fields held while they hold those of a block.
#[derive(Clone, Debug)]
pub(super) struct Outer {
    nodes: Vec<Node>,
    inputs: Vec<ValueId>,
    outputs: Vec<(String, ValueId)>,
}

impl Graph {
    /// Begins a block: nodes go into it until its end.
    pub fn begin_block(&mut self) {
        self.enter(Block::default());
    }

    /// Adds a parameter to the block that was begun last.
    pub fn add_parameter(&mut self, name: impl Into<String>, fact: Fact) -> ValueId {
        self.add_input(name, fact)
    }

    /// Ends the block that was begun last; its results may be values from around it.
    pub fn end_block(&mut self, results: &[ValueId]) -> Block {
        self.outputs = results.iter().map(|&id| (String::new(), id)).collect();
        self.leave()
    }

    /// Appends a node that owns blocks.
    ///
    /// # Errors
    /// What the operator's rule for its blocks objects to, with the node's name.
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
            node.outputs.push(self.add_value(value, fact, None));
        }
        let outputs = node.outputs.clone();
        self.nodes.push(node);
        Ok(outputs)
    }

    /// Facts of a node's results, by its operator's shape rule.
    ///
    /// # Errors
    /// What the rule objects to, with the node's name.
    pub fn infer(&self, node: &Node) -> Result<Vec<Fact>> {
        let inputs = self.facts(&node.inputs);
        let facts = match &node.op {
            Op::Control(control) => {
                let blocks = node.blocks.iter().map(|b| (self.facts(&b.parameters), self.facts(&b.results)));
                control.facts(&inputs, &blocks.collect::<Vec<_>>())
            }
            _ if !node.blocks.is_empty() => {
                return Err(Error::Internal(format!("node '{}' has no use for blocks", node.name)));
            }
            op => op.infer(&inputs),
        };
        facts.map_err(|e| e.at(&node.name))
    }

    /// Makes the graph's own nodes, inputs and outputs those of a block, until [`leave`](Self::leave).
    pub(super) fn enter(&mut self, block: Block) {
        let outputs = block.results.into_iter().map(|id| (String::new(), id)).collect();
        self.outer.push(Outer {
            nodes: std::mem::replace(&mut self.nodes, block.nodes),
            inputs: std::mem::replace(&mut self.inputs, block.parameters),
            outputs: std::mem::replace(&mut self.outputs, outputs),
        });
    }

    /// The block that was entered last, as it is now.
    pub(super) fn leave(&mut self) -> Block {
        let Some(Outer { nodes, inputs, outputs }) = self.outer.pop() else { return Block::default() };
        Block {
            nodes: std::mem::replace(&mut self.nodes, nodes),
            parameters: std::mem::replace(&mut self.inputs, inputs),
            results: std::mem::replace(&mut self.outputs, outputs).into_iter().map(|(_, id)| id).collect(),
        }
    }

    /// Every node, those in blocks behind the one that owns them.
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

impl Node {
    /// Calls `visit` for every value that the node or a block of it reads.
    pub fn for_each_read(&self, visit: &mut dyn FnMut(ValueId)) {
        self.inputs.iter().for_each(|&id| visit(id));
        for block in &self.blocks {
            block.nodes.iter().for_each(|node| node.for_each_read(visit));
            block.results.iter().for_each(|&id| visit(id));
        }
    }

    /// As [`for_each_read`](Self::for_each_read), to read another value instead.
    pub(crate) fn for_each_read_mut(&mut self, visit: &mut dyn FnMut(&mut ValueId)) {
        self.inputs.iter_mut().for_each(&mut *visit);
        for block in &mut self.blocks {
            block.nodes.iter_mut().for_each(|node| node.for_each_read_mut(visit));
            block.results.iter_mut().for_each(&mut *visit);
        }
    }
}
