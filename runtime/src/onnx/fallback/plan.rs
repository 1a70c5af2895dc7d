//! A tract model as a foreign operator of our graph.

use std::sync::Arc;

use skipstone_onnx::Invalid;
use tract_onnx::prelude::{DatumType, RunnableModel, SymbolScope, TValue, TVec, TractError, TypedFact, TypedOp};

use tract_onnx::tract_core::plan::eval;

use super::convert;
use super::guard::guarded;
use super::meter::Meter;
use crate::error::{Error, OpError, Result};
use crate::ops::{Budget, Foreign};
use crate::tensor::{Fact, Tensor, TensorView};

pub(super) type Runnable = Arc<RunnableModel<TypedFact, Box<dyn TypedOp>>>;

/// A tract plan that implements [`Foreign`].
pub(super) struct TractPlan {
    pub name: String,
    /// Owner of the plan's symbols, which the plan itself does not keep alive.
    #[expect(dead_code, reason = "kept alive, never read")]
    pub symbols: SymbolScope,
    pub plan: Runnable,
    /// The input types that tract expects.
    pub inputs: Vec<DatumType>,
    pub outputs: Vec<Fact>,
    /// Steps of work of a run, as far as they are known.
    pub work: u64,
    /// Whether a run is known to take less than a millisecond or two.
    pub is_quick: bool,
}

impl Foreign for TractPlan {
    fn name(&self) -> &str {
        &self.name
    }

    fn outputs(&self) -> &[Fact] {
        &self.outputs
    }

    fn work(&self) -> u64 {
        self.work
    }

    fn is_quick(&self) -> bool {
        self.is_quick
    }

    fn evaluate(&self, inputs: &[TensorView<'_>], budget: &Budget<'_>) -> Result<Vec<Tensor>, OpError> {
        let values =
            inputs.iter().zip(&self.inputs).map(|(view, &want)| Ok(TValue::from(convert::to_tract(view, want)?)));
        let values: TVec<TValue> = values.collect::<Result<_, OpError>>()?;
        let mut meter = Meter::new(budget);
        let run = || {
            self.plan.spawn()?.run_plan_with_eval(values, |cx, state, node, inputs| {
                meter.run(cx, node, inputs, |inputs| eval(cx, state, node, inputs))
            })
        };
        let results = guarded(run).map_err(OpError::Value)?;
        let results = results.map_err(|e| OpError::Value(one_line(&format!("{e:#}"))))?;
        results.iter().map(|value| convert::from_tract(value)).collect()
    }
}

/// An error with tract's reason.
pub(super) fn refused(node: &str, reason: &str) -> Error {
    Error::Unsupported { node: node.to_owned(), reason: one_line(reason) }
}

/// An error from tract, or from one of our rules called by it.
pub(super) fn tract_error(node: &str, error: TractError) -> Error {
    match error.downcast::<Invalid>() {
        Ok(invalid) => invalid.into(),
        Err(error) => refused(node, &format!("{error:#}")),
    }
}

/// tract's message on one line, without the backtrace in the errors of its panics.
fn one_line(text: &str) -> String {
    let text = text.split_once("Stack backtrace:").map_or(text, |(message, _)| message);
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reason_is_one_line_without_a_stack() {
        let text = "no such axis: 9\n\nCaused by:\n    rank 2\n\nStack backtrace:\n   0: main\n";
        assert_eq!(one_line(text), "no such axis: 9 Caused by: rank 2");
    }
}
