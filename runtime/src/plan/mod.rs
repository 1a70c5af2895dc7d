//! The Plan: which kernel runs when, on which bytes.
//!
//! Planning turns a Graph into a list of steps. Every step's kernel is chosen and its weights are packed once; every
//! tensor gets its place in one arena, known before the first run. A Plan is plain data: `inspect` prints it, and
//! [`Program`] runs it.

mod budget;
mod draft;
mod experts;
mod flow;
mod memory;
mod planner;

use std::ops::Range;
use std::sync::Arc;

use skipstone_kernels::Isa;

pub use crate::operator::Port;
pub use crate::options::Target;
pub use crate::tuning::{Measured, Timed, Tuning};
#[cfg(feature = "onnx")]
pub(crate) use budget::work;
pub use flow::{Arm, Branch, Flow, Move, Repeat};
pub use memory::{ALIGNMENT, ArenaLayout, Request};

pub(crate) use experts::{Experts, Forecast, Routing};

use crate::error::Result;
use crate::graph::{Graph, Removed};
use crate::operator::{BindContext, Choice, Execute, Io, Operands, Operator, Packing, Place};
use crate::ops::Op;
use crate::reserve;
use crate::tensor::{Fact, Tensor};

/// One kernel call, or a branch or loop over the steps after it.
#[derive(Clone)]
pub struct Step {
    /// The node's name.
    pub name: String,
    /// The operator, with its attributes.
    pub op: Op,
    /// The kernel and its packed weights.
    pub choice: Choice,
    /// The locations of its operands.
    pub operands: Operands,
    /// Facts of the inputs.
    pub inputs: Vec<Fact>,
    /// Facts of the results.
    pub outputs: Vec<Fact>,
    /// Multiply-adds of one run.
    pub macs: u64,
    /// Like [`Plan::work`].
    pub work: u64,
    /// What it does with the steps after it, if it is not a kernel call.
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
    /// Its initial value; zeros if absent.
    pub initial: Option<Arc<Tensor>>,
    /// For state, the position of the output that replaces it after every run; `None` for a setting.
    pub next: Option<usize>,
}

/// A length of an output that only a run knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedLength {
    /// Position of the output.
    pub output: usize,
    /// Its axis.
    pub axis: usize,
    /// Where the run writes the length, an i64.
    pub place: Place,
}

/// A model laid out for one instruction set and one set of shapes.
#[derive(Clone)]
pub struct Plan {
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// Inputs given by the caller.
    pub inputs: Vec<Port>,
    /// Inputs held by the session; they follow the caller's inputs.
    pub variables: Vec<Variable>,
    /// Outputs returned to the caller, with the largest shapes that they can have.
    pub outputs: Vec<Port>,
    /// Lengths of outputs that only a run knows: the elements of such an output are the first of its place.
    pub lengths: Vec<PlannedLength>,
    /// Steps in order.
    pub steps: Vec<Step>,
    /// Constants that kernels read unpacked.
    pub constants: Vec<Arc<Tensor>>,
    /// Bytes of the arena.
    pub arena_bytes: usize,
    /// Largest number of bytes alive at one step: no arena can be smaller.
    pub arena_lower_bound: usize,
    /// Work of one run, as [`Limits`](crate::Limits) count it.
    pub work: u64,
    /// Why the graph was planned unoptimized, if it was.
    pub warning: Option<String>,
    /// Channels removed from weights because they are zero; a package lists them in its metadata.
    pub removed: Vec<Removed>,
}

impl Plan {
    /// Plans `graph` for `target`. Weights are released one by one as they are packed, so that both forms of all of
    /// them never exist at the same time.
    ///
    /// # Errors
    /// A step that no kernel supports, with the node's name.
    pub fn new(graph: Graph, target: Target) -> Result<Self> {
        Self::with(graph, target, &[], None)
    }

    /// Like [`new`](Self::new), with the weights of some nodes already packed: `packings[i]` is for node `i` of the
    /// walk through the graph, including blocks. With a tuning, it decides the choice of kernels, and every choice
    /// lists its candidates.
    ///
    /// # Errors
    /// As for [`new`](Self::new); `package.target` if the weights were packed for a kernel that cannot run the node.
    pub(crate) fn with(
        graph: Graph,
        target: Target,
        packings: &[Option<Packing>],
        tuning: Option<&Tuning>,
    ) -> Result<Self> {
        planner::Planner::new(graph, target, packings, tuning)?.plan()
    }

    /// Whether the shape of an output is only known after a run.
    #[must_use]
    pub fn is_measured(&self, output: usize) -> bool {
        self.lengths.iter().any(|length| length.output == output)
    }

