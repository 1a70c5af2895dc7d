//! Shared by the f32 convolutions [`Conv`](super::conv), [`Stem`](super::stem), [`MatMul`](super::matmul) and
//! [`Bottleneck`](super::bottleneck), which do not name kernel families where any will do.

use serde::Serialize;
use skipstone_kernels::arena::AlignedVec;
use skipstone_kernels::conv::{self, ConvShape, FLOATS, Filters, FloatKernel, Images, Task};
use skipstone_kernels::pace::Pace;

use crate::bytes::Bytes;
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Io, PlanContext, Zeros};
use crate::options::Memory;
use crate::tensor::{Peek, Tensor};

/// Position of the weights among the operands.
const WEIGHTS: usize = 1;

/// Number of weight densities, from none to all, that tuning distinguishes.
const DENSITIES: usize = 32;

/// Prefix of the names of sparse kernels.
const SPARSE: &str = "sparse_";

/// Elements of the weights copied at a time for packing: they fit the first-level cache, or nearly, and the copies
/// leave no large holes in the heap.
const PART: usize = 1 << 14;

/// Number of samples of the weights, and their length, that decide whether to count zeros. Sparse kernels pay off only
/// if at least every third weight is zero.
const SAMPLES: usize = 16;
const SAMPLE: usize = 64;

/// Interprets a model's weights as filters.
pub(super) type Order = fn(&[f32]) -> Filters<'_>;

/// The convolution task of a step; its weights are the second operand, packed once if `constant`.
pub(super) fn task<'a>(cx: &PlanContext<'_>, shape: &'a ConvShape, constant: bool) -> Task<'a> {
    let weights = if constant { cx.weights() } else { conv::Weights::F32 };
    let mut task = Task { constant, weights, spacious: cx.memory == Memory::Fast, ..Task::new(shape) };
    if let Some(weights) = constant.then(|| cx.constants.get(WEIGHTS).copied().flatten()).flatten() {
        task.nonzeros = nonzeros(weights).unwrap_or(task.nonzeros);
    }
    task
}

/// The approximate number of nonzero weights: all of them if none of the [`SAMPLES`] is zero, so that the weights of a
/// dense network are not all read.
pub(crate) fn nonzeros(tensor: &Tensor) -> Option<usize> {
    let weights = tensor.peek::<f32>()?;
    let sample = |index: usize| {
        let first = index * weights.len() / SAMPLES;
        weights.part(first..weights.len().min(first + SAMPLE)).iter().any(|weight| weight == 0.0)
    };
    Some(if (0..SAMPLES).any(sample) { count(tensor, weights) } else { weights.len() })
}

/// The number of nonzero weights. Of weights in a model file, only a part is in memory at a time.
fn count(tensor: &Tensor, weights: Peek<'_, f32>) -> usize {
    let count = |first: usize| {
        let part = first..weights.len().min(first + PART);
        let count = weights.part(part.clone()).iter().filter(|&weight| weight != 0.0).count();
        tensor.evict_part(part.start * size_of::<f32>()..part.end * size_of::<f32>());
        count
    };
    (0..weights.len()).step_by(PART).map(count).sum()
}

/// Chooses a kernel for a task, and packs the weights if they are constant.
pub(super) fn plan(
    cx: &PlanContext<'_>,
    op: &impl Serialize,
    task: &Task<'_>,
    order: Order,
) -> Result<Choice, OpError> {
    let kernels = conv::candidates(FLOATS, cx.isa, task);
    // Measurements apply to other steps with a similar density.
    let op = (op, task.nonzeros.saturating_mul(DENSITIES) / Task::new(task.shape).nonzeros.max(1));
    let (kernel, candidates) = cx.choose(&op, kernels, |k| k.name().to_owned(), |k| k.layout().to_owned())?;
    let mut choice = Choice { kernel: kernel.name().to_owned(), candidates, ..Choice::default() };
    // Device builds do not report it.
    choice.zeros = if cfg!(feature = "passes") { zeros(cx, task, order) } else { None };
    choice.scratch = kernel.scratch_len(task.shape, task.scaled, cx.threads) * size_of::<f32>();
    if task.constant {
        choice.packed.push(store(cx, (0, WEIGHTS), kernel, task, order)?);
        choice.absorbed.push(WEIGHTS);
        choice.form = Some(kernel.layout().to_owned());
    } else {
        // Weights computed at run time are packed in every run.
        choice.scratch += kernel.packed_len(task.shape, task.nonzeros);
    }
    Ok(choice)
}

