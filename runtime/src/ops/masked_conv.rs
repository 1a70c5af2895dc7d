//! Convolutions between [masked](super::masked) images: for each image, the active output channels are computed from
//! the active input channels.
//!
//! With many pixels, the packed weights of these channels are copied into scratch, and the kernel runs as if the
//! convolution had no others. Copying touches each weight once, while the convolution multiplies by it once per pixel (or
//! per tile in a Winograd convolution), so it costs little from some hundred pixels. With fewer, a kernel reads the
//! weights of the active channels where they are ([`FloatKernel::reads_lists`]). If all channels are active, nothing is
//! copied. With memory to spare, the weights are then also packed for the kernel of a convolution without masks, which may
//! store them in a form that is too large to select from.

use skipstone_kernels::Isa;
use skipstone_kernels::activation::scalar::apply;
use skipstone_kernels::conv::{
    Active, Conv as Operands, ConvShape, FLOATS, Filters, FloatKernel, Task, Weights, by_name, candidates,
};
use skipstone_kernels::epilogue::Epilogue;
use skipstone_kernels::pace::Pace;

use super::conv::Conv;
use super::float_conv;
use super::image::{ImageDims, Layout};
use super::masked::MaskOperand;
use super::roles::Role;
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, PlanContext};
use crate::options::Memory;
use crate::tensor::Fact;

/// Alignment of parts of the scratch in elements: a cache line.
const LINE: usize = 16;

/// The layout of a run's scratch, in elements: the lists of input and output channels, the bias and the packed weights
/// of the active ones; the kernel's own scratch follows.
struct Parts([usize; 4]);

impl Parts {
    fn new(kernel: &dyn FloatKernel, shape: &ConvShape) -> Self {
        let packed = if kernel.reads_lists() { 0 } else { kernel.packed_len(shape, 0).div_ceil(size_of::<f32>()) };
        Self([shape.in_c, shape.out_c, shape.out_c, packed].map(|len| len.next_multiple_of(LINE)))
    }

    fn split<'a>(&self, scratch: &'a mut [f32]) -> Result<([&'a mut [f32]; 4], &'a mut [f32]), OpError> {
        let mut rest = scratch;
        let mut parts: [&mut [f32]; 4] = Default::default();
        for (part, &len) in parts.iter_mut().zip(&self.0) {
            (*part, rest) = rest.split_at_mut_checked(len).ok_or(OpError::Operand(Conv::WEIGHTS))?;
        }
        Ok((parts, rest))
    }
}

/// The masks of the images and of the result.
pub(super) fn masks(conv: &Conv, inputs: &[&Fact], out: ImageDims) -> Result<[Option<MaskOperand>; 2], OpError> {
    let image = ImageDims::new(Layout::Nhwc, &inputs[Conv::X].shape)?;
    let mask = |role, image| conv.roles.position(role).map(|at| MaskOperand::new(inputs, at, image)).transpose();
    Ok([mask(Role::MaskIn, image)?, mask(Role::MaskOut, out)?])
}

/// Chooses the kernel that is fastest if five of eight channels are active.
pub(super) fn plan(cx: &PlanContext<'_>, conv: &Conv, shape: &ConvShape) -> Result<Choice, OpError> {
    if !cx.is_constant(Conv::WEIGHTS) {
        return Err(OpError::Value("the weights of a masked convolution must be constant".into()));
    }
    let share = |role, channels: usize| if conv.roles.has(role) { (5 * channels).div_ceil(8) } else { channels };
    let (in_c, out_c) = (share(Role::MaskIn, shape.in_c), share(Role::MaskOut, shape.out_c));
    let usual = ConvShape { batch: 1, in_c, out_c, ..shape.clone() };
    let task = Task { weights: Weights::F32, masked: true, ..float_conv::task(cx, &usual, true, |w| Filters::Oihw(w)) };
    let mut kernels = candidates(FLOATS, cx.isa, &task);
    for (kernel, cost) in &mut kernels {
        let registers = kernel.packed_len(&usual, 0) / size_of::<f32>() / lanes(cx.isa);
        if !kernel.reads_lists() {
            *cost += copy(cx.isa) * registers as f64;
        }
    }
    let dense = dense(cx, shape);
    let of = |kernel: &dyn FloatKernel, name: fn(&dyn FloatKernel) -> &'static str| match dense {
        Some(dense) if dense.layout() != kernel.layout() => format!("{}{BESIDE}{}", name(kernel), name(dense)),
        _ => name(kernel).to_owned(),
    };
    let (name, form) =
        (|k: &&'static dyn FloatKernel| of(*k, |k| k.name()), |k: &&'static dyn FloatKernel| of(*k, |k| k.layout()));
    let (kernel, candidates) = cx.choose(&(conv, "masked"), kernels, name, form)?;
    let dense = dense.filter(|dense| dense.layout() != kernel.layout());
    let pack = |role: usize, kernel: &dyn FloatKernel| {
        float_conv::store(cx, (role, Conv::WEIGHTS), kernel, &Task::new(shape), |w| Filters::Oihw(w))
    };
    let parts: usize = Parts::new(kernel, shape).0.iter().sum();
    let selected = kernel.scratch_bound(shape, cx.threads);
    let whole = dense.map_or(0, |dense| dense.scratch_len(&ConvShape { batch: 1, ..shape.clone() }, false, cx.threads));
    let packed = [Some(kernel), dense].into_iter().flatten().enumerate();
    Ok(Choice {
        kernel: name(&kernel),
        candidates,
        packed: packed.map(|(role, kernel)| pack(role, kernel)).collect::<Result<_, _>>()?,
        form: Some(form(&kernel)),
        absorbed: vec![Conv::WEIGHTS],
        scratch: (parts + selected.max(whole)) * size_of::<f32>(),
        ..Choice::default()
    })
}

