//! The loops around the microkernel: blocks for the caches, units for the threads, pointers for the tiles.
//!
//! The output is cut into units, each a block of rows times a block of panels. Inside a unit, every panel of B is
//! multiplied with all tiles of the row block before the next panel is read, so the panel stays in the second-level
//! cache and the rows of A stay in the first two levels. The pointers of a row block are made once per unit.

use std::ops::Range;

use super::tile::{GemmTile, ahead};
use super::{Packed, VARIANTS, Variant};
use crate::conv::{ConvShape, product};
use crate::epilogue::{Bounds, Epilogue, Stored};
use crate::isa::Isa;
use crate::lanes::Lanes;
use crate::pace::PIECE;
use crate::parallel::{Output, PRODUCTS_WORTH_SHARING, UNITS_PER_THREAD, share_units};
use crate::prefetch::prefetch;
use crate::simd::{Simd, Vectorized, dispatch};
use crate::threads::Pool;

/// Elements that a row block may touch: 128 KiB, a share of the second-level cache.
const ROW_BLOCK: usize = 32 * 1024;
/// The same where every row block reads a large B again, which takes longer than reading A from a slower cache: 512 KiB,
/// half of the smallest second-level cache of CPUs with AVX-512.
const TALL_ROW_BLOCK: usize = 128 * 1024;
/// Elements of a B that is read from the second-level cache by all row blocks but the first: 512 KiB.
const SMALL_B: usize = 128 * 1024;
/// Rows of a panel that all tiles of a row block use before the next rows are read: 96 to 128 KiB, so that the next ones
/// can be prefetched into the same cache.
const PIECE_ROWS: usize = 640;
/// Row pointers of a unit, on the stack. If a convolution has more taps than fit for one tile, its rows are gathered.
const MAX_POINTERS: usize = 1024;
/// Most kernel rows that are read in place as one run each: their pointers fit for a tile of any variant.
pub(super) const MAX_LINES: usize = 32;
const _: () = {
    let mut variant = 0;
    while variant < VARIANTS.len() {
        assert!(MAX_LINES * VARIANTS[variant].mr <= MAX_POINTERS);
        variant += 1;
    }
};
/// With fewer channels than this, reading one run of memory per tap would be mostly overhead.
pub(super) const SHORT_RUN: usize = 8;
/// Multiply-adds of a unit that can be cut: about a millisecond. A unit that has more asks whether to stop.
const UNIT_WORK: usize = 1 << 24;
/// Multiply-adds that take as long as reading an element of B from memory: a tile of a few rows waits for B.
const READ_WORK: usize = 8;
/// Most rows of a panel that a tile uses at once: with the largest tile, about as many multiply-adds as a unit has.
pub(super) const LONG: usize = 1 << 15;
/// Rows of a panel that a tile of a longer product uses at once.
const CUT: usize = if cfg!(test) { 16 } else { LONG };

/// How a product is split into units. Depends only on sizes, so that scratch can be planned.
pub(crate) struct GemmSplit {
    /// Rows of a row block.
    rows: usize,
    row_blocks: usize,
    /// Panels of a panel block.
    panels: usize,
    panel_blocks: usize,
    groups: usize,
    /// Threads that work, each with its own scratch.
    slots: usize,
    /// How rows of A are read.
    access: Access,
    /// Taps as the microkernel sees them.
    taps: usize,
    /// Elements per tap as the microkernel sees them.
    depth: usize,
    /// Parts that rows of A and panels are cut into, if several tiles use them.
    pieces: usize,
    /// Parts that they are cut into in any case, because they are long.
    cuts: usize,
}

/// How rows of A are read.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Access {
    /// In place; taps in the padding read a row of zeros.
    InPlace,
    /// In place, but a tap that is partly in the padding is copied.
    CopyEdges,
    /// All rows are copied, with contiguous taps, and scaled.
    Gather,
}

