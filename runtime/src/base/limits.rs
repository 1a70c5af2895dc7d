//! Limits on the resources that a model may use.
//!
//! A few hundred bytes of model can demand any amount of memory and time. Every size that a file controls is checked
//! against these limits before it is allocated or computed. The defaults suit a phone, and are far above what real
//! models for phones need; an app that knows its models can lower them without loss.

use crate::error::{Error, Fault, ModelFault, Result};

/// Upper bounds on a model, part of [`Options`](crate::Options).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes of a session's tensors: arena with scratch, inputs, and copies of outputs. 1 GiB.
    pub memory_bytes: u64,
    /// Work of one run: multiply-adds, and elements read and written. 2^38, about 20 seconds on one core of a phone.
    pub run_work: u64,
    /// Iterations of all loops in one run; nested loops count every time. 2^20.
    pub iterations: u64,
    /// Limits on an ONNX file.
    #[cfg(feature = "onnx")]
    pub file: skipstone_onnx::Limits,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            memory_bytes: 1 << 30,
            run_work: 1 << 38,
            iterations: 1 << 20,
            #[cfg(feature = "onnx")]
            file: skipstone_onnx::Limits::default(),
        }
    }
}

/// The rest of a run's limits, checked at run time for loops without a known end.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    /// Steps of work.
    pub work: u64,
    iterations: u64,
    /// Bytes that a model without a plan may hold at a time.
    pub memory: u64,
}

impl Allowance {
    /// The allowance for one run.
    pub fn new(limits: &Limits) -> Self {
        Self { work: limits.run_work, iterations: limits.iterations, memory: limits.memory_bytes }
    }

    /// Subtracts the work of a step.
    ///
    /// # Errors
    /// `model.limit` if none is left.
    pub fn work(&mut self, of_step: u64) -> Result<()> {
        self.work = self.work.checked_sub(of_step).ok_or_else(|| spent("steps of work"))?;
        Ok(())
    }

    /// Subtracts one iteration.
    ///
    /// # Errors
    /// `model.limit` if none is left.
    pub fn iteration(&mut self) -> Result<()> {
        self.iterations = self.iterations.checked_sub(1).ok_or_else(|| spent("iterations of loops"))?;
        Ok(())
    }
}

fn spent(what: &str) -> Error {
    let message = format!("the run exceeds the limit of {what}; raise it with Limits");
    Error::Invalid { fault: Fault::Model(ModelFault::Limit), message }
}

/// Refuses a model that needs more than `most` of `what`.
pub(crate) fn check(what: &str, asked: u64, most: u64) -> Result<()> {
    if asked <= most {
        return Ok(());
    }
    let message = format!("the model needs {asked} {what}, the limit is {most}; raise it with Limits");
    Err(Error::Invalid { fault: Fault::Model(ModelFault::Limit), message })
}
