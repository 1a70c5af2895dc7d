//! Constant folding: a node whose inputs are all constants is evaluated now.
//!
//! ```text
//! constant -> Cast -> Reshape -> Conv    =>    constant -> Conv
//! ```
//!
//! The front end folds what it needs for shapes; this takes what it leaves. Results above a
//! limit stay nodes, so that a few bytes of model cannot ask for gigabytes here.

use std::sync::Arc;

use super::super::Graph;
use crate::error::Result;
use crate::ops::{Op, Operator};
use crate::tensor::Tensor;

/// Largest result that is folded, in bytes.
const LIMIT: usize = 256 << 20;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let nodes = std::mem::take(&mut graph.nodes);
    for node in nodes {
        let bytes: usize = graph.facts(&node.outputs).iter().map(|f| f.bytes()).sum();
        let inputs: Option<Vec<Arc<Tensor>>> = node.inputs.iter().map(|&id| graph.constant(id).cloned()).collect();
        let inputs = inputs.filter(|_| bytes <= LIMIT && !matches!(node.op, Op::Foreign(_)));
        // What cannot be evaluated is said when it is run, with the node's name.
        let results = inputs.and_then(|inputs| {
            let inputs: Vec<&Tensor> = inputs.iter().map(AsRef::as_ref).collect();
            node.op.evaluate(&inputs).ok()
        });
        match results {
            Some(results) => {
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
