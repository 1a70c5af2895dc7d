//! The call buffer: it describes a frame on the way in, and holds the predictions on the way out.
//!
//! Kotlin keeps one direct buffer per thread, writes the description into it and reads the answer from the same bytes,
//! so that a call passes five references and allocates no object. Everything is in native byte order; `CallBuffer.kt`
//! is the other half of this table.
//!
//! | in, as 32-bit integers | | out, where the call returns a count | | out, where it returns minus a number | |
//! |---|---|---|---|---|---|
//! | 0 | format | 0 | f64, ms to prepare | 0 | i32, bytes of the code |
//! | 1, 2 | width, height | 8 | f64, ms to run | 4 | i32, bytes of the message |
//! | 3 | rotation in degrees | 16 | for each class: i32 index, f32 score | 8 | the code and the message, UTF-8 |
//! | 4 | 1 if mirrored | | | | |
//! | 5 to 9 | 1 if only a part of the stored image is used, then its x, y, width, height | | | | |
//! | 10, 11 | matrix, range | | | | |
//! | 12 | the most classes to return, or the index of the input | | | | |
//! | 13 to 18 | row and pixel stride of each plane | | | | |

use skipstone_ffi::{
    Classification, FrameAddress, FrameFormat, FrameMatrix, FrameRange, PlaneAddress, Region, Result, SkipstoneError,
};

/// Minimum size of a call buffer in bytes: room for the input, and for a readable error.
pub(crate) const LEAST_BYTES: usize = 1024;

const FORMAT: usize = 0;
const WIDTH: usize = 1;
const HEIGHT: usize = 2;
const ROTATION: usize = 3;
const MIRRORED: usize = 4;
const PART: usize = 5;
const MATRIX: usize = 10;
const RANGE: usize = 11;
const NUMBER: usize = 12;
const STRIDES: usize = 13;

/// Offset of the classes in the output.
const CLASSES: usize = 16;

/// A direct buffer, by address.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Area {
    pub address: u64,
    pub length: u64,
}

/// A call buffer of at least [`LEAST_BYTES`].
pub(crate) struct CallBuffer<'a>(pub(crate) &'a mut [u8]);

impl CallBuffer<'_> {
    /// The frame that the buffer describes, over these planes, and the most classes to return or the index of the input.
    ///
    /// # Errors `Frame` for a value that no frame can have.
    pub(crate) fn frame(&self, planes: &[Area]) -> Result<(FrameAddress, u32)> {
        let format = match self.int(FORMAT) {
            0 => FrameFormat::Yuv420,
            1 => FrameFormat::Rgba,
            2 => FrameFormat::Bgra,
            3 => FrameFormat::Rgb,
            4 => FrameFormat::Gray,
            5 => FrameFormat::Yuv422,
            6 => FrameFormat::P010,
            7 => FrameFormat::P210,
            other => return Err(refused("format", other)),
        };
        let matrix = match self.int(MATRIX) {
            0 => FrameMatrix::Bt601,
            1 => FrameMatrix::Bt709,
            2 => FrameMatrix::Bt2020,
            other => return Err(refused("matrix", other)),
        };
        let range = match self.int(RANGE) {
            0 => FrameRange::Full,
            1 => FrameRange::Video,
            other => return Err(refused("range", other)),
        };
        let part = match self.int(PART) {
            0 => None,
            _ => Some(Region {
                x: self.size("crop", PART + 1)?,
                y: self.size("crop", PART + 2)?,
                width: self.size("crop", PART + 3)?,
                height: self.size("crop", PART + 4)?,
            }),
        };
        let plane = |(index, area): (usize, &Area)| {
            Ok(PlaneAddress {
                address: area.address,
                length: area.length,
                row_stride: self.size("row stride", STRIDES + 2 * index)?,
                pixel_stride: self.size("pixel stride", STRIDES + 2 * index + 1)?,
            })
        };
        let frame = FrameAddress {
            format,
            width: self.size("width", WIDTH)?,
            height: self.size("height", HEIGHT)?,
            planes: planes.iter().enumerate().map(plane).collect::<Result<_>>()?,
            part,
            rotation_degrees: self.int(ROTATION),
            mirrored: self.int(MIRRORED) != 0,
            crop: None,
            matrix,
            range,
        };
        Ok((frame, self.size("number of classes or input", NUMBER)?))
    }

    /// Writes the predictions; returns the number of classes.
    ///
    /// # Errors `Input` if the buffer is too small for them.
    pub(crate) fn answer(&mut self, shown: &Classification) -> Result<i32> {
        let count = shown.predictions.len();
        let room = self.0.len().saturating_sub(CLASSES) / 8;
        let too_many = || SkipstoneError::Input {
            code: "input.size".into(),
            message: format!("{count} classes do not fit into a call buffer of {} bytes", self.0.len()),
        };
        let returned = i32::try_from(count).ok().filter(|_| count <= room).ok_or_else(too_many)?;
        let times = shown.prepare_ms.to_ne_bytes().into_iter().chain(shown.run_ms.to_ne_bytes());
        let classes = shown.predictions.iter().flat_map(|p| [p.index.to_ne_bytes(), p.score.to_ne_bytes()]).flatten();
        self.0.iter_mut().zip(times.chain(classes)).for_each(|(to, from)| *to = from);
        Ok(returned)
    }

    /// Writes an error, with its message cut to the available room; returns minus the error's number.
    pub(crate) fn refuse(&mut self, error: &SkipstoneError) -> i32 {
        let message = error.to_string();
        let code = error.code().as_bytes();
        let room = self.0.len().saturating_sub(8 + code.len());
        let message = &message.as_bytes()[..message.floor_char_boundary(room)];
        let lengths = [code.len() as i32, message.len() as i32];
        let bytes = lengths.into_iter().flat_map(i32::to_ne_bytes).chain(code.iter().copied());
        self.0.iter_mut().zip(bytes.chain(message.iter().copied())).for_each(|(to, from)| *to = from);
        -error.number()
    }

    fn int(&self, index: usize) -> i32 {
        let bytes = self.0.get(index * 4..).and_then(|rest| rest.first_chunk::<4>());
        bytes.map_or(0, |bytes| i32::from_ne_bytes(*bytes))
    }

    fn size(&self, what: &str, index: usize) -> Result<u32> {
        let value = self.int(index);
        u32::try_from(value).map_err(|_| refused(what, value))
    }
}

