//! The loops of the first convolution, generic over the register type.

use std::ops::Range;

use crate::activation;
use crate::conv::ConvShape;
use crate::epilogue::{Epilogue, finish_row};
use crate::isa::Isa;
use crate::lanes::Lanes;

/// Output columns of the widest tile.
pub(super) const WIDTH: usize = 14;
/// Most kernel rows, counted over all channels.
pub(super) const MAX_LINES: usize = 32;
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
    /// First element of the first of the rows.
    pub out: *mut f32,
    /// Has no residual.
    pub epilogue: Epilogue<'a>,
}

/// The kernels by instruction set: name, attributes, register type, outputs per tile, outputs per tile at the end of a
/// row, and registers of filters.
macro_rules! kernels {
    ($($(#[$attribute:meta])* $name:ident $lanes:path, $isa:ident, $width:literal or $last:literal x $registers:literal;)*) => {$(
        /// # Safety
        /// The CPU has the instruction set; the lengths of the slices match the shape, and the weights are packed for
        /// this many filters.
        $(#[$attribute])*
        pub(super) unsafe fn $name(rows: &Rows<'_>) {
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
}

/// The reference, element by element, for panels of one filter.
///
/// # Safety
/// The lengths of the slices match the shape.
pub(super) unsafe fn scalar(args: &Rows<'_>) {
    let s = args.shape;
    for row in args.rows.clone() {
        let (image, y) = (row / s.out_h, row % s.out_h);
        for x in 0..s.out_w {
            for filter in 0..s.out_c {
                let mut sum = args.epilogue.bias.map_or(0.0, |b| b[filter]);
                for c in 0..s.in_c {
                    for ky in s.valid_taps(0, y) {
                        let in_y = y * s.stride[0] + ky * s.dilation[0] - s.pad_top;
                        for kx in s.valid_taps(1, x) {
                            let in_x = x * s.stride[1] + kx - s.pad_left;
                            let weight = ((filter * s.in_c + c) * s.kernel[0] + ky) * s.kernel[1] + kx;
                            let pixel = ((image * s.in_c + c) * s.in_h + in_y) * s.in_w + in_x;
                            sum += args.input[pixel] * args.packed[weight];
                        }
                    }
                }
                let at = ((row - args.rows.start) * s.out_w + x) * s.out_c + filter;
                // SAFETY: the output has this pixel and filter.
                unsafe { *args.out.add(at) = activation::scalar::apply(args.epilogue.activation, sum) };
            }
        }
    }
}

/// A kernel row in one channel: the input row under it and its weights.
#[derive(Clone, Copy)]
struct Line {
    /// The input row.
    row: *const f32,
    /// Offset of its weights in a panel.
    weights: usize,
}

/// Loops over rows, then tiles of columns, then panels of filters: the window of a tile stays in the first-level cache
/// for all filters, and the weights always do.
///
/// # Safety
/// The CPU has the instructions of `L`, and the caller is compiled for them; the lengths of the slices match the shape;
/// weights are in panels of `R` registers.
#[inline(always)]
unsafe fn run<L: Lanes, const P: usize, const LAST: usize, const R: usize>(args: &Rows<'_>, isa: Isa) {
    let s = args.shape;
    let mut copies = [0.0; MAX_WINDOW];
    for row in args.rows.clone() {
        let (image, y) = (row / s.out_h, row % s.out_h);
        let mut lines = [Line { row: std::ptr::null(), weights: 0 }; MAX_LINES];
        let mut count = 0;
        for c in 0..s.in_c {
            for ky in s.valid_taps(0, y) {
                let in_y = y * s.stride[0] + ky * s.dilation[0] - s.pad_top;
                let row = &args.input[((image * s.in_c + c) * s.in_h + in_y) * s.in_w..][..s.in_w];
                let weights = (c * s.kernel[0] + ky) * s.kernel[1] * R * L::WIDTH;
                lines[count] = Line { row: row.as_ptr(), weights };
                count += 1;
            }
        }
        let out_row = (row - args.rows.start) * s.out_w * s.out_c;
        for x in (0..s.out_w).step_by(P) {
            let tile = Tile { args, lines: &lines[..count], x, outputs: P.min(s.out_w - x), out: out_row };
            // SAFETY: guaranteed by the caller.
            unsafe {
                match (s.stride[1], tile.outputs <= LAST) {
                    (1, false) => tile.run::<L, P, R, 1>(&mut copies),
                    (1, true) => tile.run::<L, LAST, R, 1>(&mut copies),
                    (_, false) => tile.run::<L, P, R, 2>(&mut copies),
                    (_, true) => tile.run::<L, LAST, R, 2>(&mut copies),
                }
            }
        }
        if let Some(activation) = args.epilogue.later() {
            let len = s.out_w * s.out_c;
            // SAFETY: the output row was just written, by this task alone.
            let out = unsafe { std::slice::from_raw_parts_mut(args.out.add(out_row), len) };
            finish_row(isa, activation, out, None);
        }
    }
}

/// Adjacent outputs of a row.
struct Tile<'a, 'b> {
    args: &'a Rows<'b>,
    /// The kernel rows that fall inside the image.
    lines: &'a [Line],
    /// First output column.
    x: usize,
    /// Output columns that exist.
    outputs: usize,
    /// Offset of the output row.
    out: usize,
}

impl Tile<'_, '_> {
    /// Computes the tile; `copies` is a buffer for windows at an edge.
    ///
    /// # Safety
    /// As for [`run`]; the horizontal stride is `S`.
    #[inline(always)]
    unsafe fn run<L: Lanes, const P: usize, const R: usize, const S: usize>(&self, copies: &mut [f32; MAX_WINDOW]) {
        let s = self.args.shape;
        let columns = (P - 1) * S + s.kernel[1];
        let first = (self.x * S).wrapping_sub(s.pad_left);
        // The window also covers columns past the last output, which may not exist.
        let inside = self.x * S >= s.pad_left && first + columns <= s.in_w;
        let mut lines = [Line { row: std::ptr::null(), weights: 0 }; MAX_LINES];
        let lines = &mut lines[..self.lines.len()];
        let from = s.pad_left.saturating_sub(self.x * S).min(columns);
        let end = (s.in_w + s.pad_left).saturating_sub(self.x * S).clamp(from, columns);
        for (index, (line, to)) in self.lines.iter().zip(&mut *lines).enumerate() {
            if inside {
                *to = Line { row: line.row.wrapping_add(first), ..*line };
                continue;
            }
            let window = &mut copies[index * columns..][..columns];
            window[..from].fill(0.0);
            window[end..].fill(0.0);
            if from < end {
                // SAFETY: the row has `in_w` elements, and the columns from `from` to `end` are inside.
                let inside =
                    unsafe { std::slice::from_raw_parts(line.row.add(self.x * S + from - s.pad_left), end - from) };
                window[from..end].copy_from_slice(inside);
            }
            *to = Line { row: window.as_ptr(), ..*line };
        }
        // SAFETY: guaranteed by the caller; the lines, or the copies of them, hold the columns under the tile.
        unsafe { self.panels::<L, P, R, S>(lines) }
    }

    /// Computes the filters panel by panel.
    ///
    /// # Safety
    /// As for [`run`]; every line has the columns under the tile.
    #[inline(always)]
    unsafe fn panels<L: Lanes, const P: usize, const R: usize, const S: usize>(&self, lines: &[Line]) {
        let s = self.args.shape;
        let panel_len = s.in_c * s.kernel[0] * s.kernel[1] * R * L::WIDTH;
        for (panel, filter) in (0..s.out_c).step_by(R * L::WIDTH).enumerate() {
            // SAFETY: value instructions, the bias of filters that exist, and lines and weights as the caller
            // guarantees.
            unsafe {
                let bias = self.bias::<L, R>(filter);
                let mut sums = [bias; P];
                for line in lines {
                    let mut weights = self.args.packed.as_ptr().add(panel * panel_len + line.weights);
                    for kx in 0..s.kernel[1] {
                        let w: [L; R] = std::array::from_fn(|r| L::load(weights.add(r * L::WIDTH)));
                        for (p, sums) in sums.iter_mut().enumerate() {
                            let pixel = L::splat(*line.row.add(p * S + kx));
                            for (sum, w) in sums.iter_mut().zip(w) {
                                *sum = w.mul_add(pixel, *sum);
                            }
                        }
                        weights = weights.add(R * L::WIDTH);
                    }
                }
                self.args.epilogue.in_registers().apply(&mut sums);
                let out = self.args.out.add(self.out + self.x * s.out_c + filter);
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
        std::array::from_fn(|r| {
            let rest = bias.get(filter + r * L::WIDTH..).unwrap_or_default();
            // SAFETY: `rest` has as many elements as are read.
            unsafe {
                match rest.len() {
                    0 => L::splat(0.0),
                    count if count < L::WIDTH => L::load_first(rest.as_ptr(), count),
                    _ => L::load(rest.as_ptr()),
                }
            }
        })
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
