//! The contents of the arena over time, from the plan's steps.

use std::ops::Range;

use crate::operator::Place;
use crate::plan::Plan;

/// A tensor in the arena: a step's result, or its scratch.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tenant {
    /// The step that writes it, as an index into the plan.
    pub first: usize,
    /// The last step that needs it; the number of steps if the caller reads it after the run.
    pub last: usize,
    /// Its bytes.
    pub bytes: Range<usize>,
    /// Whether it is scratch, not a result.
    pub scratch: bool,
}

/// Every tensor in the arena during a run, in order of its first step.
#[must_use]
pub fn tenants(plan: &Plan) -> Vec<Tenant> {
    let mut tenants: Vec<Tenant> = Vec::new();
    let extend = |tenants: &mut [Tenant], place: &Place, step: usize| {
        if let Place::Arena(range) = place {
            // A reader reads the latest result written to the same range.
            let tenant = tenants.iter_mut().rfind(|t| t.bytes == *range && !t.scratch);
            tenant.into_iter().for_each(|t| t.last = step);
        }
    };
    for (at, step) in plan.steps.iter().enumerate() {
        for (_, place) in step.operands.inputs.iter().enumerate().filter(|(i, _)| !step.choice.absorbed.contains(i)) {
            extend(&mut tenants, place, at);
        }
        let writes = step.operands.writes.iter().enumerate().filter(|(_, bytes)| !bytes.is_empty());
        tenants.extend(writes.map(|(i, bytes)| Tenant {
            first: at,
            last: at,
            bytes: bytes.clone(),
            scratch: i >= step.operands.outputs,
        }));
    }
    for port in &plan.outputs {
        extend(&mut tenants, &port.place, plan.steps.len());
    }
    tenants
}
