//! Attacks the decoding of pictures: changed, truncated and endless ones of every format, and any bytes at all.

use std::io::Cursor;
use std::sync::OnceLock;

use image::{DynamicImage, ImageFormat, Rgb, RgbImage};

use crate::attack::Choices;
use crate::decode::{Bounds, decode};

/// Small, so that no input takes long.
const BOUNDS: Bounds = Bounds { side: 1 << 12, pixels: 1 << 16 };

/// Decodes a picture that the bytes make. The first chooses a valid picture, or none: then the others are the file. For
/// a valid one follow changes of four bytes each: position (2), kind, new byte.
pub fn picture(bytes: &[u8]) {
    let pictures = pictures();
    let mut choices = Choices::of(bytes);
    let mut file = match pictures.get(choices.below(pictures.len() + 1)) {
        Some(picture) => picture.clone(),
        None => return attempt(choices.rest()),
    };
    while !choices.rest().is_empty() && !file.is_empty() {
        let at = (usize::from(choices.byte()) << 8 | usize::from(choices.byte())) % file.len();
        let (kind, new) = (choices.byte(), choices.byte());
        match kind % 8 {
            0 | 1 => file[at] = new,
            2 => file[at] ^= 1 << (new % 8),
            3 => drop(file.remove(at)),
            4 => file.insert(at, new),
            5 => file.truncate(at),
            6 => file.extend_from_within(at..file.len().min(at + 1 + usize::from(new))),
            // Sizes are at most four bytes.
            _ => file[at..].iter_mut().take(1 + usize::from(new % 4)).for_each(|byte| *byte = 0xff),
        }
    }
    if file.starts_with(PNG) {
        correct(&mut file);
    }
    attempt(&file);
}

/// Decodes a file, and checks that a result has the size that it may have.
fn attempt(file: &[u8]) {
    if let Ok(picture) = decode(file, &BOUNDS) {
        assert!(u64::from(picture.width()) * u64::from(picture.height()) <= BOUNDS.pixels);
    }
}

/// The valid pictures: every format, and of PNG every type of pixels.
fn pictures() -> &'static [Vec<u8>] {
    static PICTURES: OnceLock<Vec<Vec<u8>>> = OnceLock::new();
    PICTURES.get_or_init(|| {
        let colors = RgbImage::from_fn(37, 21, |x, y| Rgb([x as u8 * 6, y as u8 * 11, (x * y) as u8]));
        let colors = DynamicImage::ImageRgb8(colors);
        let encoded = |picture: &DynamicImage, format| {
            let mut file = Cursor::new(Vec::new());
            picture.write_to(&mut file, format).ok().map(|()| file.into_inner())
        };
        let formats = [ImageFormat::Png, ImageFormat::Jpeg, ImageFormat::Bmp, ImageFormat::WebP];
        let of_colors = formats.iter().filter_map(|&format| encoded(&colors, format));
        let others = [
            DynamicImage::ImageLuma8(colors.to_luma8()),
            DynamicImage::ImageLumaA8(colors.to_luma_alpha8()),
            DynamicImage::ImageRgba8(colors.to_rgba8()),
            DynamicImage::ImageRgb16(colors.to_rgb16()),
            DynamicImage::ImageRgba16(colors.to_rgba16()),
        ];
        let others: Vec<_> = others.iter().flat_map(|picture| formats.map(|format| encoded(picture, format))).collect();
        of_colors.chain(others.into_iter().flatten()).collect()
    })
}

const PNG: &[u8] = b"\x89PNG\r\n\x1a\n";

/// Corrects the checksums of a PNG, as an attacker would.
fn correct(file: &mut [u8]) {
    let mut at = PNG.len();
    while let Some(&[a, b, c, d]) = file.get(at..).and_then(<[u8]>::first_chunk) {
        let end = u32::from_be_bytes([a, b, c, d]) as usize + at + 8;
        let Some(covered) = file.get(at + 4..end) else { return };
        let sum = checksum(covered).to_be_bytes();
        let Some(held) = file.get_mut(end..end + 4) else { return };
        held.copy_from_slice(&sum);
        at = end + 4;
    }
}

/// CRC-32 as in PNG.
fn checksum(bytes: &[u8]) -> u32 {
    let step = |crc: u32| if crc & 1 == 1 { crc >> 1 ^ 0xedb8_8320 } else { crc >> 1 };
    !bytes.iter().fold(u32::MAX, |crc, &byte| (0..8).fold(crc ^ u32::from(byte), |crc, _| step(crc)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::attack::random;

    #[test]
    fn unchanged_pictures_are_decoded() {
        assert!(pictures().len() >= 14, "{} pictures", pictures().len());
        for picture in pictures() {
            let mut corrected = picture.clone();
            if picture.starts_with(PNG) {
                correct(&mut corrected);
            }
            assert_eq!(corrected, *picture);
            assert_eq!(decode(picture, &BOUNDS).unwrap().dimensions(), (37, 21));
        }
    }

    /// The header alone of a picture that is too large is enough to refuse it; nothing of its size is allocated.
    #[test]
    fn large_pictures_are_refused_before_they_are_decoded() {
        for (format, at, size) in [(ImageFormat::Png, 16, 4), (ImageFormat::Bmp, 18, 4)] {
            let mut file = Cursor::new(Vec::new());
            RgbImage::new(37, 21).write_to(&mut file, format).unwrap();
            let mut file = file.into_inner();
            for side in [4097u32, 50_000, 1 << 30] {
                let bytes = if format == ImageFormat::Png { side.to_be_bytes() } else { side.to_le_bytes() };
                file[at..at + 4].copy_from_slice(&bytes);
                file[at + size..at + size + 4].copy_from_slice(&bytes);
                if format == ImageFormat::Png {
                    correct(&mut file);
                }
                let mut refused = false;
                let taken = allocation_counter::measure(|| refused = decode(&file, &BOUNDS).is_err());
                assert!(refused && taken.bytes_max < 1 << 20, "{format:?} {side}: {taken:?}");
            }
        }
    }

    #[test]
    fn what_changed_pictures_take_is_bounded() {
        for seed in 0..400 {
            let taken = allocation_counter::measure(|| picture(&random(seed, 1 + 4 * (1 + seed as usize % 4))));
            assert!(taken.bytes_max < 16 * BOUNDS.pixels + (1 << 20), "{seed}: {taken:?}");
        }
    }
}
