//! Scores of weights, as `[filters, depth, taps]`: weights with lower scores are pruned first.

use crate::layers::Layer;
use crate::observe::Moments;

/// The absolute value.
pub(super) fn magnitude(matrix: &[f32]) -> Vec<f32> {
    matrix.iter().map(|weight| weight.abs()).collect()
}

/// Random; weights that are already zero go first. A layer's scores do not depend on other layers.
pub(super) fn random(matrix: &[f32], layer: &str, seed: u64) -> Vec<f32> {
    let mut state = layer.bytes().fold(seed, |hash, byte| mixed(hash ^ u64::from(byte)));
    let mut next = || {
        state = state.wrapping_add(0x9E37_79B9_7F4A_7C15);
        1.0 + (mixed(state) >> 40) as f32
    };
    matrix.iter().map(|&weight| next() * f32::from(u8::from(weight != 0.0))).collect()
}

/// The finalizer of SplitMix64 (G. Steele, D. Lea and C. Flood, "Fast Splittable Pseudorandom Number Generators", 2014).
fn mixed(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
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
