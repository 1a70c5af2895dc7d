//! The choice among the kernels that could run a step.
//!
//! An operator lists its kernels with their modeled costs. The cheapest is chosen, unless a package holds the weights
//! in another kernel's layout, or another was measured to be faster. Measurement and lookup identify a step by its
//! task: everything that its time depends on, except the target.

use serde::Serialize;

use super::PlanContext;
use crate::error::OpError;
pub use crate::tuning::Task;

/// A kernel that could run a step.
#[derive(Clone, Debug, PartialEq)]
pub struct Candidate {
    /// Its name, as [`Choice::kernel`](super::Choice::kernel).
    pub kernel: String,
    /// Its modeled cost, in a unit shared by all candidates of the step.
    pub cost: f64,
}

/// The kernels that could run a step.
#[derive(Clone, Debug, Default)]
pub struct Candidates {
    /// The step's task.
    pub task: Task,
    /// The cheapest first.
    pub kernels: Vec<Candidate>,
}

impl PlanContext<'_> {
    /// The one of `kernels` to run `op` with: the one that reads the layout the weights were packed in, or the one
    /// measured to be fastest, or the cheapest, the first of equals. The candidates are listed if there is a tuning.
    ///
    /// # Errors
    /// No kernel at all.
    pub(crate) fn choose<K>(
        &self,
        op: &impl Serialize,
        mut kernels: Vec<(K, f64)>,
        name: impl Fn(&K) -> String,
        form: impl Fn(&K) -> String,
    ) -> Result<(K, Candidates), OpError> {
        let named = kernels.iter().map(|(kernel, cost)| Candidate { kernel: name(kernel), cost: *cost });
        let (candidates, measured) = self.measured(op, named)?;
        // A measured kernel that is not among them, from a file for another CPU or version, is ignored.
        let asked = match self.packing {
            Some(packing) => kernels.iter().position(|(kernel, _)| form(kernel) == packing.form),
            None => measured.and_then(|asked| kernels.iter().position(|(kernel, _)| name(kernel) == asked)),
        };
        let cheapest = || (0..kernels.len()).min_by(|&a, &b| kernels[a].1.total_cmp(&kernels[b].1));
        let at = asked.or_else(cheapest).ok_or_else(|| OpError::Value("no kernel supports this".into()))?;
        Ok((kernels.swap_remove(at).0, candidates))
    }

    /// Lists the candidates; returns them and the name of the one measured to be fastest.
    fn measured(
        &self,
        op: &impl Serialize,
        kernels: impl Iterator<Item = Candidate>,
    ) -> Result<(Candidates, Option<&str>), OpError> {
        #[cfg(any(feature = "tuning", test))]
        if let Some(tuning) = self.tuning {
            let mut kernels: Vec<Candidate> = kernels.collect();
            kernels.sort_by(|a, b| a.cost.total_cmp(&b.cost));
            let candidates = Candidates { task: self.task(op)?, kernels };
            let fastest = tuning.kernel(&candidates.task);
            return Ok((candidates, fastest));
        }
        let _ = (op, kernels);
        Ok((Candidates::default(), None))
    }

    #[cfg(any(feature = "tuning", test))]
    fn task(&self, op: &impl Serialize) -> Result<Task, OpError> {
        let constant: Vec<bool> = (0..self.inputs.len()).map(|at| self.is_constant(at)).collect();
        let bytes = postcard::to_stdvec(&(op, &self.inputs, constant));
        bytes.map(Task::new).map_err(|e| OpError::Value(format!("its task cannot be serialized: {e}")))
    }
}