/// The effect of zero weights on a convolution, if there are any and the model's weights are known.
#[cfg_attr(not(any(feature = "passes", test)), expect(unused_variables, reason = "only the picture needs the order"))]
fn zeros(cx: &PlanContext<'_>, task: &Task<'_>, order: Order) -> Option<Zeros> {
    let all = Task::new(task.shape).nonzeros;
    if !task.constant || cx.packing.is_some() || task.nonzeros == all {
        return None;
    }
    let cheapest = |layouts: &[Images], sparse: bool| {
        let kernels = layouts.iter().flat_map(|&images| conv::candidates(FLOATS, cx.isa, &Task { images, ..*task }));
        let kernels = kernels.filter(|(kernel, _)| kernel.name().starts_with(SPARSE) == sparse);
        kernels.map(|(_, cost)| cost).fold(f64::INFINITY, f64::min)
    };
    let dense = cheapest(&[Images::Nhwc, Images::NchwToNhwc], false);
    let gain = dense / cheapest(&[Images::Nhwc, Images::Nchw], true);
    Some(Zeros {
        share: 1.0 - task.nonzeros as f64 / all as f64,
        gain,
        #[cfg(any(feature = "passes", test))]
        pattern: cx
            .constants
            .get(WEIGHTS)
            .copied()
            .flatten()
            .and_then(|weights| super::density::pattern(weights, task.shape.out_c, order)),
    })
}

/// The packed constant `role`: input `position` packed for a kernel, or taken from a package.
pub(super) fn store(
    cx: &PlanContext<'_>,
    (role, position): (usize, usize),
    kernel: &dyn FloatKernel,
    task: &Task<'_>,
    order: Order,
) -> Result<Bytes, OpError> {
    let shape = task.shape;
    if let Some(packing) = cx.packing {
        let held = packing.packed.get(role).filter(|bytes| kernel.reads(shape, bytes));
        return held.cloned().ok_or_else(|| OpError::Value("no packed weights of its size in the package".into()));
    }
    let tensor = cx.constants.get(position).copied().flatten().ok_or(OpError::Operand(position))?;
    let weights = cx.peek(position)?;
    // Dense layouts do not depend on it.
    let nonzeros = if kernel.name().starts_with(SPARSE) { count(tensor, weights) } else { task.nonzeros };
    let mut bytes = cx.allocate(kernel.packed_len(shape, nonzeros))?;
    let part = kernel.part(shape).filter(|_| matches!(order(&[]), Filters::Oihw(_)));
    match part {
        Some(part) => pack_parts(kernel, shape, (tensor, weights), part, &mut bytes)?,
        None => kernel.pack(shape, order(cx.constant(position)?), &mut bytes, &Pace::free())?,
    }
    Ok(bytes.into())
}

/// Packs `part` filters (or a multiple) at a time. If they are in a model file, packed parts need not stay in memory;
/// if they are unaligned there, a copy of all of them would be the largest allocation of loading.
fn pack_parts(
    kernel: &dyn FloatKernel,
    shape: &ConvShape,
    (tensor, filters): (&Tensor, Peek<'_, f32>),
    part: usize,
    mut to: &mut [u8],
) -> Result<(), OpError> {
    let filter_len = filters.len() / shape.out_c.max(1);
    let some = part * (PART / (part * filter_len).max(1)).max(1);
    let copied = if filters.slice().is_some() { 0 } else { filter_len * some.min(shape.out_c) };
    let mut copy = AlignedVec::try_zeroed(copied).ok_or_else(|| OpError::no_memory(copied * size_of::<f32>()))?;
    for first in (0..shape.out_c).step_by(some) {
        let count = some.min(shape.out_c - first);
        let elements = first * filter_len..(first + count) * filter_len;
        let bytes = elements.start * size_of::<f32>()..elements.end * size_of::<f32>();
        let filters = filters.part(elements);
        copy.iter_mut().zip(filters.iter()).for_each(|(copy, weight)| *copy = weight);
        let aligned = filters.slice().unwrap_or_else(|| &copy[..filters.len()]);
        let shape = ConvShape { out_c: count, ..shape.clone() };
        let (packed, rest) = to.split_at_mut(kernel.packed_len(&shape, 0));
        kernel.pack(&shape, Filters::Oihw(aligned), packed, &Pace::free())?;
        tensor.evict_part(bytes);
        to = rest;
    }
    Ok(())
}

/// A kernel, bound to a step.
pub(super) struct Bound {
    pub kernel: &'static dyn FloatKernel,
    order: Order,
    /// Bytes of the packed weights if every run packs them.
    packed_in_run: Option<usize>,
}

impl Bound {
    pub fn new(cx: &BindContext<'_>, shape: &ConvShape, order: Order) -> Result<Self, OpError> {
        let unknown = || OpError::Attribute { name: "kernel", reason: cx.kernel.to_owned() };
        let kernel = conv::by_name(FLOATS, cx.kernel).ok_or_else(unknown)?;
        let packed_in_run = (!cx.absorbed(WEIGHTS)).then(|| kernel.packed_len(shape, 0));
        Ok(Self { kernel, order, packed_in_run })
    }

    /// The step's packed weights, and the kernel's own scratch.
    pub fn weights<'a>(&self, io: &mut Io<'a, '_>, shape: &ConvShape) -> Result<(&'a [u8], &'a mut [f32]), OpError> {
        let scratch = io.scratch::<f32>()?;
        let Some(len) = self.packed_in_run else { return Ok((io.packed(0)?, scratch)) };
        let split = scratch.split_at_mut_checked(len / size_of::<f32>());
        let (packed, scratch) = split.ok_or(OpError::Operand(WEIGHTS))?;
        self.pack(shape, io.input(WEIGHTS)?, packed, &io.pace())?;
        Ok((bytemuck::cast_slice(packed), scratch))
    }

    /// Packs weights computed at run time. Incomplete if the run is to stop.
    pub fn pack(&self, shape: &ConvShape, weights: &[f32], to: &mut [f32], pace: &Pace<'_>) -> Result<(), OpError> {
        Ok(self.kernel.pack(shape, (self.order)(weights), bytemuck::cast_slice_mut(to), pace)?)
    }
}

