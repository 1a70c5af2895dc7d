//! Constants behind nodes that are not computed at once, because they are large, or weights that kernels may want
//! quantized.
//!
//! Most operators read such a value from its node, and a pass may compute it later. Operators that need the data while
//! they are imported, such as mixtures of experts whose f16 weights go through a Cast, have it computed here.

use std::collections::HashMap;
use std::sync::Arc;

use skipstone_reserve::NoMemory;

use super::build::{Build, Halt};
use crate::graph::{Node, ValueId};
use crate::limits;
use crate::operator::{Operator, Semantics};
use crate::ops::Op;
use crate::reserve;
use crate::tensor::Tensor;

/// Values that follow from constants alone.
#[derive(Default)]
pub(super) struct Deferred {
    /// The operators that compute them, and their operands.
    nodes: HashMap<ValueId, (Op, Vec<ValueId>)>,
    /// Those that were computed, and the constants that they became.
    computed: HashMap<ValueId, ValueId>,
    /// Total work of computing them.
    work: u64,
}

impl Build {
    /// Whether a value is not a constant, but follows from constants alone.
    pub fn is_deferred(&self, id: ValueId) -> bool {
        self.deferred.nodes.contains_key(&id)
    }

    /// Remembers a node that was added, if all its operands are constants or follow from some.
    pub fn defer(&mut self, node: &Node) -> Result<(), NoMemory> {
        let known = |&id: &ValueId| self.graph.constant(id).is_some() || self.is_deferred(id);
        let plain = node.blocks.is_empty() && !matches!(node.op, Op::Foreign(_));
        // Operators with several results reduce or reorder something, which no exporter does with weights.
        if let (&[result], true) = (node.outputs.as_slice(), plain && node.inputs.iter().all(known)) {
            let operands = reserve::list(node.inputs.iter().copied())?;
            reserve::insert(&mut self.deferred.nodes, result, (node.op.clone(), operands))?;
        }
        Ok(())
    }

    /// The constant that a value is, or follows from constants to be, for the node `name`; otherwise the value. It
    /// counts as one that an importer makes.
    pub fn computed(&mut self, id: ValueId, name: &str) -> Result<ValueId, Halt> {
        if let Some(&known) = self.deferred.computed.get(&id) {
            return Ok(known);
        }
        if !self.is_deferred(id) {
            return Ok(id);
        }
        let mut held: HashMap<ValueId, Arc<Tensor>> = HashMap::new();
        let (mut order, mut bytes) = (vec![id], 0u64);
        while let Some(&next) = order.last() {
            let Some((op, inputs)) = self.deferred.nodes.get(&next).filter(|_| !held.contains_key(&next)) else {
                order.pop();
                continue;
            };
            let missing = inputs.iter().find(|&id| self.graph.constant(*id).is_none() && !held.contains_key(id));
            if let Some(&missing) = missing {
                reserve::push(&mut order, missing)?;
                continue;
            }
            let facts = self.graph.facts(&[next]);
            bytes = facts.iter().fold(bytes, |sum, fact| sum.saturating_add(fact.bytes() as u64));
            let work = self.deferred.work.saturating_add(op.work(&self.graph.facts(inputs), &facts));
            self.check_made(bytes)?;
            limits::check_fixed("steps to compute constants for its operators", work, self.most_work())?;
            self.deferred.work = work;
            let operands = inputs.iter().filter_map(|id| self.graph.constant(*id).or_else(|| held.get(id)));
            let operands: Vec<Arc<Tensor>> = reserve::list(operands.cloned())?;
            let operands: Vec<&Tensor> = reserve::list(operands.iter().map(AsRef::as_ref))?;
            operands.iter().try_for_each(|operand| operand.align()).map_err(|e| self.at(name, e))?;
            let results = op.evaluate(&operands).map_err(|e| self.at(name, e))?;
            if let Some(result) = results.into_iter().next() {
                reserve::insert(&mut held, next, Arc::new(result))?;
            }
            order.pop();
        }
        let Some(tensor) = held.remove(&id) else { return Ok(id) };
        self.count_made(tensor.fact())?;
        let half = self.half(id);
        let constant = self.graph.add_constant(format!("{name}.constant"), tensor)?;
        self.declare(constant, half)?;
        reserve::insert(&mut self.deferred.computed, id, constant)?;
        Ok(constant)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::broadcast::Expand;
    use crate::ops::cast::Cast;
    use crate::tensor::{DType, Shape};

    fn expanded(build: &mut Build, count: usize) -> ValueId {
        let one = build.graph.add_constant("one", Tensor::scalar(1f64)).unwrap();
        let shape = Shape::new(&[count]).unwrap();
        build.add("expand", Expand { shape }.into(), &[one]).ok().unwrap()[0]
    }

    #[test]
    fn a_large_constant_behind_nodes_is_computed_once() {
        let mut build = Build::of_file(0, false);
        let wide = expanded(&mut build, 1 << 17);
        let id = build.add("cast", Cast { to: DType::F32 }.into(), &[wide]).ok().unwrap()[0];
        assert!(build.graph.constant(id).is_none() && build.is_deferred(id));
        let constant = build.computed(id, "node").ok().unwrap();
        let held = build.graph.constant(constant).unwrap().elements::<f32>().unwrap();
        assert!(held.len() == 1 << 17 && held.iter().all(|&v| v == 1.0));
        assert_eq!(build.computed(id, "node").ok().unwrap(), constant);
    }

    /// Also what is only needed on the way to it.
    #[test]
    fn the_bytes_of_a_computed_constant_are_limited() {
        let mut build = Build::of_file(0, false);
        let wide = expanded(&mut build, 9 << 20);
        let id = build.add("cast", Cast { to: DType::Bool }.into(), &[wide]).ok().unwrap()[0];
        let Err(Halt::Error(error)) = build.computed(id, "node") else { panic!("it is larger than allowed") };
        assert_eq!(error.code(), "model.limit");
    }
}
