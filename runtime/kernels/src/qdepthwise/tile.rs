//! One row of output pixels: its arguments, and the loops that the instruction sets share.
//!
//! Channels are in the lanes, in blocks of the widths that an instruction set supports. The bytes of a group of taps
//! are interleaved so that one instruction multiplies and sums them per channel. Interleaving permutes the channels of
//! a block, and weights, offsets and scales are packed in that order: lane `l` of register `j` of four holds channel
//! `16 * (l / 4) + 4 * j + l % 4`. Narrowing the four registers to bytes restores the natural order.

use std::ops::Range;

use crate::conv::ConvShape;
use crate::requantize::{Form, Requantize};

/// Most taps of a filter, rounded up to whole groups.
pub(super) const MAX_TAPS: usize = 64;

/// What a kernel computes: some pixels of an output row.
pub(super) struct OutputRow<'a> {
    /// The taps. The kernel pads them to whole groups.
    pub taps: &'a [Tap],
    pub shape: &'a ConvShape,
    /// The output pixels to compute.
    pub columns: Range<usize>,
    /// Output pixels whose windows are inside the image horizontally.
    pub inner: Range<usize>,
    /// One zero point per channel.
    pub zeros: *const u8,
    /// Widths of the blocks of channels.
    pub widths: &'a [usize],
    /// All blocks, each with all groups.
    pub weights: *const i8,
    pub offsets: *const i32,
    /// Not read if the output is sums.
    pub scales: *const f32,
    /// Elements of the type given by `to`, starting at the first of `columns`.
    pub out: *mut u8,
    pub to: Form,
}

/// A tap of a row.
#[derive(Clone, Copy)]
pub(super) struct Tap {
    /// Its pixel under the first output pixel. In the padding it may point outside the image, but is then not read.
    pub first: *const u8,
    /// Bytes from one output pixel to the next; 0 if the whole kernel row is in the padding.
    pub step: usize,
    /// Kernel column.
    pub column: usize,
}

