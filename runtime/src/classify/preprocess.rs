//! Prepares an image for a model, as the model's metadata says.

use std::collections::BTreeMap;
use std::fmt;

use super::head::Origin;
use super::image::{Image, resample};
use super::settings::{COLORS, FIT, Fit, INTERPOLATION, Settings, parse_numbers, refused};
use crate::error::{Error, Fault, ModelFault, Result};
use crate::tensor::{DType, Fact};
use crate::vision::{ChannelOrder, Colors, Converter, Frame, Interpolation, Normal, PixelWindow, TensorSpec};

/// Mean of ImageNet's channels, red first, for values between 0 and 1.
const IMAGENET_MEAN: [f32; 3] = [0.485, 0.456, 0.406];
/// Standard deviation of ImageNet's channels.
const IMAGENET_STD: [f32; 3] = [0.229, 0.224, 0.225];

/// From a byte to a value between 0 and 1.
const UNIT: f32 = 1.0 / 255.0;

/// Where a number was specified, the strongest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Told {
    ByCaller,
    ByMetadata,
    ByInput,
    Nowhere,
}

/// Longest side that an image may be resized to.
const MAX_SIDE: usize = 1 << 15;

/// The values subtracted from each channel of an image and those it is divided by, and where they were specified.
#[derive(Clone, Debug, PartialEq)]
pub struct Normalization {
    /// Mean of the channels, in the model's order, for scaled bytes: one value per channel.
    pub mean: Vec<f32>,
    /// Standard deviation of the channels.
    pub std: Vec<f32>,
    /// The factor of a byte: 1 / 255, so that values are between 0 and 1, or another.
    pub scale: f32,
    /// Where they were specified; [`Origin::Assumed`] if either is ImageNet's by default.
    pub origin: Origin,
}

impl fmt::Display for Normalization {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let list = |values: &[f32]| values.iter().map(f32::to_string).collect::<Vec<_>>().join(",");
        let imagenet = |values: &[f32], own: [f32; 3]| values == own || values.iter().rev().eq(&own);
        let both = imagenet(&self.mean, IMAGENET_MEAN) && imagenet(&self.std, IMAGENET_STD);
        write!(f, "mean {}, std {}", list(&self.mean), list(&self.std))?;
        if self.scale != UNIT {
            write!(f, ", scale {}", self.scale)?;
        }
        write!(f, "{}, {}", if both { " (ImageNet's)" } else { "" }, self.origin)
    }
}

/// A part of an image, in pixels of the image; it may reach beyond it.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Region {
    /// Its left edge.
    pub left: f64,
    /// Its upper edge.
    pub top: f64,
    /// Its width.
    pub width: f64,
    /// Its height.
    pub height: f64,
}

/// Prepares an image or a camera frame as a model's input: resize (antialiased bilinear) so that the image covers the
/// crop, crop the center, divide by 255, subtract the mean, divide by the standard deviation. The settings or the
/// metadata may choose otherwise; `Display` says what is done to the image before its normalization.
#[derive(Clone, Debug)]
pub struct Preprocess {
    width: usize,
    height: usize,
    channels: usize,
    layout: ChannelOrder,
    resize: usize,
    fit: Fit,
    interpolation: Interpolation,
    normal: Normal,
    normalization: Normalization,
    /// For every channel, the result for each of its 256 values.
    tables: Vec<[f32; 256]>,
}

