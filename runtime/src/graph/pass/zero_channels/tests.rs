//! Pruned networks compared with the original: the same results, with the expected number of remaining channels.

use skipstone_kernels::Isa;
use skipstone_kernels::activation::Activation;
use skipstone_kernels::pool::PoolFn;

use super::super::testing::Build;
use super::*;
use crate::operator::Operator;
use crate::ops::Op;
use crate::ops::binary::BinaryKind;
use crate::ops::check::{Random, assert_close, planned};
use crate::ops::concat::Concat;
use crate::ops::conv::Conv;
use crate::ops::image::Layout;
use crate::ops::matmul::MatMul;
use crate::ops::pool::Pool;
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::ops::reshape::Reshape;
use crate::ops::slice::Slice;
use crate::ops::softmax::{Softmax, SoftmaxKind};
use crate::ops::transpose::Transpose;

/// A convolution under construction.
struct Layer<'a> {
    filters: usize,
    depth: usize,
    kernel: usize,
    pad: usize,
    groups: usize,
    /// Filters that are all zeros,
    zeros: &'a [usize],
    /// and their biases.
    bias: f32,
    /// Input channels that no filter has a weight for.
    unread: &'a [usize],
}

impl Layer<'_> {
    const fn new(filters: usize, depth: usize, kernel: usize) -> Self {
        Self { filters, depth, kernel, pad: 0, groups: 1, zeros: &[], bias: 0.0, unread: &[] }
    }

    /// Adds it as the layer that reads the input of the graph.
    fn first(&self, build: &mut Build) -> ValueId {
        let x = build.x;
        self.add(build, x)
    }

    fn add(&self, build: &mut Build, x: ValueId) -> ValueId {
        let mut random = Random(self.filters as u64 * 31 + self.kernel as u64);
        let mut numbers = |len: usize| (0..len).map(|_| random.float() / 8.0).collect::<Vec<f32>>();
        let taps = self.kernel * self.kernel;
        let mut weights = numbers(self.filters * self.depth * taps);
        let mut bias = numbers(self.filters);
        for (at, weight) in weights.iter_mut().enumerate() {
            let (filter, channel) = (at / taps / self.depth, at / taps % self.depth);
            if self.zeros.contains(&filter) || self.unread.contains(&channel) {
                *weight = 0.0;
            }
        }
        for &filter in self.zeros {
            bias[filter] = self.bias;
        }
        let weights = build.constant(&[self.filters, self.depth, self.kernel, self.kernel], &weights);
        let bias = build.constant(&[self.filters], &bias);
        let op = Conv {
            kernel: [self.kernel; 2],
            stride: [1, 1],
            dilation: [1, 1],
            pads: [self.pad; 4],
            groups: self.groups,
            layout: Layout::Nchw,
            activation: Activation::None,
            ..Conv::POINTWISE
        };
        build.add(op, &[x, weights, bias])
    }
}

/// A matrix product with `[columns, depth]` random weights, stored like that or transposed.
fn product(build: &mut Build, x: ValueId, columns: usize, depth: usize, transposed: bool, zeros: &[usize]) -> ValueId {
    let mut random = Random(columns as u64);
    let at = |i: usize| if transposed { i / depth } else { i % columns };
    let weight = |i| if zeros.contains(&at(i)) { 0.0 } else { random.float() / 8.0 };
    let weights: Vec<f32> = (0..columns * depth).map(weight).collect();
    let dims = if transposed { [1, columns, depth] } else { [1, depth, columns] };
    let weights = build.constant(&dims, &weights);
    build.add(MatMul { transposed, activation: Activation::None }, &[x, weights])
}

fn relu(build: &mut Build, x: ValueId) -> ValueId {
    build.activate(Activation::Relu, x)
}

fn mean(build: &mut Build, x: ValueId, keep_dims: bool) -> ValueId {
    build.add(Reduce { axes: vec![2, 3], kind: ReduceKind::Mean, keep_dims }, &[x])
}

fn reshape(build: &mut Build, x: ValueId, dims: &[usize]) -> ValueId {
    build.add(Reshape { shape: Shape::new(dims).unwrap() }, &[x])
}