#[cfg(test)]
mod tests {
    use skipstone_kernels::Isa;
    use skipstone_kernels::activation::Activation;
    use skipstone_kernels::arena::AlignedVec;

    use crate::bytes::Bytes;
    use crate::graph::Graph;
    use crate::ops::check::{Random, assert_close, single};
    use crate::ops::matmul::MatMul;
    use crate::options::{Memory, Options, Precision};
    use crate::plan::Target;
    use crate::tensor::Tensor;
    use crate::{Info, Model, package};

    /// A classifier on one row, with one in `every` weights nonzero, and the row.
    fn classifier(every: usize) -> (Graph, Tensor) {
        let (mut random, [channels, classes]) = (Random(5), [960, 1280]);
        let (row, bias) = (random.floats(&[1, 1, channels]), random.floats(&[classes]));
        let weights = (0..channels * classes).map(|i| if i % every == 0 { random.float() } else { 0.0 });
        let weights = Tensor::from_slice(&[1, classes, channels], &weights.collect::<Vec<f32>>()).unwrap();
        let op = MatMul { transposed: true, activation: Activation::Relu };
        (single(op, &[row.clone(), weights, bias], &[1, 2]), row)
    }

    fn answer(model: &Model, row: &Tensor) -> Tensor {
        let mut session = model.session().unwrap();
        session.run(&[row.view()]).unwrap();
        session.output(0).unwrap().to_tensor()
    }

    #[test]
    fn unaligned_weights_are_packed_alike() {
        let (mut random, [channels, classes]) = (Random(9), [961, 1003]);
        let (row, bias) = (random.floats(&[1, 1, channels]), random.floats(&[classes]));
        let weights = random.floats(&[1, classes, channels]);
        let file = [&[0; 3], weights.bytes()].concat();
        let unaligned = Bytes::from(AlignedVec::from_slice(&file)).part(3..file.len()).unwrap();
        let unaligned = Tensor::shared(weights.fact().clone(), unaligned).unwrap();
        let op = MatMul { transposed: true, activation: Activation::None };
        let answers = [weights, unaligned].map(|weights| {
            let graph = single(op.clone(), &[row.clone(), weights, bias.clone()], &[1, 2]);
            answer(&Model::from_graph(graph, &Options::default()).unwrap(), &row)
        });
        assert_eq!(answers[0].bytes(), answers[1].bytes());
    }

    #[test]
    fn sparsity_chooses_the_kernel_and_a_package_keeps_it() {
        for (every, is_sparse) in [(1, false), (2, false), (101, true)] {
            let (graph, row) = classifier(every);
            let want = graph.evaluate(std::slice::from_ref(&row)).unwrap();
            for isa in Isa::available() {
                let model = Model::from_graph(graph.copy().unwrap(), &Options::default().isa(isa)).unwrap();
                let kernel = &model.plan().unwrap().steps[0].choice.kernel;
                assert_eq!(kernel.starts_with("sparse_"), is_sparse, "{kernel} for one weight of {every}");
                assert_close(&answer(&model, &row), &want[0], 1e-3, kernel);
            }
            let mut graph = graph;
            crate::graph::optimize(&mut graph).unwrap();
            let (memory, precision) = (Memory::Fast, Precision::F32);
            let target = Target { isa: Isa::detect(), threads: 1, memory, precision };
            let package = package::write(&graph, &Info::default(), Some(target), None).unwrap();
            // A dense matrix takes 4.9 MB.
            assert_eq!(package.len() < 100_000, is_sparse, "{} bytes", package.len());
            let model = Model::from_bytes(&package, &Options::default()).unwrap();
            assert_close(&answer(&model, &row), &want[0], 1e-3, "from a package");
        }
    }
}
