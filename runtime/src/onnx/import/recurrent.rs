//! Recurrent layers.

use skipstone_kernels::activation::Activation;

use super::build::{Halt, Imported};
use super::call::Call;
use super::quantized::ByteMatrix;
use super::table::{Entry, microsoft, standard};
use super::unrolled::{self, Matrix, Operands};
use crate::graph::ValueId;
use crate::ops::curve::Curve;
use crate::ops::recurrent::{Cell, Direction, Gate, Given, Recurrent};
use crate::ops::slice::Slice;
use crate::tensor::DType;

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["LSTM"], lstm),
    standard(&["GRU"], gru),
    standard(&["RNN"], rnn),
    microsoft(&["DynamicQuantizeLSTM"], quantized_lstm),
];

/// Functions of an LSTM for one direction.
const LSTM: [&str; 3] = ["Sigmoid", "Tanh", "Tanh"];

fn rnn(cx: &mut Call<'_, '_>) -> Imported {
    layer(cx, Cell::Rnn, &["Tanh"])
}

fn gru(cx: &mut Call<'_, '_>) -> Imported {
    let linear_before_reset = cx.flag("linear_before_reset", false)?;
    layer(cx, Cell::Gru(linear_before_reset), &["Sigmoid", "Tanh"])
}

fn lstm(cx: &mut Call<'_, '_>) -> Imported {
    let input_forget = cx.flag("input_forget", false)?;
    layer(cx, Cell::Lstm(input_forget), &LSTM)
}

/// com.microsoft DynamicQuantizeLSTM: the inputs of all steps, and the states of a step, are quantized with scales
/// computed from them, and multiplied by bytes `[directions, columns, gates * hidden]`.
fn quantized_lstm(cx: &mut Call<'_, '_>) -> Imported {
    let op = declared(cx, Cell::Lstm(cx.flag("input_forget", false)?), &LSTM)?;
    let (x, weights, recurrence) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let rule = "bytes must be [directions, columns, 4 * hidden], with a scale for each direction or each of its rows";
    let wrong = |cx: &Call<'_, '_>| cx.shape_error(rule, &[x, weights, recurrence]);
    let (&[directions, columns, rows], &[other, size, own_rows]) =
        (cx.shape(weights).dims(), cx.shape(recurrence).dims())
    else {
        return Err(wrong(cx));
    };
    let fits = cx.rank(x) == 3 && cx.shape(x)[2] == columns && own_rows == rows && size.checked_mul(4) == Some(rows);
    if !fits || other != directions || cx.dtype(x) != DType::F32 {
        return Err(wrong(cx));
    }
    let mut matrices = cx.reserve(directions)?;
    for direction in 0..directions {
        let mut of = |bytes: usize, columns: usize, scale: usize| {
            let mut own = |index: usize| {
                let id = cx.input(index)?;
                if cx.rank(id) == 0 || cx.shape(id)[0] != directions {
                    return Err(wrong(cx));
                }
                let dims = cx.shape(id)[1..].to_vec();
                let part = cx.add(Slice { axis: 0, start: direction, len: 1, step: 1 }, &[id])?;
                cx.reshape(part, &dims)
            };
            let (matrix, scale, zero) = (own(bytes)?, own(scale)?, own(scale + 1)?);
            ByteMatrix::new(cx, [columns, rows], matrix, scale, zero).map(Matrix::Bytes)
        };
        matrices.push([of(1, columns, 8)?, of(2, size, 10)?]);
    }
    let [bias, lens, hidden, cell, peepholes] = [3, 4, 5, 6, 7].map(|index| cx.optional(index));
    unrolled::layer(cx, &op, size, &Operands { x, matrices, bias, lens, hidden, cell, peepholes })
}

/// The attributes of a layer; `functions` are the defaults for one direction.
fn declared(cx: &Call<'_, '_>, cell: Cell, functions: &[&str]) -> Result<Recurrent, Halt> {
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
    Ok(Recurrent { cell, direction, functions, clip, batch_first, given: Given::default() })
}

/// A layer; `functions` are the defaults for one direction.
fn layer(cx: &mut Call<'_, '_>, cell: Cell, functions: &[&str]) -> Imported {
    let mut op = declared(cx, cell, functions)?;
    let mut inputs = vec![cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let dtype = cx.dtype(inputs[0]);
    if !matches!(dtype, DType::F32 | DType::F64) || inputs.iter().any(|&id| cx.dtype(id) != dtype) {
        return Err(Halt::Foreign);
    }
    let steps = cx.shape(inputs[0]).get(usize::from(op.batch_first)).copied().unwrap_or(0);
    let mut operand = |cx: &Call<'_, '_>, index: usize| {
        // Zeros, and full lengths, are the same as omitting the operand.
        let given = cx.optional(index).filter(|&id| !is_plain(cx, id, steps));
        inputs.extend(given);
        given.is_some()
    };
    op.given = Given {
        bias: operand(cx, 3),
        lens: operand(cx, 4),
        hidden: operand(cx, 5),
        cell: operand(cx, 6),
        peepholes: operand(cx, 7),
    };
    if dtype == DType::F64 { unrolled::of_doubles(cx, &op, &inputs) } else { cx.add_all(op, &inputs) }
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
