//! Prepares an image for a model, as the model's metadata says.

use std::collections::BTreeMap;
use std::fmt;

use super::head::{Activation, Origin};
use super::image::{Image, resample};
use crate::error::{Error, Fault, ModelFault, Result};
use crate::tensor::{DType, Fact};
use crate::vision::{ChannelOrder, Converter, Frame, Normal, PixelWindow, TensorSpec};

/// Mean of ImageNet's channels, red first, for values between 0 and 1.
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet's channels.
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// Longest side that an image may be resized to.
const MAX_SIDE: usize = 1 << 15;

/// A caller's settings for preparing images and naming classes; for `None`, the model decides.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Settings {
    /// Subtracted from each channel: one value for all, or one per channel.
    pub mean: Option<Vec<f32>>,
    /// Each channel is then divided by this.
    pub std: Option<Vec<f32>>,
    /// Length that the shorter side is resized to.
    pub resize: Option<usize>,
    /// Side of the square cut from the middle.
    pub crop: Option<usize>,
    /// How the output becomes scores.
    pub activation: Option<Activation>,
    /// The lowest score that is reported.
    pub threshold: Option<f32>,
    /// The only classes that may be reported, by label or as `class 7`; all if empty.
    pub allow: Vec<String>,
    /// Classes that are never reported, by label or as `class 7`; not together with `allow`.
    pub deny: Vec<String>,
    /// Language of the display names, such as `de` or `pt-BR`.
    pub locale: Option<String>,
}

/// The values subtracted from each channel of an image and those it is divided by, and where they were specified.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalization {
    /// Mean of the channels, for values between 0 and 1: one value per channel.
    pub mean: Vec<f32>,
    /// Standard deviation of the channels.
    pub std: Vec<f32>,
    /// Where they were specified; [`Origin::Assumed`] if either is ImageNet's by default.
    pub origin: Origin,
}

impl fmt::Display for Normalization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &[f32]| values.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
        let imagenet = if self.mean == IMAGENET_MEAN && self.std == IMAGENET_STD { " (ImageNet's)" } else { "" };
        write!(f, "mean {}, std {}{imagenet}, {}", list(&self.mean), list(&self.std), self.origin)
    }
}

/// Prepares an image or a camera frame as a model's input: resize (antialiased bilinear) so that the image covers the
/// crop, crop the center, divide by 255, subtract the mean, divide by the standard deviation.
#[derive(Clone, Debug)]
pub struct Preprocess {
    width: usize,
    height: usize,
    channels: usize,
    layout: ChannelOrder,
    resize: usize,
    normal: Normal,
    normalization: Normalization,
    /// For every channel, the result for each of its 256 values.
    tables: Vec<[f32; 256]>,
}

