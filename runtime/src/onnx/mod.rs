//! The ONNX importer: from untrusted bytes to a Graph.
//!
//! Bytes are decoded and checked by [`skipstone_onnx`] before anything else sees them; then [`import`] turns the
//! messages into our graph for concrete input shapes. Nodes without one of our operators are left to [`fallback`].

mod by_value;
mod fallback;
mod import;
mod source;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::Read;
use std::path::Path;

pub use skipstone_onnx::{
    Checked, Dimension, ElementType, ExternalTensor, Invalid, Limits, Place, Rule, ValueFact, ValueType, validate,
};

use skipstone_kernels::mapping::Mapping;

use crate::bytes::Bytes;
use crate::error::{Error, Fault, Result};
use crate::graph::{Graph, Source, ValueId};
use crate::info::{Info, Shapes};
use source::OnnxSource;

/// Reads and checks the `.onnx` file at `path`; external data is read from beside it.
pub(crate) fn read(path: &Path, limits: &Limits, shapes: &Shapes) -> Result<(impl Source + use<>, Info)> {
    let io = |source| Error::Io { path: path.display().to_string(), source };
    let file = File::open(path).map_err(io)?;
    let metadata = file.metadata().map_err(io)?;
    limits.check_file_size(metadata.len())?;
    // A mapped file must not change while it is loaded; what is not on a disk, such as a pipe, is read.
    let len = usize::try_from(metadata.len()).unwrap_or(usize::MAX);
    let bytes = match metadata.is_file() && len > 0 {
        true => Mapping::new(&file, 0, len).map_err(io)?.into(),
        false => {
            let mut held = Vec::new();
            file.take(limits.max_file_bytes.saturating_add(1)).read_to_end(&mut held).map_err(io)?;
            limits.check_file_size(held.len() as u64)?;
            Bytes::copy_of(&held)?
        }
    };
    check(bytes, Some(path), limits.clone(), shapes)
}

/// Checks a model given as bytes, which are copied.
pub(crate) fn from_bytes(bytes: &[u8], limits: &Limits, shapes: &Shapes) -> Result<(impl Source + use<>, Info)> {
    check(Bytes::copy_of(bytes)?, None, limits.clone(), shapes)
}

fn check(file: Bytes, path: Option<&Path>, limits: Limits, shapes: &Shapes) -> Result<(OnnxSource, Info)> {
    let (model, checked) = skipstone_onnx::read(&file, &limits)?;
    let class_names = import::class_names(&model)?;
    let (dynamic, assumed_batch) = (import::is_dynamic(&model)?, import::assumed_batches(&model, shapes)?);
    drop(model);
    let folder = skipstone_onnx::external::resolve(path, &checked, &limits)?;
    // Collecting sorts in memory of its own first.
    let mut metadata = BTreeMap::new();
    for (key, value) in checked.metadata {
        metadata.insert(key, value);
    }
    if let Some(names) = class_names {
        metadata.entry("skipstone.labels".into()).or_insert(names);
    }
    let info = Info {
        metadata,
        parameters: checked.parameters,
        weight_bytes: checked.weight_bytes,
        assumed_batch,
        package: None,
    };
    Ok((OnnxSource { files: import::tensor::Files { model: file, folder }, limits, dynamic }, info))
}

/// A model as imported, before the passes, with the values by their names in the file.
pub struct Imported {
    /// The graph.
    pub graph: Graph,
    /// Values by their names in the file.
    pub values: HashMap<String, ValueId>,
}

/// Imports a model given as bytes, without external data, for transformations to analyze.
///
/// # Errors
/// Errors of loading the model; shapes that depend on its data.
pub fn imported(bytes: &[u8], limits: &Limits, shapes: &Shapes) -> Result<Imported> {
    let (source, _) = check(Bytes::copy_of(bytes)?, None, limits.clone(), shapes)?;
    let model = skipstone_onnx::decode(&source.files.model, limits).map_err(Error::from)?;
    match import::import_named(&model, &source.files, shapes, &HashMap::new())? {
        (import::ImportOutcome::Graph(graph), values) => Ok(Imported { graph, values }),
        (import::ImportOutcome::Dynamic(reason), _) => Err(Error::Unsupported { node: "graph".into(), reason }),
    }
}

impl From<Invalid> for Error {
    fn from(invalid: Invalid) -> Self {
        Self::Invalid { fault: Fault::Onnx(invalid.rule()), message: invalid.to_string() }
    }
}
