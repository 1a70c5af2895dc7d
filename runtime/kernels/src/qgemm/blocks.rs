//! The loops around the microkernel: tiles of rows, blocks for the caches, units for the threads.
//!
//! The output is split into units, each a block of tiles times a block of panels. Inside a unit, every panel of weights
//! is multiplied with all tiles of the block before the next panel is read, so the panel stays in the second-level
//! cache and the activations stay in the first two levels. If windows are read in place, a tile consists of whole lines
//! of the image or lies within one line. At the upper and lower edge, all its pixels then have the same kernel rows in
//! the padding, and these rows are skipped.

use std::ops::Range;

use super::pack::{is_ranged, padded_filters, range_index};
use super::tile::QgemmTile;
use super::{Packed, Variant};
use crate::conv::{ConvShape, product};
use crate::parallel::{BYTES_WORTH_SHARING, UNITS_PER_THREAD, share_units};
use crate::requantize::Form;
use crate::threads::Pool;

/// Bytes of activations that a block of tiles may touch: a share of the second-level cache.
const BLOCK_BYTES: usize = 128 * 1024;
/// Row pointers of a unit, on the stack. If a convolution has more taps than fit for one tile, its rows are gathered.
const MAX_POINTERS: usize = 1024;
/// With fewer channels than this, reading one run of memory per tap would be mostly overhead.
const SHORT_RUN: usize = 16;
/// Multiply-adds of a unit that can be cut: about a millisecond.
const UNIT_WORK: usize = 1 << 25;

/// How a product is split into units. Depends only on sizes, so that scratch can be planned.
pub(super) struct QgemmSplit {
    tiles: Tiles,
    /// Blocks of tiles.
    blocks: usize,
    /// Panels of a panel block.
    panels: usize,
    panel_blocks: usize,
    /// Threads that work, each with its own scratch.
    slots: usize,
    /// Whether rows are copied, with contiguous taps.
    gathered: bool,
    /// Taps as the microkernel sees them.
    taps: usize,
    /// Bytes per tap as the microkernel sees it.
    depth: usize,
}

impl QgemmSplit {
    pub(super) fn new(v: &Variant, shape: &ConvShape, threads: usize) -> QgemmSplit {
        let (taps, channels) = (shape.taps(), shape.group_in());
        let in_place = v.element == 1
            && channels.is_multiple_of(v.group)
            && (taps == 1 || channels >= SHORT_RUN)
            && product(&[taps, v.mr]) <= MAX_POINTERS;
        let (gathered, taps, depth) = match in_place {
            true => (false, taps, channels),
            false => (true, 1, product(&[taps, channels]).next_multiple_of(v.group) * v.element),
        };
        let tiles = Tiles::new(v, shape, gathered);
        // Neighboring pixels share most of a window: about three runs per pixel are new to the cache.
        let footprint = product(&[depth, taps.min(3), v.mr]).max(1);
        let pointers = if gathered { v.mr } else { taps.max(1) * v.mr };
        let most = UNIT_WORK / product(&[v.mr, v.nr, taps, depth]).max(1);
        let mut in_block = (BLOCK_BYTES / footprint).min(MAX_POINTERS / pointers).min(most).max(1);
        let all_panels = shape.group_out().div_ceil(v.nr).max(1);
        let mut panels = all_panels;
        let sizes = [shape.pixels(), shape.out_c, shape.taps(), channels];
        let work = sizes.iter().fold(1usize, |work, &size| work.saturating_mul(size));
        let threads = if work < BYTES_WORTH_SHARING { 1 } else { threads.max(1) };
        if threads > 1 {
            let wanted = threads * UNITS_PER_THREAD;
            in_block = in_block.min(tiles.count.div_ceil(wanted.div_ceil(shape.groups)).max(1));
            let blocks = (tiles.count.div_ceil(in_block) * shape.groups).max(1);
            panels = (all_panels * blocks).div_ceil(wanted).min(all_panels);
        }
        // A canceled run stops between units.
        panels = panels.min((UNIT_WORK / product(&[in_block, v.mr, v.nr, taps, depth]).max(1)).max(1));
        let (blocks, panel_blocks) = (tiles.count.div_ceil(in_block).max(1), all_panels.div_ceil(panels));
        let slots = product(&[blocks, panel_blocks, shape.groups]).min(threads).max(1);
        QgemmSplit { tiles, blocks, panels, panel_blocks, slots, gathered, taps, depth }
    }

