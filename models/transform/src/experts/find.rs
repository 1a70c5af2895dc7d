//! Layers of experts in a model: a router, a choice of the best, and constants that hold a part for each expert.
//!
//! ```text
//! tokens -> MatMul [-> Add] [-> Softmax] -> TopK -> indices -> Gather(constant [experts, ..])       any number of these
//! tokens -> MatMul [-> Add] -> com.microsoft MoE(constants [experts, ..])
//! ```

use std::collections::BTreeSet;

use skipstone::onnx::Imported;

use crate::blocks::{ARITHMETIC, UNARY};
use crate::editor::{Graph, Node};
use crate::error::{Error, Result};
use crate::layers::Layer;

/// Operators that keep the order of the scores.
const MONOTONIC: [&str; 5] = ["Softmax", "LogSoftmax", "Sigmoid", "Identity", "Softplus"];
/// Operators that only rearrange their first operand.
const REARRANGING: [&str; 8] = ["Reshape", "Squeeze", "Unsqueeze", "Identity", "Cast", "Flatten", "Expand", "Split"];

/// A router, and the layers that it serves.
#[derive(Clone, Debug)]
pub(super) struct Router {
    /// The name of its layer.
    pub name: String,
    /// Its scores `[.., experts]` before and after what keeps their order.
    pub scores: [String; 2],
    pub count: usize,
    /// Experts of a token.
    pub top: usize,
    /// Positions and axes of its own constants, along which there is a part for each expert.
    pub own: Vec<(usize, usize)>,
    /// Positions of constants with a part for each expert along the first axis.
    pub stacks: Vec<usize>,
    /// The networks of the experts, as far as their neurons were found.
    pub networks: Vec<Network>,
}

/// What an expert of a layer is: neurons, whose order does not matter.
#[derive(Clone, Debug)]
pub(super) struct Network {
    /// Stacks, and the axis along which they have a part for each neuron.
    pub parts: Vec<(usize, usize)>,
    pub neurons: usize,
}

/// A node that chooses experts by a router's scores.
struct Use {
    node: usize,
    scores: String,
    top: usize,
    stacks: Vec<usize>,
    networks: Vec<Network>,
}

/// The routers of a graph, in order.
///
/// # Errors
/// Experts that are written in a way that is not understood.
pub(super) fn routers(graph: &Graph, known: &Imported) -> Result<Vec<Router>> {
    let layers = Layer::all(graph);
    let mut routers: Vec<(usize, Router)> = Vec::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        let found = match (node.op_type.as_str(), node.domain.as_str()) {
            ("TopK", _) if node.is("TopK") => chosen_by_top_k(graph, known, at)?,
            ("MoE", "com.microsoft") => Some(contributed(graph, known, at)?),
            ("QMoE", "com.microsoft") => {
                return Err(unlike(node, "its experts are quantized; do this before quantizing"));
            }
            _ => None,
        };
        let Some(found) = found else { continue };
        let (layer, mut router) = source(graph, &layers, &found)?;
        match routers.iter_mut().find(|(of, _)| *of == layer) {
            Some((_, held)) => {
                held.top = held.top.max(found.top);
                held.stacks.extend(found.stacks);
                held.networks.extend(found.networks);
            }
            None => {
                (router.stacks, router.networks) = (found.stacks, found.networks);
                routers.push((layer, router));
            }
        }
    }
    let routers: Vec<Router> = routers.into_iter().map(|(_, router)| router).collect();
    for router in &routers {
        let distinct: BTreeSet<usize> = router.stacks.iter().copied().collect();
        let fits = |&stack: &usize| graph.initializers[stack].lengths().first() == Some(&router.count);
        if distinct.len() != router.stacks.len() || !router.stacks.iter().all(fits) {
            let reason = format!("{}: its experts share weights, or are not as many as its scores", router.name);
            return Err(Error::Unsupported(reason));
        }
    }
    Ok(routers)
}

fn unlike(node: &Node, reason: &str) -> Error {
    Error::Unsupported(format!("{}: {reason}", node.label()))
}

