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
pub(super) struct StemRows<'a> {
    pub shape: &'a ConvShape,
    /// Rows, counted over all images.
    pub rows: Range<usize>,
    /// NCHW.
    pub input: &'a [f32],
    pub packed: &'a [f32],
    /// These rows, NHWC.
    pub out: &'a mut [f32],
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
        pub(super) unsafe fn $name(rows: &mut StemRows<'_>) {
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
pub(super) fn scalar(args: &mut StemRows<'_>) {
    let s = args.shape;
    for (at, out) in args.out.iter_mut().enumerate() {
        let (pixel, filter) = (args.rows.start * s.out_w + at / s.out_c, at % s.out_c);
        let (row, x) = (pixel / s.out_w, pixel % s.out_w);
        let (image, y) = (row / s.out_h, row % s.out_h);
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
        *out = activation::scalar::apply(args.epilogue.activation, sum);
    }
}

/// A kernel row in one channel: the input elements under it and its weights.
#[derive(Clone, Copy, Default)]
struct Line {
    /// Offset of the first element.
    start: usize,
    /// Offset of its weights in a panel.
    weights: usize,
}

/// The kernel rows that fall inside the image, with the largest of their offsets: one comparison shows that all of them
/// are inside a slice.
#[derive(Default)]
struct Lines {
    lines: [Line; MAX_LINES],
    count: usize,
    most: Line,
}

impl Lines {
    #[inline(always)]
    fn push(&mut self, line: Line) {
        self.lines[self.count] = line;
        self.count += 1;
        self.most = Line { start: self.most.start.max(line.start), weights: self.most.weights.max(line.weights) };
    }

    #[inline(always)]
    fn all(&self) -> &[Line] {
        &self.lines[..self.count]
    }
}

/// Loops over rows, then tiles of columns, then panels of filters: the window of a tile stays in the first-level cache
/// for all filters, and the weights always do.
///
/// # Safety
/// The CPU has the instructions of `L`, and the caller is compiled for them.
///
/// # Panics
/// If a slice is shorter than the shape and panels of `R` registers require.
#[inline(always)]
unsafe fn run<L: Lanes, const P: usize, const LAST: usize, const R: usize>(args: &mut StemRows<'_>, isa: Isa) {
    let (s, epilogue) = (args.shape, &args.epilogue);
    let mut copies = [0.0; MAX_WINDOW];
    for (row, out) in args.rows.clone().zip(args.out.chunks_exact_mut(s.out_w * s.out_c)) {
        let (image, y) = (row / s.out_h, row % s.out_h);
        let mut lines = Lines::default();
        for c in 0..s.in_c {
            for ky in s.valid_taps(0, y) {
                let in_y = y * s.stride[0] + ky * s.dilation[0] - s.pad_top;
                let start = ((image * s.in_c + c) * s.in_h + in_y) * s.in_w;
                lines.push(Line { start, weights: (c * s.kernel[0] + ky) * s.kernel[1] * R * L::WIDTH });
            }
        }
        for (tile, out) in out.chunks_mut(P * s.out_c).enumerate() {
            let last = out.len() <= LAST * s.out_c;
            let (input, packed) = (args.input, args.packed);
            let mut tile = Tile { shape: s, input, packed, epilogue, lines: &lines, x: tile * P, out };
            // SAFETY: guaranteed by the caller.
            unsafe {
                match (s.stride[1], last) {
                    (1, false) => tile.run::<L, P, R, 1>(&mut copies),
                    (1, true) => tile.run::<L, LAST, R, 1>(&mut copies),
                    (_, false) => tile.run::<L, P, R, 2>(&mut copies),
                    (_, true) => tile.run::<L, LAST, R, 2>(&mut copies),
                }
            }
        }
        if let Some(activation) = epilogue.later() {
            finish_row(isa, activation, out, None);
        }
    }
}

/// Adjacent outputs of a row.
struct Tile<'a> {
    shape: &'a ConvShape,
    input: &'a [f32],
    packed: &'a [f32],
    epilogue: &'a Epilogue<'a>,
    lines: &'a Lines,
    /// First output column.
    x: usize,
    /// The outputs that exist.
    out: &'a mut [f32],
}