    /// Copies constants out of the file that they are a part of.
    ///
    /// # Errors
    /// Not enough memory.
    pub(crate) fn detach(&mut self) -> Result<()> {
        let initial = self.variables.iter_mut().filter_map(|variable| variable.initial.as_mut());
        for tensor in self.constants.iter_mut().chain(initial) {
            *tensor = Arc::new(tensor.detached().map_err(|e| e.at("graph"))?);
        }
        Ok(())
    }

    /// Multiply-adds of the [most expensive](Self::most) run.
    #[must_use]
    pub fn macs(&self) -> u64 {
        self.most(&|step| step.macs)
    }

    /// The sum of a number of every step in the most expensive run: of two branches, the one with more multiply-adds
    /// runs, and a loop has one iteration.
    #[must_use]
    pub fn most(&self, of: &dyn Fn(&Step) -> u64) -> u64 {
        self.sums(0..self.steps.len(), of)[1]
    }

    /// The sums of multiply-adds and of a number of every step, over some steps.
    fn sums(&self, steps: Range<usize>, of: &dyn Fn(&Step) -> u64) -> [u64; 2] {
        let (mut sums, mut at) = ([0u64; 2], steps.start);
        while let Some(step) = self.steps.get(at).filter(|_| at < steps.end) {
            let inner = match step.flow.as_deref() {
                None => [0; 2],
                Some(Flow::Repeat(repeat)) => self.sums(repeat.body.clone(), of),
                Some(Flow::Branch(Branch { then, otherwise, .. })) => {
                    let [then, otherwise] = [then, otherwise].map(|arm| self.sums(arm.steps.clone(), of));
                    if otherwise[0] > then[0] { otherwise } else { then }
                }
            };
            sums[0] = sums[0].saturating_add(step.macs).saturating_add(inner[0]);
            sums[1] = sums[1].saturating_add(of(step)).saturating_add(inner[1]);
            at = step.flow.as_ref().map_or(at + 1, |flow| flow.end());
        }
        sums
    }

    /// Bytes of packed weights; those that several steps share count once.
    #[must_use]
    pub fn packed_bytes(&self) -> usize {
        let packed = self.steps.iter().flat_map(|step| &step.choice.packed);
        let mut parts: Vec<_> = packed.map(|part| (part.as_ptr().addr(), part.len())).collect();
        parts.sort_unstable();
        parts.dedup();
        parts.iter().map(|(_, len)| len).sum()
    }

    /// Bytes of constants that kernels read unpacked.
    #[must_use]
    pub fn constant_bytes(&self) -> usize {
        self.constants.iter().map(|t| t.bytes().len()).sum()
    }
}

/// A Plan with resolved kernels, which any number of sessions can run at the same time.
pub struct Program {
    plan: Plan,
    executables: Vec<Box<dyn Execute>>,
    /// If they are kept within a budget.
    experts: Option<Experts>,
}

impl Program {
    /// Binds every step to its kernel.
    ///
    /// # Errors
    /// A kernel that this build does not have, with the node's name.
    pub fn new(plan: Plan) -> Result<Self> {
        let executables = plan.steps.iter().map(|step| {
            if step.flow.is_some() {
                let nothing: Box<dyn Execute> = Box::new(|_: &mut Io<'_, '_>| Ok(()));
                return Ok(nothing);
            }
            let constants = step.operands.inputs.iter().map(|place| match place {
                Place::Constant(i) => plan.constants.get(*i).map(AsRef::as_ref),
                Place::Input(_) | Place::Arena(_) => None,
            });
            let cx = BindContext {
                inputs: reserve::list(&step.inputs)?,
                outputs: reserve::list(&step.outputs)?,
                constants: reserve::list(constants)?,
                absorbed: &step.choice.absorbed,
                kernel: &step.choice.kernel,
                isa: plan.isa,
            };
            step.op.bind(&cx).map_err(|e| e.at(&step.name))
        });
        let executables = reserve::results(executables)?;
        Ok(Self { plan, executables, experts: None })
    }

    /// Keeps the weights of experts within this many bytes, with forecasts of those that will be needed.
    ///
    /// # Errors
    /// A budget below the largest expert, or experts that are not in a mapped package.
    pub(crate) fn keep_experts(&mut self, budget: u64, forecasts: &[Forecast]) -> Result<()> {
        self.experts = Experts::new(&self.plan, budget, forecasts)?;
        Ok(())
    }

    /// The experts, if they are kept within a budget.
    pub(crate) fn experts(&self) -> Option<&Experts> {
        self.experts.as_ref()
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
