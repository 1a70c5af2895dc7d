//! Camera frames: planes of bytes, their memory layout, and the camera's orientation.

use super::color::{SampleKind, YuvFormat, YuvMatrix, YuvRange};
use crate::error::{Error, Fault, Result};

/// Longest side of a frame.
const MAX_SIDE: usize = 1 << 16;
/// Largest distance in bytes between neighboring samples.
const MAX_PIXEL_STRIDE: usize = 16;

/// Samples in memory: the one in column x and row y begins at `bytes[y * row_stride + x * pixel_stride]`. The last row
/// may end with its last sample.
#[derive(Clone, Copy, Debug)]
pub struct Plane<'a> {
    /// The bytes, from the first sample.
    pub bytes: &'a [u8],
    /// Bytes from the start of one row to the next.
    pub row_stride: usize,
    /// Bytes between neighboring samples, at most 16.
    pub pixel_stride: usize,
}

/// The samples of a frame: 8 bits each, unless the format says 10.
#[derive(Clone, Copy, Debug)]
pub enum Pixels<'a> {
    /// Luma and, for each block of 2x2 pixels (4:2:0) or of two beside each other (4:2:2), chroma. If a side is odd, the
    /// last blocks are cut in half. Interleaved chroma (NV12, NV21, P010) is two planes whose pixel stride is two samples,
    /// one sample apart.
    Yuv {
        /// How the samples are stored.
        format: YuvFormat,
        /// Luma.
        y: Plane<'a>,
        /// Blue chroma (Cb).
        u: Plane<'a>,
        /// Red chroma (Cr).
        v: Plane<'a>,
        /// The color standard.
        matrix: YuvMatrix,
        /// The value range.
        range: YuvRange,
    },
    /// Interleaved colors, or grayscale.
    Color {
        /// The interleaved samples.
        plane: Plane<'a>,
        /// Their order.
        order: ColorOrder,
    },
}

/// The samples of a pixel, in memory order.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ColorOrder {
    /// Red, green, blue and an ignored byte.
    Rgba,
    /// Blue, green, red and an ignored byte.
    Bgra,
    /// Red, green, blue.
    Rgb,
    /// Grayscale.
    Gray,
}

impl ColorOrder {
    /// Bytes per pixel.
    fn bytes(self) -> usize {
        match self {
            Self::Rgba | Self::Bgra => 4,
            Self::Rgb => 3,
            Self::Gray => 1,
        }
    }
}

/// The clockwise rotation that brings a frame upright.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum Rotation {
    /// Already upright.
    #[default]
    None,
    /// 90 degrees.
    Quarter,
    /// 180 degrees.
    Half,
    /// 270 degrees.
    ThreeQuarters,
}

impl Rotation {
    /// The clockwise rotation by `degrees`, which may be negative or more than 360.
    ///
    /// # Errors
    /// `frame` if `degrees` is not a multiple of 90.
    pub fn from_degrees(degrees: i32) -> Result<Self> {
        match degrees.rem_euclid(360) {
            0 => Ok(Self::None),
            90 => Ok(Self::Quarter),
            180 => Ok(Self::Half),
            270 => Ok(Self::ThreeQuarters),
            _ => Err(refused(format!("a rotation of {degrees} degrees is not a multiple of 90"))),
        }
    }
}

/// A rectangle of pixels.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Region {
    /// Its left column.
    pub x: usize,
    /// Its top row.
    pub y: usize,
    /// Its columns.
    pub width: usize,
    /// Its rows.
    pub height: usize,
}

/// The orientation of the sensor's axes relative to the upright image.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Orientation {
    /// The sensor's rows are the image's columns.
    pub turned: bool,
    /// The sensor's columns run against the image's axis.
    pub columns_reversed: bool,
    /// The sensor's rows run against the image's axis.
    pub rows_reversed: bool,
}

/// A borrowed camera frame, checked: all of its samples exist.
///
/// A frame is rotated and then mirrored, whichever was set first; a crop is in pixels of the image as both show it.
/// [`cropped`](Self::cropped) cuts at once: rotating or mirroring the frame later keeps the pixels of the crop.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    pixels: Pixels<'a>,
    /// The remaining part of the sensor's image, in its own coordinates.
    region: Region,
    rotation: Rotation,
    mirrored: bool,
}

