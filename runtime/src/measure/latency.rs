//! Statistics of repeated runs.

use std::time::Duration;

use serde::Serialize;

/// Latency of a set of runs, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
pub struct Latency {
    /// The fastest run.
    pub min: f64,
    /// The median.
    pub p50: f64,
    /// The 90th percentile.
    pub p90: f64,
    /// The 99th percentile.
    pub p99: f64,
    /// The slowest run.
    pub max: f64,
    /// The arithmetic mean.
    pub mean: f64,
}

impl Latency {
    /// Statistics of `runs`; `None` if there are none. Percentiles are interpolated between runs (NumPy's `linear`
    /// method).
    #[must_use]
    pub fn of(runs: &[Duration]) -> Option<Self> {
        let mut ms: Vec<f64> = runs.iter().map(|run| run.as_secs_f64() * 1e3).collect();
        ms.sort_unstable_by(f64::total_cmp);
        let (&min, &max) = (ms.first()?, ms.last()?);
        let mean = ms.iter().sum::<f64>() / ms.len() as f64;
        let percentile = |p: f64| {
            let at = p * (ms.len() - 1) as f64;
            let below = ms.get(at as usize).copied().unwrap_or(max);
            let above = ms.get(at as usize + 1).copied().unwrap_or(max);
            below + (above - below) * at.fract()
        };
        Some(Self { min, p50: percentile(0.5), p90: percentile(0.9), p99: percentile(0.99), max, mean })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(ms: &[u64]) -> Option<Latency> {
        Latency::of(&ms.iter().map(|&ms| Duration::from_millis(ms)).collect::<Vec<_>>())
    }

    #[track_caller]
    fn near(got: f64, want: f64) {
        assert!((got - want).abs() < 1e-9, "{got} is not {want}");
    }

    #[test]
    fn percentiles_are_those_of_numpy() {
        // numpy.percentile([1, 2, 3, 4, 10], [50, 90, 99]) is [3, 7.6, 9.76].
        let got = of(&[4, 1, 10, 2, 3]).unwrap();
        for (got, want) in
            [got.min, got.p50, got.p90, got.p99, got.max, got.mean].into_iter().zip([1.0, 3.0, 7.6, 9.76, 10.0, 4.0])
        {
            near(got, want);
        }
        near(of(&[1, 2]).unwrap().p50, 1.5);
    }

    #[test]
    fn all_statistics_of_one_run_are_equal() {
        let got = of(&[7]).unwrap();
        for got in [got.min, got.p50, got.p90, got.p99, got.max, got.mean] {
            near(got, 7.0);
        }
    }

    #[test]
    fn no_runs_have_no_statistics() {
        assert_eq!(of(&[]), None);
    }
}