impl Preprocess {
    /// The preparation for a model's only image input `fact`, by `settings` or otherwise by `metadata`.
    ///
    /// # Errors
    /// [`Error::Invalid`]: `model.image-input` if the input is not an f32 image with 1 or 3 channels and batch 1,
    /// `model.metadata` for a value that is invalid or does not match the input.
    pub fn new(fact: &Fact, metadata: &BTreeMap<String, String>, settings: &Settings) -> Result<Self> {
        let (layout, channels, height, width) = image_layout(fact)?;
        let (default_mean, default_std) =
            if channels == 3 { (&IMAGENET_MEAN[..], &IMAGENET_STD[..]) } else { (&[0.0][..], &[1.0][..]) };
        let numbers = |key, own: &Option<Vec<f32>>, default: &[f32]| -> Result<_> {
            Ok(match own {
                Some(own) => (per_channel(key, own.clone(), channels)?, Origin::Caller),
                None => match metadata.get(key) {
                    Some(text) => (per_channel(key, parse_numbers(key, text)?, channels)?, Origin::Metadata),
                    None => (default.to_vec(), Origin::Assumed),
                },
            })
        };
        let (mean, mean_origin) = numbers("skipstone.mean", &settings.mean, default_mean)?;
        let (std, std_origin) = numbers("skipstone.std", &settings.std, default_std)?;
        if std.contains(&0.0) {
            return Err(refused("skipstone.std", "holds a zero, which nothing can be divided by"));
        }

        let side = |key, own: Option<usize>| match own {
            Some(own) => check_side(key, own).map(Some),
            None => metadata.get(key).map(|text| parse_side(key, text)).transpose(),
        };
        let shorter = width.min(height);
        if let Some(crop) = side("skipstone.crop", settings.crop)?
            && (crop, crop) != (height, width)
        {
            return Err(refused("skipstone.crop", &format!("is {crop}, but the model's input is {height}x{width}")));
        }
        let resize = side("skipstone.resize", settings.resize)?.unwrap_or(shorter);
        if resize < shorter {
            return Err(refused("skipstone.resize", &format!("is {resize}, less than the input's side {shorter}")));
        }

        let table = |(&mean, &std): (&f32, &f32)| std::array::from_fn(|value| (value as f32 / 255.0 - mean) / std);
        let tables: Vec<[f32; 256]> = mean.iter().zip(&std).map(table).collect();
        let tiny = std.iter().any(|std| std.abs() < f32::MIN_POSITIVE);
        if tiny || !tables.as_flattened().iter().all(|value| value.is_finite()) {
            return Err(refused("skipstone.std", "and skipstone.mean give values that are not finite"));
        }
        let three = |values: &[f32]| std::array::from_fn(|c| values[c % channels]);
        let normal = Normal { mean: three(&mean), std: three(&std), gray: channels == 1 };
        // The weaker of two origins: if one is only assumed, the result is assumed.
        let weaker = |a: Origin, b: Origin| if a == Origin::Assumed || b == Origin::Caller { a } else { b };
        let normalization = Normalization { mean, std, origin: weaker(mean_origin, std_origin) };
        Ok(Self { width, height, channels, layout, resize, normal, normalization, tables })
    }

    /// The normalization, and where it was specified.
    #[must_use]
    pub fn normalization(&self) -> &Normalization {
        &self.normalization
    }

    /// Number of elements of the input tensor.
    #[must_use]
    pub fn elements(&self) -> usize {
        self.width * self.height * self.channels
    }

    /// Prepares `image`, and returns the elements of the input tensor in order.
    #[must_use]
    pub fn apply(&self, image: Image<'_>) -> Vec<f32> {
        let (across, down) = self.windows(image.width(), image.height());
        let rgb = resample(image, across, down);
        let pixels = self.width * self.height;
        let mut out = vec![0.0; self.elements()];
        for (channel, table) in self.tables.iter().enumerate() {
            let (start, step) = match self.layout {
                ChannelOrder::Planar => (channel * pixels, 1),
                ChannelOrder::Interleaved => (channel, self.channels),
            };
            let values = out.iter_mut().skip(start).step_by(step);
            for (value, pixel) in values.zip(rgb.chunks_exact(3)) {
                let byte = if self.channels == 1 { luma(pixel) } else { pixel[channel] };
                *value = table[usize::from(byte)];
            }
        }
        out
    }

    /// Prepares a camera frame: fills `out` with the elements of the input tensor in order. They differ from the result
    /// of [`apply`](Self::apply) for the same image by its roundings to bytes.
    ///
    /// # Errors
    /// `frame` if `out` has another length than [`elements`](Self::elements).
    pub fn apply_frame(&self, frame: &Frame<'_>, converter: &mut Converter, out: &mut [f32]) -> Result<()> {
        if out.len() != self.elements() {
            let (got, want) = (out.len(), self.elements());
            let message = format!("a frame is prepared into the {want} elements of the model's input, not into {got}");
            return Err(Error::Invalid { fault: Fault::Frame, message });
        }
        let (across, down) = self.windows(frame.width(), frame.height());
        converter.convert(frame, &TensorSpec { across, down, layout: self.layout, normal: self.normal }, out);
        Ok(())
    }

