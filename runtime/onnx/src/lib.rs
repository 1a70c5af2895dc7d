//! ONNX files, before anything is computed: the wire format of protobuf, the messages of a model
//! borrowed from the file, and a validator that stands between untrusted bytes and whoever loads
//! them.
//!
//! [`read`] decodes a file and checks it: afterwards names resolve, nodes are in an order that can
//! be run, tensors hold as many bytes as their shapes say, and every bound of [`Limits`] holds.

mod decode;
mod element;
pub mod external;
mod invalid;
mod limits;
mod order;
pub mod proto;
mod validate;
pub mod wire;
pub mod write;

pub use decode::decode;
pub use element::ElementType;
pub use invalid::{Invalid, Place, Rule, quoted};
pub use limits::Limits;
pub use order::{captures, order};
pub use validate::{Checked, Dimension, ExternalTensor, ValueFact, ValueType, is_standard, node, read, validate};
