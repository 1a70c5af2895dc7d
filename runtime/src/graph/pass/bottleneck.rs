//! Bottlenecks: the convolutions around a large depthwise one become one step with it.
//!
//! ```text
//! x -> Conv 1x1 -> Conv depthwise -> Conv 1x1    =>    x -> Bottleneck
//! ```
//!
//! When: the image between two of them is read by the next one alone, and is too large to stay in a
//! cache from one step to the next. Either 1x1 convolution may be missing: a gate between the second
//! and the third, for one, needs the whole image. Layouts are decided by now: only NHWC is fused.

use super::super::{Graph, Node, Uses};
use crate::error::Result;
use crate::ops::Op;
use crate::ops::bottleneck::Bottleneck;
use crate::ops::conv::Conv;
use crate::ops::image::Layout;

/// Bytes of an image from which on it is not written: what fits into the second-level cache of the cores that matter
/// is read from there faster than a band at a time can be organised.
const WORTH_FUSING: usize = 512 * 1024;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let uses = graph.uses();
    let found: Vec<Found> = (0..graph.nodes.len()).filter_map(|at| find(graph, &uses, at)).collect();
    let mut gone = vec![false; graph.nodes.len()];
    for Found { expand, depthwise, project } in found {
        // A projection may be followed by another depthwise convolution: each node is taken once.
        let taken = [expand, Some(depthwise), project].into_iter().flatten();
        if taken.clone().any(|at| gone[at]) {
            continue;
        }
        let conv = |at: usize| match &graph.nodes[at].op {
            Op::Conv(conv) => Some(conv.clone()),
            _ => None,
        };
        let Some(op) = conv(depthwise) else { continue };
        let op = Bottleneck { expand: expand.and_then(conv), depthwise: op, project: project.and_then(conv) };
        let mut inputs = Vec::new();
        for node in taken.clone().map(|at| &graph.nodes[at]) {
            inputs.extend(if inputs.is_empty() { node.inputs.get(Conv::X) } else { None });
            inputs.extend([node.inputs[Conv::WEIGHTS], node.inputs[Conv::BIAS]]);
        }
        let last = project.unwrap_or(depthwise);
        let residual = match &graph.nodes[last].op {
            Op::Conv(conv) => conv.residual_at(),
            _ => None,
        };
        inputs.extend(residual.and_then(|at| graph.nodes[last].inputs.get(at)));
        taken.for_each(|at| gone[at] = at != last);
        let node = &mut graph.nodes[last];
        (node.op, node.inputs) = (op.into(), inputs);
    }
    let mut gone = gone.into_iter();
    graph.nodes.retain(|_| !gone.next().unwrap_or(false));
    Ok(())
}

/// Nodes that become one, by index.
struct Found {
    expand: Option<usize>,
    depthwise: usize,
    project: Option<usize>,
}

/// The bottleneck around the node at `depthwise`.
fn find(graph: &Graph, uses: &Uses, depthwise: usize) -> Option<Found> {
    let node = graph.nodes.get(depthwise)?;
    let conv = plain(graph, node)?;
    let weights = graph.fact(*node.inputs.get(Conv::WEIGHTS)?);
    if conv.groups == 1 || weights.shape.dims().get(..2) != Some(&[conv.groups, 1]) {
        return None;
    }
    let (input, output) = (*node.inputs.get(Conv::X)?, *node.outputs.first()?);
    let large = |id| graph.fact(id).bytes() >= WORTH_FUSING;
    let pointwise = |at: usize| {
        let conv = plain(graph, graph.nodes.get(at)?)?;
        (conv.is_pointwise() && conv.groups == 1).then_some(conv)
    };
    let expand = uses.writer(input).filter(|_| large(input) && uses.only_reader(input).is_some());
    let expand = expand.filter(|&at| pointwise(at).is_some_and(|conv| !conv.residual));
    let project = uses.only_reader(output).filter(|_| large(output) && !conv.residual);
    let project = project.filter(|&at| pointwise(at).is_some() && graph.nodes[at].inputs[Conv::X] == output);
    (expand.is_some() || project.is_some()).then_some(Found { expand, depthwise, project })
}

