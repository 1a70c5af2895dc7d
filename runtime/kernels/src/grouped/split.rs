//! How a convolution is split into units, and where its spread pixels are: by sizes alone, so that scratch can be
//! planned.
//!
//! A unit is some rows of a strip of columns of some filters. For each of its blocks, filters that read the same spread
//! pixels, it has a ring of the input rows under an output row, each `[channels, phases, pitch]` registers: a phase is a
//! column modulo the stride.

use std::ops::Range;

use crate::conv::ConvShape;
use crate::parallel::{UNITS_PER_THREAD, WINDOWS_WORTH_SHARING};

/// Outputs of a tile: a multiply-add takes as long as 8 others; 14 sums, a register of weights and one more are all that
/// AVX2 has.
const TILES: [usize; 2] = [14, 8];
/// Most channels and filters of a group: with more, a product per group is the better way.
const MAX_CHANNELS: usize = 128;
/// Most taps times channels of a group: a tile, which is computed at once, takes a small part of a millisecond.
const MAX_STEPS: usize = 1 << 13;
/// Largest horizontal stride.
const MAX_STRIDE: usize = 64;
/// Elements of a line of the cache.
const LINE: usize = 16;
/// Elements of the rows that an output row reads: 24 KiB, a share of the first-level cache. It is smaller in tests, so
/// that small images have several strips.
const CACHE: usize = if cfg!(test) { 1 << 10 } else { 6 * 1024 };
/// Most elements of the rings of a unit.
const MAX_RINGS: usize = 256 * 1024;
/// Most entries of the table of offsets.
const MAX_OFFSETS: usize = 64 * 1024;
/// Multiply-adds of a unit that can be cut: about a millisecond.
const UNIT_WORK: usize = 1 << 22;

/// Measured time over that of the model: 1.2 to 1.4 if the images are in the second-level cache, up to 2 if they are not.
const MEASURED: f64 = 1.5;

/// How a convolution is split.
#[derive(Clone, Debug)]
pub(super) struct Split {
    /// Filters of a register.
    pub width: usize,
    /// Taps times channels of a group.
    pub steps: usize,
    /// Registers of a block.
    pub registers: usize,
    /// Blocks of all filters.
    blocks: usize,
    /// Blocks of a unit: several if a line of the cache contains outputs of several.
    together: usize,
    /// Outputs of a tile.
    pub tile: usize,
    /// Output columns of a strip, and strips.
    strip: usize,
    strips: usize,
    /// Output rows of a unit, and such bands.
    band: usize,
    bands: usize,
    /// Bit `p` is set if some tap reads columns of phase `p`.
    pub phases: u64,
    /// Registers of a phase in a row.
    pub pitch: usize,
    /// Rows of a ring.
    pub rows: usize,
    /// Elements of a row of a ring.
    pub row_len: usize,
    /// Threads that work, each with its own rings.
    pub slots: usize,
}

/// The outputs of a unit.
#[derive(Clone, Debug)]
pub(super) struct Place {
    pub image: usize,
    pub rows: Range<usize>,
    pub columns: Range<usize>,
    pub blocks: Range<usize>,
}

impl Split {
    /// The split for registers of `width` filters; `None` if the family does not take the convolution.
    #[inline(never)]
    pub fn new(width: usize, s: &ConvShape, threads: usize) -> Option<Self> {
        let (depth, filters) = (s.group_in(), s.group_out());
        let steps = s.taps().saturating_mul(depth);
        let few = |channels: usize| (1..=MAX_CHANNELS).contains(&channels);
        let takes = s.groups > 1 && few(depth) && few(filters) && (1..=MAX_STEPS).contains(&steps);
        // A pixel has at least a register of channels, which is read whole.
        if !takes || s.in_c < width || s.stride[1] > MAX_STRIDE {
            return None;
        }
        let registers = if filters.is_multiple_of(width) { filters / width } else { 1 };
        let blocks = s.out_c.div_ceil(registers * width);
        let together = (LINE / (registers * width)).clamp(1, blocks);

        let phases = (0..s.kernel[1]).fold(0u64, |phases, kx| phases | 1 << (kx * s.dilation[1] % s.stride[1]));
        let plane = depth * phases.count_ones() as usize * width;
        let reach = (s.kernel[1] - 1) * s.dilation[1] / s.stride[1];
        let (out_h, out_w) = (s.out_h.max(1), s.out_w.max(1));
        // The one that takes less time for a row.
        let tile = *TILES.iter().min_by_key(|&&tile| out_w.div_ceil(tile).saturating_mul(tile + 2))?;
        let window = (s.kernel[0] - 1) * s.dilation[0] + 1;
        let rows = window.min(s.in_h).max(1);
        if rows.saturating_mul(steps) > MAX_OFFSETS {
            return None;
        }
        // The tiles of a strip of which so many rows fit.
        let widest = |room: usize, rows: usize| {
            let registers = room / plane.saturating_mul(together).saturating_mul(rows.max(1));
            registers.saturating_sub(reach) / tile
        };
        let most = widest(MAX_RINGS, rows);
        if most == 0 {
            return None;
        }
        let tiles = widest(CACHE, s.kernel[0].min(s.in_h)).min(most).clamp(1, out_w.div_ceil(tile));
        let (strip, pitch) = (tiles * tile, tiles * tile + reach);
        let (strips, row_len) = (out_w.div_ceil(strip), plane * pitch);

        let of_row = strip * steps * registers * width * together;
        let mut band = out_h.min((UNIT_WORK / of_row).max(1));
        let units = s.batch.saturating_mul(strips).saturating_mul(blocks.div_ceil(together));
        let work = s.output_len().saturating_mul(steps);
        let threads = if work < WINDOWS_WORTH_SHARING { 1 } else { threads.max(1) };
        if threads > 1 {
            band = band.min(out_h.div_ceil((threads * UNITS_PER_THREAD).div_ceil(units.max(1))));
        }
        let bands = out_h.div_ceil(band);
        let (band, slots) = (out_h.div_ceil(bands), units.saturating_mul(bands).min(threads).max(1));
        Some(Split {
            width,
            steps,
            registers,
            blocks,
            together,
            tile,
            strip,
            strips,
            band,
            bands,
            phases,
            pitch,
            rows,
            row_len,
            slots,
        })
    }

