//! Random convolutional networks, with branches and loops: the optimized and planned network must give the results of
//! the original graph, also from a package.

use skipstone_kernels::Isa;
use skipstone_kernels::activation::Activation;
use skipstone_kernels::pool::PoolFn;

use super::super::{Graph, ValueId};
use super::testing::Build;
use crate::ops::binary::BinaryKind;
use crate::ops::check::{Random, check_package, planned_as_it_is};
use crate::ops::compare::{Compare, CompareKind};
use crate::ops::concat::Concat;
use crate::ops::control::{Along, Control, Loop};
use crate::ops::conv::Conv;
use crate::ops::matmul::MatMul;
use crate::ops::pad::{Pad, PadMode};
use crate::ops::pool::Pool;
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::ops::reshape::Reshape;
use crate::ops::transpose::Transpose;
use crate::package::attack::attacks;
use crate::tensor::{DType, Fact, Shape, Tensor};

/// A network under construction.
struct Network {
    build: Build,
    random: Random,
    /// The images so far, of any size.
    images: Vec<ValueId>,
    /// Weights so far, for reuse.
    weights: Vec<ValueId>,
    /// Nesting depth of blocks.
    depth: usize,
}

impl Network {
    fn new(seed: u64) -> Self {
        let mut random = Random(seed);
        let dims = [random.pick(&[1, 1, 2]), 1 + random.below(9), 1 + random.below(10), 1 + random.below(10)];
        let build = Build::new(&dims);
        let (images, weights) = (vec![build.x], Vec::new());
        let mut network = Self { build, random, images, weights, depth: 0 };
        let steps = 2 + network.random.below(9);
        let chain = network.random.below(2) == 0;
        for _ in 0..steps {
            // Mostly a chain, because values that are read once are fused.
            let x = if chain || network.random.below(4) > 0 { network.last() } else { network.any() };
            let y = network.grow(x);
            network.images.push(y);
        }
        let y = network.head();
        network.build.output(y);
        if network.random.below(4) == 0 {
            let also = network.any();
            network.build.output(also);
        }
        network
    }

    fn last(&self) -> ValueId {
        *self.images.last().unwrap()
    }

    fn any(&mut self) -> ValueId {
        self.random.pick(&self.images)
    }

    fn dims(&self, id: ValueId) -> [usize; 4] {
        self.build.graph.fact(id).shape.dims().try_into().unwrap()
    }

    /// Elements small enough that a sum of `terms` products stays small.
    fn constant(&mut self, dims: &[usize], terms: usize) -> ValueId {
        let factor = 0.5 / (terms as f32).sqrt();
        let numbers: Vec<f32> = (0..dims.iter().product()).map(|_| self.random.float() * factor).collect();
        self.build.constant(dims, &numbers)
    }

    fn grow(&mut self, x: ValueId) -> ValueId {
        match self.random.below(if self.depth < 2 { 20 } else { 18 }) {
            0..4 => self.pointwise(x),
            4..8 => self.depthwise(x),
            8 | 9 => self.any_conv(x),
            10 | 11 => self.add_another(x),
            12 => self.excite(x),
            13 => self.normalize(x),
            14 => self.pool(x),
            15 => self.concat(x),
            16 => self.pad(x),
            17 => self.tokens(x),
            18 => self.branch(x),
            _ => self.repeat(x),
        }
    }

    /// One of two blocks, by the sum of an image.
    fn branch(&mut self, x: ValueId) -> ValueId {
        let sum = self.build.add(Reduce { axes: vec![0, 1, 2, 3], kind: ReduceKind::Sum, keep_dims: false }, &[x]);
        let zero = self.build.constant(&[], &[0.0]);
        let condition = self.build.add(Compare { kind: CompareKind::Greater }, &[sum, zero]);
        let filters = 1 + self.random.below(9);
        let blocks = (0..2).map(|_| {
            self.build.graph.begin_block().unwrap();
            let y = self.inside(x, filters);
            self.build.graph.end_block(&[y]).unwrap()
        });
        let blocks = blocks.collect();
        self.build.graph.add_control("branch", Control::If, &[condition], blocks).unwrap()[0]
    }

