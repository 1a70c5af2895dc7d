//! Channels that come to nothing: filters that were pruned to zero are cut out of a network.
//!
//! ```text
//! Conv(8 filters, 3 of zeros) -> Relu -> Conv     =>    Conv(5 filters) -> Relu -> Conv'
//! ```
//!
//! A filter of zeros answers with one number everywhere, its bias. That number is followed through
//! activations, depthwise convolutions, pools and sums. Where it arrives at the next convolution or
//! matrix product, the channel is needless if one of these holds:
//!
//! - the number is 0, or the reader's own weights for the channel are (whatever the number);
//! - the reader has no padding: the number's share of every sum is the same, and goes to the bias.
//!   With padding it would be missing at the edges, and the channel stays.
//!
//! A channel that is needless to all its readers is taken from every value of its set (see
//! `channels`) and from all weights that write and read it. When: no output of the graph and
//! nothing that is not understood reads the set; one channel is kept in any case. What is cut can
//! leave weights of zeros before and behind it, so the pass looks again a few times.

use skipstone_kernels::activation::scalar;
use skipstone_kernels::pool::PoolFn;

use super::super::{Graph, Node, ValueId};
use super::channels::{Channels, Filters, Place, Spread, own_axis, spread};
use crate::error::{Error, OpError, Result};
use crate::ops::binary::BinaryKind;
use crate::ops::image::{Image, Layout, taps};
use crate::ops::pool::Pool;
use crate::ops::reduce::ReduceKind;
use crate::ops::reshape::Reshape;
use crate::ops::{Op, Operator};
use crate::tensor::{Shape, Tensor};

/// How often the pass looks again. A pruned network needs two or three rounds.
const ROUNDS: usize = 8;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    for _ in 0..ROUNDS {
        let Some(cuts) = Cuts::find(graph) else { break };
        cuts.apply(graph)?;
    }
    Ok(())
}

/// The numbers that channels hold throughout, by value and channel; empty for values in no set.
struct Numbers(Vec<Vec<Option<f32>>>);

impl Numbers {
    fn new(graph: &Graph, channels: &Channels) -> Self {
        let mut numbers = Self(vec![Vec::new(); graph.values().len()]);
        for node in &graph.nodes {
            let (Some(&x), &[y]) = (node.inputs.first(), node.outputs.as_slice()) else { continue };
            if let Some(place) = channels.place(y) {
                let mut found = numbers.of_result(graph, channels, node, x, y, place).unwrap_or_default();
                found.iter_mut().for_each(|number| *number = number.filter(|number| number.is_finite()));
                numbers.0[y.0] = found;
            }
        }
        numbers
    }

    fn get(&self, id: ValueId, channel: usize) -> Option<f32> {
        self.0.get(id.0)?.get(channel).copied().flatten()
    }