/// The router layer that scores come from, and the router without its experts.
fn source(graph: &Graph, layers: &[Layer], of: &Use) -> Result<(usize, Router)> {
    let user = &graph.nodes[of.node];
    let odd = || unlike(user, "its scores are not those of a layer, with a bias and a softmax or sigmoid at most");
    let (mut own, mut value, mut plain) = (Vec::new(), of.scores.clone(), None::<String>);
    loop {
        if let Some(reader) = other_reader(graph, &value) {
            return Err(unlike(reader, "reads the scores of a router, so that experts cannot be removed"));
        }
        let at = graph.writer(&value).ok_or_else(odd)?;
        let node = &graph.nodes[at];
        if let Some(layer) = layers.iter().find(|layer| layer.node == at) {
            own.push((layer.weights, layer.axes[0]));
            if let Some(bias) = layer.bias {
                own.push((bias, graph.initializers[bias].dims.len().saturating_sub(1)));
            }
            let single = own.iter().all(|&(at, axis)| {
                let tensor = &graph.initializers[at];
                graph.readers(&tensor.name) == 1 && tensor.lengths().get(axis) == Some(&layer.filters)
            });
            if !single || layer.is_convolution(graph) || layer.bias.is_some() != (node.inputs.len() > 2) {
                return Err(odd());
            }
            let scores = [plain.unwrap_or(value), of.scores.clone()];
            let (name, count, top) = (layer.name.clone(), layer.filters, of.top);
            return Ok((at, Router { name, scores, count, top, own, stacks: Vec::new(), networks: Vec::new() }));
        }
        if MONOTONIC.iter().any(|op| node.is(op)) {
            value.clone_from(&node.inputs[0]);
            plain = None;
            continue;
        }
        let stored: Vec<Option<usize>> = node.inputs.iter().map(|name| graph.stored(name)).collect();
        let (bias, next) = match *stored.as_slice() {
            [None, Some(bias)] if node.is("Add") => (bias, 0),
            [Some(bias), None] if node.is("Add") => (bias, 1),
            _ => return Err(odd()),
        };
        own.push((bias, graph.initializers[bias].dims.len().saturating_sub(1)));
        plain.get_or_insert(value);
        value = node.inputs[next].clone();
    }
}

/// A node that needs the scores of all experts, other than to choose among them.
fn other_reader<'a>(graph: &'a Graph, value: &str) -> Option<&'a Node> {
    let known = |node: &Node| {
        let chooses = node.is("TopK") || node.is("GatherElements") || node.op_type == "MoE";
        let with_constant = node.is("Add") && node.inputs.iter().any(|name| graph.stored(name).is_some());
        chooses || with_constant || MONOTONIC.iter().any(|op| node.is(op))
    };
    graph.nodes.iter().find(|node| node.inputs.iter().any(|name| name == value) && !known(node))
}

