//! A model file without its weights, for the parser.
//!
//! The parser copies every initializer, and so does each of its steps: a model of 20 MB would pass
//! through memory five times. The weights that the validator found are taken out of the file
//! instead, straight into tensors of ours, and become inputs of the parser's graph:
//!
//! ```text
//! graph { initializer w, raw_data ... }    =>    graph { input w: float[64, 16, 1, 1] }
//! ```
//!
//! Weights are floats, or the bytes of a quantised model.
//!
//! Lowering puts the tensors back where it meets those inputs.

use std::collections::HashMap;
use std::sync::Arc;

use super::validate::Weights as Found;
use super::wire::{Field, Reader, Value, WireError, put};
use super::{Checked, ElementType};
use crate::error::{Error, Result};
use crate::tensor::{DType, Fact, Shape, Tensor};

/// Weights by name.
pub(super) type Weights = HashMap<String, Arc<Tensor>>;

/// `ModelProto.graph`
const GRAPH: u32 = 7;
/// `GraphProto.initializer`
const INITIALIZER: u32 = 5;
/// `GraphProto.input`
const INPUT: u32 = 11;

/// The weights of a file that was found valid, and the file without them.
pub(super) fn hollow(file: &[u8], checked: &Checked) -> Result<(Vec<u8>, Weights)> {
    let lost = || Error::Internal("weights lie outside the file".into());
    let mut weights = Weights::new();
    for found in &checked.weights {
        let data = file.get(found.data.clone()).ok_or_else(lost)?;
        let dtype = match found.element {
            ElementType::Int8 => DType::I8,
            ElementType::Uint8 => DType::U8,
            _ => DType::F32,
        };
        let tensor = Shape::new(&found.dims).and_then(|shape| Tensor::from_bytes(Fact::new(dtype, shape), data));
        weights.insert(found.name.clone(), Arc::new(tensor.map_err(|e| e.at(&found.name))?));
    }
    let rest = without(file, checked).map_err(|e| Error::Internal(format!("a checked file: {e}")))?;
    Ok((rest, weights))
}

/// The file with the weights declared as inputs.
fn without(file: &[u8], checked: &Checked) -> Result<Vec<u8>, WireError> {
    let mut starts: Vec<usize> = checked.weights.iter().map(|weights| weights.data.start).collect();
    starts.sort_unstable();
    let holds_weights = |message: &[u8]| {
        let start = message.as_ptr().addr() - file.as_ptr().addr();
        let next = starts.partition_point(|&at| at < start);
        starts.get(next).is_some_and(|&at| at < start + message.len())
    };
    let mut model = Vec::new();
    let mut fields = Reader::new(file);
    while let Some(field) = fields.field()? {
        match field {
            Field { number: GRAPH, value: Value::Bytes(message) } => {
                let mut graph = Vec::new();
                let mut fields = Reader::new(message);
                while let Some(field) = fields.field()? {
                    match field {
                        Field { number: INITIALIZER, value: Value::Bytes(tensor) } if holds_weights(tensor) => {}
                        field => put(&mut graph, field),
                    }
                }
                for weights in &checked.weights {
                    put(&mut graph, bytes(INPUT, &input(weights)));
                }
                put(&mut model, bytes(GRAPH, &graph));
            }
            field => put(&mut model, field),
        }
    }
    Ok(model)
}

/// A `ValueInfoProto` for weights.
fn input(weights: &Found) -> Vec<u8> {
    let mut shape = Vec::new();
    for &dim in &weights.dims {
        put(&mut shape, bytes(1, &message(&[number(1, dim as u64)])));
    }
    let tensor = message(&[number(1, weights.element as u64), bytes(2, &shape)]);
    let kind = message(&[bytes(1, &tensor)]);
    message(&[bytes(1, weights.name.as_bytes()), bytes(2, &kind)])
}

fn message(fields: &[Field<'_>]) -> Vec<u8> {
    let mut message = Vec::new();
    for &field in fields {
        put(&mut message, field);
    }
    message
}

fn bytes(number: u32, bytes: &[u8]) -> Field<'_> {
    Field { number, value: Value::Bytes(bytes) }
}

fn number(number: u32, value: u64) -> Field<'static> {
    Field { number, value: Value::Varint(value) }
}
