//! DSnoT: exchanges pruned weights for kept ones until the mean output of each filter is restored.
//!
//! Let `M = w * mean(x)`. A filter whose weights `P` are pruned loses `e = sum of M over P` of its mean output. While
//! `|e| > 0.1`, at most 50 times: restore the pruned weight whose `M / var(x)` reduces `e` most, and prune the kept
//! weight with the lowest Wanda score among those whose removal reduces `e`. (Y. Zhang et al., "Dynamic Sparse No
//! Training: Training-Free Fine-tuning for Sparse LLMs", ICLR 2024, equations 2 to 5.)

use crate::layers::Layer;
use crate::observe::Moments;

/// Most exchanges of a filter.
const CYCLES: usize = 50;
/// The error at which to stop.
const ENOUGH: f64 = 0.1;
/// Replaces the variance of a constant input.
const LEAST_VARIANCE: f64 = 1e-12;

/// Exchanges weights of `keep`, which is Wanda's choice by `scores`. With `exchange`, a weight is only exchanged within
/// a group of that many consecutive ones along the depth.
pub(super) fn refine(
    layer: &Layer,
    matrix: &[f32],
    inputs: &Moments,
    scores: &[f32],
    exchange: Option<usize>,
    keep: &mut [bool],
) {
    let width = layer.width();
    for filter in 0..layer.filters {
        let row = filter * width..(filter + 1) * width;
        let (weights, scores) = (&matrix[row.clone()], &scores[row.clone()]);
        let channel = |at: usize| layer.channel(filter, at / layer.taps);
        let means: Vec<f64> = (0..width).map(|at| f64::from(weights[at]) * inputs.mean(channel(at))).collect();
        let variance = |at: usize| inputs.variance(channel(at)).max(LEAST_VARIANCE);
        let group = |at: usize| exchange.map_or(0, |of| at % layer.taps + layer.taps * (at / layer.taps / of));
        refine_row(&means, variance, group, scores, &mut keep[row]);
    }
}

/// Exchanges the weights of one filter, within groups of `group`.
fn refine_row(
    means: &[f64],
    variance: impl Fn(usize) -> f64,
    group: impl Fn(usize) -> usize,
    scores: &[f32],
    keep: &mut [bool],
) {
    let mut error: f64 = means.iter().zip(&*keep).filter(|(_, keep)| !**keep).map(|(mean, _)| mean).sum();
    let began = error.signum();
    // A weight is exchanged at most once.
    let mut settled = vec![false; means.len()];
    for _ in 0..CYCLES {
        if error.abs() <= ENOUGH || error.signum() != began {
            break;
        }
        let gain = |at: usize| began * means[at] / variance(at);
        let grown = (0..means.len()).filter(|&at| !keep[at] && !settled[at] && began * means[at] > 0.0);
        let Some(grown) = grown.max_by(|&a, &b| gain(a).total_cmp(&gain(b)).then(b.cmp(&a))) else { break };
        let goes = (0..means.len())
            .filter(|&at| keep[at] && !settled[at] && began * means[at] < 0.0 && group(at) == group(grown))
            .min_by(|&a, &b| scores[a].total_cmp(&scores[b]));
        settled[grown] = true;
        // If there is no weight to replace it, try the next.
        let Some(goes) = goes else { continue };
        settled[goes] = true;
        (keep[grown], keep[goes]) = (true, false);
        error += means[goes] - means[grown];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_mean_output_is_restored() {
        // 0.5 and 0.2 are pruned: 0.7 is missing. 0.5 is restored, and of the two with negative means the one with the
        // lower score is pruned.
        let means = [0.5, 0.2, -0.1, -0.3, 2.0];
        let mut keep = [false, false, true, true, true];
        refine_row(&means, |_| 1.0, |_| 0, &[0.1, 0.1, 0.9, 0.5, 3.0], &mut keep);
        // 0.7 - 0.5 - 0.3 = -0.1: enough.
        assert_eq!(keep, [true, false, true, false, true]);
    }

    #[test]
    fn weights_stay_in_their_group() {
        let means = [0.5, 0.4, -0.1, -0.3];
        let mut keep = [false, false, true, true];
        refine_row(&means, |_| 1.0, |at| at % 2, &[0.1, 0.1, 0.2, 0.9], &mut keep);
        // 0.9: 0.5 replaces -0.1, which leaves 0.3; 0.4 replaces -0.3.
        assert_eq!(keep, [true, true, false, false]);
    }

    #[test]
    fn inputs_that_vary_less_are_trusted_more() {
        let means = [0.5, 0.4, -0.3];
        let mut keep = [false, false, true];
        refine_row(&means, |at| [10.0, 1.0, 1.0][at], |_| 0, &[0.1, 0.1, 0.2], &mut keep);
        assert_eq!(keep, [false, true, false]);
    }
}
