//! The part of an output that a task of a depthwise or first convolution writes: all or some channels of some rows.

use std::marker::PhantomData;
use std::ops::Range;

/// Adjacent channels of adjacent pixels of an NHWC output. Unless these are all channels, another thread may write the
/// others at the same time.
pub(crate) struct Columns<'a> {
    /// First of the channels of the first pixel.
    start: *mut f32,
    pixels: usize,
    /// Channels of a pixel that are written.
    channels: usize,
    /// All channels of a pixel: elements from one pixel to the next.
    pitch: usize,
    out: PhantomData<&'a mut [f32]>,
}

impl<'a> Columns<'a> {
    /// All channels, `channels` of them, of all pixels.
    ///
    /// # Panics
    /// If there are no channels.
    #[inline]
    pub fn all(out: &'a mut [f32], channels: usize) -> Self {
        Self { start: out.as_mut_ptr(), pixels: out.len() / channels, channels, pitch: channels, out: PhantomData }
    }

    /// Some of the `pitch` channels of `pixels` pixels, the first of which starts at `out`.
    ///
    /// # Safety
    /// There are that many pixels, and while this value lives, no other code accesses these channels of them.
    ///
    /// # Panics
    /// If there are no such channels.
    #[inline]
    pub unsafe fn some(out: *mut f32, pixels: usize, channels: Range<usize>, pitch: usize) -> Self {
        assert!(channels.start <= channels.end && channels.end <= pitch, "channels of the output");
        let start = out.wrapping_add(channels.start);
        Self { start, pixels, channels: channels.len(), pitch, out: PhantomData }
    }

    /// Pixels that are written.
    #[inline(always)]
    pub fn pixels(&self) -> usize {
        self.pixels
    }

    /// Channels of a pixel that are written.
    #[inline(always)]
    pub fn channels(&self) -> usize {
        self.channels
    }

    /// Elements from one pixel to the next.
    #[inline(always)]
    pub fn pitch(&self) -> usize {
        self.pitch
    }

    /// Whether all channels are written, so that the pixels are one slice.
    #[inline(always)]
    pub fn is_contiguous(&self) -> bool {
        self.channels == self.pitch
    }

    /// The channels of `count` pixels: of one, unless the pixels are contiguous.
    ///
    /// # Panics
    /// If there are no such pixels, or if they are several and not contiguous.
    #[inline(always)]
    pub fn slice(&mut self, pixel: usize, count: usize) -> &mut [f32] {
        assert!(count == 1 || self.is_contiguous(), "contiguous pixels");
        // SAFETY: the pixels exist, as `at` checks, and only this value accesses these channels of them.
        unsafe { std::slice::from_raw_parts_mut(self.at(pixel, count), count * self.channels) }
    }

    /// The address of a pixel's first channel: `channels` elements are writable there and in each of the next
    /// `count - 1` pixels, each `pitch` elements after the one before.
    ///
    /// # Panics
    /// If there are no such pixels.
    #[inline(always)]
    pub fn at(&self, pixel: usize, count: usize) -> *mut f32 {
        assert!(pixel + count <= self.pixels, "pixels of the output");
        self.start.wrapping_add(pixel * self.pitch)
    }
}
