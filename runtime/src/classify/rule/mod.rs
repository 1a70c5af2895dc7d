//! Decision rules over a table of classes: the model's output is compared with every row of the table, so that the
//! classes may be others than those that the model was trained on, and many more.
//!
//! | rule | score of a class | from |
//! |---|---|---|
//! | [`Cosine`] | cosine of the output and the class's embedding | zero-shot classification with CLIP |
//! | [`Frechet`] | minus the expected squared distance to the class | Loki |
//! | [`Hamming`] | minus the number of bits that differ from the class's code | Binary Paragraph Vector |
//!
//! The library of a device leaves them out: they are behind the feature `rules`.

mod cosine;
mod frechet;
mod hamming;
mod table;

use std::fmt;

pub use cosine::Cosine;
pub use frechet::Frechet;
pub use hamming::Hamming;

use super::head::{Activation, Head};
use super::temperature::Temperature;
use crate::error::{Error, Fault, InputFault, Result};

/// A rule with its table.
#[derive(Clone, Debug, PartialEq)]
pub enum Rule {
    /// By the angle to class embeddings.
    Cosine(Cosine),
    /// By distances between classes.
    Frechet(Frechet),
    /// By binary codes.
    Hamming(Hamming),
}

impl Rule {
    /// The number of classes that it decides between.
    #[must_use]
    pub fn classes(&self) -> usize {
        match self {
            Self::Cosine(rule) => rule.classes(),
            Self::Frechet(rule) => rule.classes(),
            Self::Hamming(rule) => rule.classes(),
        }
    }

    /// Refuses a model whose output the table does not fit, or whose output is not what the rule needs.
    pub(super) fn check(&self, outputs: usize, head: &Head) -> Result<()> {
        let fits = match self {
            Self::Cosine(rule) => rule.takes() == outputs,
            Self::Frechet(rule) => rule.takes(outputs),
            Self::Hamming(rule) => rule.takes(outputs),
        };
        if !fits {
            return Err(refused(format!("{self} does not fit the model's output, which has {outputs} elements")));
        }
        if matches!(self, Self::Frechet(_)) && head.activation == Activation::None {
            return Err(refused(format!("{self} needs probabilities: choose the activation softmax or sigmoid")));
        }
        Ok(())
    }

    /// The score of every class, of a model's output without NaN.
    pub(super) fn apply(&self, head: &Head, temperature: Temperature, mut output: Vec<f32>) -> Vec<f32> {
        match self {
            // The activation makes probabilities of the cosines.
            Self::Cosine(rule) => {
                let mut scores = rule.scores(&output);
                temperature.apply(head, &mut scores);
                scores
            }
            Self::Frechet(rule) => {
                temperature.apply(head, &mut output);
                rule.scores(&output)
            }
            // A sigmoid is at least 1/2 where what it is of is at least 0.
            Self::Hamming(rule) => {
                let bound = if head.by_model && head.activation == Activation::Sigmoid { 0.5 } else { 0.0 };
                rule.scores(&output, bound)
            }
        }
    }
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cosine(rule) => rule.fmt(f),
            Self::Frechet(rule) => rule.fmt(f),
            Self::Hamming(rule) => rule.fmt(f),
        }
    }
}

/// The error for a table that cannot be used.
fn refused(message: String) -> Error {
    Error::Invalid { fault: Fault::Input(InputFault::Table), message }
}
