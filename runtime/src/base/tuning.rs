//! Measured times of kernels, and the file that stores them.
//!
//! ```text
//! offset  bytes
//!      0      8  magic, "SKIPTUNE"
//!      8      4  version of the format, little-endian
//!     12     16  XXH3-128 of the rest, little-endian
//!      28         the measurements in postcard format
//! ```
//!
//! Times are valid for one processor, one release and one target: a file names them, and is refused elsewhere. The
//! kernel names in it are only looked up among the kernels that a step could run anyway.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use twox_hash::XxHash3_128;

use crate::error::{Error, Fault, Result, TuningFault};
use crate::machine;
use crate::options::Target;

/// First bytes of every file.
const MAGIC: &[u8; 8] = b"SKIPTUNE";
/// Version of the format.
const VERSION: u32 = 1;
/// Bytes before the measurements.
const HEADER: usize = 8 + 4 + 16;
/// Largest file: a network of ten thousand different steps would take a tenth of it.
const MAX_BYTES: u64 = 1 << 24;

/// The computation of a step, with the types and shapes of its operands: equal tasks take equal time. Stored as bytes,
/// for comparison.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Task(Vec<u8>);

impl Task {
    pub(crate) fn new(written: Vec<u8>) -> Self {
        Self(written)
    }
}

/// Kernels measured on one machine, for one target. Made by [`Tune::Measure`](crate::Tune::Measure).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Tuning {
    /// The processor.
    cpu: String,
    /// The release whose kernels were measured.
    release: String,
    target: Target,
    tasks: BTreeMap<Task, Measured>,
}

/// The measured kernels of a step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measured {
    /// The kernels with their times; the first is the cost model's choice.
    pub kernels: Vec<Timed>,
    /// Index of the chosen kernel.
    chosen: usize,
}

/// A kernel and the step's time with it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Timed {
    /// Its name.
    pub kernel: String,
    /// Nanoseconds of one run of the step.
    pub nanos: u64,
}

impl Measured {
    /// Chooses the first of these kernels, unless another saves more than the fraction `doubt`.
    pub(crate) fn new(kernels: Vec<Timed>, doubt: f64) -> Self {
        let fastest = (0..kernels.len()).min_by_key(|&at| kernels[at].nanos).unwrap_or(0);
        let nanos = |at: usize| kernels.get(at).map_or(0.0, |timed| timed.nanos as f64);
        let chosen = if nanos(fastest) < nanos(0) * (1.0 - doubt) { fastest } else { 0 };
        Self { kernels, chosen }
    }

    /// The chosen kernel.
    #[must_use]
    pub fn chosen(&self) -> Option<&Timed> {
        self.kernels.get(self.chosen)
    }

    /// The cost model's choice.
    #[must_use]
    pub fn by_model(&self) -> Option<&Timed> {
        self.kernels.first()
    }
}

impl Tuning {
    /// An empty tuning for this machine.
    pub(crate) fn new(target: Target) -> Self {
        let release = env!("CARGO_PKG_VERSION").to_owned();
        Self { cpu: machine::cpu(), release, target, tasks: BTreeMap::new() }
    }

