//! The Plan: which kernel runs when, on which bytes.
//!
//! Planning turns a Graph into a list of steps. Every step's kernel is chosen and its weights
//! are packed, once; every tensor gets its place in one arena, known before the first run. A
//! Plan is plain data: `inspect` prints it, [`Program`] makes it run.

mod budget;
mod draft;
mod flow;
mod memory;
mod planner;

use std::sync::Arc;

use skipstone_kernels::Isa;

pub use crate::operator::Port;
pub use crate::options::Target;
pub use crate::tuning::{Measured, Timed, Tuning};
pub use flow::{Arm, Branch, Flow, Move, Repeat};
pub use memory::{ALIGNMENT, Layout, Request};

use crate::error::Result;
use crate::graph::{Graph, Removed};
use crate::operator::{BindContext, Choice, Execute, Io, Operands, Operator, Packing, Place};
use crate::ops::Op;
use crate::tensor::{Fact, Tensor};

/// One kernel call, or a branch or loop over the steps behind it.
#[derive(Clone)]
pub struct Step {
    /// The node's name.
    pub name: String,
    /// The operator, with its attributes.
    pub op: Op,
    /// The kernel and its packed weights.
    pub choice: Choice,
    /// Where its operands lie.
    pub operands: Operands,
    /// Facts of the inputs.
    pub inputs: Vec<Fact>,
    /// Facts of the results.
    pub outputs: Vec<Fact>,
    /// Multiply-adds of one run.
    pub macs: u64,
    /// As [`Plan::work`].
    pub work: u64,
    /// What it does with the steps behind it, where it is no kernel call.
    pub flow: Option<Box<Flow>>,
}

impl Step {
    /// Bytes that one run of the step reads and writes: its operands, its weights and its results, each once.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        let inputs = self.inputs.iter().enumerate().filter(|(i, _)| !self.choice.absorbed.contains(i));
        let operands = inputs.map(|(_, fact)| fact).chain(&self.outputs).map(Fact::bytes);
        operands.chain(self.choice.packed.iter().map(|weights| weights.len())).map(|bytes| bytes as u64).sum()
    }
}

/// An input that sessions hold.
#[derive(Clone, Debug)]
pub struct Variable {
    /// Name, type, shape and place.
    pub port: Port,
    /// What it is at first; zeros if there is nothing.
    pub initial: Option<Arc<Tensor>>,
    /// Position of the output that it takes over behind every run, for state; `None` for a setting.
    pub next: Option<usize>,
}

/// A model laid out for one instruction set and one set of shapes.
#[derive(Clone)]
pub struct Plan {
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// What the caller gives.
    pub inputs: Vec<Port>,
    /// What the session gives; their places come behind those of the inputs.
    pub variables: Vec<Variable>,
    /// What the caller gets.
    pub outputs: Vec<Port>,
    /// Steps in order.
    pub steps: Vec<Step>,
    /// Constants that kernels read as they are.
    pub constants: Vec<Arc<Tensor>>,
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// Bytes that are alive at the widest moment: no arena can be smaller.
    pub arena_lower_bound: usize,
    /// Work of one run, as [`Limits`](crate::Limits) count it.
    pub work: u64,
    /// Why the graph was planned unoptimized, where it was.
    pub warning: Option<String>,
    /// What was removed from weights because it is zero; a package lists it in its metadata.
    pub removed: Vec<Removed>,
}

impl Plan {
    /// Plans `graph` for `target`. Weights are given up one by one as they are packed, so that both forms of all of
    /// them are never there at once.
    ///
    /// # Errors
    /// A step that no kernel takes, with the node's name.
    pub fn new(graph: Graph, target: Target) -> Result<Self> {
        Self::with(graph, target, &[], None)
    }

    /// As [`new`](Self::new), with the weights of some nodes packed already: `packings[i]` is for node `i` of the walk
    /// through the graph, blocks included. Where there is a tuning, kernels are chosen by it, and every choice lists its
    /// candidates.
    ///
    /// # Errors
    /// As for [`new`](Self::new); `package.target` if the weights were packed for a kernel that the node cannot be
    /// run with.
    pub(crate) fn with(
        graph: Graph,
        target: Target,
        packings: &[Option<Packing>],
        tuning: Option<&Tuning>,
    ) -> Result<Self> {
        planner::Planner::new(graph, target, packings, tuning).plan()
    }

    /// Takes constants out of the file that they are a part of.
    ///
    /// # Errors
    /// There is no memory for them.
    pub(crate) fn detach(&mut self) -> Result<()> {
        let initial = self.variables.iter_mut().filter_map(|variable| variable.initial.as_mut());
        for tensor in self.constants.iter_mut().chain(initial) {
            *tensor = Arc::new(tensor.detached().map_err(|e| e.at("graph"))?);
        }
        Ok(())
    }

    /// Multiply-adds of one run in which every step runs once.
    #[must_use]
    pub fn macs(&self) -> u64 {
        self.steps.iter().map(|s| s.macs).sum()
    }

    /// Bytes of weights in the kernels' own form.
    #[must_use]
    pub fn packed_bytes(&self) -> usize {
        self.steps.iter().flat_map(|s| &s.choice.packed).map(|p| p.len()).sum()
    }

    /// Bytes of constants that kernels read as they are.
    #[must_use]
    pub fn constant_bytes(&self) -> usize {
        self.constants.iter().map(|t| t.bytes().len()).sum()
    }
}

/// A Plan whose kernels are resolved, ready to be run by any number of sessions at once.
pub struct Program {
    plan: Plan,
    executables: Vec<Box<dyn Execute>>,
}

impl Program {
    /// Binds every step to its kernel.
    ///
    /// # Errors
    /// A kernel that this build does not have, with the node's name.
    pub fn new(plan: Plan) -> Result<Self> {
        let executables = plan
            .steps
            .iter()
            .map(|step| {
                let constants = step.operands.inputs.iter().map(|place| match place {
                    Place::Constant(i) => plan.constants.get(*i).map(AsRef::as_ref),
                    Place::Input(_) | Place::Arena(_) => None,
                });
                let cx = BindContext {
                    inputs: step.inputs.iter().collect(),
                    outputs: step.outputs.iter().collect(),
                    constants: constants.collect(),
                    absorbed: &step.choice.absorbed,
                    kernel: &step.choice.kernel,
                    isa: plan.isa,
                };
                if step.flow.is_some() {
                    let nothing: Box<dyn Execute> = Box::new(|_: &mut Io<'_, '_>| Ok(()));
                    return Ok(nothing);
                }
                step.op.bind(&cx).map_err(|e| e.at(&step.name))
            })
            .collect::<Result<_>>()?;
        Ok(Self { plan, executables })
    }

    /// The plan.
    #[must_use]
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// A step with its executable.
    pub(crate) fn step(&self, index: usize) -> Option<(&Step, &dyn Execute)> {
        Some((self.plan.steps.get(index)?, self.executables.get(index)?.as_ref()))
    }
}
