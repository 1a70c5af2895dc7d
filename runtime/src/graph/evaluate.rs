//! Plain evaluation: runs a graph node by node with the operators' reference evaluation. Slow, and the reference that
//! plans are tested against.

use std::sync::Arc;

use super::{Block, Graph, Node, ValueId};
use crate::error::{Error, OpError, Result};
use crate::operator::Semantics;
use crate::ops::Op;
use crate::ops::control::{Control, Loop, Slices};
use crate::tensor::{DType, Fact, Tensor};

/// Most iterations of a loop that does not end otherwise.
const MAX_ITERATIONS: usize = 1 << 20;

/// The values computed so far.
type Computed = Vec<Option<Arc<Tensor>>>;

impl Graph {
    /// Runs the graph node by node with the operators' plain evaluation.
    ///
    /// # Errors
    /// An operator's error, with the node's name.
    pub fn evaluate(&self, inputs: &[Tensor]) -> Result<Vec<Tensor>> {
        let mut computed: Computed = self.values.iter().map(|v| v.constant.clone()).collect();
        for (id, tensor) in self.inputs.iter().zip(inputs) {
            computed[id.0] = Some(Arc::new(tensor.clone()));
        }
        self.run(&self.nodes, &mut computed)?;
        self.outputs.iter().map(|&(_, id)| Ok(get(&computed, id)?.as_ref().clone())).collect()
    }

    fn run(&self, nodes: &[Node], computed: &mut Computed) -> Result<()> {
        for node in nodes {
            let operands: Vec<Arc<Tensor>> = node.inputs.iter().map(|&id| get(computed, id)).collect::<Result<_>>()?;
            let at = |e: OpError| e.at(&node.name);
            let results = match (&node.op, node.blocks.as_slice()) {
                (Op::Control(Control::If), [then, otherwise]) => {
                    let taken = if truth(operands.first())? { then } else { otherwise };
                    self.run(&taken.nodes, computed)?;
                    taken.results.iter().map(|&id| get(computed, id)).collect::<Result<_>>()?
                }
                (Op::Control(Control::Loop(op)), [body]) => self.repeat(node, op, body, &operands, computed)?,
                _ => {
                    let operands: Vec<&Tensor> = operands.iter().map(AsRef::as_ref).collect();
                    node.op.evaluate(&operands).map_err(at)?.into_iter().map(Arc::new).collect()
                }
            };
            for (id, tensor) in node.outputs.iter().zip(results) {
                computed[id.0] = Some(tensor);
            }
        }
        Ok(())
    }

    fn repeat(
        &self,
        node: &Node,
        op: &Loop,
        body: &Block,
        operands: &[Arc<Tensor>],
        computed: &mut Computed,
    ) -> Result<Vec<Arc<Tensor>>> {
        let (given, rest) = operands.split_at(op.first_carried());
        let (carried, scanned) = rest.split_at(op.carried);
        let mut carried = carried.to_vec();
        let limit = given.first().filter(|_| op.limited).and_then(|limit| limit.elements::<i64>()?.first().copied());
        let limit = limit.map_or(usize::MAX, |limit| usize::try_from(limit).unwrap_or(0));
        let limit = limit.min(op.iterations.unwrap_or(usize::MAX));
        let mut goes_on = if op.conditional { truth(given.last())? } else { true };
        let collected = node.outputs.iter().skip(op.carried).map(|&id| Tensor::try_zeros(self.fact(id).clone()));
        let mut collected = collected.collect::<Result<Vec<_>, _>>().map_err(|e| e.at(&node.name))?;
        let mut iteration = 0;
        while goes_on && iteration < limit {
            if iteration == MAX_ITERATIONS {
                return Err(OpError::Value("the loop does not end".into()).at(&node.name));
            }
            let number = Arc::new(bytes(self.fact(body.parameters[0]), &(iteration as i64).to_le_bytes())?);
            let go = Arc::new(bytes(self.fact(body.parameters[1]), &[1])?);
            let mut parameters = vec![number, go];
            parameters.extend(carried.iter().cloned());
            for ((whole, along), &id) in
                scanned.iter().zip(&op.scanned).zip(body.parameters.iter().skip(2 + op.carried))
            {
                let mut slice = vec![0; self.fact(id).bytes()];
                let slices = along.slices(whole.fact());
                slices.of(iteration).for_each(|(from, to)| copy(whole.bytes(), from, &mut slice, to, slices));
                parameters.push(Arc::new(bytes(self.fact(id), &slice)?));
            }
            for (id, tensor) in body.parameters.iter().zip(parameters) {
                computed[id.0] = Some(tensor);
            }
            self.run(&body.nodes, computed)?;
            let results: Vec<Arc<Tensor>> = body.results.iter().map(|&id| get(computed, id)).collect::<Result<_>>()?;
            goes_on = truth(results.first())?;
            carried = results.iter().skip(1).take(op.carried).cloned().collect();
            for ((whole, along), slice) in
                collected.iter_mut().zip(&op.collected).zip(results.iter().skip(1 + op.carried))
            {
                let slices = along.slices(whole.fact());
                let mut all = whole.bytes().to_vec();
                slices.of(iteration).for_each(|(to, from)| copy(slice.bytes(), from, &mut all, to, slices));
                *whole = bytes(&whole.fact().clone(), &all)?;
            }
            iteration += 1;
        }
        if !collected.is_empty() && Some(iteration) != op.iterations {
            return Err(OpError::Value(ended_early(iteration)).at(&node.name));
        }
        carried.extend(collected.into_iter().map(Arc::new));
        Ok(carried)
    }
}

/// The error of a loop that was ended by its condition and therefore has no result.
fn ended_early(iterations: usize) -> String {
    format!(
        "the loop ended after {iterations} iterations, but its collected results need a slice of every possible iteration"
    )
}

fn copy(from: &[u8], start: usize, to: &mut [u8], at: usize, slices: Slices) {
    to[at..at + slices.run].copy_from_slice(&from[start..start + slices.run]);
}

fn bytes(fact: &Fact, bytes: &[u8]) -> Result<Tensor> {
    Tensor::from_bytes(fact.clone(), bytes).map_err(|e| e.at("loop"))
}

fn get(computed: &Computed, id: ValueId) -> Result<Arc<Tensor>> {
    computed[id.0].clone().ok_or_else(|| Error::Internal(format!("value {} was never computed", id.0)))
}

fn truth(condition: Option<&Arc<Tensor>>) -> Result<bool> {
    let condition = condition.filter(|c| c.dtype() == DType::Bool).and_then(|c| c.bytes().first().copied());
    condition.map(|byte| byte != 0).ok_or_else(|| Error::Internal("a condition is not a bool".into()))
}
