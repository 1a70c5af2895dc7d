//! Reports all unsupported operators of a file at once.

use std::collections::{HashMap, HashSet};

use skipstone_onnx::is_standard;
use skipstone_onnx::proto::{Function, Graph, Node};
use skipstone_reserve::NoMemory;

use super::super::fallback;
use super::{call, control, table};
use crate::error::{Error, Result};
use crate::reserve;

/// Most operators that the message lists.
const SHOWN: usize = 16;

/// Local functions by domain and name.
type Functions<'m> = HashMap<(&'m str, &'m str), &'m Function<'m>>;

/// Refuses a graph with nodes that no importer, local function or fallback supports. Subgraphs alone are no reason: a
/// branch that is never taken may contain anything.
pub(super) fn check(graph: &Graph<'_>, functions: &Functions<'_>) -> Result<()> {
    let mut certain = Search::new(functions, false);
    certain.nodes(&graph.nodes)?;
    if certain.kinds.is_empty() { Ok(()) } else { Err(all(graph, functions)) }
}

/// The error that lists the unsupported operators of a graph, its subgraphs and functions.
pub(super) fn all(graph: &Graph<'_>, functions: &Functions<'_>) -> Error {
    let mut search = Search::new(functions, true);
    if let Err(no_memory) = search.nodes(&graph.nodes) {
        return no_memory.into();
    }
    let kinds = search.kinds;
    let reason = match *kinds.as_slice() {
        [(op, 1, _)] => format!("operator {op} is not supported"),
        [(op, count, _)] => format!("operator {op} is not supported, of which the model has {count} nodes"),
        _ => {
            let each = kinds.iter().map(|(op, count, first)| format!("{op} ({count}, the first is '{first}')"));
            let shown = each.take(SHOWN).collect::<Vec<_>>().join(", ");
            let more = if kinds.len() > SHOWN { ", and others" } else { "" };
            format!("these operators are not supported: {shown}{more}")
        }
    };
    Error::Unsupported { node: kinds.first().map_or("graph", |(.., first)| first).to_owned(), reason }
}

/// Whether nothing can compute a node that is not a call of a local function.
pub(super) fn is_unsupported(node: &Node<'_>) -> Result<bool, NoMemory> {
    let domain = if is_standard(node.domain) { "" } else { node.domain };
    Ok(!control::is_control_flow(domain, node.op_type)
        && table::importer(domain, node.op_type)?.is_none()
        && !fallback::is_admitted(domain, node.op_type))
}

struct Search<'a, 'm> {
    functions: &'a Functions<'m>,
    /// Whether to search subgraphs too.
    subgraphs: bool,
    visited: HashSet<(&'a str, &'a str)>,
    /// Operators, how many nodes have them, and the name of the first.
    kinds: Vec<(&'a str, usize, &'a str)>,
    /// The positions of operators among them.
    places: HashMap<&'a str, usize>,
}

impl<'a, 'm> Search<'a, 'm> {
    fn new(functions: &'a Functions<'m>, subgraphs: bool) -> Self {
        Self { functions, subgraphs, visited: HashSet::new(), kinds: Vec::new(), places: HashMap::new() }
    }

    /// Recurses as deep as graphs and functions nest, which validation bounds.
    fn nodes(&mut self, nodes: &'a [Node<'a>]) -> Result<(), NoMemory> {
        for node in nodes {
            if self.subgraphs {
                node.subgraphs().try_for_each(|graph| self.nodes(&graph.nodes))?;
            }
            if let Some(function) = self.functions.get(&(node.domain, node.op_type)) {
                if reserve::add(&mut self.visited, (node.domain, node.op_type))? {
                    self.nodes(&function.nodes)?;
                }
            } else if is_unsupported(node)? {
                match self.places.get(node.op_type).and_then(|&place| self.kinds.get_mut(place)) {
                    Some((_, count, _)) => *count += 1,
                    None => {
                        reserve::insert(&mut self.places, node.op_type, self.kinds.len())?;
                        reserve::push(&mut self.kinds, (node.op_type, 1, call::name(node)))?;
                    }
                }
            }
        }
        Ok(())
    }
}