/// The convolution of a node, if it is NHWC, scales nothing and has constant weights.
fn plain<'a>(graph: &Graph, node: &'a Node) -> Option<&'a Conv> {
    let Op::Conv(conv) = &node.op else { return None };
    let constant = |at: usize| node.inputs.get(at).is_some_and(|&id| graph.constant(id).is_some());
    (conv.layout == Layout::Nhwc && !conv.scale && constant(Conv::WEIGHTS)).then_some(conv)
}

#[cfg(test)]
mod tests {
    use skipstone_kernels::Isa;
    use skipstone_kernels::activation::Activation;

    use super::super::super::ValueId;
    use super::super::testing::Build;
    use super::*;
    use crate::ops::check::{Random, assert_close, planned};

    /// A convolution of `groups` groups with padding for its size.
    fn conv(build: &mut Build, x: ValueId, filters: usize, kernel: usize, groups: usize) -> ValueId {
        let channels = build.graph.fact(x).shape[1];
        let mut random = Random(filters as u64);
        let weights = random.floats(&[filters, channels / groups, kernel, kernel]);
        let (weights, bias) = (build.graph.add_constant("w", weights), random.floats(&[filters]));
        let bias = build.graph.add_constant("b", bias);
        let op = Conv {
            kernel: [kernel; 2],
            stride: [1, 1],
            dilation: [1, 1],
            pads: [kernel / 2; 4],
            groups,
            layout: Layout::Nchw,
            activation: Activation::None,
            residual: false,
            residual_first: false,
            scale: false,
        };
        let y = build.add(op, &[x, weights, bias]);
        build.activate(Activation::Clip { min: -9.0, max: 9.0 }, y)
    }

    /// Expansions and projections of the graph's bottlenecks, and convolutions beside.
    fn counts(graph: &Graph) -> (usize, usize, usize) {
        let fused = |node: &Node| match &node.op {
            Op::Bottleneck(b) => (usize::from(b.expand.is_some()), usize::from(b.project.is_some()), 0),
            Op::Conv(_) => (0, 0, 1),
            _ => (0, 0, 0),
        };
        graph.nodes.iter().map(fused).fold((0, 0, 0), |a, b| (a.0 + b.0, a.1 + b.1, a.2 + b.2))
    }

    #[test]
    fn three_convolutions_around_a_large_image_become_one_step_with_the_residual() {
        let mut build = Build::new(&[1, 5, 90, 83]);
        let x = build.x;
        let wide = conv(&mut build, x, 19, 1, 1);
        let wide = conv(&mut build, wide, 19, 3, 19);
        let narrow = conv(&mut build, wide, 5, 1, 1);
        let y = build.binary(crate::ops::binary::BinaryKind::Add, narrow, x);
        build.output(y);
        let x = Random(3).floats(&[1, 5, 90, 83]);
        let want = build.graph.evaluate(std::slice::from_ref(&x)).unwrap();
        for isa in Isa::available() {
            let got = planned(&build.graph, isa, std::slice::from_ref(&x)).unwrap();
            assert_close(&got[0], &want[0], 1e-4, "a bottleneck");
        }
        super::super::optimise(&mut build.graph).unwrap();
        build.graph.check().unwrap();
        assert_eq!(counts(&build.graph), (1, 1, 0));
    }

    #[test]
    fn an_image_that_is_read_elsewhere_or_small_stays() {
        // Small.
        let mut build = Build::new(&[1, 5, 20, 20]);
        let x = build.x;
        let wide = conv(&mut build, x, 19, 1, 1);
        let y = conv(&mut build, wide, 19, 3, 19);
        assert_eq!(counts(&build.optimised(y, 1e-4)), (0, 0, 2));
        // Read elsewhere, before the depthwise convolution and behind it.
        let mut build = Build::new(&[1, 5, 90, 83]);
        let x = build.x;
        let wide = conv(&mut build, x, 19, 1, 1);
        let deep = conv(&mut build, wide, 19, 3, 19);
        let y = conv(&mut build, deep, 5, 1, 1);
        build.output(wide);
        assert_eq!(counts(&build.optimised(y, 1e-4)), (0, 1, 1));
        let mut build = Build::new(&[1, 5, 90, 83]);
        let x = build.x;
        let wide = conv(&mut build, x, 19, 1, 1);
        let deep = conv(&mut build, wide, 19, 3, 19);
        let y = conv(&mut build, deep, 5, 1, 1);
        build.output(deep);
        assert_eq!(counts(&build.optimised(y, 1e-4)), (1, 0, 1));
    }
}
