//! A checked file, kept so that a graph can be imported for any shapes of its dynamic inputs.

use skipstone_onnx::proto::Model;
use skipstone_onnx::{Limits, decode};

use super::import::{self, Outcome, tensor::Files};
use crate::error::{Error, Result};
use crate::model::{Lowered, Shapes, Source};

/// A checked ONNX file.
pub(super) struct OnnxSource {
    pub files: Files,
    pub limits: Limits,
    /// Whether some input has a dimension that the file does not know.
    pub dynamic: bool,
}

impl Source for OnnxSource {
    fn is_dynamic(&self) -> bool {
        self.dynamic
    }

    fn lower(&self, shapes: &Shapes) -> Result<Lowered> {
        let model = decode(&self.files.model, &self.limits).map_err(Error::from)?;
        match import::import(&model, &self.files, shapes)? {
            Outcome::Graph(graph) => Ok(Lowered::Graph(graph)),
            Outcome::Dynamic(reason) => self.whole(&model, shapes, reason),
        }
    }
}

impl OnnxSource {
    /// The model as one that the fallback runs whole.
    #[cfg(feature = "tract")]
    fn whole(&self, model: &Model<'_>, shapes: &Shapes, reason: String) -> Result<Lowered> {
        let outputs = model.graph.iter().flat_map(|graph| &graph.outputs).map(|info| info.name.to_owned()).collect();
        let (file, folder) = (&self.files.model[..], self.files.folder.as_deref());
        let inputs = import::inputs(model, shapes)?;
        let whole = super::fallback::Whole { file, folder, inputs, outputs, reason: reason.clone() };
        super::fallback::whole(whole).map(Lowered::Foreign).map_err(|error| match error {
            Error::Unsupported { node, reason: theirs } => {
                Error::Unsupported { node, reason: format!("{reason}; nor does the fallback run it whole: {theirs}") }
            }
            error => error,
        })
    }

    #[cfg(not(feature = "tract"))]
    fn whole(&self, _: &Model<'_>, _: &Shapes, reason: String) -> Result<Lowered> {
        Err(Error::Unsupported { node: "graph".into(), reason })
    }
}
