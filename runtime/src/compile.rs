//! From an ONNX file to a package.

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
use crate::model::Model;
use crate::options::{Memory, Options, Precision};
use crate::package::{Package, REMOVED, WARNING, write_tuned};
use crate::plan::{Plan, Target, Tuning};
use crate::tune::RandomInputs;

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
    /// What the model may ask for.
    pub limits: Limits,
}

/// Longest that a package is tried out: on random values, a loop may never end.
const TRIAL: Duration = Duration::from_secs(10);

/// Makes a package of the model file at `path`, signed if there is a key, and tries it out. Beside it comes what the file
/// says of itself.
///
/// # Errors
/// As for [`Model::open`](crate::Model::open); [`Error::Unsupported`], naming the nodes, where a device could not run
/// the model; `tuning.target` if the measurements are of another target than the recipe's.
pub fn compile(path: &Path, recipe: &Recipe, key: Option<&SigningKey>) -> Result<(Vec<u8>, Info)> {
    let target = target(recipe)?;
    let (source, mut info) = crate::onnx::read(path, &recipe.limits.file, &recipe.shapes)?;
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
    let tuning = recipe.tuning.as_deref();
    let package = write_tuned(&graph, &info, target.map(|target| (target, tuning)), key)?;
    drop(graph);
    try_out(&package, &recipe.limits)?;
    Ok((package, info))
}

/// Opens a package and runs it once, so that a package that cannot be used is never delivered; where it is for another processor, it
/// is read and planned.
///
/// # Errors
/// What opening or running it objects to, but for the values that it is run on: they are random.
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
    // On random values an operator may object, and a loop that its condition ends may not end.
    match session.run(&inputs.views()) {
        Err(Error::Node { source: OpError::Value(_), .. } | Error::DeadlineExceeded { .. }) => Ok(()),
        Err(Error::Invalid { fault: Fault::Model(ModelFault::Limit), .. }) => Ok(()),
        tried => tried,
    }
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
