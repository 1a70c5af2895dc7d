//! Both norms on every instruction set, against the formula in f64.

use super::*;
use crate::guard::Guarded;
use crate::testing::{Random, assert_close, everywhere, unwritten};

fn expected(params: &LayerNorm, x: &[f32]) -> Vec<f32> {
    let n = params.scale.len();
    x.chunks(n)
        .flat_map(|row| {
            let row: Vec<f64> = row.iter().map(|&x| f64::from(x)).collect();
            let mean = match params.norm {
                Norm::Standard => row.iter().sum::<f64>() / n as f64,
                Norm::RootMeanSquare => 0.0,
            };
            let variance = row.iter().map(|x| (x - mean).powi(2)).sum::<f64>() / n as f64;
            let deviation = (variance + f64::from(params.epsilon)).sqrt();
            let bias = |i: usize| params.bias.map_or(0.0, |bias| f64::from(bias[i]));
            let normal = |(i, x): (usize, &f64)| (x - mean) / deviation * f64::from(params.scale[i]) + bias(i);
            row.iter().enumerate().map(|at| normal(at) as f32).collect::<Vec<_>>()
        })
        .collect()
}

#[test]
fn rows_are_normalized() {
    let mut random = Random::new(10);
    everywhere(|isa, pool, edge| {
        for case in 0..40 {
            let (rows, n) = if case == 0 { (197, 384) } else { (random.below(4), random.length()) };
            // A mean far from zero reveals precision lost to cancellation.
            let offset = if case % 2 == 0 { 50.0 } else { 0.0 };
            let x: Vec<f32> = random.numbers(rows * n, 3.0).iter().map(|x| x + offset).collect();
            let x = Guarded::new(&x, edge);
            let scale = Guarded::new(&random.numbers(n, 2.0), edge);
            let bias = Guarded::new(&random.numbers(n, 2.0), edge);
            for norm in [Norm::Standard, Norm::RootMeanSquare] {
                for bias in [Some(&*bias), None] {
                    let params = LayerNorm { norm, scale: &scale, bias, epsilon: 1e-5 };
                    let mut y = unwritten(x.len(), edge);
                    layernorm(isa, &params, &x, &mut y, pool);
                    // One unit in the last place of the mean (4e-6 for 50) over a deviation that may be small.
                    let tolerance = if n < 4 { 5e-3 } else { 2e-4 };
                    let tolerance = if offset == 0.0 && n >= 4 { 2e-6 } else { tolerance };
                    assert_close(&y, &expected(&params, &x), tolerance, &format!("{norm:?} {rows}x{n} {isa}"));
                }
            }
        }
    });
}

#[test]
fn long_rows_are_normalized() {
    let (mut random, pool, n) = (Random::new(11), Pool::new(2), PIECE + 5);
    let x: Vec<f32> = random.numbers(2 * n, 3.0).iter().map(|x| x + 1.0).collect();
    let (scale, bias) = (random.numbers(n, 2.0), random.numbers(n, 2.0));
    for norm in [Norm::Standard, Norm::RootMeanSquare] {
        let params = LayerNorm { norm, scale: &scale, bias: Some(&bias), epsilon: 1e-5 };
        let want = expected(&params, &x);
        for isa in Isa::available() {
            let mut y = vec![0.0; x.len()];
            layernorm(isa, &params, &x, &mut y, &pool);
            assert_close(&y, &want, 1e-5, &format!("{norm:?} {isa}"));
        }
    }
}
