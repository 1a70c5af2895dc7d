//! Resampling along one axis: the filters of Pillow and torchvision.

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

/// How the pixels of a resized image are made from those of the source. Except for the first two, a filter that shrinks
/// an image reaches over all the pixels under a new one ("antialias"), as in Pillow and torchvision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Interpolation {
    /// The nearest pixel.
    Nearest,
    /// The two nearest pixels of each axis, also if the image is shrunk: OpenCV's and TensorFlow's `bilinear`.
    Linear,
    /// The mean of the pixels under the new one: Pillow's `box`, and nearly OpenCV's `area`.
    Box,
    /// A triangle: the default.
    #[default]
    Bilinear,
    /// A cubic spline with a = -0.5.
    Bicubic,
    /// A sinc within three pixels.
    Lanczos,
}

impl Interpolation {
    /// All of them, in the order of their names.
    pub(crate) const ALL: [Self; 6] =
        [Self::Nearest, Self::Linear, Self::Box, Self::Bilinear, Self::Bicubic, Self::Lanczos];
    pub(crate) const NAMES: [&'static str; 6] = ["nearest", "linear", "box", "bilinear", "bicubic", "lanczos"];

    /// Its name on the command line and in metadata.
    #[must_use]
    pub fn name(self) -> &'static str {
        Self::NAMES[self as usize]
    }

    /// Whether it has negative weights, which camera frames cannot be resized with.
    #[must_use]
    pub fn overshoots(self) -> bool {
        matches!(self, Self::Bicubic | Self::Lanczos)
    }
}

/// The weight of a pixel by its distance from the new one.
#[derive(Clone, Copy)]
pub(crate) struct Filter {
    /// The distance beyond which it is zero.
    pub reach: f64,
    /// The weight.
    pub weight: fn(f64) -> f64,
}

impl Filter {
    /// The filter of an interpolation without negative weights.
    pub(crate) fn positive(by: Interpolation) -> Self {
        match by {
            Interpolation::Nearest | Interpolation::Box => {
                Self { reach: 0.5, weight: |x| f64::from(x > -0.5 && x <= 0.5) }
            }
            _ => Self { reach: 1.0, weight: |x| (1.0 - x.abs()).max(0.0) },
        }
    }

    /// The filter of any interpolation. Only images use it, so that a library for frames is without the others.
    pub(crate) fn new(by: Interpolation) -> Self {
        match by {
            Interpolation::Bicubic => Self { reach: 2.0, weight: cubic },
            Interpolation::Lanczos => {
                Self { reach: 3.0, weight: |x| if x.abs() < 3.0 { sinc(x) * sinc(x / 3.0) } else { 0.0 } }
            }
            by => Self::positive(by),
        }
    }
}

fn cubic(x: f64) -> f64 {
    let x = x.abs();
    if x < 1.0 {
        (1.5 * x - 2.5) * x * x + 1.0
    } else if x < 2.0 {
        ((x - 5.0) * x + 8.0) * x * -0.5 + 2.0
    } else {
        0.0
    }
}

fn sinc(x: f64) -> f64 {
    let x = x * std::f64::consts::PI;
    if x == 0.0 { 1.0 } else { x.sin() / x }
}

/// Taps of a filter on `source` pixels for each pixel of the window.
pub(crate) fn taps(source: usize, window: PixelWindow, by: Interpolation, filter: Filter) -> Vec<Tap> {
    let scale = source as f64 / window.scaled as f64;
    // Source pixels per unit of the filter.
    let unit = if matches!(by, Interpolation::Nearest | Interpolation::Linear) { 1.0 } else { scale.max(1.0) };
    let reach = filter.reach * unit;
    (window.start..window.start + window.len)
        .map(|at| {
            let center = (at as f64 + 0.5) * scale;
            // Float to integer conversions saturate: positions left of 0 become 0.
            let first = ((center - reach + 0.5) as usize).min(source - 1);
            let end = ((center + reach + 0.5) as usize).clamp(first + 1, source);
            let weight = |x: usize| (filter.weight)((x as f64 - center + 0.5) / unit);
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
        for by in Interpolation::ALL {
            let mut same = taps(4, PixelWindow { scaled: 4, start: 1, len: 3 }, by, Filter::positive(by));
            trimmed(&mut same);
            assert_eq!(same, [tap(1, &[1.0]), tap(2, &[1.0]), tap(3, &[1.0])], "{by:?}");
        }
    }

    #[test]
    fn half_the_size_has_four_taps() {
        let half = |by| taps(8, PixelWindow { scaled: 4, start: 1, len: 1 }, by, Filter::new(by));
        assert_eq!(half(Interpolation::Bilinear), [tap(1, &[0.125, 0.375, 0.375, 0.125])]);
        assert_eq!(half(Interpolation::Box), [tap(2, &[0.5, 0.5])]);
        assert_eq!(half(Interpolation::Linear), [tap(2, &[0.5, 0.5])]);
        assert_eq!(half(Interpolation::Nearest), [tap(3, &[1.0])]);
        // Keys' cubic with a = -0.5 at distances 0.25, 0.75, 1.25 and 1.75, in 128ths; the first pixel is outside.
        let cubic = [-9.0, 29.0, 111.0, 111.0, 29.0, -9.0, -3.0].map(|w| w / 259.0);
        assert_eq!(half(Interpolation::Bicubic), [tap(0, &cubic)]);
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
