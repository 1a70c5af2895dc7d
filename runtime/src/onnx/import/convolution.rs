//! Convolutions.

use skipstone_kernels::activation::Activation;

use super::activation;
use super::build::{Halt, Imported};
use super::call::Call;
use super::product;
use super::table::{Entry, microsoft, standard};
use super::volume;
use super::window::{ImageWindow, Window, image_dims};
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::contract::Contract;
use crate::ops::conv::Conv;
use crate::ops::gather::Gather;
use crate::ops::pad::{Pad, PadMode};
use crate::tensor::{DType, Fact, Shape, Tensor};

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["Conv"], conv),
    microsoft(&["FusedConv"], fused),
    microsoft(&["NhwcConv"], nhwc),
    microsoft(&["FusedGemm"], fused_gemm),
];

/// The convolution of a window.
pub(super) fn of_window(window: &ImageWindow, groups: usize) -> Conv {
    let &ImageWindow { kernel, stride, dilation, pads, .. } = window;
    Conv { kernel, stride, dilation, pads, groups, ..Conv::POINTWISE }
}

/// The attribute `group`.
pub(super) fn groups(cx: &Call<'_, '_>) -> Result<usize, Halt> {
    let groups = usize::try_from(cx.int("group", 1)?).ok().filter(|&groups| groups > 0);
    groups.ok_or_else(|| cx.attribute_error("group", "must be above 0"))
}

/// The window of the convolution of `x` with `weights`, whose axes after the first two are spatial.
pub(super) fn window(cx: &Call<'_, '_>, x: ValueId, weights: ValueId) -> Result<Window, Halt> {
    let (from, kernel) = (cx.shape(x).clone(), cx.shape(weights).clone());
    if from.rank() < 3 || kernel.rank() != from.rank() {
        return Err(
            cx.shape_error("images and weights must have the same number of dimensions, at least 3", &[x, weights])
        );
    }
    if kernel[2..].contains(&0) {
        return Err(cx.shape_error("a kernel must have at least one tap", &[weights]));
    }
    Window::of(cx, &from[2..], Some(&kernel[2..]))
}

/// Convolves `x` with weights and the third operand, the bias (zeros if there is none).
fn convolve(cx: &mut Call<'_, '_>, x: ValueId, weights: ValueId) -> Result<ValueId, Halt> {
    let window = window(cx, x, weights)?;
    if cx.dtype(x) != DType::F32 {
        return unfolded(cx, x, weights, &window);
    }
    let (mut from, mut kernel) = (image_dims(cx.shape(x)), image_dims(cx.shape(weights)));
    let mut planes = window.clone();
    if let Some((joined, axis)) = window.joined(&from[2..]) {
        planes = joined;
        for dims in [&mut from, &mut kernel] {
            let inner = dims.remove(3 + axis);
            dims[2 + axis] *= inner;
        }
    }
    let Some(image) = planes.as_image() else { return Ok(volume::conv(cx, &window)?[0]) };
    let filters = cx.shape(weights)[0];
    let bias = match cx.optional(2) {
        Some(bias) => bias,
        None => cx.collected(&[filters], std::iter::repeat_n(0f32, filters))?,
    };
    let out: Vec<usize> = [cx.shape(x)[0], filters].iter().chain(&window.out).copied().collect();
    let (x, weights) = (cx.reshape(x, &from)?, cx.reshape(weights, &kernel)?);
    let groups = groups(cx)?;
    let y = cx.add(of_window(&image, groups), &[x, weights, bias])?;
    cx.reshape(y, &out)
}

