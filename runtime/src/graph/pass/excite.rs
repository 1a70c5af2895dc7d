//! Squeeze-and-excite: fuses the scale of a convolution's input channels into the convolution.
//!
//! ```text
//! x -> Mul(s) -> Conv 1x1    =>    x, s -> Conv'(scale)
//! ```
//!
//! When: `s` is one computed factor per image and channel (`[N, C, 1, 1]`, from any gate), the product has the shape of
//! `x` and is read only by that convolution, as its images. The convolution is 1x1 with one group: its kernel scales
//! the weights, or every pixel once as it reads it, and the scaled image is never written. With a larger kernel a pixel
//! would be scaled once per tap, and kernels without scale would be excluded.

use super::super::{Graph, Node, Uses, ValueId};
use super::masks;
use super::pattern::Pattern;
use crate::error::Result;
use crate::ops::Op;
use crate::ops::binary::BinaryKind;
use crate::ops::conv::Conv;
use crate::ops::image::{ImageDims, Layout};
use crate::ops::roles::Role;
use crate::reserve;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let uses = graph.uses()?;
    let found = reserve::list(graph.nodes.iter().map(|node| excited(graph, &uses, node)))?;
    for (node, found) in graph.nodes.iter_mut().zip(found) {
        if let (Some((x, scale)), Op::Conv(conv)) = (found, &mut node.op) {
            conv.roles = conv.roles.with(Role::Scale);
            node.inputs[Conv::X] = x;
            node.inputs.insert(conv.roles.position(Role::Scale).unwrap_or(node.inputs.len()), scale);
        }
    }
    Ok(())
}

/// The images and the scale whose product a convolution reads.
fn excited(graph: &Graph, uses: &Uses, node: &Node) -> Option<(ValueId, ValueId)> {
    let Op::Conv(conv) = &node.op else { return None };
    if conv.kernel != [1, 1] || conv.groups != 1 || conv.roles.has(Role::Scale) || conv.layout != Layout::Nchw {
        return None;
    }
    let product = *node.inputs.get(Conv::X)?;
    uses.only_reader(product)?;
    let multiply = graph.nodes.get(uses.writer(product)?)?;
    let [a, b] = Pattern::operands(multiply, BinaryKind::Mul)?;
    // A mask saves more: channels where it is 0 are not computed.
    if masks::is_gate(graph, uses, multiply) {
        return None;
    }
    let image = ImageDims::new(Layout::Nchw, &graph.fact(product).shape).ok()?;
    let factors = ImageDims { height: 1, width: 1, ..image }.shape(Layout::Nchw).ok()?;
    let fits = |x: ValueId, scale: ValueId| {
        graph.fact(x) == graph.fact(product)
            && graph.fact(scale).shape == factors
            && graph.constant(x).is_none()
            && graph.constant(scale).is_none()
    };
    fits(a, b).then_some((a, b)).or_else(|| fits(b, a).then_some((b, a)))
}

#[cfg(test)]
mod tests {
    use skipstone_kernels::activation::Activation;

    use super::super::testing::Build;
    use super::*;
    use crate::ops::check::Random;
    use crate::ops::reduce::{Reduce, ReduceKind};

    fn conv(build: &mut Build, x: ValueId, [filters, depth, rows, columns]: [usize; 4]) -> ValueId {
        let mut random = Random(filters as u64);
        let weights = build.graph.add_constant("w", random.floats(&[filters, depth, rows, columns])).unwrap();
        let bias = build.graph.add_constant("b", random.floats(&[filters])).unwrap();
        let op = Conv {
            kernel: [rows, columns],
            stride: [1, 1],
            dilation: [1, 1],
            pads: [0; 4],
            groups: 1,
            layout: Layout::Nchw,
            activation: Activation::None,
            ..Conv::POINTWISE
        };
        build.add(op, &[x, weights, bias])
    }

