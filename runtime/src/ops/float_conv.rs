//! Shared by the f32 convolutions [`Conv`](super::conv), [`Stem`](super::stem), [`MatMul`](super::matmul) and
//! [`Bottleneck`](super::bottleneck), which do not name kernel families where any will do.

use serde::Serialize;
use skipstone_kernels::arena::AlignedVec;
use skipstone_kernels::conv::{self, ConvShape, FLOATS, Filters, FloatKernel, Images, Task};
use skipstone_kernels::pace::Pace;
use skipstone_kernels::sparse::BLOCK;

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
pub(super) fn task<'a>(cx: &PlanContext<'_>, shape: &'a ConvShape, constant: bool, order: Order) -> Task<'a> {
    let weights = if constant { cx.weights() } else { conv::Weights::F32 };
    let mut task = Task { constant, weights, spacious: cx.memory == Memory::Fast, ..Task::new(shape) };
    if let Some(weights) = constant.then(|| cx.constants.get(WEIGHTS).copied().flatten()).flatten() {
        task = Nonzeros::of(weights).map_or(task, |nonzeros| nonzeros.task(task, weights, order));
    }
    // A package may hold the weights in either dtype.
    task.are_halves |= cx.packing.is_some();
    task
}

/// What a sparse kernel's choice depends on: the nonzero weights.
#[derive(Clone, Copy)]
pub(crate) struct Nonzeros {
    count: usize,
    /// Whether half precision represents them exactly; false if they were not read.
    are_halves: bool,
}

impl Nonzeros {
    /// Approximate: all of the weights if none of the [`SAMPLES`] is zero, so that the weights of a dense network are not
    /// all read.
    pub fn of(tensor: &Tensor) -> Option<Self> {
        let weights = tensor.peek::<f32>()?;
        let sample = |index: usize| {
            let first = index * weights.len() / SAMPLES;
            weights.part(first..weights.len().min(first + SAMPLE)).iter().any(|weight| weight == 0.0)
        };
        let any = (0..SAMPLES).any(sample);
        Some(if any { Self::exact(tensor, weights) } else { Self { count: weights.len(), are_halves: false } })
    }

    /// Exact. Of weights in a model file, only a part is in memory at a time.
    fn exact(tensor: &Tensor, weights: Peek<'_, f32>) -> Self {
        let mut all = Self { count: 0, are_halves: true };
        for first in (0..weights.len()).step_by(PART) {
            let range = first..weights.len().min(first + PART);
            let part = weights.part(range.clone());
            for weight in part.iter() {
                all.count += usize::from(weight != 0.0);
                all.are_halves &= is_half(weight);
            }
            tensor.evict_part(range.start * size_of::<f32>()..range.end * size_of::<f32>());
        }
        all
    }

    /// Their number.
    pub fn count(&self) -> usize {
        self.count
    }

    /// The task with these weights, those of the tensor. Blocks are counted only if they could pay off.
    pub fn task<'a>(&self, task: Task<'a>, tensor: &Tensor, order: Order) -> Task<'a> {
        let few = 2 * self.count <= task.nonzeros;
        let blocks = if few { blocks(tensor, task.shape.out_c, order) } else { None };
        let blocks = blocks.unwrap_or(task.blocks);
        Task { nonzeros: self.count, blocks, are_halves: self.are_halves, ..task }
    }
}

