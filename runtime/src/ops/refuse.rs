//! Refuse: replaces a branch that cannot be computed.
//!
//! A file may hold a branch for other input shapes than the given ones: a network for 8 kHz beside one for 16 kHz. With
//! the given shapes its nodes are inconsistent. That is fine as long as the other branch is taken; if this one is
//! taken, the run ends with the reason.

use serde::{Deserialize, Serialize};

use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::reserve;
use crate::tensor::{Fact, Tensor};

/// An error in place of results. Its operand, which is not read, keeps it from being folded before the run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Refuse {
    /// What cannot be computed, and why.
    #[serde(deserialize_with = "reserve::deserialize_text")]
    pub reason: String,
    /// Facts of the results that it replaces.
    #[serde(deserialize_with = "reserve::deserialize_list")]
    pub results: Vec<Fact>,
}

impl Refuse {
    fn error(&self) -> OpError {
        OpError::Value(self.reason.clone())
    }
}

impl Operator for Refuse {
    fn name(&self) -> &str {
        "Refuse"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        match inputs {
            [_] => Ok(self.results.clone()),
            _ => Err(OpError::Arity { want: "1", got: inputs.len() }),
        }
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "refuse".into(), ..Choice::default() })
    }

    fn bind(&self, _cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let it = self.clone();
        Ok(Box::new(move |_: &mut Io<'_, '_>| Err(it.error())))
    }
}

impl Semantics for Refuse {
    fn evaluate(&self, _inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        Err(self.error())
    }
}
