//! Experts in standard ONNX: each token's matrices are gathered for a batched product, which the runtime computes without a
//! copy, each expert's matrices once for all of its tokens.
//!
//! ```text
//! tokens [T, width] -> Gemm(router) -> TopK -> Reshape              indices [T * top]
//! tokens -> Expand  -> Reshape                                      rows [T * top, 1, width]
//! rows -> MatMul(Gather(up)) -> activation -> MatMul(Gather(down))  [T * top, 1, outputs]
//!      -> Reshape -> ReduceSum                                      [T, outputs]
//! ```

use std::collections::HashMap;

use super::plan::Plan;
use crate::blocks::{Block, Operand};
use crate::editor::{Attribute, Editor, FLOAT, HALF, Node, Tensor};
use crate::error::{Error, Result};
use crate::fit::Stitch;
use crate::layers::Layer;

/// The tokens' experts, as a value of the graph.
pub(super) struct Routing {
    indices: String,
}

/// The nodes that take the place of a block, and their routing. A routing that is given is used instead of the router.
pub(super) fn write(
    editor: &mut Editor,
    block: &Block,
    plan: &Plan,
    router: &Stitch,
    routing: Option<Routing>,
) -> Result<(Vec<Node>, Routing)> {
    let images = block.reads_images(&editor.graph);
    let mut out = Writer { base: block.down.output.clone(), editor, nodes: Vec::new() };
    // A row per token.
    let mut given = block.input.clone();
    if images {
        given = out.node("Transpose", &[&given], "pixels", vec![Attribute::of_ints("perm", &[0, 2, 3, 1])]);
    }
    let is_flat = block.axis == 1 && !images;
    let tokens = if is_flat { given.clone() } else { out.reshape(&given, &[-1, block.width as i64], "tokens") };
    let indices = match routing {
        Some(routing) => routing.indices,
        None => out.route(&tokens, router, [block.width, plan.experts.len()], plan.top),
    };
    let mut sum = out.experts(block, plan, &tokens, &indices)?;
    if !plan.shared.is_empty() {
        let shared = out.shared(block, &plan.shared, &tokens)?;
        sum = out.node("Add", &[&sum, &shared], "with_shared", Vec::new());
    }
    let mut constant = plan.constant.clone();
    if let Some(bias) = bias(&out, &block.down)? {
        constant.iter_mut().zip(&bias).for_each(|(sum, bias)| *sum += bias);
    }
    if constant.iter().any(|&value| value != 0.0) {
        let constant = out.floats("constant", &[constant.len()], &constant, FLOAT);
        sum = out.node("Add", &[&sum, &constant], "sum", Vec::new());
    }
    if !is_flat {
        sum = out.shaped_like(&sum, &given, block);
    }
    if images {
        out.node("Transpose", &[&sum], "image", vec![Attribute::of_ints("perm", &[0, 3, 1, 2])]);
    }
    let Writer { mut nodes, .. } = out;
    if let Some(last) = nodes.last_mut() {
        last.outputs[0].clone_from(&block.down.output);
    }
    Ok((nodes, Routing { indices }))
}

/// The bias of a layer.
fn bias(out: &Writer<'_>, layer: &Layer) -> Result<Option<Vec<f32>>> {
    let unlike = || Error::Unsupported(format!("{}: its bias is neither f32 nor f16", layer.name));
    layer.bias.map(|at| out.editor.graph.initializers[at].numbers().ok_or_else(unlike)).transpose()
}

/// Where the neurons of a copy of the block are.
enum Place<'a> {
    /// In constants gathered for each row.
    Experts { members: &'a [Vec<usize>], indices: &'a str },
    /// In a constant that all tokens use.
    Shared(&'a [usize]),
}

/// New nodes and constants, named after the value that they compute in the end.
struct Writer<'a> {
    base: String,
    editor: &'a mut Editor,
    nodes: Vec<Node>,
}