/// Filters and depth of every convolution and product in order.
fn sizes(graph: &Graph) -> Vec<[usize; 2]> {
    let size = |node: &Node| {
        let dims = graph.fact(*node.inputs.get(1)?).shape.dims();
        match (&node.op, dims) {
            (Op::Conv(_) | Op::Stem(_), &[filters, depth, ..]) => Some([filters, depth]),
            (Op::MatMul(product), &[_, a, b]) => Some(if product.transposed { [a, b] } else { [b, a] }),
            _ => None,
        }
    };
    graph.nodes.iter().filter_map(size).collect()
}

/// The sizes in the optimized graph; its results, also planned ones, are compared with the original's.
fn cut(mut build: Build, y: ValueId) -> Vec<[usize; 2]> {
    build.output(y);
    let shape = build.graph.fact(build.x).shape.clone();
    let input = [Random(9).floats(&shape)];
    let want = build.graph.evaluate(&input).unwrap();
    for isa in Isa::available() {
        for (got, want) in planned(&build.graph, isa, &input).unwrap().iter().zip(&want) {
            assert_close(got, want, 1e-4, "planned");
        }
    }
    build.graph.outputs.pop();
    sizes(&build.optimized(y, 1e-4))
}

#[test]
fn zero_filters_are_removed_with_their_readers_channels() {
    for pad in [0, 1] {
        let mut build = Build::new(&[2, 3, 5, 4]);
        let x = Layer { zeros: &[0, 3], bias: -0.5, pad, ..Layer::new(7, 3, 3) }.first(&mut build);
        let x = relu(&mut build, x);
        let y = Layer { pad: 1, ..Layer::new(2, 7, 3) }.add(&mut build, x);
        assert_eq!(cut(build, y), [[5, 3], [2, 5]]);
    }
}

#[test]
fn a_bias_moves_to_the_next_layer_only_without_padding() {
    for (kernel, pad, left) in [(1, 0, 5), (3, 0, 5), (3, 1, 7), (1, 1, 7)] {
        let mut build = Build::new(&[2, 3, 5, 4]);
        let x = Layer { zeros: &[1, 6], bias: 0.75, ..Layer::new(7, 3, 1) }.first(&mut build);
        let x = relu(&mut build, x);
        let y = Layer { pad, ..Layer::new(2, 7, kernel) }.add(&mut build, x);
        assert_eq!(cut(build, y), [[left, 3], [2, left]], "kernel {kernel}, pad {pad}");
    }
}

#[test]
fn an_activation_of_zero_may_be_nonzero() {
    // sigmoid(0) is one half: it can be folded into a 1x1 kernel, not into a padded one.
    for (kernel, left) in [(1, 4), (3, 5)] {
        let mut build = Build::new(&[1, 3, 4, 4]);
        let x = Layer { zeros: &[4], ..Layer::new(5, 3, 1) }.first(&mut build);
        let x = build.activate(Activation::Sigmoid, x);
        let y = Layer { pad: kernel / 2, ..Layer::new(3, 5, kernel) }.add(&mut build, x);
        assert_eq!(cut(build, y), [[left, 3], [3, left]]);
    }
}

#[test]
fn channels_without_weights_in_any_reader_are_removed() {
    let mut build = Build::new(&[1, 2, 4, 4]);
    let x = Layer::new(5, 2, 1).first(&mut build);
    let x = relu(&mut build, x);
    let a = Layer { unread: &[0, 2], pad: 1, ..Layer::new(3, 5, 3) }.add(&mut build, x);
    // Otherwise the two would become one.
    let a = relu(&mut build, a);
    let b = Layer { unread: &[0, 4], ..Layer::new(3, 5, 1) }.add(&mut build, x);
    let y = build.binary(BinaryKind::Add, a, b);
    assert_eq!(cut(build, y), [[4, 2], [3, 4], [3, 4]]);
}

