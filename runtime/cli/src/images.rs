//! Image files: finding and decoding them.

use std::fs::File;
use std::io::BufReader;
use std::path::{Path, PathBuf};

use image::{DynamicImage, ImageDecoder, ImageReader, Limits, RgbImage};
use skipstone::classify::Image;

use crate::failure::{Failure, catch_panics};

/// Endings of the formats that this build decodes.
const ENDINGS: [&str; 5] = ["png", "jpg", "jpeg", "bmp", "webp"];

/// Longest side of an image, in pixels.
const MAX_SIDE: u32 = 1 << 15;
/// Memory that decoding one image may take.
const MAX_BYTES: u64 = 512 << 20;

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
    let file = File::open(path).map_err(unreadable)?;
    // A decoder that panics on a malformed file is no reason not to go on with the next file.
    catch_panics(|| decode_from(file))
        .map_err(|panic| broken(panic.to_string()))?
        .map_err(|error| broken(error.to_string()))
}

fn decode_from(file: File) -> image::ImageResult<RgbImage> {
    let mut limits = Limits::default();
    limits.max_image_width = Some(MAX_SIDE);
    limits.max_image_height = Some(MAX_SIDE);
    limits.max_alloc = Some(MAX_BYTES);
    let mut reader = ImageReader::new(BufReader::new(file)).with_guessed_format()?;
    reader.limits(limits);
    let mut decoder = reader.into_decoder()?;
    let orientation = decoder.orientation()?;
    let mut image = DynamicImage::from_decoder(decoder)?;
    image.apply_orientation(orientation);
    Ok(image.into_rgb8())
}

/// The decoded image, as the library takes it.
pub fn view(image: &RgbImage) -> Result<Image<'_>, Failure> {
    let view = Image::new(image.width() as usize, image.height() as usize, image.as_raw());
    view.ok_or_else(|| Failure::new("image", "the image has no pixels"))
}
