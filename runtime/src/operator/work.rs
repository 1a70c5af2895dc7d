//! Counts the work of a run without overflow, since facts may come from a file.

use crate::tensor::Fact;

/// The number of elements of all these tensors.
pub(crate) fn elements_of(facts: &[&Fact]) -> u64 {
    facts.iter().fold(0, |sum, fact| sum.saturating_add(fact.shape.elements() as u64))
}

/// The product of these counts, saturating.
pub(crate) fn saturating_product(counts: &[usize]) -> u64 {
    counts.iter().fold(1, |all, &size| all.saturating_mul(size as u64))
}