    /// A block that runs a few times on an image.
    fn repeat(&mut self, x: ValueId) -> ValueId {
        let one = |dtype| Fact::new(dtype, Shape::default());
        let fact = self.build.graph.fact(x).clone();
        self.build.graph.begin_block().unwrap();
        self.build.graph.add_parameter("i", one(DType::I64)).unwrap();
        let goes_on = self.build.graph.add_parameter("go", one(DType::Bool)).unwrap();
        let held = self.build.graph.add_parameter("held", fact).unwrap();
        self.images.push(held);
        let channels = self.dims(x)[1];
        let y = self.inside(held, channels);
        let y = self.build.activate(Activation::Tanh, y);
        self.images.pop();
        let collects = self.random.below(2);
        let body = self.build.graph.end_block(&[goes_on, y, y][..2 + collects]).unwrap();
        let iterations = Some(self.random.below(4));
        let op = Loop { iterations, carried: 1, collected: vec![Along::default(); collects], ..Loop::default() };
        let ys = self.build.graph.add_control("loop", op, &[x], vec![body]).unwrap();
        if self.depth == 0 && collects > 0 {
            self.build.output(ys[1]);
        }
        ys[0]
    }

    /// A few layers in a block; the last has this many channels and as many pixels as `x`.
    fn inside(&mut self, x: ValueId, filters: usize) -> ValueId {
        let around = self.images.len();
        self.depth += 1;
        let mut y = x;
        for _ in 0..self.random.below(4) {
            let from = if self.random.below(3) > 0 { y } else { self.any() };
            y = self.grow(from);
            self.images.push(y);
        }
        self.depth -= 1;
        let [batch, _, rows, columns] = self.dims(x);
        let fits = |&id: &ValueId| matches!(self.dims(id), [b, _, r, c] if [b, r, c] == [batch, rows, columns]);
        let y = self.images.iter().rev().copied().find(fits).unwrap_or(x);
        self.images.truncate(around);
        if self.dims(y)[1] == filters && self.random.below(2) == 0 {
            return y;
        }
        let y = self.conv(Conv::POINTWISE, y, filters);
        self.activate(y)
    }

    /// Padding of an image, as TensorFlow adds it before a convolution.
    fn pad(&mut self, x: ValueId) -> ValueId {
        let mode = PadMode::Constant(Tensor::scalar(self.random.pick(&[0f32, 0.0, 0.5])));
        let mut around = || (self.random.below(3), self.random.below(3));
        let pads = vec![(0, 0), (0, 0), around(), around()];
        let x = self.build.add(Pad { pads, mode }, &[x]);
        if self.random.below(3) > 0 { self.any_conv(x) } else { x }
    }

    /// Moves channels after the pixels, which may become one axis, and back.
    fn tokens(&mut self, x: ValueId) -> ValueId {
        let dims = self.dims(x);
        let in_a_row = self.random.below(2) == 0;
        let mut y = x;
        if in_a_row {
            y = self.build.add(Reshape { shape: Shape::new(&[dims[0], dims[1], dims[2] * dims[3]]).unwrap() }, &[y]);
        }
        let last: &[usize] = if in_a_row { &[0, 2, 1] } else { &[0, 2, 3, 1] };
        y = self.build.add(Transpose::new(last).unwrap(), &[y]);
        if self.depth == 0 && self.random.below(4) == 0 {
            self.build.output(y);
        }
        y = self.activate(y);
        let second: &[usize] = if in_a_row { &[0, 2, 1] } else { &[0, 3, 1, 2] };
        y = self.build.add(Transpose::new(second).unwrap(), &[y]);
        if in_a_row { self.build.add(Reshape { shape: Shape::new(&dims).unwrap() }, &[y]) } else { y }
    }

    fn activate(&mut self, x: ValueId) -> ValueId {
        let number = self.random.float();
        let activation = self.random.pick(&[
            Activation::None,
            Activation::None,
            Activation::Relu,
            Activation::Clip { min: 0.0, max: 6.0 },
            Activation::Clip { min: -1.0, max: number.abs() },
            Activation::LeakyRelu(0.1),
            Activation::HardSwish,
            Activation::HardSigmoid { alpha: 0.2, beta: 0.5 },
            Activation::Sigmoid,
            Activation::Tanh,
            Activation::Silu,
            Activation::Gelu,
            Activation::GeluTanh,
        ]);
        match activation {
            Activation::None => x,
            // As exporters write it.
            Activation::Silu if self.random.below(2) == 0 => {
                let gate = self.build.activate(Activation::Sigmoid, x);
                self.build.binary(BinaryKind::Mul, x, gate)
            }
            _ => self.build.activate(activation, x),
        }
    }

