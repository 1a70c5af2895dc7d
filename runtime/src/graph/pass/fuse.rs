//! Fusion into the producing kernel: elementwise operators after a convolution or matrix product are applied while its
//! sums are still in registers.
//!
//! ```text
//! Conv -> Mul(scale) -> Add(shift)         =>    Conv', scale and shift in its weights and bias
//! Conv(act) -> Mul(scale) -> Add(shift)    =>    Conv(act, affine)
//! Conv -> Activate                         =>    Conv(act)
//! Conv -> Add(other) [-> Activate]         =>    Conv(residual [, act])
//! MatMul -> Add(bias) -> Activate          =>    MatMul(bias, act)
//! ```
//!
//! A result with other readers is not fused. The fused node replaces the last node that it absorbs, where every operand
//! is known.

use std::sync::Arc;

use skipstone_kernels::activation::Activation;

use super::super::{Graph, Node, Uses, ValueId};
use crate::error::Result;
use crate::ops::Op;
use crate::ops::activate::Activate;
use crate::ops::binary::{Binary, BinaryKind};
use crate::ops::conv::Conv;
use crate::ops::image::Layout;
use crate::ops::roles::Role;
use crate::reserve;
use crate::tensor::{Shape, Tensor};

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    // A node only ever replaces a later one, and writes its result, so the uses of producers that the walk has not
    // reached stay valid.
    let uses = graph.uses()?;
    for index in 0..graph.nodes.len() {
        let mut at = index;
        // Each round absorbs the only reader of the producer's result.
        while let Some((reader, fused)) = fused_with_reader(graph, &uses, at)? {
            graph.nodes[reader] = fused;
            // The producer is dead now: its result has no reader.
            at = reader;
        }
    }
    super::dead::run(graph)
}

/// The node at `producer` fused with its only reader, to replace the reader.
fn fused_with_reader(graph: &mut Graph, uses: &Uses, producer: usize) -> Result<Option<(usize, Node)>> {
    let node = &graph.nodes[producer];
    if !matches!(node.op, Op::Conv(_) | Op::MatMul(_)) {
        return Ok(None);
    }
    let result = node.outputs[0];
    let Some(reader) = uses.only_reader(result).filter(|&r| r < graph.nodes.len()) else { return Ok(None) };
    let mut fused = node.copy()?;
    fused.outputs = graph.nodes[reader].outputs.clone();
    let reading = graph.nodes[reader].copy()?;
    if fused.outputs.len() != 1 || graph.fact(fused.outputs[0]) != graph.fact(result) {
        return Ok(None);
    }
    let done = match (&mut fused.op, &reading.op) {
        (Op::Conv(conv), Op::Activate(Activate { activation }))
            if conv.activation == Activation::None && !conv.roles.has(Role::Affine) =>
        {
            // If a residual was added before the activation, that residual comes first.
            conv.roles = conv.roles.early();
            conv.activation = *activation;
            true
        }
        (Op::MatMul(matmul), Op::Activate(Activate { activation })) if matmul.activation == Activation::None => {
            matmul.activation = *activation;
            true
        }
        (Op::Conv(_) | Op::MatMul(_), Op::Binary(Binary { kind, activation: Activation::None })) => {
            let kind = *kind;
            let affine = Affine::of_binary(graph, result, kind, &reading.inputs)?;
            fold_constant(graph, &mut fused, result, kind, &reading.inputs)?
                || affine.map_or(Ok(false), |affine| affine.append(graph, &mut fused))?
                || add_residual(graph, &mut fused, result, kind, &reading.inputs)
        }
        // If an activation follows, that is fused with the reader.
        (Op::Conv(_), Op::Conv(_)) if !activates(graph, uses, &reading) => match Affine::of_conv(graph, &reading)? {
            Some(affine) if reading.inputs.first() == Some(&result) => affine.append(graph, &mut fused)?,
            _ => false,
        },
        _ => false,
    };
    Ok(done.then_some((reader, fused)))
}

