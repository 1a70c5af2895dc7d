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
}

impl Cut {
    /// What two values must have in common: rows and columns, or tokens.
    pub fn places(&self) -> Vec<usize> {
        let mut places = self.dims.clone();
        places.remove(self.axis());
        places
    }

    pub fn channels(&self) -> usize {
        self.dims[self.axis()]
    }

    /// The axis of the channels.
    pub fn axis(&self) -> usize {
        if self.dims.len() == 4 { 1 } else { self.dims.len() - 1 }
    }
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
        let cut = Cut { value: value.to_owned(), at: at + 1, dims };
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
