//! Operators without a kernel.
//!
//! The fallback evaluates them itself; they allocate, and appear as `fallback` in `inspect` and `bench`. The graph only
//! sees a trait, so that it does not depend on the fallback's library.

use std::fmt;
use std::sync::Arc;

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
    /// Evaluates the operator.
    ///
    /// # Errors
    /// The operator's own errors.
    fn evaluate(&self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>, OpError>;
}

/// A [`Foreign`] operator in the graph.
#[derive(Clone)]
pub struct ForeignOp(pub Arc<dyn Foreign>);

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

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: FALLBACK.to_owned(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let foreign = self.0.clone();
        let facts: Vec<Fact> = cx.inputs.iter().map(|&f| f.clone()).collect();
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let views: Vec<TensorView<'_>> = facts
                .iter()
                .enumerate()
                .map(|(i, fact)| TensorView::from_bytes(fact.clone(), io.input_bytes(i)?))
                .collect::<Result<_, _>>()?;
            for (i, result) in foreign.evaluate(&views)?.iter().enumerate() {
                let out = io.output_bytes(i)?;
                if out.len() != result.bytes().len() {
                    return Err(OpError::Value(format!(
                        "{} returned {}, not what was planned",
                        foreign.name(),
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
        self.0.evaluate(&views)
    }
}