/// Count of blocks with a nonzero weight, for so many filters: [`Task::blocks`]. `None` if the weights are not f32.
fn blocks(tensor: &Tensor, filters: usize, order: Order) -> Option<usize> {
    let weights = tensor.peek::<f32>()?;
    let depth = weights.len().checked_div(filters)?;
    let mut count = 0;
    if matches!(order(&[]), Filters::Io(_)) {
        let is_stored = |block: &[f32]| block.iter().any(|&weight| weight != 0.0);
        for channel in 0..depth {
            let row = weights.part(channel * filters..(channel + 1) * filters);
            for block in (0..filters).step_by(BLOCK) {
                let mut some = [0.0; BLOCK];
                let part = row.part(block..filters.min(block + BLOCK));
                some.iter_mut().zip(part.iter()).for_each(|(to, weight)| *to = weight);
                count += usize::from(is_stored(&some));
            }
        }
        return Some(count);
    }
    let mut any = [false; 1 << 10];
    for group in (0..filters).step_by(BLOCK) {
        let rows = group..filters.min(group + BLOCK);
        for first in (0..depth).step_by(any.len()) {
            let channels = first..depth.min(first + any.len());
            let any = &mut any[..channels.len()];
            any.fill(false);
            for row in rows.clone() {
                let part = weights.part(row * depth + channels.start..row * depth + channels.end);
                any.iter_mut().zip(part.iter()).for_each(|(any, weight)| *any |= weight != 0.0);
            }
            count += any.iter().filter(|&&any| any).count();
        }
        tensor.evict_part(rows.start * depth * size_of::<f32>()..rows.end * depth * size_of::<f32>());
    }
    Some(count)
}

/// Whether half precision represents a number exactly.
fn is_half(x: f32) -> bool {
    // Eleven significant bits; below the normal numbers, multiples of the smallest one.
    let magnitude = x.abs();
    let normal = x.to_bits() & 0x1fff == 0 && (2f32.powi(-14)..=65504.0).contains(&magnitude);
    let steps = magnitude * 2f32.powi(24);
    normal || (magnitude < 2f32.powi(-14) && steps == (steps as u32) as f32)
}

