//! The class in the middle of what a model thinks possible: the Fréchet mean of its probabilities.
//!
//! Loki (<https://arxiv.org/abs/2307.12226>) replaces the most probable class by the one with the smallest expected
//! squared distance, `argmin_y sum_i P_i d(i, y)^2`. A candidate y need not be a class that the model was trained on.
//!
//! Distances come as a matrix, or as Euclidean ones between class embeddings. Of these, a matrix for 100,000 classes
//! would need 40 GB, and is not computed: with the mean `m = sum_i P_i e_i / S` and `S = sum_i P_i`, the sum is
//! `S |e_y - m|^2 + sum_i P_i |e_i - m|^2`, of which no term cancels another.

use std::fmt;

use super::table::{Table, sum};
use crate::error::Result;
use crate::tensor::Tensor;

/// The expected squared distance of each class.
#[derive(Clone, Debug, PartialEq)]
pub struct Frechet(Distances);

#[derive(Clone, Debug, PartialEq)]
enum Distances {
    /// From each class of the model (rows) to each candidate (columns).
    Matrix(Table),
    /// A row for each candidate; the first are the classes of the model.
    Embeddings(Table),
}

impl Frechet {
    /// A rule for distances, a matrix of f32 or f16 with a row for each class of the model and a column for each
    /// candidate.
    ///
    /// # Errors
    /// `input.table` for anything else.
    pub fn of_distances(distances: Tensor) -> Result<Self> {
        Table::new(distances).map(Distances::Matrix).map(Self)
    }

    /// A rule for Euclidean distances between embeddings of f32 or f16, a row for each candidate. The first are the
    /// model's classes, in the order of its output.
    ///
    /// # Errors
    /// `input.table` for anything else.
    pub fn of_embeddings(embeddings: Tensor) -> Result<Self> {
        Table::new(embeddings).map(Distances::Embeddings).map(Self)
    }

    pub(super) fn classes(&self) -> usize {
        match &self.0 {
            Distances::Matrix(distances) => distances.columns,
            Distances::Embeddings(embeddings) => embeddings.rows,
        }
    }

    /// Whether it fits an output of so many elements.
    pub(super) fn takes(&self, outputs: usize) -> bool {
        match &self.0 {
            Distances::Matrix(distances) => distances.rows == outputs,
            Distances::Embeddings(embeddings) => embeddings.rows >= outputs,
        }
    }

    /// Minus the expected squared distances.
    pub(super) fn scores(&self, probabilities: &[f32]) -> Vec<f32> {
        match &self.0 {
            Distances::Matrix(distances) => by_matrix(distances, probabilities),
            Distances::Embeddings(embeddings) => by_embeddings(embeddings, probabilities),
        }
    }
}

fn by_matrix(distances: &Table, probabilities: &[f32]) -> Vec<f32> {
    let mut sums = vec![0.0f64; distances.columns];
    let mut row = vec![0.0; distances.columns];
    for (index, &probability) in probabilities.iter().enumerate().filter(|(_, probability)| **probability != 0.0) {
        distances.read(index, &mut row);
        let add = |(sum, &distance): (&mut f64, &f32)| {
            *sum += f64::from(probability) * f64::from(distance).powi(2);
        };
        sums.iter_mut().zip(&row).for_each(add);
    }
    sums.into_iter().map(|sum| -sum as f32).collect()
}

fn by_embeddings(embeddings: &Table, probabilities: &[f32]) -> Vec<f32> {
    let total: f64 = probabilities.iter().map(|&probability| f64::from(probability)).sum();
    let mut row = vec![0.0; embeddings.columns];
    let mut mean = vec![0.0f64; embeddings.columns];
    let likely = || probabilities.iter().enumerate().filter(|(_, probability)| **probability != 0.0);
    for (index, &probability) in likely() {
        embeddings.read(index, &mut row);
        let share = f64::from(probability) / total;
        mean.iter_mut().zip(&row).for_each(|(mean, &value)| *mean += share * f64::from(value));
    }
    let mean: Vec<f32> = mean.into_iter().map(|value| value as f32).collect();
    let mut distance = |index| {
        embeddings.read(index, &mut row);
        f64::from(sum(&row, &mean, |value, mean| (value - mean) * (value - mean)))
    };
    let spread: f64 = likely().map(|(index, &probability)| f64::from(probability) * distance(index)).sum();
    (0..embeddings.rows).map(|index| -(total * distance(index) + spread) as f32).collect()
}