impl<'a> Frame<'a> {
    /// A frame of `width` by `height` pixels as the sensor stores them, before any rotation.
    ///
    /// # Errors
    /// `frame`, with the reason: a side that is 0 or above 65536, a pixel stride smaller than a pixel or above 16, a
    /// row stride shorter than a row, a plane that ends before its last sample.
    pub fn new(width: usize, height: usize, pixels: Pixels<'a>) -> Result<Self> {
        for (name, side) in [("width", width), ("height", height)] {
            if !(1..=MAX_SIDE).contains(&side) {
                return Err(refused(format!("a {name} of {side}, expected 1 to {MAX_SIDE} pixels")));
            }
        }
        let check = |name: &str, plane: &Plane<'_>, width: usize, height: usize, pixel: usize| {
            check_plane(plane, width, height, pixel)
                .map_err(|reason| refused(format!("the {name} plane of {width}x{height} samples {reason}")))
        };
        match &pixels {
            Pixels::Yuv { y, u, v, format, .. } => {
                let sample = format.sample().bytes();
                let (columns, rows) =
                    (width.div_ceil(2), if format.halves_rows() { height.div_ceil(2) } else { height });
                check("luma", y, width, height, sample)?;
                check("u", u, columns, rows, sample)?;
                check("v", v, columns, rows, sample)?;
            }
            Pixels::Color { plane, order } => check("color", plane, width, height, order.bytes())?,
        }
        let region = Region { x: 0, y: 0, width, height };
        Ok(Self { pixels, region, rotation: Rotation::None, mirrored: false })
    }

    /// A dense NV21 frame: luma, then pairs of red and blue chroma; BT.601, full range.
    ///
    /// # Errors
    /// `frame` if a side is out of range or `bytes` has another length.
    pub fn nv21(width: usize, height: usize, bytes: &'a [u8]) -> Result<Self> {
        let (y, chroma) = dense_luma(width, height, bytes)?;
        let (v, u) = pairs(width, chroma);
        Self::new(width, height, yuv(y, u, v))
    }

    /// A dense NV12 frame: luma, then pairs of blue and red chroma; BT.601, full range.
    ///
    /// # Errors
    /// As for [`nv21`](Self::nv21).
    pub fn nv12(width: usize, height: usize, bytes: &'a [u8]) -> Result<Self> {
        let (y, chroma) = dense_luma(width, height, bytes)?;
        let (u, v) = pairs(width, chroma);
        Self::new(width, height, yuv(y, u, v))
    }

    /// A dense I420 frame: luma, blue chroma, red chroma; BT.601, full range.
    ///
    /// # Errors
    /// As for [`nv21`](Self::nv21).
    pub fn i420(width: usize, height: usize, bytes: &'a [u8]) -> Result<Self> {
        let (y, chroma) = dense_luma(width, height, bytes)?;
        let (u, v) = chroma.split_at(chroma.len() / 2);
        let plane = |bytes| Plane { bytes, row_stride: width.div_ceil(2), pixel_stride: 1 };
        Self::new(width, height, yuv(y, plane(u), plane(v)))
    }

    /// A dense P010 frame: luma, then pairs of blue and red chroma, of 10 bits in the upper bits of two bytes; BT.601,
    /// full range.
    ///
    /// # Errors
    /// As for [`nv21`](Self::nv21).
    pub fn p010(width: usize, height: usize, bytes: &'a [u8]) -> Result<Self> {
        let even = width.saturating_add(width % 2);
        let (luma, chroma) = (width.checked_mul(2).zip(even.checked_mul(2)))
            .and_then(|(row, pairs)| row.checked_mul(height).zip(pairs.checked_mul(height.div_ceil(2))))
            .ok_or_else(|| refused(format!("a frame of {width}x{height} pixels is too large")))?;
        check_dense(width, height, bytes, luma.checked_add(chroma))?;
        let (luma, chroma) = bytes.split_at(luma);
        let pairs = |bytes| Plane { bytes, row_stride: 2 * even, pixel_stride: 4 };
        let (y, u, v) = (
            Plane { bytes: luma, row_stride: 2 * width, pixel_stride: 2 },
            pairs(chroma),
            pairs(chroma.get(2..).unwrap_or(&[])),
        );
        let (matrix, range) = (YuvMatrix::Bt601, YuvRange::Full);
        Self::new(width, height, Pixels::Yuv { format: YuvFormat::P010, y, u, v, matrix, range })
    }

    /// A dense frame of red, green, blue.
    ///
    /// # Errors
    /// As for [`nv21`](Self::nv21).
    pub fn rgb(width: usize, height: usize, bytes: &'a [u8]) -> Result<Self> {
        Self::color(width, height, bytes, ColorOrder::Rgb)
    }

    /// A dense frame of red, green, blue and an ignored byte.
    ///
    /// # Errors
    /// As for [`nv21`](Self::nv21).
    pub fn rgba(width: usize, height: usize, bytes: &'a [u8]) -> Result<Self> {
        Self::color(width, height, bytes, ColorOrder::Rgba)
    }

    /// A dense frame of blue, green, red and an ignored byte.
    ///
    /// # Errors
    /// As for [`nv21`](Self::nv21).
    pub fn bgra(width: usize, height: usize, bytes: &'a [u8]) -> Result<Self> {
        Self::color(width, height, bytes, ColorOrder::Bgra)
    }

    /// A dense grayscale frame.
    ///
    /// # Errors
    /// As for [`nv21`](Self::nv21).
    pub fn gray(width: usize, height: usize, bytes: &'a [u8]) -> Result<Self> {
        Self::color(width, height, bytes, ColorOrder::Gray)
    }

    fn color(width: usize, height: usize, bytes: &'a [u8], order: ColorOrder) -> Result<Self> {
        let pixel_stride = order.bytes();
        let row_stride = width.checked_mul(pixel_stride);
        let want = row_stride.and_then(|row| row.checked_mul(height));
        check_dense(width, height, bytes, want)?;
        let plane = Plane { bytes, row_stride: row_stride.unwrap_or(0), pixel_stride };
        Self::new(width, height, Pixels::Color { plane, order })
    }

    /// The same samples with another color standard; ignored for other formats.
    #[must_use]
    pub fn with_matrix(mut self, to: YuvMatrix) -> Self {
        if let Pixels::Yuv { matrix, .. } = &mut self.pixels {
            *matrix = to;
        }
        self
    }

    /// The same samples with another range; ignored for other formats.
    #[must_use]
    pub fn with_range(mut self, to: YuvRange) -> Self {
        if let Pixels::Yuv { range, .. } = &mut self.pixels {
            *range = to;
        }
        self
    }

    /// The same frame with this rotation, which brings it upright, instead of its previous one.
    #[must_use]
    pub fn rotated(self, rotation: Rotation) -> Self {
        Self { rotation, ..self }
    }

    /// Whether left and right are swapped, after the rotation, as in a front camera's preview.
    #[must_use]
    pub fn mirrored(self, mirrored: bool) -> Self {
        Self { mirrored, ..self }
    }

    /// The part of the frame inside `region`, in pixels of the frame as it is now: upright, mirrored and cropped.
    ///
    /// # Errors
    /// `frame` if the region is empty or reaches outside of the frame.
    pub fn cropped(self, region: Region) -> Result<Self> {
        let inside =
            |start: usize, len: usize, whole: usize| len > 0 && start.checked_add(len).is_some_and(|end| end <= whole);
        if !inside(region.x, region.width, self.width()) || !inside(region.y, region.height, self.height()) {
            let Region { x, y, width, height } = region;
            let (whole_width, whole_height) = (self.width(), self.height());
            return Err(refused(format!(
                "a crop of {width}x{height} pixels at {x},{y} is empty or outside of a frame of \
                 {whole_width}x{whole_height}"
            )));
        }
        let Orientation { turned, columns_reversed, rows_reversed } = self.orientation();
        let (across, down) = ((region.x, region.width), (region.y, region.height));
        let (columns, rows) = if turned { (down, across) } else { (across, down) };
        // The range inside the remaining region, on the sensor's axis.
        let on_sensor = |(start, len): (usize, usize), whole: usize, reversed: bool| {
            if reversed { whole - start - len } else { start }
        };
        let region = Region {
            x: self.region.x + on_sensor(columns, self.region.width, columns_reversed),
            y: self.region.y + on_sensor(rows, self.region.height, rows_reversed),
            width: columns.1,
            height: rows.1,
        };
        Ok(Self { region, ..self })
    }

    /// Columns of the upright frame.
    #[must_use]
    pub fn width(&self) -> usize {
        if self.orientation().turned { self.region.height } else { self.region.width }
    }

    /// Rows of the upright frame.
    #[must_use]
    pub fn height(&self) -> usize {
        if self.orientation().turned { self.region.width } else { self.region.height }
    }

    /// The orientation of the sensor's axes relative to the upright frame.
    pub(super) fn orientation(&self) -> Orientation {
        let (turned, columns_reversed, rows_reversed) = match self.rotation {
            Rotation::None => (false, self.mirrored, false),
            Rotation::Quarter => (true, false, !self.mirrored),
            Rotation::Half => (false, !self.mirrored, true),
            Rotation::ThreeQuarters => (true, true, self.mirrored),
        };
        Orientation { turned, columns_reversed, rows_reversed }
    }

    /// The remaining part of the sensor's image, in its own coordinates.
    pub(super) fn region(&self) -> Region {
        self.region
    }

    /// The samples.
    pub(super) fn pixels(&self) -> &Pixels<'a> {
        &self.pixels
    }

    /// The kind of samples.
    pub(super) fn sample_kind(&self) -> SampleKind {
        match self.pixels {
            Pixels::Yuv { format, matrix, range, .. } => SampleKind::Yuv(format, matrix, range),
            Pixels::Color { order: ColorOrder::Gray, .. } => SampleKind::Gray,
            Pixels::Color { .. } => SampleKind::Rgb,
        }
    }
}

