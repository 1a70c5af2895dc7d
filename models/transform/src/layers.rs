//! Layers: the nodes of a model that multiply by constant weights, each a matrix of filters.
//!
//! ```text
//! Conv      weights [filters, depth, rows, columns]     filter, depth, taps = rows * columns
//! Gemm      weights [depth, filters], or with transB [filters, depth]
//! MatMul    weights [depth, filters]
//! ```

use crate::editor::{FLOAT, Graph, HALF, Node};

/// A node with constant weights that no other node reads.
#[derive(Clone, Debug)]
pub(crate) struct Layer {
    /// Position of the node.
    pub node: usize,
    /// Its name in errors and reports.
    pub name: String,
    /// The tensor that it reads.
    pub input: String,
    /// The tensor that it writes.
    pub output: String,
    /// Position of the constant that holds the weights.
    pub weights: usize,
    /// Position of the constant bias, one element per filter.
    pub bias: Option<usize>,
    /// Number of filters, each of which writes a channel.
    pub filters: usize,
    /// Channels, or columns, that a filter reads.
    pub depth: usize,
    /// Weights of a filter per channel that it reads.
    pub taps: usize,
    /// Number of groups.
    pub groups: usize,
    /// Axes of the weights: filters, depth.
    pub axes: [usize; 2],
}

impl Layer {
    /// The layers of a graph, in order.
    pub fn all(graph: &Graph) -> Vec<Self> {
        graph.nodes.iter().enumerate().filter_map(|(at, node)| Self::of(graph, at, node)).collect()
    }

    fn of(graph: &Graph, at: usize, node: &Node) -> Option<Self> {
        let name = node.inputs.get(1)?;
        let weights = graph.stored(name)?;
        let tensor = &graph.initializers[weights];
        let only_reader = graph.readers(name) == 1 && graph.readers(&tensor.name) == 1;
        let plain = |name: &str, value: f32| node.attribute(name).is_none_or(|a| a.float == value);
        let flag = |name: &str| node.attribute(name).is_some_and(|a| a.int != 0);
        let (filters, depth, taps, groups, axes) = match (node.op_type.as_str(), tensor.lengths().as_slice()) {
            ("Conv", [filters, depth, taps @ ..]) => {
                let groups = node.attribute("group").map_or(1, |a| usize::try_from(a.int).unwrap_or(1));
                (*filters, *depth, taps.iter().product(), groups, [0, 1])
            }
            ("Gemm", &[filters, depth]) if flag("transB") => (filters, depth, 1, 1, [0, 1]),
            ("Gemm" | "MatMul", &[depth, filters]) => (filters, depth, 1, 1, [1, 0]),
            _ => return None,
        };
        let is_product = !node.is("Gemm") || plain("alpha", 1.0) && plain("beta", 1.0) && !flag("transA");
        let given = |name: &String| !name.is_empty() && graph.stored(&node.inputs[0]).is_none();
        let bias = node.inputs.get(2).filter(|name| !name.is_empty()).and_then(|name| graph.stored(name));
        let fits = only_reader && is_product && node.is(&node.op_type) && filters * depth * taps * groups > 0;
        (fits && [FLOAT, HALF].contains(&tensor.data_type) && node.inputs.first().is_some_and(given)).then(|| Self {
            node: at,
            name: node.label(),
            input: node.inputs[0].clone(),
            output: node.outputs.first().cloned().unwrap_or_default(),
            weights,
            bias,
            filters,
            depth,
            taps,
            groups,
            axes,
        })
    }

    /// Number of weights of a filter.
    pub fn width(&self) -> usize {
        self.depth * self.taps
    }

    /// Whether it is a convolution.
    pub fn is_convolution(&self, graph: &Graph) -> bool {
        graph.nodes[self.node].is("Conv")
    }

    /// The axis of the input that corresponds to the depth, counted from the end for a matrix product.
    pub fn input_axis(&self, graph: &Graph, rank: usize) -> usize {
        if self.is_convolution(graph) { 1 } else { rank.saturating_sub(1) }
    }

    /// The input channel that `filter` reads at `depth`.
    pub fn channel(&self, filter: usize, depth: usize) -> usize {
        filter / (self.filters / self.groups).max(1) * self.depth + depth
    }

    /// The weights as `[filters, depth, taps]`.
    pub fn matrix(&self, graph: &Graph) -> Vec<f32> {
        let numbers = graph.initializers[self.weights].numbers().unwrap_or_default();
        if self.axes == [0, 1] {
            return numbers;
        }
        let at = |i: usize| numbers[i % self.depth * self.filters + i / self.depth];
        (0..numbers.len()).map(at).collect()
    }

    /// Replaces the weights by `[filters, depth, taps]`.
    pub fn set_matrix(&self, graph: &mut Graph, matrix: &[f32]) {
        if self.axes == [0, 1] {
            return graph.initializers[self.weights].set_numbers(matrix);
        }
        let at = |i: usize| matrix[i % self.filters * self.depth + i / self.filters];
        let numbers: Vec<f32> = (0..matrix.len()).map(at).collect();
        graph.initializers[self.weights].set_numbers(&numbers);
    }
}
