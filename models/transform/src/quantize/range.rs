//! From the elements of a tensor to the range of its quantized values.

/// How a range is chosen from the observed elements.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Method {
    /// From the minimum to the maximum.
    MinMax,
    /// Without outliers, so that this percentage is inside.
    Percentile(f64),
    /// The range with the least mean squared error of rounding and clipping.
    Mse,
}

/// Scale and zero point.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Scheme {
    pub scale: f32,
    pub zero: u8,
}

/// Bins of a histogram.
const BINS: usize = 2048;
/// Number of ranges to try, from the whole one to a fifth of it.
const TRIALS: usize = 80;

/// The observed elements of a tensor.
#[derive(Clone, Debug)]
pub(super) struct Observed {
    min: f32,
    max: f32,
    /// Histogram between `min` and `max`, from the second round.
    bins: Vec<u64>,
}

impl Default for Observed {
    fn default() -> Self {
        Self { min: f32::INFINITY, max: f32::NEG_INFINITY, bins: Vec::new() }
    }
}

impl Observed {
    /// Adds the elements of a run; returns an element that is not finite, if there is one.
    pub fn add(&mut self, values: &[f32]) -> Result<(), f32> {
        if let Some(&value) = values.iter().find(|value| !value.is_finite()) {
            return Err(value);
        }
        if self.bins.is_empty() {
            self.min = values.iter().fold(self.min, |min, &v| min.min(v));
            self.max = values.iter().fold(self.max, |max, &v| max.max(v));
            return Ok(());
        }
        let per_bin = BINS as f32 / (self.max - self.min).max(f32::MIN_POSITIVE);
        for value in values {
            // Casts saturate: elements outside count in the first and last bin.
            let bin = (((value - self.min) * per_bin) as usize).min(BINS - 1);
            self.bins[bin] += 1;
        }
        Ok(())
    }

    pub fn begin_histogram(&mut self) {
        self.bins = vec![0; BINS];
    }

    /// Scale and zero point of the chosen range; `None` if nothing was observed.
    pub fn scheme(&self, method: Method) -> Option<Scheme> {
        if self.min > self.max {
            return None;
        }
        Some(match method {
            _ if self.bins.iter().all(|&count| count == 0) => scheme(self.min, self.max),
            Method::MinMax => scheme(self.min, self.max),
            Method::Percentile(percent) => {
                let (min, max) = self.percentile(percent);
                scheme(min, max)
            }
            Method::Mse => self.least_error(),
        })
    }

    fn center(&self, bin: usize) -> f32 {
        self.min + (bin as f32 + 0.5) * (self.max - self.min) / BINS as f32
    }

    fn percentile(&self, percent: f64) -> (f32, f32) {
        let total: u64 = self.bins.iter().sum();
        // Half of the excluded share at either end.
        let outside = (total as f64 * (100.0 - percent.clamp(0.0, 100.0)) / 200.0) as u64;
        let cut = |counts: &mut dyn Iterator<Item = &u64>| {
            let mut seen = 0;
            counts
                .take_while(|&&count| {
                    seen += count;
                    seen <= outside
                })
                .count()
        };
        let (first, last) = (cut(&mut self.bins.iter()), BINS - cut(&mut self.bins.iter().rev()));
        let edge = |bin: usize| self.min + bin as f32 * (self.max - self.min) / BINS as f32;
        (edge(first.min(last)), edge(last))
    }

    fn least_error(&self) -> Scheme {
        let error = |scheme: &Scheme| -> f64 {
            let zero = f32::from(scheme.zero);
            let of_bin = |(bin, &count): (usize, &u64)| {
                let x = self.center(bin);
                let byte = ((x / scheme.scale).round_ties_even() + zero).clamp(0.0, 255.0);
                let error = f64::from((byte - zero) * scheme.scale - x);
                error * error * count as f64
            };
            self.bins.iter().enumerate().filter(|(_, count)| **count > 0).map(of_bin).sum()
        };
        let trials = (0..TRIALS).map(|trial| {
            let share = 1.0 - 0.8 * trial as f32 / TRIALS as f32;
            scheme(self.min * share, self.max * share)
        });
        let best = trials.map(|scheme| (error(&scheme), scheme)).min_by(|a, b| a.0.total_cmp(&b.0));
        best.map_or_else(|| scheme(self.min, self.max), |(_, scheme)| scheme)
    }
}

/// Scale and zero point for `min` to `max`. Zero is represented exactly, so that padding is exact.
fn scheme(min: f32, max: f32) -> Scheme {
    let (min, max) = (min.min(0.0), max.max(0.0));
    let scale = (max - min) / 255.0;
    // For a tensor of zeros, or of values too small to divide by.
    let scale = if scale.is_normal() { scale } else { 1.0 };
    Scheme { scale, zero: (-min / scale).round_ties_even().clamp(0.0, 255.0) as u8 }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn observed(values: &[f32]) -> Observed {
        let mut observed = Observed::default();
        observed.add(values).unwrap();
        observed.begin_histogram();
        observed.add(values).unwrap();
        observed
    }

    #[test]
    fn zero_is_represented_exactly() {
        let seen = observed(&[-1.0, 4.1, 0.3]).scheme(Method::MinMax).unwrap();
        assert!((seen.scale - 0.02).abs() < 1e-6 && seen.zero == 50, "{seen:?}");
        assert_eq!(observed(&[0.0, 255.0]).scheme(Method::MinMax), Some(Scheme { scale: 1.0, zero: 0 }));
        assert_eq!(observed(&[2.0, 510.0]).scheme(Method::MinMax), Some(Scheme { scale: 2.0, zero: 0 }));
        assert_eq!(observed(&[0.0, 0.0]).scheme(Method::Mse), Some(Scheme { scale: 1.0, zero: 0 }));
        assert_eq!(Observed::default().scheme(Method::MinMax), None);
        assert_eq!(Observed::default().add(&[f32::INFINITY]), Err(f32::INFINITY));
    }

    #[test]
    fn outliers_are_clipped_on_request() {
        let mut values: Vec<f32> = (0..100_000).map(|i| (i % 1000) as f32 / 1000.0).collect();
        values.push(10.0);
        let seen = observed(&values);
        let whole = seen.scheme(Method::MinMax).unwrap().scale;
        assert!((whole - 10.0 / 255.0).abs() < 1e-6);
        assert!(seen.scheme(Method::Percentile(99.99)).unwrap().scale < whole / 9.0);
        assert!(seen.scheme(Method::Mse).unwrap().scale < whole);
    }
}
