//! Convolutions.

use skipstone_kernels::activation::Activation;

use super::activation;
use super::build::{Halt, Imported};
use super::call::Call;
use super::volume;
use super::window::{ImageWindow, Window, image_dims};
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::conv::Conv;

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

/// The window of the convolution of `x` with `weights`, whose axes behind the first two are spatial.
pub(super) fn window(cx: &Call<'_, '_>, x: ValueId, weights: ValueId) -> Result<Window, Halt> {
    let (from, kernel) = (cx.shape(x).clone(), cx.shape(weights).clone());
    if from.rank() < 3 || kernel.rank() != from.rank() {
        return Err(cx.shape_error("images and weights have the same number of dimensions, at least 3", &[x, weights]));
    }
    if kernel[2..].contains(&0) {
        return Err(cx.shape_error("a kernel has at least one tap", &[weights]));
    }
    Window::of(cx, &from[2..], Some(&kernel[2..]))
}

/// `x`, weights and bias (zeros where there is none) through a convolution over images.
fn convolve(cx: &mut Call<'_, '_>) -> Result<ValueId, Halt> {
    let (x, weights) = (cx.input(0)?, cx.input(1)?);
    let window = window(cx, x, weights)?;
    let Some(image) = window.as_image() else { return Ok(volume::conv(cx, &window)?[0]) };
    let filters = cx.shape(weights)[0];
    let bias = match cx.optional(2) {
        Some(bias) => bias,
        None => cx.elements(&[filters], &vec![0f32; filters])?,
    };
    let out: Vec<usize> = [cx.shape(x)[0], filters].iter().chain(&window.out).copied().collect();
    let (from, kernel) = (image_dims(cx.shape(x)), image_dims(cx.shape(weights)));
    let (x, weights) = (cx.reshape(x, &from)?, cx.reshape(weights, &kernel)?);
    let groups = groups(cx)?;
    let y = cx.add(of_window(&image, groups), &[x, weights, bias])?;
    cx.reshape(y, &out)
}

pub(super) fn conv(cx: &mut Call<'_, '_>) -> Imported {
    Ok(vec![convolve(cx)?])
}

/// com.microsoft FusedConv: a sum with a fourth operand and an activation behind a convolution.
pub(super) fn fused(cx: &mut Call<'_, '_>) -> Imported {
    let mut y = convolve(cx)?;
    if let Some(residual) = cx.optional(3) {
        y = cx.binary(BinaryKind::Add, y, residual)?;
    }
    let Some(name) = cx.text("activation")? else { return Ok(vec![y]) };
    let parameters = cx.floats("activation_params")?.unwrap_or_default();
    let parameter = |index: usize, default: f32| parameters.get(index).copied().unwrap_or(default);
    let activation = match name {
        "LeakyRelu" => Activation::LeakyRelu(parameter(0, 0.01)),
        "HardSigmoid" => Activation::HardSigmoid { alpha: parameter(0, 0.2), beta: parameter(1, 0.5) },
        "Clip" => Activation::Clip { min: parameter(0, f32::MIN), max: parameter(1, f32::MAX) },
        other => activation::named(cx, other)?,
    };
    Ok(vec![cx.activate(activation, y)?])
}
