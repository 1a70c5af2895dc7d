//! Constant folding: a node whose inputs are all constants is evaluated now.
//!
//! ```text
//! constant -> Cast -> Reshape -> Conv    =>    constant -> Conv
//! ```
//!
//! The front end folds what it needs for shapes; this takes what it leaves. Results above a
//! budget in all, of bytes and of work, stay nodes, so that a few bytes of model cannot ask for
//! gigabytes or minutes here.

use std::sync::Arc;

use super::super::Graph;
use crate::error::Result;
use crate::operator::{Operator, Semantics};
use crate::ops::Op;
use crate::tensor::Tensor;

/// All results together, in bytes, beside a multiple of what the constants of the graph take.
const BYTES: usize = 64 << 20;
/// And how many bytes for each of theirs: bytes that become f32, twice.
const PER_BYTE: usize = 8;

/// Most work of all nodes that are folded together, beside a multiple of the bytes above: plain evaluation does some
/// 10^8 steps a second.
const WORK: u64 = 1 << 26;

/// As [`run`], weights that are dequantized included.
pub(super) fn dequantized(graph: &mut Graph) -> Result<()> {
    fold(graph, |_| true)
}

/// Leaves weights that are dequantized to the pass that computes with their bytes.
pub(super) fn run(graph: &mut Graph) -> Result<()> {
    fold(graph, |op| !matches!(op, Op::Dequantize(_)))
}

fn fold(graph: &mut Graph, takes: fn(&Op) -> bool) -> Result<()> {
    let nodes = std::mem::take(&mut graph.nodes);
    let held: usize = graph.values().iter().filter_map(|v| v.constant.as_ref()).map(|t| t.fact().bytes()).sum();
    let grown = held.saturating_mul(PER_BYTE);
    let (mut left, mut work_left) = (BYTES.saturating_add(grown), WORK.saturating_add(grown as u64));
    for node in nodes {
        let bytes: usize = graph.facts(&node.outputs).iter().map(|f| f.bytes()).sum();
        let inputs: Option<Vec<Arc<Tensor>>> = node.inputs.iter().map(|&id| graph.constant(id).cloned()).collect();
        let work = node.op.work(&graph.facts(&node.inputs), &graph.facts(&node.outputs));
        let allowed = takes(&node.op) && !matches!(node.op, Op::Foreign(_));
        let inputs = inputs.filter(|_| bytes <= left && work <= work_left && allowed);
        // What cannot be evaluated is said when it is run, with the node's name.
        let results = inputs.and_then(|inputs| {
            let inputs: Vec<&Tensor> = inputs.iter().map(AsRef::as_ref).collect();
            node.op.evaluate(&inputs).ok()
        });
        match results {
            Some(results) => {
                left -= bytes;
                work_left -= work;
                for (&id, tensor) in node.outputs.iter().zip(results) {
                    graph.set_constant(id, tensor);
                }
            }
            None => graph.nodes.push(node),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::reshape::Reshape;
    use crate::tensor::Shape;

    #[test]
    fn a_small_constant_may_not_grow_without_bound() {
        let mut graph = Graph::new();
        let c = graph.add_constant("c", Tensor::scalar(1f32));
        let shape = Shape::new(&[BYTES / 4 + 16]).unwrap();
        let y = graph.add_node("expand", crate::ops::broadcast::Expand { shape }, &[c]).unwrap()[0];
        graph.outputs.push(("y".into(), y));
        run(&mut graph).unwrap();
        assert_eq!(graph.nodes.len(), 1);
    }

    #[test]
    fn a_reshaped_constant_is_a_constant() {
        let mut graph = Graph::new();
        let c = graph.add_constant("c", Tensor::from_slice(&[4], &[1.0f32, 2.0, 3.0, 4.0]).unwrap());
        let shape = Shape::new(&[2, 2]).unwrap();
        let y = graph.add_node("reshape", Reshape { shape }, &[c]).unwrap()[0];
        graph.outputs.push(("y".into(), y));
        run(&mut graph).unwrap();
        assert!(graph.nodes.is_empty());
        assert_eq!(graph.constant(y).unwrap().shape().dims(), [2, 2]);
    }
}