    /// The numbers that a node writes to the channels of `y`; `None` where it writes none.
    fn of_result(
        &self,
        graph: &Graph,
        channels: &Channels,
        node: &Node,
        x: ValueId,
        y: ValueId,
        place: Place,
    ) -> Option<Vec<Option<f32>>> {
        let all = 0..channels.count(y);
        let kept = |keep: &dyn Fn(f32) -> bool| {
            all.clone().map(|channel| self.get(x, channel).filter(|&number| keep(number))).collect()
        };
        Some(match &node.op {
            Op::Conv(_) | Op::MatMul(_) => {
                let filters = Filters::of(graph, node)?;
                let apply = |sum| scalar::apply(filters.activation, sum);
                let result = |filter| {
                    let sum = self.of_filter(&filters, channels, x, filter)?;
                    Some(match (filters.residual, filters.residual_first) {
                        (None, _) => apply(sum),
                        (Some(residual), true) => apply(sum + self.get(residual, filter)?),
                        (Some(residual), false) => apply(sum) + self.get(residual, filter)?,
                    })
                };
                all.map(result).collect()
            }
            Op::Binary(binary) => {
                let constants: Vec<_> =
                    node.inputs.iter().map(|&id| Constant::of(graph, id, &graph.fact(y).shape, place)).collect();
                let result = |channel: usize| {
                    let operand = |(id, constant): (&ValueId, &Option<Constant<'_>>)| match constant {
                        Some(constant) => constant.get(channel),
                        None => self.get(*id, channel),
                    };
                    let operands: Vec<Option<f32>> = node.inputs.iter().zip(&constants).map(operand).collect();
                    if binary.kind == BinaryKind::Mul && operands.contains(&Some(0.0)) {
                        return Some(scalar::apply(binary.activation, 0.0));
                    }
                    evaluate(&node.op, &operands.into_iter().collect::<Option<Vec<_>>>()?)
                };
                all.map(result).collect()
            }
            Op::Activate(_) | Op::Unary(_) => all.map(|channel| evaluate(&node.op, &[self.get(x, channel)?])).collect(),
            Op::Pool(pool) => {
                let inside = windows_meet_the_image(pool, &graph.fact(x).shape);
                let padded = matches!(pool.function, PoolFn::Average { count_padding: true }) && pool.pads != [0; 4];
                kept(&|number| inside && (number == 0.0 || !padded))
            }
            Op::Reduce(reduce) => {
                let any = graph.fact(x).shape.elements() > 0;
                kept(&|number| match reduce.kind {
                    ReduceKind::Mean | ReduceKind::Max | ReduceKind::Min => any,
                    ReduceKind::Sum | ReduceKind::SumSquare | ReduceKind::L1 | ReduceKind::L2 => any && number == 0.0,
                    ReduceKind::Prod => false,
                })
            }
            Op::Reshape(_) | Op::Transpose(_) => kept(&|_| true),
            _ => return None,
        })
    }

    /// The sum of a filter, where it is the same at every pixel.
    fn of_filter(&self, filters: &Filters<'_>, channels: &Channels, x: ValueId, filter: usize) -> Option<f32> {
        let block = channels.place(x).map_or(1, |place| place.block);
        let mut sum = f64::from(filters.bias(filter));
        for depth in 0..filters.depth {
            let window = filters.window(filter, depth);
            if is_zero(window) {
                continue;
            }
            let channel = if filters.depthwise { filter } else { depth / block };
            let number = self.get(x, channel)?;
            if number != 0.0 && filters.padded {
                return None;
            }
            sum += share(window, number);
        }
        Some(sum as f32)
    }

    /// Whether a channel of `x` adds to the sums of a reader what its bias could as well.
    fn is_needless(&self, filters: &Filters<'_>, x: ValueId, block: usize, channel: usize) -> bool {
        match self.get(x, channel) {
            Some(number) if number == 0.0 || !filters.padded => true,
            _ => (channel * block..(channel + 1) * block)
                .all(|depth| (0..filters.count).all(|filter| is_zero(filters.window(filter, depth)))),
        }
    }
}

fn is_zero(window: &[f32]) -> bool {
    window.iter().all(|&weight| weight == 0.0)
}

/// What a window over one number throughout adds to a sum.
fn share(window: &[f32], number: f32) -> f64 {
    window.iter().map(|&weight| f64::from(weight) * f64::from(number)).sum()
}

/// An operator that works element by element, on one element each.
fn evaluate(op: &Op, operands: &[f32]) -> Option<f32> {
    let operands: Vec<Tensor> = operands.iter().map(|&number| Tensor::scalar(number)).collect();
    let results = op.evaluate(&operands.iter().collect::<Vec<_>>()).ok()?;
    results.first()?.elements::<f32>()?.first().copied()
}

/// The numbers that a constant operand has for the channels of a result.
enum Constant<'a> {
    /// One for all, if it is one.
    Shared(Option<f32>),
    /// One for each.
    PerChannel(&'a [f32]),
}

impl<'a> Constant<'a> {
    /// `None` where the operand is no constant.
    fn of(graph: &'a Graph, id: ValueId, out: &Shape, place: Place) -> Option<Self> {
        let tensor = graph.constant(id)?;
        let elements = tensor.elements::<f32>().unwrap_or_default();
        Some(match spread(tensor.shape(), out, place) {
            Spread::Shared => {
                let first = elements.first().filter(|&first| elements.iter().all(|other| other == first));
                Self::Shared(first.copied())
            }
            Spread::PerElement => {
                let own = own_axis(tensor.shape(), out, place).and_then(|axis| tensor.shape().get(axis));
                match own == Some(&elements.len()) && place.block == 1 {
                    true => Self::PerChannel(elements),
                    false => Self::Shared(None),
                }
            }
        })
    }

