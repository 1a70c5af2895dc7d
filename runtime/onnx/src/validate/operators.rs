//! Dispatches each operator to the rules for its attributes and constant operands.
//!
//! Each operator has one line here; the rules are in the file of its family. Operators that are
//! not listed have no rules that can be checked before their inputs are known.

use super::attributes::is_standard;
use super::call::Call;
use super::{attention, indexing, quantization, recurrent, shaping, windows};
use crate::element::ElementType;
use crate::invalid::{Invalid, Rule};

/// Largest size in an attribute: kernels, strides, blocks, groups.
pub(super) const MAX_SIZE: i64 = 1 << 24;
/// Longest equation of an Einsum in bytes. An equation has a term per input and a letter per
/// dimension.
const MAX_EQUATION: usize = 1024;

/// Checks one node by the rules of its operator.
pub(super) fn check(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let standard = is_standard(call.node.domain);
    let op = call.node.op_type;
    match op {
        // com.microsoft defines its own operators and redefines some of ai.onnx.
        "MoE" | "QMoE" if call.node.domain == "com.microsoft" => mixture_of_experts(call),
        "MultiHeadAttention" if call.node.domain == "com.microsoft" => attention::multi_head_attention(call),
        "RotaryEmbedding" if call.node.domain == "com.microsoft" => attention::rotary_embedding(call, true),
        "QuantizeLinear" | "DequantizeLinear" => quantization::linear(call),
        _ if !standard => Ok(()),

        "Conv" | "ConvInteger" | "QLinearConv" => {
            quantization::convolution(call)?;
            windows::convolution(call)
        }
        "ConvTranspose" => windows::transposed_convolution(call),
        "DeformConv" => windows::deformable_convolution(call),
        "MaxPool" | "AveragePool" | "LpPool" | "MaxUnpool" => windows::pool(call),
        "MaxRoiPool" | "RoiAlign" => windows::regions(call),

        "QLinearMatMul" => quantization::matmul(call),
        "MatMulInteger" => quantization::integer_matmul(call),

        "Reshape" => shaping::reshape(call),
        "Transpose" => shaping::transpose(call),
        "Squeeze" | "Unsqueeze" => shaping::squeeze(call),
        "Concat" => shaping::concat(call),
        "Split" | "SplitToSequence" => shaping::split(call),
        "DepthToSpace" | "SpaceToDepth" => shaping::blocks(call),
        "Flatten" => shaping::flatten(call),
        "Softmax" | "LogSoftmax" | "Hardmax" | "ArgMax" | "ArgMin" | "LpNormalization" | "LayerNormalization" => {
            shaping::axis(call)
        }
        "ReduceMean" | "ReduceSum" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL1" | "ReduceL2"
        | "ReduceSumSquare" | "ReduceLogSum" | "ReduceLogSumExp" => shaping::reduce(call),

        "Gather" => indexing::gather(call),
        "GatherElements" | "ScatterElements" | "Scatter" => indexing::elements(call),
        "GatherND" | "ScatterND" => indexing::tuples(call),
        "Slice" => indexing::slice(call),
        "TopK" => indexing::top_k(call),
        "NonMaxSuppression" => indexing::boxes(call),

        "Div" | "Mod" => division(call),
        "Cast" | "EyeLike" | "RandomNormal" | "RandomUniform" | "Multinomial" => element_type(call),
        "LRN" => call.int_in("size", 1..=MAX_SIZE).map(drop),
        "RNN" | "GRU" | "LSTM" => recurrent::check(call),
        "Attention" => attention::attention(call),
        "RotaryEmbedding" => attention::rotary_embedding(call, false),
        "GroupNormalization" => call.int_in("num_groups", 1..=MAX_SIZE).map(drop),
        "BatchNormalization" => batch_normalization(call),
        "Einsum" => equation(call),
        "Constant" => constant(call),
        _ => Ok(()),
    }
}

