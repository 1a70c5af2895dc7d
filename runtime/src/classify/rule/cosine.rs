//! Zero-shot classification: the class whose embedding has the smallest angle to the model's output.
//!
//! CLIP (<https://arxiv.org/abs/2103.00020>) embeds images and texts in one space; the embedding of `a photo of a cat`
//! is then a classifier for cats. Its probabilities are a softmax of the cosines at a temperature of 1/100.

use std::fmt;

use super::refused;
use super::table::{Table, sum};
use crate::error::Result;
use crate::tensor::Tensor;

/// The cosine of the output and each class's embedding.
#[derive(Clone, Debug, PartialEq)]
pub struct Cosine {
    embeddings: Table,
    /// One over the length of each.
    scales: Vec<f32>,
}

impl Cosine {
    /// A rule for embeddings of f32 or f16, one row for each class; they need not have the length 1.
    ///
    /// # Errors
    /// `input.table` for anything else, and for an embedding of zeros, which has no direction.
    pub fn new(embeddings: Tensor) -> Result<Self> {
        let embeddings = Table::new(embeddings)?;
        let mut row = vec![0.0; embeddings.columns];
        let mut scale = |index| {
            embeddings.read(index, &mut row);
            let length = length(&row);
            if length > 0.0 { Ok(1.0 / length) } else { Err(refused(format!("row {index} of the table is zero"))) }
        };
        let scales = (0..embeddings.rows).map(&mut scale).collect::<Result<_>>()?;
        Ok(Self { embeddings, scales })
    }

    pub(super) fn classes(&self) -> usize {
        self.embeddings.rows
    }

    /// Number of elements of an output.
    pub(super) fn takes(&self) -> usize {
        self.embeddings.columns
    }

    /// The cosines; NaN for an output of zeros.
    pub(super) fn scores(&self, output: &[f32]) -> Vec<f32> {
        // Scaled first, because the product of two large numbers overflows.
        let length = length(output);
        let unit: Vec<f32> = output.iter().map(|value| value / length).collect();
        let mut row = vec![0.0; unit.len()];
        let cosine = |(index, &scale): (usize, &f32)| {
            self.embeddings.read(index, &mut row);
            row.iter_mut().for_each(|value| *value *= scale);
            sum(&unit, &row, |a, b| a * b)
        };
        self.scales.iter().enumerate().map(cosine).collect()
    }
}

/// The Euclidean length of a vector.
fn length(values: &[f32]) -> f32 {
    let squares: f64 = values.iter().map(|&value| f64::from(value).powi(2)).sum();
    squares.sqrt() as f32
}

impl fmt::Display for Cosine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cosine with {} embeddings of {} elements", self.embeddings.rows, self.embeddings.columns)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(shape: [usize; 2], values: &[f32]) -> Result<Cosine> {
        Cosine::new(Tensor::from_slice(&shape, values).unwrap())
    }

    #[test]
    fn cosines_are_the_formula() {
        let scores = rule([4, 2], &[3.0, 4.0, -30.0, -40.0, 4.0, -3.0, 0.0, 0.5]).unwrap().scores(&[6.0, 8.0]);
        let want = [1.0, -1.0, 0.0, 0.8];
        assert!(scores.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6), "{scores:?}");
    }

    #[test]
    fn equal_classes_tie_and_one_class_is_enough() {
        let scores = rule([2, 1], &[2.0, 7.0]).unwrap().scores(&[-3.0]);
        assert_eq!(scores, [-1.0, -1.0]);
        assert_eq!(rule([1, 3], &[1.0, 0.0, 0.0]).unwrap().scores(&[5.0, 0.0, 0.0]), [1.0]);
    }

    #[test]
    fn lengths_near_the_limits_of_f32_do_not_matter() {
        for scale in [1e-30, 1e30] {
            let scores = rule([1, 2], &[3.0 * scale, 4.0 * scale]).unwrap().scores(&[4.0 * scale, 3.0 * scale]);
            assert!((scores[0] - 0.96).abs() < 1e-6, "{scores:?}");
        }
    }

    #[test]
    fn half_precision_is_read() {
        let halves = [0.6f32, 0.8].map(half::f16::from_f32);
        let scores = Cosine::new(Tensor::from_slice(&[1, 2], &halves).unwrap()).unwrap().scores(&[0.6, 0.8]);
        assert!((scores[0] - 1.0).abs() < 1e-3);
    }

    #[test]
    fn tables_without_a_direction_are_refused() {
        for (shape, values) in [([1, 2], [0.0, 0.0]), ([1, 2], [1.0, f32::NAN]), ([2, 1], [1.0, f32::INFINITY])] {
            assert_eq!(rule(shape, &values).unwrap_err().code(), "input.table");
        }
        assert!(Cosine::new(Tensor::from_slice(&[2], &[1.0f32, 2.0]).unwrap()).is_err());
        assert!(Cosine::new(Tensor::from_slice(&[1, 2], &[1i32, 2]).unwrap()).is_err());
        assert!(Cosine::new(Tensor::from_slice::<f32>(&[0, 2], &[]).unwrap()).is_err());
        assert!(rule([1, 2], &[1.0, 2.0]).unwrap().scores(&[0.0, 0.0])[0].is_nan());
    }
}
