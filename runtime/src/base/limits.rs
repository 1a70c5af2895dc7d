//! How much a model may ask of the device that runs it.
//!
//! A few hundred bytes of model can ask for any amount of memory and time. Whatever a file decides is held against
//! these numbers before it is allocated or computed. The defaults suit a phone, and are far above what models that
//! people deploy there take; an app that knows its models can only gain by lowering them.

use crate::error::{Error, Fault, ModelFault, Result};

/// Upper bounds on a model, as [`Options`](crate::Options) carry them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// Bytes that a session takes for tensors: arena with scratch, inputs, and copies of outputs. 1 GiB.
    pub memory_bytes: u64,
    /// Work of one run: multiply-adds, and elements read and written. 2^38, some 20 seconds on one core of a phone.
    pub run_work: u64,
    /// Iterations of all loops of one run, each loop around others counting theirs. 2^20.
    pub iterations: u64,
    /// What an ONNX file may hold.
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

/// What a run has left of its limits: where a loop has no known end, only the run knows what it takes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Allowance {
    work: u64,
    iterations: u64,
}

impl Allowance {
    /// For one run.
    pub fn new(limits: &Limits) -> Self {
        Self { work: limits.run_work, iterations: limits.iterations }
    }

    /// Takes the work of a step.
    ///
    /// # Errors
    /// `model.limit`: there is none left.
    pub fn work(&mut self, of_step: u64) -> Result<()> {
        self.work = self.work.checked_sub(of_step).ok_or_else(|| spent("steps of work"))?;
        Ok(())
    }

    /// Takes one iteration.
    ///
    /// # Errors
    /// `model.limit`: there is none left.
    pub fn iteration(&mut self) -> Result<()> {
        self.iterations = self.iterations.checked_sub(1).ok_or_else(|| spent("iterations of loops"))?;
        Ok(())
    }
}

fn spent(what: &str) -> Error {
    let message = format!("the run asks for more {what} than the limit; Limits can raise it");
    Error::Invalid { fault: Fault::Model(ModelFault::Limit), message }
}

/// Refuses a model that asks for more than `most` of `what`.
pub(crate) fn check(what: &str, asked: u64, most: u64) -> Result<()> {
    if asked <= most {
        return Ok(());
    }
    let message = format!("the model asks for {asked} {what}, the limit is {most}; Limits can raise it");
    Err(Error::Invalid { fault: Fault::Model(ModelFault::Limit), message })
}
