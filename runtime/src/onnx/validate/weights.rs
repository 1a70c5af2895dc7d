//! Which initializers are nothing but weights.
//!
//! Most bytes of a model are matrices that one kind of node multiplies with: no shape and no type
//! follows from their values. What is known of them here lets the loader keep them away from the
//! parser, which would copy each several times.

use std::collections::HashMap;

use super::ElementType;
use super::attributes::is_standard;
use super::checked::Weights;
use super::proto::{Graph, Node, Tensor};

/// Bytes below which a tensor is not worth the trouble.
const WORTH_IT: usize = 1024;

/// The weights of `graph`, which was decoded from `file` and found valid.
pub(super) fn find(file: &[u8], graph: &Graph<'_>) -> Vec<Weights> {
    // A subgraph reads the names around it without declaring so.
    if graph.nodes.iter().any(|node| node.subgraphs().next().is_some()) {
        return Vec::new();
    }
    // By name: whether every reader multiplies with it.
    let mut only_weights: HashMap<&str, bool> = HashMap::new();
    for node in &graph.nodes {
        for (position, name) in node.inputs.iter().enumerate() {
            let here = multiplies(node, position);
            only_weights.entry(name).and_modify(|only| *only &= here).or_insert(here);
        }
    }
    for port in graph.inputs.iter().chain(&graph.outputs) {
        only_weights.insert(port.name, false);
    }
    let only_weights = |tensor: &&Tensor<'_>| only_weights.get(tensor.name).copied().unwrap_or(false);
    graph.initializers.iter().filter(only_weights).filter_map(|tensor| weights(file, tensor)).collect()
}

/// Whether a node does nothing else with the operand at `position` than to multiply with it, be it quantised.
fn multiplies(node: &Node<'_>, position: usize) -> bool {
    match (node.op_type, position) {
        ("Conv" | "Gemm" | "MatMul" | "ConvInteger" | "MatMulInteger", 1) => is_standard(node.domain),
        ("DequantizeLinear", 0) | ("QLinearConv" | "QLinearMatMul", 3) => is_standard(node.domain),
        ("QGemm", 3) => node.domain == "com.microsoft",
        _ => false,
    }
}

/// Where the tensor's data lie, if they are enough floats or bytes in raw form.
fn weights(file: &[u8], tensor: &Tensor<'_>) -> Option<Weights> {
    let element =
        tensor.element().filter(|e| matches!(e, ElementType::Float | ElementType::Int8 | ElementType::Uint8))?;
    if tensor.is_external() || tensor.raw.len() < WORTH_IT {
        return None;
    }
    let start = tensor.raw.as_ptr().addr().checked_sub(file.as_ptr().addr())?;
    let dims: Option<Vec<usize>> = tensor.dims.iter().map(|&dim| usize::try_from(dim).ok()).collect();
    let data = start..start.checked_add(tensor.raw.len())?;
    Some(Weights { name: tensor.name.to_owned(), element, dims: dims?, data })
}
