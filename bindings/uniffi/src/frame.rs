//! Camera frames by address, as Kotlin and Swift describe them.

use skipstone::vision::{self, ColorOrder, Pixels, Plane, Rotation, YuvMatrix, YuvRange};

use crate::address;
use crate::error::{Result, SkipstoneError};

/// How the pixels of a frame lie.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum FrameFormat {
    /// Three planes, Y, U and V, the last two at half the size: 4:2:0. A pixel stride of 2 makes U and V of one
    /// interleaved plane, as cameras give it (NV12, NV21).
    Yuv420,
    /// One plane of four bytes a pixel, red first.
    Rgba,
    /// One plane of four bytes a pixel, blue first.
    Bgra,
    /// One plane of three bytes a pixel, red first.
    Rgb,
    /// One plane of brightness.
    Gray,
}

/// Which standard's colors a YUV frame is in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum FrameMatrix {
    /// ITU-R BT.601: what phone cameras give for analysis.
    Bt601,
    /// ITU-R BT.709: high-definition video.
    Bt709,
    /// ITU-R BT.2020: ultra-high-definition and HDR video.
    Bt2020,
}

/// Which values of a byte a YUV frame uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Enum)]
pub enum FrameRange {
    /// All 256.
    Full,
    /// 16 to 235, and to 240 for color.
    Video,
}

/// A part of a frame, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Record)]
pub struct Region {
    /// Left edge.
    pub x: u32,
    /// Upper edge.
    pub y: u32,
    /// Pixels across.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
}

/// A plane of a frame. Its bytes must stay as they are until the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq, uniffi::Record)]
pub struct PlaneAddress {
    /// Where its first byte lies.
    pub address: u64,
    /// How many bytes it has.
    pub length: u64,
    /// Bytes from a row to the next.
    pub row_stride: u32,
    /// Bytes from a pixel to the next.
    pub pixel_stride: u32,
}

/// A camera frame, by address, and how to look at it. The steps are always made in the order of their fields: the part
/// is cut out of what is stored, turned, mirrored, and cropped.
#[derive(Clone, Debug, PartialEq, Eq, uniffi::Record)]
pub struct FrameAddress {
    /// How its pixels lie.
    pub format: FrameFormat,
    /// Pixels across, as the sensor gives them.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Three planes for YUV, else one.
    pub planes: Vec<PlaneAddress>,
    /// What the frame is of the stored picture, in the pixels of that; all of it where absent.
    pub part: Option<Region>,
    /// Clockwise turn that brings the part upright: a multiple of 90.
    pub rotation_degrees: i32,
    /// Whether left and right are then swapped.
    pub mirrored: bool,
    /// What to look at, in pixels of the upright, mirrored part; all of it where absent.
    pub crop: Option<Region>,
    /// The colors of a YUV frame.
    pub matrix: FrameMatrix,
    /// The values of a YUV frame.
    pub range: FrameRange,
}

impl FrameAddress {
    /// The frame over the bytes at its addresses.
    ///
    /// # Errors
    /// `Frame` where sizes, strides or the number of planes contradict each other, `Input` for an impossible address.
    ///
    /// # Safety
    /// As for [`address::borrow`], for each plane.
    pub(crate) unsafe fn borrow<'a>(&self) -> Result<vision::Frame<'a>> {
        let pixels = match (self.format, self.planes.as_slice()) {
            (FrameFormat::Yuv420, [y, u, v]) => Pixels::Yuv {
                // SAFETY: passed on.
                y: unsafe { plane(y) }?,
                // SAFETY: passed on.
                u: unsafe { plane(u) }?,
                // SAFETY: passed on.
                v: unsafe { plane(v) }?,
                matrix: match self.matrix {
                    FrameMatrix::Bt601 => YuvMatrix::Bt601,
                    FrameMatrix::Bt709 => YuvMatrix::Bt709,
                    FrameMatrix::Bt2020 => YuvMatrix::Bt2020,
                },
                range: match self.range {
                    FrameRange::Full => YuvRange::Full,
                    FrameRange::Video => YuvRange::Video,
                },
            },
            // SAFETY: passed on.
            (FrameFormat::Rgba, [only]) => Pixels::Color { plane: unsafe { plane(only) }?, order: ColorOrder::Rgba },
            // SAFETY: passed on.
            (FrameFormat::Bgra, [only]) => Pixels::Color { plane: unsafe { plane(only) }?, order: ColorOrder::Bgra },
            // SAFETY: passed on.
            (FrameFormat::Rgb, [only]) => Pixels::Color { plane: unsafe { plane(only) }?, order: ColorOrder::Rgb },
            // SAFETY: passed on.
            (FrameFormat::Gray, [only]) => Pixels::Color { plane: unsafe { plane(only) }?, order: ColorOrder::Gray },
            (_, planes) => {
                let message = format!("{} planes are not as many as a frame of this format has", planes.len());
                return Err(SkipstoneError::Frame { code: "frame".into(), message });
            }
        };
        let stored = vision::Frame::new(size(self.width), size(self.height), pixels)?;
        let upright = cut(stored, self.part)?.rotated(Rotation::from_degrees(self.rotation_degrees)?);
        cut(upright.mirrored(self.mirrored), self.crop)
    }
}

/// The frame inside `region`, in pixels of the frame as it is now.
fn cut(frame: vision::Frame<'_>, region: Option<Region>) -> Result<vision::Frame<'_>> {
    let Some(Region { x, y, width, height }) = region else { return Ok(frame) };
    Ok(frame.cropped(vision::Region { x: size(x), y: size(y), width: size(width), height: size(height) })?)
}

/// The plane over the bytes at its address.
///
/// # Safety
/// As for [`address::borrow`].
unsafe fn plane<'a>(plane: &PlaneAddress) -> Result<Plane<'a>> {
    // SAFETY: passed on.
    let bytes = unsafe { address::borrow(plane.address, plane.length) }?;
    Ok(Plane { bytes, row_stride: size(plane.row_stride), pixel_stride: size(plane.pixel_stride) })
}

fn size(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