/// A TopK whose indices choose parts of constants; `None` if they choose nothing.
fn chosen_by_top_k(graph: &Graph, known: &Imported, at: usize) -> Result<Option<Use>> {
    let node = &graph.nodes[at];
    let [scores, top] = node.inputs.as_slice() else { return Ok(None) };
    let Some(indices) = node.outputs.get(1).filter(|name| !name.is_empty()) else { return Ok(None) };
    let (mut open, mut seen, mut gathers) = (vec![indices.clone()], BTreeSet::new(), Vec::new());
    let mut stranger = None;
    while let Some(value) = open.pop() {
        if !seen.insert(value.clone()) {
            continue;
        }
        if graph.outputs.iter().any(|port| port.name == value) {
            stranger = Some(at);
        }
        for (reader, node) in graph.nodes.iter().enumerate() {
            for (operand, _) in node.inputs.iter().enumerate().filter(|(_, name)| **name == value) {
                let first_axis = node.attribute("axis").is_none_or(|axis| axis.int == 0);
                if node.is("Gather") && operand == 1 && first_axis && graph.stored(&node.inputs[0]).is_some() {
                    gathers.push(reader);
                } else if operand == 0 && (node.is("Gather") || REARRANGING.iter().any(|op| node.is(op))) {
                    open.extend(node.outputs.iter().cloned());
                } else if !(node.is("GatherElements") && operand == 1) {
                    stranger = Some(reader);
                }
            }
        }
    }
    if gathers.is_empty() {
        return Ok(None);
    }
    if let Some(stranger) = stranger {
        let reason = "needs the numbers of the chosen experts; only experts whose weights are gathered are understood";
        return Err(unlike(&graph.nodes[stranger], reason));
    }
    let rank = known.values.get(scores).map_or(0, |&id| known.graph.fact(id).shape.dims().len()) as i64;
    let axis = node.attribute("axis").map_or(-1, |axis| axis.int);
    let top = graph.initializer(top).and_then(|top| top.ints()).and_then(|top| usize::try_from(*top.first()?).ok());
    let Some(top) = top.filter(|_| axis == -1 || axis == rank - 1) else {
        return Err(unlike(node, "it does not choose a constant number of experts along the last axis"));
    };
    let mut stacks = BTreeSet::new();
    for &gather in &gathers {
        let data = &graph.nodes[gather].inputs[0];
        let reads = gathers.iter().filter(|&&at| graph.nodes[at].inputs[0] == *data).count();
        let stack = graph.stored(data).filter(|_| graph.readers(data) == reads);
        let tensor = stack.map(|stack| &graph.initializers[stack]);
        let alone = tensor.is_some_and(|tensor| tensor.name == *data || graph.readers(&tensor.name) == 1);
        match stack.filter(|_| alone) {
            Some(stack) => stacks.insert(stack),
            None => return Err(unlike(&graph.nodes[gather], "other nodes read the weights of its experts too")),
        };
    }
    let networks = networks(graph, &gathers);
    Ok(Some(Use { node: at, scores: scores.clone(), top, stacks: stacks.into_iter().collect(), networks }))
}

/// com.microsoft MoE.
fn contributed(graph: &Graph, known: &Imported, at: usize) -> Result<Use> {
    let node = &graph.nodes[at];
    let stack = |operand: usize| -> Result<Option<usize>> {
        let Some(name) = node.inputs.get(operand).filter(|name| !name.is_empty()) else { return Ok(None) };
        let stored = graph
            .stored(name)
            .filter(|&at| graph.readers(name) == 1 && graph.readers(&graph.initializers[at].name) == 1);
        stored.map(Some).ok_or_else(|| unlike(node, "other nodes read the weights of its experts too, or compute them"))
    };
    let held: Vec<Option<usize>> = (2..8).map(stack).collect::<Result<_>>()?;
    let int = |name: &str, default: i64| node.attribute(name).map_or(default, |attribute| attribute.int);
    let mut networks = Vec::new();
    if let (Some(up), Some(down), 0) = (held[0], held[2], int("swiglu_fusion", 0)) {
        let dims = |at: usize| graph.initializers[at].lengths();
        let width = known.values.get(&node.inputs[0]).and_then(|&id| known.graph.fact(id).shape.dims().last().copied());
        // Outputs first, unless an old file has [experts, inputs, outputs].
        let (first, second) = (dims(up), dims(down));
        let last = |dims: &[usize], axis: usize| dims.get(axis).copied();
        let old = last(&first, 1) == width && last(&first, 2) != width && last(&second, 2) == width;
        let [out, inner] = if old { [2, 1] } else { [1, 2] };
        let both = [(held[0], out), (held[1], 1), (held[4], out), (held[5], 1), (held[2], inner)];
        let parts: Vec<(usize, usize)> = both.iter().filter_map(|&(at, axis)| Some((at?, axis))).collect();
        networks.extend(network(graph, parts));
    }
    let scores = node.inputs.get(1).cloned().unwrap_or_default();
    let top = usize::try_from(int("k", 1)).unwrap_or(1);
    Ok(Use { node: at, scores, top, stacks: held.into_iter().flatten().collect(), networks })
}

/// Parts that agree on the number of neurons.
fn network(graph: &Graph, parts: Vec<(usize, usize)>) -> Option<Network> {
    let length = |&(at, axis): &(usize, usize)| graph.initializers[at].lengths().get(axis).copied();
    let neurons = length(parts.first()?)?;
    parts.iter().all(|part| length(part) == Some(neurons)).then_some(Network { parts, neurons })
}