    /// The size that an image is resized to, and the center crop.
    fn windows(&self, width: usize, height: usize) -> (PixelWindow, PixelWindow) {
        // If the model's input is not square, `resize` is the length for its shorter side, and the longer side is
        // resized in proportion.
        let shorter = self.width.min(self.height);
        let cover_width = self.resize * self.width / shorter;
        let cover_height = self.resize * self.height / shorter;
        let (scaled_width, scaled_height) = if wide(width) * wide(cover_height) <= wide(height) * wide(cover_width) {
            (cover_width, proportion(cover_width, height, width))
        } else {
            (proportion(cover_height, width, height), cover_height)
        };
        (middle(scaled_width, self.width), middle(scaled_height, self.height))
    }
}

fn wide(value: usize) -> u128 {
    value as u128
}

/// `side * other / own`, rounded down.
fn proportion(side: usize, other: usize, own: usize) -> usize {
    usize::try_from(wide(side) * wide(other) / wide(own)).unwrap_or(usize::MAX)
}

/// The center `len` of `scaled` pixels; of two possible starts the even one, as in torchvision.
fn middle(scaled: usize, len: usize) -> PixelWindow {
    let over = scaled.saturating_sub(len);
    let start = if over % 4 == 3 { over / 2 + 1 } else { over / 2 };
    PixelWindow { scaled, start, len }
}

/// Luma of an RGB pixel by ITU-R BT.601, in 16-bit fixed point.
fn luma(pixel: &[u8]) -> u8 {
    let [r, g, b] = [pixel[0], pixel[1], pixel[2]].map(u32::from);
    ((r * 19_595 + g * 38_470 + b * 7_471 + 0x8000) >> 16) as u8
}

/// Layout, channels, height and width of an image input.
fn image_layout(fact: &Fact) -> Result<(ChannelOrder, usize, usize, usize)> {
    let refused = |reason: &str| Error::Invalid {
        fault: Fault::Model(ModelFault::ImageInput),
        message: format!("the model's input is {fact}: {reason}"),
    };
    if fact.dtype != DType::F32 {
        return Err(refused("images must be f32"));
    }
    let &[batch, a, b, c] = fact.shape.dims() else {
        return Err(refused("an image input must be 1x3xHxW or 1xHxWx3"));
    };
    let (layout, channels, height, width) = match (a, c) {
        (1 | 3, _) => (ChannelOrder::Planar, a, b, c),
        (_, 1 | 3) => (ChannelOrder::Interleaved, c, a, b),
        _ => return Err(refused("an image must have 1 or 3 channels")),
    };
    if batch != 1 {
        return Err(refused("the batch size must be 1"));
    }
    if !(1..=MAX_SIDE).contains(&height) || !(1..=MAX_SIDE).contains(&width) {
        return Err(refused("its height or width is out of range"));
    }
    Ok((layout, channels, height, width))
}

fn refused(key: &str, reason: &str) -> Error {
    Error::Invalid { fault: Fault::Model(ModelFault::Metadata), message: format!("{key} {reason}") }
}

fn parse_numbers(key: &str, text: &str) -> Result<Vec<f32>> {
    text.split(',')
        .map(|number| parse_number(number.trim()))
        .collect::<Option<_>>()
        .ok_or_else(|| refused(key, &format!("is '{text}', expected numbers separated by commas")))
}

/// A decimal number such as `0.485` or `-1.25e-2`.
///
/// The standard library parses any number to the nearest value, with 12 kB of tables; this gives the nearest value too,
/// unless the text is within 1e-15 of the midpoint between two.
fn parse_number(text: &str) -> Option<f32> {
    let (digits, exponent) = text.split_once(['e', 'E']).unwrap_or((text, "0"));
    let unsigned = digits.strip_prefix(['-', '+']).unwrap_or(digits);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let mut value = 0.0;
    for digit in whole.chars().chain(fraction.chars()) {
        value = value * 10.0 + f64::from(digit.to_digit(10)?);
    }
    let exponent = exponent.parse::<i32>().ok()?.saturating_sub(i32::try_from(fraction.len()).ok()?);
    // Powers of ten are exact up to 22, and beyond 400 all values overflow or vanish.
    let power = 10f64.powi(exponent.saturating_abs().min(400));
    let value = if exponent < 0 { value / power } else { value * power };
    Some(if digits.starts_with('-') { -value as f32 } else { value as f32 })
}

