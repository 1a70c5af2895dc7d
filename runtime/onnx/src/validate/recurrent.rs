//! RNN, GRU and LSTM. The code that runs them trusts the shapes of their operands, so they are
//! checked here. The rules are those of the ONNX operator pages RNN, GRU and LSTM.

use super::call::Call;
use super::operators::MAX_SIZE;
use super::sizes::{Size, Sizes};
use crate::invalid::{Invalid, Rule};

/// The functions that `activations` may name.
const ACTIVATIONS: [&str; 11] = [
    "Affine",
    "Elu",
    "HardSigmoid",
    "LeakyRelu",
    "Relu",
    "ScaledTanh",
    "Sigmoid",
    "Softplus",
    "Softsign",
    "Tanh",
    "ThresholdedRelu",
];

/// `X[sequence, batch, input]`, `W[directions, gates * hidden, input]`,
/// `R[directions, gates * hidden, hidden]`, `B[directions, 2 * gates * hidden]`,
/// `sequence_lens[batch]`, `initial_h[directions, batch, hidden]`; an LSTM also has `initial_c`,
/// shaped like `initial_h`, and `P[directions, 3 * hidden]`. With `layout` 1 the batch comes first.
pub(super) fn check(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let (gates, functions) = match call.node.op_type {
        "LSTM" => (4, 3),
        "GRU" => (3, 2),
        _ => (1, 1),
    };
    let directions = match call.text("direction")? {
        None | Some("forward" | "reverse") => 1,
        Some("bidirectional") => 2,
        Some(_) => return call.bad_attribute("direction", "has an unknown value"),
    };
    let mut sizes = Sizes::new(call);
    sizes.set("directions", directions);
    if let Some(hidden) = call.int_in("hidden_size", 1..=MAX_SIZE)? {
        sizes.set("hidden size", hidden.unsigned_abs());
    }
    let batch_first = call.int_in("layout", 0..=1)?.unwrap_or(0) == 1;
    call.int_in("input_forget", 0..=1)?;
    call.int_in("linear_before_reset", 0..=1)?;
    activations(call, directions * functions)?;

    let [directions, hidden] = [Size("directions", 1), Size("hidden size", 1)];
    let [sequence, batch, input] = [Size("sequence length", 1), Size("batch", 1), Size("input size", 1)];
    let rows = Size("hidden size", gates);
    let state = if batch_first { [batch, directions, hidden] } else { [directions, batch, hidden] };
    // R first: it gives the hidden size if no attribute does.
    sizes.operand(2, &[directions, rows, hidden])?;
    sizes.operand(0, &if batch_first { [batch, sequence, input] } else { [sequence, batch, input] })?;
    sizes.operand(1, &[directions, rows, input])?;
    sizes.operand(3, &[directions, Size("hidden size", 2 * gates)])?;
    sizes.operand(4, &[batch])?;
    sizes.operand(5, &state)?;
    sizes.operand(6, &state)?;
    sizes.operand(7, &[directions, Size("hidden size", 3)])?;
    sizes.floats(&[0, 1, 2, 3, 5, 6, 7])?;
    lengths(call, sizes.get("sequence length"))
}

/// `activations` has `count` entries, each the name of a known function.
fn activations(call: &Call<'_, '_>, count: u64) -> Result<(), Invalid> {
    let Some(attribute) = call.node.attribute("activations") else {
        return Ok(());
    };
    if attribute.strings.len() as u64 != count {
        return call.bad_attribute("activations", format!("has {} entries, expected {count}", attribute.strings.len()));
    }
    let known = |name: &[u8]| ACTIVATIONS.iter().any(|known| name.eq_ignore_ascii_case(known.as_bytes()));
    match attribute.strings.iter().all(|name| known(name)) {
        true => Ok(()),
        false => call.bad_attribute("activations", "names an unknown function"),
    }
}

/// Constant sequence lengths are between 0 and the padded length.
fn lengths(call: &Call<'_, '_>, longest: Option<u64>) -> Result<(), Invalid> {
    let Some((least, most)) = call.summary(4)?.and_then(|lengths| lengths.ints) else {
        return Ok(());
    };
    match longest {
        _ if least < 0 => Err(call.invalid(Rule::Index, format!("a sequence length is {least}"))),
        Some(longest) if most.unsigned_abs() > longest => {
            Err(call.invalid(Rule::Index, format!("a sequence length is {most}, the longest can be {longest}")))
        }
        _ => Ok(()),
    }
}
