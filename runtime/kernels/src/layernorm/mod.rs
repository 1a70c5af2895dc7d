//! Layer normalization over the last axes: `y = (x - mean) / sqrt(var + epsilon) * scale + bias`.
//!
//! Mean and variance are computed for each row of `scale.len()` elements. The root-mean-square form omits the mean: `y
//! = x / sqrt(mean(x^2) + epsilon) * scale + bias`. A row stays in the first-level cache, so it can be read three
//! times: computing the variance from the centered elements loses no precision if the mean is large.

mod scalar;
mod vector;

#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::isa::Isa;
use crate::middle_axis::MiddleAxis;
use crate::pace::PIECE;
use crate::parallel;
use crate::reduce::{ReduceFn, reduce};
use crate::simd::dispatch;
use crate::threads::Pool;

/// The divisor of a row.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub enum Norm {
    /// The standard deviation, after the mean has been subtracted.
    Standard,
    /// The root of the mean square; the mean is not subtracted.
    RootMeanSquare,
}

/// The parameters of a layer normalization.
#[derive(Clone, Copy, Debug)]
pub struct LayerNorm<'a> {
    /// The norm.
    pub norm: Norm,
    /// One factor for each element of a row: its length is the length of a row.
    pub scale: &'a [f32],
    /// One addend for each element of a row.
    pub bias: Option<&'a [f32]>,
    /// Added under the root.
    pub epsilon: f32,
}

/// Normalizes every row of `x`.
///
/// # Panics
/// If the length of `x` is not a multiple of the row length, or `y` or the bias have the wrong length.
pub fn layernorm(isa: Isa, params: &LayerNorm, x: &[f32], y: &mut [f32], pool: &Pool) {
    assert_eq!(y.len(), x.len(), "input and output lengths differ");
    if x.is_empty() {
        return;
    }
    let len = params.scale.len();
    assert!(len > 0 && x.len().is_multiple_of(len), "the input is whole rows");
    assert!(params.bias.is_none_or(|bias| bias.len() == len), "one bias for each scale");
    if len > PIECE {
        x.chunks_exact(len).zip(y.chunks_exact_mut(len)).for_each(|(x, y)| long_row(isa, params, x, y, pool));
        return;
    }
    parallel::split(pool, y, len, x.len(), |offset, y| {
        let x = &x[offset..][..y.len()];
        match isa {
            Isa::Scalar => scalar::layernorm(params, x, y),
            _ => dispatch(isa, vector::NormalizedRows { params, x, y }),
        }
    });
}

/// Normalizes a row that takes long, in steps that are each cut into pieces.
fn long_row(isa: Isa, params: &LayerNorm, x: &[f32], y: &mut [f32], pool: &Pool) {
    let &LayerNorm { norm, scale, bias, epsilon } = params;
    let view = MiddleAxis { outer: 1, axis: x.len(), inner: 1 };
    let (mut mean, mut square) = ([0.0], [0.0]);
    if norm == Norm::Standard {
        reduce(isa, ReduceFn::Mean, view, x, &mut mean, pool);
    }
    parallel::split(pool, y, 64, x.len(), |offset, y| {
        y.iter_mut().zip(&x[offset..]).for_each(|(y, x)| *y = x - mean[0]);
    });
    reduce(isa, ReduceFn::SumSquare, view, y, &mut square, pool);
    let factor = 1.0 / (square[0] / x.len() as f32 + epsilon).sqrt();
    parallel::split(pool, y, 64, x.len(), |offset, y| {
        for (i, y) in (offset..).zip(y) {
            *y = *y * factor * scale[i] + bias.map_or(0.0, |bias| bias[i]);
        }
    });
}
