//! What the validator learns about a model on its way, for those who load it next.

use std::collections::BTreeMap;

use crate::element::ElementType;

/// A model that passed, in outline. It borrows nothing from the file.
#[derive(Debug, Default, Clone, PartialEq)]
#[non_exhaustive]
pub struct Checked {
    /// Version of the file format.
    pub ir_version: i64,
    /// Versions of the operator sets by domain; `ai.onnx` is the empty string.
    pub opsets: BTreeMap<String, i64>,
    /// Inputs of the main graph in the order of the file, those with an initializer included.
    pub inputs: Vec<ValueFact>,
    /// Outputs of the main graph in the order of the file.
    pub outputs: Vec<ValueFact>,
    /// Initializers of the main graph and its subgraphs.
    pub initializers: usize,
    /// Elements of all initializers and of the tensors of `Constant` nodes.
    pub parameters: u64,
    /// Bytes of their data when packed, external ones included. Strings are not counted.
    pub weight_bytes: u64,
    /// Nodes of the main graph, its subgraphs and the functions.
    pub nodes: usize,
    /// Metadata of the model, in the order of the file.
    pub metadata: Vec<(String, String)>,
    /// Tensors whose data are in other files. See [`crate::external::resolve`].
    pub external: Vec<ExternalTensor>,
    /// Names of sparse initializers: sound, but unknown to parsers that take only dense ones.
    pub sparse_initializers: Vec<String>,
    /// Local functions that the model defines.
    pub functions: usize,
    /// Nodes that call one of them.
    pub function_calls: usize,
    /// Whether a node holds a subgraph (`If`, `Loop`, `Scan`, ...).
    pub has_control_flow: bool,
}

/// An input or output of the main graph.
#[derive(Debug, Clone, PartialEq)]
pub struct ValueFact {
    /// Its name.
    pub name: String,
    /// Its type.
    pub kind: ValueType,
    /// Whether an initializer gives it a value, so that a caller need not.
    pub initialized: bool,
}

/// Type of an input or output.
#[derive(Debug, Clone, PartialEq)]
pub enum ValueType {
    /// A dense tensor. The shape is `None` where even the rank is unknown.
    Tensor {
        /// Type of the elements; `None` for an output that does not tell.
        element: Option<ElementType>,
        /// The dimensions.
        shape: Option<Vec<Dimension>>,
    },
    /// Anything else, by its name: a sequence, an optional, a map, a sparse tensor.
    Other(&'static str),
}

/// One dimension of an input or output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Dimension {
    /// A number.
    Known(u64),
    /// A symbol, equal wherever its name is.
    Symbol(String),
    /// Not told.
    Unknown,
}

/// A tensor whose data are in another file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExternalTensor {
    /// Name of the tensor.
    pub tensor: String,
    /// Path of the file relative to the model's folder, `/` between its parts.
    pub location: String,
    /// Where the data start, in bytes.
    pub offset: u64,
    /// How many bytes they take, which follows from shape and type.
    pub length: u64,
}
