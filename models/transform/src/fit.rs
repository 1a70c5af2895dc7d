//! Least squares: the linear map with bias from the channels of one tensor to those of another.

use crate::observe::rows;

/// Most positions of a sample that are used, evenly spaced: neighbors say much the same.
const POSITIONS: usize = 64;

/// This share of the mean square of an input is added to each: what decides where inputs are multiples of each other.
const RIDGE: f64 = 1e-6;

/// Whether so many samples with so many positions each determine a map of `inner` inputs.
pub(crate) fn suffices(positions: usize, samples: usize, inner: usize) -> bool {
    positions.min(POSITIONS).saturating_mul(samples) > inner + 1
}

/// A map that is being fitted: the products of inputs and outputs, summed over positions.
#[derive(Clone, Debug)]
pub(crate) struct Fit {
    inner: usize,
    outer: usize,
    /// Inputs by inputs, a constant 1 being the last input; only what is on and left of the diagonal.
    gram: Vec<f64>,
    /// Inputs by outputs.
    cross: Vec<f64>,
    /// The sum of the squares of all outputs.
    squares: f64,
    places: usize,
    /// Positions by channels, of the sample that is being shown.
    shown: [Vec<f32>; 2],
}

/// A map that was fitted.
#[derive(Clone, Debug)]
pub(crate) struct Stitch {
    /// Inputs by outputs.
    pub weights: Vec<f32>,
    pub bias: Vec<f32>,
    /// The share of the variance of the outputs that is left.
    pub unexplained: f64,
}

impl Fit {
    pub fn new([inner, outer]: [usize; 2]) -> Self {
        let (gram, cross) = (vec![0.0; (inner + 1).pow(2)], vec![0.0; (inner + 1) * outer]);
        Self { inner, outer, gram, cross, squares: 0.0, places: 0, shown: Default::default() }
    }

    /// Takes a tensor of inputs (side 0) or outputs (side 1), whose channels are along `axis`.
    pub fn show(&mut self, side: usize, dims: &[usize], axis: usize, values: &[f32]) {
        self.shown[side] = rows(dims, values, axis, POSITIONS);
    }

    /// Adds the sample that was shown.
    pub fn add(&mut self) {
        let [x, y] = std::mem::take(&mut self.shown);
        self.add_rows(&x, &y);
    }

    /// Adds rows of inputs and the rows of outputs that belong to them.
    pub fn add_rows(&mut self, x: &[f32], y: &[f32]) {
        let size = self.inner + 1;
        for (x, y) in x.chunks_exact(self.inner).zip(y.chunks_exact(self.outer)) {
            let x: Vec<f64> = x.iter().map(|&v| f64::from(v)).chain([1.0]).collect();
            for (i, &a) in x.iter().enumerate() {
                self.gram[i * size..][..=i].iter_mut().zip(&x).for_each(|(sum, b)| *sum += a * b);
                self.cross[i * self.outer..][..self.outer]
                    .iter_mut()
                    .zip(y)
                    .for_each(|(sum, &b)| *sum += a * f64::from(b));
            }
            self.squares += y.iter().map(|&v| f64::from(v).powi(2)).sum::<f64>();
            self.places += 1;
        }
    }

    /// The map with the least squared error; `None` if there are not more positions than inputs, or values that are not
    /// finite.
    pub fn solve(mut self) -> Option<Stitch> {
        let (size, outer) = (self.inner + 1, self.outer);
        if self.places <= size {
            return None;
        }
        for i in 0..self.inner {
            self.gram[i * size + i] += RIDGE * self.gram[i * size + i] + f64::MIN_POSITIVE.sqrt();
        }
        let mut map = self.cross.clone();
        solve(&mut self.gram, &mut map, size, outer)?;
        let explained: f64 = map.iter().zip(&self.cross).map(|(weight, product)| weight * product).sum();
        let means = &self.cross[self.inner * outer..];
        let around = self.squares - means.iter().map(|sum| sum * sum).sum::<f64>() / self.places as f64;
        let unexplained = ((self.squares - explained) / around.max(f64::MIN_POSITIVE)).clamp(0.0, 1.0);
        let bias = map.split_off(self.inner * outer).into_iter().map(|v| v as f32).collect();
        Some(Stitch { weights: map.into_iter().map(|v| v as f32).collect(), bias, unexplained })
    }
}