    /// Time by a model of the core, in multiply-adds of a register. A step of a tile takes as many as it has loads, and
    /// spread registers are loaded, possibly permuted, and stored.
    pub fn cost(&self, s: &ConvShape) -> f64 {
        let tiles = (s.out_w.div_ceil(self.tile) * self.registers) as f64;
        let tile = self.steps as f64 * (self.tile + 1) as f64 + 3.0 * self.tile as f64 + 30.0;
        let rows = s.in_h as f64 + (self.bands - 1) as f64 * self.rows as f64;
        let spread = rows * self.strips as f64 * (self.row_len / self.width) as f64 * 3.0;
        MEASURED * s.batch as f64 * self.blocks as f64 * (s.out_h as f64 * tiles * tile + spread)
    }

    /// Elements of the table of offsets.
    pub fn offsets_len(&self) -> usize {
        (self.rows * self.steps).next_multiple_of(LINE)
    }

    /// Elements of the ring of a block.
    pub fn ring_len(&self) -> usize {
        self.rows * self.row_len
    }

    /// Elements of the rings of a thread.
    pub fn slot_len(&self) -> usize {
        (self.ring_len() * self.together).next_multiple_of(LINE)
    }

    /// Scratch size in elements.
    pub fn scratch_len(&self) -> usize {
        self.offsets_len() + self.slot_len() * self.slots
    }

    /// For every row of a ring that may be the first under an output row, and for every step: where the pixels begin, in
    /// elements from the start of the ring.
    pub fn offsets(&self, s: &ConvShape, to: &mut [u32]) {
        let phases = self.phases.count_ones() as usize;
        let plane = phases * self.pitch * self.width;
        // Of the first row and channel; the others are at the same distances.
        for (kx, to) in to[..s.kernel[1]].iter_mut().enumerate() {
            let column = kx * s.dilation[1];
            let phase = (self.phases & ((1 << (column % s.stride[1])) - 1)).count_ones() as usize;
            *to = ((phase * self.pitch + column / s.stride[1]) * self.width) as u32;
        }
        let (columns, others) = to.split_at_mut(s.kernel[1]);
        let rows = (0..self.rows).flat_map(|top| (0..s.kernel[0]).map(move |ky| top + ky * s.dilation[0]));
        let rows = rows.flat_map(|row| (0..s.group_in()).map(move |channel| (row % self.rows, channel)));
        for ((row, channel), to) in rows.skip(1).zip(others.chunks_exact_mut(s.kernel[1])) {
            let first = (row * self.row_len + channel * plane) as u32;
            for (to, column) in to.iter_mut().zip(&*columns) {
                *to = first + column;
            }
        }
    }

    /// The row of a ring that is the first under an output row; in the padding, it would be.
    pub fn top(&self, s: &ConvShape, y: usize) -> usize {
        (y * s.stride[0] + s.pad_top.next_multiple_of(self.rows) - s.pad_top) % self.rows
    }

    /// Units of the whole output.
    pub fn units(&self, s: &ConvShape) -> usize {
        s.batch * self.bands * self.strips * self.blocks.div_ceil(self.together)
    }

    /// The outputs of a unit; units with the same pixels follow each other.
    pub fn unit(&self, s: &ConvShape, unit: usize) -> Place {
        let part = |at: usize, len: usize, all: usize| at * len..((at + 1) * len).min(all);
        let columns = self.blocks.div_ceil(self.together);
        let (blocks, unit) = (unit % columns, unit / columns);
        let (strip, unit) = (unit % self.strips, unit / self.strips);
        Place {
            image: unit / self.bands,
            rows: part(unit % self.bands, self.band, s.out_h),
            columns: part(strip, self.strip, s.out_w),
            blocks: part(blocks, self.together, self.blocks),
        }
    }
}
