//! The operands of a running step, as typed slices of the arena.
//!
//! All slices of a step exist at the same time, results mutable and operands shared; the arena checks in every step
//! that no result overlaps anything else, so a wrong plan is an error and never a data race.

use std::ops::Range;

use skipstone_kernels::arena::Views;
use skipstone_kernels::pace::Pace;
use skipstone_kernels::threads::Pool;

use crate::bytes::Bytes;
use crate::error::OpError;
use crate::expert_cache::{ExpertCache, Held};
use crate::tensor::{Element, Fact, Tensor, elements, elements_mut};

/// Location of an operand.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Place {
    /// In the caller's input with this index.
    Input(usize),
    /// In the plan's constants, at this index.
    Constant(usize),
    /// In the arena, at these bytes.
    Arena(Range<usize>),
}

/// A named input or output of the plan.
#[derive(Clone, Debug)]
pub struct Port {
    /// Name of the model's input or output.
    pub name: String,
    /// Type and shape.
    pub fact: Fact,
    /// Its location.
    pub place: Place,
}

/// Locations of the operands of one step.
#[derive(Clone, Debug, Default)]
pub struct Operands {
    /// Location of each input.
    pub inputs: Vec<Place>,
    /// Location of each result, followed by the scratch range if the step has one.
    pub writes: Vec<Range<usize>>,
    /// Number of results: `writes` has one more entry if there is scratch.
    pub outputs: usize,
}

/// A running step's access to its operands.
pub struct Io<'a, 'b> {
    pub(crate) operands: &'a Operands,
    pub(crate) views: Views<'a>,
    pub(crate) inputs: &'a [&'b [u8]],
    pub(crate) constants: &'a [std::sync::Arc<Tensor>],
    pub(crate) packed: &'a [Bytes],
    pub(crate) pool: &'a Pool,
    /// The cache that holds the packed constants, and their layer in it, if they are experts within a budget.
    pub(crate) experts: Option<(&'a ExpertCache, usize)>,
    /// The share of its multiply-adds that the step computed.
    pub(crate) active: f64,
}

impl<'a> Io<'a, '_> {
    /// The bytes of input `index`.
    ///
    /// # Errors
    /// [`OpError::Operand`] if the plan has no such operand.
    pub fn input_bytes(&self, index: usize) -> Result<&'a [u8], OpError> {
        match self.operands.inputs.get(index) {
            Some(Place::Input(i)) => self.inputs.get(*i).copied(),
            Some(Place::Constant(i)) => self.constants.get(*i).map(|t| t.bytes()),
            Some(Place::Arena(range)) => self.views.read(range.clone()),
            None => None,
        }
        .ok_or(OpError::Operand(index))
    }

    /// The elements of input `index`.
    ///
    /// # Errors
    /// [`OpError::Operand`] if the bytes are not whole, aligned elements of `T`.
    pub fn input<T: Element>(&self, index: usize) -> Result<&'a [T], OpError> {
        elements(self.input_bytes(index)?).ok_or(OpError::Operand(index))
    }

    /// The bytes of result `index`, once: a second call returns [`OpError::Operand`].
    ///
    /// # Errors
    /// [`OpError::Operand`] if the plan has no such result.
    pub fn output_bytes(&mut self, index: usize) -> Result<&'a mut [u8], OpError> {
        if index >= self.operands.outputs {
            return Err(OpError::Operand(index));
        }
        self.views.write(index).ok_or(OpError::Operand(index))
    }

    /// The elements of result `index`, once.
    ///
    /// # Errors
    /// [`OpError::Operand`] as for [`output_bytes`](Self::output_bytes).
    pub fn output<T: Element>(&mut self, index: usize) -> Result<&'a mut [T], OpError> {
        elements_mut(self.output_bytes(index)?).ok_or(OpError::Operand(index))
    }

    /// The scratch that the step's [`Choice`](super::Choice) requested, once; empty if it requested none. Its content
    /// is undefined.
    ///
    /// # Errors
    /// [`OpError::Operand`] if it is taken twice.
    pub fn scratch<T: Element>(&mut self) -> Result<&'a mut [T], OpError> {
        let index = self.operands.outputs;
        if index >= self.operands.writes.len() {
            return Ok(&mut []);
        }
        let bytes = self.views.write(index).ok_or(OpError::Operand(index))?;
        elements_mut(bytes).ok_or(OpError::Operand(index))
    }

    /// Packed constant `role`.
    ///
    /// # Errors
    /// [`OpError::Operand`] if the choice packed no such constant.
    pub fn packed<T: Element>(&self, role: usize) -> Result<&'a [T], OpError> {
        let bytes: &[u8] = self.packed.get(role).ok_or(OpError::Operand(role))?;
        elements(bytes).ok_or(OpError::Operand(role))
    }

    /// Keeps packed constant `role`, the weights of an expert, in memory while the result lives: to be called before
    /// they are read. Without a budget for experts there is nothing to do.
    #[must_use]
    pub(crate) fn hold(&self, role: usize) -> Option<Held<'a>> {
        let (cache, layer) = self.experts?;
        cache.hold(layer, role)
    }

    /// Records that the step computed `some` of `all` multiply-adds, or other units.
    pub fn active(&mut self, some: usize, all: usize) {
        self.active = some as f64 / all.max(1) as f64;
    }

    /// The session's threads.
    #[must_use]
    pub fn pool(&self) -> &'a Pool {
        self.pool
    }

    /// Counts the work of a loop that the calling thread runs, and asks whether it is to stop.
    #[must_use]
    pub fn pace(&self) -> Pace<'a> {
        Pace::of(self.pool)
    }
}