/// A product with gathered matrices.
struct Product {
    stack: usize,
    /// The axes of the stack along which there are its inputs and outputs.
    axes: [usize; 2],
    /// The rows that it multiplies.
    rows: String,
    output: String,
}

/// The networks whose neurons lie between two products with gathered matrices.
fn networks(graph: &Graph, gathers: &[usize]) -> Vec<Network> {
    let products: Vec<Product> = graph.nodes.iter().filter_map(|node| product(graph, gathers, node)).collect();
    let mut networks: Vec<Network> = Vec::new();
    for down in &products {
        let Some(mut parts) = before(graph, gathers, &products, &down.rows) else { continue };
        parts.insert((down.stack, down.axes[0]));
        let found = network(graph, parts.into_iter().collect());
        // For each of a token's experts, an exporter may repeat the products.
        networks.extend(found.filter(|found| networks.iter().all(|other| other.parts != found.parts)));
    }
    networks
}

fn product(graph: &Graph, gathers: &[usize], node: &Node) -> Option<Product> {
    let [a, b] = node.inputs.as_slice() else { return None };
    let matrices = |name: &String| {
        let (mut name, mut turned) = (name.clone(), false);
        loop {
            let at = graph.writer(&name)?;
            let writer = &graph.nodes[at];
            if gathers.contains(&at) {
                let stack = graph.stored(&writer.inputs[0])?;
                return (graph.initializers[stack].dims.len() == 3).then_some((stack, turned));
            }
            if writer.is("Transpose") {
                let perm = writer.attribute("perm").map(|perm| perm.ints.clone())?;
                let rank = perm.len() as i64;
                let swaps = (0..rank - 2).chain([rank - 1, rank - 2]);
                turned = swaps.eq(perm.iter().copied()).then_some(!turned)?;
            } else if !REARRANGING.iter().any(|op| writer.is(op)) {
                return None;
            }
            name.clone_from(&writer.inputs[0]);
        }
    };
    if !node.is("MatMul") {
        return None;
    }
    let of = |(stack, turned): (usize, bool), plain: [usize; 2], rows: &String| {
        let axes = if turned { [plain[1], plain[0]] } else { plain };
        Product { stack, axes, rows: rows.clone(), output: node.outputs[0].clone() }
    };
    match (matrices(a), matrices(b)) {
        (None, Some(found)) => Some(of(found, [1, 2], a)),
        (Some(found), None) => Some(of(found, [2, 1], b)),
        _ => None,
    }
}

/// The parts that compute rows, if these are an element-wise function of products with gathered matrices, and of constants of
/// each expert.
fn before(graph: &Graph, gathers: &[usize], products: &[Product], rows: &str) -> Option<BTreeSet<(usize, usize)>> {
    let (mut open, mut seen, mut parts) = (vec![rows.to_owned()], BTreeSet::new(), BTreeSet::new());
    let mut computed = false;
    while let Some(value) = open.pop() {
        if !seen.insert(value.clone()) {
            continue;
        }
        if let Some(product) = products.iter().find(|product| product.output == value) {
            parts.insert((product.stack, product.axes[1]));
            computed = true;
            continue;
        }
        let at = graph.writer(&value)?;
        let node = &graph.nodes[at];
        if gathers.contains(&at) {
            let stack = graph.stored(&node.inputs[0])?;
            parts.insert((stack, graph.initializers[stack].dims.len().checked_sub(1).filter(|&axis| axis == 1)?));
            continue;
        }
        let rearranges = REARRANGING.iter().any(|op| node.is(op)) && node.outputs.len() == 1;
        if rearranges {
            open.push(node.inputs[0].clone());
            continue;
        }
        if !UNARY.iter().chain(&ARITHMETIC).any(|op| node.is(op)) {
            return None;
        }
        for input in node.inputs.iter().filter(|input| !input.is_empty()) {
            match graph.stored(input) {
                // The same for all neurons.
                Some(stored) if graph.initializers[stored].lengths().iter().all(|&length| length == 1) => {}
                Some(_) => return None,
                None => open.push(input.clone()),
            }
        }
    }
    computed.then_some(parts)
}
