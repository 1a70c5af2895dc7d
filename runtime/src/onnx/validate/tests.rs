//! Every rule, met and broken, on models written byte by byte.

mod control;
mod format;
mod hostile;
mod names;
mod operators;
mod recurrent;
mod tensors;

use super::{Checked, validate};
use crate::onnx::limits::Limits;

/// Element type numbers.
pub(in crate::onnx) const FLOAT: i64 = 1;
const INT32: i64 = 6;
const INT64: i64 = 7;
const STRING: i64 = 8;

/// A protobuf message being written.
#[derive(Default, Clone)]
pub(in crate::onnx) struct Message(Vec<u8>);

pub(in crate::onnx) fn message() -> Message {
    Message::default()
}

impl Message {
    fn varint(mut self, mut value: u64) -> Self {
        while value >= 0x80 {
            self.0.push(value as u8 | 0x80);
            value >>= 7;
        }
        self.0.push(value as u8);
        self
    }

    fn int(self, number: u64, value: i64) -> Self {
        self.varint(number << 3).varint(value as u64)
    }

    fn float(self, number: u64, value: f32) -> Self {
        let mut message = self.varint(number << 3 | 5);
        message.0.extend(value.to_le_bytes());
        message
    }

    fn bytes(self, number: u64, value: &[u8]) -> Self {
        let mut message = self.varint(number << 3 | 2).varint(value.len() as u64);
        message.0.extend(value);
        message
    }

    pub(in crate::onnx) fn text(self, number: u64, value: &str) -> Self {
        self.bytes(number, value.as_bytes())
    }

    fn nested(self, number: u64, value: &Self) -> Self {
        self.bytes(number, &value.0)
    }

    fn all(self, number: u64, values: &[Self]) -> Self {
        values.iter().fold(self, |message, value| message.nested(number, value))
    }

    fn texts(self, number: u64, values: &[&str]) -> Self {
        values.iter().fold(self, |message, value| message.text(number, value))
    }
}

fn opset(domain: &str, version: i64) -> Message {
    message().text(1, domain).int(2, version)
}

/// A model of one graph, opset 17.
pub(in crate::onnx) fn model(graph: &Message) -> Vec<u8> {
    message().int(1, 8).nested(7, graph).nested(8, &opset("", 17)).0
}

pub(in crate::onnx) fn graph(
    nodes: &[Message],
    initializers: &[Message],
    inputs: &[Message],
    outputs: &[Message],
) -> Message {
    message().all(1, nodes).text(2, "g").all(5, initializers).all(11, inputs).all(12, outputs)
}

pub(in crate::onnx) fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Message]) -> Message {
    message().texts(1, inputs).texts(2, outputs).text(4, op).all(5, attributes)
}

pub(in crate::onnx) fn int(name: &str, value: i64) -> Message {
    message().text(1, name).int(3, value).int(20, 2)
}

pub(in crate::onnx) fn float(name: &str, value: f32) -> Message {
    message().text(1, name).float(2, value).int(20, 1)
}

pub(in crate::onnx) fn text(name: &str, value: &str) -> Message {
    message().text(1, name).text(4, value).int(20, 3)
}

fn ints(name: &str, values: &[i64]) -> Message {
    values.iter().fold(message().text(1, name), |message, value| message.int(8, *value)).int(20, 7)
}

fn floats(name: &str, values: &[f32]) -> Message {
    values.iter().fold(message().text(1, name), |message, value| message.float(7, *value)).int(20, 6)
}

fn body(name: &str, graph: &Message) -> Message {
    message().text(1, name).nested(6, graph).int(20, 5)
}

/// The head of a tensor: name, dimensions, element type.
fn head(name: &str, element: i64, dims: &[i64]) -> Message {
    dims.iter().fold(message(), |message, dim| message.int(1, *dim)).int(2, element).text(8, name)
}

fn f32s(name: &str, dims: &[i64], values: &[f32]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    head(name, FLOAT, dims).bytes(9, &raw)
}

pub(in crate::onnx) fn zeros(name: &str, dims: &[i64]) -> Message {
    f32s(name, dims, &vec![0.0; dims.iter().product::<i64>() as usize])
}

pub(in crate::onnx) fn i64s(name: &str, dims: &[i64], values: &[i64]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    head(name, INT64, dims).bytes(9, &raw)
}

/// An input or output; -1 stands for a dimension that is not told.
pub(in crate::onnx) fn value(name: &str, element: i64, dims: &[i64]) -> Message {
    let dims: Vec<_> = dims.iter().map(|dim| if *dim == -1 { message() } else { message().int(1, *dim) }).collect();
    typed(name, &message().nested(1, &message().int(1, element).nested(2, &message().all(1, &dims))))
}

fn typed(name: &str, kind: &Message) -> Message {
    message().text(1, name).nested(2, kind)
}

/// `x[1, 3, 8, 8]` -> Conv -> Relu -> `y`: small, and sound.
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
    message().int(1, 8).nested(7, &graph).nested(8, &opset("", 17)).nested(14, &entry).0
}

/// A model of nodes from a float input `x` of the given shape to an output `y`.
pub(in crate::onnx) fn with(dims: &[i64], nodes: &[Message], initializers: &[Message]) -> Vec<u8> {
    model(&graph(nodes, initializers, &[value("x", FLOAT, dims)], &[message().text(1, "y")]))
}

/// A model of one node from `x` to `y`.
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