    /// Reads the file at `path`.
    ///
    /// # Errors
    /// A file that cannot be read; `tuning.format` for one that is not a tuning or is damaged; `tuning.version` for one
    /// from another release.
    pub fn open(path: impl AsRef<Path>) -> Result<Self> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(MAX_BYTES + 1).read_to_end(&mut bytes));
        read.map_err(|source| Error::Io { path: path.display().to_string(), source })?;
        Self::from_bytes(&bytes)
    }

    /// Reads the bytes written by [`to_bytes`](Self::to_bytes).
    ///
    /// # Errors
    /// As for [`open`](Self::open).
    pub fn from_bytes(bytes: &[u8]) -> Result<Self> {
        let damaged = |what: &str| refused(TuningFault::Format, what);
        let (Some((magic, rest)), true) = (bytes.split_first_chunk(), bytes.len() as u64 <= MAX_BYTES) else {
            return Err(damaged("the file is not a tuning; make one with `skipstone tune`"));
        };
        if magic != MAGIC {
            return Err(damaged("the file is not a tuning; make one with `skipstone tune`"));
        }
        let (version, rest) = rest.split_first_chunk().ok_or_else(|| damaged("it ends too early"))?;
        if u32::from_le_bytes(*version) != VERSION {
            return Err(refused(TuningFault::Version, "it is of another version's format; measure again"));
        }
        let (hash, content) = rest.split_first_chunk().ok_or_else(|| damaged("it ends too early"))?;
        if XxHash3_128::oneshot(content) != u128::from_le_bytes(*hash) {
            return Err(damaged("it is damaged; measure again"));
        }
        let (tuning, rest): (Self, _) =
            postcard::take_from_bytes(content).map_err(|e| damaged(&format!("it cannot be read: {e}")))?;
        if !rest.is_empty() {
            return Err(damaged("it has extra bytes at the end"));
        }
        if tuning.release != env!("CARGO_PKG_VERSION") {
            let reason = format!("release {} measured it, this is {}", tuning.release, env!("CARGO_PKG_VERSION"));
            return Err(refused(TuningFault::Version, &(reason + "; measure again")));
        }
        Ok(tuning)
    }

    /// Writes a file atomically.
    ///
    /// # Errors
    /// The system's error.
    pub fn save(&self, path: impl AsRef<Path>) -> io::Result<()> {
        let path = path.as_ref();
        let mut beside = path.as_os_str().to_owned();
        beside.push(".part");
        let beside = PathBuf::from(beside);
        let written = std::fs::write(&beside, self.to_bytes()?).and_then(|()| std::fs::rename(&beside, path));
        written.inspect_err(|_| {
            // Remove the temporary file. If that fails too, the first error is the one to report.
            let _ = std::fs::remove_file(&beside);
        })
    }

    /// The bytes of a file.
    ///
    /// # Errors
    /// None in practice.
    pub fn to_bytes(&self) -> io::Result<Vec<u8>> {
        let content = postcard::to_stdvec(self).map_err(io::Error::other)?;
        let mut bytes = Vec::with_capacity(HEADER + content.len());
        bytes.extend(MAGIC);
        bytes.extend(VERSION.to_le_bytes());
        bytes.extend(XxHash3_128::oneshot(&content).to_le_bytes());
        bytes.extend(content);
        Ok(bytes)
    }

    /// The target of the measurement.
    #[must_use]
    pub fn target(&self) -> Target {
        self.target
    }

    /// The number of different steps that were measured.
    #[must_use]
    pub fn len(&self) -> usize {
        self.tasks.len()
    }

    /// Whether nothing was measured: no step had a choice, or the model cannot run on random inputs.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.tasks.is_empty()
    }

    /// The measurement for a task.
    #[must_use]
    pub fn task(&self, task: &Task) -> Option<&Measured> {
        self.tasks.get(task)
    }

    pub(crate) fn insert(&mut self, task: Task, measured: Measured) {
        self.tasks.insert(task, measured);
    }

    /// The kernel to run a task with.
    pub(crate) fn kernel(&self, task: &Task) -> Option<&str> {
        self.task(task)?.chosen().map(|timed| timed.kernel.as_str())
    }

    /// Refuses a different target.
    pub(crate) fn check_target(&self, target: Target) -> Result<()> {
        if self.target == target {
            return Ok(());
        }
        let reason = format!("it was measured for {}, this is {target}; measure again", self.target);
        Err(refused(TuningFault::Target, &reason))
    }

    /// Refuses a different machine.
    pub(crate) fn check_machine(&self) -> Result<()> {
        let cpu = machine::cpu();
        if self.cpu == cpu {
            return Ok(());
        }
        Err(refused(TuningFault::Cpu, &format!("it was measured on {}, this is {cpu}; measure again", self.cpu)))
    }
}

fn refused(fault: TuningFault, reason: &str) -> Error {
    Error::Invalid { fault: Fault::Tuning(fault), message: format!("the tuning is refused: {reason}") }
}

#[cfg(test)]
mod tests;
