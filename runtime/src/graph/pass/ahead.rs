//! Factors and sums ahead of a convolution, as part of its weights and bias.
//!
//! ```text
//! x -> Mul(scale) -> Add(shift) -> Conv    =>    x -> Conv'
//! ```
//!
//! A batch normalization that follows an activation or a sum cannot be fused into the convolution before it.
//!
//! When: the constants have one value per channel, weights and bias are constant, and the values between are read only
//! here. A shift also needs a convolution without padding, since it does not apply to the zeros there.

use skipstone_kernels::activation::Activation;

use super::super::{Graph, Node, ValueId};
use super::fuse::{per_channel, scale_and_shift};
use super::pattern::Pattern;
use crate::error::{OpError, Result};
use crate::ops::Op;
use crate::ops::binary::Binary;
use crate::ops::conv::Conv;
use crate::ops::image::Layout;
use crate::ops::roles::Role;
use crate::reserve;
use crate::tensor::Tensor;

/// Most nodes ahead of one convolution that become part of it.
const DEPTH: usize = 16;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let pattern = Pattern::new(graph)?;
    let found = reserve::list(graph.nodes.iter().map(|node| linear(&pattern, node)))?;
    for (index, found) in found.into_iter().enumerate() {
        let Some(linear) = found else { continue };
        let node = &graph.nodes[index];
        let Some([weights, bias]) = linear.filters(graph, node).map_err(|e| e.at(&node.name))? else { continue };
        let name = node.name.clone();
        let weights = graph.add_constant(format!("{name}.weights"), weights)?;
        let bias = graph.add_constant(format!("{name}.bias"), bias)?;
        let inputs = &mut graph.nodes[index].inputs;
        (inputs[Conv::X], inputs[Conv::WEIGHTS], inputs[Conv::BIAS]) = (linear.x, weights, bias);
    }
    super::dead::run(graph)
}

/// `x * scale + shift`, with numbers for every channel.
struct Linear {
    x: ValueId,
    scale: Vec<f32>,
    shift: Vec<f32>,
}

/// What a convolution reads as a linear function of another value.
fn linear(pattern: &Pattern<'_>, node: &Node) -> Option<Linear> {
    let Op::Conv(conv) = &node.op else { return None };
    if conv.layout != Layout::Nchw || conv.roles.has(Role::Scale) || conv.roles.are_masked() {
        return None;
    }
    let x = *node.inputs.get(Conv::X)?;
    let shape = &pattern.graph.fact(x).shape;
    let channels = *shape.get(1)?;
    let numbers = |number: f32| reserve::copies(number, channels).ok();
    let mut seen = Linear { x, scale: numbers(1.0)?, shift: numbers(0.0)? };
    for _ in 0..DEPTH {
        let Some((operand, scale, shift)) = step(pattern, seen.x) else { break };
        if conv.pads != [0; 4] && shift.iter().any(|&shift| shift != 0.0) {
            break;
        }
        for channel in 0..channels {
            seen.shift[channel] += seen.scale[channel] * shift[channel];
            seen.scale[channel] *= scale[channel];
        }
        seen.x = operand;
    }
    (seen.x != x).then_some(seen)
}

/// The operand, scale and shift of the node that writes `id`, which is read only once.
fn step(pattern: &Pattern<'_>, id: ValueId) -> Option<(ValueId, Vec<f32>, Vec<f32>)> {
    let node = pattern.inner(id)?;
    let (Op::Binary(Binary { kind, activation: Activation::None }), &[a, b]) = (&node.op, node.inputs.as_slice())
    else {
        return None;
    };
    let (x, constant, first) = match (pattern.graph.constant(a), pattern.graph.constant(b)) {
        (None, Some(constant)) => (a, constant, true),
        (Some(constant), None) => (b, constant, false),
        _ => return None,
    };
    let fact = pattern.graph.fact(id);
    let values = per_channel(constant, &fact.shape, 1).filter(|_| pattern.graph.fact(x) == fact)?;
    let (scale, shift) = scale_and_shift(*kind, first)?;
    let of = |f: fn(f32) -> f32| reserve::list(values.iter().map(|&value| f(value))).ok();
    Some((x, of(scale)?, of(shift)?))
}