    fn get(&self, channel: usize) -> Option<f32> {
        match self {
            Self::Shared(number) => *number,
            Self::PerChannel(numbers) => numbers.get(channel).copied(),
        }
    }
}

/// Whether every window of a pool covers a pixel: one that does not has no number of the image.
fn windows_meet_the_image(pool: &Pool, x: &Shape) -> bool {
    let Ok(image) = Image::new(Layout::Nchw, x) else { return false };
    let lengths = [image.height, image.width];
    (0..2).all(|axis| {
        let (stride, dilation, pad) = (pool.stride[axis], pool.dilation[axis], pool.pads[axis]);
        let meets = |out| taps(out, stride, dilation, pad, pool.kernel[axis], lengths[axis]).next().is_some();
        (0..pool.out[axis]).all(meets)
    })
}

/// What is to be cut from a graph.
struct Cuts {
    channels: Channels,
    numbers: Numbers,
    /// By set: the channels that stay, where some go.
    kept: Vec<Option<Vec<usize>>>,
}

impl Cuts {
    /// `None` where every channel is needed.
    fn find(graph: &Graph) -> Option<Self> {
        let channels = Channels::new(graph);
        let numbers = Numbers::new(graph, &channels);
        let mut needless: Vec<Option<Vec<bool>>> = vec![None; graph.values().len()];
        for node in &graph.nodes {
            let (Some(filters), Some(&x)) = (Filters::of(graph, node), node.inputs.first()) else { continue };
            let (Some(set), Some(place)) = (channels.set(x), channels.place(x)) else { continue };
            if filters.depthwise || channels.is_bound(set) {
                continue;
            }
            let flags = needless[set].get_or_insert_with(|| vec![true; channels.count(x)]);
            for (channel, flag) in flags.iter_mut().enumerate() {
                *flag = *flag && numbers.is_needless(&filters, x, place.block, channel);
            }
        }
        let kept = needless.into_iter().map(|flags| {
            let flags = flags.filter(|flags| flags.len() > 1 && flags.contains(&true))?;
            let mut kept: Vec<usize> = (0..flags.len()).filter(|&channel| !flags[channel]).collect();
            if kept.is_empty() {
                kept.push(0);
            }
            Some(kept)
        });
        let kept: Vec<_> = kept.collect();
        kept.iter().any(Option::is_some).then_some(Self { channels, numbers, kept })
    }

    /// The channels of a value that stay, where some go.
    fn kept(&self, id: ValueId) -> Option<&[usize]> {
        self.kept.get(self.channels.set(id)?)?.as_deref()
    }

