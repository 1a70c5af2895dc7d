//! Fusion into the producing kernel: elementwise operators after a convolution or matrix product are applied while its
//! sums are still in registers.
//!
//! ```text
//! Conv -> Mul(scale) -> Add(shift)     =>    Conv', scale and shift in its weights and bias
//! Conv(act) -> Mul -> Add              =>    Conv(act, affine)
//! Conv -> Activate                     =>    Conv(act)
//! Conv -> Add(other) [-> Activate]     =>    Conv(residual [, act])
//! MatMul -> Add(bias) -> Activate      =>    MatMul(bias, act)
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
    let done = match (&mut fused.op, reading.op) {
        (Op::Conv(conv), Op::Activate(Activate { activation }))
            if conv.activation == Activation::None && !conv.roles.has(Role::Affine) =>
        {
            // If a residual was added before the activation, that residual comes first.
            conv.roles = conv.roles.early();
            conv.activation = activation;
            true
        }
        (Op::MatMul(matmul), Op::Activate(Activate { activation })) if matmul.activation == Activation::None => {
            matmul.activation = activation;
            true
        }
        (Op::Conv(_) | Op::MatMul(_), Op::Binary(Binary { kind, activation: Activation::None })) => {
            fold_constant(graph, &mut fused, result, kind, &reading.inputs)?
                || add_affine(graph, &mut fused, result, kind, &reading.inputs)?
                || add_residual(graph, &mut fused, result, kind, &reading.inputs)
        }
        _ => false,
    };
    Ok(done.then_some((reader, fused)))
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

/// Fuses arithmetic with a constant per channel, after an activation, into a convolution's affine map: batch
/// normalization between an activation and a residual or a convolution with padding.
fn add_affine(
    graph: &mut Graph,
    fused: &mut Node,
    result: ValueId,
    kind: BinaryKind,
    inputs: &[ValueId],
) -> Result<bool> {
    let Op::Conv(conv) = &mut fused.op else { return Ok(false) };
    let fits = conv.activation != Activation::None && !conv.roles.has(Role::LateResidual) && !conv.roles.are_masked();
    let Some((constant, first)) = other(inputs, result).filter(|_| fits) else { return Ok(false) };
    let shape = graph.fact(result).shape.clone();
    let values = graph.constant(constant).and_then(|c| per_channel(c, &shape, 1));
    let (Some(values), Some((scale, shift))) = (values, scale_and_shift(kind, first)) else { return Ok(false) };
    let before = conv.roles.position(Role::Affine).map(|at| fused.inputs[at]);
    let before = match before {
        Some(id) => graph.constant(id).and_then(|map| reserve::list(map.peek::<f32>()?.iter()).ok()),
        None => None,
    };
    let of = |row: usize, channel: usize| match &before {
        Some(map) => map[row * values.len() + channel],
        None => {
            if row == 0 {
                1.0
            } else {
                0.0
            }
        }
    };
    let channels = || values.iter().copied().enumerate();
    let scales = channels().map(|(channel, value)| of(0, channel) * scale(value));
    let shifts = channels().map(|(channel, value)| of(1, channel) * scale(value) + shift(value));
    let map = reserve::list(scales.chain(shifts))?;
    let map = Tensor::from_slice(&[2, values.len()], &map).map_err(|e| e.at(&fused.name))?;
    if conv.roles.has(Role::Affine) {
        fused.inputs.pop();
    }
    conv.roles = conv.roles.with(Role::Affine);
    fused.inputs.push(graph.add_constant(format!("{}.affine", fused.name), map)?);
    Ok(true)
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
    use crate::ops::conv::Conv;

    /// The block of a ConvMixer, and of what Keras users write: normalization after the activation, read by a residual and
    /// by a convolution with padding.
    #[test]
    fn a_normalization_after_an_activation_becomes_an_affine_map() {
        let mut random = Random(3);
        let mut build = Build::new(&[2, 7, 6, 5]);
        let mut conv = |build: &mut Build, x: ValueId, kernel: usize, groups: usize| {
            let dims = [&[7, 7 / groups, kernel, kernel][..], &[7]];
            let [weights, bias] = dims.map(|dims| build.graph.add_constant("w", random.floats(dims)).unwrap());
            let op = Conv { kernel: [kernel; 2], pads: [kernel / 2; 4], groups, ..Conv::POINTWISE };
            let mut y = build.add(op, &[x, weights, bias]);
            y = build.activate(Activation::Gelu, y);
            for (kind, dims) in
                [(BinaryKind::Sub, &[7, 1, 1][..]), (BinaryKind::Mul, &[1, 7, 1, 1]), (BinaryKind::Add, &[])]
            {
                let constant = build.graph.add_constant("c", random.floats(dims)).unwrap();
                y = build.binary(kind, y, constant);
            }
            y
        };
        let x = build.x;
        let stem = conv(&mut build, x, 3, 1);
        let spatial = conv(&mut build, stem, 3, 7);
        let sum = build.binary(BinaryKind::Add, spatial, stem);
        let y = conv(&mut build, sum, 1, 1);
        let graph = build.optimized(y, 1e-4);
        let convs: Vec<_> = graph.nodes.iter().filter(|node| !matches!(node.op, Op::Transpose(_))).collect();
        assert_eq!(convs.len(), 3, "{:?}", graph.nodes);
        let residual = convs.iter().filter(|node| matches!(&node.op, Op::Conv(c) if c.roles.has(Role::LateResidual)));
        assert_eq!(residual.count(), 1);
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
