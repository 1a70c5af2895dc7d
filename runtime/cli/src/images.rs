//! Finds and decodes image files.

use std::io::Cursor;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageDecoder, ImageFormat, ImageReader, Limits, RgbImage};
use skipstone::classify::Image;

use crate::failure::{Failure, catch_panics};
use crate::notes::note;
use crate::{files, formats};

/// File name extensions of the formats that this build decodes.
const ENDINGS: [&str; 5] = ["png", "jpg", "jpeg", "bmp", "webp"];
/// Those of pictures that it does not.
const OTHERS: [&str; 9] = ["heic", "heif", "avif", "gif", "tif", "tiff", "jxl", "jp2", "dng"];

/// Longest side of an image, in pixels.
const MAX_SIDE: u32 = 1 << 15;
/// Most pixels of an image; photos of 50 megapixels are accepted.
const MAX_PIXELS: u64 = 1 << 26;
/// Most bytes of memory that decoding one image may take.
const MAX_BYTES: u64 = 4 * MAX_PIXELS;
/// Most bytes of an image file.
const MAX_FILE: u64 = 128 << 20;

/// The image files in `paths`: files as given, and all images below directories, sorted by name.
///
/// # Errors
/// `io`; `image` if there are none.
pub fn find(paths: &[PathBuf]) -> Result<Vec<PathBuf>, Failure> {
    let (mut files, mut others) = (Vec::new(), 0);
    for path in paths {
        if path.is_dir() {
            others += walk(path, &mut files)?;
        } else {
            files.push(path.clone());
        }
    }
    match (files.is_empty(), others) {
        (false, _) => Ok(files),
        (true, 0) => Err(Failure::new("image", format!("no images found; {}", formats::READ))),
        (true, others) => {
            let reason =
                format!("no images found, but {others} of other formats; {}, so convert them first", formats::READ);
            Err(Failure::new("image", reason))
        }
    }
}

/// Adds the images below `directory`. Skips links to directories, which could form a cycle, hidden directories, and
/// pictures of other formats, with a note; returns how many.
pub fn walk(directory: &Path, files: &mut Vec<PathBuf>) -> Result<usize, Failure> {
    let mut pending = vec![directory.to_owned()];
    let (mut found, mut others) = (Vec::new(), 0);
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
            } else if has_ending(&path, &ENDINGS) {
                found.push(path);
            } else if has_ending(&path, &OTHERS) {
                others += 1;
            }
        }
    }
    if others > 0 {
        let (directory, read) = (directory.display(), formats::READ);
        note(format!(
            "note: {directory}: {others} pictures of other formats (such as heic or gif) were left out; {read}"
        ));
    }
    found.sort_unstable();
    files.append(&mut found);
    Ok(others)
}

fn has_ending(path: &Path, endings: &[&str]) -> bool {
    let ending = path.extension().map(|ending| ending.to_string_lossy().to_lowercase());
    ending.is_some_and(|ending| endings.contains(&ending.as_str()))
}

/// Decodes the image at `path`, or on standard input if that is `-`, to RGB without alpha and applies its orientation.
/// The format is detected from the content, not from the name.
pub fn decode(path: &Path) -> Result<RgbImage, Failure> {
    let unreadable = |error| Failure::io(path, &error);
    let broken = |reason: String| Failure::new("image", format!("{}: {reason}", path.display()));
    let bytes = if files::is_stream(path) {
        files::read(path)?
    } else {
        // Reading a pipe could block, and reading a device might never end.
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() || metadata.len() > MAX_FILE {
            return Err(broken(format!("is not a regular file of at most {} MiB", MAX_FILE >> 20)));
        }
        std::fs::read(path).map_err(unreadable)?
    };
    // If a decoder panics on a malformed file, continue with the next file.
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
    if !matches!(reader.format(), Some(ImageFormat::Png | ImageFormat::Jpeg | ImageFormat::Bmp | ImageFormat::WebP)) {
        let other = if bytes.is_empty() { Some("an empty file") } else { formats::name(bytes) };
        return Err(format!("is {}; {}, so convert it first", other.unwrap_or("no picture"), formats::READ));
    }
    if reader.format() == Some(ImageFormat::Jpeg) && !is_whole_jpeg(bytes) {
        return Err("the file is truncated".into());
    }
    let mut decoder = reader.into_decoder().map_err(text)?;
    let (width, height) = decoder.dimensions();
    if u64::from(width) * u64::from(height) > MAX_PIXELS {
        return Err(format!("{width}x{height} exceeds {MAX_PIXELS} pixels"));
    }
    let orientation = decoder.orientation().map_err(text)?;
    let mut image = DynamicImage::from_decoder(decoder).map_err(text)?;
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// Whether the data of a JPEG ends with an end-of-image marker. Decoders invent missing data, so a truncated file would
/// otherwise go unnoticed. Segments before the data may contain whole JPEGs (thumbnails) and are skipped by length.
fn is_whole_jpeg(bytes: &[u8]) -> bool {
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

/// A view of the decoded image for the library.
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
        // Phones append data after the image, which is accepted.
        assert!(is_whole_jpeg(&[&bytes[..], b"trailer"].concat()));
        for len in [0, 1, 2, 3, 20, bytes.len() / 2, bytes.len() - 2, bytes.len() - 1] {
            assert!(!is_whole_jpeg(&bytes[..len]), "{len}");
            assert!(decode_bytes(&bytes[..len]).is_err(), "{len}");
        }
    }

    #[test]
    fn a_picture_of_another_format_is_named() {
        let error = decode_bytes(b"GIF89a\x01\0\x01\0\0\0\0").unwrap_err();
        assert_eq!(error, "is a GIF picture; png, jpg, bmp and webp are read, so convert it first");
        assert!(decode_bytes(b"").unwrap_err().starts_with("is an empty file; "));
        assert!(decode_bytes(b"cat").unwrap_err().starts_with("is no picture; "));
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
