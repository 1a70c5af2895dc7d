//! ONNX files as the messages they are: checked before they are parsed, tensors as numbers.

use prost::Message;
use skipstone::onnx::{Limits, validate};
use tract_onnx::pb::attribute_proto::AttributeType;
use tract_onnx::pb::tensor_proto::{DataLocation, DataType};
use tract_onnx::pb::{AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto};

use crate::error::{Error, Result};

/// Parses a model that is whole in itself.
///
/// # Errors
/// What the validation objects to; weights outside the file; functions, subgraphs and sparse weights, which would be
/// lost or overlooked.
pub(crate) fn read(bytes: &[u8]) -> Result<ModelProto> {
    let checked = validate(bytes, &Limits::default()).map_err(skipstone::Error::from)?;
    let refused = [
        ("weights outside the file", !checked.external.is_empty()),
        ("sparse weights", !checked.sparse_initializers.is_empty()),
        ("functions of its own", checked.function_calls > 0),
        ("control flow", checked.has_control_flow),
    ];
    if let Some((what, _)) = refused.into_iter().find(|(_, has)| *has) {
        return Err(Error::Unsupported(format!("the model has {what}; export it without them")));
    }
    ModelProto::decode(bytes).map_err(|e| Error::Unsupported(format!("the model cannot be parsed: {e}")))
}

/// The graph of a model that [`read`] has checked.
pub(crate) fn graph(model: &mut ModelProto) -> Result<&mut GraphProto> {
    model.graph.as_mut().ok_or_else(|| Error::Unsupported("the model has no graph".into()))
}

/// The version of the standard operators.
pub(crate) fn opset(model: &ModelProto) -> i64 {
    let standard = |domain: &str| matches!(domain, "" | "ai.onnx");
    model.opset_import.iter().find(|import| standard(&import.domain)).map_or(1, |import| import.version)
}

/// Whether a node is the standard operator of this name.
pub(crate) fn is(node: &NodeProto, op_type: &str) -> bool {
    node.op_type == op_type && matches!(node.domain.as_str(), "" | "ai.onnx")
}

/// The attribute of a node.
pub(crate) fn attribute<'a>(node: &'a NodeProto, name: &str) -> Option<&'a AttributeProto> {
    node.attribute.iter().find(|attribute| attribute.name == name)
}

/// An integer attribute.
pub(crate) fn int(name: &str, i: i64) -> AttributeProto {
    AttributeProto { name: name.into(), i, r#type: AttributeType::Int as i32, ..AttributeProto::default() }
}

/// The numbers of an f32 tensor; `None` for any other type.
pub(crate) fn floats(tensor: &TensorProto) -> Option<Vec<f32>> {
    if tensor.data_type != DataType::Float as i32 || tensor.data_location == Some(DataLocation::External as i32) {
        return None;
    }
    let count = tensor.dims.iter().try_fold(1usize, |n, &d| n.checked_mul(usize::try_from(d).ok()?))?;
    let values: Vec<f32> = match tensor.raw_data.is_empty() {
        true => tensor.float_data.clone(),
        false => tensor.raw_data.chunks_exact(4).map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]])).collect(),
    };
    (values.len() == count).then_some(values)
}

/// A tensor of little-endian bytes.
pub(crate) fn tensor(name: impl Into<String>, dims: &[usize], data_type: DataType, raw_data: Vec<u8>) -> TensorProto {
    let dims = dims.iter().map(|&d| d as i64).collect();
    TensorProto { name: name.into(), dims, data_type: data_type as i32, raw_data, ..TensorProto::default() }
}

/// An f32 tensor.
pub(crate) fn float_tensor(name: impl Into<String>, dims: &[usize], values: &[f32]) -> TensorProto {
    tensor(name, dims, DataType::Float, values.iter().flat_map(|v| v.to_le_bytes()).collect())
}