#[test]
fn removed_channels_leave_further_zeros_that_are_removed() {
    // Filter 1 of the second layer reads only channel 0, which is constant; filter 2 is not read by the third layer,
    // and channel 2 is read only by filter 2.
    let mut build = Build::new(&[1, 2, 4, 4]);
    let x = Layer { zeros: &[0], ..Layer::new(3, 2, 1) }.first(&mut build);
    let weights = build.constant(&[3, 3, 1, 1], &[1., 2., 0., 5., 0., 0., 2., 1., 0.5]);
    let bias = build.constant(&[3], &[0.0; 3]);
    let mut op = Layer::new(3, 3, 1);
    op.unread = &[2];
    let y = build.add(
        Conv {
            kernel: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            pads: [0; 4],
            groups: 1,
            layout: Layout::Nchw,
            activation: Activation::Relu,
            ..Conv::POINTWISE
        },
        &[x, weights, bias],
    );
    let y = op.add(&mut build, y);
    assert_eq!(cut(build, y), [[1, 2], [1, 1], [3, 1]]);
}

#[test]
fn zeros_pass_through_depthwise_layers_and_pools() {
    let mut build = Build::new(&[1, 3, 8, 8]);
    let x = Layer { zeros: &[2, 5], ..Layer::new(9, 3, 1) }.first(&mut build);
    let x = relu(&mut build, x);
    // Channel 2 becomes its bias after the padding: it is the same at every pixel.
    let x = Layer { groups: 9, pad: 1, zeros: &[5], ..Layer::new(9, 1, 3) }.add(&mut build, x);
    let x = relu(&mut build, x);
    let pool = |function| Pool {
        function,
        kernel: [3, 3],
        stride: [2, 2],
        dilation: [1, 1],
        pads: [1; 4],
        out: [4, 4],
        layout: Layout::Nchw,
    };
    let x = build.add(pool(PoolFn::Max), &[x]);
    let y = Layer::new(4, 9, 1).add(&mut build, x);
    assert_eq!(cut(build, y), [[7, 3], [7, 1], [4, 7]]);
    // A mean that counts the padding gives another value at the edges.
    let mut build = Build::new(&[1, 3, 8, 8]);
    let x = Layer { zeros: &[2, 5], bias: 1.0, ..Layer::new(9, 3, 1) }.first(&mut build);
    let x = build.add(pool(PoolFn::Average { count_padding: true }), &[x]);
    let y = Layer::new(4, 9, 1).add(&mut build, x);
    assert_eq!(cut(build, y), [[9, 3], [4, 9]]);
    let mut build = Build::new(&[1, 3, 8, 8]);
    let x = Layer { zeros: &[2, 5], bias: 1.0, ..Layer::new(9, 3, 1) }.first(&mut build);
    let x = build.add(pool(PoolFn::Average { count_padding: false }), &[x]);
    let y = Layer::new(4, 9, 1).add(&mut build, x);
    assert_eq!(cut(build, y), [[7, 3], [4, 7]]);
}

#[test]
fn a_padded_depthwise_layer_of_a_nonzero_channel_stays() {
    let mut build = Build::new(&[1, 3, 6, 6]);
    let x = Layer { zeros: &[2], bias: 1.0, ..Layer::new(5, 3, 1) }.first(&mut build);
    let x = Layer { groups: 5, pad: 1, ..Layer::new(5, 1, 3) }.add(&mut build, x);
    let y = Layer::new(4, 5, 1).add(&mut build, x);
    assert_eq!(cut(build, y), [[5, 3], [5, 1], [4, 5]]);
    // Its own filter of zeros gives a constant whatever it reads.
    let mut build = Build::new(&[1, 3, 6, 6]);
    let x = Layer::new(5, 3, 1).first(&mut build);
    let x = Layer { groups: 5, pad: 1, zeros: &[0, 1, 2, 3], bias: 0.5, ..Layer::new(5, 1, 3) }.add(&mut build, x);
    let y = Layer::new(4, 5, 1).add(&mut build, x);
    assert_eq!(cut(build, y), [[1, 3], [1, 1], [4, 1]]);
}

