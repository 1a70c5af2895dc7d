//! Selects the tensors to quantize.
//!
//! Convolutions, matrix products with constant weights, additions, multiplications and averages are computed in 8 bits:
//! their operands and results are quantized, the results after a bound such as a ReLU that follows. Operators that only
//! move elements keep the range of their operand. Outputs of the model stay float.

use std::collections::{HashMap, HashSet};

use crate::editor::{Graph, Node};

/// Operators that bound their operand, and are quantized together with it.
const BOUNDS: [&str; 2] = ["Relu", "Clip"];
/// Operators whose result has only elements of their operand.
const MOVES: [&str; 10] = [
    "MaxPool",
    "GlobalMaxPool",
    "ReduceMax",
    "Flatten",
    "Reshape",
    "Transpose",
    "Squeeze",
    "Unsqueeze",
    "Identity",
    "Dropout",
];

/// The tensors to quantize, each with the tensor whose range it shares.
pub(super) struct Selection {
    roots: Vec<String>,
    /// Tensors by name, with the position of their root.
    tensors: HashMap<String, usize>,
}

impl Selection {
    /// Chooses the tensors of a graph.
    pub fn of(graph: &Graph) -> Self {
        let weights: HashSet<&str> = graph.initializers.iter().map(|t| t.name.as_str()).collect();
        let outputs: HashSet<&str> = graph.outputs.iter().map(|o| o.name.as_str()).collect();
        let mut readers: HashMap<&str, Vec<&Node>> = HashMap::new();
        for node in &graph.nodes {
            node.inputs.iter().for_each(|name| readers.entry(name).or_default().push(node));
        }
        let mut wanted: HashSet<&str> = HashSet::new();
        let mut heavy = false;
        for node in graph.nodes.iter().filter(|node| is_quantizable(node, graph, &weights)) {
            heavy |= has_weights(node);
            let operands = if has_weights(node) { &node.inputs[..1] } else { &node.inputs[..] };
            wanted.extend(operands.iter().map(String::as_str));
            let Some(result) = node.outputs.first() else { continue };
            let bound = match readers.get(result.as_str()).map(Vec::as_slice) {
                Some([reader]) if BOUNDS.iter().any(|op| reader.is(op)) && !outputs.contains(result.as_str()) => {
                    reader.outputs.first()
                }
                _ => Some(result),
            };
            wanted.extend(bound.map(String::as_str));
        }
        if !heavy {
            wanted.clear();
        }
        wanted.retain(|name| !outputs.contains(name) && !weights.contains(name) && !name.is_empty());
        // In the order of the graph, so that a range is known before the tensors that share it.
        let mut selection = Self { roots: Vec::new(), tensors: HashMap::new() };
        let inputs = graph.inputs.iter().map(|input| (input.name.as_str(), None));
        let results = graph.nodes.iter().flat_map(|node| node.outputs.first().map(|name| (name.as_str(), Some(node))));
        for (name, node) in inputs.chain(results) {
            let moved = node.filter(|node| MOVES.iter().any(|op| node.is(op)));
            let root = moved.and_then(|node| selection.tensors.get(node.inputs.first()?)).copied();
            match root {
                Some(root) if !outputs.contains(name) => {
                    selection.tensors.insert(name.to_owned(), root);
                }
                _ if wanted.contains(name) => {
                    selection.tensors.insert(name.to_owned(), selection.roots.len());
                    selection.roots.push(name.to_owned());
                }
                _ => {}
            }
        }
        selection
    }

    /// The tensors that have their own range.
    pub fn roots(&self) -> &[String] {
        &self.roots
    }

    /// The position of the range of a tensor, if it becomes bytes.
    pub fn root(&self, name: &str) -> Option<usize> {
        self.tensors.get(name).copied()
    }

    pub fn is_empty(&self) -> bool {
        self.roots.is_empty()
    }

    /// Number of quantized tensors.
    pub fn len(&self) -> usize {
        self.tensors.len()
    }
}

/// Whether the second operand of a node is its weights.
pub(super) fn has_weights(node: &Node) -> bool {
    ["Conv", "Gemm", "MatMul"].iter().any(|op| node.is(op))
}

/// Whether a node can be computed in 8 bits.
fn is_quantizable(node: &Node, graph: &Graph, weights: &HashSet<&str>) -> bool {
    let has = |index: usize| node.inputs.get(index).is_some_and(|name| weights.contains(name.as_str()));
    if has_weights(node) {
        let given = node.inputs.get(1).and_then(|name| graph.initializer(name));
        let is_float = given.is_some_and(|t| t.floats().is_some());
        let is_matrix = given.is_some_and(|t| t.dims.len() == 2);
        let bias = node.inputs.get(2).is_none_or(|name| name.is_empty()) || has(2);
        let plain = |name: &str, value: f32| node.attribute(name).is_none_or(|a| a.float == value);
        let product = node.is("Conv")
            || is_matrix
                && plain("alpha", 1.0)
                && plain("beta", 1.0)
                && node.attribute("transA").is_none_or(|a| a.int == 0);
        return is_float && bias && product && !has(0);
    }
    let of_two = ["Add", "Mul"].iter().any(|op| node.is(op)) && node.inputs.len() == 2 && !has(0) && !has(1);
    of_two || ["AveragePool", "GlobalAveragePool"].iter().any(|op| node.is(op))
}
