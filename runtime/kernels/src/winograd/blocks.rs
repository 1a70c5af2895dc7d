//! Splits tiles into blocks that fit in the cache and are shared among threads: transforms the windows, multiplies per
//! point, transforms the sums.

use std::ops::Range;

use super::transform::{InputTile, OutputTile, WeightTile};
use super::{Storage, Variant};
use crate::conv::{ConvShape, product};
use crate::epilogue::{Bounds, Epilogue, Tail};
use crate::gemm::tile::{GemmTile, ahead};
use crate::gemm::{self, Packed};
use crate::isa::Isa;
use crate::pace::{PIECE, Pace};
use crate::parallel::{Output, share_units, split};
use crate::threads::Pool;

/// Elements of a block (transformed windows and sums) that fill most of a second-level cache.
fn block_len(isa: Isa) -> usize {
    match isa {
        Isa::Avx2 | Isa::Avx512 => 160 * 1024,
        Isa::Neon | Isa::Neon32 | Isa::Scalar => 64 * 1024,
    }
}

/// Most elements of a block, unless it is a single row of tiles.
const MAX_BLOCK: usize = 1 << 21;

/// Most channels whose kernels are transformed at a time, so that they are multiplied while still in the second-level
/// cache.
const CHANNELS: usize = if cfg!(test) { 7 } else { 128 };
/// Up to this many elements (2.5 MiB), all kernels are transformed first and shared by the blocks.
const SHARED: usize = 640 * 1024;
/// Elements between the matrices of adjacent points, so that they do not all map to the same cache sets.
const GAP: usize = 16;
/// Most points of a window.
const MAX_POINTS: usize = 81;
/// Most rows of a tile of the matrix product.
const MAX_ROWS: usize = 16;

/// How the tiles are split. Depends only on sizes, so that scratch can be planned.
pub(super) struct WinogradSplit {
    /// Tiles of all images.
    tiles: usize,
    /// Tiles of a block.
    per_block: usize,
    blocks: usize,
    /// Panels of weights per unit, and the number of such panel blocks.
    panels: usize,
    panel_blocks: usize,
    all_panels: usize,
    /// Threads that work, each with its own scratch.
    slots: usize,
    /// Elements from one tile to the next, of a point's windows and of its sums: the channels and the filters of a panel,
    /// rounded up to whole registers, so that only pixels of images have incomplete ones.
    window: usize,
    sum: usize,
    /// Elements of a slot for transformed windows and for sums.
    windows: usize,
    sums: usize,
    /// Elements of the transformed kernels of one part of a panel, and the total number of parts.
    part: usize,
    parts: usize,
    /// The location of the transformed kernels.
    place: KernelsPlace,
    /// Elements of a zero pixel, for the padding.
    zeros: usize,
}

impl WinogradSplit {
    pub(super) fn new(v: &Variant, shape: &ConvShape, threads: usize) -> WinogradSplit {
        let gemm = v.gemm();
        let tiles = v.tiles(shape).max(1);
        let all_panels = shape.out_c.div_ceil(gemm.nr).max(1);
        let threads = threads.max(1);
        let channels = channels_of(v, shape);
        let part = product(&[v.weights * v.weights, channels * gemm.nr + GAP]);
        let parts = product(&[all_panels, shape.in_c.div_ceil(channels)]);

        let (window, sum) =
            (shape.in_c.next_multiple_of(gemm.width), shape.out_c.min(gemm.nr).next_multiple_of(gemm.lanes));
        let per_tile = product(&[v.points(), window + sum]).max(1);
        // Every block reads all weights, so if they are much larger than the cache, larger blocks pay off.
        let block = block_len(v.isa).max((product(&[part, parts]) / 8).min(MAX_BLOCK));
        let fit = (block / per_tile / gemm.mr * gemm.mr).max(gemm.mr);
        let share = tiles.div_ceil(threads).next_multiple_of(gemm.mr);
        let blocks = tiles.div_ceil(fit.min(share));
        let per_block = tiles.div_ceil(blocks);
        // With too few tiles for all threads, threads share the filters, and each thread transforms all windows.
        let panel_blocks = if blocks < threads { threads.div_ceil(blocks).min(all_panels) } else { 1 };
        let panels = all_panels.div_ceil(panel_blocks);
        let panel_blocks = all_panels.div_ceil(panels);
        WinogradSplit {
            tiles,
            per_block,
            blocks,
            panels,
            panel_blocks,
            all_panels,
            slots: (blocks * panel_blocks).min(threads),
            window,
            sum,
            windows: product(&[v.points(), product(&[per_block, window]) + GAP]),
            sums: product(&[v.points(), product(&[per_block, sum]) + GAP]),
            part,
            parts,
            place: match product(&[part, parts]) {
                _ if v.storage == Storage::Transformed => KernelsPlace::Packed,
                // If threads have at most one block each, every thread transforms the kernels itself: no thread waits,
                // and the data stays in its core's cache.
                len if blocks > threads && len <= SHARED => KernelsPlace::Shared,
                _ => KernelsPlace::Slot,
            },
            zeros: shape.in_c,
        }
    }

