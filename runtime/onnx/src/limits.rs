//! How much of everything a model file may hold.
//!
//! An unchecked file decides how much memory and time its loader spends. Each
//! number here bounds one way of asking for too much, and is generous for the models that people
//! really deploy. A caller that knows its models can only gain by lowering them.

use crate::invalid::{Invalid, Place, Rule};

/// Upper bounds on a model, checked before any other parser sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the model file. 2 GiB is where protobuf itself ends.
    pub max_file_bytes: u64,
    /// Bytes of all the external data together, each tensor counted for itself.
    pub max_external_bytes: u64,
    /// Protobuf messages inside each other; a subgraph costs three of them. Other parsers give
    /// up at 100.
    pub max_depth: usize,
    /// Nodes of the model: main graph, subgraphs and local functions, the latter once per call.
    pub max_nodes: usize,
    /// Messages and strings in the whole file. A parser allocates for each of them, though one
    /// of them may take only two bytes of the file.
    pub max_items: usize,
    /// Attributes of one node.
    pub max_attributes: usize,
    /// Inputs of one node.
    pub max_operands: usize,
    /// Bytes of a name.
    pub max_name_bytes: usize,
    /// Bytes of a string attribute, and of a metadata entry.
    pub max_string_bytes: usize,
    /// Dimensions of a tensor.
    pub max_rank: usize,
    /// Elements of a tensor.
    pub max_tensor_elements: u64,
    /// Elements of all the tensors that operators make from constants alone while the model is
    /// loaded (`ConstantOfShape`, `Expand` of a weight, ...), together. 2^26 floats are 256 MiB.
    pub max_folded_elements: u64,
    /// Multiply-adds, or places of a window, of all operators that are computed from constants alone while the model
    /// is loaded.
    pub max_folded_work: u64,
    /// Oldest version of the ai.onnx operators that is understood.
    pub min_opset: i64,
    /// Newest version of the ai.onnx operators that is understood.
    pub max_opset: i64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_file_bytes: 2 << 30,
            max_external_bytes: 2 << 30,
            max_depth: 32,
            max_nodes: 100_000,
            max_items: 2_000_000,
            max_attributes: 256,
            max_operands: 4096,
            max_name_bytes: 4096,
            max_string_bytes: 16 << 20,
            max_rank: 32,
            max_tensor_elements: 1 << 28,
            max_folded_elements: 1 << 26,
            max_folded_work: 1 << 30,
            min_opset: 6,
            max_opset: 26,
        }
    }
}

impl Limits {
    /// Checks the size of a model file, which can be known before it is read.
    ///
    /// # Errors
    /// `model.limit` above [`Self::max_file_bytes`].
    pub fn check_file_size(&self, bytes: u64) -> Result<(), Invalid> {
        if bytes > self.max_file_bytes {
            let what = format!("the file has {bytes} bytes, the limit is {}", self.max_file_bytes);
            return Err(Invalid::new(Rule::Limit, Place::Model, what));
        }
        Ok(())
    }
}
