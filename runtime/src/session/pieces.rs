//! Long steps are cut into pieces: with the largest single step of every operator, a run asks often enough whether it
//! is to stop, ends soon after the answer is yes, and gives the same bytes with any number of threads. So are the copies
//! after the last step.
//!
//! Nothing here looks at a clock: debug builds count the questions.

use skipstone_kernels::activation::Activation;
use skipstone_kernels::layernorm::Norm;
use skipstone_kernels::pool::PoolFn;
use skipstone_kernels::qmap::QBinaryFn;
use skipstone_kernels::qpool::Mean;
use skipstone_kernels::requantize::Requantize;

use crate::error::Error;
use crate::graph::{Graph, Variable};
use crate::operator::Operator;
use crate::ops::accumulate::Accumulate;
use crate::ops::activate::Activate;
use crate::ops::argmax::ArgMax;
use crate::ops::attention::Attention;
use crate::ops::binary::{Binary, BinaryKind};
use crate::ops::bottleneck::Bottleneck;
use crate::ops::broadcast::{Expand, Tile};
use crate::ops::cast::Cast;
use crate::ops::check::single;
use crate::ops::compare::{Compare, CompareKind};
use crate::ops::concat::Concat;
use crate::ops::contract::Contract;
use crate::ops::conv::Conv;
use crate::ops::conv_integer::ConvInteger;
use crate::ops::cumsum::CumSum;
use crate::ops::curve::Curve;
use crate::ops::dequantize::Dequantize;
use crate::ops::dynamic_quantize::DynamicQuantize;
use crate::ops::found::Found;
use crate::ops::gather::Gather;
use crate::ops::gather_elements::GatherElements;
use crate::ops::group_norm::GroupNorm;
use crate::ops::image::Layout;
use crate::ops::indexed::{GatherNd, ScatterNd};
use crate::ops::layernorm::LayerNorm;
use crate::ops::look_up::LookUp;
use crate::ops::masked::Masked;
use crate::ops::matmul::MatMul;
use crate::ops::one_hot::OneHot;
use crate::ops::pad::{Pad, PadMode};
use crate::ops::pool::Pool;
use crate::ops::qbinary::QBinary;
use crate::ops::qconv::{QConv, QResult};
use crate::ops::qpool::QPool;
use crate::ops::quantize::Quantize;
use crate::ops::recurrent::{Cell, Direction, Gate, Given, Recurrent};
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::ops::regions::{RegionKind, Regions};
use crate::ops::resize::{Coordinates, Resize, ResizeMode, Rounding};
use crate::ops::resize_axis::{Filter, ResizeAxis};
use crate::ops::routed::Routed;
use crate::ops::sample::{Outside, Sample, SampleMode};
use crate::ops::scatter_elements::ScatterElements;
use crate::ops::select::Select;
use crate::ops::slice::Slice;
use crate::ops::softmax::{Softmax, SoftmaxKind};
use crate::ops::stem::Stem;
use crate::ops::suppress::Suppress;
use crate::ops::topk::TopK;
use crate::ops::transpose::Transpose;
use crate::ops::trees::{Aggregate, Branch, Test, Trees};
use crate::ops::trim::Trim;
use crate::ops::unary::{Unary, UnaryKind};
use crate::ops::volume::VolumeConv;
use crate::ops::window_pool::{Of, WindowPool};
use crate::ops::{NUMBERS, Op};
use crate::tensor::{DType, Fact, Shape, Tensor};
use crate::{Model, Options};

/// Elements of a large tensor: three pieces.
const N: usize = 3 << 18;
/// Most elements, and most multiply-adds, between two questions, as powers of two.
const ELEMENTS: u32 = 18;
const MACS: u32 = 25;
/// Most questions that a run asks after the first that is answered with yes: the loops it leaves ask once more each.
const AFTER: u64 = 100;

/// Operators of which no step does work of its own.
const WITHOUT_WORK: [&str; 4] = [
    // Left out of plans.
    "Reshape", // Steps around other steps, before each of which a run asks.
    "Control", // Only an error.
    "Refuse",  // One number.
    "Length",
];

/// A step.
struct Case {
    op: Op,
    inputs: Vec<Tensor>,
    /// Positions of the inputs that are constants.
    constants: &'static [usize],
}

