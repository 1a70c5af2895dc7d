//! What a caller may choose about how a model is planned and run.

use std::collections::BTreeMap;
use std::fmt;
#[cfg(any(feature = "tuning", test))]
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skipstone_kernels::Isa;

use crate::cores::PowerMode;
use crate::limits::Limits;
#[cfg(any(feature = "tuning", test))]
use crate::tuning::Tuning;

/// How much memory planning may spend for speed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Memory {
    /// Whatever is fastest, transformed weights included: up to 5.4 times the memory of 3x3 kernels.
    #[default]
    Fast,
    /// Weights take no more than in the file. Transforms that expand them are made in every run, part by part.
    Small,
}

/// How weights are stored, and products of them computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precision {
    /// As the model gives them.
    #[default]
    F32,
    /// Rounded to half precision, those of convolutions and products that are large: half the memory, and half the
    /// traffic where that is the limit. A weight is off by at most 1/2048 of itself.
    ///
    /// Where the CPU has arithmetic in half precision (ARM's, since about 2018), such products are also computed in it,
    /// up to 64 at a time, which are added in f32: typically off by 1/500 of the sum of their magnitudes at most. All
    /// else is in f32, the tensors between operators included, and so are products that go past 65504, the end of half
    /// precision. Convolutions of 3x3 by Winograd's method and depthwise ones always are.
    F16,
}

/// What planning needs to know beside the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Instruction set to choose kernels for.
    pub isa: Isa,
    /// Threads the plan will be run with.
    pub threads: usize,
    /// Memory against speed.
    pub memory: Memory,
    /// How weights are stored.
    pub precision: Precision,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = match self.memory {
            Memory::Fast => "fast",
            Memory::Small => "small",
        };
        let precision = match self.precision {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
        };
        write!(f, "{}, threads {}, memory {memory}, precision {precision}", self.isa, self.threads)
    }
}

/// How a kernel is chosen where several could run a step. All give the same answer within the tolerance of the library;
/// a package for one instruction set was chosen for when it was made. All but the first want the feature `tuning`.
#[derive(Clone, Debug, Default)]
pub enum Tune {
    /// By a model of what each costs on a typical core.
    #[default]
    Model,
    /// By measuring them here and now, on random inputs, in the course of whole runs: opening a model takes one to ten
    /// seconds more, and for that time the memory of its weights in the file. Store what
    /// [`Model::tuning`](crate::Model::tuning) gives, and open by that the next time.
    #[cfg(any(feature = "tuning", test))]
    Measure,
    /// By what was measured, and by the model of costs where that says nothing. Refused (`tuning.cpu`,
    /// `tuning.target`) if it was measured on another processor, or for another instruction set, number of threads,
    /// memory or precision.
    #[cfg(any(feature = "tuning", test))]
    Stored(Arc<Tuning>),
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
    /// How kernels are chosen.
    pub tune: Tune,
    /// Ed25519 public key of the only signer whose packages are opened; `None` opens unsigned ones too.
    pub signer: Option<[u8; 32]>,
    /// Shapes of dynamic inputs, by input name.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// What a model may ask for.
    pub limits: Limits,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            threads: 1,
            power: PowerMode::Balanced,
            isa: None,
            memory: Memory::Fast,
            precision: Precision::F32,
            tune: Tune::Model,
            signer: None,
            shapes: BTreeMap::new(),
            limits: Limits::default(),
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

    /// With kernels chosen like this.
    #[must_use]
    pub fn tune(mut self, tune: Tune) -> Self {
        self.tune = tune;
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

    /// With these bounds on what a model may ask for.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}
