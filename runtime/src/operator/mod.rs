//! The operator traits, and the types that operators exchange with planner and session.
//!
//! An operator becomes executable in three steps. [`Operator::plan`] chooses a kernel and packs the weights: plain data
//! that can be stored. [`Operator::bind`] turns that data into an [`Execute`]: it resolves names to function pointers
//! and computes the geometry. [`Execute::run`] does the work, without a heap allocation.
//!
//! The operators themselves, and their table, are in [`ops`](crate::ops); nothing here names one.

pub mod axes;
mod candidates;
mod io;
mod plan;
mod work;

use axes::{Axes, Left, Nhwc};
pub use candidates::{Candidate, Candidates, Task};
pub use io::{Io, Operands, Place, Port};
#[cfg(any(feature = "passes", test))]
pub use plan::Pattern;
pub use plan::{BindContext, Choice, Packing, PlanContext, Zeros};
pub(crate) use work::{elements_of, saturating_product};

use crate::error::OpError;
use crate::tensor::{Fact, Tensor};

/// Implemented by every operator.
pub trait Operator {
    /// Name as `inspect` and the profile print it, such as `Conv`.
    fn name(&self) -> &str;

    /// Shape rule: the facts of the results.
    ///
    /// # Errors
    /// The rule that the inputs break.
    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError>;

    /// Multiply-adds of one run; 0 for operators that are not counted by convention.
    fn macs(&self, _inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        0
    }

    /// Work of one run: multiply-adds, and elements read and written. [`Limits`](crate::Limits) bound it.
    fn work(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        self.macs(inputs, outputs).saturating_add(elements_of(inputs)).saturating_add(elements_of(outputs))
    }

    /// Position of the input whose bytes the (only) result shares unchanged, such as a reshape's: such a step costs
    /// nothing and is left out of the plan.
    fn alias(&self, _inputs: &[&Fact]) -> Option<usize> {
        None
    }

    /// Chooses the kernel and packs constant inputs.
    ///
    /// # Errors
    /// Types or attributes that no kernel supports.
    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError>;

    /// Makes the choice executable. Cheap: nothing is packed or copied here.
    ///
    /// # Errors
    /// A kernel name that this build does not have.
    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError>;
}

/// The meaning of an operator, for passes and tests. Code that only runs packages never uses it, so the linker leaves
/// it out there.
pub trait Semantics {
    /// Plain evaluation, written to be read: the reference for tests, also used for constant folding.
    ///
    /// # Errors
    /// Values that the operator does not accept, such as an index out of range.
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError>;

    /// What the axes of the only result follow; by default nothing, and passes do not change the operator.
    ///
    /// If an attribute holds a length along a linked axis, [`narrow`](Self::narrow) changes it.
    fn axes(&self, _inputs: &[&Fact]) -> Axes {
        Axes::unknown()
    }

    /// Adapts the operator to the remaining indices of a linked axis, in the first operand that has it and in the
    /// result.
    fn narrow(&mut self, _from: Left<'_>, _to: Left<'_>) {}

    /// Whether it reads images in NHWC; not asked of elementwise functions, which have no layout.
    fn nhwc(&self) -> Nhwc {
        Nhwc::Never
    }

    /// Converts it to the operator for images in NHWC, if [`nhwc`](Self::nhwc) allows that.
    fn turn_to_nhwc(&mut self) {}
}

/// An executable step.
pub trait Execute: Send + Sync {
    /// Reads the step's operands and writes its results. Native steps allocate nothing.
    ///
    /// # Errors
    /// [`OpError::Operand`] for an inconsistent plan, [`OpError::Value`] for values that the operator does not accept.
    fn run(&self, io: &mut Io<'_, '_>) -> Result<(), OpError>;
}

/// Any closure over [`Io`] is a step; most bindings are closures.
impl<F: Fn(&mut Io<'_, '_>) -> Result<(), OpError> + Send + Sync> Execute for F {
    fn run(&self, io: &mut Io<'_, '_>) -> Result<(), OpError> {
        self(io)
    }
}