/// Chooses a kernel for a task, and packs the weights if they are constant.
pub(super) fn plan(
    cx: &PlanContext<'_>,
    op: &impl Serialize,
    task: &Task<'_>,
    order: Order,
) -> Result<Choice, OpError> {
    let kernels = conv::candidates(FLOATS, cx.isa, task);
    // Measurements apply to other steps with a similar density, of weights and of blocks.
    let all = Task::new(task.shape);
    let density = |count: usize, all: usize| count.saturating_mul(DENSITIES) / all.max(1);
    let op = (op, density(task.nonzeros, all.nonzeros), density(task.blocks, all.blocks));
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
    let stored = match kernel.name().starts_with(SPARSE) {
        true => {
            let blocks = blocks(tensor, shape.out_c, order).unwrap_or(task.blocks);
            let nonzeros = Nonzeros::exact(tensor, cx.peek(position)?).count;
            kernel.stored(&Task { nonzeros, blocks, ..*task })
        }
        false => task.nonzeros,
    };
    let mut bytes = cx.allocate(kernel.packed_len(shape, stored))?;
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
    use half::f16;
    use skipstone_kernels::Isa;
    use skipstone_kernels::activation::Activation;
    use skipstone_kernels::arena::AlignedVec;

    use super::is_half;
    use crate::bytes::Bytes;
    use crate::graph::Graph;
    use crate::ops::check::{Random, assert_close, single};
    use crate::ops::matmul::MatMul;
    use crate::options::{Memory, Options, Precision};
    use crate::plan::Target;
    use crate::tensor::Tensor;
    use crate::{Info, Model, package};

    /// A classifier on one row, with one in `every` weights nonzero, in other channels of every class, all of them in half
    /// precision if `halves`; and the row.
    fn classifier(every: usize, halves: bool) -> (Graph, Tensor) {
        let (mut random, [channels, classes]) = (Random(5), [960, 1280]);
        let (row, bias) = (random.floats(&[1, 1, channels]), random.floats(&[classes]));
        let rounded = |x: f32| if halves { f16::from_f32(x).to_f32() } else { x };
        let weights = (0..channels * classes)
            .map(|i| if (i + i / channels) % every == 0 { rounded(random.float()) } else { 0.0 });
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
    fn halves_are_what_half_precision_represents() {
        for bits in 0..=u16::MAX {
            let half = f16::from_bits(bits);
            let x = half.to_f32();
            assert_eq!(is_half(x), half.is_finite(), "{x}");
            assert!(!is_half(f32::from_bits(x.to_bits() ^ 1)), "next to {x}");
        }
        assert!(!is_half(65536.0) && !is_half(f32::MAX));
    }

    #[test]
    fn sparse_weights_that_are_halves_take_four_bytes() {
        for (exact, precision) in [(true, Precision::F32), (false, Precision::F32), (false, Precision::F16)] {
            let (graph, row) = classifier(20, exact);
            let want = graph.evaluate(std::slice::from_ref(&row)).unwrap();
            let halves = exact || precision == Precision::F16;
            let tolerance = if halves && !exact { 0.05 } else { 1e-4 };
            let mut is_small = false;
            for isa in Isa::available() {
                let options = Options { precision, ..Options::default().isa(isa) };
                let model = Model::from_graph(graph.copy().unwrap(), &options).unwrap();
                let kernel = &model.plan().unwrap().steps[0].choice.kernel;
                is_small = kernel.starts_with("sparse_f16_");
                // Registers of four lanes take longer to widen than to load f32.
                assert!(is_small == halves || halves && isa == Isa::Neon, "{kernel}");
                assert_close(&answer(&model, &row), &want[0], tolerance, kernel);
            }
            let mut graph = graph;
            crate::graph::optimize(&mut graph).unwrap();
            let target = Target { isa: Isa::detect(), threads: 1, memory: Memory::Fast, precision };
            let package = package::write(&graph, &Info::default(), Some(target), None).unwrap();
            assert_eq!(package.len() < 270_000, is_small, "{} bytes", package.len());
            let model = Model::from_bytes(&package, &Options { precision, ..Options::default() }).unwrap();
            assert_close(&answer(&model, &row), &want[0], tolerance, "from a package");
        }
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
    fn blocks_of_filters_choose_a_kernel_and_a_package_keeps_it() {
        let mut random = Random(6);
        let [channels, classes] = [320, 203];
        let (row, bias) = (random.floats(&[1, 1, channels]), random.floats(&[classes]));
        for transposed in [true, false] {
            let at = |i: usize| if transposed { (i / channels, i % channels) } else { (i % classes, i / classes) };
            let kept = |i: usize| (at(i).0 / 4 * 7 + at(i).1).is_multiple_of(11);
            let weights = (0..channels * classes).map(|i| if kept(i) { random.float() } else { 0.0 });
            let dims = if transposed { [1, classes, channels] } else { [1, channels, classes] };
            let weights = Tensor::from_slice(&dims, &weights.collect::<Vec<f32>>()).unwrap();
            let op = MatMul { transposed, activation: Activation::Relu };
            let mut graph = single(op, &[row.clone(), weights, bias.clone()], &[1, 2]);
            let want = graph.evaluate(std::slice::from_ref(&row)).unwrap();
            for isa in Isa::available() {
                let model = Model::from_graph(graph.copy().unwrap(), &Options::default().isa(isa)).unwrap();
                let kernel = &model.plan().unwrap().steps[0].choice.kernel;
                assert!(kernel.starts_with("sparse_4x1_f32"), "{kernel}");
                assert_close(&answer(&model, &row), &want[0], 1e-4, kernel);
            }
            crate::graph::optimize(&mut graph).unwrap();
            let (memory, precision) = (Memory::Fast, Precision::F32);
            let target = Target { isa: Isa::detect(), threads: 1, memory, precision };
            let package = package::write(&graph, &Info::default(), Some(target), None).unwrap();
            let model = Model::from_bytes(&package, &Options::default()).unwrap();
            assert!(model.plan().unwrap().steps[0].choice.kernel.starts_with("sparse_4x1_f32"));
            assert_close(&answer(&model, &row), &want[0], 1e-4, "from a package");
        }
    }

    #[test]
    fn sparsity_chooses_the_kernel_and_a_package_keeps_it() {
        for (every, is_sparse) in [(1, false), (2, false), (101, true)] {
            let (graph, row) = classifier(every, false);
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
