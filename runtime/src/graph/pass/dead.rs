//! Dead code: nodes whose results nobody reads go.
//!
//! ```text
//! x -> Relu -> (nobody)        x
//!  \-> Conv -> output     =>    \-> Conv -> output
//! ```

use super::Graph;
use crate::error::Result;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let mut live = vec![false; graph.values().len()];
    for (_, id) in &graph.outputs {
        live[id.0] = true;
    }
    let mut keep = vec![false; graph.nodes.len()];
    for (index, node) in graph.nodes.iter().enumerate().rev() {
        if node.outputs.iter().any(|id| live[id.0]) {
            keep[index] = true;
            for id in &node.inputs {
                live[id.0] = true;
            }
        }
    }
    let mut keep = keep.into_iter();
    graph.nodes.retain(|_| keep.next().unwrap_or(true));
    graph.release_constants(&live);
    Ok(())
}
