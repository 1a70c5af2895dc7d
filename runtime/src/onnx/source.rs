//! A checked file, kept so that a graph can be imported for any shapes of its dynamic inputs.

use skipstone_onnx::{Limits, decode};

use super::by_value::{Found, by_value};
use super::fallback;
use super::import::{self, ImportOutcome, tensor::Files};
use crate::error::{Error, Result};
use crate::graph::{Lowered, Source};
use crate::info::Shapes;

/// A checked ONNX file.
pub(super) struct OnnxSource {
    pub files: Files,
    pub limits: Limits,
    /// Whether some input has a dynamic dimension.
    pub dynamic: bool,
}

impl Source for OnnxSource {
    fn is_dynamic(&self) -> bool {
        self.dynamic
    }

    fn lower(&self, shapes: &Shapes) -> Result<Lowered> {
        let model = decode(&self.files.model, &self.limits).map_err(Error::from)?;
        match import::import(&model, &self.files, shapes)? {
            ImportOutcome::Graph(graph) => Ok(Lowered::Graph(graph)),
            ImportOutcome::Dynamic(reason) => {
                let found = by_value(&model, &self.files, &self.limits, shapes, &reason);
                match found {
                    Some(Found { model, is_quick: true }) => Ok(model),
                    found => {
                        let whole = fallback::whole(&model, &self.files, shapes, reason);
                        whole.or_else(|error| found.map(|found| found.model).ok_or(error))
                    }
                }
            }
        }
    }
}
