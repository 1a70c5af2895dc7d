//! Chains of convolutions, planned with and without bottlenecks.

use skipstone_kernels::Isa;
use skipstone_kernels::activation::Activation;

use super::super::super::ValueId;
use super::super::testing::Build;
use super::*;
use crate::ops::check::{Random, assert_close, planned, planned_as_it_is};
use crate::tensor::Tensor;

/// A convolution with `groups` groups and padding that keeps the size.
fn conv(build: &mut Build, x: ValueId, filters: usize, kernel: usize, groups: usize) -> ValueId {
    let channels = build.graph.fact(x).shape[1];
    let mut random = Random(filters as u64);
    let weights = random.floats(&[filters, channels / groups, kernel, kernel]);
    let (weights, bias) = (build.graph.add_constant("w", weights).unwrap(), random.floats(&[filters]));
    let bias = build.graph.add_constant("b", bias).unwrap();
    let op = Conv {
        kernel: [kernel; 2],
        stride: [1, 1],
        dilation: [1, 1],
        pads: [kernel / 2; 4],
        groups,
        layout: Layout::Nchw,
        activation: Activation::None,
        ..Conv::POINTWISE
    };
    let y = build.add(op, &[x, weights, bias]);
    build.activate(Activation::Clip { min: -9.0, max: 9.0 }, y)
}

/// Counts of the expansions and projections in the graph's bottlenecks, and of the other convolutions.
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
    super::super::optimize(&mut build.graph).unwrap();
    build.graph.check().unwrap();
    assert_eq!(counts(&build.graph), (1, 1, 0));
}

/// Within a bottleneck, a large kernel would be computed pixel by pixel.
#[test]
fn a_depthwise_kernel_that_is_not_computed_in_tiles_is_not_fused() {
    let mut build = Build::new(&[1, 5, 90, 83]);
    let x = build.x;
    let wide = conv(&mut build, x, 19, 1, 1);
    let deep = conv(&mut build, wide, 19, 7, 19);
    let y = conv(&mut build, deep, 5, 1, 1);
    assert_eq!(counts(&build.optimized(y, 1e-4)), (0, 0, 3));
}

#[test]
fn small_images_and_those_read_elsewhere_are_not_fused() {
    // Small.
    let mut build = Build::new(&[1, 5, 20, 20]);
    let x = build.x;
    let wide = conv(&mut build, x, 19, 1, 1);
    let y = conv(&mut build, wide, 19, 3, 19);
    assert_eq!(counts(&build.optimized(y, 1e-4)), (0, 0, 2));
    // Read elsewhere, before the depthwise convolution and after it.
    let mut build = Build::new(&[1, 5, 90, 83]);
    let x = build.x;
    let wide = conv(&mut build, x, 19, 1, 1);
    let deep = conv(&mut build, wide, 19, 3, 19);
    let y = conv(&mut build, deep, 5, 1, 1);
    build.output(wide);
    assert_eq!(counts(&build.optimized(y, 1e-4)), (0, 1, 1));
    let mut build = Build::new(&[1, 5, 90, 83]);
    let x = build.x;
    let wide = conv(&mut build, x, 19, 1, 1);
    let deep = conv(&mut build, wide, 19, 3, 19);
    let y = conv(&mut build, deep, 5, 1, 1);
    build.output(deep);
    assert_eq!(counts(&build.optimized(y, 1e-4)), (1, 0, 1));
}

/// A chain of depthwise and 1x1 convolutions as in MobileNetV1.
#[derive(Clone, Copy, Debug)]
struct Chain {
    /// Strides of the depthwise convolutions in order.
    strides: &'static [usize],
    /// Whether the chain begins with a 1x1 convolution.
    expansion_first: bool,
    activation: Activation,
    biases: bool,
    /// Whether the image before a depthwise convolution is added to the result of the following 1x1 convolution that
    /// keeps its shape.
    residuals: bool,
}

impl Chain {
    fn build(self) -> Graph {
        let mut build = Build::new(&[1, 6, 12, 11]);
        let (mut x, mut channels) = (build.x, 6);
        if self.expansion_first {
            channels = 9;
            x = self.conv(&mut build, x, channels, 1, 1);
        }
        for &stride in self.strides {
            let before = x;
            x = self.conv(&mut build, x, channels, stride, channels);
            channels = if stride == 2 { channels * 2 } else { channels };
            x = self.conv(&mut build, x, channels, 1, 1);
            if self.residuals && build.graph.fact(x) == build.graph.fact(before) {
                x = build.binary(crate::ops::binary::BinaryKind::Add, x, before);
            }
        }
        build.output(x);
        build.graph
    }

