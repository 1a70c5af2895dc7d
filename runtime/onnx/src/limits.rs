//! Limits on what a model file may contain.
//!
//! An unchecked file decides how much memory and time its loader spends. Each limit here bounds one of the ways to
//! waste them, and is generous for models in practical use. Callers that know their models can lower them without loss.

use crate::invalid::{Invalid, Place, Rule};

/// Upper bounds on a model, checked before any other parser sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of the model file. 2 GiB is protobuf's own limit.
    pub max_file_bytes: u64,
    /// Bytes of all external data together; shared data counts once per tensor.
    pub max_external_bytes: u64,
    /// Nesting depth of protobuf messages; a subgraph costs three levels. Other parsers give up at 100.
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
    /// Total elements of all tensors that are computed from constants while the model is loaded (`ConstantOfShape`,
    /// `Expand` of a weight, ...). 2^26 floats are 256 MiB.
    pub max_folded_elements: u64,
    /// Total multiply-adds, or window positions, of all operators that are computed from constants while the model is
    /// loaded.
    pub max_folded_work: u64,
    /// Oldest supported version of the ai.onnx operators.
    pub min_opset: i64,
    /// Newest supported version of the ai.onnx operators.
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
    /// Checks the size of a model file before it is read.
    ///
    /// # Errors
    /// `model.limit` above [`Self::max_file_bytes`].
    pub fn check_file_size(&self, bytes: u64) -> Result<(), Invalid> {
        if bytes > self.max_file_bytes {
            let what = format!("the file has {bytes} bytes, the limit 'file' is {}", self.max_file_bytes);
            return Err(Invalid::new(Rule::Limit, Place::Model, what));
        }
        Ok(())
    }
}
