//! Reports all unsupported operators of a file at once.

use std::collections::HashSet;

use skipstone_onnx::is_standard;
use skipstone_onnx::proto::{Graph, Node};

use super::super::fallback;
use super::{call, control, table};
use crate::error::{Error, Result};

/// Refuses a graph with nodes that no importer, local function or fallback supports. Those in subgraphs and functions
/// are found when these are imported.
pub(super) fn check(graph: &Graph<'_>, functions: &HashSet<(&str, &str)>) -> Result<()> {
    let unknown = |node: &&Node<'_>| {
        let domain = if is_standard(node.domain) { "" } else { node.domain };
        !control::is_control_flow(domain, node.op_type)
            && !functions.contains(&(node.domain, node.op_type))
            && table::importer(domain, node.op_type).is_none()
            && !fallback::is_admitted(domain, node.op_type)
    };
    let mut kinds: Vec<(&str, usize, &str)> = Vec::new();
    for node in graph.nodes.iter().filter(unknown) {
        match kinds.iter_mut().find(|(op, ..)| *op == node.op_type) {
            Some((_, count, _)) => *count += 1,
            None => kinds.push((node.op_type, 1, call::name(node))),
        }
    }
    let reason = match *kinds.as_slice() {
        [] => return Ok(()),
        [(op, 1, _)] => format!("operator {op} is not supported"),
        [(op, count, _)] => format!("operator {op} is not supported, of which the model has {count} nodes"),
        _ => {
            let each = kinds.iter().map(|(op, count, first)| format!("{op} ({count}, the first is '{first}')"));
            format!("these operators are not supported: {}", each.collect::<Vec<_>>().join(", "))
        }
    };
    Err(Error::Unsupported { node: kinds[0].2.to_owned(), reason })
}