#[test]
fn a_group_is_removed_if_all_its_filters_are_zero() {
    // One filter of each group is zero.
    let mut build = Build::new(&[1, 3, 6, 6]);
    let x = Layer { zeros: &[2], ..Layer::new(6, 3, 1) }.first(&mut build);
    let x = Layer { groups: 2, zeros: &[1, 3], ..Layer::new(4, 3, 3) }.add(&mut build, x);
    let y = Layer::new(4, 4, 1).add(&mut build, x);
    assert_eq!(cut(build, y), [[6, 3], [4, 3], [4, 4]]);
    // All of the first group are zero.
    let mut build = Build::new(&[1, 3, 6, 6]);
    let x = Layer { zeros: &[4], ..Layer::new(6, 3, 1) }.first(&mut build);
    let x = Layer { groups: 3, zeros: &[0, 1, 2, 5], bias: 0.5, ..Layer::new(9, 2, 3) }.add(&mut build, x);
    let y = Layer::new(4, 9, 1).add(&mut build, x);
    assert_eq!(cut(build, y), [[4, 3], [6, 2], [4, 6]]);
    // A depthwise layer with two filters per channel.
    let mut build = Build::new(&[1, 3, 6, 6]);
    let x = Layer { zeros: &[2], ..Layer::new(3, 3, 1) }.first(&mut build);
    let x = Layer { groups: 3, zeros: &[4, 5], ..Layer::new(6, 1, 3) }.add(&mut build, x);
    let y = Layer::new(4, 6, 1).add(&mut build, x);
    assert_eq!(cut(build, y), [[2, 3], [4, 1], [4, 4]]);
}

#[test]
fn a_concatenation_has_the_channels_of_all_its_operands() {
    let mut build = Build::new(&[1, 3, 5, 5]);
    let a = Layer { zeros: &[0, 3], ..Layer::new(4, 3, 1) }.first(&mut build);
    let b = Layer { zeros: &[1], bias: 0.5, ..Layer::new(3, 3, 3) }.first(&mut build);
    let a = Layer { zeros: &[2], ..Layer::new(5, 4, 3) }.add(&mut build, a);
    let x = build.add(Concat { axis: 1 }, &[a, b, a]);
    let x = relu(&mut build, x);
    let y = Layer::new(2, 13, 1).add(&mut build, x);
    assert_eq!(cut(build, y), [[2, 3], [2, 3], [4, 2], [2, 10]]);
    // An input of the graph is concatenated, and stays.
    let mut build = Build::new(&[1, 3, 5, 5]);
    let a = Layer { zeros: &[0, 3], ..Layer::new(4, 3, 1) }.first(&mut build);
    let x = build.add(Concat { axis: 1 }, &[build.x, a]);
    let y = Layer { unread: &[1], ..Layer::new(2, 7, 1) }.add(&mut build, x);
    assert_eq!(cut(build, y), [[2, 3], [2, 5]]);
}

#[test]
fn parts_of_a_split_lose_their_own_channels() {
    let mut build = Build::new(&[1, 3, 5, 5]);
    let x = Layer { zeros: &[0, 1, 4], ..Layer::new(6, 3, 1) }.first(&mut build);
    let part = |start| Slice { axis: 1, start, len: 3, step: 1 };
    let (a, b) = (build.add(part(0), &[x]), build.add(part(3), &[x]));
    let a = Layer { pad: 1, ..Layer::new(4, 3, 3) }.add(&mut build, a);
    let b = Layer::new(4, 3, 1).add(&mut build, b);
    let y = build.binary(BinaryKind::Add, a, b);
    assert_eq!(cut(build, y), [[3, 3], [4, 2], [4, 1]]);
}

