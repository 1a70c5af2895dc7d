//! A caller's choices for planning and running a model.

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
    /// The fastest choice, with transformed weights: up to 5.4 times the memory of 3x3 kernels.
    #[default]
    Fast,
    /// Weights take no more memory than in the file. Transforms that expand them are computed in every run, part by
    /// part.
    Small,
}

/// How weights are stored, and how products with them are computed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Precision {
    /// As in the model.
    #[default]
    F32,
    /// Large weights of convolutions and products are rounded to half precision: half the memory, and half the traffic
    /// if that is the limit. The relative error of a weight is at most 1/2048.
    ///
    /// If the CPU has half-precision arithmetic (ARM since about 2018), such products are also computed in it, up to 64
    /// at a time, and then added in f32: the error is typically at most 1/500 of the sum of their magnitudes.
    /// Everything else is in f32, including the tensors between operators, and products beyond 65504, the largest
    /// half-precision value. 3x3 convolutions by Winograd's method and depthwise ones always use f32 arithmetic.
    F16,
}

/// The target of planning.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Instruction set to choose kernels for.
    pub isa: Isa,
    /// Number of threads that will run the plan.
    pub threads: usize,
    /// The memory policy.
    pub memory: Memory,
    /// The storage format of the weights.
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

/// How a kernel is chosen if several could run a step. All give the same result within the library's tolerance; in a
/// package for one instruction set, kernels were chosen when it was made. All but the first need the feature `tuning`.
#[derive(Clone, Debug, Default)]
pub enum Tune {
    /// By a cost model of a typical core.
    #[default]
    Model,
    /// By measuring them now, on random inputs, during whole runs: opening a model takes one to ten seconds longer, and
    /// meanwhile needs extra memory for its weights in the file. Store the result of
    /// [`Model::tuning`](crate::Model::tuning), and use it the next time.
    #[cfg(any(feature = "tuning", test))]
    Measure,
    /// By stored measurements, and by the cost model for steps without one. Refused (`tuning.cpu`, `tuning.target`) if
    /// it was measured on another processor, or for another instruction set, number of threads, memory or precision.
    #[cfg(any(feature = "tuning", test))]
    Stored(Arc<Tuning>),
}

/// Choices for [`Model::open`](crate::Model::open); the default suits a phone: one thread,
/// the best instruction set of the CPU.
#[derive(Clone, Debug)]
pub struct Options {
    /// Threads of a session, including the caller's; at least 1, and no more than there are cores of the power mode.
    pub threads: usize,
    /// Which cores they run on; for the caller's thread, only during a run.
    pub power: PowerMode,
    /// Instruction set to use; `None` takes `SKIPSTONE_ISA` from the environment, or else the
    /// CPU's best.
    pub isa: Option<Isa>,
    /// The memory policy.
    pub memory: Memory,
    /// The storage format of the weights.
    pub precision: Precision,
    /// How kernels are chosen.
    pub tune: Tune,
    /// Ed25519 public key of the only accepted signer of packages; `None` also accepts unsigned ones.
    pub signer: Option<[u8; 32]>,
    /// Shapes of dynamic inputs, by input name.
    pub shapes: BTreeMap<String, Vec<usize>>,
    /// Most bytes of the weights of experts in memory at a time; `None` leaves that to the system. Experts are then
    /// read from the package when a run selects them or soon will, and the least needed ones leave memory. For packages
    /// with packed weights that are opened from a file.
    pub expert_budget: Option<u64>,
    /// Bounds on a model's resources.
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
            expert_budget: None,
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

    /// Runs on the cores of this mode.
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

    /// With weights stored in this precision.
    #[must_use]
    pub fn precision(mut self, precision: Precision) -> Self {
        self.precision = precision;
        self
    }

    /// With this choice of kernels.
    #[must_use]
    pub fn tune(mut self, tune: Tune) -> Self {
        self.tune = tune;
        self
    }

    /// Accepting only packages signed with this Ed25519 public key.
    #[must_use]
    pub fn signer(mut self, public_key: [u8; 32]) -> Self {
        self.signer = Some(public_key);
        self
    }

    /// With `shape` for the input `name`.
    #[must_use]
    pub fn shape(mut self, name: impl Into<String>, shape: &[usize]) -> Self {
        self.shapes.insert(name.into(), shape.to_vec());
        self
    }

    /// With at most this many bytes of the weights of experts in memory.
    #[must_use]
    pub fn expert_budget(mut self, bytes: u64) -> Self {
        self.expert_budget = Some(bytes);
        self
    }

    /// With these bounds on a model's resources.
    #[must_use]
    pub fn limits(mut self, limits: Limits) -> Self {
        self.limits = limits;
        self
    }
}
