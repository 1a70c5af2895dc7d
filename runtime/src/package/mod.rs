//! The package: a model prepared for a device, in one file (`.skip`).
//!
//! A package holds what opening an ONNX file computes: the graph after all passes, weights packed for one instruction
//! set's kernels (or unpacked, to be packed on any device), labels, image normalization, a model card. It is opened by
//! mapping: weights are read in place, and a device needs no ONNX parser. Every byte is covered by a hash, and by a
//! signature if there is one; all are checked before anything is used.
//!
//! The format has two layers: the container's layout in [`container`], the sections' content in [`content`].

// Packages are untrusted: nothing here can panic on one.
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::indexing_slicing, clippy::panic))]

#[cfg(test)]
pub(crate) mod attack;
mod container;
mod content;
#[cfg(test)]
mod kinds;
#[cfg_attr(not(feature = "signatures"), path = "unsigned.rs")]
mod signature;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::path::Path;

use skipstone_kernels::Isa;
use skipstone_kernels::conv::{self, FLOATS, Family};
use skipstone_kernels::mapping::Mapping;

use crate::bytes::Bytes;
use crate::error::{Error, PackageFault, Result};
use crate::graph::{Graph, Node};
use crate::info::Info;
use crate::operator::{Choice, Operator, Packing};
use crate::ops::Op;
use crate::options::{Memory, Precision};
use crate::plan::{Plan, Target, Tuning};
use crate::reserve;
use container::{Container, Kind};
use content::{Content, StoredInfo, StoredLengths, StoredVariables, WeightBytes};

pub use crate::info::{PackageInfo, PackedFor};
pub use signature::*;

/// The metadata key for channels removed from weights: one line per node.
#[cfg(feature = "onnx")]
pub(crate) const REMOVED: &str = "skipstone.removed";

/// The metadata key for a warning: why the graph was stored unoptimized.
pub(crate) const WARNING: &str = "skipstone.warning";

/// Most graphs of a package: sets of shapes.
const MAX_GRAPHS: usize = 64;

/// Whether `start`, the first bytes of a file, is the beginning of a package.
#[must_use]
pub fn is_package(start: &[u8]) -> bool {
    start.starts_with(container::MAGIC)
}

/// Writes a package of a graph that has been through the passes: for any instruction set, or with weights packed for
/// `target`; signed, if a key is given.
///
/// # Errors
/// [`Error::Unsupported`], naming the nodes without a kernel; a step that no kernel supports.
pub fn write(graph: &Graph, info: &Info, target: Option<Target>, key: Option<&SigningKey>) -> Result<Vec<u8>> {
    write_tuned(std::slice::from_ref(graph), info, target.map(|target| (target, None)), key)
}

/// Like [`write`], for graphs of one model for several shapes of its inputs, which share weights; with kernels chosen by
/// measurements, if given.
pub(crate) fn write_tuned(
    graphs: &[Graph],
    info: &Info,
    target: Option<(Target, Option<&Tuning>)>,
    key: Option<&SigningKey>,
) -> Result<Vec<u8>> {
    let (Some(first), true) = (graphs.first(), graphs.len() <= MAX_GRAPHS) else {
        let reason = format!("{} sets of shapes; a package has at most {MAX_GRAPHS}", graphs.len());
        return Err(Error::Unsupported { node: "graph".into(), reason });
    };
    check_alike(graphs.iter())?;
    let foreign = graphs.iter().flat_map(Graph::walk).filter(|n| matches!(n.op, Op::Foreign(_)));
    let foreign: BTreeSet<&str> = foreign.map(|n| n.name.as_str()).collect();
    if !foreign.is_empty() {
        let node = foreign.into_iter().collect::<Vec<_>>().join("', '");
        let reason = "has no kernel and needs the tract fallback, which devices do not have".to_owned();
        return Err(Error::Unsupported { node, reason });
    }
    let packed_for = target.map(|(t, _)| PackedFor::new(t.isa, t.memory, t.precision));
    let optional = [!first.variables.is_empty(), !first.lengths.is_empty(), graphs.len() > 1];
    let count = 3 + optional.into_iter().filter(|&is_there| is_there).count();
    let mut weights = WeightBytes::at(container::first_offset(count));
    let mut stored = reserve::empty(graphs.len())?;
    for graph in graphs {
        let choices = choices(graph, target)?;
        let content = Content::store(graph, packed_for, &choices, &mut weights)?;
        let variables = Content::store_variables(graph, &mut weights)?;
        let lengths = StoredLengths::of(graph)?;
        weights.share()?;
        stored.push((content, variables, lengths));
    }
    let further = stored.split_off(1);
    let Some((content, variables, lengths)) = stored.pop() else {
        return Err(Error::Internal("a package without a graph".into()));
    };
    let (content, info) = (content::encode(&content)?, content::encode(&StoredInfo::of(info)?)?);
    let mut sections =
        vec![(Kind::Graph, content), (Kind::Info, info), (Kind::Weights, std::mem::take(&mut weights.bytes))];
    // The first section's offset is known before the others are written: so experts can be at pages of the file.
    if graphs.iter().flat_map(Graph::walk).any(|node| matches!(node.op, Op::Routed(_))) {
        sections.rotate_right(1);
    }
    if !first.variables.is_empty() {
        sections.push((Kind::Variables, content::encode(&variables)?));
    }
    if !first.lengths.is_empty() {
        sections.push((Kind::Lengths, content::encode(&lengths)?));
    }
    if !further.is_empty() {
        sections.push((Kind::Further, content::encode(&further)?));
    }
    let sections: Vec<(Kind, &[u8])> = sections.iter().map(|(kind, bytes)| (*kind, &bytes[..])).collect();
    container::write(&sections, key)
}