    pub(super) fn tiles_per_block(&self) -> usize {
        self.per_block
    }

    pub(super) fn blocks(&self) -> usize {
        self.blocks
    }

    pub(super) fn scratch_len(&self) -> usize {
        self.zeros + self.shared_len() + product(&[self.slots, self.slot_len()])
    }

    /// Elements of all transformed kernels.
    pub(super) fn all_parts_len(&self) -> usize {
        product(&[self.part, self.parts])
    }

    /// Elements of a part.
    pub(super) fn part_len(&self) -> usize {
        self.part
    }

    /// Scratch size that suffices for any subset of the channels of the convolution. With fewer channels, a block has
    /// more tiles, but not more elements: its size grows with the channels.
    pub(super) fn scratch_bound(&self, v: &Variant, threads: usize) -> usize {
        let gemm = v.gemm();
        let widest = product(&[v.points(), self.window + gemm.nr, gemm.mr]);
        let block = (block_len(v.isa) + product(&[self.part, self.parts]) / 8).max(widest) + 2 * MAX_POINTS * GAP;
        let part = product(&[v.weights * v.weights, CHANNELS.min(self.zeros) * gemm.nr + GAP]);
        let made = if self.place == KernelsPlace::Packed { [0; 2] } else { [SHARED, part] };
        self.zeros + made[0] + product(&[threads.max(1), block + made[1]])
    }

    /// How often a run transforms all kernels.
    pub(super) fn transforms(&self) -> usize {
        match self.place {
            KernelsPlace::Packed => 0,
            KernelsPlace::Shared => 1,
            KernelsPlace::Slot => self.blocks,
        }
    }

    fn shared_len(&self) -> usize {
        if self.place == KernelsPlace::Shared { self.all_parts_len() } else { 0 }
    }

    fn slot_len(&self) -> usize {
        self.windows + self.sums + if self.place == KernelsPlace::Slot { self.part } else { 0 }
    }
}

/// The location of the transformed kernels.
#[derive(Clone, Copy, PartialEq, Eq)]
enum KernelsPlace {
    /// In the packed weights.
    Packed,
    /// All in scratch, shared by all threads.
    Shared,
    /// In scratch, one part at a time for each thread.
    Slot,
}

/// The transformed kernels for a block of tiles.
enum Kernels<'a> {
    /// All parts, already transformed, each of this length.
    Made(&'a [f32], usize),
    /// The block transforms the parts, one after another, into this buffer.
    Make(&'a mut [f32]),
}

/// Channels per part; the parts have nearly equal sizes.
fn channels_of(v: &Variant, shape: &ConvShape) -> usize {
    if v.storage == Storage::Transformed { shape.in_c } else { shape.in_c.div_ceil(shape.in_c.div_ceil(CHANNELS)) }
}

/// Transforms the packed kernels of `shape`, which has the filters of one panel.
pub(super) fn transform_panel(v: &Variant, shape: &ConvShape, kernels: &[f32], out: &mut [f32]) {
    let conv = CheckedConv { v, gemm: v.gemm(), shape, input: &[], packed: kernels.into(), epilogue: Epilogue::NONE };
    conv.transform_kernels(v.packing(), 0, out);
}

/// A convolution whose slices have been checked against its shape.
pub(super) struct CheckedConv<'a> {
    pub v: &'a Variant,
    pub gemm: &'static gemm::Variant,
    pub shape: &'a ConvShape,
    pub input: &'a [f32],
    pub packed: Packed<'a>,
    pub epilogue: Epilogue<'a>,
}

