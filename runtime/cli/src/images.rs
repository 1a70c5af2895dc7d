//! Image files: finding and decoding them.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use skipstone::classify::Image;

use crate::failure::{Failure, catch_panics};

/// Endings of the formats that this build decodes.
const ENDINGS: [&str; 5] = ["png", "jpg", "jpeg", "bmp", "webp"];

/// Longest side of an image, in pixels.
const MAX_SIDE: u32 = 1 << 15;
/// Pixels of an image: photos of 50 megapixels pass.
const MAX_PIXELS: u64 = 1 << 26;
/// Memory that decoding one image may take.
const MAX_BYTES: u64 = 4 * MAX_PIXELS;
/// Bytes of an image file.
const MAX_FILE: u64 = 128 << 20;

/// The files that `paths` name: files as they are, directories with all images below them, in
/// the order of their names.
pub fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let mut files = Vec::new();
    for path in paths {
        if path.is_dir() {
            walk(path, &mut files)?;
        } else {
            files.push(path.clone());
        }
    }
    Ok(files)
}

/// Adds the images below `directory`. Links to directories are not followed, so that the walk
/// ends; nor are hidden directories entered.
pub fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> Result<(), Failure> {
    let mut pending = vec![directory.to_owned()];
    let mut found = Vec::new();
    while let Some(directory) = pending.pop() {
        let refused = |error| Failure::io(&directory, &error);
        for entry in std::fs::read_dir(&directory).map_err(refused)? {
            let entry = entry.map_err(refused)?;
            let path = entry.path();
            if entry.file_name().to_string_lossy().starts_with('.') {
                continue;
            }
            if entry.file_type().map_err(refused)?.is_dir() {
                pending.push(path);
            } else if has_image_ending(&path) {
                found.push(path);
            }
        }
    }
    found.sort_unstable();
    files.append(&mut found);
    Ok(())
}

fn has_image_ending(path: &Path) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| ENDINGS.contains(&ending.as_str()))
}

/// Decodes the image at `path`, whatever its name says it is, upright and without transparency.
pub fn decode(path: &Path) -> Result<RgbImage, Failure> {
    let unreadable = |error| Failure::io(path, &error);
    let broken = |reason: String| Failure::new("image", format!("{}: {reason}", path.display()));
    // A pipe would be waited for, and a device read without end.
    let metadata = std::fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return Err(broken(format!("is no plain file of at most {} MiB", MAX_FILE >> 20)));
    }
    let bytes = std::fs::read(path).map_err(unreadable)?;
    // A decoder that panics on a malformed file is no reason not to go on with the next file.
    catch_panics(|| decode_bytes(&bytes)).map_err(|panic| broken(panic.to_string()))?.map_err(broken)
}

fn decode_bytes(bytes: &[u8]) -> Result<RgbImage, String> {
    let text = |error: image::ImageError| error.to_string();
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    let mut reader = ImageReader::new(Cursor::new(bytes)).with_guessed_format().map_err(|error| error.to_string())?;
    reader.limits(limits);
    if reader.format() == Some(ImageFormat::Jpeg) && !is_whole_jpeg(bytes) {
        return Err("the file is cut short".into());
    }
    let mut decoder = reader.into_decoder().map_err(text)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("{width}x{height} are more than {MAX_PIXELS} pixels"));
    }
    let orientation = decoder.orientation().map_err(text)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(text)?;
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// Whether the data of a JPEG end with the marker that they should: decoders make up what is missing. Segments before
/// them may hold whole JPEGs of their own, and are passed over by their lengths.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
    const START_OF_SCAN: u8 = 0xda;
    let mut rest = bytes.get(2..).unwrap_or_default();
    while let [0xff, marker, high, low, ..] = *rest {
        // Bytes of 0xff may fill the space before a marker.
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

/// The decoded image, as the library takes it.
pub fn view(image: &RgbImage) -> Result<Image<'_>, Failure> {
    let view = Image::new(image.width() as usize, image.height() as usize, image.as_raw());
    view.ok_or_else(|| Failure::new("image", "the image has no pixels"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_jpeg_ends_with_its_marker() {
        let mut bytes = Cursor::new(Vec::new());
        let picture = RgbImage::from_fn(64, 48, |x, y| image::Rgb([x as u8 * 3, y as u8 * 5, (x * y) as u8]));
        picture.write_to(&mut bytes, ImageFormat::Jpeg).unwrap();
        let bytes = bytes.into_inner();
        assert!(decode_bytes(&bytes).is_ok());
        // What phones put behind the picture does no harm.
        assert!(is_whole_jpeg(&[&bytes[..], b"trailer"].concat()));
        for len in [0, 1, 2, 3, 20, bytes.len() / 2, bytes.len() - 2, bytes.len() - 1] {
            assert!(!is_whole_jpeg(&bytes[..len]), "{len}");
            assert!(decode_bytes(&bytes[..len]).is_err(), "{len}");
        }
    }

    /// The first bytes of a PNG of this size.
    fn png(width: u32, height: u32) -> Vec<u8> {
        let mut header = b"IHDR".to_vec();
        header.extend([width.to_be_bytes(), height.to_be_bytes()].concat());
        header.extend([8, 0, 0, 0, 0]);
        let mut crc = u32::MAX;
        for &byte in &header {
            crc ^= u32::from(byte);
            for _ in 0..8 {
                crc = if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
            }
        }
        let data = [0, 0, 0, 0, b'I', b'D', b'A', b'T', 0x35, 0xaf, 0x06, 0x1e];
        [b"\x89PNG\r\n\x1a\n\0\0\0\x0d", &header[..], &(!crc).to_be_bytes(), &data].concat()
    }

    #[test]
    fn a_few_bytes_cannot_ask_for_a_picture_of_any_size() {
        for (width, height) in [(50_000, 50_000), (32_768, 32_768), (20_000, 20_000), (1, 50_000)] {
            let error = decode_bytes(&png(width, height)).unwrap_err();
            assert!(error.contains("pixels") || error.contains("imit") || error.contains("ize"), "{error}");
        }
    }
}