/// Attention with `heads` heads of 3 columns over `[batch, 4, 6]`, of which the heads `zeros` are pruned.
fn attention(batch: usize, heads: usize, zeros: &[usize], fused: bool) -> Vec<[usize; 2]> {
    let (length, width, size) = (4, 6, 3);
    let columns: Vec<usize> = zeros.iter().flat_map(|head| head * size..(head + 1) * size).collect();
    let mut build = Build::new(&[1, batch * length, width]);
    let (all, input) = (heads * size, build.x);
    let rows = [batch, length, heads, size];
    let to_heads = |build: &mut Build, x: ValueId| {
        let x = build.add(Transpose::new(&[0, 2, 1, 3]).unwrap(), &[x]);
        reshape(build, x, &[batch * heads, length, size])
    };
    let parts: Vec<ValueId> = if fused {
        let columns: Vec<usize> =
            (0..3).flat_map(|part| columns.iter().map(move |column| part * all + column)).collect();
        let x = product(&mut build, input, 3 * all, width, true, &columns);
        let x = reshape(&mut build, x, &[batch, length, 3, heads, size]);
        let x = build.add(Transpose::new(&[2, 0, 1, 3, 4]).unwrap(), &[x]);
        let part = |start| Slice { axis: 0, start, len: 1, step: 1 };
        (0..3)
            .map(|at| {
                let x = build.add(part(at), &[x]);
                let x = reshape(&mut build, x, &rows);
                to_heads(&mut build, x)
            })
            .collect()
    } else {
        (0..3)
            .map(|_| {
                let x = product(&mut build, input, all, width, false, &columns);
                let x = reshape(&mut build, x, &rows);
                to_heads(&mut build, x)
            })
            .collect()
    };
    let plain = |transposed| MatMul { transposed, activation: Activation::None };
    let scores = build.add(plain(true), &parts[..2]);
    let scores = build.with(BinaryKind::Mul, scores, 0.5);
    let weights = build.add(Softmax { axes: vec![2], kind: SoftmaxKind::Softmax }, &[scores]);
    let x = build.add(plain(false), &[weights, parts[2]]);
    let x = reshape(&mut build, x, &[batch, heads, length, size]);
    let x = build.add(Transpose::new(&[0, 2, 1, 3]).unwrap(), &[x]);
    let x = reshape(&mut build, x, &[1, batch * length, all]);
    let y = product(&mut build, x, 5, all, true, &[]);
    cut(build, y).into_iter().filter(|size| *size != [4, 3] && *size != [3, 4]).collect()
}

#[test]
fn zero_heads_are_removed_from_attention() {
    for batch in [1, 2] {
        assert_eq!(attention(batch, 5, &[1, 2, 4], false), [[6, 6], [6, 6], [6, 6], [5, 6]], "batch {batch}");
        assert_eq!(attention(batch, 5, &[0, 4], true), [[27, 6], [5, 9]], "batch {batch}, fused");
        assert_eq!(attention(batch, 3, &[], true), [[27, 6], [5, 9]], "batch {batch}, dense");
    }
}

/// A network with `width` channels; if it is pruned, with twice as many, half of which are zeros.
fn half(width: usize, pruned: bool) -> Graph {
    let all = if pruned { 2 * width } else { width };
    // Every other one.
    let zeros: Vec<usize> = if pruned { (0..width).map(|i| 2 * i + 1).collect() } else { Vec::new() };
    let layer = |depth, kernel| Layer { pad: kernel / 2, zeros: &zeros, ..Layer::new(all, depth, kernel) };
    let mut build = Build::new(&[1, 3, 12, 12]);
    let x = layer(3, 3).first(&mut build);
    let stem = relu(&mut build, x);
    let x = layer(all, 1).add(&mut build, stem);
    let x = build.activate(Activation::HardSwish, x);
    let x = Layer { groups: all, ..layer(1, 3) }.add(&mut build, x);
    let scale = build.constant(&[1, all, 1, 1], &vec![0.5; all]);
    let x = build.binary(BinaryKind::Mul, x, scale);
    let x = relu(&mut build, x);
    let gate = mean(&mut build, x, true);
    let gate = layer(all, 1).add(&mut build, gate);
    let gate = relu(&mut build, gate);
    let gate = layer(all, 1).add(&mut build, gate);
    let gate = build.activate(Activation::HardSigmoid { alpha: 0.2, beta: 0.5 }, gate);
    let x = build.binary(BinaryKind::Mul, x, gate);
    let x = layer(all, 1).add(&mut build, x);
    let x = build.binary(BinaryKind::Add, x, stem);
    let y = layer(all, 3).add(&mut build, stem);
    let x = build.add(Concat { axis: 1 }, &[x, y]);
    let x = layer(2 * all, 1).add(&mut build, x);
    let x = relu(&mut build, x);
    let x = reshape(&mut build, x, &[1, 1, all * 144]);
    let x = product(&mut build, x, all, all * 144, true, &zeros);
    let x = relu(&mut build, x);
    let y = product(&mut build, x, 10, all, false, &[]);
    build.optimized(y, 1e-4)
}