fn case(op: impl Into<Op>, inputs: Vec<Tensor>) -> Case {
    Case { op: op.into(), inputs, constants: &[] }
}

impl Case {
    fn constant(self, constants: &'static [usize]) -> Self {
        Self { constants, ..self }
    }

    /// The model on so many threads, and its inputs.
    fn model(&self, threads: usize) -> Model {
        let graph = single(self.op.clone(), &self.inputs, self.constants);
        Model::of_optimized(graph, &Options::default().threads(threads)).unwrap()
    }

    fn given(&self) -> Vec<&Tensor> {
        let given = self.inputs.iter().enumerate().filter(|(at, _)| !self.constants.contains(at));
        given.map(|(_, tensor)| tensor).collect()
    }

    /// The questions that the step has to ask at least.
    fn least(&self) -> u64 {
        let inputs: Vec<&Fact> = self.inputs.iter().map(Tensor::fact).collect();
        let outputs = self.op.infer(&inputs).unwrap();
        let macs = self.op.macs(&inputs, &outputs.iter().collect::<Vec<_>>());
        let elements =
            inputs.iter().map(|fact| fact.shape.elements()).chain(outputs.iter().map(|y| y.shape.elements()));
        // The first piece begins with the step, before which a run asks in another way.
        ((elements.max().unwrap_or(0) as u64 >> ELEMENTS).saturating_sub(1)).max(macs >> MACS)
    }

    #[track_caller]
    fn check(&self) {
        let views: Vec<_> = self.given().into_iter().map(Tensor::view).collect();
        let shapes: Vec<_> = self.inputs.iter().map(|t| t.fact().to_string()).collect();
        let model = self.model(1);
        let mut session = model.session().unwrap();
        let what = format!("{:?} ({}) of {shapes:?}", self.op, model.plan().unwrap().steps[0].choice.kernel);

        session.pool.questions().restart(u64::MAX);
        session.run(&views).unwrap();
        let (asked, least) = (session.pool.questions().count(), self.least());
        assert!(least >= 2, "{what} is too small for this test");
        assert!(asked >= least, "{what} asks {asked} times, not {least}");
        let bytes = session.output(0).unwrap().to_tensor().bytes().to_vec();
        let model = self.model(3);
        let mut shared = model.session().unwrap();
        shared.run(&views).unwrap();
        assert!(bytes == shared.output(0).unwrap().bytes(), "{what} depends on the threads");

        for last in [1, asked.div_ceil(2)] {
            session.pool.questions().restart(last);
            let result = session.run(&views);
            assert!(matches!(result, Err(Error::Cancelled { step: 0 })), "{what}, question {last}: {result:?}");
            let after = session.pool.questions().count() - last;
            assert!(after <= AFTER, "{what} asks {after} times after the answer is yes");
        }
    }
}

/// The results of `of` for the numbers below 1021, over and over.
fn repeated<T: Copy>(dims: &[usize], of: impl Fn(usize) -> T) -> Vec<T> {
    let (period, len): (Vec<T>, usize) = ((0..1021).map(of).collect(), dims.iter().product());
    let mut values = period.repeat(len / period.len() + 1);
    values.truncate(len);
    values
}

/// Small numbers of both signs, different from their neighbors.
fn floats(dims: &[usize]) -> Tensor {
    Tensor::from_slice(dims, &repeated(dims, |i| (i * 977 % 1021) as f32 / 256.0 - 2.0)).unwrap()
}

fn i64s(dims: &[usize], below: usize) -> Tensor {
    Tensor::from_slice(dims, &repeated(dims, |i| (i * 977 % below) as i64)).unwrap()
}

fn bytes(dtype: DType, dims: &[usize]) -> Tensor {
    let most = if dtype == DType::Bool { 2 } else { 251 };
    let fact = Fact::new(dtype, Shape::new(dims).unwrap());
    Tensor::from_bytes(fact, &repeated(dims, |i| (i * 7 % most) as u8)).unwrap()
}

fn cast(x: &Tensor, to: DType) -> Tensor {
    use crate::operator::Semantics;
    Cast { to }.evaluate(&[x]).unwrap().remove(0)
}

fn conv(kernel: [usize; 2], groups: usize) -> Conv {
    let pads = [kernel[0] / 2, kernel[1] / 2, kernel[0] / 2, kernel[1] / 2];
    Conv { kernel, pads, groups, layout: Layout::Nhwc, ..Conv::POINTWISE }
}