impl GemmSplit {
    /// Splits a product of `m` rows by `n` columns per group, each row `taps * depth` elements per group. If a row has
    /// more taps than fit as pointers, rows are gathered regardless of `access`.
    #[allow(clippy::too_many_arguments)]
    pub(crate) fn new(
        v: &Variant,
        m: usize,
        n: usize,
        taps: usize,
        depth: usize,
        groups: usize,
        access: Access,
        threads: usize,
    ) -> GemmSplit {
        let access = if product(&[taps, v.mr]) > MAX_POINTERS { Access::Gather } else { access };
        let (taps, depth) = if access == Access::Gather { (1, product(&[taps, depth])) } else { (taps, depth) };

        // Neighboring pixels share most of a window: about three runs per pixel are new to the cache.
        let input = product(&[depth, taps.min(3)]).max(1);
        let (block, row) = match (v.isa, access) {
            (Isa::Avx512, Access::InPlace) if product(&[taps, depth, n]) > SMALL_B => (TALL_ROW_BLOCK, input),
            // Outputs are written in pieces as wide as a panel, and stay in the cache until all panels are done.
            (Isa::Avx512, Access::InPlace) => (ROW_BLOCK, input.saturating_add(n)),
            _ => (ROW_BLOCK, input),
        };
        let tiles = (block / row / v.mr).max(1).min((MAX_POINTERS / (taps.max(1) * v.mr)).max(1));
        let all_panels = n.div_ceil(v.nr).max(1);
        let (mut rows, mut panels) = (tiles * v.mr, all_panels);
        let work = [m, n, taps, depth, groups].iter().fold(1usize, |work, &size| work.saturating_mul(size));
        let threads = if work < PRODUCTS_WORTH_SHARING { 1 } else { threads.max(1) };
        if threads > 1 {
            let wanted = (threads * UNITS_PER_THREAD).div_ceil(groups);
            // A block of rows reads all of B, and a block of panels all of A: the larger of the two should be read
            // once.
            if n >= m {
                panels = all_panels.div_ceil(wanted);
            }
            let others = all_panels.div_ceil(panels);
            // The desired number of blocks, but each at least one tile high and none much smaller than the others.
            let blocks = m.div_ceil(rows).max(wanted.div_ceil(others)).min(m.div_ceil(v.mr)).max(1);
            rows = m.div_ceil(blocks).max(1);
            panels = panels.min((all_panels * m.div_ceil(rows)).div_ceil(wanted)).max(1);
        }
        // A canceled run stops between units.
        panels = panels.min((UNIT_WORK / product(&[rows, v.nr, taps, depth]).max(1)).max(1));
        let (row_blocks, panel_blocks) = (m.div_ceil(rows), all_panels.div_ceil(panels));
        let slots = product(&[row_blocks, panel_blocks, groups]).min(threads).max(1);
        let (k, most) = (product(&[taps, depth]), if taps == 1 { depth } else { taps });
        let pieces = match v.isa {
            Isa::Avx512 => k.div_ceil(PIECE_ROWS).clamp(1, most.max(1)),
            _ => 1,
        };
        let cuts = if v.can_cut() { k.div_ceil(CUT).max(1) } else { 1 };
        let rows = rows.min(m);
        GemmSplit { rows, row_blocks, panels, panel_blocks, groups, slots, access, taps, depth, pieces, cuts }
    }

    /// The parts that the taps, and the elements of each, are cut into for at least `count` pieces, if there are enough.
    fn parts(&self, count: usize) -> [usize; 2] {
        let of_taps = count.min(self.taps).max(1);
        [of_taps, count.div_ceil(of_taps).min(self.depth).max(1)]
    }

    /// The taps, and of each the elements, that are multiplied in piece `index` of the pieces of these parts.
    fn piece(&self, index: usize, [of_taps, of_depth]: [usize; 2]) -> (Range<usize>, Range<usize>) {
        let part = |index: usize, count: usize, len: usize| index * len / count..(index + 1) * len / count;
        (part(index / of_depth, of_taps, self.taps), part(index % of_depth, of_depth, self.depth))
    }

    /// Length of the row of zeros that padding needs.
    pub(crate) fn zeros_len(&self) -> usize {
        if self.access == Access::Gather { 0 } else { self.depth }
    }

    /// Scratch size in elements, for the rows that each thread copies.
    pub(crate) fn scratch_len(&self) -> usize {
        product(&[self.slot_len(), self.slots])
    }

    fn slot_len(&self) -> usize {
        if self.access == Access::InPlace { 0 } else { product(&[self.rows, self.taps, self.depth]) }
    }
}

