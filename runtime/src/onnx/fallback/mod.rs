//! The operators of last resort: nodes without one of our operators are evaluated by tract, a node at a time, or as a
//! whole model if shapes depend on data. The only room that names tract; without the feature `tract` such nodes are
//! refused by name.

#[cfg(feature = "tract")]
mod admit;
#[cfg(feature = "tract")]
mod convert;
#[cfg(feature = "tract")]
mod guard;
#[cfg(feature = "tract")]
mod meter;
#[cfg(feature = "tract")]
mod node;
#[cfg(feature = "tract")]
mod plan;
#[cfg(feature = "tract")]
mod replaced;
#[cfg(feature = "tract")]
mod whole;
#[cfg(not(feature = "tract"))]
mod without;

use std::collections::HashMap;

use skipstone_onnx::proto::Node;

#[cfg(not(feature = "tract"))]
pub(super) use self::without::{is_admitted, node, whole};
#[cfg(feature = "tract")]
pub(super) use self::{admit::is_admitted, node::node, whole::whole};

use crate::graph::{Graph, ValueId};
use crate::ops::ForeignOp;
use crate::tensor::Tensor;

/// A node without one of our operators.
#[cfg_attr(not(feature = "tract"), expect(dead_code, reason = "without tract only the node is named"))]
pub(super) struct ForeignNode<'a, 'm> {
    pub node: &'a Node<'m>,
    /// Versions of the operator sets by domain.
    pub opsets: &'a HashMap<&'m str, i64>,
    /// The values that the node and its subgraphs read, each name once.
    pub operands: &'a [(&'a str, ValueId)],
    /// The graph with the operands.
    pub graph: &'a Graph,
    /// Bytes that constants may still take.
    pub room: u64,
}

/// The result of making a step.
#[cfg_attr(not(feature = "tract"), expect(dead_code, reason = "nothing is made without tract"))]
pub(super) enum Made {
    /// All operands were constants: the results, for the outputs that have names.
    Constants(Vec<Tensor>),
    /// An operator for the graph, with the operands that are not constants.
    Step(ForeignOp, Vec<ValueId>),
    /// The shape of a result depends on data: which one, and why.
    Dynamic(String),
}
