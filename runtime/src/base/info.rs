//! Information on a model besides its graph: its metadata, and the package that it came in.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skipstone_kernels::{Isa, PACKING};

use crate::error::{Error, Fault, PackageFault, Result};
use crate::options::{Memory, Precision};

/// Shapes of dynamic inputs, by name.
pub type Shapes = BTreeMap<String, Vec<usize>>;

/// Information stored in a model file.
#[derive(Clone, Debug, Default)]
pub struct Info {
    /// Pairs of the file's `metadata_props`; Skipstone's own begin with `skipstone.`.
    pub metadata: BTreeMap<String, String>,
    /// Number of elements in the model's weights.
    pub parameters: u64,
    /// Bytes of the model's weights as stored.
    pub weight_bytes: u64,
    /// Inputs whose batch size (the first dimension, the only dynamic one) was not set: 1 was assumed.
    pub assumed_batch: Vec<String>,
    /// The package that it came in.
    pub package: Option<PackageInfo>,
}

/// Information on a package besides its model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PackageInfo {
    /// The target that its weights are packed for; `None` for any instruction set.
    pub packed_for: Option<PackedFor>,
    /// Ed25519 public key of its signer.
    pub signer: Option<[u8; 32]>,
    /// Its size in bytes.
    pub bytes: usize,
}

/// The target that weights were packed for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PackedFor {
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// The memory policy.
    pub memory: Memory,
    /// The storage format of the weights.
    pub precision: Precision,
    /// Version of the kernels' packed layouts.
    packing: u32,
}

impl PackedFor {
    /// The target for this build's packed layouts.
    pub(crate) fn new(isa: Isa, memory: Memory, precision: Precision) -> Self {
        Self { isa, memory, precision, packing: PACKING }
    }

    /// Refuses layouts that this build's kernels do not read, and instruction sets that the CPU does not have or the
    /// caller did not request.
    pub(crate) fn check(&self, asked: Option<Isa>) -> Result<()> {
        let refused = |reason: String| Error::Invalid {
            fault: Fault::Package(PackageFault::Target),
            message: format!("the package is refused: {reason}"),
        };
        if self.packing != PACKING {
            return Err(refused("its weights are packed for another version's kernels; compile it again".into()));
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
