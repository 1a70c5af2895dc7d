//! The nodes of a graph and of its branches as one list: experts that run only if a token needs them are in branches.

use super::super::super::{Graph, Node, Uses, ValueId};
use crate::error::Result;
use crate::ops::Op;
use crate::ops::binary::{Binary, BinaryKind};
use crate::ops::control::Control;
use crate::reserve;
use crate::tensor::Tensor;
use skipstone_kernels::activation::Activation;

/// Most nodes between two values that are compared by how they are computed.
const DEPTH: usize = 8;

/// A node, or one in a branch of it.
#[derive(Clone, Copy)]
struct Writer<'a> {
    node: &'a Node,
    /// Position of the outermost node.
    at: usize,
    in_branch: bool,
}

pub(super) struct View<'a> {
    pub graph: &'a Graph,
    writers: Vec<Option<Writer<'a>>>,
    uses: Uses,
}

impl<'a> View<'a> {
    pub fn new(graph: &'a Graph) -> Result<Self> {
        let mut view = Self { graph, writers: reserve::copies(None, graph.values().len())?, uses: graph.uses()? };
        for (at, node) in graph.nodes.iter().enumerate() {
            view.add(node, at, false);
        }
        Ok(view)
    }

    fn add(&mut self, node: &'a Node, at: usize, in_branch: bool) {
        for id in &node.outputs {
            self.writers[id.0] = Some(Writer { node, at, in_branch });
        }
        if let Op::Control(Control::If) = node.op {
            node.blocks.iter().flat_map(|block| &block.nodes).for_each(|node| self.add(node, at, true));
        }
    }

    pub fn writer(&self, id: ValueId) -> Option<&'a Node> {
        self.writers.get(id.0).copied().flatten().map(|writer| writer.node)
    }

    /// The position of the outermost node that writes a value.
    pub fn position(&self, id: ValueId) -> Option<usize> {
        self.writers.get(id.0).copied().flatten().map(|writer| writer.at)
    }

    /// Whether a node of the graph itself at this position can read a value.
    pub fn is_known_at(&self, id: ValueId, at: usize) -> bool {
        self.writers.get(id.0).copied().flatten().is_none_or(|writer| !writer.in_branch && writer.at < at)
    }

    pub fn is_in_branch(&self, id: ValueId) -> bool {
        self.writers.get(id.0).copied().flatten().is_some_and(|writer| writer.in_branch)
    }

    /// Whether only one node of the graph itself reads a value, perhaps several times.
    pub fn has_one_reader(&self, id: ValueId) -> bool {
        let readers = self.uses.readers(id);
        readers.first().is_some_and(|first| readers.iter().all(|reader| reader == first))
    }

    pub fn dims(&self, id: ValueId) -> &'a [usize] {
        self.graph.fact(id).shape.dims()
    }

    pub fn elements(&self, id: ValueId) -> usize {
        self.graph.fact(id).shape.elements()
    }

    pub fn constant(&self, id: ValueId) -> Option<&'a Tensor> {
        self.graph.constant(id).map(AsRef::as_ref)
    }

    /// The integer, if all elements of a constant are equal to it.
    pub fn integer(&self, id: ValueId) -> Option<i64> {
        let held = self.constant(id)?;
        if let Some(all) = held.peek::<i64>() {
            return uniform(all.iter());
        }
        if let Some(all) = held.peek::<i32>() {
            return uniform(all.iter().map(i64::from));
        }
        let number = self.constant(id)?.peek::<f32>()?;
        let whole = |value: f32| (value.fract() == 0.0 && value.abs() < 1e6).then_some(value as i64);
        number.iter().all(|value| whole(value).is_some()).then(|| uniform(number.iter().filter_map(whole))).flatten()
    }

    pub fn is_zero(&self, id: ValueId) -> bool {
        self.constant(id).is_some_and(|held| held.bytes().iter().all(|&byte| byte == 0))
    }

    /// The value that this is a reshape of.
    pub fn source(&self, mut id: ValueId) -> ValueId {
        while let Some(Node { op: Op::Reshape(_), inputs, .. }) = self.writer(id) {
            let Some(&x) = inputs.first() else { break };
            id = x;
        }
        id
    }

    /// The operands, if a plain `kind` writes the value.
    pub fn operands(&self, id: ValueId, kind: BinaryKind) -> Option<[ValueId; 2]> {
        let node = self.writer(id)?;
        match node.op {
            Op::Binary(Binary { kind: held, activation: Activation::None }) if held == kind => {
                node.inputs.as_slice().try_into().ok()
            }
            _ => None,
        }
    }

    /// Whether two values are equal, by how they are computed.
    pub fn same(&self, a: ValueId, b: ValueId) -> bool {
        self.same_within(a, b, DEPTH)
    }

    fn same_within(&self, a: ValueId, b: ValueId, depth: usize) -> bool {
        if a == b {
            return true;
        }
        if depth == 0 || self.graph.fact(a) != self.graph.fact(b) {
            return false;
        }
        if let (Some(a), Some(b)) = (self.constant(a), self.constant(b)) {
            return a.bytes() == b.bytes();
        }
        let (Some(m), Some(n)) = (self.writer(a), self.writer(b)) else { return false };
        let place = |node: &Node, id: ValueId| node.outputs.iter().position(|&other| other == id);
        equal(&m.op, &n.op)
            && place(m, a) == place(n, b)
            && m.inputs.len() == n.inputs.len()
            && m.inputs.iter().zip(&n.inputs).all(|(&a, &b)| self.same_within(a, b, depth - 1))
    }
}

/// The number that all of these are.
fn uniform(mut all: impl Iterator<Item = i64>) -> Option<i64> {
    let first = all.next()?;
    all.all(|other| other == first).then_some(first)
}

/// Whether two operators are the same function; false for operators that are not part of a router.
pub(super) fn equal(a: &Op, b: &Op) -> bool {
    match (a, b) {
        (Op::Reshape(a), Op::Reshape(b)) => a.shape == b.shape,
        (Op::Transpose(a), Op::Transpose(b)) => a == b,
        (Op::Expand(a), Op::Expand(b)) => a == b,
        (Op::Slice(a), Op::Slice(b)) => a == b,
        (Op::Cast(a), Op::Cast(b)) => a == b,
        (Op::Binary(a), Op::Binary(b)) => a == b,
        (Op::Unary(a), Op::Unary(b)) => a == b,
        (Op::Activate(a), Op::Activate(b)) => a == b,
        (Op::Compare(a), Op::Compare(b)) => a == b,
        (Op::Gather(a), Op::Gather(b)) => a.axis == b.axis,
        (Op::GatherNd(a), Op::GatherNd(b)) => a == b,
        (Op::GatherElements(a), Op::GatherElements(b)) => a.axis == b.axis,
        (Op::Reduce(a), Op::Reduce(b)) => a == b,
        (Op::Softmax(a), Op::Softmax(b)) => a == b,
        (Op::TopK(a), Op::TopK(b)) => a == b,
        _ => false,
    }
}