fn refused(message: String) -> Error {
    Error::Invalid { fault: Fault::Frame, message }
}

/// Checks that a plane has `width` by `height` samples of `pixel` bytes.
fn check_plane(plane: &Plane<'_>, width: usize, height: usize, pixel: usize) -> Result<(), String> {
    let Plane { bytes, row_stride, pixel_stride } = *plane;
    if !(pixel..=MAX_PIXEL_STRIDE).contains(&pixel_stride) {
        return Err(format!("has a pixel stride of {pixel_stride}, expected {pixel} to {MAX_PIXEL_STRIDE}"));
    }
    // Sides and pixel strides are bounded: this is below 2^21.
    let row = (width - 1) * pixel_stride + pixel;
    if row_stride < row {
        return Err(format!("has a row stride of {row_stride} bytes, but a row has {row}"));
    }
    match (height - 1).checked_mul(row_stride).and_then(|start| start.checked_add(row)) {
        Some(end) if end <= bytes.len() => Ok(()),
        Some(end) => Err(format!("has {} bytes, but its last sample ends at {end}", bytes.len())),
        None => Err(format!("has a row stride of {row_stride} bytes, which exceeds the address space")),
    }
}

/// Checks that dense bytes have the length for the format.
fn check_dense(width: usize, height: usize, bytes: &[u8], want: Option<usize>) -> Result<()> {
    match want {
        Some(want) if want == bytes.len() => Ok(()),
        Some(want) => Err(refused(format!(
            "a dense frame of {width}x{height} pixels has {want} bytes in this format, but {} were given",
            bytes.len()
        ))),
        None => Err(refused(format!("a frame of {width}x{height} pixels is too large"))),
    }
}

