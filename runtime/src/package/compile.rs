//! From an ONNX file to a package.

use std::path::Path;
use std::sync::Arc;

use ed25519_dalek::SigningKey;
use skipstone_kernels::Isa;

use super::write_tuned;
use crate::error::{Error, Result};
use crate::graph;
use crate::model::{Lowered, Shapes, Source};
use crate::options::{Memory, Precision};
use crate::plan::{Target, Tuning};

/// What a package is to be.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// Instruction set to pack the weights for; `None` leaves that to the device.
    pub isa: Option<Isa>,
    /// Memory against speed, where weights are packed.
    pub memory: Memory,
    /// How packed weights are stored.
    pub precision: Precision,
    /// What was measured of kernels, on the machine that the package is for: it decides among those of `isa`.
    pub tuning: Option<Arc<Tuning>>,
    /// Shapes of dynamic inputs: a package has fixed ones.
    pub shapes: Shapes,
    /// Pairs that join the file's metadata, or take the place of those of the same name: labels, a model card.
    pub metadata: Vec<(String, String)>,
}

/// Makes a package of the model file at `path`, signed if there is a key.
///
/// # Errors
/// As for [`Model::open`](crate::Model::open); [`Error::Unsupported`], naming the nodes, where a device could not run
/// the model; `tuning.target` where the measurements are of another target than the recipe's.
pub fn compile(path: &Path, recipe: &Recipe, key: Option<&SigningKey>) -> Result<Vec<u8>> {
    let target = target(recipe)?;
    let (source, mut info) = crate::onnx::read(path)?;
    let mut graph = match source.lower(&recipe.shapes)? {
        Lowered::Graph(graph) => graph,
        Lowered::Foreign(model) => return Err(Error::Unsupported { node: "graph".into(), reason: model.reason }),
    };
    drop(source);
    graph::optimise(&mut graph)?;
    info.metadata.extend(recipe.metadata.iter().cloned());
    let tuning = recipe.tuning.as_deref();
    write_tuned(&graph, &info, target.map(|target| (target, tuning)), key)
}

/// What to pack for, if for one instruction set: with as many threads as there were when it was measured.
fn target(recipe: &Recipe) -> Result<Option<Target>> {
    let threads = recipe.tuning.as_ref().map_or(1, |tuning| tuning.target().threads);
    let Recipe { memory, precision, .. } = *recipe;
    let target = recipe.isa.map(|isa| Target { isa, threads, memory, precision });
    if let (Some(tuning), Some(target)) = (&recipe.tuning, target) {
        tuning.check_target(target)?;
    }
    Ok(target)
}