    /// A convolution with weights, new or reused; some filters are zero.
    fn conv(&mut self, op: Conv, x: ValueId, filters: usize) -> ValueId {
        let dims = [filters, self.dims(x)[1] / op.groups, op.kernel[0], op.kernel[1]];
        let fits = |&&id: &&ValueId| self.build.graph.fact(id).shape.dims() == dims;
        let known: Vec<ValueId> = self.weights.iter().filter(fits).copied().collect();
        let weights = if !known.is_empty() && self.random.below(2) == 0 {
            self.random.pick(&known)
        } else {
            self.new_weights(&dims)
        };
        self.weights.push(weights);
        let bias = if self.random.below(3) == 0 {
            self.build.constant(&[filters], &vec![0.0; filters])
        } else {
            self.constant(&[filters], 4)
        };
        self.build.add(op, &[x, weights, bias])
    }

    fn new_weights(&mut self, dims: &[usize; 4]) -> ValueId {
        let terms: usize = dims[1..].iter().product();
        let id = self.constant(dims, terms);
        if self.random.below(2) > 0 {
            return id;
        }
        let mut pruned = self.build.graph.constant(id).unwrap().elements::<f32>().unwrap().to_vec();
        for filter in pruned.chunks_exact_mut(terms) {
            if self.random.below(3) == 0 {
                filter.fill(0.0);
            }
        }
        self.build.constant(dims, &pruned)
    }

    fn pointwise(&mut self, x: ValueId) -> ValueId {
        let filters = 1 + self.random.below(12);
        let stride = self.random.pick(&[1, 1, 1, 2]);
        let y = self.conv(Conv { stride: [stride; 2], ..Conv::POINTWISE }, x, filters);
        self.activate(y)
    }

    fn depthwise(&mut self, x: ValueId) -> ValueId {
        let channels = self.dims(x)[1];
        let kernel = self.random.pick(&[1, 3, 3, 5]);
        let stride = self.random.pick(&[1, 1, 2]);
        let op = Conv {
            kernel: [kernel; 2],
            stride: [stride; 2],
            pads: [kernel / 2; 4],
            groups: channels,
            ..Conv::POINTWISE
        };
        let y = self.conv(op, x, channels);
        self.activate(y)
    }

    /// Any kernel, stride, dilation, padding and groups with a valid result.
    fn any_conv(&mut self, x: ValueId) -> ValueId {
        let [_, channels, rows, columns] = self.dims(x);
        let divisors: Vec<usize> = (1..=channels).filter(|groups| channels % groups == 0).collect();
        let groups = self.random.pick(&divisors);
        let filters = groups * (1 + self.random.below(3));
        let mut pair = |from: &[usize]| [self.random.pick(from), self.random.pick(from)];
        let (kernel, stride, dilation) = (pair(&[1, 2, 3, 5]), pair(&[1, 1, 2, 3]), pair(&[1, 1, 2]));
        let ([top, left], [bottom, right]) = (pair(&[0, 1, 2]), pair(&[0, 1, 2]));
        let reach = |axis: usize| (kernel[axis] - 1) * dilation[axis];
        let fits = rows + top + bottom > reach(0) && columns + left + right > reach(1);
        let op = Conv { kernel, stride, dilation, pads: [top, left, bottom, right], groups, ..Conv::POINTWISE };
        if !fits {
            return self.pointwise(x);
        }
        let y = self.conv(op, x, filters);
        self.activate(y)
    }

    /// The sum, difference or product with another image of the same size, if there is one, perhaps the same image.
    fn add_another(&mut self, x: ValueId) -> ValueId {
        let same: Vec<ValueId> = self.images.iter().copied().filter(|&id| self.dims(id) == self.dims(x)).collect();
        let other = self.random.pick(&same);
        let kind = self.random.pick(&[BinaryKind::Add, BinaryKind::Add, BinaryKind::Add, BinaryKind::Sub]);
        let y = if self.random.below(2) == 0 {
            self.build.binary(kind, x, other)
        } else {
            self.build.binary(kind, other, x)
        };
        self.activate(y)
    }

    /// A gate for every channel, computed from the image's mean.
    fn excite(&mut self, x: ValueId) -> ValueId {
        let channels = self.dims(x)[1];
        let mean = Reduce { axes: vec![2, 3], kind: ReduceKind::Mean, keep_dims: true };
        let gate = self.build.add(mean, &[x]);
        let gate = self.pointwise_to(gate, 1 + channels / 2);
        let gate = self.build.activate(Activation::Relu, gate);
        let gate = self.pointwise_to(gate, channels);
        let function = self.random.pick(&[Activation::Sigmoid, Activation::HardSigmoid { alpha: 0.2, beta: 0.5 }]);
        let gate = self.build.activate(function, gate);
        self.build.binary(BinaryKind::Mul, x, gate)
    }

