//! Where a network can be cut: values that everything behind them is computed from, such as the sums between the blocks of a
//! transformer.

use std::collections::{HashMap, HashSet};

use skipstone::onnx::Imported;

use crate::editor::{Graph, Node};

/// Most channels at a place: least squares takes the square of that in memory.
const MOST_CHANNELS: usize = 2048;

/// A value that everything behind it is computed from.
#[derive(Clone, Debug)]
pub(crate) struct Cut {
    pub value: String,
    /// Number of nodes before it.
    pub at: usize,
    pub dims: Vec<usize>,
    /// The axis of the channels.
    pub axis: usize,
}

impl Cut {
    /// What two values must have in common: rows and columns, or tokens.
    pub fn places(&self) -> Vec<usize> {
        let mut places = self.dims.clone();
        places.remove(self.axis);
        places
    }

    pub fn channels(&self) -> usize {
        self.dims[self.axis]
    }
}

/// The axis of the channels of every value, by the nodes before it: the first behind the batch after a convolution, the
/// last after a matrix product or LayerNormalization. Images may be tokens with channels last.
fn channel_axes<'a>(nodes: &'a [Node], known: &Imported) -> HashMap<&'a str, usize> {
    let dims = |name: &str| known.values.get(name).map(|&id| known.graph.fact(id).shape.dims());
    let mut axes: HashMap<&str, usize> = HashMap::new();
    for node in nodes {
        let kept = node.inputs.iter().find_map(|name| Some((name, *axes.get(name.as_str())?)));
        for name in &node.outputs {
            let Some(of) = dims(name).filter(|of| of.len() > 1) else { continue };
            let axis = match node.op_type.as_str() {
                "Conv" | "ConvTranspose" => Some(1),
                "MatMul" | "Gemm" | "LayerNormalization" => Some(of.len() - 1),
                "Transpose" => kept.and_then(|(_, axis)| {
                    let perm = node.attribute("perm").map(|perm| perm.ints.clone());
                    let perm = perm.unwrap_or_else(|| (0..of.len() as i64).rev().collect());
                    perm.iter().position(|&from| usize::try_from(from) == Ok(axis))
                }),
                // Everything else keeps the axis if it keeps its position and length.
                _ => kept
                    .filter(|&(from, axis)| {
                        dims(from).is_some_and(|from| from.len() == of.len() && from.get(axis) == of.get(axis))
                    })
                    .map(|(_, axis)| axis),
            };
            axes.extend(axis.map(|axis| (name.as_str(), axis)));
        }
    }
    axes
}

/// The nodes that compute constants, and those that depend on the input, in order.
pub(crate) fn parted(graph: &Graph, input: &str) -> [Vec<Node>; 2] {
    let mut computed = HashSet::from([input]);
    let [mut constants, mut nodes] = [Vec::new(), Vec::new()];
    for node in &graph.nodes {
        if node.inputs.iter().any(|name| computed.contains(name.as_str())) {
            computed.extend(node.outputs.iter().filter(|name| !name.is_empty()).map(String::as_str));
            nodes.push(node.clone());
        } else {
            constants.push(node.clone());
        }
    }
    [constants, nodes]
}

/// The places where a network can be cut, whose nodes compute no constants: those between every two of the layers, which
/// write these values, in order; none before the first layer or behind the last.
pub(crate) fn cuts(nodes: &[Node], input: &str, layers: &HashSet<String>, known: &Imported) -> Vec<Vec<Cut>> {
    let mut reads: HashMap<&str, usize> = HashMap::new();
    for name in nodes.iter().flat_map(|node| &node.inputs).filter(|name| !name.is_empty()) {
        *reads.entry(name).or_default() += 1;
    }
    let is_layer = |node: &Node| node.outputs.first().is_some_and(|output| layers.contains(output));
    let all = nodes.iter().filter(|node| is_layer(node)).count();
    let mut open: HashMap<&str, usize> = HashMap::new();
    open.insert(input, reads.get(input).copied().unwrap_or(0));
    let axes = channel_axes(nodes, known);
    let (mut passed, mut cuts) = (0, Vec::<(usize, Vec<Cut>)>::new());
    for (at, node) in nodes.iter().enumerate() {
        for name in &node.inputs {
            if let Some(left) = open.get_mut(name.as_str()) {
                *left -= 1;
                if *left == 0 {
                    open.remove(name.as_str());
                }
            }
        }
        open.extend(node.outputs.iter().filter_map(|name| Some((name.as_str(), *reads.get(name.as_str())?))));
        passed += usize::from(is_layer(node));
        let mut values = open.keys();
        let (Some(&value), None, true) = (values.next(), values.next(), passed > 0 && passed < all) else {
            continue;
        };
        let dims = known.values.get(value).map(|&id| known.graph.fact(id).shape.dims().to_vec());
        let Some(dims) = dims.filter(|dims| (2..=4).contains(&dims.len())) else { continue };
        let usual = if dims.len() == 4 { 1 } else { dims.len() - 1 };
        let axis = axes.get(value).copied().filter(|&axis| axis < dims.len()).unwrap_or(usual);
        let cut = Cut { value: value.to_owned(), at: at + 1, dims, axis };
        if !(1..=MOST_CHANNELS).contains(&cut.channels()) {
            continue;
        }
        match cuts.last_mut().filter(|(before, _)| *before == passed) {
            Some((_, between)) => between.push(cut),
            None => cuts.push((passed, vec![cut])),
        }
    }
    cuts.into_iter().map(|(_, between)| between).collect()
}

#[cfg(test)]
mod tests {
    use skipstone::Options;
    use skipstone::onnx::imported;
    use skipstone_onnx::write::{f32s, graph, ints, model, node, value};

    use super::*;
    use crate::editor::Editor;

    /// A patch embedding, then blocks on tokens of rows and columns: channels are last.
    #[test]
    fn tokens_in_rows_and_columns_have_their_channels_last() {
        let nodes = [
            node("Conv", &["x", "w"], &["c"], &[ints("strides", &[2, 2])]),
            node("Relu", &["c"], &["r"], &[]),
            node("Transpose", &["r"], &["t"], &[ints("perm", &[0, 2, 3, 1])]),
            node("Tanh", &["t"], &["u"], &[]),
            node("MatMul", &["u", "v"], &["m"], &[]),
            node("Relu", &["m"], &["y"], &[]),
        ];
        let weights = [f32s("w", &[5, 3, 2, 2], &[0.5; 60]), f32s("v", &[5, 7], &[0.5; 35])];
        let bytes = model(&graph(&nodes, &weights, &[value("x", 1, &[1, 3, 8, 6])], &[value("y", 1, &[1, 4, 3, 7])]));
        let editor = Editor::open(&bytes).unwrap();
        let options = Options::default();
        let known = imported(&bytes, &options.limits.file, &options.shapes).unwrap();
        let layers = HashSet::from(["c".to_owned(), "m".to_owned()]);
        let found = cuts(&editor.graph.nodes, "x", &layers, &known);
        let found: Vec<(&str, usize, usize)> =
            found[0].iter().map(|cut| (cut.value.as_str(), cut.axis, cut.channels())).collect();
        assert_eq!(found, [("c", 1, 5), ("r", 1, 5), ("t", 3, 5), ("u", 3, 5)]);
    }
}
