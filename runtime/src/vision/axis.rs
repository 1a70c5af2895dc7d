//! Resampling along one axis: the triangle filter of Pillow and torchvision.

use skipstone_kernels::frame::Tap;

/// A window of the pixel grid, along one axis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct PixelWindow {
    /// Length of the axis after resizing.
    pub scaled: usize,
    /// First pixel of the window.
    pub start: usize,
    /// Length of the window.
    pub len: usize,
}

/// Taps of a triangle filter on `source` pixels for each pixel of the window. The triangle reaches one new pixel to
/// each side, or one source pixel if the image is enlarged ("antialias").
pub(crate) fn taps(source: usize, window: PixelWindow) -> Vec<Tap> {
    let scale = source as f64 / window.scaled as f64;
    let reach = scale.max(1.0);
    (window.start..window.start + window.len)
        .map(|at| {
            let center = (at as f64 + 0.5) * scale;
            // Float to integer conversions saturate: positions left of 0 become 0.
            let first = ((center - reach + 0.5) as usize).min(source - 1);
            let end = ((center + reach + 0.5) as usize).clamp(first + 1, source);
            let weight = |x: usize| (1.0 - ((x as f64 - center + 0.5) / reach).abs()).max(0.0);
            let total: f64 = (first..end).map(weight).sum();
            Tap { first, weights: (first..end).map(|x| weight(x) / total).collect() }
        })
        .collect()
}

/// Reverses the taps of an axis of length `len`.
pub(super) fn reversed(len: usize, taps: &mut [Tap]) {
    for tap in taps {
        tap.first = len - tap.first - tap.weights.len();
        tap.weights.reverse();
    }
}

/// The taps for an axis of half the resolution, whose samples each represent two: 2i and 2i + 1.
pub(super) fn halved(taps: &[Tap]) -> Vec<Tap> {
    taps.iter()
        .map(|tap| {
            let first = tap.first / 2;
            let mut weights = vec![0.0; (tap.first + tap.weights.len() - 1) / 2 - first + 1];
            for (i, weight) in tap.weights.iter().enumerate() {
                weights[(tap.first + i) / 2 - first] += weight;
            }
            Tap { first, weights }
        })
        .collect()
}

/// Drops samples with zero weight at the ends of each tap, so that they are not read.
pub(super) fn trimmed(taps: &mut [Tap]) {
    for tap in taps {
        let counts = |weight: &f64| *weight > 0.0;
        let start = tap.weights.iter().position(counts).unwrap_or(0);
        let end = tap.weights.iter().rposition(counts).map_or(start + 1, |last| last + 1);
        tap.first += start;
        tap.weights.truncate(end);
        tap.weights.drain(..start);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tap(first: usize, weights: &[f64]) -> Tap {
        Tap { first, weights: weights.to_vec() }
    }

    #[test]
    fn the_same_size_has_one_tap_per_pixel() {
        let mut same = taps(4, PixelWindow { scaled: 4, start: 1, len: 3 });
        trimmed(&mut same);
        assert_eq!(same, [tap(1, &[1.0]), tap(2, &[1.0]), tap(3, &[1.0])]);
    }

    #[test]
    fn half_the_size_has_four_taps() {
        let half = taps(8, PixelWindow { scaled: 4, start: 1, len: 1 });
        assert_eq!(half, [tap(1, &[0.125, 0.375, 0.375, 0.125])]);
    }

    #[test]
    fn reversed_taps_start_at_the_last_pixel() {
        let mut ends = [tap(0, &[0.7, 0.3]), tap(3, &[1.0])];
        reversed(5, &mut ends);
        assert_eq!(ends, [tap(3, &[0.3, 0.7]), tap(1, &[1.0])]);
    }

    #[test]
    fn two_pixels_share_a_chroma() {
        let halves = halved(&[tap(1, &[0.125, 0.375, 0.25, 0.25]), tap(6, &[1.0])]);
        assert_eq!(halves, [tap(0, &[0.125, 0.625, 0.25]), tap(3, &[1.0])]);
    }
}
