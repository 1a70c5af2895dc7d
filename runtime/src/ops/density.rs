//! Where the zeros of a layer are: the density of its weight matrix in blocks, for a picture of it. Devices do not report
//! it.

use skipstone_kernels::conv::Filters;

use super::float_conv::Order;
use crate::operator::Pattern;
use crate::tensor::Tensor;

/// Most blocks on a side.
const SIDE: usize = 16;

/// The density of the weights of so many outputs, in at most 16x16 blocks; `None` if they are not f32, or none.
pub(super) fn pattern(tensor: &Tensor, outputs: usize, order: Order) -> Option<Pattern> {
    let weights = tensor.peek::<f32>()?;
    let outputs_first = matches!(order(&[]), Filters::Oihw(_));
    let inputs = weights.len().checked_div(outputs)?;
    let (stored, columns) = if outputs_first { (outputs, inputs) } else { (inputs, outputs) };
    let (down, across) = (stored.min(SIDE), columns.min(SIDE));
    if down == 0 || across == 0 {
        return None;
    }
    let bound = |block: usize, blocks: usize, all: usize| block * all / blocks;
    let mut density = Vec::with_capacity(down * across);
    for block in 0..down {
        let rows = bound(block, down, stored)..bound(block + 1, down, stored);
        let mut nonzeros = vec![0; across];
        for row in rows.clone() {
            for (at, count) in nonzeros.iter_mut().enumerate() {
                let first = row * columns;
                let part = weights.part(first + bound(at, across, columns)..first + bound(at + 1, across, columns));
                *count += part.iter().filter(|&weight| weight != 0.0).count();
            }
        }
        tensor.evict_part(rows.start * columns * size_of::<f32>()..rows.end * columns * size_of::<f32>());
        let share = |(at, count): (usize, usize)| {
            let elements = rows.len() * (bound(at + 1, across, columns) - bound(at, across, columns));
            count as f32 / elements as f32
        };
        density.extend(nonzeros.into_iter().enumerate().map(share));
    }
    Some(if outputs_first { Pattern { columns: across, density } } else { transposed(across, &density) })
}

/// The picture with its rows as columns.
fn transposed(columns: usize, density: &[f32]) -> Pattern {
    let rows = density.len() / columns;
    let all = (0..columns).flat_map(|column| (0..rows).map(move |row| density[row * columns + column]));
    Pattern { columns: rows, density: all.collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(dims: &[usize], outputs: usize, weights: &[f32], order: Order) -> (usize, Vec<f32>) {
        let tensor = Tensor::from_slice(dims, weights).unwrap();
        let Pattern { columns, density } = pattern(&tensor, outputs, order).unwrap();
        (columns, density)
    }

    #[test]
    fn small_matrices_are_their_own_picture() {
        let weights = [1.0, 0.0, 0.0, 2.0, -0.0, f32::NAN];
        assert_eq!(of(&[2, 3], 2, &weights, |w| Filters::Oihw(w)), (3, vec![1.0, 0.0, 0.0, 1.0, 0.0, 1.0]));
        assert_eq!(of(&[2, 3], 3, &weights, |w| Filters::Io(w)), (2, vec![1.0, 1.0, 0.0, 0.0, 0.0, 1.0]));
        assert_eq!(of(&[1, 1, 1, 1], 1, &[0.0], |w| Filters::Oihw(w)), (1, vec![0.0]));
    }

    /// Regression: a matrix in a batch of one was drawn as a single row.
    #[test]
    fn a_batch_of_one_is_no_axis_of_the_picture() {
        let weights = [1.0, 0.0, 0.0, 2.0, 3.0, 0.0];
        assert_eq!(of(&[1, 2, 3], 2, &weights, |w| Filters::Oihw(w)), (3, vec![1.0, 0.0, 0.0, 1.0, 1.0, 0.0]));
        assert_eq!(of(&[1, 2, 3], 3, &weights, |w| Filters::Io(w)), (2, vec![1.0, 1.0, 0.0, 1.0, 0.0, 0.0]));
    }

    #[test]
    fn blocks_cover_every_weight_once() {
        for (rows, columns) in [(17, 16), (33, 5), (100, 101), (1, 1000)] {
            let weights: Vec<f32> = (0..rows * columns).map(|at| (at % 3) as f32).collect();
            let (across, density) = of(&[rows, columns], rows, &weights, |w| Filters::Oihw(w));
            assert_eq!((across, density.len()), (columns.min(SIDE), rows.min(SIDE) * columns.min(SIDE)));
            let len = |block: usize, blocks: usize, all: usize| (block + 1) * all / blocks - block * all / blocks;
            let counted: f64 = density
                .iter()
                .enumerate()
                .map(|(at, &share)| {
                    let block = (at / across, at % across);
                    let elements = len(block.0, rows.min(SIDE), rows) * len(block.1, across, columns);
                    f64::from(share) * elements as f64
                })
                .sum();
            let nonzeros = weights.iter().filter(|&&weight| weight != 0.0).count();
            assert!((counted - nonzeros as f64).abs() < 1e-2, "{counted} of {nonzeros}");
        }
    }
}