/// Whether an activation is the only reader of a node's result.
fn activates(graph: &Graph, uses: &Uses, node: &Node) -> bool {
    let reader = node.outputs.first().and_then(|&result| uses.only_reader(result)).and_then(|at| graph.nodes.get(at));
    reader.is_some_and(|reader| matches!(reader.op, Op::Activate(_)))
}

/// The operand beside `result`, and whether `result` is the first.
fn other(inputs: &[ValueId], result: ValueId) -> Option<(ValueId, bool)> {
    match *inputs {
        [a, b] if a == result && b != result => Some((b, true)),
        [a, b] if b == result && a != result => Some((a, false)),
        _ => None,
    }
}

/// A number that depends on a channel's value in a constant.
pub(super) type OfValue = fn(f32) -> f32;

/// `kind(x, constant)` as `x * scale + shift`; `kind(constant, x)` if `x` is not the first operand.
pub(super) fn scale_and_shift(kind: BinaryKind, first: bool) -> Option<(OfValue, OfValue)> {
    let both: (OfValue, OfValue) = match (kind, first) {
        (BinaryKind::Mul, _) => (|v| v, |_| 0.0),
        (BinaryKind::Div, true) => (|v| 1.0 / v, |_| 0.0),
        (BinaryKind::Add, _) => (|_| 1.0, |v| v),
        (BinaryKind::Sub, true) => (|_| 1.0, |v| -v),
        (BinaryKind::Sub, false) => (|_| -1.0, |v| v),
        _ => return None,
    };
    Some(both)
}

/// Fuses arithmetic with a constant per output channel into weights and bias.
fn fold_constant(
    graph: &mut Graph,
    fused: &mut Node,
    result: ValueId,
    kind: BinaryKind,
    inputs: &[ValueId],
) -> Result<bool> {
    let Some((constant, first)) = other(inputs, result) else { return Ok(false) };
    let shape = graph.fact(result).shape.clone();
    // Channels: axis 1 of an image, the last of a product.
    let (axis, fits) = match &fused.op {
        Op::Conv(conv) => (1, conv.activation == Activation::None && conv.roles.residual().is_none()),
        Op::MatMul(matmul) => (2, matmul.activation == Activation::None),
        _ => return Ok(false),
    };
    let Some(values) = graph.constant(constant).and_then(|c| per_channel(c, &shape, axis)).filter(|_| fits) else {
        return Ok(false);
    };
    let Some((scale, shift)) = scale_and_shift(kind, first) else { return Ok(false) };
    let of_channels = |of: OfValue| reserve::list(values.iter().map(|&v| of(v)));
    let (scale, shift) = (of_channels(scale)?, of_channels(shift)?);
    let transposed = matches!(&fused.op, Op::MatMul(m) if m.transposed);
    let filter_first = matches!(fused.op, Op::Conv(_)) || transposed;
    let weights = graph.constant(fused.inputs[1]).filter(|w| filter_first || w.shape().rank() == 3).cloned();
    let old_bias = match fused.inputs.get(2) {
        None => reserve::copies(0.0, scale.len()).ok(),
        Some(&id) => graph.constant(id).and_then(|b| reserve::list(b.peek::<f32>()?.iter()).ok()),
    };
    let Some(old_bias) = old_bias else { return Ok(false) };
    if scale.iter().any(|&s| s != 1.0) {
        let Some(weights) = weights.as_deref() else { return Ok(false) };
        let Some(scaled) = scale_filters(weights, &scale, filter_first) else { return Ok(false) };
        fused.inputs[1] = graph.add_constant(format!("{}.weights", fused.name), Arc::new(scaled))?;
    }
    let bias = reserve::list(old_bias.iter().zip(&scale).zip(&shift).map(|((b, s), t)| b * s + t))?;
    let tensor = Tensor::from_slice(&[bias.len()], &bias).map_err(|e| e.at(&fused.name))?;
    let bias = graph.add_constant(format!("{}.bias", fused.name), tensor)?;
    fused.inputs.truncate(2);
    fused.inputs.push(bias);
    Ok(true)
}

/// Most channels that a single value is repeated for: a few bytes of a file can claim any number of channels.
const MOST_CHANNELS: usize = 1 << 20;

