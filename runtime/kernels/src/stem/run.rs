//! The loops of the first convolution, generic over the register type.

use std::ops::Range;

use crate::conv::{Columns, ConvShape};
use crate::epilogue::Epilogue;
use crate::isa::Isa;
use crate::lanes::Lanes;
use crate::pace::{PIECE, Pace};
use crate::threads::Pool;

/// Output columns of the widest tile.
pub(super) const WIDTH: usize = 14;
/// Most [lines](Line).
pub(super) const MAX_LINES: usize = 128;
/// Most input elements under a tile.
pub(super) const MAX_WINDOW: usize = 2048;

/// Some output rows of a convolution whose lengths were checked.
pub(super) struct Rows<'a> {
    pub shape: &'a ConvShape,
    /// Rows, counted over all images.
    pub rows: Range<usize>,
    /// NCHW.
    pub input: &'a [f32],
    pub packed: &'a [f32],
    /// These rows, of all filters.
    pub out: Columns<'a>,
    /// Has no residual.
    pub epilogue: Epilogue<'a>,
    /// Asked whether to stop.
    pub pool: &'a Pool,
}

impl Rows<'_> {
    /// Steps of a pixel: a multiply-add takes a small part of one.
    fn pixel_work(&self, of_step: usize) -> usize {
        self.shape.in_c * self.shape.taps() * self.shape.out_c / of_step
    }
}