/// The packed weights of every node of the walk through a graph, if it is for one target.
fn choices(graph: &Graph, target: Option<(Target, Option<&Tuning>)>) -> Result<Vec<Option<Choice>>> {
    let Some((target, tuning)) = target else { return Ok(Vec::new()) };
    let mut steps = Plan::with(graph.copy()?, target, &[], tuning)?.steps.into_iter();
    let mut choice = |node: &Node| {
        let alias = node.op.alias(&graph.facts(&node.inputs)).is_some();
        if alias { None } else { steps.next().map(|step| step.choice) }
    };
    Ok(reserve::list(graph.walk().map(&mut choice))?)
}

/// Refuses graphs that are not of one model: a session runs the one whose inputs have the shapes that it is given, and
/// keeps what it holds.
fn check_alike<'a>(mut graphs: impl Iterator<Item = &'a Graph>) -> Result<()> {
    let Some(first) = graphs.next() else { return Ok(()) };
    let refuse = |what: &str| {
        Err(Error::Unsupported {
            node: "graph".into(),
            reason: format!("a package for several shapes of a model {what}"),
        })
    };
    let facts = |graph: &'a Graph| graph.inputs.iter().map(|&id| graph.fact(id));
    let given = |graph: &Graph| graph.inputs.len().saturating_sub(graph.variables.len());
    let names = |graph: &'a Graph| {
        let inputs = graph.inputs.iter().map(|&id| &graph.value(id).name);
        let outputs = graph.outputs.iter().take(graph.outputs.len().saturating_sub(graph.lengths.len()));
        inputs.chain(outputs.map(|(name, _)| name))
    };
    let held = |graph: &'a Graph| {
        let variables = facts(graph).skip(given(graph)).zip(&graph.variables);
        variables.map(|(fact, of)| (fact, of.initial.as_ref().map(|tensor| tensor.bytes()), of.next))
    };
    let shapes = |graph: &'a Graph| facts(graph).take(given(graph));
    let mut known = vec![first];
    for graph in graphs {
        if !names(graph).eq(names(first)) || graph.variables.len() != first.variables.len() {
            return refuse("needs the same inputs and outputs in all of them");
        }
        if !held(graph).eq(held(first)) {
            return refuse("needs the same state in all of them");
        }
        if known.iter().any(|other| shapes(other).eq(shapes(graph))) {
            return refuse("has the same shapes twice");
        }
        known.push(graph);
    }
    Ok(())
}

/// What a build needs to open a package and run it at full speed: its operators by their names in the table, and the
/// families of kernels that its convolutions choose on a phone, with any memory policy and storage of the weights.
///
/// # Errors
/// As for [`Model::open`](crate::Model::open); a step that no kernel supports.
pub fn operators(path: &Path) -> Result<BTreeSet<&'static str>> {
    let io = |source| Error::Io { path: path.display().to_string(), source };
    let file = File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    let package = Package::read(&map(&file, 0, len, path)?, None)?;
    let mut names = BTreeSet::new();
    for StoredGraph { graph, packings } in &package.graphs {
        names.extend(graph.walk().map(|node| node.op.entry()));
        for target in targets(package.packed_for) {
            let plan = Plan::with(graph.copy()?, target, packings, None)?;
            // A step may have several kernels, separated by other characters than those of names.
            let separates = |c: char| c != '_' && !c.is_ascii_alphanumeric();
            let kernels = plan.steps.iter().flat_map(|step| step.choice.kernel.split(separates));
            names.extend(kernels.filter_map(conv::family_of));
        }
    }
    Ok(names)
}

