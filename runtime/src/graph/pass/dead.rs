//! Dead code: removes nodes whose results are not read, in blocks too.
//!
//! ```text
//! x -> Relu -> (not read)      x
//!  \-> Conv -> output     =>    \-> Conv -> output
//! ```

use super::super::{Graph, Node};
use crate::error::Result;
use crate::reserve;

pub(super) fn run(graph: &mut Graph) -> Result<()> {
    let mut live = reserve::copies(false, graph.values().len())?;
    for (_, id) in &graph.outputs {
        live[id.0] = true;
    }
    let mut nodes = std::mem::take(&mut graph.nodes);
    sweep(&mut nodes, &mut live)?;
    graph.nodes = nodes;
    // A value that a block does not read may be read outside it.
    if graph.outer.is_empty() {
        graph.release_constants(&live);
    }
    Ok(())
}

/// Keeps the nodes with a live result, and marks what they read as live.
fn sweep(nodes: &mut Vec<Node>, live: &mut [bool]) -> Result<()> {
    let mut keep = reserve::copies(false, nodes.len())?;
    for (index, node) in nodes.iter_mut().enumerate().rev() {
        if node.outputs.iter().any(|id| live[id.0]) {
            keep[index] = true;
            for id in &node.inputs {
                live[id.0] = true;
            }
            for block in &mut node.blocks {
                block.results.iter().for_each(|id| live[id.0] = true);
                sweep(&mut block.nodes, live)?;
            }
        }
    }
    let mut keep = keep.into_iter();
    nodes.retain(|_| keep.next().unwrap_or(true));
    Ok(())
}
