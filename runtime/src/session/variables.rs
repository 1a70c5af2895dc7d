//! Variables: inputs of a model that its sessions hold instead of the caller.
//!
//! A setting is a variable that the caller changes between runs: a threshold, a depth, which of two branches runs.
//! State is a variable that is replaced by an output after every run: what a recurrent network remembers of a stream.

use skipstone_kernels::arena::AlignedVec;

use crate::error::{Error, Result};
use crate::plan::Variable;
use crate::tensor::TensorView;
use crate::value::Value;

/// The values of a model's variables.
pub(super) struct Variables(Vec<AlignedVec<u8>>);

impl Variables {
    /// The initial values of the variables.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if there is not enough memory.
    pub fn new(of: &[Variable]) -> Result<Self> {
        let held = of.iter().map(|Variable { port, .. }| {
            AlignedVec::try_zeroed(port.fact.bytes()).ok_or_else(|| Error::Unsupported {
                node: port.name.clone(),
                reason: format!("there is no memory for {} of state", port.fact),
            })
        });
        let mut variables = Self(held.collect::<Result<_>>()?);
        variables.reset(of, |_| true);
        Ok(variables)
    }

    /// Resets the selected variables to their initial values.
    pub fn reset(&mut self, of: &[Variable], which: impl Fn(&Variable) -> bool) {
        for (held, variable) in self.0.iter_mut().zip(of).filter(|(_, variable)| which(variable)) {
            match &variable.initial {
                Some(initial) => held.copy_from_slice(initial.bytes()),
                None => held.fill(0),
            }
        }
    }

    /// Sets a variable.
    pub fn set(&mut self, of: &[Variable], name: &str, value: &Value) -> Result<()> {
        let Some((variable, held)) = of.iter().zip(&mut self.0).find(|(variable, _)| variable.port.name == name) else {
            let known: Vec<&str> = of.iter().map(|variable| variable.port.name.as_str()).collect();
            let known = if known.is_empty() { "none".to_owned() } else { known.join(", ") };
            return Err(Error::UnknownSetting { name: name.to_owned(), known });
        };
        let fact = &variable.port.fact;
        if value.write(fact, held) {
            return Ok(());
        }
        Err(Error::SettingValue { name: name.to_owned(), fact: fact.to_string() })
    }

    /// The bytes of each variable.
    pub fn bytes(&self) -> impl Iterator<Item = &[u8]> {
        self.0.iter().map(|held| &held[..])
    }

    /// The bytes of the variable at `at`.
    pub fn get(&self, at: usize) -> Option<&[u8]> {
        self.0.get(at).map(|held| &held[..])
    }

    /// Replaces state by the outputs that it comes from.
    pub fn carry<'a>(&mut self, of: &[Variable], output: impl Fn(usize) -> Option<TensorView<'a>>) {
        for (held, variable) in self.0.iter_mut().zip(of) {
            if let Some(next) = variable.next.and_then(&output).filter(|next| next.bytes().len() == held.len()) {
                held.copy_from_slice(next.bytes());
            }
        }
    }
}
