//! Replaces `tuner.rs` in a library without the feature `tuning`: kernels are chosen by the cost model.

use std::sync::Arc;

use crate::cores::Cores;
use crate::error::Result;
use crate::graph::Graph;
use crate::options::Tune;
use crate::plan::{Target, Tuning};

/// Knows of no measured times.
#[derive(Clone, Default)]
pub(crate) struct Tuner;

impl Tuner {
    /// # Errors
    /// None.
    pub fn new(_tune: &Tune, _target: Target) -> Result<Self> {
        Ok(Self)
    }

    /// Nothing is known.
    pub fn tuning(&self) -> Option<&Arc<Tuning>> {
        None
    }

    /// Nothing is measured.
    ///
    /// # Errors
    /// None.
    pub fn tune(&mut self, _graph: &Graph, _target: Target, _cores: Option<&Cores>) -> Result<()> {
        Ok(())
    }
}
