//! What a caller may choose about how a model is planned and run.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use skipstone_kernels::Isa;

use crate::cores::PowerMode;

/// How much memory planning may spend for speed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Memory {
    /// Whatever is fastest, transformed weights included: up to 5.4 times the memory of 3x3 kernels.
    #[default]
    Fast,
    /// Weights take no more than in the file. Transforms that expand them are made in every run, part by part.
    Small,
}

/// How weights are stored. Arithmetic is in f32 either way.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precision {
    /// As the model gives them.
    #[default]
    F32,
    /// Rounded to half precision, those of convolutions and products that are large: half the memory, and half the
    /// traffic where that is the limit. A weight is off by at most 1/2048 of itself.
    F16,
}

/// Choices for [`Model::open`](crate::Model::open); the default suits a phone: one thread,
/// the best instruction set of the CPU.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads of a session, the caller's included; at least 1, and no more than there are cores of the power mode.
    pub threads: usize,
    /// Which cores they run on, the caller's thread for the length of a run only.
    pub power: PowerMode,
    /// Instruction set to use; `None` takes `SKIPSTONE_ISA` from the environment, or else the
    /// CPU's best.
    pub isa: Option<Isa>,
    /// Memory against speed.
    pub memory: Memory,
    /// How weights are stored.
    pub precision: Precision,
    /// Ed25519 public key of the only signer whose packages are opened; `None` opens unsigned ones too.
    pub signer: Option<[u8; 32]>,
    /// Shapes of dynamic inputs, by input name.
    pub shapes: BTreeMap<String, Vec<usize>>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 1,
            power: PowerMode::Balanced,
            isa: None,
            memory: Memory::Fast,
            precision: Precision::F32,
            signer: None,
            shapes: BTreeMap::new(),
        }
    }
}

impl Options {
    /// With this many threads.
    #[must_use]
    pub fn threads(mut self, threads: usize) -> Self {
        self.threads = threads;
        self
    }

    /// On the cores of this mode.
    #[must_use]
    pub fn power(mut self, power: PowerMode) -> Self {
        self.power = power;
        self
    }

    /// With this instruction set.
    #[must_use]
    pub fn isa(mut self, isa: Isa) -> Self {
        self.isa = Some(isa);
        self
    }

    /// With this memory policy.
    #[must_use]
    pub fn memory(mut self, memory: Memory) -> Self {
        self.memory = memory;
        self
    }

    /// With weights stored like this.
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// Refusing all but packages that this Ed25519 public key signed.
    #[must_use]
    pub fn signer(mut self, public_key: [u8; 32]) -> Self {
        self.signer = Some(public_key);
        self
    }

    /// With the input `name` bound to `shape`.
    #[must_use]
    pub fn shape(mut self, name: impl Into<String>, shape: &[usize]) -> Self {
        self.shapes.insert(name.into(), shape.to_vec());
        self
    }
}
