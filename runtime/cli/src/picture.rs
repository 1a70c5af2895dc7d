//! Decodes a picture. Its bytes may come from anybody: sizes are checked before anything of that size is allocated, and
//! what the decoders may allocate is bounded.

use std::io::Cursor;

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};

use crate::{formats, webp};

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
    let format = reader.format();
    if !matches!(format, Some(ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Bmp | ImageFormat::WebP)) {
        let other = if bytes.is_empty() { Some("an empty file") } else { formats::name(bytes) };
        return Err(format!("is {}; {}, so convert it first", other.unwrap_or("no picture"), formats::READ));
    }
    // Bytes that the decoder keeps beside the pixels.
    let mut kept = 0;
    if format == Some(ImageFormat::Jpeg) {
        if !is_whole_jpeg(bytes) {
            return Err("the file is truncated".into());
        }
        kept = kept_coefficients(bytes);
        if kept > bounds.bytes() {
            let what = "a progressive picture of this size is decoded in more than";
            return Err(format!("{what} {} bytes; save it as a baseline JPEG", bounds.bytes()));
        }
    }
    let mut decoder = reader.into_decoder().map_err(text)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > bounds.pixels {
        return Err(format!("{width}x{height} exceeds {} pixels", bounds.pixels));
    }
    if decoder.total_bytes() > bounds.bytes() {
        return Err(format!("{width}x{height} of this type exceeds {} bytes", bounds.bytes()));
    }
    if format == Some(ImageFormat::WebP) {
        kept = webp::table_bytes(bytes, bounds.bytes()).ok_or("the file is malformed or truncated")?;
        if kept > bounds.bytes() {
            return Err(format!("its tables of codes take more than {} bytes; save it as PNG", bounds.bytes()));
        }
    }
    let orientation = decoder.orientation().map_err(text)?;
    // The pixels as they are stored, with what the decoder keeps, or later as RGB and once more when they are turned.
    let needed = decoder.total_bytes() + kept.max(2 * 3 * u64::from(width) * u64::from(height));
    if !has_memory(needed) {
        return Err(format!("there is no memory for the {needed} bytes that it is decoded in"));
    }
    let image = DynamicImage::from_decoder(decoder).map_err(text)?;
    let mut image = DynamicImage::ImageRgb8(image.into_rgb8());
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// Whether the system has so much memory now: a decoder that finds none ends the process.
fn has_memory(bytes: u64) -> bool {
    usize::try_from(bytes).is_ok_and(|bytes| Vec::<u8>::new().try_reserve_exact(bytes).is_ok())
}

/// Whether the data of a JPEG ends with an end-of-image marker. Decoders invent missing data, so a truncated file would
/// otherwise go unnoticed. Segments before the data may contain whole JPEGs (thumbnails) and are skipped by length.
pub fn is_whole_jpeg(bytes: &[u8]) -> bool {
    let data = segments(bytes).find(|(marker, _, _)| *marker == START_OF_SCAN);
    data.is_some_and(|(_, _, data)| data.windows(2).any(|pair| pair == [0xff, 0xd9]))
}

/// Marker of the segment before a scan's data.
const START_OF_SCAN: u8 = 0xda;
/// Bytes of the coefficients of a block of 8 x 8 samples.
const BLOCK: u64 = 128;

/// Bytes of the coefficients that a decoder keeps while it reads the scans of a JPEG: those of the whole picture, if it
/// is progressive or a scan holds only some of its components; otherwise 0, for they become pixels row by row.
fn kept_coefficients(bytes: &[u8]) -> u64 {
    let (mut all, mut components, mut is_progressive) = (0, 0, false);
    for (marker, segment, _) in segments(bytes) {
        match (marker, segment) {
            // Start of a frame: precision, height, width, and of each component its name, sampling and table.
            (0xc0..=0xc2, &[_, a, b, c, d, count, ref rest @ ..]) => {
                let [height, width] = [[a, b], [c, d]].map(|side| u64::from(u16::from_be_bytes(side)));
                let sampling: Vec<[u64; 2]> =
                    rest.chunks_exact(3).map(|of| [of[1] >> 4, of[1] & 15].map(u64::from)).collect();
                let most = sampling.iter().fold([1, 1], |most: [u64; 2], of| [most[0].max(of[0]), most[1].max(of[1])]);
                let units = width.div_ceil(8 * most[0]) * height.div_ceil(8 * most[1]);
                let blocks = sampling.iter().map(|[across, down]| units * across * down).sum::<u64>();
                (all, components) = (blocks * BLOCK, count);
                is_progressive |= marker == 0xc2;
            }
            (START_OF_SCAN, &[count, ..]) if !is_progressive && count == components => return 0,
            (START_OF_SCAN, _) => return all,
            _ => {}
        }
    }
    0
}

/// The segments of a JPEG up to the first scan's data: the marker, the content, and all that follows.
fn segments(bytes: &[u8]) -> impl Iterator<Item = (u8, &[u8], &[u8])> {
    let mut rest = bytes.get(2..).unwrap_or_default();
    let mut ended = false;
    std::iter::from_fn(move || {
        while let (false, [0xff, marker, high, low, ..]) = (ended, rest) {
            // A marker may be preceded by fill bytes of 0xff.
            if *marker == 0xff {
                rest = &rest[1..];
                continue;
            }
            let length = usize::from(u16::from_be_bytes([*high, *low]));
            let content = rest.get(4..2 + length).unwrap_or_default();
            rest = rest.get(2 + length..).unwrap_or_default();
            ended = *marker == START_OF_SCAN;
            return Some((*marker, content, rest));
        }
        None
    })
}
