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

#[cfg(all(test, feature = "onnx"))]
mod tests {
    use super::*;
    use crate::plan::ALIGNMENT;
    use crate::{Model, Options};

    /// The sizes must add up to the planner's own lower bound.
    #[test]
    fn the_stays_explain_the_arena() {
        let pretrained = "../models/pretrained/simplenet-310k-cifar10.onnx";
        for path in [pretrained, "../tests/fixtures/blocks.onnx"] {
            let path = format!("{}/{path}", env!("CARGO_MANIFEST_DIR"));
            let model = Model::open(path, &Options::default().threads(2)).unwrap();
            let plan = model.plan().unwrap();
            let tenants = tenants(plan);
            let padded = |t: &Tenant| t.bytes.len().next_multiple_of(ALIGNMENT);
            let alive = |step| tenants.iter().filter(move |t| t.first <= step && step <= t.last).map(padded).sum();
            assert_eq!((0..=plan.steps.len()).map(alive).max(), Some(plan.arena_lower_bound));
            assert_eq!(tenants.iter().map(|t| t.bytes.start + padded(t)).max(), Some(plan.arena_bytes));
            for (i, a) in tenants.iter().enumerate() {
                for b in tenants[i + 1..].iter().filter(|b| a.first <= b.last && b.first <= a.last) {
                    assert!(a.bytes.end <= b.bytes.start || b.bytes.end <= a.bytes.start, "{a:?} meets {b:?}");
                }
            }
        }
    }
}
