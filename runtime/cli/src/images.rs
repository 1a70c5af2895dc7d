//! Finds and decodes image files.

use std::path::{Path, PathBuf};

use image::RgbImage;
use skipstone::classify::Image;

use crate::failure::{Failure, catch_panics};
use crate::notes::note;
use crate::picture::{self, Bounds};
use crate::{files, formats};

/// File name extensions of the formats that this build decodes.
const ENDINGS: [&str; 5] = ["png", "jpg", "jpeg", "bmp", "webp"];
/// Those of pictures that it does not.
const OTHERS: [&str; 9] = ["heic", "heif", "avif", "gif", "tif", "tiff", "jxl", "jp2", "dng"];

/// What an image may ask for; photos of 50 megapixels are accepted.
const BOUNDS: Bounds = Bounds { side: 1 << 15, pixels: 1 << 26 };
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
    let read;
    let bytes = if files::is_stream(path) {
        files::input(MAX_FILE).map_err(unreadable)?
    } else {
        // Reading a pipe could block, and reading a device might never end.
        let metadata = std::fs::metadata(path).map_err(unreadable)?;
        if !metadata.is_file() || metadata.len() > MAX_FILE {
            return Err(broken(format!("is not a regular file of at most {} MiB", MAX_FILE >> 20)));
        }
        read = std::fs::read(path).map_err(unreadable)?;
        &read
    };
    // If a decoder panics on a malformed file, continue with the next file.
    let decoded = catch_panics(|| picture::decode(bytes, &BOUNDS));
    decoded.map_err(|panic| broken(panic.to_string()))?.map_err(broken)
}

/// A view of the decoded image for the library.
pub fn view(image: &RgbImage) -> Result<Image<'_>, Failure> {
    let view = Image::new(image.width() as usize, image.height() as usize, image.as_raw());
    view.ok_or_else(|| Failure::new("image", "the image has no pixels"))
}

#[cfg(test)]
mod tests {
    use std::io::Cursor;

    use image::ImageFormat;

    use super::*;
    use crate::picture::is_whole_jpeg;

    fn decode_bytes(bytes: &[u8]) -> Result<RgbImage, String> {
        picture::decode(bytes, &BOUNDS)
    }

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