fn per_channel(key: &str, values: Vec<f32>, channels: usize) -> Result<Vec<f32>> {
    if !values.iter().all(|v| v.is_finite()) {
        return Err(refused(key, "holds a number that is not finite"));
    }
    match values.as_slice() {
        &[one] => Ok(vec![one; channels]),
        all if all.len() == channels => Ok(values),
        all => Err(refused(key, &format!("has {} numbers for {channels} channels", all.len()))),
    }
}

fn parse_side(key: &str, text: &str) -> Result<usize> {
    let side = text.trim().parse();
    side.map_err(|_| refused(key, &format!("is '{text}', expected a number of pixels")))
        .and_then(|side| check_side(key, side))
}

fn check_side(key: &str, side: usize) -> Result<usize> {
    if (1..=MAX_SIDE).contains(&side) {
        Ok(side)
    } else {
        Err(refused(key, &format!("is {side}, expected 1 to {MAX_SIDE} pixels")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;

    fn input(dims: &[usize]) -> Fact {
        Fact::new(DType::F32, Shape::new(dims).unwrap())
    }

    fn metadata(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs.iter().map(|(k, v)| (format!("skipstone.{k}"), (*v).to_owned())).collect()
    }

    fn prepare(dims: &[usize], pairs: &[(&str, &str)]) -> Result<Preprocess> {
        Preprocess::new(&input(dims), &metadata(pairs), &Settings::default())
    }

    fn gradient(width: usize, height: usize) -> Vec<u8> {
        (0..width * height * 3).map(|i| (i * 37 % 251) as u8).collect()
    }

    #[test]
    fn normalizations_that_are_not_finite_are_refused() {
        for (key, text) in [("std", "1e-40"), ("std", "1e-38,1,1"), ("mean", "3e38"), ("mean", "-3.4e38")] {
            let other = if key == "std" { ("mean", "9") } else { ("std", "0.1") };
            assert!(prepare(&[1, 3, 4, 4], &[(key, text), other]).is_err(), "{key} {text}");
        }
        assert!(prepare(&[1, 3, 4, 4], &[("mean", "1e10"), ("std", "1e-10")]).is_ok());
    }

    #[test]
    fn numbers_are_read_as_the_standard_library_reads_them() {
        let odd = ["0", "-0", "+.5", "5.", "1e3", "1E-3", "-12.5e+2", "0.00000000000000000000000000000001e30", "1e-45"];
        let odd = odd.into_iter().map(str::to_owned);
        let short = (0..20_000u32).map(|n| format!("{}.{:04}", n / 1000, n * 7919 % 10_000));
        let written = (0..20_000u32).map(|n| f32::from_bits(0x3000_0000 + n * 16_807).to_string());
        for text in odd.chain(short).chain(written) {
            assert_eq!(parse_number(&text), text.parse().ok(), "{text}");
        }
        assert_eq!(parse_number("1e400"), Some(f32::INFINITY));
        for text in ["", ".", "-", "e3", "1e", "1e1.5", "0x1", "1 2", "--1", "1_0", "٣"] {
            assert_eq!(parse_number(text), None, "{text}");
        }
    }

    #[test]
    fn an_image_of_the_input_size_is_only_normalized() {
        let (w, h) = (4, 4);
        let rgb = gradient(w, h);
        let image = Image::new(w, h, &rgb).unwrap();
        let told = [("mean", "0.1, 0.2,0.3"), ("std", "0.5,0.25,2")];
        let (mean, std) = ([0.1, 0.2, 0.3], [0.5, 0.25, 2.0]);
        let nchw = prepare(&[1, 3, h, w], &told).unwrap().apply(image);
        let nhwc = prepare(&[1, h, w, 3], &told).unwrap().apply(image);
        for y in 0..h {
            for x in 0..w {
                for c in 0..3 {
                    let want = (f32::from(rgb[(y * w + x) * 3 + c]) / 255.0 - mean[c]) / std[c];
                    assert_eq!(nchw[(c * h + y) * w + x], want);
                    assert_eq!(nhwc[(y * w + x) * 3 + c], want);
                }
            }
        }
    }

    #[test]
    fn the_middle_is_cut_where_torchvision_cuts_it() {
        // torchvision: int(round((scaled - crop) / 2)), which rounds halves to even.
        for (scaled, crop, start) in [
            (32, 32, 0),
            (33, 32, 0),
            (34, 32, 1),
            (35, 32, 2),
            (256, 224, 16),
            (341, 224, 58),
            (37, 32, 2),
            (39, 32, 4),
        ] {
            assert_eq!(middle(scaled, crop).start, start, "{scaled} to {crop}");
        }
    }

    #[test]
    fn the_shorter_side_is_resized_and_the_longer_follows() {
        let p = prepare(&[1, 3, 224, 224], &[("resize", "256"), ("crop", "224")]).unwrap();
        let sizes = |w, h| {
            let (across, down) = p.windows(w, h);
            (across.scaled, down.scaled)
        };
        assert_eq!(sizes(500, 375), (341, 256));
        assert_eq!(sizes(375, 500), (256, 341));
        assert_eq!(sizes(64, 64), (256, 256));
        assert_eq!(sizes(1, 60_000), (256, 15_360_000));
    }

    #[test]
    fn images_cover_an_input_that_is_not_square() {
        let p = prepare(&[1, 3, 120, 160], &[]).unwrap();
        for (w, h) in [(160, 120), (1000, 1000), (3000, 100), (7, 5000), (161, 121)] {
            let (across, down) = p.windows(w, h);
            assert!(across.scaled >= 160 && down.scaled >= 120, "{w}x{h}: {across:?} {down:?}");
            assert!(across.scaled == 160 || down.scaled == 120, "{w}x{h}: {across:?} {down:?}");
            assert!(across.start + 160 <= across.scaled && down.start + 120 <= down.scaled);
        }
    }

    #[test]
    fn a_gray_model_sees_brightness() {
        let rgb = [255, 255, 255, 0, 0, 0, 255, 0, 0, 0, 255, 0];
        let got = prepare(&[1, 1, 2, 2], &[]).unwrap().apply(Image::new(2, 2, &rgb).unwrap());
        for (got, want) in got.iter().zip([1.0, 0.0, 0.299, 0.587]) {
            assert!((got - want).abs() < 0.5 / 255.0, "{got} {want}");
        }
    }

    /// A synthetic camera image: colors that change slowly, none near the limits.
    fn scene(width: usize, height: usize) -> Vec<u8> {
        let level = |x: usize, y: usize, c: usize| {
            let (x, y) = (x as f64 / width as f64, y as f64 / height as f64);
            128.0 + 90.0 * (5.0 * x + 3.0 * y + c as f64).sin() * (2.0 * y - 4.0 * x).cos()
        };
        let pixels = (0..height).flat_map(|y| (0..width).map(move |x| (x, y)));
        pixels.flat_map(|(x, y)| (0..3).map(move |c| level(x, y, c).round() as u8)).collect()
    }

    /// The image as a camera's NV21 (BT.601, full range), with each block's mean chroma.
    fn nv21(width: usize, height: usize, rgb: &[u8]) -> Vec<u8> {
        let pixel = |x: usize, y: usize| -> [f64; 3] {
            let at = (y.min(height - 1) * width + x.min(width - 1)) * 3;
            [0, 1, 2].map(|c| f64::from(rgb[at + c]))
        };
        let luma = |[r, g, b]: [f64; 3]| 0.299 * r + 0.587 * g + 0.114 * b;
        let mut bytes: Vec<u8> = (0..width * height).map(|i| luma(pixel(i % width, i / width)).round() as u8).collect();
        for (x, y) in (0..height).step_by(2).flat_map(|y| (0..width).step_by(2).map(move |x| (x, y))) {
            let block = [pixel(x, y), pixel(x + 1, y), pixel(x, y + 1), pixel(x + 1, y + 1)];
            let mean: [f64; 3] = std::array::from_fn(|c| block.iter().map(|p| p[c]).sum::<f64>() / 4.0);
            let chroma = |channel: f64, weight: f64| 128.0 + (channel - luma(mean)) / (2.0 - 2.0 * weight);
            bytes.push(chroma(mean[0], 0.299).round() as u8);
            bytes.push(chroma(mean[2], 0.114).round() as u8);
        }
        bytes
    }

    #[test]
    fn a_frame_gives_the_same_tensor_as_its_image() {
        let models = [
            (&[1, 3, 224, 224][..], &[("resize", "256"), ("crop", "224")][..]),
            (&[1, 32, 48, 3], &[]),
            (&[1, 1, 40, 40], &[]),
            (&[1, 3, 61, 61], &[("mean", "0"), ("std", "1")]),
        ];
        for (w, h) in [(321, 243), (40, 61), (160, 240), (7, 300)] {
            let rgb = scene(w, h);
            let bgra: Vec<u8> = rgb.chunks_exact(3).flat_map(|p| [p[2], p[1], p[0], 77]).collect();
            let nv21 = nv21(w, h, &rgb);
            for (dims, told) in models {
                let p = prepare(dims, told).unwrap();
                let mut converter = Converter::new(skipstone_kernels::Isa::detect());
                let want = p.apply(Image::new(w, h, &rgb).unwrap());
                let mut got = vec![0.0; p.elements()];
                // Levels by which the two may differ: the image's two roundings to bytes, and a third for grayscale;
                // for chroma also the frame's own roundings, of three samples, and the detail lost in its blocks.
                let rounding = if p.normal.gray { 1.6 } else { 1.1 };
                let mut near = |frame: &Frame<'_>, levels: f32| {
                    p.apply_frame(frame, &mut converter, &mut got).unwrap();
                    let level = levels / 255.0 / p.normal.std.iter().fold(1.0f32, |a, &b| a.min(b));
                    for (i, (got, want)) in got.iter().zip(&want).enumerate() {
                        assert!((got - want).abs() <= level, "{dims:?} of {w}x{h} at {i}: {got} {want}");
                    }
                };
                near(&Frame::rgb(w, h, &rgb).unwrap(), rounding);
                near(&Frame::bgra(w, h, &bgra).unwrap(), rounding);
                if w > 100 && h > 100 {
                    near(&Frame::nv21(w, h, &nv21).unwrap(), 4.0);
                }
            }
        }
    }

    #[test]
    fn a_frame_of_the_input_size_is_only_normalized() {
        let (w, h) = (5, 4);
        let rgb = gradient(w, h);
        for dims in [[1, 3, h, w], [1, h, w, 3]] {
            let p = prepare(&dims, &[("mean", "0.1, 0.2,0.3"), ("std", "0.5,0.25,2")]).unwrap();
            let want = p.apply(Image::new(w, h, &rgb).unwrap());
            let mut got = vec![0.0; p.elements()];
            p.apply_frame(
                &Frame::rgb(w, h, &rgb).unwrap(),
                &mut Converter::new(skipstone_kernels::Isa::detect()),
                &mut got,
            )
            .unwrap();
            assert!(got.iter().zip(&want).all(|(got, want)| (got - want).abs() < 1e-5), "{got:?} {want:?}");
        }
    }

    #[test]
    fn a_frame_needs_a_buffer_of_the_inputs_size() {
        let p = prepare(&[1, 3, 4, 4], &[]).unwrap();
        let frame = Frame::gray(2, 2, &[1, 2, 3, 4]).unwrap();
        let mut converter = Converter::new(skipstone_kernels::Isa::Scalar);
        for len in [0, 47, 49] {
            let error = p.apply_frame(&frame, &mut converter, &mut vec![0.0; len]).unwrap_err();
            assert_eq!(error.code(), "frame");
            assert!(error.to_string().contains("48"), "{error}");
        }
    }

    #[test]
    fn defaults_are_those_of_imagenet() {
        let got = prepare(&[1, 3, 1, 1], &[]).unwrap().apply(Image::new(1, 1, &[255, 0, 51]).unwrap());
        let want = [(1.0 - 0.485) / 0.229, (0.0 - 0.456) / 0.224, (0.2 - 0.406) / 0.225];
        for (got, want) in got.iter().zip(want) {
            assert!((got - want).abs() < 1e-6);
        }
    }

    /// Regression: ImageNet's normalization was applied silently.
    #[test]
    fn a_normalization_names_its_origin() {
        let origin = |pairs: &[(&str, &str)], settings: &Settings| {
            let p = Preprocess::new(&input(&[1, 3, 8, 8]), &metadata(pairs), settings).unwrap();
            p.normalization().origin.clone()
        };
        let asked = |mean: Option<f32>, std: Option<f32>| Settings {
            mean: mean.map(|m| vec![m]),
            std: std.map(|s| vec![s]),
            ..Settings::default()
        };
        let told = [("mean", "0"), ("std", "1")];
        assert_eq!(origin(&[], &asked(None, None)), Origin::Assumed);
        assert_eq!(origin(&told[..1], &asked(None, None)), Origin::Assumed);
        assert_eq!(origin(&told, &asked(None, None)), Origin::Metadata);
        assert_eq!(origin(&told, &asked(Some(0.5), None)), Origin::Metadata);
        assert_eq!(origin(&told, &asked(Some(0.5), Some(0.5))), Origin::Caller);
        assert_eq!(origin(&[], &asked(Some(0.5), None)), Origin::Assumed);
        let p = prepare(&[1, 3, 8, 8], &[]).unwrap();
        assert!(p.normalization().to_string().contains("ImageNet"), "{}", p.normalization());
    }

    #[test]
    fn settings_come_before_metadata() {
        let settings = Settings { mean: Some(vec![0.0]), std: Some(vec![1.0]), ..Settings::default() };
        let told = metadata(&[("mean", "9,9,9"), ("std", "9,9,9")]);
        let p = Preprocess::new(&input(&[1, 3, 1, 1]), &told, &settings).unwrap();
        assert_eq!(p.apply(Image::new(1, 1, &[255, 0, 51]).unwrap()), [1.0, 0.0, 0.2]);
    }

    #[test]
    fn impossible_metadata_is_refused_with_its_key() {
        let square = [1, 3, 8, 8];
        for (pair, dims) in [
            (("mean", "a,b,c"), square),
            (("mean", "1,2"), square),
            (("mean", "nan"), square),
            (("std", "1,0,1"), square),
            (("std", ""), square),
            (("crop", "7"), square),
            (("crop", "-1"), square),
            (("resize", "7"), square),
            (("resize", "99999999999999999999"), square),
            (("resize", "1000000"), square),
            (("crop", "8"), [1, 3, 8, 16]),
        ] {
            let error = prepare(&dims, &[pair]).unwrap_err();
            assert_eq!(error.code(), "model.metadata", "{pair:?}");
            assert!(error.to_string().contains(&format!("skipstone.{}", pair.0)), "{error}");
        }
        for dims in [&[3, 8, 8][..], &[1, 5, 8, 8], &[2, 3, 8, 8], &[1, 3, 0, 8], &[1, 1000], &[]] {
            assert_eq!(prepare(dims, &[]).unwrap_err().code(), "model.image-input", "{dims:?}");
        }
    }
}