impl Linear {
    /// The weights and bias of a convolution that reads `x` itself; `None` if they are not constant.
    fn filters(&self, graph: &Graph, node: &Node) -> std::result::Result<Option<[Tensor; 2]>, OpError> {
        let constant = |at: usize| node.inputs.get(at).and_then(|&id| graph.constant(id));
        let (Op::Conv(conv), Some(weights), Some(bias)) = (&node.op, constant(Conv::WEIGHTS), constant(Conv::BIAS))
        else {
            return Ok(None);
        };
        let &[filters, depth, rows, columns] = weights.shape().dims() else { return Ok(None) };
        let (mut weights, mut bias) = (Tensor::clone(weights), Tensor::clone(bias));
        let (Some(numbers), Some(biases)) = (weights.elements_mut::<f32>(), bias.elements_mut::<f32>()) else {
            return Ok(None);
        };
        let taps = rows * columns;
        if depth * taps == 0 {
            return Ok(None);
        }
        for (filter, (window, bias)) in numbers.chunks_exact_mut(depth * taps).zip(biases).enumerate() {
            let first = filter / (filters / conv.groups) * depth;
            let mut sum = f64::from(*bias);
            for (taps, channel) in window.chunks_exact_mut(taps).zip(first..) {
                for weight in taps {
                    sum += f64::from(*weight) * f64::from(self.shift[channel]);
                    *weight *= self.scale[channel];
                }
            }
            *bias = sum as f32;
        }
        Ok(Some([weights, bias]))
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::Build;
    use super::*;
    use crate::ops::binary::BinaryKind;
    use crate::ops::check::Random;
    use crate::ops::unary::UnaryKind;

    /// The operators that remain of `conv((|x| - c) * c + c)`, without those that change the layout.
    fn names(conv: Conv, dims: &[usize], also_read: bool) -> Vec<String> {
        let mut random = Random(8);
        let mut build = Build::new(&[2, 6, 5, 4]);
        let [weights, bias] = [&[9, 6 / conv.groups, conv.kernel[0], conv.kernel[1]][..], &[9]]
            .map(|dims| build.graph.add_constant("w", random.floats(dims)).unwrap());
        let mut x = build.unary(UnaryKind::Abs, build.x);
        for kind in [BinaryKind::Sub, BinaryKind::Mul, BinaryKind::Add] {
            let constant = build.graph.add_constant("c", random.floats(dims)).unwrap();
            x = build.binary(kind, x, constant);
        }
        if also_read {
            build.output(x);
        }
        let y = build.add(conv, &[x, weights, bias]);
        let graph = build.optimized(y, 1e-4);
        graph.nodes.iter().map(|node| format!("{:?}", node.op)).filter(|name| name != "Transpose").collect()
    }

    #[test]
    fn scale_and_shift_become_part_of_the_filters() {
        for dims in [&[1, 6, 1, 1][..], &[6, 1, 1], &[1], &[]] {
            for groups in [1, 3] {
                let conv = Conv { kernel: [2, 3], stride: [1, 2], groups, ..Conv::POINTWISE };
                assert_eq!(names(conv, dims, false), ["Abs", "Conv"], "{dims:?}");
            }
        }
    }

    #[test]
    fn a_shift_stays_ahead_of_padding() {
        let conv = Conv { pads: [0, 0, 0, 1], ..Conv::POINTWISE };
        assert!(names(conv, &[6, 1, 1], false).len() > 2);
    }

    #[test]
    fn a_scale_needs_no_image_without_padding() {
        let mut build = Build::new(&[1, 4, 5, 4]);
        let weights = build.graph.add_constant("w", Random(1).floats(&[4, 1, 3, 3])).unwrap();
        let bias = build.constant(&[4], &[1.0, 2.0, 3.0, 4.0]);
        let scale = build.constant(&[4, 1, 1], &[0.5, 0.0, -1.0, 2.0]);
        let x = build.unary(UnaryKind::Abs, build.x);
        let x = build.binary(BinaryKind::Mul, scale, x);
        let y = build.add(Conv { kernel: [3, 3], pads: [1; 4], groups: 4, ..Conv::POINTWISE }, &[x, weights, bias]);
        let graph = build.optimized(y, 1e-4);
        assert!(!graph.nodes.iter().any(|node| matches!(node.op, Op::Binary(_))));
    }

    #[test]
    fn other_axes_and_other_readers_stay() {
        assert!(names(Conv::POINTWISE, &[5, 1], false).len() > 2);
        assert!(names(Conv::POINTWISE, &[6, 1, 1], true).len() > 2);
    }
}
