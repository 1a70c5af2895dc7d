//! Zero channels: removes filters that were pruned to zero from a network.
//!
//! ```text
//! Conv(8 filters, 3 of zeros) -> Relu -> Conv     =>    Conv(5 filters) -> Relu -> Conv'
//! ```
//!
//! A filter of zeros outputs one value everywhere, its bias, which is followed through the graph (`uniform`). If it
//! arrives at the next convolution or matrix product, the channel is not needed there if one of these holds:
//!
//! - the value is 0, or the reader's own weights for the channel are (whatever the value);
//! - the reader has no padding: the value contributes equally to every sum, and is added to the bias. With padding the
//!   contribution would be missing at the edges, and the channel stays.
//!
//! A channel that no reader needs is removed from every value that has it (see `channels`) and from all weights that
//! write and read it. When: it is not read by an output of the graph or by an operator that is not understood; at least
//! one channel is kept in any case. The removal can leave zero weights before and after it, so the pass repeats a few
//! times.

use super::super::{Graph, Node, Removed, ValueId};
use super::channels::{Channels, Track};
use super::filters::{Filters, is_zero, share};
use super::uniform::Uniform;
use crate::error::{OpError, Result};
use crate::operator::Semantics;
use crate::operator::axes::{Elements, Left, Link};
use crate::reserve;
use crate::tensor::{Fact, Peek, Shape, Tensor};

/// How often the pass repeats. A pruned network needs two or three rounds.
const ROUNDS: usize = 8;

/// Which part of an axis is followed if a reshape splits it: heads, or heads after queries, keys and values.
const CHOICES: usize = 2;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    if !graph.nodes.iter().any(|node| is_pruned(graph, node)) {
        return Ok(());
    }
    let before = sizes(graph)?;
    for _ in 0..ROUNDS {
        let mut found = false;
        for choice in 0..CHOICES {
            let channels = Channels::new(graph, choice)?;
            if choice > 0 && !channels.ambiguous {
                break;
            }
            if let Some(cuts) = Cuts::find(graph, channels) {
                cuts.apply(graph)?;
                found = true;
            }
        }
        if !found {
            break;
        }
    }
    for (index, (before, after)) in before.into_iter().zip(sizes(graph)?).enumerate() {
        if let (Some(before), Some(after)) = (before, after)
            && before != after
        {
            let node = graph.nodes[index].name.clone();
            let removed = Removed { node, filters: [before[0], after[0]], channels: [before[1], after[1]] };
            reserve::push(&mut graph.removed, removed)?;
        }
    }
    Ok(())
}

/// Whether a node can be the first with a channel that is uniform or not needed. Hardly a network has one, and following
/// the channels of the others would take longer than all other passes.
fn is_pruned(graph: &Graph, node: &Node) -> bool {
    if let Some(filters) = Filters::of(graph, node) {
        let is_zero = |filter: usize, depth: usize| is_zero(filters.window(filter, depth));
        return (0..filters.count).any(|filter| (0..filters.depth).all(|depth| is_zero(filter, depth)))
            || (0..filters.depth).any(|depth| (0..filters.count).all(|filter| is_zero(filter, depth)));
    }
    let constants = node.inputs.iter().filter_map(|&id| graph.constant(id)?.peek::<f32>());
    let has_zero = |constant: Peek<'_, f32>| constant.iter().any(|element| element == 0.0);
    // One uniform operand is enough for what moves elements, and for products with zeros.
    let mut constants = constants.peekable();
    constants.peek().is_some()
        && (node.op.axes(&graph.facts(&node.inputs)).elements == Elements::Moved || constants.any(has_zero))
}

/// Filters and input channels of every node with constant weights.
fn sizes(graph: &Graph) -> Result<Vec<Option<[usize; 2]>>> {
    let size = |filters: Filters<'_>| [filters.count, filters.groups * filters.depth];
    Ok(reserve::list(graph.nodes.iter().map(|node| Filters::of(graph, node).map(size)))?)
}