/// The rows of A.
pub(crate) enum GemmRows<'a> {
    /// Rows at a constant distance.
    Matrix { a: &'a [f32], lda: usize },
    /// One row per output pixel: the window of the input under it, tap by tap.
    Image(ConvInput<'a>),
    /// The same, but a whole kernel row, which is contiguous, counts as one tap: for images with few channels.
    Lines(ConvInput<'a>),
}

/// The input of a convolution.
pub(crate) struct ConvInput<'a> {
    pub shape: &'a ConvShape,
    pub input: &'a [f32],
    /// Zeros that taps in the padding point to, if there is padding and rows are not gathered.
    pub zeros: &'a [f32],
}

impl ConvInput<'_> {
    /// Calls `f(row, image, tap, offset)` for every tap of `len` output pixels starting at `first`, until it returns
    /// false; the offset is `None` in the padding. Returns whether it did not.
    #[inline(always)]
    fn taps(&self, first: usize, len: usize, mut f: impl FnMut(usize, usize, usize, Option<usize>) -> bool) -> bool {
        let s = self.shape;
        let (line, mut x) = (first / s.out_w, first % s.out_w);
        let (mut image, mut y) = (line / s.out_h, line % s.out_h);
        for row in 0..len {
            for tap_y in 0..s.kernel[0] {
                // Rows and columns before the first wrap to huge values: one comparison checks both ends.
                let in_y = (y * s.stride[0] + tap_y * s.dilation[0]).wrapping_sub(s.pad_top);
                for tap_x in 0..s.kernel[1] {
                    let in_x = (x * s.stride[1] + tap_x * s.dilation[1]).wrapping_sub(s.pad_left);
                    let offset =
                        (in_y < s.in_h && in_x < s.in_w).then(|| ((image * s.in_h + in_y) * s.in_w + in_x) * s.in_c);
                    if !f(row, image, tap_y * s.kernel[1] + tap_x, offset) {
                        return false;
                    }
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
        true
    }
}

impl ConvInput<'_> {
    /// Writes the pointers of `len` output pixels starting at `first`, one per kernel row, whose pixels are contiguous.
    /// Windows that reach past the left or right edge are copied and padded with zeros.
    fn lines(&self, first: usize, len: usize, copies: &mut [f32], pointers: &mut [*const f32]) {
        let s = self.shape;
        let (depth, step) = (s.kernel[1] * s.in_c, s.stride[1] * s.in_c);
        let mut copies = copies.chunks_exact_mut(depth.max(1));
        // Columns whose windows are inside the line.
        let inside = s.pad_left.div_ceil(s.stride[1])
            ..(s.in_w + s.pad_left).checked_sub(s.kernel[1]).map_or(0, |last| last / s.stride[1] + 1);
        let mut row = 0;
        while row < len {
            // All pixels that are in the same output line.
            let (line, x) = ((first + row) / s.out_w, (first + row) % s.out_w);
            let (image, y) = (line / s.out_h, line % s.out_h);
            let columns = x..s.out_w.min(x + len - row);
            let whole = inside.start.clamp(x, columns.end)..inside.end.clamp(x, columns.end);
            for tap in 0..s.kernel[0] {
                let pointers = &mut pointers[tap * len + row..][..columns.len()];
                let in_y = (y * s.stride[0] + tap * s.dilation[0]).wrapping_sub(s.pad_top);
                if in_y >= s.in_h {
                    pointers.fill(self.zeros[..depth].as_ptr());
                    continue;
                }
                let line = &self.input[(image * s.in_h + in_y) * s.in_w * s.in_c..][..s.in_w * s.in_c];
                if let Some(last) = whole.clone().next_back() {
                    let left = |x: usize| (x * s.stride[1] - s.pad_left) * s.in_c;
                    let numbers = &line[left(whole.start)..left(last) + depth];
                    let mut at = numbers.as_ptr();
                    for pointer in &mut pointers[whole.start - x..whole.end - x] {
                        *pointer = at;
                        at = at.wrapping_add(step);
                    }
                }
                for column in (x..whole.start).chain(whole.end.max(whole.start)..columns.end) {
                    let copy = copies.next().expect("room for every pixel and kernel row");
                    self.copy_window(line, (column * s.stride[1]) as isize - s.pad_left as isize, copy);
                    pointers[column - x] = copy.as_ptr();
                }
            }
            row += columns.len();
        }
    }

    /// Copies the pixels of `line` starting at column `left`, with zeros outside the line.
    fn copy_window(&self, line: &[f32], left: isize, copy: &mut [f32]) {
        let inside = |column: isize| column.clamp(0, self.shape.in_w as isize);
        let (from, end) = (inside(left), inside(left + self.shape.kernel[1] as isize));
        copy.fill(0.0);
        // Windows entirely in the right padding begin past `from`.
        if from < end {
            let numbers = &line[from as usize * self.shape.in_c..end as usize * self.shape.in_c];
            copy[(from - left) as usize * self.shape.in_c..][..numbers.len()].copy_from_slice(numbers);
        }
    }
}

/// A product whose slices have been checked against its sizes.
pub(crate) struct CheckedGemm<'a> {
    pub v: &'a Variant,
    /// Rows of the output.
    pub m: usize,
    /// Output columns of one group.
    pub n: usize,
    /// Elements per piece of one group.
    pub depth: usize,
    pub groups: usize,
    pub rows: GemmRows<'a>,
    /// `[images, groups * depth]`
    pub scale: Option<&'a [f32]>,
    /// Packed B of all groups, one after another.
    pub packed: Packed<'a>,
    /// Elements from one row of the output to the next.
    pub ldc: usize,
    pub epilogue: Epilogue<'a>,
}

impl CheckedGemm<'_> {
    /// Computes the product. The rows of `out` are `ldc` apart; `split` was made for these sizes.
    ///
    /// # Panics
    /// If the scratch is too short or the CPU lacks the variant's instructions.
    pub(crate) fn run(&self, split: &GemmSplit, out: &mut [f32], scratch: &mut [f32], pool: &Pool) {
        assert!(self.v.is_available(), "this CPU cannot run {}", self.v.name);
        assert!(scratch.len() >= split.scratch_len(), "the scratch is too short");
        let out = Output::new(out);
        let units = split.groups * split.row_blocks * split.panel_blocks;
        share_units(pool, units, split.slots, split.slot_len(), scratch, |unit, slot| {
            self.unit(split, unit, slot, out.start(), pool);
        });
    }

    /// Like `run`, on the calling thread; the rows of A are read in place.
    pub(crate) fn run_alone(&self, split: &GemmSplit, out: &mut [f32], pool: &Pool) {
        assert!(self.v.is_available(), "this CPU cannot run {}", self.v.name);
        assert!(split.slot_len() == 0, "rows that have to be copied");
        for unit in 0..split.groups * split.row_blocks * split.panel_blocks {
            if unit > 0 && pool.stops() {
                return;
            }
            self.unit(split, unit, &mut [], out.as_mut_ptr(), pool);
        }
    }

    /// One block of rows times one block of panels of one group. Incomplete if the run is to stop.
    fn unit(&self, split: &GemmSplit, unit: usize, slot: &mut [f32], out: *mut f32, pool: &Pool) {
        let v = self.v;
        let panel_block = unit % split.panel_blocks;
        let row_block = unit / split.panel_blocks % split.row_blocks;
        let group = unit / split.panel_blocks / split.row_blocks;
        let first_row = row_block * split.rows;
        let rows = split.rows.min(self.m - first_row);
        let tiles = Tiles { rows, count: rows.div_ceil(v.mr) };

        let mut pointers = [std::ptr::null(); MAX_POINTERS];
        let pointers = &mut pointers[..rows * split.taps];
        if split.access == Access::Gather && !self.gather(first_row, rows, group, slot, split.depth, pool) {
            return;
        }
        for tile in 0..tiles.count {
            let (start, len) = tiles.range(tile);
            let pointers = &mut pointers[start * split.taps..][..len * split.taps];
            if split.access == Access::Gather {
                for (i, pointer) in pointers.iter_mut().enumerate() {
                    *pointer = slot[(start + i) * split.depth..][..split.depth].as_ptr();
                }
            } else {
                let copies = slot.get_mut(start * split.taps * split.depth..).unwrap_or_default();
                self.point(first_row + start, len, group, copies, pointers);
            }
        }

        let first_panel = panel_block * split.panels;
        let end_panel = self.n.div_ceil(v.nr).min(first_panel + split.panels);
        let group_packed = group * (self.packed.len() / self.groups);
        let k = split.taps * split.depth;
        let parts = split.parts(if tiles.count > 1 { split.pieces.max(split.cuts) } else { split.cuts });
        let pieces = parts[0] * parts[1];
        let fused = self.epilogue.of_product();
        let mut left = UNIT_WORK;
        for panel in first_panel..end_panel {
            let column = panel * v.nr;
            let columns = v.nr.min(self.n - column);
            let registers = columns.div_ceil(v.lanes);
            let row = registers * v.lanes;
            let first = group_packed + column * k;
            for piece in 0..pieces {
                let (taps, depths) = split.piece(piece, parts);
                let (begin, len_k) = (taps.start * split.depth + depths.start, taps.len() * depths.len());
                let packed = self.packed.range(first + begin * row..first + (begin + len_k) * row);
                let is_last = piece + 1 == pieces;
                for tile in 0..tiles.count {
                    let (start, len) = tiles.range(tile);
                    match left.checked_sub(len.max(READ_WORK) * row * len_k) {
                        Some(rest) => left = rest,
                        None if pool.stops() => return,
                        None => left = UNIT_WORK,
                    }
                    let at = (first_row + start) * self.ldc + group * self.n + column;
                    if let Some(residual) = self.epilogue.residual.filter(|_| is_last && tile + 1 < tiles.count) {
                        // That of the next tile, row by row, which the hardware does not foresee.
                        let (next, rows) = tiles.range(tile + 1);
                        let at = at + (next - start) * self.ldc;
                        (0..rows).for_each(|row| prefetch(&residual[at + row * self.ldc..][..columns]));
                    }
                    let rows =
                        &mut pointers[start * split.taps..][..len * split.taps][taps.start * len..taps.end * len];
                    // SAFETY: `run` has checked the instructions, the entry points bias and output, whose rows and
                    // columns no other unit writes. `point` or `gather` has made `taps` times `len` pointers to `depth`
                    // elements each, of which the piece is a part; its part of the panel was just sliced.
                    unsafe {
                        v.kernel(len, registers)(&GemmTile {
                            rows: rows.as_ptr(),
                            taps: taps.len(),
                            depth: depths.len(),
                            panel: packed,
                            out: out.add(at),
                            ldc: self.ldc,
                            ahead: if is_last && panel + 1 == end_panel {
                                0
                            } else {
                                ahead(len_k * row * v.weights.size(), len_k, tile)
                            },
                            columns,
                            from: match (piece, fused.start) {
                                (0, None) => std::ptr::null(),
                                (0, Some(residual)) => residual[at..].as_ptr(),
                                _ => out.add(at),
                            },
                            bias: self
                                .epilogue
                                .bias
                                .filter(|_| piece == 0)
                                .map_or(std::ptr::null(), |b| b[group * self.n + column..].as_ptr()),
                            bounds: if is_last { fused.bounds } else { Bounds::None },
                        });
                    }
                    if depths.len() < split.depth {
                        // The next piece of these taps continues where this one ends; after the last, the next panel
                        // begins anew.
                        let is_last = depths.end == split.depth;
                        for row in rows {
                            *row =
                                if is_last { row.wrapping_sub(depths.start) } else { row.wrapping_add(depths.len()) };
                        }
                    }
                    if let Some(rest) = fused.rest.filter(|_| is_last) {
                        // SAFETY: the tile was just written and belongs to this unit alone.
                        unsafe { rest.finish(v.isa, &Stored { out, at, ldc: self.ldc, rows: len, columns }) }
                    }
                }
            }
        }
    }

    /// Writes the pointers of `len` rows starting at `first`: for each tap, one pointer per row. Line edges are copied.
    fn point(&self, first: usize, len: usize, group: usize, copies: &mut [f32], pointers: &mut [*const f32]) {
        match &self.rows {
            GemmRows::Matrix { a, lda } => {
                for (i, pointer) in pointers.iter_mut().enumerate() {
                    *pointer = a[(first + i) * lda..][..self.depth].as_ptr();
                }
            }
            GemmRows::Image(image) => {
                image.taps(first, len, |row, _, tap, offset| {
                    let numbers = match offset {
                        Some(at) => &image.input[at + group * self.depth..][..self.depth],
                        None => &image.zeros[..self.depth],
                    };
                    pointers[tap * len + row] = numbers.as_ptr();
                    true
                });
            }
            GemmRows::Lines(image) => image.lines(first, len, copies, pointers),
        }
    }

    /// Copies `len` rows of `k` elements starting at `first`, with contiguous taps, and scales them. Returns false if
    /// the run is to stop.
    fn gather(&self, first: usize, len: usize, group: usize, to: &mut [f32], k: usize, pool: &Pool) -> bool {
        let mut left = PIECE;
        let goes_on = |steps: usize| match left.checked_sub(steps) {
            Some(rest) => {
                left = rest;
                true
            }
            None => {
                left = PIECE;
                !pool.stops()
            }
        };
        let rows = (first, len, group, k);
        if self.scale.is_some() && self.v.isa != Isa::Scalar {
            dispatch(self.v.isa, GatherScaled { product: self, rows, to, goes_on })
        } else {
            self.gather_by(rows, to, goes_on, copy_scaled)
        }
    }

    /// Like `gather`; `copy` copies and scales one run of elements, `goes_on` counts steps.
    #[inline(always)]
    fn gather_by(
        &self,
        (first, len, group, k): (usize, usize, usize, usize),
        to: &mut [f32],
        mut goes_on: impl FnMut(usize) -> bool,
        copy: impl Fn(&[f32], Option<&[f32]>, &mut [f32]),
    ) -> bool {
        let depth = self.depth;
        let scale = |image: usize| self.scale.map(|s| &s[(image * self.groups + group) * depth..][..depth]);
        // All of a run, unless it is long.
        for begin in (0..depth).step_by(PIECE) {
            let part = begin..depth.min(begin + PIECE);
            let scale = |image: usize| scale(image).map(|scale| &scale[part.clone()]);
            match &self.rows {
                GemmRows::Matrix { a, lda } => {
                    for row in 0..len {
                        copy(&a[(first + row) * lda..][part.clone()], scale(0), &mut to[row * k..][part.clone()]);
                        if !goes_on(part.len()) {
                            return false;
                        }
                    }
                }
                GemmRows::Image(image) => {
                    let goes = image.taps(first, len, |row, picture, tap, offset| {
                        let to = &mut to[row * k + tap * depth..][part.clone()];
                        match offset {
                            Some(at) => copy(&image.input[at + group * depth..][part.clone()], scale(picture), to),
                            None => to.fill(0.0),
                        }
                        goes_on(4 + part.len())
                    });
                    if !goes {
                        return false;
                    }
                }
                GemmRows::Lines(_) => unreachable!("lines are read in place"),
            }
        }
        true
    }
}

