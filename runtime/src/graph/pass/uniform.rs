//! Uniform channels: channels that have the same value everywhere, whatever the input of the network.
//!
//! A filter of zeros outputs its bias everywhere. That value is followed through activations, sums, depthwise
//! convolutions, pools, concatenations, reshapes and attention.

use skipstone_kernels::activation::scalar;
use skipstone_kernels::pool::PoolFn;

use super::super::{Graph, Node, ValueId};
use super::channels::{Channels, Track};
use super::filters::{Filters, is_zero, share};
use crate::error::Result;
use crate::operator::Semantics;
use crate::operator::axes::{Axes, Elements, Link};
use crate::ops::Op;
use crate::ops::binary::BinaryKind;
use crate::ops::image::{ImageDims, Layout, taps};
use crate::ops::pad::PadMode;
use crate::ops::pool::Pool;
use crate::ops::reduce::ReduceKind;
use crate::reserve;
use crate::tensor::{Peek, Shape, Tensor};

/// The uniform values along the followed axis of every value.
pub(super) struct Uniform(Vec<UniformAxis>);

/// The uniform elements of one value.
#[derive(Clone, Default)]
struct UniformAxis {
    /// The axis.
    axis: usize,
    /// The uniform value of each index; those at the end may be missing.
    elements: Vec<Option<f32>>,
}

impl Uniform {
    /// Follows the values through a graph whose images are in NCHW.
    pub fn new(graph: &Graph, channels: &Channels) -> Result<Self> {
        let mut uniform = Self(reserve::copies(UniformAxis::default(), graph.values().len())?);
        for node in &graph.nodes {
            let &[y] = node.outputs.as_slice() else { continue };
            if let Some(track) = channels.track(y) {
                let mut found = uniform.of_result(graph, node, track).unwrap_or_default();
                found.iter_mut().for_each(|value| *value = value.filter(|value| value.is_finite()));
                found.truncate(track.len);
                uniform.0[y.0] = UniformAxis { axis: track.axis, elements: found };
            }
        }
        Ok(uniform)
    }

    /// The uniform value of index `i` of an axis, if it is known.
    pub fn get(&self, id: ValueId, axis: usize, i: usize) -> Option<f32> {
        self.along(id, axis).get(i).copied().flatten()
    }

    fn along(&self, id: ValueId, axis: usize) -> &[Option<f32>] {
        self.0.get(id.0).filter(|along| along.axis == axis).map_or(&[], |along| &along.elements)
    }

    /// The uniform values that a node writes along the followed axis of its result; `None` if not known.
    fn of_result(&self, graph: &Graph, node: &Node, y: Track) -> Option<Vec<Option<f32>>> {
        let facts = graph.facts(&node.inputs);
        let axes = node.op.axes(&facts);
        let x = *node.inputs.first()?;
        if let Some(filters) = Filters::of(graph, node) {
            return reserve::list((0..y.len).map(|filter| self.of_filter(&filters, x, filter))).ok();
        }
        // For operators that treat every channel of one operand alike.
        let kept = |keep: &dyn Fn(f32) -> bool| {
            let mut values = self.operand(graph, node, &axes, 0, y)?;
            values.iter_mut().for_each(|value| *value = value.filter(|&value| keep(value)));
            Some(values)
        };
        match (&node.op, axes.elements) {
            (_, Elements::Moved) => self.moved(graph, node, &axes, y),
            (_, Elements::Each) => self.each(graph, node, &axes, y),
            (Op::MatMul(product), _) if node.inputs.len() == 2 => {
                // Rows, columns or whole matrices of zeros, in either operand.
                let operands = reserve::all((0..2).map(|at| self.operand(graph, node, &axes, at, y)))?;
                let zero = |i: usize| operands.iter().any(|values| values.get(i) == Some(&Some(0.0)));
                reserve::list((0..y.len).map(|i| zero(i).then(|| scalar::apply(product.activation, 0.0)))).ok()
            }
            (Op::Pool(pool), _) => {
                let inside = windows_meet_the_image(pool, &graph.fact(x).shape);
                let padded = matches!(pool.function, PoolFn::Average { count_padding: true }) && pool.pads != [0; 4];
                kept(&|value| inside && (value == 0.0 || !padded))
            }
            (Op::Pad(pad), _) => kept(&|value| match &pad.mode {
                PadMode::Constant(with) => with.elements::<f32>() == Some(&[value]),
                PadMode::Edge | PadMode::Reflect => true,
            }),
            (Op::Resize(_), _) => kept(&|_| true),
            (Op::Reduce(reduce), _) => {
                let any = graph.fact(x).shape.elements() > 0;
                kept(&|value| match reduce.kind {
                    ReduceKind::Mean | ReduceKind::Max | ReduceKind::Min => any,
                    ReduceKind::Sum | ReduceKind::SumSquare | ReduceKind::L1 | ReduceKind::L2 => any && value == 0.0,
                    ReduceKind::Prod => false,
                })
            }
            _ => None,
        }
    }