    /// `sigmoid(conv(mean(x)))`, a factor per image and channel.
    fn gate(build: &mut Build, x: ValueId, channels: usize) -> ValueId {
        let mean = build.add(Reduce { axes: vec![2, 3], kind: ReduceKind::Mean, keep_dims: true }, &[x]);
        let gate = conv(build, mean, [channels, channels, 1, 1]);
        build.activate(Activation::Sigmoid, gate)
    }

    /// Counts of remaining products, and of convolutions with a scale.
    fn counts(graph: &Graph) -> (usize, usize) {
        let products = graph.nodes.iter().filter(|n| Pattern::operands(n, BinaryKind::Mul).is_some());
        let scaling = graph.nodes.iter().filter(|n| matches!(&n.op, Op::Conv(conv) if conv.roles.has(Role::Scale)));
        (products.count(), scaling.count())
    }

    #[test]
    fn a_gate_becomes_the_scale_of_the_projection() {
        for swapped in [false, true] {
            let mut build = Build::new(&[2, 5, 3, 4]);
            let x = build.x;
            let s = gate(&mut build, x, 5);
            let (a, b) = if swapped { (s, x) } else { (x, s) };
            let product = build.binary(BinaryKind::Mul, a, b);
            let y = conv(&mut build, product, [7, 5, 1, 1]);
            assert_eq!(counts(&build.optimized(y, 1e-4)), (0, 1));
        }
    }

    #[test]
    fn a_residual_and_a_scale_fit_one_convolution() {
        let mut build = Build::new(&[1, 5, 3, 4]);
        let x = build.x;
        let s = gate(&mut build, x, 5);
        let product = build.binary(BinaryKind::Mul, x, s);
        let y = conv(&mut build, product, [5, 5, 1, 1]);
        let y = build.binary(BinaryKind::Add, y, x);
        let y = build.activate(Activation::Relu, y);
        let graph = build.optimized(y, 1e-4);
        assert_eq!(counts(&graph), (0, 1));
        assert!(graph.nodes.iter().any(|n| matches!(&n.op, Op::Conv(c) if c.roles.arity() == 5)));
    }

    #[test]
    fn products_that_do_not_scale_channels_stay() {
        // Also read elsewhere.
        let mut build = Build::new(&[1, 5, 3, 4]);
        let x = build.x;
        let s = gate(&mut build, x, 5);
        let product = build.binary(BinaryKind::Mul, x, s);
        let y = conv(&mut build, product, [7, 5, 1, 1]);
        build.output(product);
        assert_eq!(counts(&build.optimized(y, 1e-4)), (1, 0));
        // One factor for all channels.
        let mut build = Build::new(&[1, 5, 3, 4]);
        let x = build.x;
        let s = gate(&mut build, x, 5);
        let s = conv(&mut build, s, [1, 5, 1, 1]);
        let product = build.binary(BinaryKind::Mul, x, s);
        let y = conv(&mut build, product, [7, 5, 1, 1]);
        assert_eq!(counts(&build.optimized(y, 1e-4)), (1, 0));
        // A larger kernel.
        let mut build = Build::new(&[1, 5, 3, 4]);
        let x = build.x;
        let s = gate(&mut build, x, 5);
        let product = build.binary(BinaryKind::Mul, x, s);
        let y = conv(&mut build, product, [7, 5, 2, 3]);
        assert_eq!(counts(&build.optimized(y, 1e-4)), (1, 0));
    }

    #[test]
    fn the_plan_agrees_on_every_instruction_set() {
        let mut build = Build::new(&[2, 19, 7, 5]);
        let x = build.x;
        let s = gate(&mut build, x, 19);
        let product = build.binary(BinaryKind::Mul, x, s);
        let y = conv(&mut build, product, [33, 19, 1, 1]);
        build.output(y);
        let x = Random(3).floats(&[2, 19, 7, 5]);
        let want = build.graph.evaluate(std::slice::from_ref(&x)).unwrap();
        for isa in skipstone_kernels::Isa::available() {
            let got = crate::ops::check::planned(&build.graph, isa, std::slice::from_ref(&x)).unwrap();
            crate::ops::check::assert_close(&got[0], &want[0], 1e-4, "a scaled projection");
        }
    }
}
