//! Feed-forward blocks: layers that read the same tokens, an element-wise function of their outputs, and a layer behind it.
//!
//! ```text
//! x -> MatMul [-> Add] -> activation -> MatMul                          tokens along the last axis
//! x -> MatMul -> SiLU -> Mul(MatMul of x) -> MatMul                     gated
//! x -> Conv 1x1 -> activation -> Conv 1x1                               tokens are pixels
//! ```
//!
//! Then neuron j of the hidden value, its weights in the first layers and in the last one can be put elsewhere as a whole.

use std::collections::BTreeSet;

use skipstone::onnx::Imported;

use crate::editor::{Graph, Node};
use crate::layers::Layer;

/// Element-wise operators of one value and constants.
pub(crate) const UNARY: [&str; 27] = [
    "Abs",
    "Celu",
    "Clip",
    "Elu",
    "Erf",
    "Exp",
    "Gelu",
    "HardSigmoid",
    "HardSwish",
    "Identity",
    "LeakyRelu",
    "Mish",
    "Neg",
    "PRelu",
    "Pow",
    "Reciprocal",
    "Relu",
    "Selu",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Sqrt",
    "Swish",
    "Tanh",
    "ThresholdedRelu",
    "Max",
    "Min",
];
/// Arithmetic, which alone is no activation.
pub(crate) const ARITHMETIC: [&str; 4] = ["Add", "Sub", "Mul", "Div"];

/// Highest rank of a single constant: the values of experts have three axes.
const MOST_AXES: usize = 3;

/// A feed-forward block.
#[derive(Clone, Debug)]
pub(crate) struct Block {
    /// The name of its last layer.
    pub name: String,
    /// The value that it reads.
    pub input: String,
    /// The layers that read it.
    pub ups: Vec<Layer>,
    /// The element-wise nodes between, in order.
    pub between: Vec<usize>,
    /// The last layer.
    pub down: Layer,
    /// Number of neurons.
    pub neurons: usize,
    /// Number of features of a token.
    pub width: usize,
    /// The axis of the input along which these are.
    pub axis: usize,
}

/// What a constant between the layers is for the neurons.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Operand {
    /// A single number.
    Single,
    /// A number for each neuron.
    PerNeuron(Vec<f32>),
}

impl Block {
    /// The blocks of a graph, in order; a layer belongs to at most one.
    pub fn all(graph: &Graph, known: &Imported) -> Vec<Self> {
        let layers: Vec<Layer> = Layer::all(graph).into_iter().filter(|layer| is_per_token(graph, layer)).collect();
        let mut used = BTreeSet::new();
        let mut blocks = Vec::new();
        for down in &layers {
            let Some(block) = Self::ending(graph, known, &layers, down) else { continue };
            if block.ups.iter().chain([down]).all(|layer| !used.contains(&layer.node)) {
                used.extend(block.ups.iter().chain([down]).map(|layer| layer.node));
                blocks.push(block);
            }
        }
        blocks
    }

    /// The block whose last layer this is.
    fn ending(graph: &Graph, known: &Imported, layers: &[Layer], down: &Layer) -> Option<Self> {
        let neurons = down.depth;
        let (mut ups, mut between) = (BTreeSet::new(), BTreeSet::new());
        let mut open = vec![down.input.clone()];
        while let Some(name) = open.pop() {
            let at = graph.writer(&name)?;
            if let Some(up) = layers.iter().position(|layer| layer.node == at) {
                ups.insert(up);
                continue;
            }
            let node = &graph.nodes[at];
            if !between.insert(at) {
                continue;
            }
            let elementwise = UNARY.iter().chain(&ARITHMETIC).any(|op| node.is(op));
            if !elementwise || node.outputs.len() != 1 {
                return None;
            }
            for input in node.inputs.iter().filter(|input| !input.is_empty()) {
                if graph.stored(input).is_none() {
                    open.push(input.clone());
                } else if Operand::of(graph, input, neurons, down.is_convolution(graph)).is_none() {
                    return None;
                }
            }
        }
        let ups: Vec<Layer> = ups.into_iter().map(|up| layers[up].clone()).collect();
        let first = ups.first()?;
        let images = first.is_convolution(graph);
        let alike = |layer: &Layer| {
            layer.input == first.input && layer.filters == neurons && layer.is_convolution(graph) == images
        };
        if !ups.iter().all(alike) || down.is_convolution(graph) != images || neurons < 2 {
            return None;
        }
        let between: Vec<usize> = between.into_iter().collect();
        let bends = |node: &Node| {
            let computed = node.inputs.iter().filter(|input| !input.is_empty() && graph.stored(input).is_none());
            UNARY.iter().any(|op| node.is(op) && *op != "Identity") || computed.count() > 1
        };
        if !between.iter().any(|&at| bends(&graph.nodes[at])) {
            return None;
        }
        // What the layers and the nodes between compute is read by the block alone.
        let inside: Vec<&Node> = between.iter().chain([&down.node]).map(|&at| &graph.nodes[at]).collect();
        let alone = |name: &String| {
            let reads = inside.iter().flat_map(|node| &node.inputs).filter(|input| *input == name).count();
            reads == graph.readers(name)
        };
        let between_outputs = between.iter().map(|&at| &graph.nodes[at].outputs[0]);
        if !ups.iter().map(|layer| &layer.output).chain(between_outputs).all(alone) {
            return None;
        }
        let dims = known.graph.fact(*known.values.get(&first.input)?).shape.dims();
        // A single pixel is that of a gate, such as squeeze-and-excite.
        let fits = if images { dims.len() == 4 && dims[2] * dims[3] > 1 } else { dims.len() >= 2 };
        let axis = if images { 1 } else { dims.len().saturating_sub(1) };
        let (input, width) = (first.input.clone(), first.depth);
        fits.then(|| Self { name: down.name.clone(), input, width, axis, ups, between, down: down.clone(), neurons })
    }

    /// Whether tokens are the pixels of images.
    pub fn reads_images(&self, graph: &Graph) -> bool {
        self.down.is_convolution(graph)
    }
}

impl Operand {
    /// A constant between the layers; `None` if it is neither a single number nor one for each neuron.
    /// Neurons are along the last axis, or those of channels of images.
    pub fn of(graph: &Graph, name: &str, neurons: usize, images: bool) -> Option<Self> {
        let tensor = &graph.initializers[graph.stored(name)?];
        let lengths = tensor.lengths();
        let axis = lengths.len().checked_sub(if images { 3 } else { 1 });
        match lengths.iter().filter(|&&length| length != 1).count() {
            0 if lengths.len() <= MOST_AXES => Some(Self::Single),
            1 if lengths.get(axis?) == Some(&neurons) => tensor.numbers().map(Self::PerNeuron),
            _ => None,
        }
    }
}

/// Whether a layer computes every token from that token alone.
fn is_per_token(graph: &Graph, layer: &Layer) -> bool {
    let node = &graph.nodes[layer.node];
    let all = |name: &str, value: i64| node.attribute(name).is_none_or(|a| a.ints.iter().all(|&int| int == value));
    let pointwise = layer.taps == 1 && layer.groups == 1 && all("strides", 1) && all("pads", 0);
    let has_bias = node.inputs.get(2).is_some_and(|name| !name.is_empty());
    let flat = layer.bias.is_none_or(|bias| {
        let lengths = graph.initializers[bias].lengths();
        lengths.iter().product::<usize>() == layer.filters && lengths.last() == Some(&layer.filters)
    });
    pointwise && has_bias == layer.bias.is_some() && flat
}