/// Integer division by a constant: the divisor must not be zero, and the least integer must not be
/// divided by -1.
fn division(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let Some(divisor) = call.summary(1)? else {
        return Ok(());
    };
    if divisor.has_zero {
        return Err(call.invalid(Rule::Division, "integers are divided by a constant that contains zero"));
    }
    let element = call.input(1).and_then(|name| call.scope.element(name));
    let least = match element {
        Some(ElementType::Int64) => i64::MIN,
        Some(ElementType::Int32) => i64::from(i32::MIN),
        Some(ElementType::Int16) => i64::from(i16::MIN),
        Some(ElementType::Int8) => i64::from(i8::MIN),
        _ => return Ok(()),
    };
    // Only the range of the divisors is known, so this may refuse a model whose divisors do not
    // contain -1. No sensible model divides the least integer by such a range.
    let by_minus_one = divisor.ints.is_some_and(|(min, max)| min <= -1 && max >= -1);
    let of_least = call.summary(0)?.and_then(|dividend| dividend.ints).is_some_and(|(min, _)| min == least);
    if by_minus_one && of_least {
        return Err(call.invalid(Rule::Division, "the least integer is divided by -1"));
    }
    Ok(())
}

/// The attribute `to` or `dtype` is a known element type.
fn element_type(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let name = if call.node.op_type == "Cast" { "to" } else { "dtype" };
    if name == "to" && !call.has(name) {
        return call.bad_attribute(name, "is missing");
    }
    match call.int(name)? {
        Some(number) if ElementType::from_number(number).is_none() => {
            Err(call.invalid(Rule::DataType, format!("attribute {name} is {number}, which is not an element type")))
        }
        _ => Ok(()),
    }
}

/// Scale, bias, mean and variance each have one element per channel.
fn batch_normalization(call: &Call<'_, '_>) -> Result<(), Invalid> {
    // Before opset 9, `spatial` 0 meant parameters per channel and pixel.
    if call.opset < 9 && call.int("spatial")? == Some(0) {
        return Ok(());
    }
    let mut channels = call.shape(0).and_then(|shape| shape.get(1).copied().flatten());
    for index in 1..5 {
        let Some(shape) = call.shape(index) else {
            continue;
        };
        let [length] = shape[..] else {
            return Err(call.invalid(Rule::Shape, format!("input {index} must have one dimension")));
        };
        if let (Some(channels), Some(length)) = (channels, length)
            && channels != length
        {
            return Err(
                call.invalid(Rule::Shape, format!("input {index} has {length} entries for {channels} channels"))
            );
        }
        channels = channels.or(length);
    }
    Ok(())
}

/// The equation of an Einsum is present and of bounded length.
fn equation(call: &Call<'_, '_>) -> Result<(), Invalid> {
    match call.text("equation")? {
        None if !call.has("equation") => call.bad_attribute("equation", "is missing"),
        Some(equation) if equation.len() > MAX_EQUATION => call.bad_attribute("equation", "is too long"),
        _ => Ok(()),
    }
}

/// A Constant has exactly one attribute, its value.
fn constant(call: &Call<'_, '_>) -> Result<(), Invalid> {
    match &call.node.attributes[..] {
        [value] if value.name == "value" || value.name.starts_with("value_") || value.name == "sparse_value" => Ok(()),
        _ => Err(call.invalid(Rule::Attribute, "a Constant needs exactly one attribute, its value")),
    }
}

/// `k`, the experts per token, is at most the count of experts.
fn mixture_of_experts(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let k = call.int_in("k", 1..=MAX_SIZE)?.unwrap_or(1);
    let experts = call.shape(2).and_then(|shape| shape.first().copied().flatten());
    match experts {
        Some(experts) if k.unsigned_abs() > experts => {
            call.bad_attribute("k", format!("is {k}, but there are {experts} experts"))
        }
        _ => Ok(()),
    }
}
