//! Statistics of a model's runs: latency, memory, and time per step.

use std::time::Duration;

use skipstone::measure;

use crate::model::Model;

/// Latency of the latest runs (at most 1024), in milliseconds; zero if there were none.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Latency {
    /// The count of all runs that succeeded.
    pub runs: u64,
    /// The fastest.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The slowest.
    pub max: f64,
    /// The arithmetic mean.
    pub mean: f64,
}

impl Latency {
    pub(crate) fn of(runs: u64, latest: &[Duration]) -> Self {
        measure::Latency::of(latest).map_or_else(Self::default, |l| Self {
            runs,
            min: l.min,
            p50: l.p50,
            p90: l.p90,
            p99: l.p99,
            max: l.max,
            mean: l.mean,
        })
    }
}

/// Memory of a model and one session, and of their process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct Memory {
    /// Weights as the file stores them.
    pub weights_bytes: u64,
    /// Weights packed for the kernels.
    pub packed_bytes: u64,
    /// All tensors between the inputs and the outputs.
    pub arena_bytes: u64,
    /// Resident memory of the process; absent on some systems.
    pub resident_bytes: Option<u64>,
    /// Peak resident memory of the process; absent on some systems.
    pub peak_resident_bytes: Option<u64>,
}

impl Memory {
    pub(crate) fn of(model: &Model) -> Self {
        let plan = measure::Memory::of(model.runtime());
        Self {
            weights_bytes: plan.weights_bytes,
            packed_bytes: plan.packed_bytes,
            arena_bytes: plan.arena_bytes,
            resident_bytes: measure::rss_bytes(),
            peak_resident_bytes: measure::peak_rss_bytes(),
        }
    }
}

/// The time of one step of a model.
#[derive(Clone, Debug, PartialEq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct StepTime {
    /// Name of the step.
    pub name: String,
    /// Its operator.
    pub op: String,
    /// Its kernel.
    pub kernel: String,
    /// Milliseconds per run.
    pub ms: f64,
    /// Fraction of the time of all steps, 0 to 1.
    pub share: f64,
}

impl StepTime {
    pub(crate) fn of(model: &Model, totals: &[Duration], counts: &[u64], active: &[f64], runs: usize) -> Vec<Self> {
        let plan = model.runtime().plan();
        let steps = plan.map(|plan| measure::per_step(plan, totals, counts, active, runs)).unwrap_or_default();
        let step = |s: measure::StepTime| Self { name: s.name, op: s.op, kernel: s.kernel, ms: s.ms, share: s.share };
        steps.into_iter().map(step).collect()
    }
}