/// Between the name of the kernel that computes active channels and that of the kernel that computes all.
const BESIDE: &str = " or ";

/// The kernel for runs in which all channels are active, with memory to spare, or the one that a package has weights for.
fn dense(cx: &PlanContext<'_>, shape: &ConvShape) -> Option<&'static dyn FloatKernel> {
    let whole = ConvShape { batch: 1, ..shape.clone() };
    let mut kernels = candidates(FLOATS, cx.isa, &Task::new(&whole)).into_iter();
    let (kernel, _) = match cx.packing {
        Some(packing) => {
            let (_, layout) = packing.form.split_once(BESIDE)?;
            kernels.find(|(kernel, _)| kernel.layout() == layout)?
        }
        None if cx.memory == Memory::Fast => kernels.min_by(|a, b| a.1.total_cmp(&b.1))?,
        None => return None,
    };
    Some(kernel)
}

/// Multiply-adds of a register in the time of copying a register of weights, which is read from memory that no prefetcher
/// follows.
fn copy(isa: Isa) -> f64 {
    if isa.has_half_rate() { 16.0 } else { 8.0 }
}

fn lanes(isa: Isa) -> usize {
    match isa {
        Isa::Avx512 => 16,
        Isa::Avx2 => 8,
        Isa::Neon | Isa::Neon32 => 4,
        Isa::Scalar => 1,
    }
}

pub(super) fn bind(
    cx: &BindContext<'_>,
    conv: &Conv,
    shape: ConvShape,
    out: ImageDims,
) -> Result<Box<dyn Execute>, OpError> {
    let unknown = || OpError::Attribute { name: "kernel", reason: cx.kernel.to_owned() };
    let mut kernels = cx.kernel.split(BESIDE).map(|name| by_name(FLOATS, name).ok_or_else(unknown));
    let (kernel, dense) = (kernels.next().ok_or_else(unknown)??, kernels.next().transpose()?);
    let [mask_in, mask_out] = masks(conv, &cx.inputs, out)?;
    let residual_at = conv.roles.residual();
    let (activation, residual_first) = (conv.activation, conv.roles.has(Role::Residual));
    let (parts, whole) = (Parts::new(kernel, &shape), ConvShape { batch: 1, ..shape.clone() });
    Ok(Box::new(move |io: &mut Io<'_, '_>| {
        let ([inputs, outputs, some_bias, selected], scratch) = parts.split(io.scratch()?)?;
        let (packed, bias, x): (&[u8], &[f32], &[f32]) = (io.packed(0)?, io.input(Conv::BIAS)?, io.input(Conv::X)?);
        let residual: Option<&[f32]> = residual_at.map(|at| io.input(at)).transpose()?;
        let out: &mut [f32] = io.output(0)?;
        let (x_len, y_len) = (x.len() / shape.batch.max(1), out.len() / shape.batch.max(1));
        let mut computed = 0;
        let pace = io.pace();
        for n in 0..shape.batch {
            pace.spend(8)?;
            let inputs = channels(mask_in, io, n, shape.in_c, inputs)?;
            let outputs = channels(mask_out, io, n, shape.out_c, outputs)?;
            computed += inputs.len() * outputs.len();
            let active = Active { inputs, outputs };
            let small = active.shape(&shape);
            let (x, y) = (&x[n * x_len..][..small.input_len()], &mut out[n * y_len..][..small.output_len()]);
            if y.is_empty() {
                continue;
            }
            let bias = match outputs.len() == shape.out_c {
                true => bias,
                false => {
                    for (b, &channel) in some_bias.iter_mut().zip(outputs) {
                        pace.spend(4)?;
                        *b = bias[channel as usize];
                    }
                    &some_bias[..outputs.len()]
                }
            };
            let residual = residual.map(|r| &r[n * y_len..][..small.output_len()]);
            let epilogue = Epilogue { bias: Some(bias), activation, residual, residual_first, affine: None };
            if inputs.is_empty() {
                of_nothing(&epilogue, bias, y, &pace)?;
                continue;
            }
            let all = (inputs.len(), outputs.len()) == (shape.in_c, shape.out_c);
            let (kernel, packed) = match dense {
                Some(dense) if all => (dense, io.packed(1)?),
                _ if all => (kernel, packed),
                _ if kernel.reads_lists() => {
                    let args = Operands { shape: &whole, input: x, packed, out: y, epilogue, scale: None };
                    kernel.run_active(args, active, scratch, io.pool());
                    continue;
                }
                _ => {
                    let selected = &mut selected[..kernel.packed_len(&small, 0) / size_of::<f32>()];
                    kernel.select(&shape, packed, active, selected, io.pool());
                    (kernel, bytemuck::cast_slice(selected))
                }
            };
            let args = Operands { shape: &small, input: x, packed, out: y, epilogue, scale: None };
            kernel.run(args, scratch, io.pool());
        }
        io.active(computed, shape.batch * shape.in_c * shape.out_c);
        Ok(())
    }))
}

/// The active channels of an image: all if there is no mask.
fn channels<'a>(
    mask: Option<MaskOperand>,
    io: &Io<'_, '_>,
    image: usize,
    all: usize,
    list: &'a mut [f32],
) -> Result<&'a [u32], OpError> {
    let list: &mut [u32] = bytemuck::cast_slice_mut(&mut list[..all]);
    match mask {
        Some(mask) => mask.read(io, image, list),
        None => {
            let pace = io.pace();
            for (channel, place) in list.iter_mut().enumerate() {
                pace.spend(4)?;
                *place = channel as u32;
            }
            Ok(list)
        }
    }
}