/// Solves a symmetric positive system for several right sides, in place, by Cholesky's decomposition of the lower half.
fn solve(matrix: &mut [f64], sides: &mut [f64], size: usize, count: usize) -> Option<()> {
    for i in 0..size {
        for j in 0..=i {
            let (upper, row) = matrix.split_at_mut(i * size);
            let other = if j == i { &row[..j] } else { &upper[j * size..][..j] };
            let sum = row[j] - row[..j].iter().zip(other).map(|(a, b)| a * b).sum::<f64>();
            if j < i {
                row[j] = sum / upper[j * size + j];
            } else if sum > 0.0 && sum.is_finite() {
                row[j] = sum.sqrt();
            } else {
                return None;
            }
        }
    }
    // Forward with the factor, then backward with its transpose.
    for i in 0..size {
        let (above, row) = sides.split_at_mut(i * count);
        let row = &mut row[..count];
        for j in 0..i {
            subtract(row, &above[j * count..][..count], matrix[i * size + j]);
        }
        row.iter_mut().for_each(|value| *value /= matrix[i * size + i]);
    }
    for i in (0..size).rev() {
        let (row, below) = sides[i * count..].split_at_mut(count);
        for j in i + 1..size {
            subtract(row, &below[(j - i - 1) * count..][..count], matrix[j * size + i]);
        }
        row.iter_mut().for_each(|value| *value /= matrix[i * size + i]);
    }
    Some(())
}

/// Subtracts a multiple of another row.
fn subtract(row: &mut [f64], other: &[f64], factor: f64) {
    row.iter_mut().zip(other).for_each(|(value, other)| *value -= factor * other);
}

/// The sum of products, in eight parts at once.
pub(crate) fn dot(a: &[f32], b: &[f32]) -> f32 {
    let mut parts = [0f32; 8];
    let (a, rest_a) = a.as_chunks::<8>();
    let (b, rest_b) = b.as_chunks::<8>();
    for (a, b) in a.iter().zip(b) {
        (0..8).for_each(|i| parts[i] += a[i] * b[i]);
    }
    parts.iter().sum::<f32>() + rest_a.iter().zip(rest_b).map(|(a, b)| a * b).sum::<f32>()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::random::Random;

    #[test]
    fn products_are_summed_with_their_rest() {
        assert!(dot(&[1.0; 11], &[2.0; 11]) == 22.0);
    }

    #[test]
    fn a_linear_map_is_found() {
        for dims in [vec![1, 3, 4, 5], vec![1, 20, 3], vec![20, 3]] {
            let (weights, bias) = ([[1.0, -2.0], [0.5, 0.25], [3.0, 0.0]], [0.75, -1.0]);
            let images = dims.len() == 4;
            let mut random = Random::new(7, "fit");
            let mut fit = Fit::new([3, 2]);
            for _ in 0..3 {
                let x: Vec<f32> = (0..60).map(|_| (random.below(2000) as f32 - 1000.0) / 500.0).collect();
                let at = |place: usize, channel: usize, channels: usize| {
                    if images { channel * 20 + place } else { place * channels + channel }
                };
                let mut y = vec![0.0; 40];
                for (place, out) in (0..20).flat_map(|place| [(place, 0), (place, 1)]) {
                    y[at(place, out, 2)] =
                        bias[out] + (0..3).map(|channel| x[at(place, channel, 3)] * weights[channel][out]).sum::<f32>();
                }
                let axis = if images { 1 } else { dims.len() - 1 };
                let mut of_outputs = dims.clone();
                of_outputs[axis] = 2;
                fit.show(0, &dims, axis, &x);
                fit.show(1, &of_outputs, axis, &y);
                fit.add();
            }
            assert_eq!(fit.places, 60);
            let stitch = fit.solve().unwrap();
            let near = |a: f32, b: f32| (a - b).abs() < 1e-4;
            assert!(stitch.weights.iter().zip(weights.as_flattened()).all(|(&a, &b)| near(a, b)), "{stitch:?}");
            assert!(near(stitch.bias[0], bias[0]) && near(stitch.bias[1], bias[1]), "{stitch:?}");
            assert!(stitch.unexplained < 10.0 * RIDGE, "{stitch:?}");
        }
    }

    #[test]
    fn inputs_that_repeat_each_other_are_no_obstacle() {
        let mut fit = Fit::new([2, 1]);
        let x: Vec<f32> = (0..8).flat_map(|i| [i as f32, i as f32]).collect();
        let y: Vec<f32> = (0..8).map(|i| 2.0 * i as f32 + 1.0).collect();
        fit.show(0, &[8, 2], 1, &x);
        fit.show(1, &[8, 1], 1, &y);
        fit.add();
        let stitch = fit.solve().unwrap();
        assert!(
            (stitch.weights[0] + stitch.weights[1] - 2.0).abs() < 1e-4 && stitch.unexplained < 10.0 * RIDGE,
            "{stitch:?}"
        );
    }

    #[test]
    fn few_positions_are_refused() {
        let mut fit = Fit::new([3, 1]);
        fit.show(0, &[4, 3], 1, &[0.5; 12]);
        fit.show(1, &[4, 1], 1, &[1.0; 4]);
        fit.add();
        assert!(fit.solve().is_none());
        assert!(!suffices(1, 4, 3) && suffices(2, 4, 3) && !suffices(1000, 1, 64));
    }
}