impl Preprocess {
    /// The preparation for a model's only image input `fact`, by `settings` or otherwise by `metadata`.
    ///
    /// # Errors
    /// [`Error::Invalid`]: `model.image-input` if the input is not an image with 1 or 3 channels and batch 1, of f32,
    /// f16 or u8, `model.metadata` for a value that is invalid or does not match the input.
    pub fn new(fact: &Fact, metadata: &BTreeMap<String, String>, settings: &Settings) -> Result<Self> {
        let (layout, channels, height, width) = image_layout(fact)?;
        let colors = COLORS.of(metadata, settings.colors.map(|it| it as usize))?.map(|index| Colors::ALL[index]);
        let colors = match (colors, channels) {
            (None | Some(Colors::Gray), 1) => Colors::Gray,
            (Some(_), 1) => return Err(refused(COLORS.0, "must be gray: the model's input has one channel")),
            (colors, _) => colors.unwrap_or(Colors::Rgb),
        };
        let numbers = |key, own: Option<&[f32]>, count| -> Result<Option<(Vec<f32>, Told)>> {
            let (values, told) = match (own, metadata.get(key)) {
                (Some(own), _) => (own.to_vec(), Told::ByCaller),
                (None, Some(text)) => (parse_numbers(key, text)?, Told::ByMetadata),
                (None, None) => return Ok(None),
            };
            if fact.dtype == DType::U8 {
                return Err(refused(key, "is given, but the model's input is u8: it takes the bytes as they are"));
            }
            Ok(Some((per_channel(key, values, count)?, told)))
        };
        let (scale, default) = match numbers("skipstone.scale", settings.scale.as_ref().map(std::slice::from_ref), 1)? {
            Some((values, told)) => (values[0], told),
            None if fact.dtype == DType::U8 => (1.0, Told::ByInput),
            None => (UNIT, Told::Nowhere),
        };
        // Of other values than those between 0 and 1, ImageNet's mean says nothing.
        let (mut mean, mut std) = ([0.0; 3], [1.0; 3]);
        if channels == 3 && default == Told::Nowhere {
            (mean, std) = (IMAGENET_MEAN, IMAGENET_STD);
        }
        if colors == Colors::Bgr {
            mean.swap(0, 2);
            std.swap(0, 2);
        }
        let or_default =
            |told: Option<_>, values: [f32; 3]| told.unwrap_or_else(|| (values[..channels].to_vec(), default));
        let (mean, mean_told) = or_default(numbers("skipstone.mean", settings.mean.as_deref(), channels)?, mean);
        let (std, std_told) = or_default(numbers("skipstone.std", settings.std.as_deref(), channels)?, std);
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

        let scaled = |byte: usize| if scale == UNIT { byte as f32 / 255.0 } else { byte as f32 * scale };
        let table = |(&mean, &std): (&f32, &f32)| std::array::from_fn(|byte| (scaled(byte) - mean) / std);
        let tables: Vec<[f32; 256]> = mean.iter().zip(&std).map(table).collect();
        let tiny = std.iter().chain([&scale]).any(|factor| factor.abs() < f32::MIN_POSITIVE);
        if tiny || !tables.as_flattened().iter().all(|value| value.is_finite()) {
            return Err(refused(
                "skipstone.std",
                "with skipstone.mean and skipstone.scale gives values that are not finite",
            ));
        }
        // The same map for values between 0 and 1.
        let unit = scale * 255.0;
        let three = |values: &[f32]| std::array::from_fn(|c| values[c % channels] / unit);
        let normal = Normal { mean: three(&mean), std: three(&std), colors, single: channels == 1 };
        // The weaker of two: if one is only assumed, the result is assumed.
        let origin = match mean_told.max(std_told) {
            Told::ByCaller => Origin::Caller,
            Told::ByMetadata => Origin::Metadata,
            Told::ByInput => Origin::Input,
            Told::Nowhere => Origin::Assumed,
        };
        let normalization = Normalization { mean, std, scale, origin };
        let fit = FIT.of(metadata, settings.fit.map(|it| it as usize))?.map_or(Fit::default(), |index| Fit::ALL[index]);
        let interpolation = INTERPOLATION.of(metadata, settings.interpolation.map(|it| it as usize))?;
        let interpolation = interpolation.map_or(Interpolation::default(), |index| Interpolation::ALL[index]);
        Ok(Self { width, height, channels, layout, resize, fit, interpolation, normal, normalization, tables })
    }

    /// The normalization, and where it was specified.
    #[must_use]
    pub fn normalization(&self) -> &Normalization {
        &self.normalization
    }

    /// How the pixels of a resized image are made.
    #[must_use]
    pub fn interpolation(&self) -> Interpolation {
        self.interpolation
    }

