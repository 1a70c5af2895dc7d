//! Experts foretold: a router is also applied one layer early.
//!
//! Where every layer has a router of its own, the numbers of its experts are known only when the layer begins. But what
//! a layer reads differs little from what the layer before it read, so its router names most of the same experts when
//! it is applied to that (Z. Fang et al., ["Fate"](https://arxiv.org/abs/2502.12224), 2025): early enough to read them
//! into memory while the layer before computes.
//!
//! ```text
//! x -> gate 1 -> TopK -> experts 1 -> y -> gate 2 -> TopK -> experts 2
//! x -> gate 2 -> TopK, after the first TopK                                 added: a forecast for experts 2
//! ```
//!
//! The copies are planned and run like other nodes, with the packed weights of the originals. Only the cache of experts
//! looks at what they compute.
//!
//! When: the number of an expert depends on nothing but the result of one product with constant weights, the gate, and
//! the gates of both layers read values of the same type and shape. Not in graphs with branches or loops.

use std::collections::HashMap;

use crate::graph::{Graph, Node, ValueId};
use crate::operator::{Operator, Packing};
use crate::ops::Op;
use crate::ops::routed::Routed;
use crate::plan::Forecast;

/// Most nodes of a router.
const MAX_NODES: usize = 64;

/// The nodes that choose the experts of some layers.
struct Router {
    /// The numbers of the experts, without reshapes after them.
    numbers: ValueId,
    /// Positions of the nodes, in order; the first is the gate.
    nodes: Vec<usize>,
    /// The layers, numbered in the order of the graph.
    layers: Vec<usize>,
}

/// Adds forecasts to a graph and to the packed weights of its nodes.
pub(crate) fn add_forecasts(graph: &mut Graph, packings: &mut Vec<Option<Packing>>) -> Vec<Forecast> {
    if packings.len() != graph.nodes.len() || graph.nodes.iter().any(|node| !node.blocks.is_empty()) {
        return Vec::new();
    }
    let routers = routers(graph);
    let mut forecasts = Vec::new();
    // Copies, in the order of the nodes after which they are inserted.
    let mut copies: Vec<(usize, Node, Option<Packing>)> = Vec::new();
    for pair in routers.windows(2) {
        let [before, router] = pair else { continue };
        let input = |router: &Router| graph.nodes.get(*router.nodes.first()?)?.inputs.first().copied();
        let (Some(early), Some(late), Some(&last)) = (input(before), input(router), before.nodes.last()) else {
            continue;
        };
        if early == late || graph.fact(early) != graph.fact(late) {
            continue;
        }
        let mut copied = HashMap::from([(late, early)]);
        for &at in &router.nodes {
            let (Some(node), Some(packing)) = (graph.nodes.get(at), packings.get(at)) else { break };
            let Ok(node) = node.copy() else { break };
            let inputs: Vec<ValueId> = node.inputs.iter().map(|id| copied.get(id).copied().unwrap_or(*id)).collect();
            let Ok(copy) = graph.make_node(format!("{}.ahead", node.name), node.op.clone(), &inputs) else { break };
            if let Some(output) = node.outputs.iter().position(|id| *id == router.numbers) {
                forecasts.push(Forecast { step: copy.name.clone(), output, layers: router.layers.clone() });
            }
            copied.extend(node.outputs.iter().copied().zip(copy.outputs.iter().copied()));
            copies.push((last, copy, packing.clone()));
        }
    }
    let mut copies = copies.into_iter().peekable();
    let nodes = std::mem::take(&mut graph.nodes);
    let held = std::mem::take(packings);
    for (at, (node, packing)) in nodes.into_iter().zip(held).enumerate() {
        graph.nodes.push(node);
        packings.push(packing);
        while let Some((_, node, packing)) = copies.next_if(|(after, ..)| *after == at) {
            graph.nodes.push(node);
            packings.push(packing);
        }
    }
    forecasts
}

/// The routers of a graph, in the order of their first layers.
fn routers(graph: &Graph) -> Vec<Router> {
    let mut writers = HashMap::new();
    for (at, node) in graph.nodes.iter().enumerate() {
        writers.extend(node.outputs.iter().map(|&id| (id, at)));
    }
    let mut routers: Vec<Router> = Vec::new();
    let layers = graph.nodes.iter().filter(|node| matches!(node.op, Op::Routed(_)));
    for (layer, node) in layers.enumerate() {
        let Some(&indices) = node.inputs.get(Routed::INDICES) else { continue };
        let numbers = source(graph, &writers, indices);
        if let Some(router) = routers.iter_mut().find(|router| router.numbers == numbers) {
            router.layers.push(layer);
        } else if let Some(nodes) = chain(graph, &writers, numbers) {
            routers.push(Router { numbers, nodes, layers: vec![layer] });
        }
    }
    routers
}

/// The value that this is a reshape of.
fn source(graph: &Graph, writers: &HashMap<ValueId, usize>, mut id: ValueId) -> ValueId {
    while let Some(node) = writers.get(&id).and_then(|&at| graph.nodes.get(at))
        && let Some(input) = node.op.alias(&graph.facts(&node.inputs)).and_then(|at| node.inputs.get(at))
    {
        id = *input;
    }
    id
}

/// The nodes between a gate and the numbers that depend on nothing else.
fn chain(graph: &Graph, writers: &HashMap<ValueId, usize>, numbers: ValueId) -> Option<Vec<usize>> {
    let (mut open, mut nodes, mut gate) = (vec![numbers], Vec::new(), None);
    while let Some(id) = open.pop() {
        let Some(&at) = writers.get(&id) else {
            if graph.inputs.contains(&id) {
                return None;
            }
            continue;
        };
        if nodes.contains(&at) {
            continue;
        }
        nodes.push(at);
        let node = graph.nodes.get(at).filter(|_| nodes.len() <= MAX_NODES)?;
        let (_, weights) = node.inputs.split_first()?;
        let constant = |id: &ValueId| !writers.contains_key(id) && !graph.inputs.contains(id);
        let macs = node.op.macs(&graph.facts(&node.inputs), &graph.facts(&node.outputs));
        if macs > 0 && weights.iter().all(constant) {
            if gate.replace(at).is_some() {
                return None;
            }
        } else {
            open.extend(&node.inputs);
        }
    }
    nodes.sort_unstable();
    (gate.is_some() && nodes.first() == gate.as_ref()).then_some(nodes)
}
