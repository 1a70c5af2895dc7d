//! The replacement for operators that a build leaves out.

use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Operator, PlanContext, Semantics};
use crate::tensor::{Fact, Tensor};

/// An operator that only reports that it is missing.
pub(super) struct Missing;

fn missing<T>() -> Result<T, OpError> {
    Err(OpError::Value("this build of Skipstone does not contain this operator; see SKIPSTONE_OPERATORS".into()))
}

impl Operator for Missing {
    fn name(&self) -> &str {
        "missing"
    }
    fn infer(&self, _: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        missing()
    }
    fn plan(&self, _: &PlanContext<'_>) -> Result<Choice, OpError> {
        missing()
    }
    fn bind(&self, _: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        missing()
    }
}

impl Semantics for Missing {
    fn evaluate(&self, _: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        missing()
    }
}
