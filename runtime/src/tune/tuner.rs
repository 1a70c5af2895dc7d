//! Provides the planner with measured times. `untuned.rs` replaces this file where the feature `tuning` is off.

use std::sync::Arc;

use super::contest;
use crate::cores::Cores;
use crate::error::Result;
use crate::graph::Graph;
use crate::options::Tune;
use crate::plan::{Target, Tuning};

/// The planner's source of measured times.
#[derive(Clone, Default)]
pub(crate) struct Tuner {
    tuning: Option<Arc<Tuning>>,
    /// Whether to measure what is not known.
    measures: bool,
}

impl Tuner {
    /// A tuner according to the caller's options.
    ///
    /// # Errors
    /// `tuning.cpu`, `tuning.target`: the stored times were measured elsewhere.
    pub fn new(tune: &Tune, target: Target) -> Result<Self> {
        Ok(match tune {
            Tune::Model => Self::default(),
            Tune::Measure => Self { tuning: Some(Tuning::new(target).into()), measures: true },
            Tune::Stored(tuning) => {
                tuning.check_target(target)?;
                tuning.check_machine()?;
                Self { tuning: Some(tuning.clone()), measures: false }
            }
        })
    }

    /// The known times.
    pub fn tuning(&self) -> Option<&Arc<Tuning>> {
        self.tuning.as_ref()
    }

    /// Measures the steps of `graph` that are not known yet, if requested. For a graph that cannot run on random
    /// inputs, the cost model decides.
    ///
    /// # Errors
    /// A graph that cannot be planned.
    pub fn tune(&mut self, graph: &Graph, target: Target, cores: Option<&Cores>) -> Result<()> {
        if let (true, Some(tuning)) = (self.measures, &mut self.tuning) {
            let tuning = Arc::make_mut(tuning);
            for (task, measured) in contest::measure(graph, target, cores, tuning)? {
                tuning.insert(task, measured);
            }
        }
        Ok(())
    }
}