    /// Length of the row of zero points that taps in the padding read, rounded up so that the scratch after it stays
    /// aligned.
    pub(super) fn zeros_len(&self, shape: &ConvShape) -> usize {
        if self.gathered || !shape.is_padded() { 0 } else { self.depth.next_multiple_of(2) }
    }

    /// Scratch size in bytes, for the rows that each thread copies.
    pub(super) fn scratch_len(&self) -> usize {
        product(&[self.slot_len(), self.slots])
    }

    fn slot_len(&self) -> usize {
        let in_block = self.tiles.count.div_ceil(self.blocks);
        if self.gathered { product(&[in_block, self.tiles.most_rows, self.depth]) } else { 0 }
    }

    /// The tiles of a block.
    fn block(&self, index: usize) -> Range<usize> {
        index * self.tiles.count / self.blocks..(index + 1) * self.tiles.count / self.blocks
    }
}

/// The output pixels, split into tiles of at most `mr`, as equal as possible.
struct Tiles {
    count: usize,
    /// Pixels of the largest tile.
    most_rows: usize,
    /// Pixels that are split into `per_run` tiles, with whole lines in each tile if `line` is not 1.
    run: usize,
    per_run: usize,
    line: usize,
}

impl Tiles {
    fn new(v: &Variant, shape: &ConvShape, gathered: bool) -> Tiles {
        let (pixels, width) = (shape.pixels(), shape.out_w);
        let (run, line) = if gathered || !is_ranged(shape) || width == 0 {
            (pixels, 1)
        } else if width >= v.mr {
            (width, 1)
        } else {
            (shape.out_h * width, width)
        };
        let per_run = (run / line).div_ceil(v.mr / line).max(1);
        let count = pixels.checked_div(run).map_or(0, |runs| runs * per_run);
        Tiles { count, most_rows: v.mr.min(run.max(1)), run, per_run, line }
    }

    /// First pixel and pixel count of a tile.
    fn range(&self, tile: usize) -> (usize, usize) {
        let (run, index) = (tile / self.per_run, tile % self.per_run);
        let lines = self.run / self.line;
        let at = |index: usize| index * lines / self.per_run * self.line;
        (run * self.run + at(index), at(index + 1) - at(index))
    }
}

/// A convolution whose slices have been checked against its shape.
pub(super) struct CheckedConv<'a> {
    pub v: &'a Variant,
    pub shape: &'a ConvShape,
    pub input: &'a [u8],
    pub zero: u8,
    /// Zero points that taps in the padding point to.
    pub zeros: &'a [u8],
    pub packed: Packed<'a>,
    pub form: Form,
    pub table: Option<&'a [u8; 256]>,
}

/// First byte of an output in which every unit writes its own parts.
struct OutputBytes(*mut u8);

// SAFETY: only a pointer; units write disjoint parts.
unsafe impl Sync for OutputBytes {}

