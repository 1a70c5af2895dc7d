//! Converts an ONNX file to a package.

mod batch;

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
use crate::package::{Package, REMOVED, WARNING, write_tuned};
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
/// model; `tuning.target` if the measurements are for another target than the recipe's; [`Error::IsaUnavailable`] in a
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
    let mut graph = match source.lower(&recipe.shapes)? {
        Lowered::Graph(graph) => graph,
        Lowered::Foreign(model) => return Err(Error::Unsupported { node: "graph".into(), reason: model.reason }),
    };
    drop(source);
    let warning = graph::optimize(&mut graph)?;
    info.metadata.extend(recipe.metadata.iter().cloned());
    info.metadata.extend(warning.map(|warning| (WARNING.to_owned(), warning)));
    let removed: Vec<String> = graph.removed.iter().map(ToString::to_string).collect();
    info.metadata.extend((!removed.is_empty()).then(|| (REMOVED.to_owned(), removed.join("\n"))));
    recipe.limits.check_graph(&graph)?;
    if !info.assumed_batch.is_empty() && batch::is_independent(open, recipe, &info.assumed_batch)? {
        info.metadata.insert(BATCH.to_owned(), info.assumed_batch.join("\n"));
    }
    let tuning = recipe.tuning.as_deref();
    let package = write_tuned(&graph, &info, target.map(|target| (target, tuning)), key)?;
    drop(graph);
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
        return Plan::with(read.graph, target, &read.packings, None).map(|_| ());
    }
    drop(read);
    let isa = packed_for.map(|packed| packed.isa);
    let model = Model::from_bytes(package, &Options { isa, limits: limits.clone(), ..Options::default() })?;
    let inputs = RandomInputs::new(model.inputs(), 0)?;
    let mut session = model.session()?;
    session.set_deadline(Some(TRIAL));
    // On random values an operator may fail, and a loop with a condition may not end.
    match session.run(&inputs.views()) {
        Err(Error::Node { source: OpError::Value(_), .. } | Error::DeadlineExceeded { .. }) => Ok(()),
        Err(Error::Invalid { fault: Fault::Model(ModelFault::Limit), .. }) => Ok(()),
        tried => tried,
    }
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
