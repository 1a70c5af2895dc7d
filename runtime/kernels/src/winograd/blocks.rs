//! Blocks of tiles for the cache and the threads: transform the windows, multiply point by point, transform the sums.

use super::transform::{InputTile, OutputTile};
use super::{Variant, packed_len};
use crate::conv::{ConvShape, product};
use crate::epilogue::{Epilogue, InRegisters, Tail, finish_row};
use crate::gemm;
use crate::gemm::tile::Tile;
use crate::parallel::{Output, share_units};
use crate::threads::Pool;

/// Numbers of a block, transformed windows and sums, that most of a second-level cache holds.
const BLOCK: usize = if cfg!(target_arch = "x86_64") { 160 * 1024 } else { 64 * 1024 };
/// Most points of a window.
const MAX_POINTS: usize = 81;
/// Most rows of a tile of the matrix product.
const MAX_ROWS: usize = 16;

/// How the tiles are cut. Depends on sizes only, so that scratch can be planned.
pub(super) struct Split {
    /// Tiles of all images.
    tiles: usize,
    /// Tiles of a block.
    per_block: usize,
    blocks: usize,
    /// Panels of the weights that a unit multiplies with, and how many such parts there are.
    panels: usize,
    panel_blocks: usize,
    /// Threads at work, each with its own scratch.
    slots: usize,
    /// Numbers of transformed windows of a slot, and of sums.
    windows: usize,
    sums: usize,
    /// Numbers of a pixel of the padding.
    zeros: usize,
}

impl Split {
    pub(super) fn new(v: &Variant, shape: &ConvShape, threads: usize) -> Split {
        let gemm = v.gemm();
        let tiles = v.tiles(shape).max(1);
        let all_panels = shape.out_c.div_ceil(gemm.nr).max(1);
        let threads = threads.max(1);

        let per_tile = product(&[v.points(), shape.in_c + shape.out_c]).max(1);
        // Every block reads all weights, so it pays to let a block outgrow the cache where those are larger by far.
        let block = BLOCK.max(packed_len(v, shape) / 8);
        let fit = (block / per_tile / gemm.mr * gemm.mr).max(gemm.mr);
        let share = tiles.div_ceil(threads).next_multiple_of(gemm.mr);
        let blocks = tiles.div_ceil(fit.min(share));
        let per_block = tiles.div_ceil(blocks);
        // Too few tiles for all threads: they share the filters, and each transforms the windows for itself.
        let panel_blocks = if blocks < threads { threads.div_ceil(blocks).min(all_panels) } else { 1 };
        let panels = all_panels.div_ceil(panel_blocks);
        let panel_blocks = all_panels.div_ceil(panels);
        Split {
            tiles,
            per_block,
            blocks,
            panels,
            panel_blocks,
            slots: (blocks * panel_blocks).min(threads),
            windows: product(&[v.points(), per_block, shape.in_c]),
            sums: product(&[v.points(), per_block, shape.out_c.min(panels * gemm.nr)]),
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
        self.zeros + product(&[self.slots, self.windows + self.sums])
    }
}

/// A convolution whose slices have been checked against its shape.
pub(super) struct Product<'a> {
    pub v: &'a Variant,
    pub gemm: &'static gemm::Variant,
    pub shape: &'a ConvShape,
    pub input: &'a [f32],
    pub packed: &'a [f32],
    pub epilogue: Epilogue<'a>,
}