impl Writer<'_> {
    fn node(&mut self, op: &str, inputs: &[&str], suffix: &str, attributes: Vec<Attribute>) -> String {
        let output = self.editor.fresh(&self.base, suffix);
        self.nodes.push(Node::new(op, inputs, &output, attributes));
        output
    }

    /// A constant, stored as f32, or as f16 where its source was.
    fn floats(&mut self, suffix: &str, dims: &[usize], values: &[f32], kind: i64) -> String {
        let name = self.editor.fresh(&self.base, suffix);
        let mut tensor = Tensor::new(&name, dims, kind, &[]);
        tensor.set_numbers(values);
        self.editor.graph.initializers.push(tensor);
        if kind != HALF {
            return name;
        }
        self.node("Cast", &[&name], &format!("{suffix}_cast"), vec![Attribute::of_int("to", FLOAT)])
    }

    fn ints(&mut self, suffix: &str, values: &[i64]) -> String {
        let name = self.editor.fresh(&self.base, suffix);
        self.editor.graph.initializers.push(Tensor::of_ints(&name, &[values.len()], values));
        name
    }

    fn reshape(&mut self, x: &str, dims: &[i64], suffix: &str) -> String {
        let dims = self.ints(&format!("{suffix}_dims"), dims);
        self.node("Reshape", &[x, &dims], suffix, Vec::new())
    }

    /// The indices of every token's experts.
    fn route(&mut self, tokens: &str, router: &Stitch, dims: [usize; 2], top: usize) -> String {
        let weights = self.floats("router", &dims, &router.weights, FLOAT);
        let bias = self.floats("router_bias", &dims[1..], &router.bias, FLOAT);
        let logits = self.node("Gemm", &[tokens, &weights, &bias], "logits", Vec::new());
        let top = self.ints("top", &[top as i64]);
        let values = self.node("TopK", &[&logits, &top], "best", Vec::new());
        let indices = self.editor.fresh(&values, "indices");
        if let Some(node) = self.nodes.last_mut() {
            node.outputs.push(indices.clone());
        }
        self.reshape(&indices, &[-1], "experts")
    }

    /// The sum of every token's experts.
    fn experts(&mut self, block: &Block, plan: &Plan, tokens: &str, indices: &str) -> Result<String> {
        let width = block.width as i64;
        let mut rows = self.reshape(tokens, &[-1, 1, width], "rows");
        if plan.top > 1 {
            let dims = self.ints("copies", &[1, plan.top as i64, 1]);
            rows = self.node("Expand", &[&rows, &dims], "copied", Vec::new());
            rows = self.reshape(&rows, &[-1, 1, width], "of_experts");
        }
        let place = Place::Experts { members: &plan.experts, indices };
        let hidden = self.hidden(block, &place, &rows)?;
        let mut y = self.down(block, &place, &hidden);
        if plan.means.iter().flatten().any(|&mean| mean != 0.0) {
            let means: Vec<f32> = plan.means.iter().flatten().map(|mean| -mean).collect();
            let means = self.floats("left_out", &[plan.means.len(), block.down.filters], &means, FLOAT);
            let means = self.gathered(&means, indices, block.down.filters, "left_out_of");
            y = self.node("Add", &[&y, &means], "around", Vec::new());
        }
        let outputs = block.down.filters as i64;
        if plan.top == 1 {
            return Ok(self.reshape(&y, &[-1, outputs], "chosen"));
        }
        let y = self.reshape(&y, &[-1, plan.top as i64, outputs], "chosen");
        let axes = self.ints("axes", &[1]);
        Ok(self.node("ReduceSum", &[&y, &axes], "added", vec![Attribute::of_int("keepdims", 0)]))
    }

    /// What the shared neurons add.
    fn shared(&mut self, block: &Block, neurons: &[usize], tokens: &str) -> Result<String> {
        let place = Place::Shared(neurons);
        let hidden = self.hidden(block, &place, tokens)?;
        Ok(self.down(block, &place, &hidden))
    }

    /// Vectors of some length, one for each row `[rows, 1, length]`.
    fn gathered(&mut self, vectors: &str, indices: &str, length: usize, suffix: &str) -> String {
        let rows = self.node("Gather", &[vectors, indices], suffix, Vec::new());
        self.reshape(&rows, &[-1, 1, length as i64], &format!("{suffix}_rows"))
    }

    /// Numbers of the neurons, as an operand beside their values.
    fn per_neuron(&mut self, place: &Place<'_>, values: &[f32], kind: i64, suffix: &str) -> String {
        match place {
            Place::Shared(neurons) => {
                let values: Vec<f32> = neurons.iter().map(|&neuron| values[neuron]).collect();
                self.floats(suffix, &[values.len()], &values, kind)
            }
            Place::Experts { members, indices } => {
                let taken: Vec<f32> = members.iter().flatten().map(|&neuron| values[neuron]).collect();
                let each = taken.len() / members.len();
                let stacked = self.floats(suffix, &[members.len(), each], &taken, kind);
                self.gathered(&stacked, indices, each, &format!("{suffix}_of"))
            }
        }
    }

    /// A product with the weights of some neurons: `part` gives those of one expert.
    fn product(
        &mut self,
        place: &Place<'_>,
        x: &str,
        kind: i64,
        suffix: &str,
        dims: impl Fn(usize) -> [usize; 2],
        part: impl Fn(&[usize]) -> Vec<f32>,
    ) -> String {
        let weights = match place {
            Place::Shared(neurons) => self.floats(suffix, &dims(neurons.len()), &part(neurons), kind),
            Place::Experts { members, indices } => {
                let [rows, columns] = dims(members[0].len());
                let all: Vec<f32> = members.iter().flat_map(|neurons| part(neurons)).collect();
                let stacked = self.floats(suffix, &[members.len(), rows, columns], &all, kind);
                self.node("Gather", &[&stacked, indices], &format!("{suffix}_of"), Vec::new())
            }
        };
        self.node("MatMul", &[x, &weights], &format!("{suffix}_product"), Vec::new())
    }

    /// The neurons' values, which the last layer reads.
    fn hidden(&mut self, block: &Block, place: &Place<'_>, x: &str) -> Result<String> {
        let prefix = if matches!(place, Place::Shared(_)) { "shared_" } else { "" };
        let mut renamed: HashMap<String, String> = HashMap::new();
        for (at, up) in block.ups.iter().enumerate() {
            let graph = &self.editor.graph;
            let (matrix, kind) = (up.matrix(graph), graph.initializers[up.weights].data_type);
            let width = block.width;
            let suffix = format!("{prefix}up{at}");
            let part = |neurons: &[usize]| -> Vec<f32> {
                (0..width)
                    .flat_map(|i| neurons.iter().map(move |&neuron| (neuron, i)))
                    .map(|(n, i)| matrix[n * width + i])
                    .collect()
            };
            let mut y = self.product(place, x, kind, &suffix, |neurons| [width, neurons], part);
            if let Some(values) = bias(self, up)? {
                let kind = up.bias.map_or(FLOAT, |at| self.editor.graph.initializers[at].data_type);
                let values = self.per_neuron(place, &values, kind, &format!("{suffix}_bias"));
                y = self.node("Add", &[&y, &values], &format!("{suffix}_sum"), Vec::new());
            }
            renamed.insert(up.output.clone(), y);
        }
        for &at in &block.between {
            let mut node = self.editor.graph.nodes[at].clone();
            for input in &mut node.inputs {
                if let Some(name) = renamed.get(input) {
                    input.clone_from(name);
                } else if !input.is_empty()
                    && let Some(Operand::PerNeuron(values)) =
                        Operand::of(&self.editor.graph, input, block.neurons, block.reads_images(&self.editor.graph))
                {
                    let stored = self.editor.graph.stored(input);
                    let kind = stored.map_or(FLOAT, |at| self.editor.graph.initializers[at].data_type);
                    *input = self.per_neuron(place, &values, kind, &format!("{prefix}of_neurons"));
                }
            }
            let output = self.editor.fresh(&self.base, &format!("{prefix}hidden"));
            renamed.insert(node.outputs[0].clone(), output.clone());
            (node.name, node.outputs) = (output.clone(), vec![output]);
            self.nodes.push(node);
        }
        renamed.remove(&block.down.input).ok_or_else(crate::editor::damaged)
    }

    /// The product with the last layer.
    fn down(&mut self, block: &Block, place: &Place<'_>, hidden: &str) -> String {
        let graph = &self.editor.graph;
        let (matrix, kind) = (block.down.matrix(graph), graph.initializers[block.down.weights].data_type);
        let (neurons_all, outputs) = (block.neurons, block.down.filters);
        let part = |neurons: &[usize]| -> Vec<f32> {
            let of = |neuron: usize| (0..outputs).map(move |output| (output, neuron));
            neurons.iter().flat_map(|&neuron| of(neuron)).map(|(o, n)| matrix[o * neurons_all + n]).collect()
        };
        let suffix = if matches!(place, Place::Shared(_)) { "shared_down" } else { "down" };
        self.product(place, hidden, kind, suffix, |neurons| [neurons, outputs], part)
    }

    /// Rows in the shape of the value that they were computed from, but for the number of features.
    fn shaped_like(&mut self, rows: &str, like: &str, block: &Block) -> String {
        let mut dims = self.node("Shape", &[like], "dims", Vec::new());
        if block.down.filters != block.width {
            let [start, end] = [("start", 0), ("end", -1)].map(|(suffix, at)| self.ints(suffix, &[at]));
            let outer = self.node("Slice", &[&dims, &start, &end], "outer", Vec::new());
            let features = self.ints("features", &[block.down.filters as i64]);
            dims = self.node("Concat", &[&outer, &features], "new_dims", vec![Attribute::of_int("axis", 0)]);
        }
        self.node("Reshape", &[rows, &dims], "shaped", Vec::new())
    }
}