/// `to = from * scale`
#[inline(always)]
fn copy_scaled(from: &[f32], scale: Option<&[f32]>, to: &mut [f32]) {
    match scale {
        Some(scale) => {
            for ((to, x), s) in to.iter_mut().zip(from).zip(scale) {
                *to = x * s;
            }
        }
        None => to.copy_from_slice(from),
    }
}

/// `CheckedGemm::gather` with the vectors of an instruction set: scaled rows are copied as fast as they can be loaded.
struct GatherScaled<'a, F> {
    product: &'a CheckedGemm<'a>,
    /// First row, count, group, elements of a row.
    rows: (usize, usize, usize, usize),
    to: &'a mut [f32],
    goes_on: F,
}

impl<F: FnMut(usize) -> bool> Vectorized for GatherScaled<'_, F> {
    type Output = bool;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> bool {
        let Self { product, rows, to, goes_on } = self;
        product.gather_by(
            rows,
            to,
            goes_on,
            #[inline(always)]
            |from, scale, to| {
                let Some(scale) = scale else { return copy_scaled(from, scale, to) };
                let (from, from_rest) = from.split_at(from.len() - from.len() % S::LANES);
                let (scale, scale_rest) = scale.split_at(from.len());
                let mut to = to.chunks_exact_mut(S::LANES);
                for ((x, s), to) in from.chunks_exact(S::LANES).zip(scale.chunks_exact(S::LANES)).zip(&mut to) {
                    simd.store(simd.load(x).mul(simd.load(s)), to);
                }
                let scaled = simd.load_partial(from_rest).mul(simd.load_partial(scale_rest));
                simd.store_partial(scaled, to.into_remainder());
            },
        )
    }
}

/// `rows` split into `count` tiles whose heights differ by at most one: 49 rows in tiles of up to six become five tiles
/// of five rows and four of six, without a single row at the end.
struct Tiles {
    rows: usize,
    count: usize,
}

impl Tiles {
    /// First row and row count of a tile.
    #[inline]
    fn range(&self, tile: usize) -> (usize, usize) {
        let start = tile * self.rows / self.count;
        (start, (tile + 1) * self.rows / self.count - start)
    }
}