/// A convolution of element types without a kernel: the elements of every window, gathered axis by axis (im2col), times
/// the weights.
fn unfolded(cx: &mut Call<'_, '_>, x: ValueId, weights: ValueId, window: &Window) -> Result<ValueId, Halt> {
    let groups = groups(cx)?;
    let (from, kernel) = (cx.shape(x).to_vec(), cx.shape(weights).to_vec());
    let (axes, filters, depth) = (window.out.len(), kernel[0], kernel[1]);
    if axes > 2 {
        return Ok(volume::conv(cx, window)?[0]);
    }
    if depth * groups != from[1] || filters % groups != 0 {
        return Err(cx.shape_error("groups must divide channels and filters", &[x, weights]));
    }
    let pads: Vec<(usize, usize)> = [(0, 0); 2].iter().chain(&window.pads).copied().collect();
    let zero = Tensor::zeros(Fact::new(cx.dtype(x), Shape::default()));
    let mut y = x;
    if pads.iter().any(|&pads| pads != (0, 0)) {
        y = cx.add(Pad { pads, mode: PadMode::Constant(zero) }, &[x])?;
    }
    // The last axis first, so that the positions of earlier ones do not change.
    for axis in (0..axes).rev() {
        let (taps, out) = (kernel[2 + axis], window.out[axis]);
        let at = |i: usize| (i / out * window.dilations[axis] + i % out * window.strides[axis]) as i64;
        let places = cx.collected(&[taps, out], (0..taps * out).map(at))?;
        y = cx.add(Gather { axis: 2 + axis }, &[y, places])?;
    }
    let windows = (0..axes).flat_map(|axis| [kernel[2 + axis], window.out[axis]]);
    let dims: Vec<usize> = [from[0], groups, depth].into_iter().chain(windows).collect();
    let y = cx.reshape(y, &dims)?;
    let dims: Vec<usize> = [groups, filters / groups, depth].iter().chain(&kernel[2..]).copied().collect();
    let weights = cx.reshape(weights, &dims)?;
    // Labels: image, group, channel and filter, then taps from 10 and positions from 20.
    let axes = || 0..window.out.len() as u8;
    let product = Contract {
        a: [0, 1, 2].into_iter().chain(axes().flat_map(|axis| [10 + axis, 20 + axis])).collect(),
        b: [1, 3, 2].into_iter().chain(axes().map(|axis| 10 + axis)).collect(),
        y: [0, 1, 3].into_iter().chain(axes().map(|axis| 20 + axis)).collect(),
    };
    let y = cx.add(product, &[y, weights])?;
    let out: Vec<usize> = [from[0], filters].iter().chain(&window.out).copied().collect();
    let y = cx.reshape(y, &out)?;
    let Some(bias) = cx.optional(2) else { return Ok(y) };
    let mut dims = vec![filters];
    dims.resize(1 + window.out.len(), 1);
    let bias = cx.reshape(bias, &dims)?;
    cx.binary(BinaryKind::Add, y, bias)
}

pub(super) fn conv(cx: &mut Call<'_, '_>) -> Imported {
    let (x, weights) = (cx.input(0)?, cx.input(1)?);
    Ok(vec![convolve(cx, x, weights)?])
}

/// com.microsoft NhwcConv: images `[batch, rows, columns, channels]`, weights `[out, rows, columns, in / groups]`, as
/// ONNX Runtime's optimizer for GPUs writes them.
fn nhwc(cx: &mut Call<'_, '_>) -> Imported {
    let (x, weights) = (cx.input(0)?, cx.input(1)?);
    if cx.rank(x) != 4 || cx.rank(weights) != 4 {
        return Err(cx.shape_error("images and weights must have 4 dimensions", &[x, weights]));
    }
    let channels_second = [0, 3, 1, 2];
    let (x, weights) = (cx.transpose(x, &channels_second)?, cx.transpose(weights, &channels_second)?);
    let y = convolve(cx, x, weights)?;
    Ok(vec![cx.transpose(y, &[0, 2, 3, 1])?])
}

/// com.microsoft FusedConv: a convolution followed by a sum with a fourth operand and an activation.
fn fused(cx: &mut Call<'_, '_>) -> Imported {
    let (x, weights) = (cx.input(0)?, cx.input(1)?);
    let mut y = convolve(cx, x, weights)?;
    if let Some(residual) = cx.optional(3) {
        y = cx.binary(BinaryKind::Add, y, residual)?;
    }
    let parameters = cx.floats("activation_params")?.unwrap_or_default();
    activated(cx, y, &parameters)
}

/// com.microsoft FusedGemm: a Gemm followed by an activation.
fn fused_gemm(cx: &mut Call<'_, '_>) -> Imported {
    let y = product::gemm(cx)?[0];
    let mut parameters = Vec::new();
    for name in ["activation_alpha", "activation_beta"] {
        if cx.has(name) {
            parameters.push(cx.float(name, 0.0)?);
        }
    }
    activated(cx, y, &parameters)
}

/// The activation of a fused node, with its parameters in order.
fn activated(cx: &mut Call<'_, '_>, y: ValueId, parameters: &[f32]) -> Imported {
    let Some(name) = cx.text("activation")? else { return Ok(vec![y]) };
    let parameter = |index: usize, default: f32| parameters.get(index).copied().unwrap_or(default);
    let activation = match name {
        "LeakyRelu" => Activation::LeakyRelu(parameter(0, 0.01)),
        "HardSigmoid" => Activation::HardSigmoid { alpha: parameter(0, 0.2), beta: parameter(1, 0.5) },
        "Clip" => Activation::Clip { min: parameter(0, f32::MIN), max: parameter(1, f32::MAX) },
        other => activation::named(cx, other)?,
    };
    Ok(vec![cx.activate(activation, y)?])
}
