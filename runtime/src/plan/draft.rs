//! Draft steps, whose operands get their places once all requests are known.

use std::sync::Arc;

use skipstone_reserve::NoMemory;

use super::flow::{Arm, Branch, Flow, Move, Repeat};
use super::planner::Planner;
use super::{Plan, PlannedLength, Port, Step, Variable, memory};
use crate::error::{Error, Result};
use crate::graph::{Node, OutputLength, ValueId};
use crate::operator::{Choice, Operands, Operator, Place};
use crate::ops::control::{Loop, Slices};
use crate::reserve;
use crate::tensor::Tensor;

/// A step whose operands have no places yet.
pub(super) struct Draft {
    pub node: Node,
    pub choice: Choice,
    pub scratch: Option<usize>,
    pub flow: Option<FlowDraft>,
}

/// Like [`Flow`], with values and requests instead of places.
pub(super) enum FlowDraft {
    Branch { condition: ValueId, arms: [ArmDraft; 2] },
    Repeat(Box<RepeatDraft>),
}

/// The first step after the branch, and results to be moved to requests.
pub(super) struct ArmDraft {
    pub end: usize,
    pub moves: Vec<(ValueId, usize)>,
}

pub(super) struct RepeatDraft {
    pub op: Loop,
    pub end: usize,
    /// Of the iteration's number and its condition.
    pub parameters: [usize; 2],
    /// The first result.
    pub goes_on: ValueId,
    pub start: Vec<(ValueId, usize)>,
    pub scanned: Vec<(ValueId, usize, Slices)>,
    pub collected: Vec<(ValueId, usize, Slices)>,
    pub next: Vec<Draw>,
}

/// A move after an iteration.
pub(super) enum Draw {
    /// From a value to a request,
    Value(ValueId, usize),
    /// or between requests.
    Request(usize, usize),
}

impl Planner<'_> {
    /// Places everything.
    pub fn finish(self) -> Result<Plan> {
        let Self { graph, target, values, requests, steps: drafts, work, .. } = self;
        let layout = memory::place(&requests)?;
        let mut constants = Constants { indices: reserve::copies(None, values.len())?, tensors: Vec::new() };
        let mut given = reserve::copies(None, values.len())?;
        graph.inputs.iter().enumerate().for_each(|(at, id)| given[id.0] = Some(at));
        let range = |request: usize| layout.range(request, requests[request].bytes);
        let mut place = |id: ValueId| -> Result<Place> {
            let root = values[id.0].root;
            if let Some(request) = values[root.0].request {
                return Ok(Place::Arena(range(request)));
            }
            if let Some(index) = given[root.0] {
                return Ok(Place::Input(index));
            }
            let tensor = graph.constant(root);
            let tensor = tensor.ok_or_else(|| Error::Internal(format!("nothing writes value {}", root.0)))?;
            Ok(Place::Constant(constants.index(root, tensor)?))
        };

        let inputs = graph.inputs.iter().enumerate().map(|(i, &id)| Port {
            name: graph.value(id).name.clone(),
            fact: graph.fact(id).clone(),
            place: Place::Input(i),
        });
        let mut inputs: Vec<Port> = reserve::list(inputs)?;
        let held = inputs.drain(inputs.len().saturating_sub(graph.variables.len())..);
        let variables = held.zip(&graph.variables).map(|(port, variable)| Variable {
            port,
            initial: variable.initial.clone(),
            next: variable.next,
        });
        let variables = reserve::list(variables)?;
        let outputs = graph.outputs.iter().map(|(name, id)| {
            Ok::<_, Error>(Port { name: name.clone(), fact: graph.fact(*id).clone(), place: place(*id)? })
        });
        let mut outputs = reserve::results(outputs)?;
        let lengths = outputs.split_off(outputs.len().saturating_sub(graph.lengths.len()));
        let lengths =
            lengths.into_iter().zip(&graph.lengths).map(|(port, &OutputLength { output, axis })| match port.place {
                Place::Input(_) => Err(Error::Unsupported {
                    node: "graph".into(),
                    reason: "the length of an output is an input, which nothing checks".into(),
                }),
                place => Ok(PlannedLength { output, axis, place }),
            });
        let lengths = reserve::results(lengths)?;
        let mut steps = reserve::empty(drafts.len())?;
        for (at, Draft { node, choice, scratch, flow }) in drafts.into_iter().enumerate() {
            let mut operands = Operands { outputs: node.outputs.len(), ..Operands::default() };
            for (position, &id) in node.inputs.iter().enumerate() {
                let absorbed = choice.absorbed.contains(&position);
                let place = if absorbed { Place::Arena(0..0) } else { place(id)? };
                reserve::push(&mut operands.inputs, place)?;
            }
            let written = node.outputs.iter().filter_map(|id| values[id.0].request).chain(scratch);
            operands.writes = reserve::list(written.map(range))?;
            let flow = flow.map(|flow| flow.placed(at, &operands, &mut place, &range)).transpose()?.map(Box::new);
            let (inputs, outputs) = (graph.facts(&node.inputs), graph.facts(&node.outputs));
            steps.push(Step {
                macs: node.op.macs(&inputs, &outputs),
                work: node.op.work(&inputs, &outputs),
                inputs: reserve::list(inputs.into_iter().cloned())?,
                outputs: reserve::list(outputs.into_iter().cloned())?,
                name: node.name,
                op: node.op,
                choice,
                operands,
                flow,
            });
        }
        Ok(Plan {
            isa: target.isa,
            inputs,
            variables,
            outputs,
            lengths,
            steps,
            constants: constants.tensors,
            arena_bytes: layout.bytes,
            arena_lower_bound: layout.lower_bound,
            work,
            warning: None,
            removed: Vec::new(),
        })
    }
}

