//! Merges zeros around an image into the padding of the convolution that reads it.
//!
//! ```text
//! x -> Pad(0) -> Conv    =>    x -> Conv
//! ```
//!
//! When: only rows and columns are padded. TensorFlow pads so that a stride of two ends at the last pixel, and Keras
//! pads before every strided convolution.

use super::super::{Graph, Node, ValueId};
use super::pattern::Pattern;
use crate::error::Result;
use crate::ops::Op;
use crate::ops::conv::Conv;
use crate::ops::image::Layout;
use crate::ops::pad::{Pad, PadMode};
use crate::reserve;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let pattern = Pattern::new(graph)?;
    let found = reserve::list(graph.nodes.iter().map(|node| padded(&pattern, node)))?;
    for (node, found) in graph.nodes.iter_mut().zip(found) {
        if let Some((x, conv)) = found {
            node.op = conv.into();
            node.inputs[Conv::X] = x;
        }
    }
    Ok(())
}

/// The image without its padding, and the convolution that includes it.
fn padded(pattern: &Pattern<'_>, node: &Node) -> Option<(ValueId, Conv)> {
    let Op::Conv(conv) = &node.op else { return None };
    let pad = pattern.writer(*node.inputs.get(Conv::X)?)?;
    let Op::Pad(Pad { pads, mode: PadMode::Constant(value) }) = &pad.op else { return None };
    let &[(0, 0), (0, 0), (top, bottom), (left, right)] = pads.as_slice() else { return None };
    if conv.layout != Layout::Nchw || value.elements::<f32>() != Some(&[0.0]) {
        return None;
    }
    let mut pads = conv.pads;
    for (held, more) in pads.iter_mut().zip([top, left, bottom, right]) {
        *held = held.checked_add(more)?;
    }
    Some((*pad.inputs.first()?, Conv { pads, ..conv.clone() }))
}

#[cfg(test)]
mod tests {
    use super::super::testing::Build;
    use super::*;
    use crate::ops::check::Random;
    use crate::tensor::Tensor;

    fn pad(build: &mut Build, pads: [(usize, usize); 4], value: f32) -> ValueId {
        let mode = PadMode::Constant(Tensor::scalar(value));
        build.add(Pad { pads: pads.to_vec(), mode }, &[build.x])
    }

    /// The remaining operators of a padded 3x3 convolution with stride two.
    fn names(pads: [(usize, usize); 4], value: f32) -> Vec<String> {
        let mut build = Build::new(&[2, 3, 8, 7]);
        let x = pad(&mut build, pads, value);
        let channels = build.graph.fact(x).shape[1];
        let weights = Random(5).floats(&[4, channels, 3, 3]);
        let weights = build.graph.add_constant("w", weights).unwrap();
        let bias = build.constant(&[4], &[0.5, -1.0, 0.0, 2.0]);
        let conv = Conv { kernel: [3, 3], stride: [2, 2], pads: [0, 1, 0, 0], ..Conv::POINTWISE };
        let y = build.add(conv, &[x, weights, bias]);
        let graph = build.optimized(y, 1e-4);
        graph.nodes.iter().map(|node| format!("{:?}", node.op)).filter(|name| name != "Transpose").collect()
    }

    #[test]
    fn zero_padding_moves_into_the_convolution() {
        assert_eq!(names([(0, 0), (0, 0), (0, 1), (2, 1)], 0.0).len(), 1);
    }

    #[test]
    fn other_values_and_other_axes_stay() {
        for (pads, value) in [
            ([(0, 0), (0, 0), (0, 1), (0, 1)], 1.0),
            ([(0, 0), (1, 0), (0, 1), (0, 1)], 0.0),
            ([(1, 0), (0, 0), (0, 1), (0, 1)], 0.0),
        ] {
            assert!(names(pads, value).contains(&"Pad".to_owned()), "{pads:?} {value}");
        }
    }
}
