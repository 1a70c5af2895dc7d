//! The ONNX front end: from untrusted bytes to a Graph.
//!
//! Bytes are checked by our own [`validate`](validate::validate) before any other parser sees
//! them; then tract-onnx parses and types the model for concrete input shapes, and
//! [`lower`] turns its typed graph into ours. tract's panics end in [`guard`]. Nothing above
//! this module names tract.

mod admit;
mod convert;
mod external;
mod fallback;
mod guard;
mod hollow;
mod limits;
pub(crate) mod lower;
mod qoperator;
pub(crate) mod quantized;
mod source;
#[cfg(test)]
mod tests;
mod validate;
mod wire;

use std::path::Path;

pub use limits::Limits;
pub use validate::{
    Checked, Dimension, ElementType, ExternalTensor, Invalid, Place, Rule, ValueFact, ValueType, Weights, validate,
};

use crate::error::{Error, Result};
use crate::model::{Info, Model, Source};
use crate::options::Options;
use source::OnnxSource;

/// Opens the `.onnx` file at `path`; external data is read from beside it.
pub(crate) fn open(path: &Path, options: &Options) -> Result<Model> {
    let (source, info) = read(path)?;
    Model::from_source(source, info, options)
}

/// Reads and checks the `.onnx` file at `path`.
pub(crate) fn read(path: &Path) -> Result<(impl Source + use<>, Info)> {
    let io = |source| Error::Io { path: path.display().to_string(), source };
    let limits = Limits::default();
    let size = std::fs::metadata(path).map_err(io)?.len();
    limits.check_file_size(size)?;
    let bytes = std::fs::read(path).map_err(io)?;
    parse(&bytes, Some(path), &limits)
}

/// Loads a model that is given as bytes.
pub(crate) fn from_bytes(bytes: &[u8], options: &Options) -> Result<Model> {
    let (source, info) = parse(bytes, None, &Limits::default())?;
    Model::from_source(source, info, options)
}

fn parse(bytes: &[u8], path: Option<&Path>, limits: &Limits) -> Result<(OnnxSource, Info)> {
    let checked = validate(bytes, limits)?;
    // Both are legal ONNX that the parser behind would silently read as something else.
    let unread = [
        ("sparse initializers", checked.sparse_initializers.len()),
        ("calls of local functions", checked.function_calls),
    ];
    if let Some((what, count)) = unread.into_iter().find(|(_, count)| *count > 0) {
        let reason = format!("{count} {what}; export the model without them");
        return Err(Error::Unsupported { node: "graph".into(), reason });
    }
    let directory = external::resolve(path, &checked, limits)?;
    let info = Info {
        metadata: checked.metadata.iter().cloned().collect(),
        parameters: checked.parameters,
        weight_bytes: checked.weight_bytes,
        package: None,
    };
    let (hollow, weights) = hollow::hollow(bytes, &checked)?;
    Ok((OnnxSource::parse(&hollow, weights, &checked, directory.as_deref())?, info))
}