    fn pointwise_to(&mut self, x: ValueId, filters: usize) -> ValueId {
        self.conv(Conv::POINTWISE, x, filters)
    }

    /// A scale and a shift for every channel, as from batch normalization.
    fn normalize(&mut self, x: ValueId) -> ValueId {
        let dims = [1, self.dims(x)[1], 1, 1];
        let (scale, shift) = (self.constant(&dims, 1), self.constant(&dims, 1));
        let y = self.build.binary(BinaryKind::Mul, x, scale);
        let y = self.build.binary(BinaryKind::Add, y, shift);
        self.activate(y)
    }

    fn pool(&mut self, x: ValueId) -> ValueId {
        let [_, _, rows, columns] = self.dims(x);
        if rows < 2 || columns < 2 {
            return self.pointwise(x);
        }
        let function = self.random.pick(&[PoolFn::Max, PoolFn::Average { count_padding: false }]);
        let (two, one) = ([2, 2], [1, 1]);
        let out = [rows / 2, columns / 2];
        let layout = Conv::POINTWISE.layout;
        let op = Pool { function, kernel: two, stride: two, dilation: one, pads: [0; 4], out, layout };
        self.build.add(op, &[x])
    }

    /// Concatenated with another image with as many pixels.
    fn concat(&mut self, x: ValueId) -> ValueId {
        let pixels = |[batch, _, rows, columns]: [usize; 4]| [batch, rows, columns];
        let same = |&id: &ValueId| pixels(self.dims(id)) == pixels(self.dims(x)) && self.dims(id)[1] < 20;
        let same: Vec<ValueId> = self.images.iter().copied().filter(same).collect();
        if same.is_empty() {
            return x;
        }
        let other = self.random.pick(&same);
        self.build.add(Concat { axis: 1 }, &[x, other])
    }

    /// The last image, or classes from its mean.
    fn head(&mut self) -> ValueId {
        let x = self.last();
        if self.random.below(2) == 0 {
            return x;
        }
        let [batch, channels, ..] = self.dims(x);
        let mean = self.build.add(Reduce { axes: vec![2, 3], kind: ReduceKind::Mean, keep_dims: true }, &[x]);
        let shape = Shape::new(&[1, batch, channels]).unwrap();
        let row = self.build.add(Reshape { shape }, &[mean]);
        let classes = self.constant(&[1, channels, 5], channels);
        self.build.add(MatMul { transposed: false, activation: Activation::None }, &[row, classes])
    }
}

/// The largest difference, relative to the largest element or 1.
fn difference(got: &Tensor, want: &Tensor) -> f32 {
    assert_eq!(got.fact(), want.fact());
    let (got, want) = (got.elements::<f32>().unwrap(), want.elements::<f32>().unwrap());
    let largest = want.iter().fold(1f32, |largest, w| largest.max(w.abs()));
    got.iter().zip(want).map(|(g, w)| (g - w).abs() / largest).fold(0.0, f32::max)
}

#[test]
fn networks_give_the_same_answer_with_and_without_passes() {
    type Rewrite = fn(&mut Graph) -> crate::Result<()>;
    let rewrites: [(&str, Rewrite); 3] = [
        ("without passes", super::required),
        ("with passes", |graph| super::optimize(graph).map(|_| ())),
        ("with bottlenecks everywhere", super::everywhere),
    ];
    let isas: Vec<Isa> = Isa::available().collect();
    for seed in 0..u64::from(attacks(1000)) {
        let Network { build, mut random, .. } = Network::new(seed);
        let graph = build.graph;
        let x = [random.floats(&graph.fact(build.x).shape.clone())];
        let want = graph.evaluate(&x).unwrap();
        for (how, rewrite) in rewrites {
            let isa = random.pick(&isas);
            let mut rewritten = graph.copy().unwrap();
            rewrite(&mut rewritten).unwrap_or_else(|error| panic!("network {seed} {how}: {error}"));
            let got = planned_as_it_is(&rewritten, isa, &x);
            let got = got.unwrap_or_else(|error| panic!("network {seed} {how} with {isa}: {error}"));
            for (got, want) in got.iter().zip(&want) {
                let difference = difference(got, want);
                assert!(difference <= 1e-4, "network {seed} {how} with {isa}: {difference}");
            }
        }
        if graph.nodes.iter().any(|node| !node.blocks.is_empty()) && seed % 8 == 0 {
            check_package(graph, &x);
        }
    }
}