/// The constant as one value per channel, if it broadcasts to `shape` only along `axis`.
pub(super) fn per_channel(constant: &Tensor, shape: &Shape, axis: usize) -> Option<Vec<f32>> {
    let values = constant.peek::<f32>()?;
    let channels = *shape.get(axis)?;
    if values.len() == 1 && constant.shape().rank() <= shape.rank() {
        if channels > MOST_CHANNELS {
            return None;
        }
        return reserve::copies(values.get(0)?, channels).ok();
    }
    let from = constant.shape();
    let own = axis.checked_sub(shape.rank().checked_sub(from.rank())?)?;
    let along = from.iter().enumerate().all(|(i, &d)| if i == own { d == channels } else { d == 1 });
    along.then(|| reserve::list(values.iter()).ok())?
}

/// Weights with every filter multiplied by its factor; filters are the first or the last axis.
fn scale_filters(weights: &Tensor, scale: &[f32], first: bool) -> Option<Tensor> {
    let mut scaled = weights.clone();
    let values = scaled.elements_mut::<f32>()?;
    let per_filter = values.len().checked_div(scale.len()).filter(|&count| count > 0)?;
    if first {
        for (filter, factor) in values.chunks_exact_mut(per_filter).zip(scale) {
            filter.iter_mut().for_each(|value| *value *= factor);
        }
    } else {
        for row in values.chunks_exact_mut(scale.len()) {
            row.iter_mut().zip(scale).for_each(|(value, factor)| *value *= factor);
        }
    }
    Some(scaled)
}

/// What a convolution with an affine map computes after its activation.
struct Affine {
    scale: Vec<f32>,
    shift: Vec<f32>,
}

impl Affine {
    /// The arithmetic with a constant per channel of an image `result`.
    fn of_binary(graph: &Graph, result: ValueId, kind: BinaryKind, inputs: &[ValueId]) -> Result<Option<Self>> {
        let Some((constant, first)) = other(inputs, result) else { return Ok(None) };
        let values = graph.constant(constant).and_then(|c| per_channel(c, &graph.fact(result).shape, 1));
        let (Some(values), Some((scale, shift))) = (values, scale_and_shift(kind, first)) else { return Ok(None) };
        let of_channels = |of: OfValue| reserve::list(values.iter().map(|&value| of(value)));
        Ok(Some(Self { scale: of_channels(scale)?, shift: of_channels(shift)? }))
    }

    /// A convolution of one pixel and one channel of several: what the pass `branches` makes of a normalization.
    fn of_conv(graph: &Graph, node: &Node) -> Result<Option<Self>> {
        let (Op::Conv(conv), &[x, weights, bias]) = (&node.op, node.inputs.as_slice()) else { return Ok(None) };
        let channels = graph.fact(x).shape.get(1).copied();
        let plain = Conv { groups: conv.groups, layout: conv.layout, ..Conv::POINTWISE };
        if *conv != plain || conv.layout != Layout::Nchw || conv.groups < 2 || channels != Some(conv.groups) {
            return Ok(None);
        }
        let numbers = |id: ValueId| match graph.constant(id).and_then(|c| c.peek::<f32>()) {
            Some(numbers) if numbers.len() == conv.groups => reserve::list(numbers.iter()).map(Some),
            _ => Ok(None),
        };
        let (Some(scale), Some(shift)) = (numbers(weights)?, numbers(bias)?) else { return Ok(None) };
        Ok(Some(Self { scale, shift }))
    }

