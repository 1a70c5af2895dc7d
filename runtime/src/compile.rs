//! Converts an ONNX file to a package.

mod batch;

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use ed25519_dalek::SigningKey;
use skipstone_kernels::Isa;

use crate::bytes::Bytes;
use crate::error::{Error, Fault, ModelFault, OpError, Result};
use crate::graph;
use crate::graph::{Lowered, Source};
use crate::info::{Info, PackedFor, Shapes};
use crate::limits::Limits;
use crate::model::{Model, unavailable};
use crate::options::{Memory, Options, Precision};
use crate::package::{Package, REMOVED, StoredGraph, WARNING, write_tuned};
use crate::plan::{Plan, Target, Tuning};
use crate::tune::RandomInputs;

/// The options of a package.
#[derive(Clone, Debug, Default)]
pub struct Recipe {
    /// Instruction set to pack the weights for; `None` leaves packing to the device.
    pub isa: Option<Isa>,
    /// The memory policy for packed weights.
    pub memory: Memory,
    /// The storage format of packed weights.
    pub precision: Precision,
    /// Measured times of kernels on the machine that the package is for: they decide among the kernels of `isa`.
    pub tuning: Option<Arc<Tuning>>,
    /// Shapes of dynamic inputs, which are fixed in a package.
    pub shapes: Shapes,
    /// Further shapes, for each of which the package holds a plan too; plans share weights.
    pub further_shapes: Vec<Shapes>,
    /// Pairs added to the file's metadata, replacing those with the same name: labels, a model card.
    pub metadata: Vec<(String, String)>,
    /// Limits for the model.
    pub limits: Limits,
}

/// The metadata key for the inputs, one per line, whose first axis is a batch of any size: the package is planned for a
/// batch of one and runs once for each image.
pub const BATCH: &str = "skipstone.batch";

/// Longest trial run of a package: on random values, a loop may never end.
const TRIAL: Duration = Duration::from_secs(10);

/// Converts the model file at `path` to a package, signed if a key is given, and tries it out. Also returns the
/// information from the file.
///
/// # Errors
/// As for [`Model::open`](crate::Model::open); [`Error::Unsupported`], naming the nodes, if a device could not run the
/// model, or if its inputs, outputs or state are others for further shapes; `tuning.target` if the measurements are for another target than the recipe's; [`Error::IsaUnavailable`] in a
/// build without the feature `foreign`, for another machine's instruction set.
pub fn compile(path: &Path, recipe: &Recipe, key: Option<&SigningKey>) -> Result<(Vec<u8>, Info)> {
    let read = crate::onnx::read(path, &recipe.limits.file, &recipe.shapes)?;
    package(read, &|options| Model::open(path, options), recipe, key)
}

/// The same for the bytes of a model file without external data.
///
/// # Errors
/// As for [`compile`].
pub fn compile_bytes(bytes: &[u8], recipe: &Recipe, key: Option<&SigningKey>) -> Result<(Vec<u8>, Info)> {
    let read = crate::onnx::from_bytes(bytes, &recipe.limits.file, &recipe.shapes)?;
    package(read, &|options| Model::from_bytes(bytes, options), recipe, key)
}

/// The package of a file that was read; `open` opens the file.
fn package(
    (source, mut info): (impl Source, Info),
    open: &dyn Fn(&Options) -> Result<Model>,
    recipe: &Recipe,
    key: Option<&SigningKey>,
) -> Result<(Vec<u8>, Info)> {
    let target = target(recipe)?;
    info.metadata.extend(recipe.metadata.iter().cloned());
    let mut graphs = Vec::new();
    let mut removed: BTreeSet<String> = BTreeSet::new();
    for shapes in std::iter::once(&recipe.shapes).chain(&recipe.further_shapes) {
        let mut graph = match source.lower(shapes)? {
            Lowered::Graph(graph) => graph,
            Lowered::Foreign(model) => return Err(Error::Unsupported { node: "graph".into(), reason: model.reason }),
        };
        let warning = graph::optimize(&mut graph)?;
        info.metadata.extend(warning.map(|warning| (WARNING.to_owned(), warning)));
        removed.extend(graph.removed.iter().map(ToString::to_string));
        recipe.limits.check_graph(&graph)?;
        graphs.push(graph);
    }
    drop(source);
    let removed: Vec<String> = removed.into_iter().collect();
    info.metadata.extend((!removed.is_empty()).then(|| (REMOVED.to_owned(), removed.join("\n"))));
    if recipe.further_shapes.is_empty()
        && !info.assumed_batch.is_empty()
        && batch::is_independent(open, recipe, &info.assumed_batch)?
    {
        info.metadata.insert(BATCH.to_owned(), info.assumed_batch.join("\n"));
    }
    let tuning = recipe.tuning.as_deref();
    let package = write_tuned(&graphs, &info, target.map(|target| (target, tuning)), key)?;
    drop(graphs);
    try_out(&package, &recipe.limits)?;
    Ok((package, info))
}

/// Opens a package and runs it once, so that no unusable package is delivered; if it is for another processor, it is
/// only read and planned.
///
/// # Errors
/// Errors of opening or running it, except for invalid values, since the inputs are random.
fn try_out(package: &[u8], limits: &Limits) -> Result<()> {
    let read = Package::read(&Bytes::copy_of(package)?, None)?;
    let packed_for = read.packed_for;
    if let Some(PackedFor { isa, memory, precision, .. }) = packed_for.filter(|packed| !packed.isa.is_available()) {
        let target = Target { isa, threads: 1, memory, precision };
        let mut graphs = read.graphs.into_iter();
        return graphs
            .try_for_each(|StoredGraph { graph, packings }| Plan::with(graph, target, &packings, None).map(|_| ()));
    }
    drop(read);
    let isa = packed_for.map(|packed| packed.isa);
    let model = Model::from_bytes(package, &Options { isa, limits: limits.clone(), ..Options::default() })?;
    let mut session = model.session()?;
    session.set_deadline(Some(TRIAL));
    model.engines().try_for_each(|engine| {
        let inputs = RandomInputs::new(engine.inputs(), 0)?;
        // On random values an operator may fail, and a loop with a condition may not end.
        match session.run(&inputs.views()) {
            Err(Error::Node { source: OpError::Value(_), .. } | Error::DeadlineExceeded { .. }) => Ok(()),
            Err(Error::Invalid { fault: Fault::Model(ModelFault::Limit), .. }) => Ok(()),
            tried => tried,
        }
    })
}

/// The target to pack for, if for one instruction set: with as many threads as in the measurement.
fn target(recipe: &Recipe) -> Result<Option<Target>> {
    let threads = recipe.tuning.as_ref().map_or(1, |tuning| tuning.target().threads);
    let Recipe { memory, precision, .. } = *recipe;
    let target = recipe.isa.map(|isa| Target { isa, threads, memory, precision });
    if let Some(isa) = recipe.isa.filter(|isa| !isa.is_available() && !cfg!(feature = "foreign")) {
        return Err(unavailable(isa.name()));
    }
    if let (Some(tuning), Some(target)) = (&recipe.tuning, target) {
        tuning.check_target(target)?;
    }
    Ok(target)
}

#[cfg(test)]
mod tests;
