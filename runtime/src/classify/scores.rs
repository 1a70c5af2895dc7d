//! From raw outputs to ranked scores.

use skipstone_kernels::pace::Pace;

use crate::ops::topk::rank;

/// A class and its score.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scored {
    /// Index of the class in the model's output.
    pub index: usize,
    /// Its score.
    pub score: f32,
}

/// Turns logits into probabilities in place: `exp(x - max) / sum`, summed in f64.
///
/// A row with NaN or positive infinity has no probabilities, and becomes all NaN.
pub fn softmax(values: &mut [f32]) {
    let max = values.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let mut total = 0.0;
    for value in values.iter_mut() {
        *value = (*value - max).exp();
        total += f64::from(*value);
    }
    for value in values {
        *value = (f64::from(*value) / total) as f32;
    }
}

/// The `k` best of `scores`, best first; of equal ones the lower index first, NaN last.
#[must_use]
pub fn top_k(scores: &[f32], k: usize) -> Vec<Scored> {
    best(scores.iter().enumerate().map(|(index, &score)| Scored { index, score }).collect(), k)
}

/// The `k` best of `ranked`, in the order of [`top_k`].
pub(super) fn best(ranked: Vec<Scored>, k: usize) -> Vec<Scored> {
    let better = |a: u64, b: u64| {
        let (a, b) = (ranked[a as usize], ranked[b as usize]);
        let by_score = b.score.partial_cmp(&a.score).unwrap_or_else(|| a.score.is_nan().cmp(&b.score.is_nan()));
        by_score.then(a.index.cmp(&b.index))
    };
    let (mut order, k) = (vec![0; ranked.len()], k.min(ranked.len()));
    if k == 0 || rank(&mut order, k, &better, &Pace::free()).is_err() {
        return Vec::new();
    }
    order[..k].iter().map(|&at| ranked[at as usize]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn softmax_is_the_textbook_formula() {
        let logits = [0.5f32, -1.25, 3.0, 2.0, 0.0];
        let mut got = logits;
        softmax(&mut got);
        let sum: f64 = logits.iter().map(|&x| f64::from(x).exp()).sum();
        for (x, p) in logits.iter().zip(got) {
            assert!((f64::from(*x).exp() / sum - f64::from(p)).abs() < 1e-7);
        }
    }

    #[test]
    fn softmax_survives_large_logits_and_one_class() {
        let mut large = [10_000.0, 9_999.0, -10_000.0];
        softmax(&mut large);
        assert!((large[0] - 0.731_058_6).abs() < 1e-6 && large[2] == 0.0);
        let mut one = [42.0];
        softmax(&mut one);
        assert_eq!(one, [1.0]);
        softmax(&mut []);
    }

    #[test]
    fn nan_makes_the_row_nan_but_does_not_panic() {
        for bad in [f32::NAN, f32::INFINITY] {
            let mut row = [1.0, bad, 2.0];
            softmax(&mut row);
            assert!(row.iter().any(|v| v.is_nan()), "{row:?}");
        }
    }

    #[test]
    fn top_k_agrees_with_a_full_sort() {
        let mut state = 9u32;
        for len in [0usize, 1, 2, 7, 100] {
            let scores: Vec<f32> = (0..len)
                .map(|_| {
                    state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                    // Few distinct values, so that ties are common.
                    f32::from((state >> 28) as u8)
                })
                .collect();
            let mut order: Vec<usize> = (0..len).collect();
            order.sort_by(|&a, &b| scores[b].total_cmp(&scores[a]));
            for k in [0, 1, 2, 5, len, len + 3] {
                let got: Vec<usize> = top_k(&scores, k).iter().map(|s| s.index).collect();
                assert_eq!(got, order[..k.min(len)], "len {len}, k {k}");
            }
        }
    }

    #[test]
    fn nan_ranks_last() {
        let ranked = top_k(&[f32::NAN, -1.0, f32::NAN, 2.0, f32::NEG_INFINITY], 5);
        assert_eq!(ranked.iter().map(|s| s.index).collect::<Vec<_>>(), [3, 1, 4, 0, 2]);
    }
}
