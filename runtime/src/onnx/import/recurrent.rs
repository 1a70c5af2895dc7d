//! Recurrent layers.

use skipstone_kernels::activation::Activation;

use super::build::{Halt, Imported};
use super::call::Call;
use super::double;
use super::table::{Entry, standard};
use crate::graph::ValueId;
use crate::ops::curve::Curve;
use crate::ops::recurrent::{Cell, Direction, Gate, Given, Recurrent};
use crate::tensor::DType;

pub(super) const OPERATORS: &[Entry] = &[standard(&["LSTM"], lstm), standard(&["GRU"], gru), standard(&["RNN"], rnn)];

fn rnn(cx: &mut Call<'_, '_>) -> Imported {
    layer(cx, Cell::Rnn, &["Tanh"])
}

fn gru(cx: &mut Call<'_, '_>) -> Imported {
    let linear_before_reset = cx.flag("linear_before_reset", false)?;
    layer(cx, Cell::Gru(linear_before_reset), &["Sigmoid", "Tanh"])
}

fn lstm(cx: &mut Call<'_, '_>) -> Imported {
    let input_forget = cx.flag("input_forget", false)?;
    layer(cx, Cell::Lstm(input_forget), &["Sigmoid", "Tanh", "Tanh"])
}

/// A layer; `functions` are the defaults for one direction.
fn layer(cx: &mut Call<'_, '_>, cell: Cell, functions: &[&str]) -> Imported {
    let direction = match cx.text("direction")?.unwrap_or("forward") {
        "forward" => Direction::Forward,
        "reverse" => Direction::Reverse,
        "bidirectional" => Direction::Both,
        other => return Err(cx.attribute_error("direction", format!("is '{other}'"))),
    };
    let directions = if direction == Direction::Both { 2 } else { 1 };
    let batch_first = cx.flag("layout", false)?;
    let functions = gates(cx, &functions.repeat(directions))?;
    let clip = if cx.has("clip") { Some(cx.float("clip", 0.0)?) } else { None };

    let mut inputs = vec![cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let dtype = cx.dtype(inputs[0]);
    if !matches!(dtype, DType::F32 | DType::F64) || inputs.iter().any(|&id| cx.dtype(id) != dtype) {
        return Err(Halt::Foreign);
    }
    let steps = cx.shape(inputs[0]).get(usize::from(batch_first)).copied().unwrap_or(0);
    let mut operand = |cx: &Call<'_, '_>, index: usize| {
        // Zeros, and full lengths, are the same as omitting the operand.
        let given = cx.optional(index).filter(|&id| !is_plain(cx, id, steps));
        inputs.extend(given);
        given.is_some()
    };
    let given = Given {
        bias: operand(cx, 3),
        lens: operand(cx, 4),
        hidden: operand(cx, 5),
        cell: operand(cx, 6),
        peepholes: operand(cx, 7),
    };
    let op = Recurrent { cell, direction, functions, clip, batch_first, given };
    if dtype == DType::F64 { double::layer(cx, &op, &inputs) } else { cx.add_all(op, &inputs) }
}

/// Whether a constant operand is the same as omitting it: zeros, or full lengths.
fn is_plain(cx: &Call<'_, '_>, id: ValueId, steps: usize) -> bool {
    let Some(tensor) = cx.constant_of(id) else { return false };
    let full = |lens: &[i32]| lens.iter().all(|&len| usize::try_from(len).is_ok_and(|len| len == steps));
    tensor.elements::<f32>().is_some_and(|all| all.iter().all(|&v| v == 0.0)) || tensor.elements().is_some_and(full)
}

/// The functions of all gates. Parameters are assigned in order to the functions that have them, as in ONNX Runtime.
fn gates(cx: &Call<'_, '_>, default: &[&str]) -> Result<Vec<Gate>, Halt> {
    let named = cx.texts("activations")?.unwrap_or_default();
    let names = if named.is_empty() { default } else { &named };
    if names.len() != default.len() {
        return Err(
            cx.attribute_error("activations", format!("names {} functions, not {}", names.len(), default.len()))
        );
    }
    let mut alphas = cx.floats("activation_alpha")?.unwrap_or_default().into_iter();
    let mut betas = cx.floats("activation_beta")?.unwrap_or_default().into_iter();
    let gate = |name: &&str| {
        let mut alpha = |default: f32| alphas.next().unwrap_or(default);
        let mut beta = |default: f32| betas.next().unwrap_or(default);
        Ok(match name.to_ascii_lowercase().as_str() {
            "relu" => Gate::Activation(Activation::Relu),
            "tanh" => Gate::Activation(Activation::Tanh),
            "sigmoid" => Gate::Activation(Activation::Sigmoid),
            "hardsigmoid" => Gate::Activation(Activation::HardSigmoid { alpha: alpha(0.2), beta: beta(0.5) }),
            "leakyrelu" => Gate::Activation(Activation::LeakyRelu(alpha(0.01))),
            "affine" => Gate::Curve(Curve::Affine { alpha: alpha(1.0), beta: beta(0.0) }),
            "scaledtanh" => Gate::Curve(Curve::ScaledTanh { alpha: alpha(1.0), beta: beta(1.0) }),
            "thresholdedrelu" => Gate::Curve(Curve::ThresholdedRelu(alpha(1.0))),
            "elu" => Gate::Curve(Curve::Selu { alpha: alpha(1.0), gamma: 1.0 }),
            "softsign" => Gate::Curve(Curve::Softsign),
            "softplus" => Gate::Curve(Curve::Softplus),
            _ => return Err(cx.attribute_error("activations", format!("names '{name}'"))),
        })
    };
    names.iter().map(gate).collect()
}