/// The luma of a dense 4:2:0 frame, and the bytes of its chroma.
fn dense_luma(width: usize, height: usize, bytes: &[u8]) -> Result<(Plane<'_>, &[u8])> {
    let luma = width.checked_mul(height);
    let chroma = width.div_ceil(2).checked_mul(height.div_ceil(2)).and_then(|samples| samples.checked_mul(2));
    let want = luma.zip(chroma).and_then(|(luma, chroma)| luma.checked_add(chroma));
    check_dense(width, height, bytes, want)?;
    let (luma, chroma) = bytes.split_at(luma.unwrap_or(0));
    Ok((Plane { bytes: luma, row_stride: width, pixel_stride: 1 }, chroma))
}

/// The planes of the first and second samples of interleaved pairs.
fn pairs(width: usize, bytes: &[u8]) -> (Plane<'_>, Plane<'_>) {
    let plane = |bytes| Plane { bytes, row_stride: width.div_ceil(2).saturating_mul(2), pixel_stride: 2 };
    (plane(bytes), plane(bytes.get(1..).unwrap_or(&[])))
}

fn yuv<'a>(y: Plane<'a>, u: Plane<'a>, v: Plane<'a>) -> Pixels<'a> {
    Pixels::Yuv { format: YuvFormat::Yuv420, y, u, v, matrix: YuvMatrix::Bt601, range: YuvRange::Full }
}