    /// The shorter side from which on an image is not enlarged, whatever its proportions: a decoder may shrink photos to
    /// this side. Where the whole image is shown with bars, it is more than needed.
    #[must_use]
    pub fn photo_side(&self) -> usize {
        let shorter = self.width.min(self.height);
        self.resize * self.width.max(self.height) / shorter
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
        let rgb = resample(image, across, down, self.interpolation);
        let (left, top) = (middle(self.width, across.len).start, middle(self.height, down.len).start);
        let pixels = self.width * self.height;
        let mut out = vec![0.0; self.elements()];
        for (channel, table) in self.tables.iter().enumerate() {
            let (start, step) = match self.layout {
                ChannelOrder::Planar => (channel * pixels, 1),
                ChannelOrder::Interleaved => (channel, self.channels),
            };
            let byte = |pixel: &[u8]| match self.normal.colors {
                Colors::Rgb => pixel[channel],
                Colors::Bgr => pixel[2 - channel],
                Colors::Gray => luma(pixel),
            };
            for (at, value) in out.iter_mut().skip(start).step_by(step).take(pixels).enumerate() {
                let (x, y) = ((at % self.width).wrapping_sub(left), (at / self.width).wrapping_sub(top));
                let inside = x < across.len && y < down.len;
                *value = table[if inside { usize::from(byte(&rgb[(y * across.len + x) * 3..])) } else { 0 }];
            }
        }
        out
    }

    /// Prepares a camera frame: fills `out` with the elements of the input tensor in order. They differ from the result
    /// of [`apply`](Self::apply) for the same image by its roundings to bytes.
    ///
    /// # Errors
    /// `frame` if `out` has another length than [`elements`](Self::elements), or if the interpolation is bicubic or
    /// lanczos, which only images have.
    pub fn apply_frame(&self, frame: &Frame<'_>, converter: &mut Converter, out: &mut [f32]) -> Result<()> {
        if out.len() != self.elements() {
            let (got, want) = (out.len(), self.elements());
            let message = format!("a frame is prepared into the {want} elements of the model's input, not into {got}");
            return Err(Error::Invalid { fault: Fault::Frame, message });
        }
        if self.interpolation.overshoots() {
            // The converter's fixed point has no room for negative weights.
            let by = self.interpolation.name();
            let message = format!("frames cannot be resized by {by}: compile the model with another interpolation");
            return Err(Error::Invalid { fault: Fault::Frame, message });
        }
        let (across, down) = self.windows(frame.width(), frame.height());
        let spec = TensorSpec { across, down, by: self.interpolation, layout: self.layout, normal: self.normal };
        let inner = across.len * down.len * self.channels;
        converter.convert(frame, &spec, &mut out[..inner]);
        if inner < out.len() {
            self.center(across.len, down.len, out);
        }
        Ok(())
    }

    /// The part of an image of `width` by `height` pixels that becomes the model's input. With bars it is larger than
    /// the image.
    #[must_use]
    pub fn region(&self, width: usize, height: usize) -> Region {
        let (across, down) = self.windows(width, height);
        // Where the input starts and how long it is, in pixels of the image.
        let span = |window: PixelWindow, input: usize, own: usize| {
            let (bar, pixel) = (middle(input, window.len).start, own as f64 / window.scaled as f64);
            ((window.start as f64 - bar as f64) * pixel, input as f64 * pixel)
        };
        let ((left, width), (top, height)) = (span(across, self.width, width), span(down, self.height, height));
        Region { left, top, width, height }
    }