/// The kernels by instruction set: name, attributes, register type, outputs per tile, outputs per tile at the end of a
/// row, and registers of filters.
macro_rules! kernels {
    ($($(#[$attribute:meta])* $name:ident $lanes:path, $isa:ident, $width:literal or $last:literal x $registers:literal;)*) => {$(
        /// # Safety
        /// The CPU has the instruction set; the lengths of the slices match the shape, and the weights are packed for
        /// this many filters.
        $(#[$attribute])*
        pub(super) unsafe fn $name(rows: &mut Rows<'_>) {
            // SAFETY: guaranteed by the caller.
            unsafe { run::<$lanes, $width, $last, $registers>(rows, Isa::$isa) }
        }
    )*};
}

kernels! {
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    avx512_32 crate::lanes::avx512::F32x16, Avx512, 14 or 7 x 2;
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    #[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
    avx512_16 crate::lanes::avx512::F32x16, Avx512, 14 or 7 x 1;
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    avx2_16 crate::lanes::avx2::F32x8, Avx2, 6 or 3 x 2;
    #[cfg(target_arch = "x86_64")]
    #[target_feature(enable = "avx2,fma,f16c")]
    avx2_8 crate::lanes::avx2::F32x8, Avx2, 14 or 7 x 1;
    #[cfg(target_arch = "aarch64")]
    #[target_feature(enable = "neon")]
    neon_16 crate::lanes::neon::F32x4, Neon, 6 or 3 x 4;
    #[cfg(target_arch = "aarch64")]
    #[target_feature(enable = "neon")]
    neon_8 crate::lanes::neon::F32x4, Neon, 14 or 7 x 2;
    #[cfg(target_arch = "arm")]
    neon32_8 crate::lanes::neon32::F32x4, Neon32, 3 or 2 x 2;
}

/// The reference, element by element, for panels of one filter.
pub(super) fn scalar(args: &mut Rows<'_>) {
    let s = args.shape;
    let (pace, work) = (Pace::of(args.pool), args.pixel_work(1));
    for row in args.rows.clone() {
        let (image, y) = (row / s.out_h, row % s.out_h);
        for x in 0..s.out_w {
            if pace.stops(work) {
                return;
            }
            for filter in 0..s.out_c {
                let mut sum = args.epilogue.bias.map_or(0.0, |b| b[filter]);
                for c in 0..s.in_c {
                    for ky in s.valid_taps(0, y) {
                        let in_y = y * s.stride[0] + ky * s.dilation[0] - s.pad_top;
                        for kx in s.valid_taps(1, x) {
                            let in_x = x * s.stride[1] + kx * s.dilation[1] - s.pad_left;
                            let weight = ((filter * s.in_c + c) * s.kernel[0] + ky) * s.kernel[1] + kx;
                            let pixel = ((image * s.in_c + c) * s.in_h + in_y) * s.in_w + in_x;
                            sum += args.input[pixel] * args.packed[weight];
                        }
                    }
                }
                let pixel = (row - args.rows.start) * s.out_w + x;
                args.out.slice(pixel, 1)[filter] = args.epilogue.number(filter, sum, 0.0);
            }
        }
    }
}

/// Adjacent taps of a kernel row in one channel: the input row under them and their weights. All taps of the row are
/// adjacent, or none is.
#[derive(Clone, Copy)]
struct Line<'a> {
    row: &'a [f32],
    /// Distance of the first one from the first of the row.
    shift: usize,
    /// Offset of the weights in a panel.
    weights: usize,
}

/// Taps of a [`Line`].
pub(super) fn adjacent_taps(s: &ConvShape) -> usize {
    if s.dilation[1] == 1 { s.kernel[1] } else { 1 }
}

/// The part of a line under a tile.
#[derive(Clone, Copy)]
struct Window {
    /// Its first column: an element of the input or, at an edge, of a copy with zeros outside.
    first: *const f32,
    /// As in the line.
    weights: usize,
}

/// Columns of a row whose activation is applied at once.
const FINISHED: usize = 1 << 10;

/// Loops over rows, then tiles of columns, then panels of filters: the window of a tile stays in the first-level cache
/// for all filters, and the weights always do.
///
/// # Safety
/// The CPU has the instructions of `L`, and the caller is compiled for them; the lengths of the slices match the shape;
/// weights are in panels of `R` registers.
#[inline(always)]
unsafe fn run<L: Lanes, const P: usize, const LAST: usize, const R: usize>(args: &mut Rows<'_>, isa: Isa) {
    let s = args.shape;
    let pace = Pace::of(args.pool);
    // Counted here, since a tile takes little time.
    let (mut left, work) = (PIECE, P * args.pixel_work(8) + 16);
    let mut copies = [0.0; MAX_WINDOW];
    let mut windows = [Window { first: std::ptr::null(), weights: 0 }; MAX_LINES];
    for row in args.rows.clone() {
        let (image, y) = (row / s.out_h, row % s.out_h);
        let mut lines = [Line { row: &[], shift: 0, weights: 0 }; MAX_LINES];
        let mut count = 0;
        for c in 0..s.in_c {
            for ky in s.valid_taps(0, y) {
                let in_y = y * s.stride[0] + ky * s.dilation[0] - s.pad_top;
                let row = &args.input[((image * s.in_c + c) * s.in_h + in_y) * s.in_w..][..s.in_w];
                for kx in (0..s.kernel[1]).step_by(adjacent_taps(s)) {
                    let weights = ((c * s.kernel[0] + ky) * s.kernel[1] + kx) * R * L::WIDTH;
                    lines[count] = Line { row, shift: kx * s.dilation[1], weights };
                    count += 1;
                }
            }
        }
        let out_row = (row - args.rows.start) * s.out_w;
        for x in (0..s.out_w).step_by(P) {
            left = left.saturating_sub(work);
            if left == 0 {
                if pace.stops(PIECE) {
                    return;
                }
                left = PIECE;
            }
            let outputs = P.min(s.out_w - x);
            let tile = Tile { args, lines: &lines[..count], x, outputs, out: args.out.at(out_row + x, outputs) };
            let narrow = outputs <= LAST;
            let found = tile.windows(if narrow { LAST } else { P }, &mut copies, &mut windows);
            let windows = &windows[..found];
            // SAFETY: guaranteed by the caller; every window has the columns under the tile.
            unsafe {
                match (s.stride[1], narrow) {
                    (1, false) => tile.panels::<L, P, R, 1>(windows),
                    (1, true) => tile.panels::<L, LAST, R, 1>(windows),
                    (_, false) => tile.panels::<L, P, R, 2>(windows),
                    (_, true) => tile.panels::<L, LAST, R, 2>(windows),
                }
            }
        }
        if let Some(later) = args.epilogue.later(0..s.out_c) {
            for first in (0..s.out_w).step_by(FINISHED) {
                let count = FINISHED.min(s.out_w - first);
                if pace.stops(count * s.out_c) {
                    return;
                }
                later.finish(isa, args.out.slice(out_row + first, count), 0);
            }
        }
    }
}

/// Adjacent outputs of a row.
struct Tile<'a, 'b> {
    args: &'a Rows<'b>,
    /// The kernel rows that fall inside the image.
    lines: &'a [Line<'b>],
    /// First output column.
    x: usize,
    /// Output columns that exist.
    outputs: usize,
    /// The first filter of the first output.
    out: *mut f32,
}