impl FlowDraft {
    /// Replaces values and requests by places; the step is at index `at`.
    fn placed(
        self,
        at: usize,
        operands: &Operands,
        place: &mut dyn FnMut(ValueId) -> Result<Place>,
        range: &dyn Fn(usize) -> std::ops::Range<usize>,
    ) -> Result<Flow> {
        match self {
            Self::Branch { condition, arms: [then, otherwise] } => {
                let mut arm = |start: usize, arm: ArmDraft| -> Result<Arm> {
                    let moves = arm.moves.into_iter().map(|(id, to)| Ok(Move { from: place(id)?, to: range(to) }));
                    Ok(Arm { steps: start..arm.end, moves: reserve::results::<_, Error>(moves)? })
                };
                let middle = then.end;
                let (then, otherwise) = (arm(at + 1, then)?, arm(middle, otherwise)?);
                Ok(Flow::Branch(Branch { condition: place(condition)?, then, otherwise }))
            }
            Self::Repeat(draft) => {
                let RepeatDraft { op, end, parameters, goes_on, start, scanned, collected, next } = *draft;
                let mut moved = |(id, to): (ValueId, usize)| Ok::<_, Error>(Move { from: place(id)?, to: range(to) });
                let start = reserve::results(start.into_iter().map(&mut moved))?;
                let next = next.into_iter().map(|draw| match draw {
                    Draw::Value(id, to) => moved((id, to)),
                    Draw::Request(from, to) => Ok(Move { from: Place::Arena(range(from)), to: range(to) }),
                });
                let next = reserve::results(next)?;
                let mut cut =
                    |(id, to, slices): (ValueId, usize, Slices)| Ok::<_, Error>((place(id)?, range(to), slices));
                let scanned = reserve::results(scanned.into_iter().map(&mut cut))?;
                let collected = reserve::results(collected.into_iter().map(&mut cut))?;
                let given = |held: bool, at: usize| if held { operands.inputs.get(at).cloned() } else { None };
                Ok(Flow::Repeat(Repeat {
                    body: at + 1..end,
                    iterations: op.iterations,
                    limit: given(op.limited, 0),
                    begins: given(op.conditional, usize::from(op.limited)),
                    number: range(parameters[0]),
                    condition: range(parameters[1]),
                    start,
                    scanned,
                    goes_on: place(goes_on)?,
                    collected,
                    next,
                }))
            }
        }
    }
}

/// Constants in order of first use, without duplicates.
struct Constants {
    /// The position of each value.
    indices: Vec<Option<usize>>,
    tensors: Vec<Arc<Tensor>>,
}

impl Constants {
    fn index(&mut self, id: ValueId, tensor: &Arc<Tensor>) -> Result<usize, NoMemory> {
        if let Some(index) = self.indices[id.0] {
            return Ok(index);
        }
        reserve::push(&mut self.tensors, tensor.clone())?;
        Ok(*self.indices[id.0].insert(self.tensors.len() - 1))
    }
}
