//! A matrix of floats: class embeddings or distances.

use half::f16;

use super::refused;
use crate::error::Result;
use crate::tensor::{DType, Tensor};

/// A matrix of finite f32 or f16, by rows; its elements stay as they are stored.
#[derive(Clone, Debug)]
pub(super) struct Table {
    values: Tensor,
    pub rows: usize,
    pub columns: usize,
}

impl Table {
    /// A matrix of f32 or f16, neither of whose sides is 0.
    ///
    /// # Errors
    /// `input.table` for another type or shape, and for elements that are not finite.
    pub fn new(values: Tensor) -> Result<Self> {
        let fact = values.fact();
        let (rows, columns) = match (fact.dtype, fact.shape.dims()) {
            (DType::F32 | DType::F16, &[rows, columns]) if rows > 0 && columns > 0 => (rows, columns),
            _ => return Err(refused(format!("the table is {fact}, expected a matrix of f32 or f16"))),
        };
        let table = Self { values, rows, columns };
        let mut row = vec![0.0; columns];
        for index in 0..rows {
            table.read(index, &mut row);
            if !row.iter().all(|value| value.is_finite()) {
                return Err(refused(format!("row {index} of the table has a number that is not finite")));
            }
        }
        Ok(table)
    }

    /// Copies a row to `out`, which has as many elements.
    pub fn read(&self, row: usize, out: &mut [f32]) {
        let range = row * self.columns..(row + 1) * self.columns;
        if let Some(singles) = self.values.elements::<f32>() {
            out.copy_from_slice(&singles[range]);
        } else if let Some(halves) = self.values.elements::<f16>() {
            out.iter_mut().zip(&halves[range]).for_each(|(out, half)| *out = half.to_f32());
        }
    }
}

impl PartialEq for Table {
    fn eq(&self, other: &Self) -> bool {
        self.values.fact() == other.values.fact() && self.values.bytes() == other.values.bytes()
    }
}

/// Partial sums that a compiler keeps in one vector register.
const LANES: usize = 8;

/// The sum of `of(a, b)` over two lists of the same length.
pub(super) fn sum(a: &[f32], b: &[f32], of: impl Fn(f32, f32) -> f32) -> f32 {
    let mut lanes = [0.0; LANES];
    let (a, b) = (a.chunks_exact(LANES), b.chunks_exact(LANES));
    let rest = a.remainder().iter().zip(b.remainder()).map(|(&a, &b)| of(a, b)).sum::<f32>();
    for (a, b) in a.zip(b) {
        for ((lane, &a), &b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += of(a, b);
        }
    }
    lanes.iter().sum::<f32>() + rest
}
