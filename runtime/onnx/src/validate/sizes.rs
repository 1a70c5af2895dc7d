//! Named sizes that the operands of a node share.
//!
//! An operator with several operands names their dimensions: `W` of an LSTM is
//! `[directions, 4 * hidden, input]`. A name must have the same value in every operand; code that
//! assumes so would otherwise read past the end of the smaller operand.

use super::call::Call;
use crate::element::ElementType;
use crate::invalid::{Invalid, Rule};

/// A dimension: a named size and its multiple.
#[derive(Clone, Copy)]
pub(super) struct Size(pub &'static str, pub u64);

/// The named sizes of one node, filled in operand by operand.
pub(super) struct Sizes<'s, 'c, 'm> {
    call: &'s Call<'c, 'm>,
    known: Vec<(&'static str, u64)>,
}

impl<'s, 'c, 'm> Sizes<'s, 'c, 'm> {
    /// Starts with no known sizes.
    pub fn new(call: &'s Call<'c, 'm>) -> Self {
        Self { call, known: Vec::new() }
    }

    /// The value of a name, if known.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.known.iter().find(|(known, _)| *known == name).map(|(_, size)| *size)
    }

    /// Sets the value of a name.
    pub fn set(&mut self, name: &'static str, size: u64) {
        if self.get(name).is_none() {
            self.known.push((name, size));
        }
    }

    /// Checks the dimensions of input `index` against the known sizes, and records new ones.
    /// Does nothing if the input is omitted or its rank is unknown.
    pub fn operand(&mut self, index: usize, dims: &[Size]) -> Result<(), Invalid> {
        let Some(shape) = self.call.shape(index) else {
            return Ok(());
        };
        let wrong = |what: String| Err(self.call.invalid(Rule::Shape, format!("input {index} {what}")));
        if shape.len() != dims.len() {
            return wrong(format!("has {} dimensions, expected {}", shape.len(), dims.len()));
        }
        for (axis, (dim, &Size(name, times))) in shape.iter().zip(dims).enumerate() {
            let Some(dim) = *dim else {
                continue;
            };
            if dim == 0 && !name.starts_with("past") {
                return wrong(format!("is empty along axis {axis}, the {name}"));
            }
            if times == 0 || dim % times != 0 {
                return wrong(format!("has {dim} along axis {axis}, which is not {times} times the {name}"));
            }
            match self.get(name) {
                Some(size) if size != dim / times => {
                    let times = if times == 1 { String::new() } else { format!("{times} times ") };
                    return wrong(format!("has {dim} along axis {axis}, expected {times}the {name} of {size}"));
                }
                _ => self.set(name, dim / times),
            }
        }
        Ok(())
    }

    /// Checks that the inputs in `indices`, except omitted ones, are floats of the same type.
    pub fn floats(&self, indices: &[usize]) -> Result<(), Invalid> {
        let mut common = None;
        for &index in indices {
            let Some(element) = self.call.input(index).and_then(|name| self.call.scope.element(name)) else {
                continue;
            };
            let common = *common.get_or_insert(element);
            let is_float = matches!(
                element,
                ElementType::Float | ElementType::Double | ElementType::Float16 | ElementType::Bfloat16
            );
            if !is_float || element != common {
                let what = format!("input {index} is {}, the first one is {}", element.name(), common.name());
                return Err(self.call.invalid(Rule::DataType, what));
            }
        }
        Ok(())
    }
}
