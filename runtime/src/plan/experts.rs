//! The experts of a plan, kept within a budget of memory while it runs.
//!
//! Each product with experts is a layer of the cache. The numbers of its experts are a value that a step before it
//! computes, so they are known after that step: for all layers at once where they share a router, for the products of
//! one layer otherwise. A forecast names likely ones before.

use super::{Plan, Step};
use crate::error::Result;
use crate::expert_cache::ExpertCache;
use crate::operator::Place;
use crate::ops::Op;
use crate::ops::routed::Routed;
use crate::tensor::DType;

/// The cache of a plan's experts, and when it knows what.
pub(crate) struct Experts {
    pub cache: ExpertCache,
    /// The steps of the layers, in order.
    layers: Vec<usize>,
    /// In the order of the steps after which they are known.
    routings: Vec<Routing>,
}

/// The numbers of the experts of some layers, as one value of the plan.
pub(crate) struct Routing {
    /// The step that computes them; `None` if they are known before the first.
    after: Option<usize>,
    /// The value, i64 or i32.
    pub place: Place,
    pub dtype: DType,
    pub layers: Vec<usize>,
}

/// A copy of a router that is run early: a step whose result is the likely numbers of the experts of some layers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Forecast {
    /// Name of the step.
    pub step: String,
    /// Which of its results.
    pub output: usize,
    pub layers: Vec<usize>,
}

impl Experts {
    /// The experts of a plan; `None` if it has none.
    ///
    /// # Errors
    /// A budget below the largest expert, or experts that are not in a mapped package.
    pub fn new(plan: &Plan, budget: u64, forecasts: &[Forecast]) -> Result<Option<Self>> {
        let routed = |(_, step): &(usize, &Step)| matches!(step.op, Op::Routed(_));
        let steps: Vec<(usize, &Step)> = plan.steps.iter().enumerate().filter(routed).collect();
        let layers: Vec<_> =
            steps.iter().map(|(_, step)| (step.name.as_str(), step.choice.packed.as_slice())).collect();
        let Some(cache) = ExpertCache::new(&layers, budget)? else { return Ok(None) };
        let mut routings: Vec<Routing> = Vec::new();
        for (layer, (at, step)) in steps.iter().enumerate() {
            let Some(place) = step.operands.inputs.get(Routed::INDICES) else { continue };
            let Some(indices) = step.inputs.get(Routed::INDICES) else { continue };
            let after = match place {
                Place::Arena(_) => match writer(plan, *at, place) {
                    None => continue,
                    after => after,
                },
                Place::Input(_) | Place::Constant(_) => None,
            };
            match routings.iter_mut().find(|it| it.after == after && it.place == *place) {
                Some(routing) => routing.layers.push(layer),
                None => {
                    routings.push(Routing { after, place: place.clone(), dtype: indices.dtype, layers: vec![layer] });
                }
            }
        }
        for Forecast { step: name, output, layers } in forecasts {
            let Some((at, step)) = plan.steps.iter().enumerate().find(|(_, step)| step.name == *name) else { continue };
            let (Some(to), Some(fact)) = (step.operands.writes.get(*output), step.outputs.get(*output)) else {
                continue;
            };
            let place = Place::Arena(to.clone());
            routings.push(Routing { after: Some(at), place, dtype: fact.dtype, layers: layers.clone() });
        }
        routings.sort_by_key(|routing| routing.after);
        Ok(Some(Self { cache, layers: steps.iter().map(|(at, _)| *at).collect(), routings }))
    }

    /// The layer of a step.
    pub fn layer(&self, step: usize) -> Option<usize> {
        self.layers.binary_search(&step).ok()
    }

    /// The routings that are known after a step, or with `None` before the first.
    pub fn known(&self, after: Option<usize>) -> &[Routing] {
        let first = self.routings.partition_point(|routing| routing.after < after);
        let end = self.routings.partition_point(|routing| routing.after <= after);
        self.routings.get(first..end).unwrap_or_default()
    }
}

/// The last step before `at` that writes to a place in the arena.
fn writer(plan: &Plan, at: usize, place: &Place) -> Option<usize> {
    let Place::Arena(range) = place else { return None };
    let writes = |step: &Step| {
        let results = step.operands.writes.iter().take(step.operands.outputs);
        step.flow.is_none() && results.into_iter().any(|to| to.start < range.end && range.start < to.end)
    };
    plan.steps.iter().take(at).rposition(writes)
}

#[cfg(test)]
mod tests;