/// The channels to remove from a graph.
struct Cuts {
    channels: Channels,
    uniform: Uniform,
    /// For each channel, whether it is removed.
    removed: Vec<bool>,
}

impl Cuts {
    /// `None` if every channel is needed, or if there is no memory for the search.
    fn find(graph: &Graph, channels: Channels) -> Option<Self> {
        let uniform = Uniform::new(graph, &channels).ok()?;
        // A channel is removed if filters read it, and none needs it.
        let unread = || reserve::copies(false, channels.elements()).ok();
        let (mut read, mut needed) = (unread()?, unread()?);
        for node in &graph.nodes {
            let (Some(filters), Some(&x)) = (Filters::of(graph, node), node.inputs.first()) else { continue };
            let Some(track) = channels.track(x).filter(|_| filters.groups == 1) else { continue };
            for depth in 0..track.len {
                let channel = channels.channel(track, depth);
                read[channel] = true;
                needed[channel] = needed[channel]
                    || channels.is_bound(channel)
                    || !is_needless(&filters, uniform.get(x, track.axis, depth), depth);
            }
        }
        let mut removed = reserve::list(read.iter().zip(&needed).map(|(&read, &needed)| read && !needed)).ok()?;
        // Every value keeps at least one channel.
        for track in (0..graph.values().len()).filter_map(|id| channels.track(ValueId(id))) {
            if track.len > 0 && (0..track.len).all(|i| removed[channels.channel(track, i)]) {
                removed[channels.channel(track, 0)] = false;
            }
        }
        removed.contains(&true).then_some(Self { channels, uniform, removed })
    }

    fn removed(&self, track: Track, i: usize) -> bool {
        self.removed[self.channels.channel(track, i)]
    }

    /// The followed axis of a value and its remaining indices, if something is removed.
    fn left(&self, id: ValueId) -> Result<Option<(Track, Vec<usize>)>, OpError> {
        let Some(track) = self.channels.track(id) else { return Ok(None) };
        let left = reserve::list((0..track.len).filter(|&i| !self.removed(track, i)))?;
        Ok((left.len() < track.len).then_some((track, left)))
    }

    fn apply(&self, graph: &mut Graph) -> Result<()> {
        for index in 0..graph.nodes.len() {
            let node = graph.nodes[index].copy()?;
            let name = node.name.clone();
            graph.nodes[index] = self.cut(graph, node).map_err(|e| e.at(&name))?;
        }
        for index in 0..graph.nodes.len() {
            let node = &graph.nodes[index];
            let facts = graph.infer(node)?;
            for (id, fact) in node.outputs.clone().into_iter().zip(facts) {
                graph.values[id.0].fact = fact;
            }
        }
        Ok(())
    }

    /// A node without the removed channels. The graph's facts are still the original ones.
    fn cut(&self, graph: &mut Graph, mut node: Node) -> Result<Node, OpError> {
        let facts = graph.facts(&node.inputs);
        let mut links = node.op.axes(&facts).links;
        let before = node.inputs.clone();
        self.cut_depth(graph, &mut node)?;
        if let (true, Some(filters)) = (node.inputs.len() > before.len(), Filters::of(graph, &node)) {
            links.push(Link::same(Filters::BIAS, 0, filters.axis));
        }
        let &[y] = node.outputs.as_slice() else { return Ok(node) };
        let Some((to, left)) = self.left(y)? else { return Ok(node) };
        let links: Vec<Link> = links.into_iter().filter(|link| link.to == to.axis).collect();
        for link in &links {
            let Some(id) = node.inputs.get(link.operand).copied() else { continue };
            if let Some(constant) = graph.constant(id).cloned() {
                let remaining = self.remaining(link, constant.shape().get(link.from).copied().unwrap_or(0), to)?;
                let cut = take(&constant, link.from, &remaining)?;
                node.inputs[link.operand] = graph.add_constant(graph.value(id).name.clone(), cut)?;
            }
        }
        let to = Left { axis: to.axis, of: to.len, indices: &left };
        let tracked = links.iter().filter_map(|link| {
            let id = *before.get(link.operand)?;
            self.channels.track(id).filter(|track| track.axis == link.from).map(|_| id)
        });
        let mut from = None;
        for id in tracked {
            from = self.left(id)?;
            if from.is_some() {
                break;
            }
        }
        let from = match &from {
            Some((track, left)) => Left { axis: track.axis, of: track.len, indices: left },
            None => to,
        };
        node.op.narrow(from, to);
        Ok(node)
    }

