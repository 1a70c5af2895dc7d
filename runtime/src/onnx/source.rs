//! A checked file, kept so that a graph can be imported for any shapes of its dynamic inputs.

use skipstone_onnx::{Limits, decode};

use super::by_value::{Found, by_value};
use super::fallback;
use super::import::{self, ImportOutcome, tensor::Files};
use crate::error::{Error, Result};
use crate::graph::{Graph, Lowered, Node, Source};
use crate::info::Shapes;
use crate::limits::Limits as RunLimits;
use crate::ops::Op;

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
            ImportOutcome::Graph(graph) if is_too_large(&graph) => {
                let reason = "the largest lengths that its data allows need too much memory or work".to_owned();
                fallback::whole(&model, &self.files, shapes, reason).or(Ok(Lowered::Graph(graph)))
            }
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

/// Whether lengths that only a run knows make a graph larger than any run may be, so that it is better not planned.
fn is_too_large(graph: &Graph) -> bool {
    let measured = |node: &Node| matches!(node.op, Op::Found(_) | Op::Suppress(_) | Op::Length(_));
    let limits = RunLimits::default();
    let largest = graph.values().iter().map(|value| value.fact.bytes() as u64).max().unwrap_or(0);
    graph.walk().any(measured) && (limits.check_graph(graph).is_err() || largest > limits.memory_bytes)
}
