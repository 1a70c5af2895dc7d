//! Local functions of a model: uniquely named, not recursive, and bounded in their expanded size.

use std::collections::{HashMap, HashSet};

use crate::limits::Limits;

use super::attributes::is_standard;
use crate::invalid::{Invalid, Place, Rule, quoted};
use crate::proto::{Function, Graph, Model, Node};
use crate::reserve::{self, NoMemory};

/// Domain, name and overload of a function.
type Key<'m> = (&'m str, &'m str, &'m str);

fn key<'m>(function: &Function<'m>) -> Key<'m> {
    (function.domain, function.name, function.overload)
}

/// The functions of a model.
pub(super) struct Functions<'m> {
    by_key: HashMap<Key<'m>, &'m Function<'m>>,
}

/// The place that errors report for a function.
pub(super) fn place(function: &Function<'_>) -> Place {
    Place::Function(quoted(function.name))
}

impl<'m> Functions<'m> {
    /// Checks that the functions of a model have distinct keys and are not recursive, and that the
    /// main graph stays within the limits when every call is replaced by the function's body.
    pub fn new(model: &'m Model<'m>, main: &'m Graph<'m>, limits: &Limits) -> Result<Self, Invalid> {
        let mut functions = Self { by_key: HashMap::new() };
        for function in &model.functions {
            let invalid = |what: &str| Err(Invalid::new(Rule::Function, place(function), what));
            if function.name.is_empty() {
                return invalid("the function has no name");
            }
            if is_standard(function.domain) {
                return invalid("the function redefines an operator of ai.onnx");
            }
            if reserve::insert(&mut functions.by_key, key(function), function)?.is_some() {
                return invalid("the function is defined twice");
            }
            let mut names = HashSet::new();
            for name in &function.inputs {
                if !reserve::add(&mut names, *name)? {
                    return invalid("two inputs have the same name");
                }
            }
            let mut attributes = HashSet::new();
            let defaults = function.default_attributes.iter().map(|attribute| attribute.name);
            for name in function.attributes.iter().copied().chain(defaults) {
                if !reserve::add(&mut attributes, name)? {
                    return invalid("two attributes have the same name");
                }
            }
        }
        if !model.functions.is_empty() {
            functions.check_expansion(model, main, limits)?;
        }
        Ok(functions)
    }

    /// The function that a node calls, if any.
    pub fn called_by(&self, node: &Node<'m>) -> Option<&'m Function<'m>> {
        self.by_key.get(&(node.domain, node.op_type, node.overload)).copied()
    }

    /// Follows all calls depth first, with an explicit stack. No function may reach itself, and
    /// the count of nodes after expanding every call must stay within the limit.
    fn check_expansion(&self, model: &'m Model<'m>, main: &'m Graph<'m>, limits: &Limits) -> Result<(), Invalid> {
        // Expanded count of nodes of a function; `None` while it is on the stack.
        let mut expanded: HashMap<Key<'m>, Option<u64>> = HashMap::new();
        for root in &model.functions {
            if expanded.contains_key(&key(root)) {
                continue;
            }
            reserve::insert(&mut expanded, key(root), None)?;
            let mut stack = vec![(key(root), every_node(&root.nodes)?, 0u64)];
            while let Some((current, nodes, total)) = stack.last_mut() {
                let Some(node) = nodes.next().transpose()? else {
                    let (current, total) = (*current, *total);
                    reserve::insert(&mut expanded, current, Some(total))?;
                    stack.pop();
                    if let Some((_, _, caller)) = stack.last_mut() {
                        *caller = caller.saturating_add(total);
                    }
                    continue;
                };
                let Some(callee) = self.called_by(node) else {
                    *total = total.saturating_add(1);
                    continue;
                };
                match expanded.get(&key(callee)) {
                    Some(Some(nodes)) => *total = total.saturating_add(*nodes),
                    Some(None) => return Err(Invalid::new(Rule::Function, place(callee), "the function calls itself")),
                    None => {
                        reserve::insert(&mut expanded, key(callee), None)?;
                        reserve::push(&mut stack, (key(callee), every_node(&callee.nodes)?, 0))?;
                    }
                }
            }
        }
        let mut total = 0u64;
        for node in every_node(&main.nodes)? {
            let callee = self.called_by(node?).and_then(|callee| *expanded.get(&key(callee))?);
            total = total.saturating_add(callee.unwrap_or(1));
        }
        if total > limits.max_nodes as u64 {
            let what = format!(
                "with its functions expanded, the model has more than {} nodes (limit 'nodes')",
                limits.max_nodes
            );
            return Err(Invalid::new(Rule::Limit, Place::Model, what));
        }
        Ok(())
    }
}

/// The nodes of a list and of all their subgraphs.
fn every_node<'m>(
    nodes: &'m [Node<'m>],
) -> Result<impl Iterator<Item = Result<&'m Node<'m>, NoMemory>> + use<'m>, NoMemory> {
    let mut stack = reserve::list(nodes.iter().rev())?;
    Ok(std::iter::from_fn(move || {
        let node = stack.pop()?;
        let inner = node.subgraphs().flat_map(|graph| &graph.nodes);
        Some(reserve::extend(&mut stack, inner).map(|()| node))
    }))
}
