//! The pixels under the taps of a kernel larger than 1x1, gathered into one plane per tap and channel.

use std::ops::Range;

use super::LINE;
pub(super) use super::scalar::gather as scalar;
use crate::conv::{ConvShape, product};
use crate::lanes::Lanes;
use crate::planes::Padded;

/// How an image is split into bands of output rows whose pixels are gathered at once.
pub(super) struct RowBands {
    padded: Padded,
    out_h: usize,
    out_w: usize,
    /// Output rows per band, except the last.
    band: usize,
    /// Input rows under a band.
    lines: usize,
    /// Count of planes: taps of all channels.
    planes: usize,
    /// Elements of a register, by which the last store may exceed the planes.
    width: usize,
}

/// Most elements of gathered planes, so that they stay in the second-level cache.
const GATHERED: usize = 32 * 1024;

impl RowBands {
    #[inline(never)]
    pub fn new(s: &ConvShape, width: usize) -> Self {
        let planes = product(&[s.in_c, s.taps()]);
        let row = product(&[planes, s.out_w]).max(1);
        let band = (GATHERED / row).clamp(1, s.out_h.max(1));
        let lines = (band - 1) * s.stride[0] + (s.kernel[0] - 1) * s.dilation[0] + 1;
        RowBands { padded: Padded::new(s, width), out_h: s.out_h, out_w: s.out_w, band, lines, planes, width }
    }

    /// Bands of an image.
    pub fn count(&self) -> usize {
        self.out_h.div_ceil(self.band)
    }

    /// The output rows of a band.
    pub fn rows(&self, band: usize) -> Range<usize> {
        band * self.band..((band + 1) * self.band).min(self.out_h)
    }

    /// Pixels per band, except the last.
    pub fn pixels(&self) -> usize {
        product(&[self.band, self.out_w])
    }

    /// Elements of a copy, rounded up so that the planes after it start at a cache line.
    fn copy_len(&self) -> usize {
        product(&[self.lines, self.padded.row_len()]).next_multiple_of(LINE)
    }

    /// Elements for a copy of the rows of a channel, and for the planes.
    pub fn scratch_len(&self) -> usize {
        self.copy_len() + product(&[self.planes, self.pixels()]) + self.width
    }
}

/// Gathers the pixels under all taps for some output rows of an image (NCHW) in `scratch`, and returns them: one plane
/// per channel and tap, with one element per pixel of the rows.
///
/// # Safety
/// The CPU has the instruction set. The bands belong to the shape and have the width of the instruction set; the rows
/// are at most a band.
///
/// # Panics
/// If the image or the scratch is too short.
pub(super) type Gather = for<'a> unsafe fn(&RowBands, &ConvShape, &[f32], Range<usize>, &'a mut [f32]) -> &'a [f32];

/// # Safety
/// As for [`Gather`], and the caller enables the instruction set of `L`.
#[inline(always)]
unsafe fn gather<'a, L: Lanes>(
    bands: &RowBands,
    s: &ConvShape,
    image: &[f32],
    rows: Range<usize>,
    scratch: &'a mut [f32],
) -> &'a [f32] {
    let pixels = rows.len() * s.out_w;
    let (copy, planes) = scratch.split_at_mut(bands.copy_len());
    let len = product(&[bands.planes, pixels]);
    assert!(planes.len() >= len + L::WIDTH && image.len() >= product(&[s.in_c, s.in_h, s.in_w]));
    copy.fill(0.0);
    let row = bands.padded.row_len();
    let top = rows.start * s.stride[0];
    let lines = top..top + bands.lines;
    let last = s.out_w.saturating_sub(L::WIDTH);
    for channel in 0..s.in_c {
        let from = image[channel * s.in_h * s.in_w..].as_ptr();
        // SAFETY: the image has this channel, and the copy has space for its rows.
        unsafe { bands.padded.copy::<L>(from, lines.clone(), copy.as_mut_ptr(), false) };
        for tap in 0..s.taps() {
            let (ky, kx) = (tap / s.kernel[1], tap % s.kernel[1]);
            let plane = (channel * s.taps() + tap) * pixels;
            for y in 0..rows.len() {
                let at = (y * s.stride[0] + ky * s.dilation[0]) * row + bands.padded.column(kx * s.dilation[1]);
                for x in (0..s.out_w).step_by(L::WIDTH) {
                    let x = x.min(last);
                    // SAFETY: the copy has the row, with a whole register readable at every output column. There is
                    // space for the planes and a register; elements written past a row are overwritten by the next.
                    unsafe {
                        L::load(copy.as_ptr().add(at + x)).store(planes.as_mut_ptr().add(plane + y * s.out_w + x))
                    }
                }
            }
        }
    }
    &planes[..len]
}

/// # Safety
/// As for [`Gather`]; the CPU has AVX-512 F, BW, DQ and VL.
#[cfg(all(target_arch = "x86_64", feature = "avx512"))]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn avx512<'a>(
    bands: &RowBands,
    s: &ConvShape,
    image: &[f32],
    rows: Range<usize>,
    scratch: &'a mut [f32],
) -> &'a [f32] {
    // SAFETY: guaranteed by the caller; the instruction set is enabled here.
    unsafe { gather::<crate::lanes::avx512::F32x16>(bands, s, image, rows, scratch) }
}

/// # Safety
/// As for [`Gather`]; the CPU has AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn avx2<'a>(
    bands: &RowBands,
    s: &ConvShape,
    image: &[f32],
    rows: Range<usize>,
    scratch: &'a mut [f32],
) -> &'a [f32] {
    // SAFETY: guaranteed by the caller; the instruction set is enabled here.
    unsafe { gather::<crate::lanes::avx2::F32x8>(bands, s, image, rows, scratch) }
}

/// # Safety
/// As for [`Gather`]; the CPU has NEON.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub(super) unsafe fn neon<'a>(
    bands: &RowBands,
    s: &ConvShape,
    image: &[f32],
    rows: Range<usize>,
    scratch: &'a mut [f32],
) -> &'a [f32] {
    // SAFETY: guaranteed by the caller; the instruction set is enabled here.
    unsafe { gather::<crate::lanes::neon::F32x4>(bands, s, image, rows, scratch) }
}
