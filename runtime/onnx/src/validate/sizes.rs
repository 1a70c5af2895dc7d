//! Sizes that the operands of a node share.
//!
//! An operator that multiplies several operands names each dimension: `W` of an LSTM is
//! `[directions, 4 * hidden, input]`. Whatever a name stands for in one operand, it stands for in
//! all of them; code behind that takes it for granted reads past the end of the smaller one.

use super::call::Call;
use crate::element::ElementType;
use crate::invalid::{Invalid, Rule};

/// A dimension: a named size, and how many times it is taken.
#[derive(Clone, Copy)]
pub(super) struct Size(pub &'static str, pub u64);

/// The sizes of one node, as they become known.
pub(super) struct Sizes<'s, 'c, 'm> {
    call: &'s Call<'c, 'm>,
    known: Vec<(&'static str, u64)>,
}

impl<'s, 'c, 'm> Sizes<'s, 'c, 'm> {
    /// Nothing is known yet.
    pub fn new(call: &'s Call<'c, 'm>) -> Self {
        Self { call, known: Vec::new() }
    }

    /// What a name stands for, if that is known.
    pub fn get(&self, name: &str) -> Option<u64> {
        self.known.iter().find(|(known, _)| *known == name).map(|(_, size)| *size)
    }

    /// Says what a name stands for.
    pub fn set(&mut self, name: &'static str, size: u64) {
        if self.get(name).is_none() {
            self.known.push((name, size));
        }
    }

    /// Checks the dimensions of input `index`, and learns from them. An input that is left out, or
    /// of which nothing is known, has none.
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

    /// Checks that the inputs among `indices` that are there hold floats, all of one type.
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
                let what = format!("input {index} holds {}, the first one {}", element.name(), common.name());
                return Err(self.call.invalid(Rule::DataType, what));
            }
        }
        Ok(())
    }
}
