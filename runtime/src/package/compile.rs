//! From an ONNX file to a package.

use std::path::Path;

use ed25519_dalek::SigningKey;
use skipstone_kernels::Isa;

use super::write;
use crate::error::{Error, Result};
use crate::graph;
use crate::model::{Lowered, Shapes, Source};
use crate::options::{Memory, Precision};
use crate::plan::Target;

/// What a package is to be.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// Instruction set to pack the weights for; `None` leaves that to the device.
    pub isa: Option<Isa>,
    /// Memory against speed, where weights are packed.
    pub memory: Memory,
    /// How packed weights are stored.
    pub precision: Precision,
    /// Shapes of dynamic inputs: a package has fixed ones.
    pub shapes: Shapes,
    /// Pairs that join the file's metadata, or take the place of those of the same name: labels, a model card.
    pub metadata: Vec<(String, String)>,
}

/// Makes a package of the model file at `path`, signed if there is a key.
///
/// # Errors
/// As for [`Model::open`](crate::Model::open); [`Error::Unsupported`], naming the nodes, where a device could not run
/// the model.
pub fn compile(path: &Path, recipe: &Recipe, key: Option<&SigningKey>) -> Result<Vec<u8>> {
    let (source, mut info) = crate::onnx::read(path)?;
    let mut graph = match source.lower(&recipe.shapes)? {
        Lowered::Graph(graph) => graph,
        Lowered::Foreign(model) => return Err(Error::Unsupported { node: "graph".into(), reason: model.reason }),
    };
    drop(source);
    graph::optimise(&mut graph)?;
    info.metadata.extend(recipe.metadata.iter().cloned());
    let target = recipe.isa.map(|isa| Target { isa, threads: 1, memory: recipe.memory, precision: recipe.precision });
    write(&graph, &info, target, key)
}