impl CheckedConv<'_> {
    /// # Panics
    /// If the scratch is too short.
    pub(super) fn run(&self, cut: &WinogradSplit, out: &mut [f32], scratch: &mut [f32], pool: &Pool) {
        assert!(scratch.len() >= cut.scratch_len(), "the scratch is too short");
        assert!(self.v.points() <= MAX_POINTS && self.gemm.mr <= MAX_ROWS);
        let (zeros, scratch) = scratch.split_at_mut(cut.zeros);
        zeros.fill(0.0);
        let (shared, slots) = scratch.split_at_mut(cut.shared_len());
        split(pool, shared, cut.part, cut.shared_len(), |offset, shared| {
            for (index, part) in shared.chunks_exact_mut(cut.part).enumerate() {
                self.transform_kernels(self.v.kernels, offset / cut.part + index, part);
            }
        });
        let (zeros, shared) = (&*zeros, &*shared);
        let out = Output::new(out);
        let units = cut.blocks * cut.panel_blocks;
        share_units(pool, units, cut.slots, cut.slot_len(), slots, |unit, slot| {
            let pace = &Pace::of(pool);
            let (windows, slot) = slot.split_at_mut(cut.windows);
            let (sums, part) = slot.split_at_mut(cut.sums);
            let first = unit / cut.panel_blocks * cut.per_block;
            let tiles = cut.per_block.min(cut.tiles.saturating_sub(first));
            let first_panel = unit % cut.panel_blocks * cut.panels;
            let mut kernels = match cut.place {
                KernelsPlace::Packed => match self.packed {
                    Packed::F32(packed) => Kernels::Made(packed, cut.part),
                    Packed::F16(_) => unreachable!("transformed weights are not stored in half precision"),
                },
                KernelsPlace::Shared => Kernels::Made(shared, cut.part),
                KernelsPlace::Slot => Kernels::Make(part),
            };
            self.transform_windows(cut, (first, tiles), windows, zeros, pace);
            for panel in first_panel..(first_panel + cut.panels).min(cut.all_panels) {
                // Units are large if the weights are large: a canceled run does not wait for one.
                if pool.stops() {
                    return;
                }
                let first_filter = panel * self.gemm.nr;
                let filters = self.gemm.nr.min(self.shape.out_c - first_filter);
                let of_panel = (panel, filters);
                self.multiply((cut, tiles), of_panel, windows, &mut kernels, sums, pool);
                self.transform_sums(cut, (first, tiles), (first_filter, filters), sums, out.start(), pace);
            }
        });
    }

    /// Image, first output row and first output column of a tile.
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (s, m) = (self.shape, self.v.outputs);
        let (down, across) = (s.out_h.div_ceil(m), s.out_w.div_ceil(m));
        (tile / (down * across), tile / across % down * m, tile % across * m)
    }

    /// Whether a thread asks whether to stop while it transforms tiles of as many channels or filters, whose elements
    /// are steps.
    fn asks(&self, tiles: usize, channels: usize) -> bool {
        product(&[tiles, channels, self.v.points()]) > PIECE
    }

    /// Transforms the windows of `tiles` tiles starting at `first` to `[point, tile, channel]`, with gaps between the
    /// points.
    fn transform_windows(
        &self,
        cut: &WinogradSplit,
        (first, tiles): (usize, usize),
        windows: &mut [f32],
        zeros: &[f32],
        pace: &Pace<'_>,
    ) {
        let s = self.shape;
        let side = self.v.side;
        let stride = tiles * cut.window + GAP;
        assert!(windows.len() >= self.v.points() * stride);
        let mut pixels = [zeros.as_ptr(); MAX_POINTS];
        let asks = self.asks(tiles, s.in_c);
        for tile in 0..tiles {
            if asks && pace.stops(s.in_c * self.v.points()) {
                return;
            }
            let (image, y, x) = self.place(first + tile);
            for (i, pixel) in pixels[..side * side].iter_mut().enumerate() {
                // Rows and columns before the first wrap to huge values: one comparison checks both ends.
                let in_y = (y * s.stride[0] + i / side).wrapping_sub(s.pad_top);
                let in_x = (x * s.stride[1] + i % side).wrapping_sub(s.pad_left);
                *pixel = if in_y < s.in_h && in_x < s.in_w {
                    self.input[((image * s.in_h + in_y) * s.in_w + in_x) * s.in_c..][..s.in_c].as_ptr()
                } else {
                    zeros.as_ptr()
                };
            }
            let out = windows[tile * cut.window..].as_mut_ptr();
            // SAFETY: the entry point has checked the instruction set. Each pointer is to a pixel or to as many zeros,
            // and `out` extends to the last point of the tile, by the assertion above, with space for whole registers.
            unsafe { (self.v.input)(&InputTile { pixels: pixels.as_ptr(), channels: s.in_c, out, stride }) }
        }
    }

    /// The index of the panel and the channels of a part of the kernels.
    fn part(&self, part: usize) -> (usize, Range<usize>) {
        let (channels, at_a_time) = (self.shape.in_c, channels_of(self.v, self.shape));
        let parts = channels.div_ceil(at_a_time);
        let first = part % parts * at_a_time;
        (part / parts, first..channels.min(first + at_a_time))
    }

    /// Filters of a panel, rounded up to whole registers.
    fn width(&self, panel: usize) -> usize {
        self.gemm.nr.min(self.shape.out_c - panel * self.gemm.nr).next_multiple_of(self.gemm.lanes)
    }

    /// Range of a part in the packed kernels; empty after the last part.
    fn kernels(&self, part: usize) -> Range<usize> {
        let (panel, channels) = self.part(part);
        if panel * self.gemm.nr >= self.shape.out_c {
            return 0..0;
        }
        let (width, first) = (self.width(panel), panel * self.gemm.nr * 9 * self.shape.in_c);
        first + channels.start * 9 * width..first + channels.end * 9 * width
    }

    /// Transforms a part of the kernels to `[weight, channel, filter]`, with gaps between the weights.
    fn transform_kernels(&self, transform: unsafe fn(&WeightTile), part: usize, out: &mut [f32]) {
        let (panel, channels) = self.part(part);
        let (width, kernels) = (self.width(panel), self.packed.range(self.kernels(part)));
        let stride = out.len() / (self.v.weights * self.v.weights);
        assert!(channels.len() * width <= stride);
        let (half, out) = (matches!(self.packed, Packed::F16(_)), out.as_mut_ptr());
        let tile = WeightTile { kernels, half, channels: channels.len(), width, out, stride };
        // SAFETY: the CPU has the instruction set of the transform: the entry point has checked the variant's own, and
        // `packing` chose the other. Both slices are as long as the tile says, and the width is a multiple of the lanes
        // of the products.
        unsafe { transform(&tile) }
    }

    /// Multiplies `[tile, channel]` by the filters of a panel for each point, giving `[point, tile, filter]`.
    fn multiply(
        &self,
        (cut, tiles): (&WinogradSplit, usize),
        (panel, filters): (usize, usize),
        windows: &[f32],
        kernels: &mut Kernels<'_>,
        sums: &mut [f32],
        pool: &Pool,
    ) {
        let (v, depth) = (self.v, self.shape.in_c);
        let parts = depth.div_ceil(channels_of(self.v, self.shape));
        for part in panel * parts..(panel + 1) * parts {
            let (kernels, next) = match kernels {
                Kernels::Made(all, len) => (&all[part * *len..][..*len], 0..0),
                Kernels::Make(own) => {
                    self.transform_kernels(self.v.kernels, part, own);
                    (&**own, self.kernels(part + 1))
                }
            };
            // Prefetches the next kernels to transform while multiplying.
            let at_a_time = next.len().div_ceil(v.weights * v.weights).max(1);
            let mut next = next.clone().step_by(at_a_time).map(|at| at..next.end.min(at + at_a_time));
            let (_, channels) = self.part(part);
            let asks = product(&[tiles, channels.len(), filters]) > PIECE;
            for (weight, matrix) in kernels.chunks_exact(kernels.len() / (v.weights * v.weights)).enumerate() {
                if asks && pool.stops() {
                    return;
                }
                let matrix = &matrix[..channels.len() * self.width(panel)];
                if let Some(next) = next.next() {
                    self.packed.prefetch(next);
                }
                for y in v.points_of(weight / v.weights) {
                    for x in v.points_of(weight % v.weights) {
                        let point = y * v.side + x;
                        let windows = &windows[point * (tiles * cut.window + GAP)..][..tiles * cut.window];
                        let sums = &mut sums[point * (tiles * cut.sum + GAP)..][..tiles * cut.sum];
                        self.multiply_panel(cut, windows, channels.clone(), matrix, sums);
                    }
                }
            }
        }
    }

    /// Multiplies some channels of `[tile, channel]` by a panel. Adds to the sums, unless the channels are the first.
    fn multiply_panel(
        &self,
        cut: &WinogradSplit,
        windows: &[f32],
        channels: Range<usize>,
        panel: &[f32],
        sums: &mut [f32],
    ) {
        let (gemm, columns) = (self.gemm, panel.len() / channels.len());
        let tiles = windows.len() / cut.window;
        let groups = tiles.div_ceil(gemm.mr);
        assert!(columns <= cut.sum && sums.len() >= tiles * cut.sum);
        let mut rows = [std::ptr::null(); MAX_ROWS];
        for group in 0..groups {
            // Groups of nearly equal height.
            let (start, end) = (tiles * group / groups, tiles * (group + 1) / groups);
            for (row, window) in rows.iter_mut().zip(windows[start * cut.window..].chunks_exact(cut.window)) {
                *row = window[channels.clone()].as_ptr();
            }
            // SAFETY: the entry point has checked the instruction set. The pointers are to rows of as many elements as
            // there are channels, the panel has as many rows of its registers, and the sums contain these rows and
            // columns, by the assertion above.
            unsafe {
                let out = sums[start * cut.sum..].as_mut_ptr();
                gemm.kernel(end - start, columns / gemm.lanes)(&GemmTile {
                    rows: rows.as_ptr(),
                    taps: 1,
                    depth: channels.len(),
                    panel: panel.as_ptr().cast(),
                    out,
                    ldc: cut.sum,
                    columns,
                    ahead: ahead(size_of_val(panel), channels.len(), group),
                    from: if channels.start > 0 { out } else { std::ptr::null() },
                    bias: std::ptr::null(),
                    bounds: Bounds::None,
                });
            }
        }
    }

    /// Transforms the sums of `tiles` tiles starting at `first` and stores the outputs.
    fn transform_sums(
        &self,
        cut: &WinogradSplit,
        (first, tiles): (usize, usize),
        (first_filter, filters): (usize, usize),
        sums: &[f32],
        out: *mut f32,
        pace: &Pace<'_>,
    ) {
        let (s, epilogue) = (self.shape, &self.epilogue);
        let stride = tiles * cut.sum + GAP;
        assert!(sums.len() >= self.v.points() * stride);
        let asks = self.asks(tiles, filters);
        for tile in 0..tiles {
            if asks && pace.stops(filters * self.v.points()) {
                return;
            }
            let (image, y, x) = self.place(first + tile);
            let (rows, columns) = (self.v.outputs.min(s.out_h - y), self.v.outputs.min(s.out_w - x));
            let at = ((image * s.out_h + y) * s.out_w + x) * s.out_c + first_filter;
            let tail = Tail {
                bias: epilogue.bias.map_or(std::ptr::null(), |b| b[first_filter..].as_ptr()),
                residual: epilogue.residual.map_or(std::ptr::null(), |r| r[at..].as_ptr()),
                residual_first: epilogue.residual_first,
                activation: epilogue.in_registers(),
            };
            // SAFETY: the entry point has checked the instruction set and that bias, residual and output contain the
            // tile's rows, columns and filters, which no other unit writes; the sums extend to the last point of the
            // tile, by the assertion above.
            unsafe {
                (self.v.output)(&OutputTile {
                    sums: sums[tile * cut.sum..].as_ptr(),
                    stride,
                    channels: filters,
                    out: out.add(at),
                    row_stride: s.out_w * s.out_c,
                    pixel_stride: s.out_c,
                    rows,
                    columns,
                    tail,
                });
            }
            if let Some(later) = epilogue.later(first_filter..first_filter + filters) {
                for pixel in 0..rows * columns {
                    let at = at + (pixel / columns * s.out_w + pixel % columns) * s.out_c;
                    // SAFETY: the filters of a pixel that was just stored and belongs to this unit alone.
                    let out = unsafe { std::slice::from_raw_parts_mut(out.add(at), filters) };
                    later.finish(self.v.isa, out, at);
                }
            }
        }
    }
}
