//! Variables: inputs of a model that its sessions hold instead of the caller.
//!
//! A setting is a variable that the caller changes between runs: a threshold, a depth, which of two branches runs.
//! State is a variable that is replaced by an output after every run: what a recurrent network remembers of a stream.

use skipstone_kernels::arena::AlignedVec;

use crate::error::{Error, Result};
use crate::plan::Variable;
use crate::value::Value;

/// The values of a model's variables.
pub(super) struct Variables {
    values: Vec<AlignedVec<u8>>,
    /// Where the next values of state are written, so that a run that is stopped meanwhile leaves the state as it was;
    /// empty for settings.
    next: Vec<AlignedVec<u8>>,
}

impl Variables {
    /// The initial values of the variables.
    ///
    /// # Errors
    /// [`Error::Unsupported`] if there is not enough memory.
    pub fn new(of: &[Variable]) -> Result<Self> {
        let zeros = |Variable { port, .. }: &Variable, bytes: usize| {
            AlignedVec::try_zeroed(bytes).ok_or_else(|| Error::Unsupported {
                node: port.name.clone(),
                reason: format!("there is no memory for {} of state", port.fact),
            })
        };
        let values = of.iter().map(|it| zeros(it, it.port.fact.bytes())).collect::<Result<_>>()?;
        let next = of.iter().map(|it| zeros(it, it.next.map_or(0, |_| it.port.fact.bytes()))).collect::<Result<_>>()?;
        let mut variables = Self { values, next };
        variables.reset(of, |_| true);
        Ok(variables)
    }

    /// Resets the selected variables to their initial values.
    pub fn reset(&mut self, of: &[Variable], which: impl Fn(&Variable) -> bool) {
        for (held, variable) in self.values.iter_mut().zip(of).filter(|(_, variable)| which(variable)) {
            match &variable.initial {
                Some(initial) => held.copy_from_slice(initial.bytes()),
                None => held.fill(0),
            }
        }
    }

    /// Sets a variable.
    pub fn set(&mut self, of: &[Variable], name: &str, value: &Value) -> Result<()> {
        let Some((variable, held)) = of.iter().zip(&mut self.values).find(|(it, _)| it.port.name == name) else {
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

    /// The variables, and the places for their next values.
    pub fn halves(&mut self) -> (&[AlignedVec<u8>], &mut [AlignedVec<u8>]) {
        (&self.values, &mut self.next)
    }

    /// The bytes of the variable at `at`.
    pub fn get(&self, at: usize) -> Option<&[u8]> {
        self.values.get(at).map(|held| &held[..])
    }

    /// Replaces state by its next value, which is complete.
    pub fn advance(&mut self, of: &[Variable]) {
        for ((value, next), _) in self.values.iter_mut().zip(&mut self.next).zip(of).filter(|(_, it)| it.next.is_some())
        {
            std::mem::swap(value, next);
        }
    }
}
