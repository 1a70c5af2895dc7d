//! The Plan: which kernel runs when, on which bytes.
//!
//! Planning turns a Graph into a list of steps. Every step's kernel is chosen and its weights
//! are packed, once; every tensor gets its place in one arena, known before the first run. A
//! Plan is plain data: `inspect` prints it, a package stores it, [`Program`] makes it run.

mod memory;
#[cfg_attr(not(any(feature = "tuning", test)), allow(dead_code, reason = "only tuning uses it"))]
mod tuning;

use std::cell::RefCell;
use std::fmt;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skipstone_kernels::Isa;
use skipstone_kernels::arena::Slab;

pub use memory::{ALIGNMENT, Layout, Request};
pub use tuning::{Measured, Timed, Tuning};

use crate::error::{Error, Result};
use crate::graph::{Graph, Node, ValueId};
use crate::ops::{BindContext, Choice, Execute, Op, Operands, Operator, Packing, Place, PlanContext};
use crate::options::{Memory, Precision};
use crate::tensor::{Fact, Tensor};

/// What planning needs to know beside the graph.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Target {
    /// Instruction set to choose kernels for.
    pub isa: Isa,
    /// Threads the plan will be run with.
    pub threads: usize,
    /// Memory against speed.
    pub memory: Memory,
    /// How weights are stored.
    pub precision: Precision,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let memory = match self.memory {
            Memory::Fast => "fast",
            Memory::Small => "small",
        };
        let precision = match self.precision {
            Precision::F32 => "f32",
            Precision::F16 => "f16",
        };
        write!(f, "{}, threads {}, memory {memory}, precision {precision}", self.isa, self.threads)
    }
}

/// One kernel call.
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

/// A named tensor at the plan's edge.
#[derive(Clone, Debug)]
pub struct Port {
    /// Name of the model's input or output.
    pub name: String,
    /// Type and shape.
    pub fact: Fact,
    /// Where it lies.
    pub place: Place,
}

/// A model laid out for one instruction set and one set of shapes.
#[derive(Clone)]
pub struct Plan {
    /// Instruction set of the kernels.
    pub isa: Isa,
    /// What the caller gives.
    pub inputs: Vec<Port>,
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
    /// Why the graph was planned unoptimized, where it was.
    pub warning: Option<String>,
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

