//! Reads and validates ONNX files: the protobuf wire format, the messages of a model borrowed from
//! the file, and a validator that checks untrusted bytes before anything else loads them.
//!
//! [`read`] decodes a file and checks it. If it succeeds, every name resolves, the graph has no
//! cycles, each tensor holds exactly the bytes that its shape requires, and every bound of
//! [`Limits`] holds.

// Model files are untrusted: nothing here can panic on one.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

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
pub use order::{Unordered, captures, order};
use skipstone_reserve as reserve;
pub use validate::{Checked, Dimension, ExternalTensor, ValueFact, ValueType, is_standard, node, read, validate};
