//! Writes ONNX messages: a small model in a few lines, for tests and for code that passes part of
//! a graph to another parser.
//!
//! ```
//! use skipstone_onnx::write::{graph, model, node, value};
//!
//! let relu = node("Relu", &["x"], &["y"], &[]);
//! let file = model(&graph(&[relu], &[], &[value("x", 1, &[2, 3])], &[value("y", 1, &[2, 3])]));
//! assert!(skipstone_onnx::validate(&file, &skipstone_onnx::Limits::default()).is_ok());
//! ```

use crate::wire::{Field, FieldValue, put};

/// `DataType` code of `float32`.
pub const FLOAT: i64 = 1;
/// `DataType` code of `int64`.
pub const INT64: i64 = 7;

/// A protobuf message being written, field by field.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Message(pub(crate) Vec<u8>);

impl Message {
    /// An empty message.
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// A message from its encoded bytes.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        Self(bytes.to_vec())
    }

    /// The bytes written so far.
    #[must_use]
    pub fn into_bytes(self) -> Vec<u8> {
        self.0
    }

    fn field(mut self, number: u32, value: FieldValue<'_>) -> Self {
        put(&mut self.0, Field { number, value });
        self
    }

    /// Adds a bare varint, an incomplete field, for tests of damaged files.
    #[cfg(test)]
    pub(crate) fn varint(mut self, value: u64) -> Self {
        crate::wire::put_varint(&mut self.0, value);
        self
    }

    /// Adds an integer as a varint; negative values are in two's complement.
    #[must_use]
    pub fn int(self, number: u32, value: i64) -> Self {
        self.field(number, FieldValue::Varint(value as u64))
    }

    /// Adds a float.
    #[must_use]
    pub fn float(self, number: u32, value: f32) -> Self {
        self.field(number, FieldValue::Fixed32(value.to_bits()))
    }

    /// Adds bytes.
    #[must_use]
    pub fn bytes(self, number: u32, value: &[u8]) -> Self {
        self.field(number, FieldValue::Bytes(value))
    }

    /// Adds a string.
    #[must_use]
    pub fn text(self, number: u32, value: &str) -> Self {
        self.bytes(number, value.as_bytes())
    }

    /// Adds a message.
    #[must_use]
    pub fn nested(self, number: u32, value: &Self) -> Self {
        self.bytes(number, &value.0)
    }

    /// Adds a repeated field of messages.
    #[must_use]
    pub fn all(self, number: u32, values: &[Self]) -> Self {
        values.iter().fold(self, |message, value| message.nested(number, value))
    }

    /// Adds a repeated field of strings.
    #[must_use]
    pub fn texts(self, number: u32, values: &[&str]) -> Self {
        values.iter().fold(self, |message, value| message.text(number, value))
    }
}

/// An `OperatorSetIdProto`; `ai.onnx` is the empty domain.
#[must_use]
pub fn opset(domain: &str, version: i64) -> Message {
    Message::new().text(1, domain).int(2, version)
}

/// A model with one graph, opset 17.
#[must_use]
pub fn model(graph: &Message) -> Vec<u8> {
    model_with(graph, &[opset("", 17)])
}

/// A model with one graph and these operator sets.
#[must_use]
pub fn model_with(graph: &Message, opsets: &[Message]) -> Vec<u8> {
    Message::new().int(1, 8).nested(7, graph).all(8, opsets).0
}

/// A `GraphProto`.
#[must_use]
pub fn graph(nodes: &[Message], initializers: &[Message], inputs: &[Message], outputs: &[Message]) -> Message {
    Message::new().all(1, nodes).text(2, "g").all(5, initializers).all(11, inputs).all(12, outputs)
}

/// A `NodeProto` in the standard domain, without a name.
#[must_use]
pub fn node(op: &str, inputs: &[&str], outputs: &[&str], attributes: &[Message]) -> Message {
    Message::new().texts(1, inputs).texts(2, outputs).text(4, op).all(5, attributes)
}

/// An integer attribute.
#[must_use]
pub fn int(name: &str, value: i64) -> Message {
    Message::new().text(1, name).int(3, value).int(20, 2)
}

/// A float attribute.
#[must_use]
pub fn float(name: &str, value: f32) -> Message {
    Message::new().text(1, name).float(2, value).int(20, 1)
}

/// A string attribute.
#[must_use]
pub fn text(name: &str, value: &str) -> Message {
    Message::new().text(1, name).text(4, value).int(20, 3)
}

/// A list of integers as an attribute.
#[must_use]
pub fn ints(name: &str, values: &[i64]) -> Message {
    values.iter().fold(Message::new().text(1, name), |message, value| message.int(8, *value)).int(20, 7)
}

/// A list of floats as an attribute.
#[must_use]
pub fn floats(name: &str, values: &[f32]) -> Message {
    values.iter().fold(Message::new().text(1, name), |message, value| message.float(7, *value)).int(20, 6)
}

/// A graph as an attribute.
#[must_use]
pub fn body(name: &str, graph: &Message) -> Message {
    Message::new().text(1, name).nested(6, graph).int(20, 5)
}

/// A `TensorProto` without data: name, dimensions, `DataType` code.
#[must_use]
pub fn head(name: &str, element: i64, dims: &[i64]) -> Message {
    dims.iter().fold(Message::new(), |message, dim| message.int(1, *dim)).int(2, element).text(8, name)
}

/// A `TensorProto` with little-endian raw data.
#[must_use]
pub fn tensor(name: &str, element: i64, dims: &[i64], raw: &[u8]) -> Message {
    head(name, element, dims).bytes(9, raw)
}

/// A `TensorProto` of floats.
#[must_use]
pub fn f32s(name: &str, dims: &[i64], values: &[f32]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, FLOAT, dims, &raw)
}

/// A `TensorProto` of 64-bit integers.
#[must_use]
pub fn i64s(name: &str, dims: &[i64], values: &[i64]) -> Message {
    let raw: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    tensor(name, INT64, dims, &raw)
}

/// A `ValueInfoProto` of a tensor; -1 stands for an unknown dimension.
#[must_use]
pub fn value(name: &str, element: i64, dims: &[i64]) -> Message {
    let dim = |dim: &i64| if *dim == -1 { Message::new() } else { Message::new().int(1, *dim) };
    let dims: Vec<_> = dims.iter().map(dim).collect();
    let shape = Message::new().all(1, &dims);
    typed(name, &Message::new().nested(1, &Message::new().int(1, element).nested(2, &shape)))
}

/// A `ValueInfoProto` with this `TypeProto`.
#[must_use]
pub fn typed(name: &str, kind: &Message) -> Message {
    Message::new().text(1, name).nested(2, kind)
}

/// A `ValueInfoProto` without a type.
#[must_use]
pub fn named(name: &str) -> Message {
    Message::new().text(1, name)
}