    /// The remaining indices of `len` elements of a constant that are linked to the axis `to`.
    fn remaining(&self, link: &Link, len: usize, to: Track) -> Result<Vec<usize>, OpError> {
        let mut gone = reserve::copies(false, len.max(to.len))?;
        for part in (0..to.len).filter(|&j| self.removed(to, j)).filter_map(|j| link.part_of_result(j)) {
            if let Some(gone) = gone.get_mut(part) {
                *gone = true;
            }
        }
        let left = |&i: &usize| link.part_of_operand(i).and_then(|part| gone.get(part)) != Some(&true);
        Ok(reserve::list((0..len).filter(left))?)
    }

    /// Removes the weights that read removed channels; their contribution to every sum is added to the bias.
    fn cut_depth(&self, graph: &mut Graph, node: &mut Node) -> Result<(), OpError> {
        let Some(filters) = Filters::of(graph, node).filter(|filters| filters.groups == 1) else { return Ok(()) };
        let Some(&x) = node.inputs.first() else { return Ok(()) };
        let Some((track, left)) = self.left(x)? else { return Ok(()) };
        let removed = (0..track.len).filter(|&depth| self.removed(track, depth));
        let gone = reserve::list(removed.filter_map(|depth| {
            let value = self.uniform.get(x, track.axis, depth).filter(|&value| value != 0.0)?;
            Some((depth, value))
        }))?;
        let bias = reserve::list((0..filters.count).map(|filter| {
            let shares = gone.iter().map(|&(depth, value)| share(filters.window(filter, depth), value));
            (f64::from(filters.bias(filter)) + shares.sum::<f64>()) as f32
        }))?;
        let weights = take(filters.weights, filters.axes[1], &left)?;
        let bias = Tensor::from_slice(&[bias.len()], &bias)?;
        node.inputs[Filters::WEIGHTS] = graph.add_constant(format!("{}.weights", node.name), weights)?;
        let bias = graph.add_constant(format!("{}.bias", node.name), bias)?;
        match node.inputs.get_mut(Filters::BIAS) {
            Some(held) => *held = bias,
            None if gone.is_empty() => {}
            None => node.inputs.push(bias),
        }
        Ok(())
    }
}

/// Whether a reader does not need a channel with this uniform value (if known), because its contribution can be part of
/// the bias.
fn is_needless(filters: &Filters<'_>, value: Option<f32>, depth: usize) -> bool {
    match value {
        Some(value) if value == 0.0 || !filters.padded => true,
        _ => (0..filters.count).all(|filter| is_zero(filters.window(filter, depth))),
    }
}

/// A tensor with only these indices of an axis.
fn take(tensor: &Tensor, axis: usize, indices: &[usize]) -> Result<Tensor, OpError> {
    let mut dims = tensor.shape().dims().to_vec();
    let run = dims.iter().skip(axis + 1).product::<usize>() * tensor.dtype().size();
    let dim = dims.get_mut(axis).ok_or(OpError::Operand(1))?;
    let whole = *dim * run;
    *dim = indices.len();
    let mut taken = reserve::empty(dims.iter().product::<usize>() * tensor.dtype().size())?;
    for part in tensor.bytes().chunks_exact(whole.max(1)) {
        for &index in indices {
            taken.extend_from_slice(part.get(index * run..(index + 1) * run).ok_or(OpError::Operand(1))?);
        }
    }
    Tensor::from_bytes(Fact::new(tensor.dtype(), Shape::new(&dims)?), &taken)
}

#[cfg(test)]
mod tests;