#[test]
fn half_of_the_filters_zeroed_is_half_of_the_width() {
    for width in [1, 3, 8] {
        let (pruned, small) = (half(width, true), half(width, false));
        let steps = |graph: &Graph| -> Vec<String> {
            let facts = |node: &Node| [graph.facts(&node.inputs), graph.facts(&node.outputs)].map(|f| format!("{f:?}"));
            graph.nodes.iter().map(|node| format!("{:?} {:?}", node.op, facts(node))).collect()
        };
        assert_eq!(steps(&pruned), steps(&small), "width {width}");
        let macs = |graph: &Graph| -> u64 {
            graph.nodes.iter().map(|n| n.op.macs(&graph.facts(&n.inputs), &graph.facts(&n.outputs))).sum()
        };
        assert_eq!(macs(&pruned), macs(&small));
        assert!(small.removed.is_empty());
        let stem = Removed { node: "n0".into(), filters: [2 * width, width], channels: [3, 3] };
        assert_eq!(pruned.removed.first(), Some(&stem), "{:?}", pruned.removed);
    }
}

#[test]
fn a_sum_loses_channels_that_both_operands_lost() {
    for first in [false, true] {
        let mut build = Build::new(&[1, 3, 5, 5]);
        let x = Layer { zeros: &[0, 1, 4], ..Layer::new(5, 3, 1) }.first(&mut build);
        let x = if first { x } else { relu(&mut build, x) };
        let a = Layer { zeros: &[1, 2, 4], pad: 1, ..Layer::new(5, 5, 3) }.add(&mut build, x);
        let mut sum = build.binary(BinaryKind::Add, a, x);
        if first {
            sum = relu(&mut build, sum);
        }
        let y = Layer { pad: 1, ..Layer::new(2, 5, 3) }.add(&mut build, sum);
        assert_eq!(cut(build, y), [[3, 3], [3, 3], [2, 3]]);
    }
}

#[test]
fn outputs_keep_their_shape() {
    let mut build = Build::new(&[1, 3, 5, 5]);
    let x = Layer { zeros: &[1], ..Layer::new(5, 3, 1) }.first(&mut build);
    let x = relu(&mut build, x);
    build.output(x);
    let y = Layer { zeros: &[0], ..Layer::new(5, 5, 1) }.add(&mut build, x);
    build.output(y);
    let input = [Random(9).floats(&[1, 3, 5, 5])];
    let want = build.graph.evaluate(&input).unwrap();
    super::super::optimize(&mut build.graph).unwrap();
    build.graph.check().unwrap();
    for (got, want) in build.graph.evaluate(&input).unwrap().iter().zip(&want) {
        assert_close(got, want, 1e-5, "outputs");
    }
    assert_eq!(sizes(&build.graph), [[5, 3], [5, 5]]);
}

#[test]
fn one_channel_remains_if_all_are_zero() {
    let mut build = Build::new(&[1, 3, 5, 5]);
    let x = Layer { zeros: &[0, 1, 2, 3], bias: 0.5, ..Layer::new(4, 3, 3) }.first(&mut build);
    let x = relu(&mut build, x);
    let y = Layer::new(5, 4, 1).add(&mut build, x);
    assert_eq!(cut(build, y), [[1, 3], [5, 1]]);
}

#[test]
fn constants_are_cut_along_channels_but_not_along_pixels() {
    let mut build = Build::new(&[1, 3, 2, 3]);
    let x = Layer { zeros: &[1], ..Layer::new(3, 3, 1) }.first(&mut build);
    // PRelu, so that it is not folded into the weights.
    let slopes = build.constant(&[3, 1, 1], &[0.1, 0.2, 0.3]);
    let x = build.binary(BinaryKind::PRelu, x, slopes);
    let pixels = build.constant(&[2, 3], &[1., 2., 3., 4., 5., 6.]);
    let x = build.binary(BinaryKind::Mul, x, pixels);
    let y = Layer { pad: 1, ..Layer::new(2, 3, 3) }.add(&mut build, x);
    assert_eq!(cut(build, y), [[2, 3], [2, 2]]);
    // A sum with a varying value is not constant any more.
    let mut build = Build::new(&[1, 3, 2, 3]);
    let x = Layer { zeros: &[1], ..Layer::new(3, 3, 1) }.first(&mut build);
    let pixels = build.constant(&[2, 3], &[1., 2., 3., 4., 5., 6.]);
    let x = build.binary(BinaryKind::Add, x, pixels);
    let y = Layer::new(2, 3, 1).add(&mut build, x);
    assert_eq!(cut(build, y), [[3, 3], [2, 3]]);
}

