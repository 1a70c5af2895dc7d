//! Topological order of the nodes of a graph, and the names that a subgraph captures from
//! enclosing graphs.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use crate::proto::{Graph, Node};
use crate::reserve::{self, NoMemory};

/// Why nodes have no order.
#[derive(Debug)]
pub enum Unordered {
    /// The node at this position is on a cycle.
    Cycle(usize),
    /// There is no memory to order them.
    Memory(NoMemory),
}

impl From<NoMemory> for Unordered {
    fn from(no_memory: NoMemory) -> Self {
        Self::Memory(no_memory)
    }
}

/// Positions of the nodes in topological order. The order of the file is kept where possible.
///
/// # Errors
/// A node on a cycle; no memory.
pub fn order(nodes: &[Node<'_>]) -> Result<Vec<usize>, Unordered> {
    let mut producers: HashMap<&str, usize> = HashMap::new();
    for (position, node) in nodes.iter().enumerate() {
        for name in node.outputs.iter().filter(|name| !name.is_empty()) {
            reserve::insert(&mut producers, *name, position)?;
        }
    }
    let mut consumers: Vec<Vec<usize>> = reserve::copies(Vec::new(), nodes.len())?;
    let mut waits_for: Vec<Vec<usize>> = reserve::copies(Vec::new(), nodes.len())?;
    for (position, (node, needs)) in nodes.iter().zip(&mut waits_for).enumerate() {
        let mut names = HashSet::new();
        for name in &node.inputs {
            reserve::add(&mut names, *name)?;
        }
        for graph in node.subgraphs() {
            for name in captures(graph)? {
                reserve::add(&mut names, name)?;
            }
        }
        for producer in names.into_iter().filter_map(|name| producers.get(name)) {
            reserve::push(needs, *producer)?;
            if let Some(consumers) = consumers.get_mut(*producer) {
                reserve::push(consumers, position)?;
            }
        }
    }
    let mut pending = reserve::list(waits_for.iter().map(Vec::len))?;
    let starts = (0..nodes.len()).filter(|i| pending.get(*i) == Some(&0)).map(Reverse);
    let mut ready = BinaryHeap::from(reserve::list(starts)?);
    let mut order = reserve::empty(nodes.len())?;
    while let Some(Reverse(position)) = ready.pop() {
        order.push(position);
        for consumer in consumers.get(position).into_iter().flatten() {
            if let Some(pending) = pending.get_mut(*consumer) {
                *pending -= 1;
                if *pending == 0 {
                    ready.try_reserve(1).map_err(|_| NoMemory(ready.len() + 1))?;
                    ready.push(Reverse(*consumer));
                }
            }
        }
    }
    if order.len() == nodes.len() {
        return Ok(order);
    }
    // Each pending node has a pending producer, so following producers leads into a cycle.
    let waiting = |i: &usize| pending.get(*i).is_some_and(|pending| *pending > 0);
    let mut seen = reserve::copies(false, nodes.len())?;
    let mut last = 0;
    let mut at = (0..nodes.len()).find(waiting);
    while let Some(position) = at
        && seen.get_mut(position).is_some_and(|seen| !std::mem::replace(seen, true))
    {
        last = position;
        at = waits_for.get(position).and_then(|needs| needs.iter().copied().find(waiting));
    }
    Err(Unordered::Cycle(at.unwrap_or(last)))
}

/// The names that a subgraph captures from enclosing graphs, sorted.
///
/// # Errors
/// No memory.
pub fn captures<'m>(graph: &Graph<'m>) -> Result<Vec<&'m str>, NoMemory> {
    let mut used = HashSet::new();
    for info in &graph.outputs {
        reserve::add(&mut used, info.name)?;
    }
    for node in &graph.nodes {
        for name in &node.inputs {
            reserve::add(&mut used, *name)?;
        }
        for inner in node.subgraphs() {
            for name in captures(inner)? {
                reserve::add(&mut used, name)?;
            }
        }
    }
    for info in &graph.inputs {
        used.remove(info.name);
    }
    for tensor in &graph.initializers {
        used.remove(tensor.name);
    }
    for sparse in &graph.sparse_initializers {
        used.remove(sparse.values.name);
    }
    for output in graph.nodes.iter().flat_map(|node| &node.outputs) {
        used.remove(output);
    }
    used.remove("");
    let mut used = reserve::list(used)?;
    used.sort_unstable();
    Ok(used)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node<'a>(inputs: &[&'a str], outputs: &[&'a str]) -> Node<'a> {
        Node { inputs: inputs.to_vec(), outputs: outputs.to_vec(), ..Node::default() }
    }

    #[test]
    fn a_sorted_file_keeps_its_order_and_another_is_sorted() {
        let chain = [node(&["x"], &["a"]), node(&["x"], &["b"]), node(&["a", "b"], &["c"])];
        assert_eq!(order(&chain).unwrap(), [0, 1, 2]);
        let backwards = [node(&["b"], &["c"]), node(&["a"], &["b"]), node(&["x"], &["a"])];
        assert_eq!(order(&backwards).unwrap(), [2, 1, 0]);
    }

    #[test]
    fn a_cycle_is_named_by_one_of_its_nodes() {
        let cycle = [node(&["x"], &["a"]), node(&["a", "d"], &["b"]), node(&["b"], &["d"]), node(&["d"], &["y"])];
        assert!(matches!(order(&cycle), Err(Unordered::Cycle(1 | 2))));
    }
}