/// The result of a convolution of images without active channels.
fn of_nothing(epilogue: &Epilogue<'_>, bias: &[f32], y: &mut [f32], pace: &Pace<'_>) -> Result<(), OpError> {
    for (at, y) in y.iter_mut().enumerate() {
        pace.spend(32)?;
        let (sum, residual) = (bias[at % bias.len()], epilogue.residual.map_or(0.0, |r| r[at]));
        *y = match epilogue.residual_first {
            true => apply(epilogue.activation, sum + residual),
            false => apply(epilogue.activation, sum) + residual,
        };
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use skipstone_kernels::activation::Activation;

    use super::*;
    use crate::Model;
    use crate::graph::Graph;
    use crate::ops::check::{Random, assert_close, check_package, planned, planned_as_it_is};
    use crate::ops::masked::Masked;
    use crate::ops::roles::Roles;
    use crate::options::Options;
    use crate::tensor::Tensor;

    struct Case {
        graph: Graph,
        inputs: Vec<Tensor>,
    }

    /// Instead of a share: a single channel is active.
    const ONE: usize = usize::MAX;

    /// A convolution from masked images to masked images, gathered before and spread after it.
    fn case(random: &mut Random, roles: Roles, dims: [usize; 4], filters: usize, kernel: usize, share: usize) -> Case {
        let [batch, height, width, channels] = dims;
        let (stride, activation) =
            (1 + random.below(2), random.pick(&[Activation::Relu, Activation::HardSwish, Activation::Sigmoid]));
        let conv = Conv {
            kernel: [kernel; 2],
            stride: [stride; 2],
            pads: [kernel / 2; 4],
            layout: Layout::Nhwc,
            activation,
            roles,
            ..Conv::POINTWISE
        };
        let mut graph = Graph::new();
        let mut inputs = Vec::new();
        let mut given = |graph: &mut Graph, t: Tensor| {
            inputs.push(t);
            graph.add_input("x", inputs[inputs.len() - 1].fact().clone()).unwrap()
        };
        let mask = |random: &mut Random, channels: usize| {
            let mut active = |at: usize| match share {
                ONE => at % channels == channels / 2,
                _ => random.below(100) < share,
            };
            let active: Vec<f32> = (0..batch * channels).map(|at| f32::from(active(at))).collect();
            Tensor::from_slice(&[batch, 1, 1, channels], &active).unwrap()
        };
        let mut x = given(&mut graph, random.floats(&dims));
        let weights = graph.add_constant("w", random.floats(&[filters, channels, kernel, kernel])).unwrap();
        let bias = graph.add_constant("b", random.floats(&[filters])).unwrap();
        let out = |len: usize| (len + kernel / 2 * 2 - kernel) / stride + 1;
        let residual =
            roles.residual().map(|_| given(&mut graph, random.floats(&[batch, out(height), out(width), filters])));
        let mask_in = roles.has(Role::MaskIn).then(|| given(&mut graph, mask(random, channels)));
        let mask_out = roles.has(Role::MaskOut).then(|| given(&mut graph, mask(random, filters)));
        if let Some(mask) = mask_in {
            x = graph.add_node("gather", Masked::Gather, &[x, mask]).unwrap()[0];
        }
        let residual = residual.map(|r| match mask_out {
            Some(mask) => graph.add_node("gather", Masked::Gather, &[r, mask]).unwrap()[0],
            None => r,
        });
        let operands: Vec<_> =
            [Some(x), Some(weights), Some(bias), residual, mask_in, mask_out].into_iter().flatten().collect();
        let mut y = graph.add_node("conv", conv, &operands).unwrap()[0];
        if let Some(mask) = mask_out {
            y = graph.add_node("spread", Masked::Spread, &[y, mask]).unwrap()[0];
        }
        graph.outputs.push(("y".into(), y));
        Case { graph, inputs }
    }

    #[test]
    fn every_share_of_channels_agrees_with_the_definition() {
        let mut random = Random(5);
        let masked = [
            Roles::NONE.with(Role::MaskIn),
            Roles::NONE.with(Role::MaskOut),
            Roles::NONE.with(Role::MaskIn).with(Role::MaskOut),
        ];
        for at in 0..60 {
            let roles = masked[at % 3];
            let roles = random.pick(&[roles, roles, roles.with(Role::Residual), roles.with(Role::LateResidual)]);
            let dims = [1 + at % 2, 1 + random.below(12), 1 + random.below(12), random.pick(&[1, 3, 8, 17, 40])];
            let (filters, kernel) = (random.pick(&[1, 7, 16, 33, 70]), random.pick(&[1, 3, 3, 5]));
            let share = [0, 20, ONE, 60, 95, 100, 100][at % 7];
            let Case { graph, inputs } = case(&mut random, roles, dims, filters, kernel, share);
            let want = graph.evaluate(&inputs).unwrap();
            for isa in Isa::available() {
                let got = planned_as_it_is(&graph, isa, &inputs).unwrap();
                assert_close(&got[0], &want[0], 2e-4, &format!("a share of {share} with {isa}"));
            }
            if at < 6 {
                check_package(graph, &inputs);
            }
        }
    }

    #[test]
    fn small_memory_and_threads_change_nothing() {
        let mut random = Random(6);
        let roles = Roles::NONE.with(Role::MaskIn).with(Role::MaskOut);
        for share in [50, 100] {
            let Case { graph, inputs } = case(&mut random, roles, [1, 14, 14, 64], 96, 3, share);
            let want = planned(&graph, Isa::detect(), &inputs).unwrap();
            for (memory, threads) in [(Memory::Fast, 3), (Memory::Small, 1), (Memory::Small, 2)] {
                let options = Options { memory, threads, ..Options::default() };
                let mut session = Model::of_optimized(graph.copy().unwrap(), &options).unwrap().session().unwrap();
                session.run(&inputs.iter().map(Tensor::view).collect::<Vec<_>>()).unwrap();
                let got = session.output(0).unwrap().to_tensor();
                match memory {
                    Memory::Fast => assert_eq!(got.bytes(), want[0].bytes(), "{threads} threads"),
                    Memory::Small => assert_close(&got, &want[0], 2e-4, "small memory"),
                }
            }
        }
    }

    #[test]
    fn the_profile_says_what_was_computed() {
        let mut random = Random(7);
        let roles = Roles::NONE.with(Role::MaskIn).with(Role::MaskOut);
        let Case { graph, mut inputs } = case(&mut random, roles, [1, 8, 8, 10], 4, 3, 100);
        let half: Vec<f32> = (0..10).map(|c| f32::from(c % 2 == 1)).collect();
        inputs[1] = Tensor::from_slice(&[1, 1, 1, 10], &half).unwrap();
        inputs[2] = Tensor::from_slice(&[1, 1, 1, 4], &[1.0f32, 0.0, 0.0, 0.0]).unwrap();
        let model = Model::of_optimized(graph, &Options::default()).unwrap();
        let mut session = model.session().unwrap();
        session.start_profile().unwrap();
        for _ in 0..2 {
            session.run(&inputs.iter().map(Tensor::view).collect::<Vec<_>>()).unwrap();
        }
        assert_eq!(session.step_active(), Some(&[2.0, 2.0 / 8.0, 2.0][..]));
    }
}
