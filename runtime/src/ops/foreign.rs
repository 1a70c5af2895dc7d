//! Operators without a kernel.
//!
//! The fallback evaluates them itself; they allocate, and appear as `fallback` in `inspect` and `bench`. The graph only
//! sees a trait, so that it does not depend on the fallback's library.

use std::fmt;
use std::sync::Arc;

use super::aside::aside;
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{Fact, Tensor, TensorView};

/// Kernel name of a fallback step.
pub const FALLBACK: &str = "fallback";

/// An operator that evaluates itself.
pub trait Foreign: Send + Sync {
    /// Name of the operator.
    fn name(&self) -> &str;
    /// Facts of the results.
    fn outputs(&self) -> &[Fact];
    /// Steps of work of an evaluation, as far as they are known before it.
    fn work(&self) -> u64;
    /// Whether an evaluation is known to take less than a millisecond or two, and a few small allocations.
    fn is_quick(&self) -> bool;
    /// Evaluates the operator.
    ///
    /// # Errors
    /// The operator's own errors; more than the budget. Any, if the run is to stop.
    fn evaluate(&self, inputs: &[TensorView<'_>], budget: &Budget<'_>) -> Result<Vec<Tensor>, OpError>;
}

/// What an evaluation may take.
pub struct Budget<'a> {
    /// Bytes of what it holds at a time.
    pub bytes: u64,
    /// Steps of work.
    pub work: u64,
    /// Whether the run is to stop.
    pub stops: &'a dyn Fn() -> bool,
}

impl Budget<'static> {
    /// For what was checked before.
    pub const UNBOUNDED: Self = Self { bytes: u64::MAX, work: u64::MAX, stops: &|| false };
}

/// A [`Foreign`] operator in the graph.
#[derive(Clone)]
pub struct ForeignOp(pub Arc<dyn Foreign>);

impl ForeignOp {
    /// Evaluates the operator, without waiting for it when the run is to stop.
    ///
    /// # Errors
    /// Like [`Foreign::evaluate`].
    pub(crate) fn evaluate_within(
        &self,
        inputs: &[TensorView<'_>],
        budget: &Budget<'_>,
    ) -> Result<Vec<Tensor>, OpError> {
        // A package holds none of them: a library that only runs packages has no need for the thread.
        if self.0.is_quick() || !cfg!(any(feature = "onnx", test)) {
            return self.0.evaluate(inputs, budget);
        }
        let (foreign, &Budget { bytes, work, .. }) = (self.0.clone(), budget);
        let inputs = inputs.iter().map(|view| Tensor::from_bytes(view.fact().clone(), view.bytes()));
        let inputs = inputs.collect::<Result<Vec<Tensor>, _>>()?;
        aside(budget.stops, move |stops| {
            let inputs: Vec<TensorView<'_>> = inputs.iter().map(Tensor::view).collect();
            foreign.evaluate(&inputs, &Budget { bytes, work, stops })
        })?
    }
}

impl fmt::Debug for ForeignOp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.name())
    }
}

impl Operator for ForeignOp {
    fn name(&self) -> &str {
        self.0.name()
    }

    fn infer(&self, _inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        Ok(self.0.outputs().to_vec())
    }

    fn work(&self, _inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        self.0.work()
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: FALLBACK.to_owned(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let foreign = self.clone();
        let facts: Vec<Fact> = cx.inputs.iter().map(|&f| f.clone()).collect();
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let views: Vec<TensorView<'_>> = facts
                .iter()
                .enumerate()
                .map(|(i, fact)| TensorView::from_bytes(fact.clone(), io.input_bytes(i)?))
                .collect::<Result<_, _>>()?;
            let pool = io.pool();
            let budget = Budget { stops: &|| pool.stops(), ..Budget::UNBOUNDED };
            for (i, result) in foreign.evaluate_within(&views, &budget)?.iter().enumerate() {
                let out = io.output_bytes(i)?;
                if out.len() != result.bytes().len() {
                    return Err(OpError::Value(format!(
                        "{} returned {}, not what was planned",
                        foreign.0.name(),
                        result.fact()
                    )));
                }
                out.copy_from_slice(result.bytes());
            }
            Ok(())
        }))
    }
}

impl Semantics for ForeignOp {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let views: Vec<_> = inputs.iter().map(|t| t.view()).collect();
        self.0.evaluate(&views, &Budget::UNBOUNDED)
    }
}
