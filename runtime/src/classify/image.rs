//! A decoded image, and its resampling.
//!
//! Classifiers are trained on carefully downscaled images: every source pixel contributes in proportion to its overlap
//! with the new one ("antialias"). The same is done here, in the fixed-point steps of Pillow and torchvision, so that a
//! model sees on the device exactly the bytes it was trained on. Only the part that a crop keeps is computed: memory is
//! bounded by the crop, even for a very long image.

use crate::vision::{Filter, Interpolation, PixelWindow, taps};

/// A borrowed RGB image: 8 bits per channel, interleaved, rows from the top.
#[derive(Clone, Copy, Debug)]
pub struct Image<'a> {
    width: usize,
    height: usize,
    rgb: &'a [u8],
}

impl<'a> Image<'a> {
    /// An image over `rgb`; `None` if a side is 0 or `rgb` is not `width * height * 3` bytes.
    #[must_use]
    pub fn new(width: usize, height: usize, rgb: &'a [u8]) -> Option<Self> {
        let bytes = width.checked_mul(height)?.checked_mul(3)?;
        (bytes > 0 && bytes == rgb.len()).then_some(Self { width, height, rgb })
    }

    /// Pixels in a row.
    #[must_use]
    pub fn width(&self) -> usize {
        self.width
    }

    /// Rows.
    #[must_use]
    pub fn height(&self) -> usize {
        self.height
    }

    fn row(&self, y: usize) -> &'a [u8] {
        &self.rgb[y * self.width * 3..][..self.width * 3]
    }
}

/// The pixels of `image`, resized to `across.scaled` by `down.scaled`, inside both windows; interleaved RGB, `down.len`
/// rows of `across.len` pixels.
pub(super) fn resample(image: Image<'_>, across: PixelWindow, down: PixelWindow, by: Interpolation) -> Vec<u8> {
    let columns = fixed_taps(image.width, across, by);
    let rows = fixed_taps(image.height, down, by);
    // Across first, for the source rows that the second pass reads.
    let first = rows.iter().map(|t| t.first).min().unwrap_or(0);
    let last = rows.iter().map(|t| t.first + t.weights.len()).max().unwrap_or(0);
    let stride = across.len * 3;
    let mut narrow = vec![0u8; (last - first) * stride];
    for (y, line) in (first..last).zip(narrow.chunks_exact_mut(stride)) {
        let source = image.row(y);
        for (taps, pixel) in columns.iter().zip(line.chunks_exact_mut(3)) {
            let mut sums = [HALF; 3];
            for (weight, rgb) in taps.weights.iter().zip(source[taps.first * 3..].chunks_exact(3)) {
                for (sum, &channel) in sums.iter_mut().zip(rgb) {
                    *sum += weight * i32::from(channel);
                }
            }
            for (out, sum) in pixel.iter_mut().zip(sums) {
                *out = to_byte(sum);
            }
        }
    }
    let mut out = vec![0u8; down.len * stride];
    let mut sums = vec![0i32; stride];
    for (taps, line) in rows.iter().zip(out.chunks_exact_mut(stride)) {
        sums.fill(HALF);
        for (weight, source) in taps.weights.iter().zip(narrow[(taps.first - first) * stride..].chunks_exact(stride)) {
            for (sum, &channel) in sums.iter_mut().zip(source) {
                *sum += weight * i32::from(channel);
            }
        }
        for (out, &sum) in line.iter_mut().zip(&sums) {
            *out = to_byte(sum);
        }
    }
    out
}

/// Fraction bits of a weight: weights sum to about 1, which leaves 8 bits for the channel, and one for the weights of
/// either sign, whose magnitudes sum to less than 1.6.
const FRACTION: u32 = 22;
/// One half, for rounding.
const HALF: i32 = 1 << (FRACTION - 1);

fn to_byte(sum: i32) -> u8 {
    (sum >> FRACTION).clamp(0, 255) as u8
}

/// The source pixels of one new pixel.
struct Taps {
    first: usize,
    weights: Vec<i32>,
}