    /// As [`new`](Self::new), with the weights of some nodes packed already: `packings[i]` is for node `i`. Where there
    /// is a tuning, it has a say in what kernels are chosen, and every choice lists its candidates.
    ///
    /// # Errors
    /// As for [`new`](Self::new); `package.target` where the weights were packed for a kernel that the node cannot be
    /// run with.
    pub(crate) fn with(
        mut graph: Graph,
        target: Target,
        packings: &[Option<Packing>],
        tuning: Option<&Tuning>,
    ) -> Result<Self> {
        let roots = alias_roots(&graph);
        let slab = RefCell::new(Slab::new(match target.memory {
            Memory::Fast => graph.values().iter().filter_map(|v| v.constant.as_ref()).map(|t| t.bytes().len()).sum(),
            Memory::Small => 0,
        }));
        let nodes = std::mem::take(&mut graph.nodes);
        let mut readers = readers(&graph, &nodes, &roots);
        let mut steps = Vec::with_capacity(graph.nodes.len());
        let mut requests: Vec<Request> = Vec::new();
        let mut request_of: Vec<Option<usize>> = vec![None; graph.values().len()];
        let mut scratch_of: Vec<Option<usize>> = Vec::new();

        for (index, node) in nodes.iter().enumerate() {
            let inputs = graph.facts(&node.inputs);
            if node.op.alias(&inputs).is_some() {
                continue;
            }
            let outputs = graph.facts(&node.outputs);
            let cx = PlanContext {
                constants: node.inputs.iter().map(|&id| constant(&graph, &roots, id)).collect(),
                packing: packings.get(index).and_then(Option::as_ref),
                tuning,
                slab: &slab,
                inputs: inputs.clone(),
                outputs: outputs.clone(),
                isa: target.isa,
                memory: target.memory,
                precision: target.precision,
                threads: target.threads,
            };
            let choice = node.op.plan(&cx).map_err(|e| e.at(&node.name))?;
            if let Some(packing) = cx.packing {
                packing.check(&choice, &node.name)?;
            }
            for &position in &choice.absorbed {
                let Some(root) = node.inputs.get(position).map(|id| roots[id.0]) else { continue };
                readers[root.0] -= 1;
                if readers[root.0] == 0 {
                    graph.release_constant(root);
                }
            }
            let outputs = graph.facts(&node.outputs);
            let at = steps.len();
            for (&id, fact) in node.outputs.iter().zip(&outputs) {
                request_of[id.0] = Some(requests.len());
                requests.push(Request { bytes: fact.bytes(), first: at, last: at });
            }
            for (position, &id) in node.inputs.iter().enumerate() {
                if !choice.absorbed.contains(&position)
                    && let Some(request) = request_of[roots[id.0].0]
                {
                    requests[request].last = at;
                }
            }
            scratch_of.push((choice.scratch > 0).then(|| {
                requests.push(Request { bytes: choice.scratch, first: at, last: at });
                requests.len() - 1
            }));
            steps.push((node, choice));
        }
        for (_, id) in &graph.outputs {
            if let Some(request) = request_of[roots[id.0].0] {
                requests[request].last = steps.len();
            }
        }

        let layout = memory::place(&requests);
        let mut constants = Constants { indices: vec![None; roots.len()], tensors: Vec::new() };
        let mut given = vec![None; roots.len()];
        graph.inputs.iter().enumerate().for_each(|(at, id)| given[id.0] = Some(at));
        let mut place = |id: ValueId| -> Result<Place> {
            let root = roots[id.0];
            if let Some(request) = request_of[root.0] {
                return Ok(Place::Arena(layout.range(request, requests[request].bytes)));
            }
            if let Some(index) = given[root.0] {
                return Ok(Place::Input(index));
            }
            let tensor = graph.constant(root);
            let tensor = tensor.ok_or_else(|| Error::Internal(format!("nothing writes value {}", root.0)))?;
            Ok(Place::Constant(constants.index(root, tensor)))
        };

        let inputs = graph
            .inputs
            .iter()
            .enumerate()
            .map(|(i, &id)| Port {
                name: graph.value(id).name.clone(),
                fact: graph.fact(id).clone(),
                place: Place::Input(i),
            })
            .collect();
        let outputs = graph
            .outputs
            .iter()
            .map(|(name, id)| Ok(Port { name: name.clone(), fact: graph.fact(*id).clone(), place: place(*id)? }))
            .collect::<Result<_>>()?;
        let steps = steps
            .into_iter()
            .zip(scratch_of)
            .map(|((node, choice), scratch)| {
                let mut operands = Operands { outputs: node.outputs.len(), ..Operands::default() };
                for (position, &id) in node.inputs.iter().enumerate() {
                    let absorbed = choice.absorbed.contains(&position);
                    operands.inputs.push(if absorbed { Place::Arena(0..0) } else { place(id)? });
                }
                let written = node.outputs.iter().filter_map(|id| request_of[id.0]).chain(scratch);
                operands.writes = written.map(|r| layout.range(r, requests[r].bytes)).collect();
                let (inputs, outputs) = (graph.facts(&node.inputs), graph.facts(&node.outputs));
                Ok(Step {
                    name: node.name.clone(),
                    macs: node.op.macs(&inputs, &outputs),
                    inputs: inputs.into_iter().cloned().collect(),
                    outputs: outputs.into_iter().cloned().collect(),
                    op: node.op.clone(),
                    choice,
                    operands,
                })
            })
            .collect::<Result<_>>()?;
        Ok(Self {
            isa: target.isa,
            inputs,
            outputs,
            steps,
            constants: constants.tensors,
            arena_bytes: layout.bytes,
            arena_lower_bound: layout.lower_bound,
            warning: None,
        })
    }

    /// Takes constants out of the file that they are a part of.
    pub(crate) fn detach(&mut self) {
        for tensor in &mut self.constants {
            *tensor = Arc::new(tensor.detached());
        }
    }

    /// Multiply-adds of one run.
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

/// For every value, the value whose bytes it shares: itself, but for the results of aliases.
fn alias_roots(graph: &Graph) -> Vec<ValueId> {
    let mut roots: Vec<ValueId> = (0..graph.values().len()).map(ValueId).collect();
    for node in &graph.nodes {
        if let (Some(input), [output]) = (node.op.alias(&graph.facts(&node.inputs)), node.outputs.as_slice())
            && let Some(source) = node.inputs.get(input)
        {
            roots[output.0] = roots[source.0];
        }
    }
    roots
}

/// For every value, how often it or an alias of it is read, by nodes or as an output.
fn readers(graph: &Graph, nodes: &[Node], roots: &[ValueId]) -> Vec<usize> {
    let mut readers = vec![0; roots.len()];
    let read = nodes.iter().flat_map(|node| &node.inputs).chain(graph.outputs.iter().map(|(_, id)| id));
    read.for_each(|id| readers[roots[id.0].0] += 1);
    readers
}

/// The data of a value that is a constant; an alias of one has other dimensions, and is not.
fn constant<'a>(graph: &'a Graph, roots: &[ValueId], id: ValueId) -> Option<&'a Tensor> {
    (roots[id.0] == id).then(|| graph.constant(id)).flatten().map(AsRef::as_ref)
}

/// Constants in order of first use, each once.
struct Constants {
    /// By value, its position.
    indices: Vec<Option<usize>>,
    tensors: Vec<Arc<Tensor>>,
}

impl Constants {
    fn index(&mut self, id: ValueId, tensor: &Arc<Tensor>) -> usize {
        *self.indices[id.0].get_or_insert_with(|| {
            self.tensors.push(tensor.clone());
            self.tensors.len() - 1
        })
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

    /// Steps with their executables, in order.
    pub(crate) fn steps(&self) -> impl Iterator<Item = (&Step, &dyn Execute)> {
        self.plan.steps.iter().zip(self.executables.iter().map(AsRef::as_ref))
    }
}
