//! Scores of weights, as `[filters, depth, taps]`: weights with lower scores are pruned first.

use crate::layers::Layer;
use crate::observe::Moments;
use crate::random::Random;

/// The absolute value.
pub(super) fn magnitude(matrix: &[f32]) -> Vec<f32> {
    matrix.iter().map(|weight| weight.abs()).collect()
}

/// Random; weights that are already zero go first. A layer's scores do not depend on other layers.
pub(super) fn random(matrix: &[f32], layer: &str, seed: u64) -> Vec<f32> {
    let mut random = Random::new(seed, layer);
    matrix.iter().map(|&weight| (1.0 + random.next() as f32) * f32::from(u8::from(weight != 0.0))).collect()
}

/// Wanda: `|w| * |x|`, with the Euclidean norm of the channel that the weight is multiplied by. All taps of a
/// convolution use the norm of the whole channel.
pub(super) fn wanda(layer: &Layer, matrix: &[f32], inputs: &Moments) -> Vec<f32> {
    let norm = |at: usize| {
        let (filter, within) = (at / layer.width(), at % layer.width());
        inputs.norm(layer.channel(filter, within / layer.taps)) as f32
    };
    matrix.iter().enumerate().map(|(at, weight)| weight.abs() * norm(at)).collect()
}