#[test]
fn channels_meeting_other_axes_or_inputs_are_kept() {
    // The input of the graph has channels that cannot be removed.
    let mut build = Build::new(&[1, 5, 3, 4]);
    let x = Layer { zeros: &[1], ..Layer::new(5, 5, 1) }.first(&mut build);
    let x = build.binary(BinaryKind::Max, x, build.x);
    let y = Layer { unread: &[1], ..Layer::new(2, 5, 1) }.add(&mut build, x);
    assert_eq!(cut(build, y), [[5, 5], [2, 5]]);
    // Channels and columns meet in a sum.
    let mut build = Build::new(&[1, 5, 3, 5]);
    let x = Layer { zeros: &[1], ..Layer::new(5, 5, 1) }.first(&mut build);
    let turned = build.add(Transpose::new(&[0, 3, 2, 1]).unwrap(), &[x]);
    let x = build.binary(BinaryKind::Max, x, turned);
    let y = Layer { unread: &[1], ..Layer::new(2, 5, 1) }.add(&mut build, x);
    assert_eq!(cut(build, y), [[5, 5], [2, 5]]);
}

#[test]
fn all_pixels_of_a_channel_are_removed_after_flattening() {
    for transposed in [false, true] {
        let mut build = Build::new(&[2, 3, 3, 2]);
        let x = Layer { zeros: &[3, 4], bias: 0.5, ..Layer::new(5, 3, 1) }.first(&mut build);
        let x = relu(&mut build, x);
        let x = reshape(&mut build, x, &[2, 30]);
        let x = reshape(&mut build, x, &[1, 2, 30]);
        let x = product(&mut build, x, 7, 30, transposed, &[0, 6]);
        let x = build.activate(Activation::Gelu, x);
        let y = product(&mut build, x, 4, 7, transposed, &[]);
        assert_eq!(cut(build, y), [[3, 3], [5, 18], [4, 5]]);
    }
}

/// A network with every kind of layer, with filters pruned to zero: stem, a block with a depthwise layer, a gate and a
/// residual, and a classifier.
#[test]
fn a_whole_pruned_network() {
    let mut build = Build::new(&[1, 3, 9, 9]);
    let x = Layer { zeros: &[2], pad: 1, ..Layer::new(7, 3, 3) }.first(&mut build);
    let stem = build.activate(Activation::HardSwish, x);
    let x = Layer { zeros: &[0, 5, 6, 10], ..Layer::new(11, 7, 1) }.add(&mut build, stem);
    let x = build.activate(Activation::HardSwish, x);
    // Pruned together with its filters, except channel 6: its bias is scaled, and so it stays.
    let x = Layer { groups: 11, pad: 2, zeros: &[0, 5, 10], ..Layer::new(11, 1, 5) }.add(&mut build, x);
    let x = build.activate(Activation::HardSwish, x);
    let gate = mean(&mut build, x, true);
    let gate = Layer { zeros: &[1], bias: -1.0, ..Layer::new(3, 11, 1) }.add(&mut build, gate);
    let gate = relu(&mut build, gate);
    let gate = Layer::new(11, 3, 1).add(&mut build, gate);
    let gate = build.activate(Activation::HardSigmoid { alpha: 1.0 / 6.0, beta: 0.5 }, gate);
    let x = build.binary(BinaryKind::Mul, gate, x);
    let x = Layer { zeros: &[2], ..Layer::new(7, 11, 1) }.add(&mut build, x);
    let x = build.binary(BinaryKind::Add, stem, x);
    let x = Layer { zeros: &[1, 2, 3], bias: 0.25, ..Layer::new(9, 7, 1) }.add(&mut build, x);
    let x = relu(&mut build, x);
    let x = mean(&mut build, x, false);
    let x = reshape(&mut build, x, &[1, 1, 9]);
    let x = product(&mut build, x, 8, 9, true, &[7]);
    let x = relu(&mut build, x);
    let x = product(&mut build, x, 10, 8, true, &[]);
    let y = reshape(&mut build, x, &[1, 10]);
    assert_eq!(cut(build, y), [[6, 3], [8, 6], [8, 1], [2, 8], [8, 2], [6, 8], [6, 6], [7, 6], [10, 7]]);
}