impl Tile<'_> {
    /// Computes the tile; `copies` is a buffer for windows at an edge.
    ///
    /// # Safety
    /// As for [`run`]; the horizontal stride is `S`.
    #[inline(always)]
    unsafe fn run<L: Lanes, const P: usize, const R: usize, const S: usize>(&mut self, copies: &mut [f32; MAX_WINDOW]) {
        let s = self.shape;
        let columns = (P - 1) * S + s.kernel[1];
        let first = (self.x * S).wrapping_sub(s.pad_left);
        // The window also covers columns past the last output, which may not exist.
        if self.x * S >= s.pad_left && first + columns <= s.in_w {
            // SAFETY: guaranteed by the caller.
            return unsafe { self.panels::<L, P, R, S>(self.input, first, self.lines) };
        }
        let from = s.pad_left.saturating_sub(self.x * S).min(columns);
        let end = (s.in_w + s.pad_left).saturating_sub(self.x * S).clamp(from, columns);
        let mut lines = Lines::default();
        for (index, line) in self.lines.all().iter().enumerate() {
            let window = &mut copies[index * columns..][..columns];
            window[..from].fill(0.0);
            window[end..].fill(0.0);
            if from < end {
                let row = &self.input[line.start..][..s.in_w];
                window[from..end].copy_from_slice(&row[self.x * S + from - s.pad_left..][..end - from]);
            }
            lines.push(Line { start: index * columns, ..*line });
        }
        // SAFETY: guaranteed by the caller.
        unsafe { self.panels::<L, P, R, S>(copies, 0, &lines) }
    }

    /// Computes the filters panel by panel, from the columns under the tile: those of every line in `source`, from its
    /// start and `first` on.
    ///
    /// # Safety
    /// As for [`run`].
    #[inline(always)]
    unsafe fn panels<L: Lanes, const P: usize, const R: usize, const S: usize>(
        &mut self,
        source: &[f32],
        first: usize,
        lines: &Lines,
    ) {
        let s = self.shape;
        let (columns, taps) = ((P - 1) * S + s.kernel[1], s.kernel[1] * R * L::WIDTH);
        let panel_len = s.in_c * s.kernel[0] * taps;
        assert!(lines.most.start + first + columns <= source.len() && lines.most.weights + taps <= panel_len);
        for (panel, filter) in (0..s.out_c).step_by(R * L::WIDTH).enumerate() {
            let panel = &self.packed[panel * panel_len..][..panel_len];
            // SAFETY: guaranteed by the caller.
            let mut sums = [unsafe { self.bias::<L, R>(filter) }; P];
            for line in lines.all() {
                // SAFETY: as asserted, `columns` elements of `source` and `taps` weights of the panel begin there.
                unsafe {
                    let pixels = source.as_ptr().add(line.start + first);
                    let mut weights = panel.as_ptr().add(line.weights);
                    for kx in 0..s.kernel[1] {
                        let w: [L; R] = std::array::from_fn(|r| L::load(weights.add(r * L::WIDTH)));
                        for (p, sums) in sums.iter_mut().enumerate() {
                            let pixel = L::splat(*pixels.add(p * S + kx));
                            for (sum, w) in sums.iter_mut().zip(w) {
                                *sum = w.mul_add(pixel, *sum);
                            }
                        }
                        weights = weights.add(R * L::WIDTH);
                    }
                }
            }
            self.epilogue.in_registers().apply(&mut sums);
            let whole = filter + R * L::WIDTH <= s.out_c;
            for (sums, out) in sums.into_iter().zip(self.out.chunks_exact_mut(s.out_c)) {
                if whole {
                    let out = &mut out[filter..][..R * L::WIDTH];
                    for (r, sum) in sums.into_iter().enumerate() {
                        // SAFETY: there is room for `R` registers.
                        unsafe { sum.store(out[r * L::WIDTH..].as_mut_ptr()) }
                    }
                } else {
                    store_some(sums, &mut out[filter..]);
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
        let bias = self.epilogue.bias.unwrap_or_default();
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
}

/// Stores a pixel's sums, as far as there is room for them.
#[inline(always)]
fn store_some<L: Lanes, const R: usize>(sums: [L; R], to: &mut [f32]) {
    for (sum, to) in sums.into_iter().zip(to.chunks_mut(L::WIDTH)) {
        // SAFETY: as many elements are written as there is room for.
        unsafe {
            match to.len() {
                count if count < L::WIDTH => sum.store_first(to.as_mut_ptr(), count),
                _ => sum.store(to.as_mut_ptr()),
            }
        }
    }
}