impl fmt::Display for Frechet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            Distances::Matrix(Table { rows, columns, .. }) => {
                write!(f, "Fréchet mean by distances from {rows} to {columns} classes")
            }
            Distances::Embeddings(Table { rows, columns, .. }) => {
                write!(f, "Fréchet mean by distances between {rows} embeddings of {columns} elements")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::super::top_k;
    use super::*;

    fn matrix(shape: [usize; 2], values: &[f32]) -> Frechet {
        Frechet::of_distances(Tensor::from_slice(&shape, values).unwrap()).unwrap()
    }

    fn embeddings(shape: [usize; 2], values: &[f32]) -> Frechet {
        Frechet::of_embeddings(Tensor::from_slice(&shape, values).unwrap()).unwrap()
    }

    fn best(scores: &[f32]) -> usize {
        top_k(scores, 1)[0].index
    }

    /// Classes 0, 1 and 2 in a line: if the outer ones are equally probable, the middle one is the answer, though its
    /// own probability is the lowest.
    #[test]
    fn the_middle_of_a_line_wins() {
        let line = matrix([3, 3], &[0.0, 1.0, 2.0, 1.0, 0.0, 1.0, 2.0, 1.0, 0.0]);
        let scores = line.scores(&[0.45, 0.1, 0.45]);
        let want = [-(0.1 + 0.45 * 4.0), -0.9, -(0.45 * 4.0 + 0.1)];
        assert!(scores.iter().zip(want).all(|(got, want)| (got - want).abs() < 1e-6), "{scores:?}");
        assert_eq!(best(&scores), 1);
        assert_eq!(best(&line.scores(&[0.9, 0.05, 0.05])), 0);
    }

    #[test]
    fn a_class_without_an_output_can_win() {
        let unseen = matrix([2, 3], &[0.0, 2.0, 1.0, 2.0, 0.0, 1.0]);
        assert_eq!(best(&unseen.scores(&[0.5, 0.5])), 2);
        let unseen = embeddings([3, 2], &[-1.0, 0.0, 1.0, 0.0, 0.0, 0.1]);
        assert!(unseen.takes(2) && unseen.takes(3) && !unseen.takes(4));
        assert_eq!(best(&unseen.scores(&[0.5, 0.5])), 2);
    }

    #[test]
    fn embeddings_give_what_their_distances_give() {
        let mut state = 5u32;
        let mut random = || {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) as f32 / (1 << 24) as f32
        };
        for (classes, candidates, width) in [(1, 1, 1), (2, 2, 3), (5, 9, 17), (30, 30, 8)] {
            // Far from the origin, where the expanded square would lose all digits.
            let table: Vec<f32> = (0..candidates * width).map(|_| 1000.0 + random()).collect();
            let point = |at: usize| &table[at * width..(at + 1) * width];
            let squared = |a: usize, b: usize| -> f64 {
                point(a).iter().zip(point(b)).map(|(a, b)| (f64::from(*a) - f64::from(*b)).powi(2)).sum()
            };
            let weights: Vec<f32> = (0..classes).map(|_| random()).collect();
            let total: f32 = weights.iter().sum();
            let probabilities: Vec<f32> = weights.iter().map(|weight| weight / total).collect();
            let got = embeddings([candidates, width], &table).scores(&probabilities);
            for (y, got) in got.into_iter().enumerate() {
                let want: f64 = (0..classes).map(|i| f64::from(probabilities[i]) * squared(i, y)).sum();
                assert!((f64::from(-got) - want).abs() < 1e-3 * want + 1e-3, "{got} is not {want}");
            }
        }
    }

    #[test]
    fn one_class_ties_with_nothing_and_equal_classes_tie() {
        assert_eq!(embeddings([1, 2], &[3.0, 4.0]).scores(&[1.0]), [-0.0]);
        let scores = embeddings([3, 1], &[1.0, 1.0, 2.0]).scores(&[0.0, 0.0, 1.0]);
        assert_eq!((scores[0], best(&scores)), (scores[1], 2));
        assert_eq!(best(&matrix([1, 3], &[1.0, 1.0, 1.0]).scores(&[1.0])), 0);
    }

    #[test]
    fn a_hundred_thousand_classes_are_few() {
        let count = 100_000;
        let table: Vec<f32> = (0..count).flat_map(|at| [at as f32 / count as f32, 1.0]).collect();
        let mut probabilities = vec![0.0; count];
        (probabilities[20_000], probabilities[80_000]) = (0.75, 0.25);
        // The expected distances of the mean's neighbors differ from its own by less than f32 can tell.
        let mean = best(&embeddings([count, 2], &table).scores(&probabilities));
        assert!(mean.abs_diff(35_000) < 9, "{mean}");
    }

    #[test]
    fn half_precision_is_read_and_nan_refused() {
        let halves = [0.0f32, 1.5, 1.5, 0.0].map(half::f16::from_f32);
        let rule = Frechet::of_distances(Tensor::from_slice(&[2, 2], &halves).unwrap()).unwrap();
        assert_eq!(rule.scores(&[0.25, 0.75]), [-1.6875, -0.5625]);
        let nan = Tensor::from_slice(&[1, 1], &[f32::NAN]).unwrap();
        assert_eq!(Frechet::of_distances(nan).unwrap_err().code(), "input.table");
    }
}