/// Taps in fixed point for each pixel of the window.
fn fixed_taps(source: usize, window: PixelWindow, by: Interpolation) -> Vec<Taps> {
    let fixed = |weight: &f64| (weight * f64::from(1 << FRACTION)).round() as i32;
    let taps = taps(source, window, by, Filter::new(by)).into_iter();
    taps.map(|tap| Taps { first: tap.first, weights: tap.weights.iter().map(fixed).collect() }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn noise(width: usize, height: usize) -> Vec<u8> {
        let mut state = (width * 31 + height) as u32;
        (0..width * height * 3)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect()
    }

    /// The filters as functions of the distance in pixels of the smaller image.
    fn filter(by: Interpolation, x: f64) -> f64 {
        let sinc = |x: f64| if x == 0.0 { 1.0 } else { (x * std::f64::consts::PI).sin() / (x * std::f64::consts::PI) };
        match (by, x.abs()) {
            (Interpolation::Bilinear | Interpolation::Linear, x) => (1.0 - x).max(0.0),
            (Interpolation::Bicubic, x) if x <= 1.0 => 1.5 * x.powi(3) - 2.5 * x.powi(2) + 1.0,
            (Interpolation::Bicubic, x) if x <= 2.0 => -0.5 * x.powi(3) + 2.5 * x.powi(2) - 4.0 * x + 2.0,
            (Interpolation::Lanczos, x) if x <= 3.0 => sinc(x) * sinc(x / 3.0),
            (Interpolation::Bicubic | Interpolation::Lanczos, _) => 0.0,
            (Interpolation::Box | Interpolation::Nearest, _) => f64::from(-0.5 < x && x <= 0.5),
        }
    }

    /// The definition, in floating point and in two dimensions at once.
    fn plain(image: Image<'_>, scaled: (usize, usize), by: Interpolation, x: usize, y: usize, channel: usize) -> f64 {
        let axis = |source: usize, scaled: usize, at: usize| -> Vec<f64> {
            let scale = source as f64 / scaled as f64;
            let antialias = !matches!(by, Interpolation::Nearest | Interpolation::Linear);
            let unit = if antialias { scale.max(1.0) } else { 1.0 };
            let center = (at as f64 + 0.5) * scale;
            let raw: Vec<f64> = (0..source).map(|i| filter(by, (i as f64 + 0.5 - center) / unit)).collect();
            let total: f64 = raw.iter().sum();
            raw.into_iter().map(|w| w / total).collect()
        };
        let (across, down) = (axis(image.width, scaled.0, x), axis(image.height, scaled.1, y));
        let mut sum = 0.0;
        for (j, v) in down.iter().enumerate() {
            for (i, w) in across.iter().enumerate() {
                sum += v * w * f64::from(image.rgb[(j * image.width + i) * 3 + channel]);
            }
        }
        sum
    }

    #[test]
    fn resampling_is_the_filters_sum() {
        let sizes = [((7, 5), (3, 4)), ((1, 1), (4, 3)), ((33, 17), (8, 17)), ((5, 6), (11, 13)), ((64, 3), (2, 2))];
        for (by, ((w, h), scaled)) in Interpolation::ALL.into_iter().flat_map(|by| sizes.map(|size| (by, size))) {
            let rgb = noise(w, h);
            let image = Image::new(w, h, &rgb).unwrap();
            let across = PixelWindow { scaled: scaled.0, start: scaled.0 / 3, len: scaled.0 - scaled.0 / 3 };
            let down = PixelWindow { scaled: scaled.1, start: scaled.1 / 4, len: scaled.1 - scaled.1 / 4 - 1 };
            let got = resample(image, across, down, by);
            assert_eq!(got.len(), across.len * down.len * 3);
            for y in 0..down.len {
                for x in 0..across.len {
                    for c in 0..3 {
                        let want = plain(image, scaled, by, x + across.start, y + down.start, c);
                        let got = f64::from(got[(y * across.len + x) * 3 + c]);
                        // Two roundings to bytes. Where a filter overshoots, the limits of a byte are another, and of
                        // noise they cut off much.
                        let cut = if by.overshoots() { 40.0 } else { 1.01 };
                        assert!(
                            (got - want.clamp(0.0, 255.0)).abs() <= cut,
                            "{by:?} {w}x{h} to {scaled:?} at {x},{y},{c}: {got} {want}"
                        );
                    }
                }
            }
        }
    }

    /// Without noise nothing is cut off, so that the filters with negative weights can be compared exactly.
    #[test]
    fn smooth_images_are_resampled_to_within_two_roundings() {
        let (w, h) = (40, 30);
        let level =
            |x: usize, y: usize, c: usize| 128.0 + 60.0 * (0.3 * x as f64 + c as f64).sin() * (0.2 * y as f64).cos();
        let rgb: Vec<u8> = (0..w * h * 3).map(|i| level(i / 3 % w, i / 3 / w, i % 3).round() as u8).collect();
        let image = Image::new(w, h, &rgb).unwrap();
        let whole = |len| PixelWindow { scaled: len, start: 0, len };
        for (by, (across, down)) in
            Interpolation::ALL.into_iter().flat_map(|by| [(17, 11), (40, 7), (52, 31)].map(|size| (by, size)))
        {
            let got = resample(image, whole(across), whole(down), by);
            for (i, got) in got.into_iter().enumerate() {
                let want = plain(image, (across, down), by, i / 3 % across, i / 3 / across, i % 3);
                assert!((f64::from(got) - want).abs() <= 1.3, "{by:?} to {across}x{down} at {i}: {got} {want}");
            }
        }
    }

    /// The sums of [`resample`] stay within 32 bits.
    #[test]
    fn weights_have_bounded_magnitudes() {
        for by in Interpolation::ALL {
            for (source, scaled) in (1..14).flat_map(|source| (1..40).map(move |scaled| (source, scaled))) {
                for taps in fixed_taps(source, PixelWindow { scaled, start: 0, len: scaled }, by) {
                    let total: i64 = taps.weights.iter().map(|&weight| i64::from(weight).abs()).sum();
                    assert!(total <= (1.6 * f64::from(1 << FRACTION)) as i64, "{by:?} {source} to {scaled}: {total}");
                }
            }
        }
    }

    #[test]
    fn the_same_size_is_the_same_image() {
        let rgb = noise(6, 4);
        let whole = |len| PixelWindow { scaled: len, start: 0, len };
        for by in Interpolation::ALL {
            assert_eq!(resample(Image::new(6, 4, &rgb).unwrap(), whole(6), whole(4), by), rgb, "{by:?}");
        }
    }

    #[test]
    fn a_long_thin_image_costs_only_its_crop() {
        let rgb = noise(1, 30_000);
        let across = PixelWindow { scaled: 224, start: 0, len: 224 };
        let down = PixelWindow { scaled: 30_000 * 224, start: 3_000_000, len: 224 };
        assert_eq!(
            resample(Image::new(1, 30_000, &rgb).unwrap(), across, down, Interpolation::Bicubic).len(),
            224 * 224 * 3
        );
    }

    #[test]
    fn an_image_must_fill_its_size() {
        assert!(Image::new(2, 2, &[0; 12]).is_some());
        assert!(Image::new(2, 2, &[0; 11]).is_none());
        assert!(Image::new(0, 2, &[]).is_none());
        assert!(Image::new(usize::MAX, 2, &[0; 6]).is_none());
    }
}