fn refused(what: &str, value: i32) -> SkipstoneError {
    SkipstoneError::Frame { code: "frame".into(), message: format!("a frame's {what} cannot be {value}") }
}

#[cfg(test)]
mod tests {
    use skipstone_ffi::Prediction;

    use super::*;

    fn buffer(ints: &[i32]) -> Vec<u8> {
        let mut bytes: Vec<u8> = ints.iter().flat_map(|int| int.to_ne_bytes()).collect();
        bytes.resize(LEAST_BYTES, 0);
        bytes
    }

    const YUV: [i32; 19] = [0, 640, 480, 90, 1, 1, 10, 20, 300, 400, 1, 1, 5, 640, 1, 320, 2, 320, 2];

    #[test]
    fn every_field_is_read_from_its_offset() {
        let areas = [1, 2, 3].map(|n| Area { address: n * 1000, length: n });
        let (frame, top) = CallBuffer(&mut buffer(&YUV)).frame(&areas).unwrap();
        assert_eq!(top, 5);
        let plane =
            |address, length, row_stride, pixel_stride| PlaneAddress { address, length, row_stride, pixel_stride };
        assert_eq!(
            frame,
            FrameAddress {
                format: FrameFormat::Yuv420,
                width: 640,
                height: 480,
                planes: vec![plane(1000, 1, 640, 1), plane(2000, 2, 320, 2), plane(3000, 3, 320, 2)],
                part: Some(Region { x: 10, y: 20, width: 300, height: 400 }),
                rotation_degrees: 90,
                mirrored: true,
                crop: None,
                matrix: FrameMatrix::Bt709,
                range: FrameRange::Video,
            }
        );
    }

    #[test]
    fn numbers_out_of_range_are_errors() {
        let areas = [Area { address: 1, length: 1 }; 3];
        for (index, value) in
            [(0, 8), (0, -1), (1, -1), (2, -640), (6, -1), (9, -1), (10, 3), (11, 2), (12, -1), (18, -2)]
        {
            let mut ints = YUV;
            ints[index] = value;
            let error = CallBuffer(&mut buffer(&ints)).frame(&areas).unwrap_err();
            assert_eq!(error.code(), "frame", "{index} is {value}");
        }
    }

    /// Regression: BT.2020 was refused. The numbers are the positions in the enums of `Frame.kt`.
    #[test]
    fn every_format_matrix_and_range_is_read_from_its_number() {
        use FrameFormat::{Bgra, Gray, P010, P210, Rgb, Rgba, Yuv420, Yuv422};
        use FrameMatrix::{Bt601, Bt709, Bt2020};
        use FrameRange::{Full, Video};
        let read = |index: usize, value: usize| {
            let mut ints = YUV;
            ints[index] = value as i32;
            CallBuffer(&mut buffer(&ints)).frame(&[Area { address: 1, length: 1 }; 3]).unwrap().0
        };
        for (number, format) in [Yuv420, Rgba, Bgra, Rgb, Gray, Yuv422, P010, P210].into_iter().enumerate() {
            assert_eq!(read(FORMAT, number).format, format);
        }
        for (number, matrix) in [Bt601, Bt709, Bt2020].into_iter().enumerate() {
            assert_eq!(read(MATRIX, number).matrix, matrix);
        }
        for (number, range) in [Full, Video].into_iter().enumerate() {
            assert_eq!(read(RANGE, number).range, range);
        }
    }

    #[test]
    fn answers_are_written_at_the_offsets_that_callers_read() {
        let prediction = |index, score| Prediction { index, label: "name".into(), score };
        let shown = Classification {
            predictions: vec![prediction(7, 0.75), prediction(u32::MAX, f32::NAN)],
            prepare_ms: 1.5,
            run_ms: 2.5,
        };
        let mut bytes = buffer(&[]);
        assert_eq!(CallBuffer(&mut bytes).answer(&shown).unwrap(), 2);
        let number = |at: usize| f64::from_ne_bytes(*bytes[at..].first_chunk().unwrap());
        assert_eq!((number(0), number(8)), (1.5, 2.5));
        assert_eq!(bytes[16..24], [7u32.to_ne_bytes(), 0.75f32.to_ne_bytes()].concat());
        let many = Classification { predictions: vec![prediction(0, 0.0); 127], ..shown };
        assert_eq!(CallBuffer(&mut bytes).answer(&many).unwrap_err().code(), "input.size");
    }

    #[test]
    fn a_long_error_is_truncated_at_a_character() {
        let error = SkipstoneError::Frame { code: "frame".into(), message: "ü".repeat(LEAST_BYTES) };
        let mut bytes = buffer(&[]);
        assert_eq!(CallBuffer(&mut bytes).refuse(&error), -4);
        let length = |at: usize| i32::from_ne_bytes(*bytes[at..].first_chunk().unwrap()) as usize;
        assert_eq!((length(0), length(4)), (5, 1010));
        assert_eq!(bytes[8..13], *b"frame");
        assert!(std::str::from_utf8(&bytes[13..13 + 1010]).is_ok());
    }
}
