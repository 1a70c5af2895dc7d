//! A measurement of a model, as `bench --json` writes it and the HTML report shows it.

use serde::Serialize;
use skipstone::measure::{Latency, StepTime, gflops};
use skipstone::plan::Step;

use crate::expert_budget::ExpertReport;
use crate::zeros::ZerosReport;

/// The measurement, as written to JSON.
#[derive(Serialize)]
pub struct Report {
    pub model: String,
    pub isa: &'static str,
    pub threads: usize,
    pub power: &'static str,
    pub memory_policy: &'static str,
    pub precision: &'static str,
    pub load_ms: f64,
    pub first_ms: f64,
    pub runs: usize,
    /// `random`, or the directory of the images.
    pub inputs: String,
    pub latency_ms: Latency,
    pub memory: MemoryReport,
    /// Absent without a budget for experts.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub experts: Option<ExpertReport>,
    /// Absent if tract runs the whole model.
    pub macs: Option<u64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub steps: Option<Vec<StepReport>>,
}

#[derive(Serialize)]
pub struct MemoryReport {
    pub weights_bytes: u64,
    pub packed_bytes: u64,
    pub arena_bytes: u64,
    pub peak_rss_bytes: Option<u64>,
}

#[derive(Serialize)]
pub struct StepReport {
    pub name: String,
    pub op: String,
    pub kernel: String,
    pub ms: f64,
    pub share: f64,
    /// Executions of the step per run of the model, if not one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub runs: Option<f64>,
    pub macs: u64,
    /// Share of the multiply-adds that a step with masks computed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub active: Option<f64>,
    /// How often each expert was selected.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub selected: Vec<u64>,
    #[serde(flatten)]
    pub zeros: Option<ZerosReport>,
    pub bytes: u64,
    /// `None` if the step has no multiply-adds.
    pub gflops: Option<f64>,
}

impl StepReport {
    /// The time of a step of the plan, with how often its experts were selected.
    pub fn new(step: &StepTime, planned: &Step, selected: &[u64]) -> Self {
        Self {
            name: step.name.clone(),
            op: step.op.clone(),
            kernel: step.kernel.clone(),
            ms: step.ms,
            share: step.share,
            runs: (step.runs != 1.0).then_some(step.runs),
            macs: step.macs,
            active: step.active,
            selected: selected.to_vec(),
            zeros: ZerosReport::of(planned),
            bytes: step.bytes,
            gflops: gflops(step.macs, step.ms),
        }
    }
}