/// The targets for which phones plan a package, as far as this build has the layouts of their kernels.
fn targets(packed_for: Option<PackedFor>) -> Vec<Target> {
    if let Some(PackedFor { isa, memory, precision, .. }) = packed_for {
        return vec![Target { isa, threads: 1, memory, precision }];
    }
    let has_kernels = |isa: &Isa| FLOATS.iter().flat_map(Family::kernels).any(|kernel| kernel.isa() == *isa);
    let isas = [Isa::Scalar, Isa::Neon, Isa::Avx2, Isa::Neon32].into_iter().filter(has_kernels);
    let policies = |isa| [Memory::Fast, Memory::Small].map(|memory| (isa, memory));
    let stored = |(isa, memory)| [Precision::F32, Precision::F16].map(|precision| (isa, memory, precision));
    let all = isas.flat_map(policies).flat_map(stored);
    all.map(|(isa, memory, precision)| Target { isa, threads: 1, memory, precision }).collect()
}

/// A graph, for one set of shapes.
pub(crate) struct StoredGraph {
    pub graph: Graph,
    /// For each node of the walk through the graph, its packed weights, if any.
    pub packings: Vec<Option<Packing>>,
}

/// The checked content of a package.
pub(crate) struct Package {
    /// A graph for each set of shapes of the inputs, at least one.
    pub graphs: Vec<StoredGraph>,
    pub packed_for: Option<PackedFor>,
    pub info: Info,
    /// Public key of its signer.
    pub signer: Option<[u8; 32]>,
}

impl Package {
    /// Checks and reads a package; `key` is the required signer.
    ///
    /// # Errors
    /// `package.*`, with the reason; errors of a node's shape rule.
    pub fn read(file: &Bytes, key: Option<&[u8; 32]>) -> Result<Self> {
        let container = Container::read(file, key)?;
        let content: Content = content::decode(container.section(Kind::Graph)?)?;
        let info: StoredInfo<'_> = content::decode(container.section(Kind::Info)?)?;
        let packed_for = content.target;
        let variables: StoredVariables = container
            .optional(Kind::Variables)
            .map_or(Ok(StoredVariables::default()), |bytes| content::decode(bytes))?;
        let lengths: StoredLengths =
            container.optional(Kind::Lengths).map_or(Ok(StoredLengths::default()), |bytes| content::decode(bytes))?;
        let further: Vec<(Content, StoredVariables, StoredLengths)> =
            container.optional(Kind::Further).map_or(Ok(Vec::new()), |bytes| content::decode(bytes))?;
        let weights = container.section(Kind::Weights)?;
        let mut graphs = Vec::new();
        let invalid = || container::refused(PackageFault::Format, "its further graphs are invalid");
        for (content, variables, lengths) in std::iter::once((content, variables, lengths)).chain(further) {
            if content.target != packed_for || graphs.len() == MAX_GRAPHS {
                return Err(invalid());
            }
            let (graph, packings) = content.restore(weights, &variables, &lengths)?;
            graphs.push(StoredGraph { graph, packings });
        }
        check_alike(graphs.iter().map(|stored| &stored.graph)).map_err(|_| invalid())?;
        Ok(Self { graphs, packed_for, info: info.try_into()?, signer: container.signer })
    }
}

/// The error for a file that is not a package.
pub(crate) fn not_one() -> Error {
    container::refused(
        PackageFault::Magic,
        "the file is not a package; make one from an ONNX file with `skipstone compile`",
    )
}

/// The `len` bytes of `file` from `offset`, if they begin like a package: mapped, or copied if they would be unaligned
/// for the kernels. Moves the file's position.
///
/// # Errors
/// The system's error, for the file at `path`; `package.magic`, `package.truncated`.
pub(crate) fn map(mut file: &File, offset: u64, len: u64, path: &Path) -> Result<Bytes> {
    let io = |source| Error::Io { path: path.display().to_string(), source };
    let mut start = [0; container::MAGIC.len()];
    file.seek(SeekFrom::Start(offset)).map_err(io)?;
    match file.read_exact(&mut start) {
        Err(e) if e.kind() == ErrorKind::UnexpectedEof => return Err(not_one()),
        read => read.map_err(io)?,
    }
    if !is_package(&start) {
        return Err(not_one());
    }
    // Bytes past the end of a file can be mapped, but not read.
    let end = file.metadata().map_err(io)?.len();
    let len = usize::try_from(len).ok().filter(|_| offset.checked_add(len).is_some_and(|last| last <= end));
    let len = len.ok_or_else(|| container::refused(PackageFault::Truncated, "the file ends too early"))?;
    let mut mapping = Mapping::new(file, offset, len).map_err(io)?;
    // For the experts' cache, which a library without their operator does not have.
    if cfg!(any(not(operator_subset), Routed)) {
        mapping = mapping.keeping(file);
    }
    if mapping.as_ptr().addr().is_multiple_of(align_of::<f32>()) {
        return Ok(mapping.into());
    }
    Bytes::copy_of(&mapping)
}
