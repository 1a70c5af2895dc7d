//! The operators of last resort: what no operator of ours does is evaluated by tract, a node at a
//! time, or the whole model where shapes depend on data. The only room that names tract; without
//! the feature `tract` it refuses instead, by the name of the node.

#[cfg(feature = "tract")]
mod admit;
#[cfg(feature = "tract")]
mod convert;
#[cfg(feature = "tract")]
mod guard;
#[cfg(feature = "tract")]
mod node;
#[cfg(feature = "tract")]
mod plan;
#[cfg(feature = "tract")]
mod whole;
#[cfg(not(feature = "tract"))]
mod without;

use std::collections::HashMap;

use skipstone_onnx::proto::Node;

#[cfg(not(feature = "tract"))]
pub(super) use self::without::{knows, node, whole};
#[cfg(feature = "tract")]
pub(super) use self::{admit::knows, node::node, whole::whole};

use crate::graph::{Graph, ValueId};
use crate::ops::ForeignOp;
use crate::tensor::Tensor;

/// A node that no operator of ours does.
#[cfg_attr(not(feature = "tract"), expect(dead_code, reason = "without tract only the node is named"))]
pub(super) struct Step<'a, 'm> {
    pub node: &'a Node<'m>,
    /// Versions of the operator sets by domain.
    pub opsets: &'a HashMap<&'m str, i64>,
    /// What the node and the graphs in it read, each name once.
    pub operands: &'a [(&'a str, ValueId)],
    /// Where the operands are.
    pub graph: &'a Graph,
    /// Bytes that constants may still take.
    pub room: u64,
}

/// What becomes of it.
#[cfg_attr(not(feature = "tract"), expect(dead_code, reason = "nothing is made without tract"))]
pub(super) enum Made {
    /// All operands were constants: the results, of the outputs that have names.
    Constants(Vec<Tensor>),
    /// An operator of the graph, with the operands that are not constants.
    Step(ForeignOp, Vec<ValueId>),
    /// A result's shape depends on data: which, and why.
    Dynamic(String),
}
