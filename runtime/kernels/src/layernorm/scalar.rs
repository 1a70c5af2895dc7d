//! The formula in plain Rust, in f64.

use super::{LayerNorm, Norm};

pub(super) fn layernorm(params: &LayerNorm, x: &[f32], y: &mut [f32]) {
    let len = params.scale.len();
    let mean_of = |f: &dyn Fn(f64) -> f64, row: &[f32]| row.iter().map(|&x| f(f64::from(x))).sum::<f64>() / len as f64;
    for (x, y) in x.chunks_exact(len).zip(y.chunks_exact_mut(len)) {
        let mean = match params.norm {
            Norm::Standard => mean_of(&|x| x, x),
            Norm::RootMeanSquare => 0.0,
        };
        let square = mean_of(&|x| (x - mean) * (x - mean), x);
        let factor = 1.0 / (square + f64::from(params.epsilon)).sqrt();
        for (i, y) in y.iter_mut().enumerate() {
            let bias = params.bias.map_or(0.0, |bias| f64::from(bias[i]));
            *y = ((f64::from(x[i]) - mean) * factor * f64::from(params.scale[i]) + bias) as f32;
        }
    }
}
