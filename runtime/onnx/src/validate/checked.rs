//! Facts about a valid model, collected during validation for the code that loads it.

use std::collections::BTreeMap;

use crate::element::ElementType;

/// Summary of a valid model. It borrows nothing from the file.
#[derive(Debug, Default, Clone, PartialEq)]
#[non_exhaustive]
pub struct Checked {
    /// Version of the file format.
    pub ir_version: i64,
    /// Versions of the operator sets by domain; `ai.onnx` is the empty string.
    pub opsets: BTreeMap<String, i64>,
    /// Inputs of the main graph in the order of the file, including those with an initializer.
    pub inputs: Vec<ValueFact>,
    /// Outputs of the main graph in the order of the file.
    pub outputs: Vec<ValueFact>,
    /// Count of initializers in the main graph and its subgraphs.
    pub initializers: usize,
    /// Total elements of all initializers and of the tensors of `Constant` nodes.
    pub parameters: u64,
    /// Total bytes of their packed data, including external data. Strings are not counted.
    pub weight_bytes: u64,
    /// Count of nodes in the main graph, its subgraphs and the functions.
    pub nodes: usize,
    /// Metadata of the model as key and value, in the order of the file.
    pub metadata: Vec<(String, String)>,
    /// Tensors whose data is in other files. See [`crate::external::resolve`].
    pub external: Vec<ExternalTensor>,
    /// Names of sparse initializers. They are valid, but not every parser supports them.
    pub sparse_initializers: Vec<String>,
    /// Count of local functions.
    pub functions: usize,
    /// Count of nodes that call a local function.
    pub function_calls: usize,
    /// Whether a node has a subgraph (`If`, `Loop`, `Scan`, ...).
    pub has_control_flow: bool,
}

/// An input or output of the main graph.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueFact {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ValueType,
    /// Whether an initializer provides a default value.
    pub initialized: bool,
}

/// Type of an input or output.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueType {
    /// A dense tensor.
    Tensor {
        /// Element type; `None` for an output that does not declare one.
        element: Option<ElementType>,
        /// The dimensions; `None` if even the rank is unknown.
        shape: Option<Vec<Dimension>>,
    },
    /// Any other type, by name: a sequence, an optional, a map, a sparse tensor.
    Other(&'static str),
}

/// One dimension of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dimension {
    /// A fixed size.
    Known(u64),
    /// A named size; dimensions with the same name are equal.
    Symbol(String),
    /// Unknown.
    Unknown,
}

/// A tensor whose data is in another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalTensor {
    /// Name of the tensor.
    pub tensor: String,
    /// Path of the file relative to the model's folder, separated by `/`.
    pub location: String,
    /// Offset of the data in the file, in bytes.
    pub offset: u64,
    /// Size of the data in bytes, computed from shape and element type.
    pub length: u64,
}
