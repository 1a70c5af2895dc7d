//! Constant folding: evaluates a node whose inputs are all constants.
//!
//! ```text
//! constant -> Cast -> Reshape -> Conv    =>    constant -> Conv
//! ```
//!
//! The importer folds what it needs for shapes; this pass folds the rest. Results beyond a total budget of bytes and
//! work stay nodes, so that a few bytes of model cannot demand gigabytes or minutes here.

use std::sync::Arc;

use super::super::Graph;
use crate::error::Result;
use crate::operator::{Operator, Semantics};
use crate::ops::Op;
use crate::reserve;
use crate::tensor::Tensor;

/// Budget for all results together, in bytes, in addition to a multiple of the graph's constants.
const BYTES: usize = 64 << 20;
/// Budget per byte of the graph's constants: enough for 8-bit constants converted to f32 twice.
const PER_BYTE: usize = 8;

/// Budget of work for all folded nodes together, in addition to a multiple of the bytes above: plain evaluation does
/// about 10^8 steps per second.
const WORK: u64 = 1 << 26;

/// Like [`run`], including dequantized weights.
pub(super) fn dequantized(graph: &mut Graph) -> Result<()> {
    fold(graph, |_| true)
}

/// Leaves dequantized weights to the pass that computes with their bytes.
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
        // If the evaluation fails, the run will report the error with the node's name.
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
            None => reserve::push(&mut graph.nodes, node)?,
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
    fn folding_does_not_grow_a_constant_without_bound() {
        let mut graph = Graph::new();
        let c = graph.add_constant("c", Tensor::scalar(1f32)).unwrap();
        let shape = Shape::new(&[BYTES / 4 + 16]).unwrap();
        let y = graph.add_node("expand", crate::ops::broadcast::Expand { shape }, &[c]).unwrap()[0];
        graph.outputs.push(("y".into(), y));
        run(&mut graph).unwrap();
        assert_eq!(graph.nodes.len(), 1);
    }

    #[test]
    fn a_reshaped_constant_is_a_constant() {
        let mut graph = Graph::new();
        let c = graph.add_constant("c", Tensor::from_slice(&[4], &[1.0f32, 2.0, 3.0, 4.0]).unwrap()).unwrap();
        let shape = Shape::new(&[2, 2]).unwrap();
        let y = graph.add_node("reshape", Reshape { shape }, &[c]).unwrap()[0];
        graph.outputs.push(("y".into(), y));
        run(&mut graph).unwrap();
        assert!(graph.nodes.is_empty());
        assert_eq!(graph.constant(y).unwrap().shape().dims(), [2, 2]);
    }
}
