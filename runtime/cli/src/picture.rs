//! Decodes a picture. Its bytes may come from anybody: sizes are checked before anything of that size is allocated, and
//! what the decoders may allocate is bounded.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use crate::formats;

/// What a picture may ask for.
pub struct Bounds {
    /// Its longest side, in pixels.
    pub side: u32,
    /// Its pixels.
    pub pixels: u64,
}

impl Bounds {
    /// Bytes of the decoded picture, and at most of what a decoder allocates beside it.
    fn bytes(&self) -> u64 {
        self.pixels.saturating_mul(4)
    }
}

/// Decodes a picture to RGB without alpha and applies its orientation. The format is detected from the content.
///
/// # Errors
/// The reason why it is refused: another format, too large, malformed, incomplete.
pub fn decode(bytes: &[u8], bounds: &Bounds) -> Result<RgbImage, String> {
    let text = |error: image::ImageError| error.to_string();
    let mut limits = Limits::default();
    limits.max_image_width = Some(bounds.side);
    limits.max_image_height = Some(bounds.side);
    limits.max_alloc = Some(bounds.bytes());
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| error.to_string())?;
    reader.limits(limits);
    if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Bmp | ImageFormat::WebP)) {
        let other = if bytes.is_empty() { Some("an empty file") } else { formats::name(bytes) };
        return Err(format!("is {}; {}, so convert it first", other.unwrap_or("no picture"), formats::READ));
    }
    if reader.format() == Some(ImageFormat::Jpeg) && !is_whole_jpeg(bytes) {
        return Err("the file is truncated".into());
    }
    let mut decoder = reader.into_decoder().map_err(text)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > bounds.pixels {
        return Err(format!("{width}x{height} exceeds {} pixels", bounds.pixels));
    }
    if decoder.total_bytes() > bounds.bytes() {
        return Err(format!("{width}x{height} of this type exceeds {} bytes", bounds.bytes()));
    }
    let orientation = decoder.orientation().map_err(text)?;
    let image = DynamicImage::from_decoder(decoder).map_err(text)?;
    let mut image = DynamicImage::ImageRgb8(image.into_rgb8());
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// Whether the data of a JPEG ends with an end-of-image marker. Decoders invent missing data, so a truncated file would
/// otherwise go unnoticed. Segments before the data may contain whole JPEGs (thumbnails) and are skipped by length.
pub fn is_whole_jpeg(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let [0xff, marker, high, low, ..] = *rest {
        // A marker may be preceded by fill bytes of 0xff.
        if marker == 0xff {
            rest = &rest[1..];
            continue;
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        rest = rest.get(2 + length..).unwrap_or_default();
        if marker == START_OF_SCAN {
            return rest.windows(2).any(|pair| pair == [0xff, 0xd9]);
        }
    }
    false
}
