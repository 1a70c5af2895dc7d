//! Checks a single node once the shapes of all its operands are known.
//!
//! The file gives few shapes; most follow from other nodes. Code that infers them later applies
//! the operator's rules here, the same ones that validation applied to the file.

use std::collections::{HashMap, HashSet};

use super::call::Call;
use super::operators;
use super::scope::{Producer, Scope, Summaries};
use crate::decode;
use crate::element::ElementType;
use crate::invalid::{Invalid, Rule};
use crate::limits::Limits;
use crate::proto::{Dim, Type};

/// Element type and dimensions of an operand.
pub type Operand = (ElementType, Vec<u64>);

/// Checks an encoded `NodeProto`. `operands` has one entry for each input that is not omitted.
///
/// # Errors
/// [`Invalid`] for the first rule of its operator that the node breaks.
pub fn check(bytes: &[u8], opset: i64, operands: &[Operand], limits: &Limits) -> Result<(), Invalid> {
    let node = decode::node(bytes, limits)?;
    let names: Vec<&str> = node.inputs.iter().copied().filter(|name| !name.is_empty()).collect();
    if names.len() != operands.len() {
        let what = format!("{} operands were found for {} inputs", operands.len(), names.len());
        return Err(Invalid::new(Rule::Arity, node.place(), what));
    }
    let dim = |size: &u64| i64::try_from(*size).map_or(Dim::Unknown, Dim::Known);
    let types: Vec<Type<'_>> = operands
        .iter()
        .map(|(element, dims)| Type::Tensor(*element as i64, Some(dims.iter().map(dim).collect())))
        .collect();
    let scope = Scope {
        values: names.iter().map(|name| (*name, Producer::Outside)).collect(),
        types: names.iter().copied().zip(&types).collect(),
        shapes: HashMap::new(),
        folded: HashSet::new(),
        parent: None,
    };
    let summaries = Summaries::default();
    operators::check(&Call { node: &node, scope: &scope, opset, limits, summaries: &summaries })
}
