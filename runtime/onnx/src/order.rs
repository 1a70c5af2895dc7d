//! Topological order of the nodes of a graph, and the names that a subgraph captures from
//! enclosing graphs.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, HashSet};

use crate::proto::{Graph, Node};

/// Positions of the nodes in topological order. The order of the file is kept where possible.
///
/// # Errors
/// The position of a node on a cycle.
pub fn order(nodes: &[Node<'_>]) -> Result<Vec<usize>, usize> {
    let mut producers: HashMap<&str, usize> = HashMap::new();
    for (position, node) in nodes.iter().enumerate() {
        producers.extend(node.outputs.iter().filter(|name| !name.is_empty()).map(|name| (*name, position)));
    }
    let mut consumers: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    let mut waits_for: Vec<Vec<usize>> = vec![Vec::new(); nodes.len()];
    for (position, (node, needs)) in nodes.iter().zip(&mut waits_for).enumerate() {
        let mut names: HashSet<&str> = node.inputs.iter().copied().collect();
        node.subgraphs().for_each(|graph| names.extend(captures(graph)));
        for producer in names.into_iter().filter_map(|name| producers.get(name)) {
            needs.push(*producer);
            if let Some(consumers) = consumers.get_mut(*producer) {
                consumers.push(position);
            }
        }
    }
    let mut pending: Vec<usize> = waits_for.iter().map(Vec::len).collect();
    let mut ready: BinaryHeap<Reverse<usize>> =
        (0..nodes.len()).filter(|i| pending.get(*i) == Some(&0)).map(Reverse).collect();
    let mut order = Vec::with_capacity(nodes.len());
    while let Some(Reverse(position)) = ready.pop() {
        order.push(position);
        for consumer in consumers.get(position).into_iter().flatten() {
            if let Some(pending) = pending.get_mut(*consumer) {
                *pending -= 1;
                if *pending == 0 {
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
    let mut seen = HashSet::new();
    let mut last = 0;
    let mut at = (0..nodes.len()).find(waiting);
    while let Some(position) = at.filter(|position| seen.insert(*position)) {
        last = position;
        at = waits_for.get(position).and_then(|needs| needs.iter().copied().find(waiting));
    }
    Err(at.unwrap_or(last))
}

/// The names that a subgraph captures from enclosing graphs, sorted.
#[must_use]
pub fn captures<'m>(graph: &Graph<'m>) -> Vec<&'m str> {
    let mut used: HashSet<&str> = graph.outputs.iter().map(|info| info.name).collect();
    for node in &graph.nodes {
        used.extend(node.inputs.iter().copied());
        node.subgraphs().for_each(|inner| used.extend(captures(inner)));
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
    let mut used: Vec<&str> = used.into_iter().collect();
    used.sort_unstable();
    used
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
        assert_eq!(order(&chain), Ok(vec![0, 1, 2]));
        let backwards = [node(&["b"], &["c"]), node(&["a"], &["b"]), node(&["x"], &["a"])];
        assert_eq!(order(&backwards), Ok(vec![2, 1, 0]));
    }

    #[test]
    fn a_cycle_is_named_by_one_of_its_nodes() {
        let cycle = [node(&["x"], &["a"]), node(&["a", "d"], &["b"]), node(&["b"], &["d"]), node(&["d"], &["y"])];
        assert!(matches!(order(&cycle), Err(1 | 2)));
    }
}
