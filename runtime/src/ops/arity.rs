//! Checks the number of operands, the first check of every shape rule.

use crate::error::OpError;

/// The operands, if there are exactly `N`.
pub(crate) fn exactly<const N: usize, T>(inputs: &[T]) -> Result<&[T; N], OpError> {
    const WORDS: [&str; 5] = ["0", "1", "2", "3", "4"];
    let arity = OpError::Arity { want: WORDS.get(N).copied().unwrap_or("more"), got: inputs.len() };
    inputs.try_into().map_err(|_| arity)
}