/// One window, as wide as the image.
fn whole(columns: usize) -> Conv {
    Conv { pads: [0; 4], ..conv([1, columns], 1) }
}

/// Images, weights and bias.
fn convolved(image: [usize; 4], weights: [usize; 4]) -> Vec<Tensor> {
    vec![floats(&image), floats(&weights), floats(&weights[..1])]
}

fn pool(function: PoolFn, kernel: [usize; 2], out: [usize; 2]) -> Pool {
    Pool { kernel, out, layout: Layout::Nhwc, ..Pool::global(function, 1, 1) }
}

fn volume(transposed: bool, groups: usize) -> VolumeConv {
    let (kernel, one, out) = ([1, 1, 3], [1; 3], [1, 1, (1 << 15) - 2]);
    VolumeConv { transposed, kernel, stride: one, dilation: one, pads: [0; 3], out, groups }
}

/// The largest steps of an operator: whatever a kernel might compute at once is large.
#[allow(clippy::too_many_lines)]
fn cases(operator: &str) -> Vec<Case> {
    let square = |dtype: DType| vec![bytes(dtype, &[1 << 10, 1 << 10])];
    let row = || vec![floats(&[1, N])];
    match operator {
        "Transpose" => vec![
            case(Transpose::new(&[0, 2, 1]).unwrap(), vec![floats(&[2, 1 << 10, 1 << 10])]),
            case(Transpose::new(&[1, 0]).unwrap(), square(DType::U8)),
            case(Transpose::new(&[1, 0, 2]).unwrap(), vec![floats(&[2, 2, N / 4])]),
            case(Transpose::new(&[0, 2, 1, 3]).unwrap(), vec![floats(&[2, 1 << 10, 1 << 9, 2])]),
        ],
        "Conv" => vec![
            case(conv([1, 1], 1), convolved([1, 1, 1 << 15, 64], [64, 64, 1, 1])).constant(&[1, 2]),
            case(conv([1, 3], 8), convolved([1, 1, N / 8, 8], [8, 1, 1, 3])).constant(&[1, 2]),
            case(conv([1, 3], 2), convolved([1, 1, 1 << 15, 64], [64, 32, 1, 3])).constant(&[1, 2]),
            case(conv([3, 3], 1), convolved([1, 128, 128, 32], [32, 32, 3, 3])).constant(&[1, 2]),
            // Weights that are packed in the run.
            case(conv([1, 1], 1), convolved([1, 1, 8, 1 << 11], [1 << 10, 1 << 11, 1, 1])),
            case(conv([1, 1], N), convolved([1, 1, 1, N], [N, 1, 1, 1])),
            // Filters with many weights: of one channel, of two, and of many.
            case(whole(N), convolved([1, 1, N, 1], [1, 1, 1, N])).constant(&[1, 2]),
            case(whole(N / 2), convolved([1, 1, N / 2, 2], [1, 2, 1, N / 2])).constant(&[1, 2]),
            case(conv([1, 3], 1), convolved([1, 1, 4, N / 4], [1, N / 4, 1, 3])).constant(&[1, 2]),
            // Depthwise, with too many channels for a tile.
            case(conv([3, 3], 1 << 17), convolved([1, 2, 3, 1 << 17], [1 << 17, 1, 3, 3])).constant(&[1, 2]),
        ],
        "Bottleneck" => {
            let [depthwise, project] = [conv([3, 3], 16), conv([1, 1], 1)];
            let bottleneck = Bottleneck { expand: None, depthwise, project: Some(project) };
            let mut inputs = convolved([1, 256, 512, 16], [16, 1, 3, 3]);
            inputs.extend([floats(&[32, 16, 1, 1]), floats(&[32])]);
            vec![case(bottleneck, inputs).constant(&[1, 2, 3, 4])]
        }
        "MatMul" => {
            let product = MatMul { transposed: false, activation: Activation::None };
            vec![
                case(product.clone(), vec![floats(&[1, 64, 1 << 10]), floats(&[1, 1 << 10, 1 << 10])]).constant(&[1]),
                case(product.clone(), vec![floats(&[32, 1, 256]), floats(&[32, 256, 256])]),
                case(product.clone(), vec![floats(&[1, 1, N]), floats(&[1, N, 1])]).constant(&[1]),
                case(product, vec![floats(&[1, 2, N / 2]), floats(&[1, N / 2, 2])]),
            ]
        }
        "Pool" => {
            let of_row = |function| Pool { pads: [0, 1, 0, 1], ..pool(function, [1, 3], [1, N / 8]) };
            let whole = |function| pool(function, [1 << 10, 1 << 10], [1, 1]);
            let average = PoolFn::Average { count_padding: false };
            let images = || vec![floats(&[1, 1 << 10, 1 << 10, 2])];
            vec![
                case(of_row(PoolFn::Max), vec![floats(&[1, 1, N / 8, 8])]),
                case(of_row(average), vec![floats(&[1, 1, N / 8, 8])]),
                case(of_row(PoolFn::Max), vec![bytes(DType::U8, &[1, 1, N / 8, 8])]),
                case(whole(PoolFn::Max), images()),
                case(whole(average), images()),
                case(whole(PoolFn::Max), vec![bytes(DType::U8, &[1, 1 << 10, 1 << 10, 2])]),
                case(pool(average, [1, N / 2], [1, 1]), vec![floats(&[1, 1, N / 2, 2])]),
                case(pool(PoolFn::Max, [1, 2], [1, 1]), vec![floats(&[1, 1, 2, N / 2])]),
            ]
        }
        "Resize" => {
            let of = |mode| {
                let (coordinates, layout) = (Coordinates::HalfPixel, Layout::Nhwc);
                Resize { mode, coordinates, scales: [1.0, 2.0], out: [1, N / 8], layout }
            };
            let image = || vec![floats(&[1, 1, N / 16, 8])];
            vec![case(of(ResizeMode::Linear), image()), case(of(ResizeMode::Nearest(Rounding::Floor)), image())]
        }
        "Activate" => [DType::F32, DType::F16, DType::Bf16]
            .map(|dtype| case(Activate { activation: Activation::Silu }, vec![cast(&floats(&[1, N]), dtype)]))
            .into(),
        "Unary" => vec![
            case(Unary { kind: UnaryKind::Log }, row()),
            case(Unary { kind: UnaryKind::Sin }, row()),
            case(Unary { kind: UnaryKind::Neg }, vec![i64s(&[N], 99)]),
            case(Unary { kind: UnaryKind::Not }, square(DType::Bool)),
        ],
        "Binary" => vec![
            case(Binary::new(BinaryKind::Pow), vec![floats(&[1, N]), floats(&[1])]),
            case(Binary { kind: BinaryKind::Add, activation: Activation::Tanh }, vec![floats(&[1, N]), floats(&[N])]),
            case(Binary::new(BinaryKind::Mul), vec![i64s(&[2, N / 2], 9), i64s(&[N / 2], 7)]),
            case(Binary::new(BinaryKind::And), vec![bytes(DType::Bool, &[N]), bytes(DType::Bool, &[1])]),
        ],
        "Compare" => vec![
            case(Compare { kind: CompareKind::Less }, vec![floats(&[1, N]), floats(&[1])]),
            case(Compare { kind: CompareKind::Less }, vec![i64s(&[N, 1], 9), i64s(&[1], 7)]),
        ],
        "Select" => vec![case(Select, vec![bytes(DType::Bool, &[N]), floats(&[N]), floats(&[1])])],
        "Cast" => vec![
            case(Cast { to: DType::F16 }, row()),
            case(Cast { to: DType::F32 }, vec![i64s(&[N], 99)]),
            case(Cast { to: DType::Bool }, row()),
        ],
        "Reduce" => {
            let of = |axes: &[usize], kind| Reduce { axes: axes.to_vec(), kind, keep_dims: true };
            vec![
                case(of(&[1], ReduceKind::Sum), row()),
                case(of(&[0], ReduceKind::Max), vec![floats(&[N / 32, 32])]),
                case(of(&[0], ReduceKind::Max), vec![floats(&[N / 3, 3])]),
                case(of(&[0, 2], ReduceKind::Mean), vec![floats(&[128, 2, N / 256])]),
                case(of(&[0], ReduceKind::Sum), vec![i64s(&[N], 9)]),
            ]
        }
        "ArgMax" => {
            let of = |axis| ArgMax { axis, largest: true, last: false };
            vec![case(of(1), row()), case(of(0), vec![floats(&[2, N / 2])]), case(of(0), vec![i64s(&[N], 99)])]
        }
        "Softmax" => [SoftmaxKind::Softmax, SoftmaxKind::LogSoftmax]
            .into_iter()
            .flat_map(|kind| {
                [
                    case(Softmax { axes: vec![1], kind }, row()),
                    case(Softmax { axes: vec![0], kind }, vec![floats(&[N / 64, 64])]),
                    case(Softmax { axes: vec![0], kind }, vec![floats(&[N / 2, 2])]),
                    case(Softmax { axes: vec![0], kind }, vec![floats(&[N / 24, 24])]),
                ]
            })
            .collect(),
        "LayerNorm" => [Norm::Standard, Norm::RootMeanSquare]
            .map(|norm| {
                case(LayerNorm { axis: 1, epsilon: 1e-5, norm }, vec![floats(&[1, N]), floats(&[N]), floats(&[N])])
            })
            .into(),
        "TopK" => vec![
            case(TopK { axis: 1, k: 10, largest: true }, row()),
            case(TopK { axis: 1, k: 1 << 16, largest: false }, vec![floats(&[1, N])]),
            case(TopK { axis: 0, k: 2, largest: false }, vec![i64s(&[8, N / 8], 99)]),
        ],
        "Concat" => vec![
            case(Concat { axis: 0 }, vec![floats(&[N]), floats(&[N])]),
            case(Concat { axis: 1 }, vec![floats(&[N / 2, 1]), floats(&[N / 2, 1])]),
        ],
        "Slice" => vec![
            case(Slice { axis: 0, start: 1, step: 1, len: N - 1 }, vec![floats(&[N])]),
            case(Slice { axis: 1, start: 0, step: 2, len: N / 4 }, vec![floats(&[2, N / 2])]),
        ],
        "Pad" => {
            let pads = vec![(0, 0), (3, 1)];
            let constant = PadMode::Constant(Tensor::scalar(1f32));
            [constant, PadMode::Edge, PadMode::Reflect].map(|mode| case(Pad { pads: pads.clone(), mode }, row())).into()
        }
        "Gather" => vec![
            case(Gather { axis: 0 }, vec![floats(&[2, N / 2]), i64s(&[3], 2)]),
            case(Gather { axis: 0 }, vec![floats(&[99]), i64s(&[N], 99)]),
        ],
        "GatherElements" => vec![case(GatherElements { axis: 0 }, vec![floats(&[99, 2]), i64s(&[N / 2, 2], 99)])],
        "GatherNd" => vec![
            case(GatherNd { batch_dims: 0 }, vec![floats(&[2, N / 2]), i64s(&[3, 1], 2)]),
            case(GatherNd { batch_dims: 0 }, vec![floats(&[99]), i64s(&[N, 1], 99)]),
        ],
        "ScatterNd" => vec![
            case(ScatterNd, vec![floats(&[2, N / 2]), i64s(&[2, 1], 2), floats(&[2, N / 2])]),
            case(ScatterNd, vec![floats(&[99]), i64s(&[N, 1], 99), floats(&[N])]),
        ],
        "ScatterElements" => {
            vec![case(ScatterElements { axis: 0 }, vec![floats(&[99, 2]), i64s(&[N / 2, 2], 99), floats(&[N / 2, 2])])]
        }
        "Accumulate" => {
            let of = |axis| Accumulate { axis, kind: BinaryKind::Add };
            vec![
                case(of(Some(0)), vec![floats(&[99]), i64s(&[N], 99), floats(&[N])]),
                case(of(None), vec![floats(&[2, N / 2]), i64s(&[2, 1], 2), floats(&[2, N / 2])]),
            ]
        }
        "Found" => vec![case(Found, vec![bytes(DType::Bool, &[N])])],
        "Trim" => vec![
            case(Trim { axes: vec![1] }, vec![floats(&[N / 4, 4]), Tensor::scalar(3i64)]),
            case(Trim { axes: vec![0] }, vec![floats(&[2, N / 2]), Tensor::scalar(1i64)]),
        ],
        "Suppress" => {
            let inputs =
                vec![floats(&[1, N / 4, 4]), floats(&[1, 1, N / 4]), Tensor::scalar(4i64), Tensor::scalar(0.5f32)];
            vec![case(Suppress { centers: false, most: 4, threshold: false }, inputs)]
        }
        "CumSum" => vec![case(CumSum { axis: 1, exclusive: false, reverse: true }, row())],
        "OneHot" => {
            let of = |depth| OneHot { axis: 1, depth, off: Tensor::scalar(0f32), on: Tensor::scalar(1f32) };
            vec![case(of(2), vec![i64s(&[N / 2], 2)]), case(of(N), vec![i64s(&[1], 2)])]
        }
        "Expand" => [&[1][..], &[N / 2, 1], &[2]]
            .map(|dims| case(Expand { shape: Shape::new(&[N / 2, 2]).unwrap() }, vec![floats(dims)]))
            .into(),
        "Tile" => {
            vec![case(Tile { repeats: vec![2, 1] }, row()), case(Tile { repeats: vec![N / 2] }, vec![floats(&[2])])]
        }
        "Quantize" | "Dequantize" => [(DType::U8, 1), (DType::I8, 1), (DType::I16, 2)]
            .map(|(dtype, channels)| {
                let scales = Tensor::from_slice(&[channels], &vec![0.02f32; channels]).unwrap();
                let zeros = cast(&i64s(&[channels], 9), dtype);
                let x = floats(&[channels, N / channels]);
                match operator {
                    "Quantize" => case(Quantize { axis: 0, to: dtype }, vec![x, scales, zeros]),
                    _ => case(Dequantize { axis: 0 }, vec![cast(&x, dtype), scales, zeros]),
                }
            })
            .into(),
        "QConv" => [(conv([1, 1], 1), [64, 64, 1, 1], 1), (conv([3, 3], 64), [64, 1, 3, 3], 16)]
            .map(|(conv, weights, rows)| {
                let scales = Tensor::from_slice(&[64], &[0.01f32; 64]).unwrap();
                let operands = [cast(&floats(&weights), DType::I8), cast(&floats(&[64]), DType::I32), scales];
                let inputs = [vec![bytes(DType::U8, &[1, rows, N / 64 / rows, 64])], operands.into()].concat();
                let result = QResult::Bytes { by: Requantize::all(100), table: None };
                case(QConv { conv, zero: 3, result }, inputs).constant(&[1, 2, 3])
            })
            .into(),
        "QBinary" => {
            let function = QBinaryFn::Add { a: 0.5, b: 0.25 };
            let of = QBinary { function, zeros: [3, 5], by: Requantize::all(9), origin: 0 };
            vec![case(of, vec![bytes(DType::U8, &[1, N]), bytes(DType::U8, &[1, N])])]
        }
        "QPool" => {
            let mean = Mean { zero: 3, scales: [0.1, 0.1], by: Requantize::all(3) };
            let average = PoolFn::Average { count_padding: true };
            vec![
                case(
                    QPool { pool: pool(average, [1, 2], [1, N / 8 - 1]), mean },
                    vec![bytes(DType::U8, &[1, 1, N / 8, 8])],
                ),
                case(
                    QPool { pool: pool(average, [1 << 10, 1 << 10], [1, 1]), mean },
                    vec![bytes(DType::U8, &[1, 1 << 10, 1 << 10, 2])],
                ),
                case(
                    QPool { pool: pool(average, [1, N / 2], [1, 1]), mean },
                    vec![bytes(DType::U8, &[1, 1, N / 2, 2])],
                ),
                case(QPool { pool: pool(average, [1, 2], [1, 1]), mean }, vec![bytes(DType::U8, &[1, 1, 2, N / 2])]),
            ]
        }
        "LookUp" => vec![case(LookUp::flip(DType::U8), square(DType::I8))],
        "Stem" => {
            let conv = Conv { layout: Layout::Nchw, ..conv([1, 9], 1) };
            let inputs = convolved([1, 1, 1, 1 << 16], [32, 1, 1, 9]);
            let facts: Vec<&Fact> = inputs.iter().map(Tensor::fact).collect();
            vec![case(Stem::of(&conv, &facts).unwrap(), inputs).constant(&[1, 2])]
        }
        "DynamicQuantize" => vec![case(DynamicQuantize, row())],
        "ConvInteger" => [false, true]
            .map(|floating| {
                let weights = cast(&floats(&[64, 64, 1, 1]), DType::I8);
                let mut inputs = vec![
                    bytes(DType::U8, &[1, 1, N / 64, 64]),
                    weights,
                    Tensor::scalar(3u8),
                    cast(&floats(&[64]), DType::I8),
                ];
                if floating {
                    inputs.extend([floats(&[64]), floats(&[64])]);
                }
                case(ConvInteger { conv: conv([1, 1], 1), floats: floating }, inputs)
            })
            .into(),
        "Curve" => vec![case(Curve::Softplus, row()), case(Curve::Softsign, row())],
        "Recurrent" => {
            let functions = [Activation::Sigmoid, Activation::Tanh, Activation::Tanh].map(Gate::Activation).into();
            let (cell, direction, given) = (Cell::Lstm(false), Direction::Forward, Given::default());
            let lstm = Recurrent { cell, direction, functions, clip: None, batch_first: false, given };
            vec![case(lstm, vec![floats(&[64, 64, 64]), floats(&[1, 256, 64]), floats(&[1, 256, 64])])]
        }
        "Attention" => {
            let inputs = vec![floats(&[1, 64, 16]), floats(&[1, 1 << 15, 16]), floats(&[1, 1 << 15, 16])];
            vec![case(Attention { causal: true, softcap: 2.0, ..Attention::plain(1, 1) }, inputs)]
        }
        "VolumeConv" => {
            let image = |channels| floats(&[1, 1, 1, 1 << 15, channels]);
            let transposed = |groups| VolumeConv { out: [1, 1, (1 << 15) + 2], ..volume(true, groups) };
            vec![
                case(volume(false, 1), vec![image(32), floats(&[32, 32, 1, 1, 3]), floats(&[32])]).constant(&[1, 2]),
                case(volume(false, 1), vec![image(32), floats(&[32, 32, 1, 1, 3]), floats(&[32])]),
                case(transposed(1), vec![image(32), floats(&[32, 32, 1, 1, 3]), floats(&[32])]),
                case(transposed(64), vec![image(64), floats(&[64, 1, 1, 1, 3]), floats(&[64])]),
            ]
        }
        "WindowPool" => {
            let of = |of, kernel, out| {
                let (one, zero) = ([1; 3], [0; 3]);
                WindowPool { of, kernel, stride: one, dilation: one, before: zero, behind: zero, out }
            };
            let maximum = Of::MaxIndex { columns_first: false };
            vec![
                case(of(maximum, [1, 1, 2], [1, 1, N - 1]), vec![floats(&[1, 1, 1, 1, N])]),
                case(of(Of::Lp(3), [1, 1, N], [1, 1, 1]), vec![floats(&[1, 1, 1, 1, N])]),
            ]
        }
        "GroupNorm" => {
            vec![case(GroupNorm { groups: 1, epsilon: 1e-5 }, vec![floats(&[1, 2, N / 2]), floats(&[2]), floats(&[2])])]
        }
        "ResizeAxis" => {
            let of = |axis, out| {
                let (scale, filter, coordinates) = (2.0, Filter::Linear, Coordinates::HalfPixel);
                ResizeAxis {
                    axis,
                    out,
                    scale,
                    filter,
                    coordinates,
                    crop: None,
                    antialias: false,
                    exclude_outside: false,
                }
            };
            vec![case(of(0, N), vec![floats(&[N / 2])]), case(of(0, 4), vec![floats(&[2, N / 2])])]
        }
        "Trees" => {
            let branch = |feature, yes, no| Branch { feature, test: Test::Less, missing: false, split: 0.5, yes, no };
            let trees = Trees {
                branches: vec![branch(0, 1, 2), branch(1, 3, 4)].into(),
                leaves: vec![1, 2, 3].into(),
                weights: vec![(0, 1.0), (1, 2.0), (0, 3.0)].into(),
                roots: vec![0].into(),
                targets: 2,
                aggregate: Aggregate::Sum,
            };
            vec![case(trees, vec![floats(&[N / 2, 2])])]
        }
        "Routed" => {
            let op = Routed { transposed: false, has_bias: false, activation: Activation::None };
            let inputs = vec![floats(&[N / 64, 1, 64]), i64s(&[N / 64], 4), floats(&[4, 64, 64])];
            vec![case(op, inputs).constant(&[2])]
        }
        "Contract" => {
            // Traces of matrices, and products of integers.
            let trace = Contract { a: b"bii".to_vec(), b: b"b".to_vec(), y: b"b".to_vec() };
            let product = Contract { a: b"ik".to_vec(), b: b"k".to_vec(), y: b"i".to_vec() };
            vec![
                case(trace, vec![floats(&[N / 4, 2, 2]), floats(&[N / 4])]),
                case(product, vec![i64s(&[2, N / 2], 9), i64s(&[N / 2], 9)]),
            ]
        }
        "Sample" => {
            let of =
                Sample { mode: SampleMode::Linear, outside: Outside::Zeros, align_corners: true, normalized: true };
            vec![case(of, vec![floats(&[1, 8, 16, 16]), floats(&[1, N / 8, 2])])]
        }
        "Regions" => [RegionKind::MaxPool, RegionKind::Align { largest: false, half_pixel: true, samples: 1 }]
            .map(|kind| {
                let boxes = Tensor::from_slice(&[64, 4], &[1f32, 1.0, 14.0, 14.0].repeat(64)).unwrap();
                case(Regions { kind, size: [64, 64], scale: 1.0 }, vec![floats(&[1, 4, 16, 16]), boxes, i64s(&[64], 1)])
            })
            .into(),
        "Masked" => {
            let mask = Tensor::from_slice(&[1, 1, 1, 8], &[1f32, 0.0, 1.0, 1.0, 0.0, 1.0, 1.0, 1.0]).unwrap();
            let mean = Reduce { axes: vec![1, 2], kind: ReduceKind::Mean, keep_dims: true };
            let pooled = pool(PoolFn::Max, [1, 2], [16, N / 128 - 1]);
            [Masked::Spread, Masked::Gather, Masked::Reduce(mean), Masked::Pool(pooled)]
                .map(|op| case(op, vec![floats(&[1, 16, N / 128, 8]), mask.clone()]))
                .into()
        }
        _ => panic!("{operator} has no large step here"),
    }
}

