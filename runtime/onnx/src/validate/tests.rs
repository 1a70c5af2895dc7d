//! Tests of every rule, with models that keep it and models that break it, written byte by byte.

mod control;
mod format;
mod hostile;
mod names;
mod operators;
mod recurrent;
mod tensors;

use super::{Checked, validate};
use crate::limits::Limits;
use crate::write::{
    FLOAT, INT64, Message, body, f32s, float, floats, graph, head, i64s, int, ints, model, node, opset, text, typed,
    value,
};

const INT32: i64 = 6;
const STRING: i64 = 8;

fn message() -> Message {
    Message::new()
}

fn zeros(name: &str, dims: &[i64]) -> Message {
    f32s(name, dims, &vec![0.0; dims.iter().product::<i64>() as usize])
}

/// A small valid model: `x[1, 3, 8, 8]` -> Conv -> Relu -> `y`.
fn sound() -> Vec<u8> {
    let nodes = [
        node(
            "Conv",
            &["x", "w", "b"],
            &["c"],
            &[ints("kernel_shape", &[3, 3]), ints("pads", &[1, 1, 1, 1]), int("group", 1)],
        ),
        node("Relu", &["c"], &["y"], &[]),
    ];
    let initializers = [zeros("w", &[4, 3, 3, 3]), zeros("b", &[4])];
    let entry = message().text(1, "labels").text(2, "cat,dog");
    let graph = graph(&nodes, &initializers, &[value("x", FLOAT, &[1, 3, 8, 8])], &[value("y", FLOAT, &[1, 4, 8, 8])]);
    message().int(1, 8).nested(7, &graph).nested(8, &opset("", 17)).nested(14, &entry).into_bytes()
}

/// A model with a float input `x` of the given shape and an output `y`.
fn with(dims: &[i64], nodes: &[Message], initializers: &[Message]) -> Vec<u8> {
    model(&graph(nodes, initializers, &[value("x", FLOAT, dims)], &[message().text(1, "y")]))
}

/// A model with one node, from `x` to `y`.
fn one(dims: &[i64], op: &str, inputs: &[&str], attributes: &[Message], initializers: &[Message]) -> Vec<u8> {
    with(dims, &[node(op, inputs, &["y"], attributes)], initializers)
}

#[track_caller]
fn accepts(bytes: &[u8]) -> Checked {
    validate(bytes, &Limits::default()).unwrap_or_else(|error| panic!("refused: [{}] {error}", error.code()))
}

#[track_caller]
fn refuses(bytes: &[u8], code: &str) -> String {
    match validate(bytes, &Limits::default()) {
        Ok(_) => panic!("accepted, expected {code}"),
        Err(error) => {
            assert_eq!(error.code(), code, "{error}");
            error.to_string()
        }
    }
}