/// Computes a row.
///
/// # Safety
/// The CPU has the instructions of the kernel's table. The pointers are valid as documented on the fields: taps for all
/// channels of every pixel where they are inside the image, the packed constants for all blocks; the output overlaps
/// nothing else.
pub(super) type RowFn = unsafe fn(&OutputRow<'_>);

/// Four registers of sums of a block of channels.
pub(super) trait Sums: Copy {
    /// Channels.
    const WIDTH: usize;
    /// Taps that one instruction multiplies.
    const GROUP: usize;

    /// # Safety
    /// The CPU has the instructions.
    unsafe fn zero() -> Self;
    /// Adds the products of a group of taps for the channels starting at `channel`.
    ///
    /// # Safety
    /// The CPU has the instructions; `GROUP` taps are readable for `WIDTH` channels, weights for both.
    unsafe fn add_products(self, taps: *const *const u8, channel: usize, weights: *const i8) -> Self;
    /// Stores `(self + offset) * scale` as bytes.
    ///
    /// # Safety
    /// The CPU has the instructions; `WIDTH` offsets and scales are readable, `to` is writable for as many bytes.
    unsafe fn store_bytes(self, offsets: *const i32, scales: *const f32, by: &Requantize, to: *mut u8);
    /// Stores the sums, in the order of the registers.
    ///
    /// # Safety
    /// The CPU has the instructions; `to` is writable for `WIDTH` elements.
    unsafe fn store(self, to: *mut i32);
}

/// The block widths of an instruction set.
pub(super) trait Widths {
    /// Taps that one instruction multiplies.
    const GROUP: usize;

    /// Computes a block of the given width.
    ///
    /// # Safety
    /// As for [`Block::compute`], with the sums of this width.
    unsafe fn compute(block: &Block<'_>, width: usize);
}

/// The loops over pixels and blocks.
///
/// There are no closures here or below: a closure that is not inlined is compiled without the instruction set.
///
/// # Safety
/// As for [`RowFn`], and the caller enables the instructions of `W`.
#[inline(always)]
pub(super) unsafe fn row<W: Widths>(row: &OutputRow<'_>) {
    let mut taps = [row.zeros; MAX_TAPS];
    let count = row.taps.len().next_multiple_of(W::GROUP);
    let size = row.to.size();
    // The start of the line, which may be before the pixels to compute.
    let line = row.out.wrapping_sub(row.columns.start * row.shape.out_c * size);
    for pixel in row.columns.clone() {
        if row.inner.contains(&pixel) {
            for (to, tap) in taps.iter_mut().zip(row.taps) {
                *to = tap.first.wrapping_add(pixel * tap.step);
            }
        } else {
            let valid = row.shape.valid_taps(1, pixel);
            for (to, tap) in taps.iter_mut().zip(row.taps) {
                let inside = tap.step == 0 || valid.contains(&tap.column);
                *to = if inside { tap.first.wrapping_add(pixel * tap.step) } else { row.zeros };
            }
        }
        let (mut done, mut packed) = (0, 0);
        while let Some((first, width)) = block(row.widths, row.shape.out_c, done) {
            // SAFETY: the packed constants and the output have all blocks of all pixels; the rest is guaranteed by the
            // caller.
            unsafe {
                let block = Block {
                    taps: &taps[..count],
                    first,
                    weights: row.weights.add(packed * count),
                    offsets: row.offsets.add(packed),
                    scales: row.scales.wrapping_add(packed),
                    out: line.wrapping_add((pixel * row.shape.out_c + first) * size),
                    to: &row.to,
                };
                W::compute(&block, width);
            }
            packed += width;
            done = first + width;
        }
    }
}

/// First channel and width of the block after the first `done` channels: the widest that fits. If fewer channels remain
/// than the narrowest width, the last block overlaps channels that another block also computes.
#[inline(always)]
pub(super) fn block(widths: &[usize], channels: usize, done: usize) -> Option<(usize, usize)> {
    let left = channels - done;
    if left == 0 {
        return None;
    }
    for &width in widths {
        if width <= left {
            return Some((done, width));
        }
    }
    widths.last().map(|&narrowest| (channels.saturating_sub(narrowest), narrowest))
}

/// A block of channels of a pixel.
pub(super) struct Block<'a> {
    taps: &'a [*const u8],
    first: usize,
    weights: *const i8,
    offsets: *const i32,
    scales: *const f32,
    out: *mut u8,
    to: &'a Form,
}

impl Block<'_> {
    /// # Safety
    /// The block is `S::WIDTH` wide, its taps are whole groups of `S`, its pointers are valid as for [`RowFn`], and the
    /// caller enables the instructions of `S`.
    #[inline(always)]
    pub(super) unsafe fn compute<S: Sums>(&self) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let mut sums = S::zero();
            let mut weights = self.weights;
            let mut tap = 0;
            while tap < self.taps.len() {
                sums = sums.add_products(self.taps.as_ptr().add(tap), self.first, weights);
                weights = weights.add(S::WIDTH * S::GROUP);
                tap += S::GROUP;
            }
            match self.to {
                Form::Bytes(by) => sums.store_bytes(self.offsets, self.scales, by, self.out),
                Form::Floats => self.store_wide(sums, true),
                Form::Sums => self.store_wide(sums, false),
            }
        }
    }

    /// Stores sums or floats; four consecutive positions hold adjacent channels.
    ///
    /// # Safety
    /// As for `compute`.
    #[inline(always)]
    unsafe fn store_wide<S: Sums>(&self, sums: S, floats: bool) {
        let mut stored = [0i32; 64];
        // SAFETY: no block is wider than 64; the rest is guaranteed by the caller.
        unsafe {
            sums.store(stored.as_mut_ptr());
            for four in (0..S::WIDTH).step_by(4) {
                let to = self.out.cast::<u32>().add(channel_of(four, S::WIDTH));
                for i in 0..4 {
                    let at = four + i;
                    let sum = stored[at].wrapping_add(*self.offsets.add(at));
                    let word = if floats { (sum as f32 * *self.scales.add(at)).to_bits() } else { sum.cast_unsigned() };
                    to.add(i).write_unaligned(word);
                }
            }
        }
    }
}

/// The channel at position `at` of a block of `width`.
pub(super) fn channel_of(at: usize, width: usize) -> usize {
    let (register, lane) = (at / (width / 4), at % (width / 4));
    16 * (lane / 4) + 4 * register + lane % 4
}
