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

use skipstone_kernels::mapping::Mapping;

use crate::bytes::Bytes;
use crate::error::{Error, PackageFault, Result};
use crate::graph::{Graph, Node};
use crate::info::Info;
use crate::operator::{Operator, Packing};
use crate::ops::Op;
use crate::plan::{Plan, Target, Tuning};
use crate::reserve;
use container::{Container, Kind};
use content::{Content, StoredInfo, StoredVariables, WeightBytes};

pub use crate::info::{PackageInfo, PackedFor};
pub use signature::*;

/// The metadata key for channels removed from weights: one line per node.
#[cfg(feature = "onnx")]
pub(crate) const REMOVED: &str = "skipstone.removed";

/// The metadata key for a warning: why the graph was stored unoptimized.
pub(crate) const WARNING: &str = "skipstone.warning";

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
    write_tuned(graph, info, target.map(|target| (target, None)), key)
}

/// Like [`write`], with kernels chosen by measurements, if given.
pub(crate) fn write_tuned(
    graph: &Graph,
    info: &Info,
    target: Option<(Target, Option<&Tuning>)>,
    key: Option<&SigningKey>,
) -> Result<Vec<u8>> {
    let foreign = graph.walk().filter(|n| matches!(n.op, Op::Foreign(_))).map(|n| n.name.as_str());
    let foreign = reserve::list(foreign)?;
    if !foreign.is_empty() {
        let reason = "has no kernel and needs the tract fallback, which devices do not have".to_owned();
        return Err(Error::Unsupported { node: foreign.join("', '"), reason });
    }
    let mut choices = Vec::new();
    if let Some((target, tuning)) = target {
        let mut steps = Plan::with(graph.copy()?, target, &[], tuning)?.steps.into_iter();
        let mut choice = |node: &Node| {
            let alias = node.op.alias(&graph.facts(&node.inputs)).is_some();
            if alias { None } else { steps.next().map(|step| step.choice) }
        };
        choices = reserve::list(graph.walk().map(&mut choice))?;
    }
    let packed_for = target.map(|(t, _)| PackedFor::new(t.isa, t.memory, t.precision));
    let variables = usize::from(!graph.variables.is_empty());
    let mut weights = WeightBytes::at(container::first_offset(3 + variables));
    let content = content::encode(&Content::store(graph, packed_for, &choices, &mut weights)?)?;
    let variables = content::encode(&Content::store_variables(graph, &mut weights)?)?;
    let info = content::encode(&StoredInfo::of(info)?)?;
    let mut sections = vec![(Kind::Graph, &content[..]), (Kind::Info, &info), (Kind::Weights, &weights.bytes)];
    // The first section's offset is known before the others are written: so experts can be at pages of the file.
    if graph.walk().any(|node| matches!(node.op, Op::Routed(_))) {
        sections.rotate_right(1);
    }
    sections.extend((!graph.variables.is_empty()).then_some((Kind::Variables, &variables[..])));
    container::write(&sections, key)
}

/// The operators in a package, by their names in the table: a build needs these to open it.
///
/// # Errors
/// As for [`Model::open`](crate::Model::open).
pub fn operators(path: &Path) -> Result<BTreeSet<&'static str>> {
    let io = |source| Error::Io { path: path.display().to_string(), source };
    let file = File::open(path).map_err(io)?;
    let len = file.metadata().map_err(io)?.len();
    let package = Package::read(&map(&file, 0, len, path)?, None)?;
    Ok(package.graph.walk().map(|node| node.op.entry()).collect())
}

/// The checked content of a package.
pub(crate) struct Package {
    pub graph: Graph,
    /// For each node of the walk through the graph, its packed weights, if any.
    pub packings: Vec<Option<Packing>>,
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
            .map_or_else(|| Ok(StoredVariables::default()), |bytes| content::decode(bytes))?;
        let (graph, packings) = content.restore(container.section(Kind::Weights)?, &variables)?;
        Ok(Self { graph, packings, packed_for, info: info.try_into()?, signer: container.signer })
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