    /// Moves an image of `width` by `height` pixels from the start of `out` to its middle, and makes the rest black.
    fn center(&self, width: usize, height: usize, out: &mut [f32]) {
        let (left, top) = (middle(self.width, width).start, middle(self.height, height).start);
        // Elements from one channel, row and column to the next, of a tensor of some size.
        let steps = |width: usize, height: usize| match self.layout {
            ChannelOrder::Planar => [width * height, width, 1],
            ChannelOrder::Interleaved => [1, width * self.channels, self.channels],
        };
        let ([to_channel, to_row, to_column], [channel, row, column]) =
            (steps(self.width, self.height), steps(width, height));
        // Elements only move towards the end, so the last one goes first.
        for at in (0..out.len()).rev() {
            let c = at / to_channel % self.channels;
            let x = (at / to_column % self.width).wrapping_sub(left);
            let y = (at / to_row % self.height).wrapping_sub(top);
            let inside = x < width && y < height;
            out[at] = if inside { out[c * channel + y * row + x * column] } else { self.tables[c][0] };
        }
    }

    /// The size that an image is resized to, and its part in the middle of the input: less than all of it only if there
    /// are bars.
    fn windows(&self, width: usize, height: usize) -> (PixelWindow, PixelWindow) {
        // If the model's input is not square, `resize` is the length for its shorter side, and the longer side is
        // resized in proportion.
        let shorter = self.width.min(self.height);
        let box_width = self.resize * self.width / shorter;
        let box_height = self.resize * self.height / shorter;
        let wider = product(width, box_height) > product(height, box_width);
        let (scaled_width, scaled_height) = match self.fit {
            Fit::Stretch => (box_width, box_height),
            Fit::Shortest if wider => (proportion(box_height, width, height), box_height),
            Fit::Shortest => (box_width, proportion(box_width, height, width)),
            Fit::Letterbox if wider => (box_width, rounded(box_width, height, width)),
            Fit::Letterbox => (rounded(box_height, width, height), box_height),
        };
        (middle(scaled_width, self.width), middle(scaled_height, self.height))
    }
}

impl fmt::Display for Preprocess {
    /// Such as `shorter side to 256, middle 224x224, bilinear, rgb`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { width, height, resize, .. } = self;
        match self.fit {
            Fit::Shortest => write!(f, "shorter side to {resize}, middle {width}x{height}")?,
            Fit::Stretch if *resize == *width.min(height) => write!(f, "stretched to {width}x{height}")?,
            Fit::Stretch => write!(f, "stretched with shorter side to {resize}, middle {width}x{height}")?,
            Fit::Letterbox if *resize == *width.min(height) => write!(f, "whole with bars in {width}x{height}")?,
            Fit::Letterbox => write!(f, "whole with bars, shorter side to {resize}, middle {width}x{height}")?,
        }
        write!(f, ", {}, {}", self.interpolation.name(), self.normal.colors.name())
    }
}

/// `side * other`; it saturates for images that no memory holds.
fn product(side: usize, other: usize) -> u64 {
    (side as u64).saturating_mul(other as u64)
}

/// `side * other / own`, rounded down.
fn proportion(side: usize, other: usize, own: usize) -> usize {
    (product(side, other) / own as u64) as usize
}

/// `side * other / own` to the nearest, halves to even, as in Python; at least 1.
fn rounded(side: usize, other: usize, own: usize) -> usize {
    let (whole, own) = (product(side, other), own as u64);
    let (down, rest) = (whole / own, whole % own);
    let up = rest > own / 2 || (2 * rest == own && down % 2 == 1);
    (down + u64::from(up)).max(1) as usize
}

/// The center `len` of `scaled` pixels, or all if they are fewer; of two possible starts the even one, as in
/// torchvision.
fn middle(scaled: usize, len: usize) -> PixelWindow {
    let over = scaled.saturating_sub(len);
    let start = if over % 4 == 3 { over / 2 + 1 } else { over / 2 };
    PixelWindow { scaled, start, len: len.min(scaled) }
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
    if !matches!(fact.dtype, DType::F32 | DType::F16 | DType::U8) {
        return Err(refused("images must be f32, f16 or u8"));
    }
    let [batch, a, b, c] = match *fact.shape.dims() {
        [batch, a, b, c] => [batch, a, b, c],
        // The digits of MNIST, as many tutorials have them.
        [1, 784] | [1, 28, 28] => [1, 1, 28, 28],
        _ => return Err(refused("an image input must be 1x3xHxW or 1xHxWx3")),
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
mod tests;
