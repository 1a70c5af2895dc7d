//! Quantization parameters: scales must be finite and positive, and zero points must match them.

use super::call::Call;
use crate::invalid::{Invalid, Rule, list};

/// QuantizeLinear and DequantizeLinear: `x, scale, zero_point`, per tensor, per channel along
/// `axis`, or in blocks of `block_size`.
pub(super) fn linear(call: &Call<'_, '_>) -> Result<(), Invalid> {
    pair(call, 1, 2)?;
    let blocks = call.int("block_size")?.unwrap_or(0);
    if blocks < 0 {
        return call.bad_attribute("block_size", "is negative");
    }
    let (Some(input), Some(scale)) = (call.shape(0), call.shape(1)) else {
        return Ok(());
    };
    let [length] = scale[..] else {
        return Ok(());
    };
    // A single scale applies to the whole tensor.
    if blocks > 0 || length.is_none_or(|length| length == 1) || input.len() < 2 {
        return Ok(());
    }
    let axis = call.axis(call.int("axis")?.unwrap_or(1), input.len())?;
    match (input.get(axis).copied().flatten(), length) {
        (Some(channels), Some(length)) if channels != length => {
            Err(call.invalid(Rule::Quantization, format!("there are {length} scales for {channels} channels")))
        }
        _ => Ok(()),
    }
}

/// QLinearConv: `x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias`.
pub(super) fn convolution(call: &Call<'_, '_>) -> Result<(), Invalid> {
    if call.node.op_type != "QLinearConv" {
        return Ok(());
    }
    matmul(call)?;
    let per_channel = call.shape(4).filter(|scale| scale.len() == 1).and_then(|scale| scale.first().copied().flatten());
    let channels = call.shape(3).and_then(|weights| weights.first().copied().flatten());
    match (per_channel, channels) {
        (Some(scales), Some(channels)) if scales != 1 && scales != channels => {
            Err(call.invalid(Rule::Quantization, format!("there are {scales} scales for {channels} output channels")))
        }
        _ => Ok(()),
    }
}

/// QLinearMatMul: `a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero`.
pub(super) fn matmul(call: &Call<'_, '_>) -> Result<(), Invalid> {
    pair(call, 1, 2)?;
    pair(call, 4, 5)?;
    pair(call, 6, 7)
}

/// MatMulInteger: operands must be matrices. The parser that runs next gives a product with a
/// vector one dimension too many.
pub(super) fn integer_matmul(call: &Call<'_, '_>) -> Result<(), Invalid> {
    match (0..2).find(|&operand| call.shape(operand).is_some_and(|shape| shape.len() < 2)) {
        Some(operand) => {
            Err(call.invalid(Rule::Shape, format!("input {operand} is a vector, where only matrices are supported")))
        }
        None => Ok(()),
    }
}

/// A scale and its zero point: scales are finite and positive, and both have the same element
/// count.
fn pair(call: &Call<'_, '_>, scale: usize, zero_point: usize) -> Result<(), Invalid> {
    if let Some(summary) = call.summary(scale)? {
        let not_positive = summary.floats.is_some_and(|(min, _)| min <= 0.0);
        if not_positive || summary.has_non_finite {
            return Err(
                call.invalid(Rule::Quantization, format!("the scale in input {scale} is zero, negative or not finite"))
            );
        }
    }
    let (Some(scale), Some(zero_point)) = (call.full_shape(scale), call.full_shape(zero_point)) else {
        return Ok(());
    };
    let count = |shape: &[u64]| shape.iter().fold(1u64, |count, dim| count.saturating_mul(*dim));
    if count(&scale) != count(&zero_point) {
        return Err(call.invalid(
            Rule::Quantization,
            format!("zero points of shape {} do not match scales of shape {}", list(&zero_point), list(&scale)),
        ));
    }
    Ok(())
}