impl CheckedConv<'_> {
    /// Computes the convolution into `out`, which has the shape's output length and the element type of `form`.
    pub(super) fn run(&self, split: &QgemmSplit, out: *mut u8, scratch: &mut [u8], pool: &Pool) {
        let out = OutputBytes(out);
        let units = self.shape.groups * split.blocks * split.panel_blocks;
        // The closure captures the whole wrapper, which is `Sync`.
        let out = &out;
        share_units(pool, units, split.slots, split.slot_len(), scratch, |unit, slot| {
            self.unit(split, unit, slot, out.0);
        });
    }

    /// One block of tiles times one block of panels of one group.
    fn unit(&self, split: &QgemmSplit, unit: usize, slot: &mut [u8], out: *mut u8) {
        let (v, shape) = (self.v, self.shape);
        let panel_block = unit % split.panel_blocks;
        let block = split.block(unit / split.panel_blocks % split.blocks);
        let group = unit / split.panel_blocks / split.blocks;
        let mut pointers = [std::ptr::null(); MAX_POINTERS];
        let base = split.tiles.range(block.start).0;
        for tile in block.clone() {
            let (start, len) = split.tiles.range(tile);
            let pointers = &mut pointers[(start - base) * split.taps..][..len * split.taps];
            if split.gathered {
                let to = &mut slot[(start - base) * split.depth..][..len * split.depth];
                self.gather(start, group, split.depth, to);
                for (row, pointer) in to.chunks_exact(split.depth.max(1)).zip(pointers) {
                    *pointer = row.as_ptr();
                }
            } else {
                self.point(start, len, group, pointers);
            }
        }
        let (n, padded) = (shape.group_out(), padded_filters(v, shape));
        let steps = split.depth / (v.group * v.element);
        let group_weights = &self.packed.weights[self.packed.weights.len() / shape.groups * group..];
        // Empty for sums, which are not scaled.
        let scales = self.packed.scales.get(group * padded..).unwrap_or_default();
        let first_panel = panel_block * split.panels;
        for panel in first_panel..n.div_ceil(v.nr).min(first_panel + split.panels) {
            let column = panel * v.nr;
            let columns = v.nr.min(n - column);
            let registers = columns.div_ceil(v.lanes);
            // Bytes of one tap in the panel.
            let tap_len = steps * registers * v.lanes * v.group;
            let weights = &group_weights[column * split.taps * steps * v.group..][..split.taps * tap_len];
            for tile in block.clone() {
                let (start, len) = split.tiles.range(tile);
                let rows = self.kernel_rows(split, start, len);
                let taps = match rows == (0..shape.kernel[0]) {
                    true => 0..split.taps,
                    false => rows.start * shape.kernel[1]..rows.end * shape.kernel[1],
                };
                let index = range_index(shape.kernel[0], rows.start, rows.end);
                let offsets = &self.packed.offsets[(index * shape.groups + group) * padded..][..padded];
                let at = start * shape.out_c + group * n + column;
                let size = self.form.size();
                // SAFETY: the entry point has checked that the CPU has the instructions. `point` or `gather` has made
                // `taps` times `len` pointers to `steps` groups each; panel, offsets and scales have the columns'
                // registers; the output has these rows and columns, which no other unit writes.
                unsafe {
                    v.kernels[len - 1][registers - 1](&QgemmTile {
                        rows: pointers[(start - base) * split.taps + taps.start * len..].as_ptr(),
                        taps: taps.len(),
                        steps,
                        panel: weights[taps.start * tap_len..].as_ptr(),
                        offsets: offsets[column..].as_ptr(),
                        scales: scales.get(column..).unwrap_or_default().as_ptr(),
                        out: out.add(at * size),
                        ldc: shape.out_c,
                        columns,
                        to: self.form,
                    });
                }
                let Some(table) = self.table else { continue };
                for row in 0..len {
                    // SAFETY: a row of the tile that was just written, by this unit alone; with a table, the output is
                    // bytes.
                    let row = unsafe { std::slice::from_raw_parts_mut(out.add(at + row * shape.out_c), columns) };
                    row.iter_mut().for_each(|byte| *byte = table[usize::from(*byte)]);
                }
            }
        }
    }

    /// The kernel rows that fall inside the image for at least one pixel of a tile.
    fn kernel_rows(&self, split: &QgemmSplit, start: usize, len: usize) -> Range<usize> {
        let s = self.shape;
        let all = 0..s.kernel[0];
        if split.gathered || !is_ranged(s) {
            return all;
        }
        // A tile lies within one image.
        let (first, last) = (start / s.out_w % s.out_h, (start + len - 1) / s.out_w % s.out_h);
        let (above, below) = (s.valid_taps(0, first), s.valid_taps(0, last));
        let rows = above.start.min(below.start)..above.end.max(below.end);
        // An empty range has no packed offsets.
        if rows.is_empty() { all } else { rows }
    }

    /// Writes the pointers of `len` rows starting at `first`: for each tap, one pointer per row.
    fn point(&self, first: usize, len: usize, group: usize, pointers: &mut [*const u8]) {
        let depth = self.shape.group_in();
        self.taps(first, len, |row, tap, pixel| {
            let run = match pixel {
                Some(at) => &self.input[at + group * depth..][..depth],
                None => &self.zeros[..depth],
            };
            pointers[tap * len + row] = run.as_ptr();
        });
    }

    /// Copies rows starting at `first` to `to`, `row_len` bytes each: with contiguous taps, widened if the kernel
    /// requires it, and padded with zeros.
    fn gather(&self, first: usize, group: usize, row_len: usize, to: &mut [u8]) {
        let (s, depth) = (self.shape, self.shape.group_in());
        let size = self.v.element;
        let len = to.len().checked_div(row_len).unwrap_or(0);
        let used = s.taps() * depth * size;
        for row in to.chunks_exact_mut(row_len.max(1)) {
            row[used..].fill(0);
        }
        // Adjacent pixels form one run of memory.
        if s.groups == 1 && s.dilation[1] == 1 {
            let run_len = s.kernel[1] * depth * size;
            self.lines(first, len, |row, tap, line, x| {
                let to = &mut to[row * row_len + tap * run_len..][..run_len];
                let inside = |column: isize| column.clamp(0, s.in_w as isize) as usize;
                let (from, end) = (inside(x), inside(x + s.kernel[1] as isize));
                let Some(line) = line.filter(|_| from < end) else { return self.copy(None, to) };
                let (before, rest) = to.split_at_mut((from as isize - x) as usize * depth * size);
                let (run, after) = rest.split_at_mut((end - from) * depth * size);
                self.copy(None, before);
                self.copy(Some(&self.input[line + from * depth..line + end * depth]), run);
                self.copy(None, after);
            });
            return;
        }
        self.taps(first, len, |row, tap, pixel| {
            let to = &mut to[row * row_len + tap * depth * size..][..depth * size];
            self.copy(pixel.map(|at| &self.input[at + group * depth..][..depth]), to);
        });
    }

    /// Copies a run of activations, or fills it with zero points, widened if the kernel requires it.
    #[inline(always)]
    fn copy(&self, run: Option<&[u8]>, to: &mut [u8]) {
        match (run, self.v.element == 2) {
            // For a few bytes, a call to `memcpy` takes longer than the copy.
            (Some(run), false) if run.len() < 32 => to.iter_mut().zip(run).for_each(|(to, &byte)| *to = byte),
            (Some(run), false) => to.copy_from_slice(run),
            (None, false) => to.fill(self.zero),
            (Some(run), true) => {
                for (to, &byte) in to.chunks_exact_mut(2).zip(run) {
                    to.copy_from_slice(&u16::from(byte).to_ne_bytes());
                }
            }
            (None, true) => {
                for to in to.chunks_exact_mut(2) {
                    to.copy_from_slice(&u16::from(self.zero).to_ne_bytes());
                }
            }
        }
    }

    /// Calls `f(row, kernel row, offset of the input line, first column)` for `len` output pixels starting at `first`;
    /// the offset is `None` in the padding.
    #[inline(always)]
    fn lines(&self, first: usize, len: usize, mut f: impl FnMut(usize, usize, Option<usize>, isize)) {
        let s = self.shape;
        for row in 0..len {
            let (line, x) = ((first + row) / s.out_w, (first + row) % s.out_w);
            let (image, y) = (line / s.out_h, line % s.out_h);
            for tap in 0..s.kernel[0] {
                let in_y = (y * s.stride[0] + tap * s.dilation[0]).wrapping_sub(s.pad_top);
                let offset = (in_y < s.in_h).then(|| (image * s.in_h + in_y) * s.in_w * s.in_c);
                f(row, tap, offset, (x * s.stride[1]) as isize - s.pad_left as isize);
            }
        }
    }

    /// Calls `f(row, tap, offset)` for every tap of `len` output pixels starting at `first`; the offset is `None` in
    /// the padding.
    #[inline(always)]
    fn taps(&self, first: usize, len: usize, mut f: impl FnMut(usize, usize, Option<usize>)) {
        let s = self.shape;
        let (line, mut x) = (first / s.out_w, first % s.out_w);
        let (mut image, mut y) = (line / s.out_h, line % s.out_h);
        for row in 0..len {
            for tap_y in 0..s.kernel[0] {
                // Rows and columns before the first wrap to huge values: one comparison checks both ends.
                let in_y = (y * s.stride[0] + tap_y * s.dilation[0]).wrapping_sub(s.pad_top);
                for tap_x in 0..s.kernel[1] {
                    let in_x = (x * s.stride[1] + tap_x * s.dilation[1]).wrapping_sub(s.pad_left);
                    let inside = in_y < s.in_h && in_x < s.in_w;
                    let pixel = inside.then(|| ((image * s.in_h + in_y) * s.in_w + in_x) * s.in_c);
                    f(row, tap_y * s.kernel[1] + tap_x, pixel);
                }
            }
            x += 1;
            if x == s.out_w {
                (x, y) = (0, y + 1);
                if y == s.out_h {
                    (y, image) = (0, image + 1);
                }
            }
        }
    }
}
