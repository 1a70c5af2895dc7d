//! A node as seen by the operator rules: typed attributes by name, and what is known of its inputs
//! (shape, element type, constant value).

use crate::limits::Limits;

use super::scope::{Constant, PartialShape, Scope, Summaries, Summary};
use crate::invalid::{Invalid, Rule};
use crate::proto::{Attribute, Node};

/// `AttributeType` numbers.
const INT: i64 = 2;
const STRING: i64 = 3;
const FLOATS: i64 = 6;
const INTS: i64 = 7;

/// A node with its scope, opset and limits.
#[derive(Clone, Copy)]
pub(super) struct Call<'c, 'm> {
    pub node: &'m Node<'m>,
    pub scope: &'c Scope<'c, 'm>,
    /// Version of the node's operator set.
    pub opset: i64,
    pub limits: &'c Limits,
    pub summaries: &'c Summaries,
}

impl<'m> Call<'_, 'm> {
    /// An error: the node breaks `rule`.
    pub fn invalid(&self, rule: Rule, what: impl Into<String>) -> Invalid {
        Invalid::new(rule, self.node.place(), what)
    }

    /// An error for an attribute; `what` completes the sentence "attribute NAME ...".
    pub fn bad_attribute<T>(&self, name: &str, what: impl std::fmt::Display) -> Result<T, Invalid> {
        Err(self.invalid(Rule::Attribute, format!("attribute {name} {what}")))
    }

    /// Name of an input; `None` if the node omits it.
    pub fn input(&self, index: usize) -> Option<&'m str> {
        self.node.inputs.get(index).copied().filter(|name| !name.is_empty())
    }

    /// Shape of an input, as far as it is known.
    pub fn shape(&self, index: usize) -> Option<PartialShape> {
        self.scope.shape(self.input(index)?)
    }

    /// Shape of an input, if every dimension is known.
    pub fn full_shape(&self, index: usize) -> Option<Vec<u64>> {
        self.shape(index)?.into_iter().collect()
    }

    /// The constant value of an input, if it is stored in the file.
    pub fn constant(&self, index: usize) -> Option<Constant<'m>> {
        self.scope.constant(self.input(index)?)
    }

    /// Summary of the elements of a constant input.
    ///
    /// # Errors
    /// No memory.
    pub fn summary(&self, index: usize) -> Result<Option<Summary>, Invalid> {
        self.constant(index).map(|constant| self.summaries.of(&constant)).transpose()
    }

    /// Elements of a constant integer input that has one or two entries per dimension.
    pub fn dims(&self, index: usize) -> Result<Option<Vec<i64>>, Invalid> {
        let Some(constant) = self.constant(index) else {
            return Ok(None);
        };
        self.few(index, &constant)?;
        Ok(constant.ints().map(Iterator::collect))
    }

    /// Elements of a constant float input that has one entry per dimension.
    pub fn scales(&self, index: usize) -> Result<Option<Vec<f64>>, Invalid> {
        let Some(constant) = self.constant(index) else {
            return Ok(None);
        };
        self.few(index, &constant)?;
        Ok(constant.floats().map(Iterator::collect))
    }

    fn few(&self, index: usize, constant: &Constant<'_>) -> Result<(), Invalid> {
        let most = 2 * self.limits.max_rank as u64;
        if constant.len() > most {
            let what =
                format!("input {index} has {} entries, at most {most} are allowed (limit 'rank')", constant.len());
            return Err(self.invalid(Rule::Shape, what));
        }
        Ok(())
    }

    /// The value of a constant integer input of one element.
    pub fn scalar(&self, index: usize) -> Option<i64> {
        let constant = self.constant(index).filter(|constant| constant.len() == 1)?;
        constant.ints()?.next()
    }

    /// The value of a constant input of one element, integer or float.
    pub fn number(&self, index: usize) -> Option<f64> {
        let constant = self.constant(index).filter(|constant| constant.len() == 1)?;
        match constant.ints() {
            Some(mut ints) => ints.next().map(|value| value as f64),
            None => constant.floats()?.next(),
        }
    }

    /// Whether the node has an attribute of this name.
    pub fn has(&self, name: &str) -> bool {
        self.node.attribute(name).is_some()
    }

    /// The attribute of this name, which must have the type `kind`. `None` if it is missing or
    /// refers to an attribute of the enclosing function, whose value is not known here.
    fn attribute(&self, name: &str, kind: i64) -> Result<Option<&'m Attribute<'m>>, Invalid> {
        match self.node.attribute(name) {
            Some(attribute) if attribute.kind != kind => {
                self.bad_attribute(name, "does not have the type that the operator requires")
            }
            found => Ok(found.filter(|attribute| attribute.reference.is_empty())),
        }
    }

    /// An integer attribute.
    pub fn int(&self, name: &str) -> Result<Option<i64>, Invalid> {
        Ok(self.attribute(name, INT)?.map(|attribute| attribute.int))
    }

    /// A list of floats, at most one per dimension.
    pub fn floats(&self, name: &str) -> Result<Option<Vec<f64>>, Invalid> {
        let Some(attribute) = self.attribute(name, FLOATS)? else {
            return Ok(None);
        };
        if attribute.floats.count > 2 * self.limits.max_rank as u64 {
            return self.bad_attribute(name, "has more entries than tensors may have dimensions (limit 'rank')");
        }
        Ok(Some(attribute.floats.floats().map(f64::from).collect()))
    }

    /// A list of integers, at most two per dimension.
    pub fn ints(&self, name: &str) -> Result<Option<Vec<i64>>, Invalid> {
        let Some(attribute) = self.attribute(name, INTS)? else {
            return Ok(None);
        };
        if attribute.ints.count > 2 * self.limits.max_rank as u64 {
            return self.bad_attribute(name, "has more entries than tensors may have dimensions (limit 'rank')");
        }
        Ok(Some(attribute.ints.ints().collect()))
    }

    /// A string attribute, which must be UTF-8.
    pub fn text(&self, name: &str) -> Result<Option<&'m str>, Invalid> {
        let Some(attribute) = self.attribute(name, STRING)? else {
            return Ok(None);
        };
        match std::str::from_utf8(attribute.string) {
            Ok(text) => Ok(Some(text)),
            Err(_) => self.bad_attribute(name, "is not UTF-8"),
        }
    }

    /// An integer attribute that must lie in a range.
    pub fn int_in(&self, name: &str, range: std::ops::RangeInclusive<i64>) -> Result<Option<i64>, Invalid> {
        match self.int(name)? {
            Some(value) if !range.contains(&value) => {
                self.bad_attribute(name, format!("is {value}, outside of {} to {}", range.start(), range.end()))
            }
            value => Ok(value),
        }
    }

    /// A list of integers that must all lie in a range.
    pub fn ints_in(&self, name: &str, range: std::ops::RangeInclusive<i64>) -> Result<Option<Vec<i64>>, Invalid> {
        let values = self.ints(name)?;
        match values.iter().flatten().find(|value| !range.contains(value)) {
            Some(value) => {
                self.bad_attribute(name, format!("holds {value}, outside of {} to {}", range.start(), range.end()))
            }
            None => Ok(values),
        }
    }

    /// Checks that a list, if present, has `count` entries.
    pub fn must_have(&self, name: &str, values: Option<&Vec<i64>>, count: usize) -> Result<(), Invalid> {
        match values {
            Some(values) if values.len() != count => {
                self.bad_attribute(name, format!("has {} entries, expected {count}", values.len()))
            }
            _ => Ok(()),
        }
    }

    /// Converts a possibly negative axis to `0..rank`.
    pub fn axis(&self, axis: i64, rank: usize) -> Result<usize, Invalid> {
        let signed = rank as i64;
        let found = if axis < 0 { axis.checked_add(signed) } else { Some(axis) };
        match found.filter(|axis| (0..signed).contains(axis)).and_then(|axis| usize::try_from(axis).ok()) {
            Some(axis) => Ok(axis),
            None => {
                Err(self.invalid(Rule::Index, format!("axis {axis} does not exist in a tensor of {rank} dimensions")))
            }
        }
    }
}
