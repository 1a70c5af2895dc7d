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
    use crate::webp::{table_bytes, tests::bomb};

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

    /// A decoder keeps all coefficients of a progressive JPEG, two bytes each, and of one whose components come one
    /// after the other: eight times the bytes of the picture, if every component is sampled fully.
    #[test]
    fn coefficients_of_a_jpeg_are_within_the_memory_of_a_picture() {
        let [precision, name, tables] = [8, 1, 0];
        let jpeg = |frame: u8, side: u16, sampling: u8, scanned: u8| {
            let [high, low] = side.to_be_bytes();
            let mut file = vec![0xff, 0xd8, 0xff, frame, 0, 17, precision, high, low, high, low, 3];
            (0..3).for_each(|component| file.extend([name + component, sampling, tables]));
            file.extend([0xff, 0xda, 0, 6 + 2 * scanned, scanned]);
            (0..scanned).for_each(|component| file.extend([name + component, tables]));
            file.extend([0, 63, 0, 0xff, 0xd9]);
            file
        };
        let refused = |file: &[u8]| decode(file, &BOUNDS).err().filter(|error| error.contains("progressive")).is_some();
        for (frame, scanned) in [(0xc2, 3), (0xc2, 1), (0xc0, 1), (0xc1, 2)] {
            assert!(!refused(&jpeg(frame, 200, 0x11, scanned)), "{frame:x}");
            assert!(refused(&jpeg(frame, 256, 0x11, scanned)), "{frame:x}");
            assert!(refused(&jpeg(frame, 256, 0x22, scanned)), "{frame:x}");
            let mut taken = allocation_counter::measure(|| drop(decode(&jpeg(frame, 256, 0x11, scanned), &BOUNDS)));
            assert!(taken.bytes_max < 1 << 16, "{frame:x}: {taken:?}");
            taken = allocation_counter::measure(|| drop(decode(&jpeg(frame, 200, 0x11, scanned), &BOUNDS)));
            assert!(taken.bytes_max < 2 * BOUNDS.pixels * 4 + (1 << 16), "{frame:x}: {taken:?}");
        }
        // Rows become pixels at once.
        assert!(!refused(&jpeg(0xc0, 256, 0x11, 3)));
    }

    /// Neither the passes of an interlaced PNG nor the transforms of a lossless WEBP are kept beside the picture.
    #[test]
    fn an_interlaced_or_lossless_picture_takes_a_few_bytes_for_each_pixel() {
        let side = 256u32;
        let mut file = Cursor::new(Vec::new());
        RgbImage::from_fn(side, side, |x, y| Rgb([x as u8, y as u8, (x * y) as u8]))
            .write_to(&mut file, ImageFormat::WebP)
            .unwrap();
        let pictures = [("WEBP", file.into_inner()), ("PNG", interlaced(side))];
        for (name, file) in pictures {
            let mut size = None;
            let taken = allocation_counter::measure(|| size = decode(&file, &BOUNDS).ok().map(|it| it.dimensions()));
            assert_eq!(size, Some((side, side)), "{name}");
            assert!(taken.bytes_max < 2 * BOUNDS.pixels * 4 + (1 << 18), "{name}: {taken:?}");
        }
    }

    /// The tables of codes of a lossless WEBP take thousands of times its bytes.
    #[test]
    fn the_codes_of_a_lossless_picture_are_within_the_memory_of_a_picture() {
        let decoded = |file: &[u8]| {
            let mut picture = Err(String::new());
            let taken = allocation_counter::measure(|| picture = decode(file, &BOUNDS));
            (picture.map(|picture| picture.dimensions()), taken.bytes_max)
        };
        for groups in [1, 2, 3] {
            let file = bomb(groups);
            let (picture, taken) = decoded(&file);
            assert_eq!(picture, Ok((100, 100)));
            let tables = table_bytes(&file, u64::MAX).unwrap();
            assert!((tables..tables + 100_000).contains(&taken), "{groups} groups take {taken} bytes, not {tables}");
        }
        for groups in [4, 65_536] {
            let (picture, taken) = decoded(&bomb(groups));
            assert!(picture.is_err_and(|error| error.contains("tables of codes")) && taken < 1 << 18, "{taken}");
        }
    }

    /// A gray PNG in seven passes, all black, its rows not compressed.
    fn interlaced(side: u32) -> Vec<u8> {
        let passes = [(8, 8), (8, 8), (4, 8), (4, 4), (2, 4), (2, 2), (1, 2)];
        // One byte more in each row, for its filter.
        let rows: Vec<u8> = passes.iter().flat_map(|(x, y)| vec![0; ((side / x + 1) * (side / y)) as usize]).collect();
        let mut data = vec![0x78, 1];
        for (at, block) in rows.chunks(usize::from(u16::MAX)).enumerate() {
            let is_last = (at + 1) * usize::from(u16::MAX) >= rows.len();
            let length = block.len() as u16;
            data.push(u8::from(is_last));
            data.extend([length.to_le_bytes(), (!length).to_le_bytes()].concat());
            data.extend(block);
        }
        // The checksum of zeros: a 1, and the sum of as many.
        data.extend(((rows.len() as u32 % 65_521) << 16 | 1).to_be_bytes());
        let header = [&side.to_be_bytes()[..], &side.to_be_bytes(), &[8, 0, 0, 0, 1]].concat();
        let mut file = PNG.to_vec();
        for (kind, content) in [(b"IHDR", &header), (b"IDAT", &data), (b"IEND", &Vec::new())] {
            file.extend((content.len() as u32).to_be_bytes());
            file.extend([&kind[..], content, &[0; 4]].concat());
        }
        correct(&mut file);
        file
    }

    #[test]
    fn what_changed_pictures_take_is_bounded() {
        for seed in 0..400 {
            let taken = allocation_counter::measure(|| picture(&random(seed, 1 + 4 * (1 + seed as usize % 4))));
            assert!(taken.bytes_max < 16 * BOUNDS.pixels + (1 << 20), "{seed}: {taken:?}");
        }
    }
}