    /// For moved elements: the common value of all elements that may end up at the same index.
    fn moved(&self, graph: &Graph, node: &Node, axes: &Axes, y: Track) -> Option<Vec<Option<f32>>> {
        let mut found = reserve::copies(None, y.len).ok()?;
        for link in axes.links.iter().filter(|link| link.to == y.axis) {
            let values = self.own(graph, node, link)?;
            // For each part: nothing so far, one value, or several.
            let mut parts: Vec<Option<Option<f32>>> = reserve::copies(None, values.len().max(y.len)).ok()?;
            for (i, &value) in values.iter().enumerate() {
                if let Some(part) = link.part_of_operand(i).and_then(|part| parts.get_mut(part)) {
                    *part = Some(part.map_or(value, |other| other.filter(|_| other == value)));
                }
            }
            for (i, found) in found.iter_mut().enumerate() {
                if let Some(&Some(value)) = link.part_of_result(i).and_then(|part| parts.get(part)) {
                    *found = value;
                }
            }
        }
        Some(found)
    }

    /// For elementwise functions.
    fn each(&self, graph: &Graph, node: &Node, axes: &Axes, y: Track) -> Option<Vec<Option<f32>>> {
        let operands = reserve::all((0..node.inputs.len()).map(|at| self.operand(graph, node, axes, at, y)))?;
        let result = |i: usize| {
            let operands: Vec<Option<f32>> = operands.iter().map(|values| values.get(i).copied().flatten()).collect();
            if let Op::Binary(binary) = &node.op
                && binary.kind == BinaryKind::Mul
                && operands.contains(&Some(0.0))
            {
                return Some(scalar::apply(binary.activation, 0.0));
            }
            evaluate(&node.op, &operands.into_iter().collect::<Option<Vec<_>>>()?)
        };
        reserve::list((0..y.len).map(result)).ok()
    }

    /// The uniform values of an operand for each index of the result's followed axis.
    fn operand(&self, graph: &Graph, node: &Node, axes: &Axes, at: usize, y: Track) -> Option<Vec<Option<f32>>> {
        match axes.links.iter().find(|link| link.operand == at && link.to == y.axis) {
            Some(link) => self.own(graph, node, link),
            // Repeated for all.
            None => {
                let tensor = node.inputs.get(at).and_then(|&id| graph.constant(id));
                reserve::copies(tensor.and_then(|tensor| same(tensor.peek()?)), y.len).ok()
            }
        }
    }

    /// The uniform values of an operand along the axis of a link.
    fn own(&self, graph: &Graph, node: &Node, link: &Link) -> Option<Vec<Option<f32>>> {
        let Some(&id) = node.inputs.get(link.operand) else { return Some(Vec::new()) };
        match graph.constant(id) {
            Some(tensor) => along_axis(tensor, link.from),
            None => reserve::list(self.along(id, link.from).iter().copied()).ok(),
        }
    }

    /// The result of a filter, if it is the same at every pixel.
    fn of_filter(&self, filters: &Filters<'_>, x: ValueId, filter: usize) -> Option<f32> {
        let mut sum = f64::from(filters.bias(filter));
        for depth in 0..filters.depth {
            let window = filters.window(filter, depth);
            if is_zero(window) {
                continue;
            }
            let value = self.get(x, filters.axis, filters.channel(filter, depth))?;
            if value != 0.0 && filters.padded {
                return None;
            }
            sum += share(window, value);
        }
        let (sum, apply) = (sum as f32, |sum| scalar::apply(filters.activation, sum));
        Some(match (filters.residual, filters.residual_first) {
            (None, _) => apply(sum),
            (Some(residual), true) => apply(sum + self.get(residual, filters.axis, filter)?),
            (Some(residual), false) => apply(sum) + self.get(residual, filters.axis, filter)?,
        })
    }
}

/// The common value of all elements, if there is one.
fn same(elements: Peek<'_, f32>) -> Option<f32> {
    elements.get(0).filter(|&first| elements.iter().all(|other| other == first))
}

/// The uniform values of a constant for each index of an axis; `None` if there is no memory for them.
fn along_axis(tensor: &Tensor, axis: usize) -> Option<Vec<Option<f32>>> {
    let Some(&len) = tensor.shape().get(axis) else { return Some(Vec::new()) };
    let behind = tensor.shape().strides()[axis].max(1);
    let Some(elements) = tensor.peek::<f32>() else { return reserve::copies(None, len).ok() };
    let mut found = reserve::list((0..len).map(|i| elements.get(i * behind))).ok()?;
    for (at, element) in elements.iter().enumerate() {
        let value = &mut found[at / behind % len];
        *value = value.filter(|value| *value == element);
    }
    Some(found)
}

/// Evaluates an elementwise operator on one element per operand.
fn evaluate(op: &Op, operands: &[f32]) -> Option<f32> {
    let operands: Vec<Tensor> = operands.iter().map(|&value| Tensor::scalar(value)).collect();
    let results = op.evaluate(&operands.iter().collect::<Vec<_>>()).ok()?;
    results.first()?.elements::<f32>()?.first().copied()
}

/// Whether every window of a pool covers a pixel: a window of only padding has no value of the image.
fn windows_meet_the_image(pool: &Pool, x: &Shape) -> bool {
    let Ok(image) = ImageDims::new(Layout::Nchw, x) else { return false };
    let lengths = [image.height, image.width];
    (0..2).all(|axis| {
        let (stride, dilation, pad) = (pool.stride[axis], pool.dilation[axis], pool.pads[axis]);
        let meets = |out| taps(out, stride, dilation, pad, pool.kernel[axis], lengths[axis]).next().is_some();
        (0..pool.out[axis]).all(meets)
    })
}
