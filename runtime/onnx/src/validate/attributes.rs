//! Rules for the attributes of every operator: each has one value of its declared type, valid
//! tensors and finite floats.

use std::collections::HashSet;

use crate::limits::Limits;

use super::tensor;
use crate::invalid::{Invalid, Rule, quoted};
use crate::proto::{Attribute, Node};
use crate::reserve;

/// Field number of the value for each `AttributeType`, in the order of the enum, from 1.
const VALUE_FIELDS: [u32; 14] = [2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 22, 23, 14, 15];
/// `AttributeType`s whose value is a message, so that it has no default.
const MESSAGES: [i64; 4] = [4, 5, 11, 13];
/// Attributes of ai.onnx that may be infinite or NaN: clipping bounds, and values that are stored
/// and not computed with.
const MAY_BE_INFINITE: [&str; 7] =
    ["min", "max", "value", "value_float", "value_floats", "extrapolation_value", "clip"];

/// Checks the attributes of a node and returns the sizes of the tensors among them. `in_function`
/// says whether attributes may refer to those of an enclosing function.
pub(super) fn check(node: &Node<'_>, in_function: bool, limits: &Limits) -> Result<Vec<tensor::Extent>, Invalid> {
    let mut names = HashSet::new();
    let mut extents = Vec::new();
    for attribute in &node.attributes {
        let invalid = |what: String| Invalid::new(Rule::Attribute, node.place(), what);
        let name = quoted(attribute.name);
        if attribute.name.is_empty() {
            return Err(invalid("an attribute has no name".into()));
        }
        if !reserve::add(&mut names, attribute.name)? {
            return Err(invalid(format!("attribute {name} occurs twice")));
        }
        check_value(attribute, in_function).map_err(|what| invalid(format!("attribute {name} {what}")))?;
        if is_standard(node.domain) {
            check_numbers(attribute, limits).map_err(|what| invalid(format!("attribute {name} {what}")))?;
        }
        for value in &attribute.tensors {
            reserve::push(&mut extents, tensor::check(value, limits)?)?;
        }
        for value in &attribute.sparse_tensors {
            reserve::push(&mut extents, tensor::check_sparse(value, limits)?)?;
        }
        for kind in &attribute.types {
            tensor::check_type(kind, false, limits, &node.place())?;
        }
    }
    Ok(extents)
}

/// Whether this is the domain of the standard operators.
pub fn is_standard(domain: &str) -> bool {
    matches!(domain, "" | "ai.onnx")
}

fn check_value(attribute: &Attribute<'_>, in_function: bool) -> Result<(), String> {
    let field = attribute.kind.checked_sub(1).and_then(|i| VALUE_FIELDS.get(usize::try_from(i).ok()?));
    let Some(&field) = field else {
        return Err(format!("has the unknown type {}", attribute.kind));
    };
    if !attribute.reference.is_empty() {
        return match (in_function, attribute.present) {
            (false, _) => Err("refers to an attribute of a function, but is not in a function".into()),
            (true, 0) => Ok(()),
            (true, _) => Err("has both a value and a reference".into()),
        };
    }
    if attribute.present & !(1 << field) != 0 {
        return Err("has a value that is not of the declared type".into());
    }
    if attribute.present == 0 && MESSAGES.contains(&attribute.kind) {
        return Err("has no value".into());
    }
    Ok(())
}

fn check_numbers(attribute: &Attribute<'_>, limits: &Limits) -> Result<(), String> {
    let infinite = !attribute.float.is_finite() || attribute.floats.floats().any(|value| !value.is_finite());
    if infinite && !MAY_BE_INFINITE.contains(&attribute.name) {
        return Err("is not finite".into());
    }
    if matches!(attribute.name, "axis" | "axes") {
        let rank = limits.max_rank as i64;
        let far = |axis: i64| !(-rank..rank).contains(&axis);
        if far(attribute.int) || attribute.ints.count > rank.unsigned_abs() || attribute.ints.ints().any(far) {
            return Err("exceeds the limit 'rank'".into());
        }
    }
    Ok(())
}
