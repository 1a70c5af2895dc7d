//! The experts of a plan, and the memory that a budget for them must have.

use crate::ops::Op;
use crate::plan::{Plan, Step};

/// The experts of one product.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExpertLayer {
    /// Name of the step.
    pub name: String,
    /// Number of experts.
    pub experts: usize,
    /// Bytes of the weights of the largest expert: in whole pages if the package is mapped.
    pub each_bytes: u64,
    /// Bytes of the weights of all.
    pub all_bytes: u64,
    /// Bytes of as many experts as one run can select.
    pub run_bytes: u64,
}

impl ExpertLayer {
    /// The experts of a step; `None` if it has none.
    #[must_use]
    pub fn of(step: &Step) -> Option<Self> {
        let Op::Routed(_) = step.op else { return None };
        let sizes = step.choice.packed.iter().map(|bytes| {
            let pages = bytes.mapped().map(|(mapping, range)| mapping.page_bytes(range));
            pages.unwrap_or(bytes.len()) as u64
        });
        let (each_bytes, all_bytes) = (sizes.clone().max().unwrap_or(0), sizes.sum::<u64>());
        let rows = step.inputs.first().and_then(|rows| rows.shape.first().copied()).unwrap_or(0);
        let experts = step.choice.packed.len();
        let run_bytes = all_bytes.min(each_bytes.saturating_mul(rows as u64));
        Some(Self { name: step.name.clone(), experts, each_bytes, all_bytes, run_bytes })
    }

    /// The experts of all steps of a plan.
    #[must_use]
    pub fn all(plan: &Plan) -> Vec<Self> {
        plan.steps.iter().filter_map(Self::of).collect()
    }

    /// The least budget for the experts of these layers: the largest one must fit.
    #[must_use]
    pub fn least_budget(layers: &[Self]) -> u64 {
        layers.iter().map(|layer| layer.each_bytes).max().unwrap_or(0)
    }
}
