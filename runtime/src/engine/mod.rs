//! The engine, shared by the sessions of a model: a program, or a model that the fallback runs as a whole.

mod forecast;

use std::sync::Arc;

use crate::graph::ForeignModel;
use crate::operator::Port;
use crate::plan::{Plan, Program, Variable};

pub(crate) use forecast::add_forecasts;

/// What runs a model: a plan, or the fallback.
#[derive(Clone)]
pub(crate) enum Engine {
    Native(Arc<Program>),
    Foreign(Arc<ForeignModel>),
}

impl Engine {
    pub(crate) fn plan(&self) -> Option<&Plan> {
        match self {
            Self::Native(program) => Some(program.plan()),
            Self::Foreign(_) => None,
        }
    }

    pub(crate) fn inputs(&self) -> &[Port] {
        match self {
            Self::Native(program) => &program.plan().inputs,
            Self::Foreign(model) => &model.inputs,
        }
    }

    pub(crate) fn variables(&self) -> &[Variable] {
        self.plan().map_or(&[], |plan| &plan.variables)
    }

    pub(crate) fn outputs(&self) -> &[Port] {
        match self {
            Self::Native(program) => &program.plan().outputs,
            Self::Foreign(model) => &model.outputs,
        }
    }
}
