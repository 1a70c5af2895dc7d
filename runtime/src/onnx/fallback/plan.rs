//! A model of tract's, behind the trait by which our graph knows foreign operators.

use std::sync::Arc;

use skipstone_onnx::Invalid;
use tract_onnx::prelude::{DatumType, RunnableModel, SymbolScope, TValue, TVec, TractError, TypedFact, TypedOp};

use super::convert;
use super::guard::guarded;
use crate::error::{Error, OpError, Result};
use crate::ops::Foreign;
use crate::tensor::{Fact, Tensor, TensorView};

pub(super) type Runnable = Arc<RunnableModel<TypedFact, Box<dyn TypedOp>>>;

/// A tract plan behind our [`Foreign`].
pub(super) struct TractPlan {
    pub name: String,
    /// Where the plan's symbols live, which it does not keep itself.
    #[expect(dead_code, reason = "kept alive, never read")]
    pub symbols: SymbolScope,
    pub plan: Runnable,
    /// Types that tract wants its inputs in.
    pub inputs: Vec<DatumType>,
    pub outputs: Vec<Fact>,
}

impl Foreign for TractPlan {
    fn name(&self) -> &str {
        &self.name
    }

    fn outputs(&self) -> &[Fact] {
        &self.outputs
    }

    fn evaluate(&self, inputs: &[TensorView<'_>]) -> Result<Vec<Tensor>, OpError> {
        let values =
            inputs.iter().zip(&self.inputs).map(|(view, &want)| Ok(TValue::from(convert::to_tract(view, want)?)));
        let values: TVec<TValue> = values.collect::<Result<_, OpError>>()?;
        let results = guarded(|| self.plan.run(values)).map_err(OpError::Value)?;
        let results = results.map_err(|e| OpError::Value(one_line(&format!("{e:#}"))))?;
        results.iter().map(|value| convert::from_tract(value)).collect()
    }
}

/// A refusal in tract's words.
pub(super) fn refused(node: &str, reason: &str) -> Error {
    Error::Unsupported { node: node.to_owned(), reason: one_line(reason) }
}

/// What tract or a rule of ours, asked on the way, objects to.
pub(super) fn objection(node: &str, error: TractError) -> Error {
    match error.downcast::<Invalid>() {
        Ok(invalid) => invalid.into(),
        Err(error) => refused(node, &format!("{error:#}")),
    }
}

/// What tract says, on one line, without the stack that the errors in its panics bring along.
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
