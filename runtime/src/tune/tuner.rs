//! What the planner knows of measured times, and where it has that from.

use std::sync::Arc;

use crate::cores::Cores;
use crate::error::Result;
use crate::graph::Graph;
use crate::options::Tune;
use crate::plan::{Target, Tuning};

/// Where the planner's knowledge of measured times comes from.
#[derive(Clone, Default)]
pub(crate) struct Tuner {
    tuning: Option<Arc<Tuning>>,
    /// Whether what is not known is measured.
    #[cfg(any(feature = "tuning", test))]
    measures: bool,
}

impl Tuner {
    /// A tuner as the caller wants it.
    ///
    /// # Errors
    /// `tuning.cpu`, `tuning.target`: what is stored was measured elsewhere.
    pub fn new(tune: &Tune, target: Target) -> Result<Self> {
        let _ = target;
        Ok(match tune {
            Tune::Model => Self::default(),
            #[cfg(any(feature = "tuning", test))]
            Tune::Measure => Self { tuning: Some(Tuning::new(target).into()), measures: true },
            #[cfg(any(feature = "tuning", test))]
            Tune::Stored(tuning) => {
                tuning.check_target(target)?;
                tuning.check_machine()?;
                Self { tuning: Some(tuning.clone()), measures: false }
            }
        })
    }

    /// What is known.
    pub fn tuning(&self) -> Option<&Arc<Tuning>> {
        self.tuning.as_ref()
    }

    /// Measures the steps of `graph` that are not known yet, if that is wanted. A graph that cannot be run on random
    /// inputs is left to the model of costs.
    ///
    /// # Errors
    /// A graph that cannot be planned.
    pub fn tune(&mut self, graph: &Graph, target: Target, cores: Option<&Cores>) -> Result<()> {
        #[cfg(any(feature = "tuning", test))]
        if let (true, Some(tuning)) = (self.measures, &mut self.tuning) {
            let tuning = Arc::make_mut(tuning);
            for (task, measured) in super::contest::measure(graph, target, cores, tuning)? {
                tuning.insert(task, measured);
            }
        }
        let _ = (graph, target, cores);
        Ok(())
    }
}