    /// 1x1, or 3x3 if depthwise.
    fn conv(self, build: &mut Build, x: ValueId, filters: usize, stride: usize, groups: usize) -> ValueId {
        let depth = build.graph.fact(x).shape[1] / groups;
        let kernel = if groups == 1 { 1 } else { 3 };
        let mut random = Random((filters * 7 + build.graph.nodes.len()) as u64);
        let mut small = |dims: &[usize], factor: f32| {
            let numbers: Vec<f32> = (0..dims.iter().product()).map(|_| random.float() * factor).collect();
            Tensor::from_slice(dims, &numbers).unwrap()
        };
        let weights = small(&[filters, depth, kernel, kernel], 0.5 / (depth * kernel * kernel) as f32);
        let bias = small(&[filters], if self.biases { 1.0 } else { 0.0 });
        let (weights, bias) =
            (build.graph.add_constant("w", weights).unwrap(), build.graph.add_constant("b", bias).unwrap());
        let (kernel, pads) = ([kernel; 2], [kernel / 2; 4]);
        let op = Conv { kernel, stride: [stride; 2], pads, groups, ..Conv::POINTWISE };
        let y = build.add(op, &[x, weights, bias]);
        if self.activation == Activation::None { y } else { build.activate(self.activation, y) }
    }

    /// Compares the plans of every instruction set with plain evaluation, with fusion for images of any size, and
    /// returns the fused graph.
    #[track_caller]
    fn check(self) -> Graph {
        let plain = self.build();
        let x = [Random(5).floats(&[1, 6, 12, 11])];
        let want = plain.evaluate(&x).unwrap();
        let mut fused = plain.copy().unwrap();
        super::super::everywhere(&mut fused).unwrap();
        assert_close(&fused.evaluate(&x).unwrap()[0], &want[0], 1e-4, &format!("{self:?}"));
        for isa in Isa::available() {
            let what = format!("{self:?} with {isa}");
            assert_close(&planned(&plain, isa, &x).unwrap()[0], &want[0], 1e-4, &what);
            assert_close(&planned_as_it_is(&fused, isa, &x).unwrap()[0], &want[0], 1e-4, &what);
        }
        fused
    }
}

/// Regression: the projection of one block was also fused as the expansion of the next one.
#[test]
fn a_1x1_convolution_between_two_depthwise_ones_belongs_to_one_of_them() {
    for strides in [&[1, 1, 1][..], &[2, 1, 2], &[1, 2, 1, 2], &[2, 2], &[1]] {
        for expansion_first in [false, true] {
            for activation in [Activation::None, Activation::Relu, Activation::Clip { min: 0.0, max: 6.0 }] {
                for (biases, residuals) in [(true, false), (false, false), (true, true)] {
                    let chain = Chain { strides, expansion_first, activation, biases, residuals };
                    let fused = chain.check();
                    let (expansions, projections, _) = counts(&fused);
                    let pointwise = strides.len() + usize::from(expansion_first);
                    // An image that is also a residual is read twice, so the convolution that writes it stays.
                    assert!(residuals || expansions + projections == pointwise, "{chain:?}");
                }
            }
        }
    }
}

/// Of the images before and after the convolution between two depthwise ones, the larger one is not written.
#[test]
fn the_fusion_that_saves_more_gets_the_convolution_between() {
    let given = Chain {
        strides: &[1, 2],
        expansion_first: false,
        activation: Activation::Relu,
        biases: true,
        residuals: false,
    };
    // 6 channels become 6, then 12 at a quarter of the pixels: before and after are equally large, and the first fusion
    // wins.
    assert_eq!(counts(&given.check()), (0, 2, 0));
    let mut build = Build::new(&[1, 4, 8, 8]);
    let x = build.x;
    let y = given.conv(&mut build, x, 4, 1, 4);
    let y = given.conv(&mut build, y, 16, 1, 1);
    let y = given.conv(&mut build, y, 16, 2, 16);
    build.output(y);
    super::super::everywhere(&mut build.graph).unwrap();
    let fused: Vec<_> = build.graph.nodes.iter().filter(|node| matches!(node.op, Op::Bottleneck(_))).collect();
    let [Node { op: Op::Bottleneck(op), .. }] = fused.as_slice() else { panic!("{fused:?}") };
    assert!(op.expand.is_some() && op.project.is_none());
}
