//! Camera frames by address, as Kotlin and Swift describe them.

use skipstone::vision::{self, ColorOrder, Pixels, Plane, Rotation, YuvFormat, YuvMatrix, YuvRange};

use crate::address;
use crate::error::{Result, SkipstoneError};

/// Memory layout of a frame's pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Enum))]
pub enum FrameFormat {
    /// Three planes, Y, U and V, the last two at half size (4:2:0). With a pixel stride of 2, U and V are one
    /// interleaved plane, as cameras deliver it (NV12, NV21).
    Yuv420,
    /// One plane of four bytes per pixel, red first.
    Rgba,
    /// One plane of four bytes per pixel, blue first.
    Bgra,
    /// One plane of three bytes per pixel, red first.
    Rgb,
    /// One grayscale plane.
    Gray,
    /// Three planes like `Yuv420`, U and V with all rows and half of the columns (4:2:2).
    Yuv422,
    /// Three planes like `Yuv420`, of 10 bits: the upper ones of two bytes, the lower byte first.
    P010,
    /// Three planes like `Yuv422`, of 10 bits stored as in `P010`.
    P210,
}

impl FrameFormat {
    fn yuv(self) -> Option<YuvFormat> {
        match self {
            Self::Yuv420 => Some(YuvFormat::Yuv420),
            Self::Yuv422 => Some(YuvFormat::Yuv422),
            Self::P010 => Some(YuvFormat::P010),
            Self::P210 => Some(YuvFormat::P210),
            Self::Rgba | Self::Bgra | Self::Rgb | Self::Gray => None,
        }
    }

    fn color(self) -> Option<ColorOrder> {
        match self {
            Self::Rgba => Some(ColorOrder::Rgba),
            Self::Bgra => Some(ColorOrder::Bgra),
            Self::Rgb => Some(ColorOrder::Rgb),
            Self::Gray => Some(ColorOrder::Gray),
            Self::Yuv420 | Self::Yuv422 | Self::P010 | Self::P210 => None,
        }
    }
}

/// The color standard of a YUV frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Enum))]
pub enum FrameMatrix {
    /// ITU-R BT.601: what phone cameras deliver for analysis.
    Bt601,
    /// ITU-R BT.709: high-definition video.
    Bt709,
    /// ITU-R BT.2020: ultra-high-definition and HDR video.
    Bt2020,
}

/// The range of values in a YUV frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Enum))]
pub enum FrameRange {
    /// All 256, or all 1024 of 10 bits.
    Full,
    /// 16 to 235; for chroma, 16 to 240. Of 10 bits, four times that.
    Video,
}

/// A part of a frame, in pixels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
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

/// A plane of a frame. Its bytes must not change until the call returns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct PlaneAddress {
    /// Address of its first byte.
    pub address: u64,
    /// Its size in bytes.
    pub length: u64,
    /// Bytes from one row to the next.
    pub row_stride: u32,
    /// Bytes from one pixel to the next.
    pub pixel_stride: u32,
}

/// A camera frame, by address, and how to look at it. The steps are always applied in the order of the fields: the part
/// is cut out of the stored image, rotated, mirrored, and cropped.
#[derive(Clone, Debug, PartialEq, Eq)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Record))]
pub struct FrameAddress {
    /// The layout of its pixels.
    pub format: FrameFormat,
    /// Pixels across, as the sensor gives them.
    pub width: u32,
    /// Pixels down.
    pub height: u32,
    /// Three planes for YUV, otherwise one.
    pub planes: Vec<PlaneAddress>,
    /// The part of the stored image to use, in its pixels; all of it if absent.
    pub part: Option<Region>,
    /// Clockwise rotation that brings the part upright: a multiple of 90.
    pub rotation_degrees: i32,
    /// Whether left and right are then swapped.
    pub mirrored: bool,
    /// The region to classify, in pixels of the upright, mirrored part; all of it if absent.
    pub crop: Option<Region>,
    /// The color standard of a YUV frame.
    pub matrix: FrameMatrix,
    /// The value range of a YUV frame.
    pub range: FrameRange,
}

impl FrameAddress {
    /// The frame over the bytes at its addresses.
    ///
    /// # Errors
    /// `Frame` if sizes, strides or the number of planes contradict each other, `Input` for an impossible address.
    ///
    /// # Safety
    /// As for [`address::borrow`], for each plane.
    pub(crate) unsafe fn borrow<'a>(&self) -> Result<vision::Frame<'a>> {
        let pixels = match (self.format.yuv(), self.format.color(), self.planes.as_slice()) {
            (Some(format), _, [y, u, v]) => Pixels::Yuv {
                format,
                // SAFETY: the caller's promise is passed on.
                y: unsafe { plane(y) }?,
                // SAFETY: the caller's promise is passed on.
                u: unsafe { plane(u) }?,
                // SAFETY: the caller's promise is passed on.
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
            // SAFETY: the caller's promise is passed on.
            (_, Some(order), [only]) => Pixels::Color { plane: unsafe { plane(only) }?, order },
            (_, _, planes) => {
                let message = format!("a frame of this format does not have {} planes", planes.len());
                return Err(SkipstoneError::Frame { code: "frame".into(), message });
            }
        };
        let stored = vision::Frame::new(size(self.width), size(self.height), pixels)?;
        let upright = cut(stored, self.part)?.rotated(Rotation::from_degrees(self.rotation_degrees)?);
        cut(upright.mirrored(self.mirrored), self.crop)
    }
}

/// The frame inside `region`, in pixels of the frame after the steps so far.
fn cut(frame: vision::Frame<'_>, region: Option<Region>) -> Result<vision::Frame<'_>> {
    let Some(Region { x, y, width, height }) = region else { return Ok(frame) };
    Ok(frame.cropped(vision::Region { x: size(x), y: size(y), width: size(width), height: size(height) })?)
}

/// The plane over the bytes at its address.
///
/// # Safety
/// As for [`address::borrow`].
unsafe fn plane<'a>(plane: &PlaneAddress) -> Result<Plane<'a>> {
    // SAFETY: the caller's promise is passed on.
    let bytes = unsafe { address::borrow(plane.address, plane.length) }?;
    Ok(Plane { bytes, row_stride: size(plane.row_stride), pixel_stride: size(plane.pixel_stride) })
}

fn size(value: u32) -> usize {
    usize::try_from(value).unwrap_or(usize::MAX)
}