#[test]
fn the_largest_steps_of_every_operator_ask_whether_to_stop() {
    // The loops that ask are the same on every CPU: under an emulator they would take minutes.
    if std::env::var_os("SKIPSTONE_EMULATED").is_some() {
        return;
    }
    for (_, operator) in NUMBERS.iter().filter(|(_, operator)| !WITHOUT_WORK.contains(operator)) {
        for case in cases(operator) {
            assert_eq!(case.op.entry(), *operator);
            case.check();
        }
    }
}

/// Regression: state, and outputs that are unchanged inputs, were copied after the last step, whether or not the run was
/// to stop.
#[test]
fn what_leaves_the_arena_after_the_last_step_is_copied_in_pieces() {
    let fact = Fact::new(DType::F32, Shape::new(&[N]).unwrap());
    let mut graph = Graph::new();
    let x = graph.add_input("x", fact.clone()).unwrap();
    graph.add_input("state", fact.clone()).unwrap();
    graph.variables.push(Variable { initial: None, next: Some(1) });
    graph.outputs = ["y", "next"].map(|name| (name.to_owned(), x)).to_vec();
    let model = Model::from_graph(graph, &Options::default()).unwrap();
    let mut session = model.session().unwrap();
    let given = |number: f32| Tensor::from_slice(&[N], &vec![number; N]).unwrap();
    let state = |session: &crate::Session| session.variable(0).unwrap().elements::<f32>().unwrap().to_vec();

    session.pool.questions().restart(u64::MAX);
    session.run(&[given(1.0).view()]).unwrap();
    let asked = session.pool.questions().count();
    assert!(asked >= 9, "three copies of three pieces ask {asked} times");
    for last in 1..=asked {
        session.pool.questions().restart(last);
        let result = session.run(&[given(2.0).view()]);
        assert!(matches!(result, Err(Error::Cancelled { .. })), "question {last}: {result:?}");
        assert_eq!(state(&session), vec![1.0; N], "a run that was stopped leaves the state alone");
    }
    session.pool.questions().restart(u64::MAX);
    session.run(&[given(3.0).view()]).unwrap();
    assert_eq!(session.output(0).unwrap().elements::<f32>().unwrap(), vec![3.0; N]);
    assert_eq!(state(&session), vec![3.0; N]);
}