impl Product<'_> {
    /// # Panics
    /// If the scratch is too short.
    pub(super) fn run(&self, split: &Split, out: &mut [f32], scratch: &mut [f32], pool: &Pool) {
        assert!(scratch.len() >= split.scratch_len(), "the scratch is too short");
        assert!(self.v.points() <= MAX_POINTS && self.gemm.mr <= MAX_ROWS);
        let (zeros, slots) = scratch.split_at_mut(split.zeros);
        zeros.fill(0.0);
        let zeros = &*zeros;
        let out = Output::new(out);
        let units = split.blocks * split.panel_blocks;
        share_units(pool, units, split.slots, split.windows + split.sums, slots, |unit, slot| {
            let (windows, sums) = slot.split_at_mut(split.windows);
            let first = unit / split.panel_blocks * split.per_block;
            let tiles = split.per_block.min(split.tiles.saturating_sub(first));
            let first_panel = unit % split.panel_blocks * split.panels;
            let first_filter = first_panel * self.gemm.nr;
            let filters = self.shape.out_c.min((first_panel + split.panels) * self.gemm.nr) - first_filter;
            self.transform_windows(first, tiles, windows, zeros);
            self.multiply(tiles, first_filter, filters, windows, sums);
            self.transform_sums(first, tiles, first_filter, filters, sums, out.start());
        });
    }

    /// Image, first output row and first output column of a tile.
    fn place(&self, tile: usize) -> (usize, usize, usize) {
        let (s, m) = (self.shape, self.v.outputs);
        let (down, across) = (s.out_h.div_ceil(m), s.out_w.div_ceil(m));
        (tile / (down * across), tile / across % down * m, tile % across * m)
    }

    /// Transforms the windows of `tiles` tiles from `first` on to `[point, tile, channel]`.
    fn transform_windows(&self, first: usize, tiles: usize, windows: &mut [f32], zeros: &[f32]) {
        let s = self.shape;
        let side = self.v.side;
        let stride = tiles * s.in_c;
        assert!(windows.len() >= self.v.points() * stride);
        let mut pixels = [zeros.as_ptr(); MAX_POINTS];
        for tile in 0..tiles {
            let (image, y, x) = self.place(first + tile);
            for (i, pixel) in pixels[..side * side].iter_mut().enumerate() {
                // Rows and columns before the first wrap to huge numbers: one comparison finds both ends.
                let in_y = (y * s.stride[0] + i / side).wrapping_sub(s.pad_top);
                let in_x = (x * s.stride[1] + i % side).wrapping_sub(s.pad_left);
                *pixel = if in_y < s.in_h && in_x < s.in_w {
                    self.input[((image * s.in_h + in_y) * s.in_w + in_x) * s.in_c..][..s.in_c].as_ptr()
                } else {
                    zeros.as_ptr()
                };
            }
            let out = windows[tile * s.in_c..].as_mut_ptr();
            // SAFETY: the entry point has checked the instruction set. Each pointer is to a pixel or to as many
            // zeros, and `out` reaches to the last point of the tile, by the assertion above.
            unsafe { (self.v.input)(&InputTile { pixels: pixels.as_ptr(), channels: s.in_c, out, stride }) }
        }
    }

    /// Multiplies `[tile, channel]` by `[channel, filter]` for each point, to `[point, tile, filter]`.
    fn multiply(&self, tiles: usize, first_filter: usize, filters: usize, windows: &[f32], sums: &mut [f32]) {
        let (v, gemm, channels) = (self.v, self.gemm, self.shape.in_c);
        let len = self.packed.len() / (v.weights * v.weights);
        for weight in 0..v.weights * v.weights {
            let packed = &self.packed[weight * len..][..len];
            for column in (0..filters).step_by(gemm.nr) {
                let columns = gemm.nr.min(filters - column);
                let width = columns.next_multiple_of(gemm.lanes);
                let panel = &packed[(first_filter + column) * channels..][..width * channels];
                for y in v.points_of(weight / v.weights) {
                    for x in v.points_of(weight % v.weights) {
                        let point = y * v.side + x;
                        let windows = &windows[point * tiles * channels..][..tiles * channels];
                        let sums = &mut sums[point * tiles * filters..][..tiles * filters];
                        self.multiply_panel(windows, panel, columns, &mut sums[column..], filters);
                    }
                }
            }
        }
    }

    /// Multiplies `[tile, channel]` by a panel of `columns` columns, to rows that are `ldc` apart.
    fn multiply_panel(&self, windows: &[f32], panel: &[f32], columns: usize, sums: &mut [f32], ldc: usize) {
        let (gemm, channels) = (self.gemm, self.shape.in_c);
        let tiles = windows.len() / channels;
        let groups = tiles.div_ceil(gemm.mr);
        let tail = Tail {
            bias: std::ptr::null(),
            residual: std::ptr::null(),
            residual_first: false,
            activation: InRegisters::Later,
        };
        assert!(sums.len() >= (tiles - 1) * ldc + columns);
        let mut rows = [std::ptr::null(); MAX_ROWS];
        for group in 0..groups {
            // Groups of nearly equal height.
            let (start, end) = (tiles * group / groups, tiles * (group + 1) / groups);
            for (row, pointer) in rows.iter_mut().zip(windows[start * channels..].chunks_exact(channels)) {
                *row = pointer.as_ptr();
            }
            // SAFETY: the entry point has checked the instruction set. The pointers are to rows of `channels` numbers,
            // the panel has as many rows of its registers, and the sums hold these rows and columns.
            unsafe {
                gemm.kernel(end - start, panel.len() / channels / gemm.lanes)(&Tile {
                    rows: rows.as_ptr(),
                    taps: 1,
                    depth: channels,
                    panel: panel.as_ptr(),
                    out: sums[start * ldc..].as_mut_ptr(),
                    ldc,
                    columns,
                    tail,
                });
            }
        }
    }

    /// Transforms the sums of `tiles` tiles from `first` on and stores the outputs.
    fn transform_sums(
        &self,
        first: usize,
        tiles: usize,
        first_filter: usize,
        filters: usize,
        sums: &[f32],
        out: *mut f32,
    ) {
        let (s, epilogue) = (self.shape, &self.epilogue);
        let stride = tiles * filters;
        assert!(sums.len() >= self.v.points() * stride);
        for tile in 0..tiles {
            let (image, y, x) = self.place(first + tile);
            let (rows, columns) = (self.v.outputs.min(s.out_h - y), self.v.outputs.min(s.out_w - x));
            let at = ((image * s.out_h + y) * s.out_w + x) * s.out_c + first_filter;
            let tail = Tail {
                bias: epilogue.bias.map_or(std::ptr::null(), |b| b[first_filter..].as_ptr()),
                residual: epilogue.residual.map_or(std::ptr::null(), |r| r[at..].as_ptr()),
                residual_first: epilogue.residual_first,
                activation: epilogue.in_registers(),
            };
            // SAFETY: the entry point has checked the instruction set and that bias, residual and output hold the
            // tile's rows, columns and filters, which no other unit writes; the sums reach to the last point of the
            // tile, by the assertion above.
            unsafe {
                (self.v.output)(&OutputTile {
                    sums: sums[tile * filters..].as_ptr(),
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
            if let Some(activation) = epilogue.later() {
                let residual = epilogue.residual.filter(|_| !epilogue.residual_first);
                for pixel in 0..rows * columns {
                    let at = at + (pixel / columns * s.out_w + pixel % columns) * s.out_c;
                    // SAFETY: filters of a pixel that was just stored, of this unit alone.
                    let out = unsafe { std::slice::from_raw_parts_mut(out.add(at), filters) };
                    finish_row(self.v.isa, activation, out, residual.map(|r| &r[at..][..filters]));
                }
            }
        }
    }
}