impl Tile<'_, '_> {
    /// Finds the windows of the lines under a tile of `width` outputs that meet the image, and returns their number;
    /// `copies` is a buffer for those at an edge. They also cover columns past the last output, which may not exist.
    #[inline(never)]
    fn windows(&self, width: usize, copies: &mut [f32; MAX_WINDOW], windows: &mut [Window; MAX_LINES]) -> usize {
        let s = self.args.shape;
        let columns = (width - 1) * s.stride[1] + adjacent_taps(s);
        let mut copies = copies.chunks_exact_mut(columns);
        let mut found = 0;
        for line in self.lines {
            let start = self.x * s.stride[1] + line.shift;
            // The columns that are inside the image.
            let from = s.pad_left.saturating_sub(start).min(columns);
            let end = (s.in_w + s.pad_left).saturating_sub(start).clamp(from, columns);
            if from == end {
                continue;
            }
            let inside = &line.row[start + from - s.pad_left..][..end - from];
            let mut place = inside;
            if inside.len() < columns {
                let copy = copies.next().expect("a buffer for every line");
                copy[..from].fill(0.0);
                copy[from..end].copy_from_slice(inside);
                copy[end..].fill(0.0);
                place = copy;
            }
            windows[found] = Window { first: place.as_ptr(), weights: line.weights };
            found += 1;
        }
        found
    }

    /// Computes the filters panel by panel.
    ///
    /// # Safety
    /// As for [`run`]; the horizontal stride is `S`, and every window has the columns under a tile of `P` outputs.
    #[inline(always)]
    unsafe fn panels<L: Lanes, const P: usize, const R: usize, const S: usize>(&self, windows: &[Window]) {
        let s = self.args.shape;
        let panel_len = s.in_c * s.kernel[0] * s.kernel[1] * R * L::WIDTH;
        for (panel, filter) in (0..s.out_c).step_by(R * L::WIDTH).enumerate() {
            // SAFETY: value instructions, the bias of filters that exist, and windows and weights as the caller
            // guarantees; the output has the filters of the tile's outputs that exist.
            unsafe {
                let bias = self.bias::<L, R>(filter);
                let mut sums = [bias; P];
                for window in windows {
                    let mut weights = self.args.packed.as_ptr().add(panel * panel_len + window.weights);
                    for kx in 0..adjacent_taps(s) {
                        let w: [L; R] = std::array::from_fn(|r| L::load(weights.add(r * L::WIDTH)));
                        for (p, sums) in sums.iter_mut().enumerate() {
                            let pixel = L::splat(*window.first.add(p * S + kx));
                            for (sum, w) in sums.iter_mut().zip(w) {
                                *sum = w.mul_add(pixel, *sum);
                            }
                        }
                        weights = weights.add(R * L::WIDTH);
                    }
                }
                self.args.epilogue.in_registers().apply(&mut sums);
                let out = self.out.add(filter);
                let whole = filter + R * L::WIDTH <= s.out_c;
                for (p, sums) in sums.into_iter().enumerate() {
                    if p < self.outputs {
                        let out = out.add(p * s.out_c);
                        if whole {
                            for (r, sum) in sums.into_iter().enumerate() {
                                sum.store(out.add(r * L::WIDTH));
                            }
                        } else {
                            self.store_some(sums, out, filter);
                        }
                    }
                }
            }
        }
    }

    /// The bias of a panel; zeros for filters that do not exist.
    ///
    /// # Safety
    /// As for [`run`].
    #[inline(always)]
    unsafe fn bias<L: Lanes, const R: usize>(&self, filter: usize) -> [L; R] {
        let bias = self.args.epilogue.bias.unwrap_or_default();
        // SAFETY: `rest` has as many elements as are read.
        unsafe {
            let mut registers = [L::splat(0.0); R];
            for (r, register) in registers.iter_mut().enumerate() {
                let rest = bias.get(filter + r * L::WIDTH..).unwrap_or_default();
                match rest.len() {
                    0 => {}
                    count if count < L::WIDTH => *register = L::load_first(rest.as_ptr(), count),
                    _ => *register = L::load(rest.as_ptr()),
                }
            }
            registers
        }
    }

    /// Stores the sums of the existing filters starting at `filter`.
    ///
    /// # Safety
    /// `to` is writable for them.
    #[inline(always)]
    unsafe fn store_some<L: Lanes, const R: usize>(&self, sums: [L; R], to: *mut f32, filter: usize) {
        for (r, sum) in sums.into_iter().enumerate() {
            // SAFETY: guaranteed by the caller.
            unsafe {
                match self.args.shape.out_c.saturating_sub(filter + r * L::WIDTH) {
                    0 => {}
                    count if count < L::WIDTH => sum.store_first(to.add(r * L::WIDTH), count),
                    _ => sum.store(to.add(r * L::WIDTH)),
                }
            }
        }
    }
}