    fn apply(&self, graph: &mut Graph) -> Result<()> {
        for index in 0..graph.nodes.len() {
            let node = graph.nodes[index].clone();
            graph.nodes[index] = self.cut(graph, node)?;
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

    /// A node without what goes. Facts of the graph are still those before.
    fn cut(&self, graph: &mut Graph, mut node: Node) -> Result<Node> {
        let (Some(&x), Some(&y)) = (node.inputs.first(), node.outputs.first()) else { return Ok(node) };
        let broken = || Error::Internal(format!("the channels of '{}' do not fit its operands", node.name));
        match &node.op {
            Op::Conv(_) | Op::MatMul(_) if self.kept(x).or(self.kept(y)).is_some() => {
                let filters = Filters::of(graph, &node).ok_or_else(broken)?;
                let bias = self.bias(&filters, x, y);
                let mut weights = filters.weights.clone();
                if let Some(kept) = self.kept(y) {
                    weights = take(&weights, filters.axes[0], kept, 1).map_err(|e| e.at(&node.name))?;
                }
                if let (Some(kept), Some(place), false) = (self.kept(x), self.channels.place(x), filters.depthwise) {
                    weights = take(&weights, filters.axes[1], kept, place.block).map_err(|e| e.at(&node.name))?;
                }
                if let (Op::Conv(conv), true) = (&mut node.op, filters.depthwise) {
                    conv.groups = bias.len();
                }
                let bias = Tensor::from_slice(&[bias.len()], &bias).map_err(|e| e.at(&node.name))?;
                let name = &node.name;
                let (weights, bias) = (
                    graph.add_constant(format!("{name}.weights"), weights),
                    graph.add_constant(format!("{name}.bias"), bias),
                );
                let rest = node.inputs.split_off(Filters::BIAS.min(node.inputs.len()));
                node.inputs.truncate(1);
                node.inputs.extend([weights, bias]);
                node.inputs.extend(rest.into_iter().skip(1));
            }
            Op::Binary(_) => {
                let (Some(kept), Some(place)) = (self.kept(y), self.channels.place(y)) else { return Ok(node) };
                let out = graph.fact(y).shape.clone();
                for at in 0..node.inputs.len() {
                    let id = node.inputs[at];
                    let Some(constant) = graph.constant(id).cloned() else { continue };
                    if spread(constant.shape(), &out, place) == Spread::PerElement {
                        let own = own_axis(constant.shape(), &out, place).ok_or_else(broken)?;
                        let cut = take(&constant, own, kept, place.block).map_err(|e| e.at(&node.name))?;
                        node.inputs[at] = graph.add_constant(graph.value(id).name.clone(), cut);
                    }
                }
            }
            Op::Reshape(reshape) => {
                let (Some(kept), Some(place)) = (self.kept(y), self.channels.place(y)) else { return Ok(node) };
                let mut dims = reshape.shape.dims().to_vec();
                *dims.get_mut(place.axis).ok_or_else(broken)? = kept.len() * place.block;
                node.op = Reshape { shape: Shape::new(&dims).map_err(|e| e.at(&node.name))? }.into();
            }
            _ => {}
        }
        Ok(node)
    }

    /// The bias of the filters that stay, with the share of the channels that go.
    fn bias(&self, filters: &Filters<'_>, x: ValueId, y: ValueId) -> Vec<f32> {
        let gone: Vec<(usize, f32)> = match (self.kept(x), filters.depthwise) {
            (Some(kept), false) => {
                let gone = (0..self.channels.count(x)).filter(|channel| kept.binary_search(channel).is_err());
                gone.filter_map(|channel| Some((channel, self.numbers.get(x, channel)?)))
                    .filter(|&(_, number)| number != 0.0)
                    .collect()
            }
            _ => Vec::new(),
        };
        let block = self.channels.place(x).map_or(1, |place| place.block);
        let of = |filter: usize| {
            let shares = gone.iter().flat_map(|&(channel, number)| {
                (channel * block..(channel + 1) * block).map(move |depth| share(filters.window(filter, depth), number))
            });
            (f64::from(filters.bias(filter)) + shares.sum::<f64>()) as f32
        };
        match self.kept(y) {
            Some(kept) => kept.iter().map(|&filter| of(filter)).collect(),
            None => (0..filters.count).map(of).collect(),
        }
    }
}

/// A tensor with only the blocks `kept` along an axis.
fn take(tensor: &Tensor, axis: usize, kept: &[usize], block: usize) -> Result<Tensor, OpError> {
    let elements = tensor.elements::<f32>().ok_or(OpError::Operand(1))?;
    let mut dims = tensor.shape().dims().to_vec();
    let behind: usize = dims.iter().skip(axis + 1).product();
    let dim = dims.get_mut(axis).ok_or(OpError::Operand(1))?;
    let (run, whole) = (block * behind, *dim * behind);
    *dim = kept.len() * block;
    let mut taken = Vec::with_capacity(dims.iter().product());
    for part in elements.chunks_exact(whole.max(1)) {
        for &channel in kept {
            taken.extend_from_slice(part.get(channel * run..(channel + 1) * run).ok_or(OpError::Operand(1))?);
        }
    }
    Tensor::from_slice(&dims, &taken)
}

#[cfg(test)]
mod tests;