    /// Appends it to what a convolution computes: batch normalization between an activation and a residual or a
    /// convolution with padding.
    fn append(self, graph: &mut Graph, fused: &mut Node) -> Result<bool> {
        let Op::Conv(conv) = &mut fused.op else { return Ok(false) };
        let follows = conv.activation != Activation::None && !conv.roles.has(Role::LateResidual);
        if !follows || conv.roles.are_masked() {
            return Ok(false);
        }
        let channels = self.scale.len();
        let mut map = reserve::list(self.scale.iter().chain(&self.shift).copied())?;
        if let Some(before) = conv.roles.position(Role::Affine) {
            let Some(before) = graph.constant(fused.inputs[before]).and_then(|map| map.peek::<f32>()) else {
                return Ok(false);
            };
            let (scale, shift) = map.split_at_mut(channels);
            for (channel, (scale, shift)) in scale.iter_mut().zip(shift).enumerate() {
                let of = |row: usize| before.get(row * channels + channel).unwrap_or_default();
                (*scale, *shift) = (*scale * of(0), *scale * of(1) + *shift);
            }
            fused.inputs.pop();
        }
        let map = Tensor::from_slice(&[2, channels], &map).map_err(|e| e.at(&fused.name))?;
        conv.roles = conv.roles.with(Role::Affine);
        fused.inputs.push(graph.add_constant(format!("{}.affine", fused.name), map)?);
        Ok(true)
    }
}

/// Fuses the addition of a tensor of the result's shape into a convolution.
fn add_residual(graph: &Graph, fused: &mut Node, result: ValueId, kind: BinaryKind, inputs: &[ValueId]) -> bool {
    let Op::Conv(conv) = &mut fused.op else { return false };
    let Some((residual, _)) = other(inputs, result) else { return false };
    if kind != BinaryKind::Add || conv.roles.residual().is_some() || graph.fact(residual) != graph.fact(result) {
        return false;
    }
    conv.roles = conv.roles.with(Role::LateResidual);
    fused.inputs.insert(3, residual);
    true
}

#[cfg(test)]
mod tests {
    use super::super::testing::Build;
    use super::*;
    use crate::ops::check::Random;

    /// The block of a ConvMixer, and of what Keras users write: normalization after the activation, read by a residual and
    /// by a convolution with padding.
    #[test]
    fn a_normalization_after_an_activation_becomes_an_affine_map() {
        use BinaryKind::{Add, Div, Mul, Sub};
        for kinds in [&[Mul, Add][..], &[Sub, Mul, Add], &[Sub, Div], &[Mul]] {
            let mut random = Random(3);
            let mut build = Build::new(&[2, 7, 6, 5]);
            let mut conv = |build: &mut Build, x: ValueId, kernel: usize, groups: usize| {
                let dims = [&[7, 7 / groups, kernel, kernel][..], &[7]];
                let [weights, bias] = dims.map(|dims| build.graph.add_constant("w", random.floats(dims)).unwrap());
                let op = Conv { kernel: [kernel; 2], pads: [kernel / 2; 4], groups, ..Conv::POINTWISE };
                let mut y = build.add(op, &[x, weights, bias]);
                y = build.activate(Activation::Gelu, y);
                for &kind in kinds {
                    let constant = build.graph.add_constant("c", random.floats(&[7, 1, 1])).unwrap();
                    y = build.binary(kind, y, constant);
                }
                y
            };
            let x = build.x;
            let stem = conv(&mut build, x, 3, 1);
            let spatial = conv(&mut build, stem, 3, 7);
            let sum = build.binary(Add, spatial, stem);
            let y = conv(&mut build, sum, 1, 1);
            let graph = build.optimized(y, 1e-4);
            let nodes: Vec<_> = graph.nodes.iter().filter(|node| !matches!(node.op, Op::Transpose(_))).collect();
            assert_eq!(nodes.len(), 3, "{kinds:?}: {:?}", graph.nodes);
            let has = |role: Role| move |node: &&&Node| matches!(&node.op, Op::Conv(c) if c.roles.has(role));
            assert_eq!(nodes.iter().filter(has(Role::LateResidual)).count(), 1);
            assert!(nodes.iter().filter(has(Role::Affine)).count() >= 2);
        }
    }

    /// A gigabyte was allocated for a few bytes of a file.
    #[test]
    fn a_number_is_not_repeated_for_any_number_of_channels() {
        let repeated = |channels: usize| {
            let shape = Shape::new(&[1, channels]).unwrap();
            per_channel(&Tensor::scalar(2f32), &shape, 1)
        };
        assert_eq!(repeated(3), Some(vec![2.0; 3]));
        assert_eq!(repeated(1 << 28), None);
    }
}
