//! Convolutions of f32: what [`Conv`](super::conv), [`Stem`](super::stem), [`MatMul`](super::matmul) and
//! [`Bottleneck`](super::bottleneck) have in common. They name no family of kernels where any will do.

use serde::Serialize;
use skipstone_kernels::conv::{self, ConvShape, FLOATS, Filters, FloatKernel, Task};

use super::{BindContext, Choice, Io, PlanContext};
use crate::bytes::Bytes;
use crate::error::OpError;
use crate::options::Memory;

/// Position of the weights among the operands.
const WEIGHTS: usize = 1;

/// Shares of weights that are not zero, from none to all, which tuning tells apart.
const DENSITIES: usize = 32;

/// Reads a model's weights as filters.
pub(super) type Order = fn(&[f32]) -> Filters<'_>;

/// The convolution that a step is planned for; its weights are the second operand, packed once if `constant`.
pub(super) fn task<'a>(cx: &PlanContext<'_>, shape: &'a ConvShape, constant: bool) -> Task<'a> {
    let weights = if constant { cx.weights() } else { conv::Weights::F32 };
    let mut task = Task { constant, weights, spacious: cx.memory == Memory::Fast, ..Task::new(shape) };
    if let Some(weights) = cx.constant::<f32>(WEIGHTS).ok().filter(|_| constant) {
        task.nonzeros = nonzeros(weights);
    }
    task
}

fn nonzeros(weights: &[f32]) -> usize {
    weights.iter().filter(|&&weight| weight != 0.0).count()
}

/// Chooses a kernel for a task, and packs the weights if they are constant.
pub(super) fn plan(
    cx: &PlanContext<'_>,
    op: &impl Serialize,
    task: &Task<'_>,
    order: Order,
) -> Result<Choice, OpError> {
    let kernels = conv::candidates(FLOATS, cx.isa, task);
    // What is measured of a step is true of others with about as many zeros.
    let op = (op, task.nonzeros.saturating_mul(DENSITIES) / Task::new(task.shape).nonzeros.max(1));
    let (kernel, candidates) = cx.choose(&op, kernels, |k| k.name().to_owned(), |k| k.layout().to_owned())?;
    let mut choice = Choice { kernel: kernel.name().to_owned(), candidates, ..Choice::default() };
    choice.scratch = kernel.scratch_len(task.shape, task.scaled, cx.threads) * size_of::<f32>();
    if task.constant {
        choice.packed.push(store(cx, (0, WEIGHTS), kernel, task.shape, order)?);
        choice.absorbed.push(WEIGHTS);
        choice.form = Some(kernel.layout().to_owned());
    } else {
        // Weights that are computed are packed on every run.
        choice.scratch += kernel.packed_len(task.shape, task.nonzeros);
    }
    Ok(choice)
}

/// The packed constant `role`: input `position`, packed for a kernel, or what a package holds.
pub(super) fn store(
    cx: &PlanContext<'_>,
    (role, position): (usize, usize),
    kernel: &dyn FloatKernel,
    shape: &ConvShape,
    order: Order,
) -> Result<Bytes, OpError> {
    if let Some(packing) = cx.packing {
        let held = packing.packed.get(role).filter(|bytes| kernel.reads(shape, bytes));
        return held.cloned().ok_or_else(|| OpError::Value("no packed weights of its size in the package".into()));
    }
    let weights = cx.constant(position)?;
    let mut bytes = cx.room(kernel.packed_len(shape, nonzeros(weights)));
    kernel.pack(shape, order(weights), &mut bytes);
    Ok(bytes.into())
}

/// A kernel, bound to a step.
pub(super) struct Bound {
    pub kernel: &'static dyn FloatKernel,
    order: Order,
    /// Bytes of the weights where every run packs them.
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
        self.pack(shape, io.input(WEIGHTS)?, packed);
        Ok((bytemuck::cast_slice(packed), scratch))
    }

    /// Packs weights that were computed.
    pub fn pack(&self, shape: &ConvShape, weights: &[f32], to: &mut [f32]) {
        self.kernel.pack(shape, (self.order)(weights), bytemuck::cast_slice_mut(to));
    }
}
