//! What is known of a model beside its graph: what its file says of itself, and what package it came in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skipstone_kernels::{Isa, PACKING};

use crate::error::{Error, Fault, PackageFault, Result};
use crate::options::{Memory, Precision};

/// Shapes of dynamic inputs, by name.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// What a model file says of itself.
#[derive(Clone, Debug, Default)]
pub struct Info {
    /// Pairs of the file's `metadata_props`; Skipstone's own begin with `skipstone.`.
    pub metadata: BTreeMap<String, String>,
    /// Number of elements in the model's weights.
    pub parameters: u64,
    /// Bytes of the model's weights as stored.
    pub weight_bytes: u64,
    /// Inputs whose batch (the first dimension, the only one that the file leaves open) was not bound: 1 was assumed.
    pub assumed_batch: Vec<String>,
    /// What package it came in.
    pub package: Option<PackageInfo>,
}

/// What is known of a package beside its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageInfo {
    /// What its weights are packed for; `None` for any instruction set.
    pub packed_for: Option<PackedFor>,
    /// Ed25519 public key of who signed it.
    pub signer: Option<[u8; 32]>,
    /// Its size.
    pub bytes: usize,
}

/// What weights were packed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedFor {
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// Memory against speed.
    pub memory: Memory,
    /// How weights are stored.
    pub precision: Precision,
    /// Version of the kernels' packed forms.
    packing: u32,
}

impl PackedFor {
    /// The forms of this build.
    pub(crate) fn new(isa: Isa, memory: Memory, precision: Precision) -> Self {
        Self { isa, memory, precision, packing: PACKING }
    }

    /// Refuses forms that this build's kernels do not read, and instruction sets that the CPU or the caller rules out.
    pub(crate) fn check(&self, asked: Option<Isa>) -> Result<()> {
        let refused = |reason: String| Error::Invalid {
            fault: Fault::Package(PackageFault::Target),
            message: format!("the package is refused: {reason}"),
        };
        if self.packing != PACKING {
            return Err(refused(
                "its weights are packed as another version's kernels want them; compile it again".into(),
            ));
        }
        if let Some(asked) = asked.filter(|&isa| isa != self.isa) {
            return Err(refused(format!(
                "it is for {} only, not for {asked}; compile it with --target generic",
                self.isa
            )));
        }
        if !self.isa.is_available() {
            let available = Isa::available().map(Isa::name).collect::<Vec<_>>().join(", ");
            return Err(refused(format!(
                "it is for {}, this CPU has {available}; compile it with --target generic",
                self.isa
            )));
        }
        Ok(())
    }
}
