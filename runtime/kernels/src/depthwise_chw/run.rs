//! The loops of the depthwise convolution over planes, generic over the register type.

use std::ops::Range;

use super::Bands;
use crate::conv::ConvShape;
use crate::depthwise::{self, column};
use crate::epilogue::{Epilogue, InRegisters, Stored};
use crate::isa::Isa;
use crate::lanes::Lanes;
use crate::pace::{PIECE, Pace};

/// Output rows that are computed at once, as many as the columns that [`depthwise`](crate::depthwise) computes at once.
pub(super) const ROWS: usize = depthwise::WIDTH;

/// Some planes of a convolution whose lengths were checked.
pub(super) struct Planes<'a> {
    pub shape: &'a ConvShape,
    pub bands: &'a Bands,
    /// Planes, counted over all images.
    pub planes: Range<usize>,
    pub input: &'a [f32],
    pub weights: &'a [f32],
    /// The whole output.
    pub out: *mut f32,
    pub epilogue: Epilogue<'a>,
    /// Space for the copies of two bands, all zeros.
    pub copies: &'a mut [f32],
    /// Asked whether to stop.
    pub pace: &'a Pace<'a>,
}

/// The reference, element by element.
///
/// # Safety
/// The lengths of the slices match the shape, and nothing else accesses the planes of the output.
pub(super) unsafe fn scalar(args: &mut Planes<'_>) {
    let s = args.shape;
    for plane in args.planes.clone() {
        let channel = plane % s.in_c;
        let input = &args.input[plane * s.in_h * s.in_w..][..s.in_h * s.in_w];
        let weights = &args.weights[channel * s.taps()..][..s.taps()];
        for y in 0..s.out_h {
            for x in 0..s.out_w {
                if args.pace.stops(4 * s.taps()) {
                    return;
                }
                let mut sum = args.epilogue.bias.map_or(0.0, |b| b[channel]);
                for ky in s.valid_taps(0, y) {
                    let in_y = y * s.stride[0] + ky * s.dilation[0] - s.pad_top;
                    for kx in s.valid_taps(1, x) {
                        let in_x = x * s.stride[1] + kx * s.dilation[1] - s.pad_left;
                        sum += input[in_y * s.in_w + in_x] * weights[ky * s.kernel[1] + kx];
                    }
                }
                let at = (plane * s.out_h + y) * s.out_w + x;
                let residual = args.epilogue.residual.map_or(0.0, |r| r[at]);
                let out = args.epilogue.number(channel, sum, residual);
                // SAFETY: the output has this element.
                unsafe { *args.out.add(at) = out };
            }
        }
    }
}

/// # Safety
/// As for [`run`]; the CPU has AVX-512 F, BW, DQ and VL.
#[cfg(all(target_arch = "x86_64", feature = "avx512"))]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c")]
pub(super) unsafe fn avx512(args: &mut Planes<'_>) {
    // SAFETY: guaranteed by the caller.
    unsafe { run::<crate::lanes::avx512::F32x16>(args, Isa::Avx512) }
}

/// # Safety
/// As for [`run`]; the CPU has AVX2, FMA and F16C.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn avx2(args: &mut Planes<'_>) {
    // SAFETY: guaranteed by the caller.
    unsafe { run::<crate::lanes::avx2::F32x8>(args, Isa::Avx2) }
}

/// # Safety
/// As for [`run`]; the CPU has NEON.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub(super) unsafe fn neon(args: &mut Planes<'_>) {
    // SAFETY: guaranteed by the caller.
    unsafe { run::<crate::lanes::neon::F32x4>(args, Isa::Neon) }
}

/// # Safety
/// As for [`run`]; the CPU has NEON and VFPv4.
#[cfg(target_arch = "arm")]
pub(super) unsafe fn neon32(args: &mut Planes<'_>) {
    // SAFETY: guaranteed by the caller.
    unsafe { run::<crate::lanes::neon32::F32x4>(args, Isa::Neon32) }
}

/// Loops over planes and their bands; the copy of a band is made one band ahead.
///
/// # Safety
/// The CPU has the instructions of `L`, and the caller is compiled for them; the lengths of the slices match the shape;
/// the bands are for the width of `L`, and `copies` has space for two; nothing else accesses the planes of the output.
#[inline(always)]
unsafe fn run<L: Lanes>(args: &mut Planes<'_>, isa: Isa) {
    let (s, bands) = (args.shape, args.bands);
    let (in_registers, rest) = args.epilogue.parts();
    let per_plane = s.out_h.div_ceil(bands.rows);
    let copies = args.copies.as_mut_ptr();
    let ends = (args.planes.end, 0);
    let (mut next, mut last) = ((args.planes.start, 0), None);
    let mut turn = 0;
    // A multiply-add takes an eighth of a step. Counted here, since the bands of small images take little time.
    let (mut left, band_work) = (PIECE, bands.copy_len() + bands.rows * s.out_w * s.taps() / 8);
    // One loop with a single call of the copy and of the kernel, so that both are inlined.
    loop {
        left = left.saturating_sub(band_work);
        if left == 0 {
            if args.pace.stops(PIECE) {
                break;
            }
            left = PIECE;
        }
        let copied = copies.wrapping_add(turn * bands.copy_len());
        let (plane, band) = next;
        if next != ends {
            let first = band * bands.rows * s.stride[0];
            let from = args.input[plane * s.in_h * s.in_w..].as_ptr();
            // SAFETY: the input has this plane, and there is room for the band.
            unsafe { bands.padded.copy::<L>(from, first..first + bands.lines, copied, per_plane == 1) }
        }
        turn = 1 - turn;
        let ready = last.replace(next);
        next = if band + 1 < per_plane { (plane, band + 1) } else { (plane + 1, 0) };
        let Some((plane, band)) = ready else { continue };
        let y = band * bands.rows;
        let channel = plane % s.in_c;
        let band = Band {
            shape: s,
            bands,
            copy: copies.wrapping_add(turn * bands.copy_len()),
            weights: args.weights[channel * s.taps()..][..s.taps()].as_ptr(),
            bias: args.epilogue.bias.map_or(0.0, |b| b[channel]),
            in_registers,
            out: args.out.wrapping_add(plane * s.out_h * s.out_w),
            first: y,
            rows: bands.rows.min(s.out_h - y),
        };
        // SAFETY: guaranteed by the caller; the copy holds the rows under the band.
        unsafe {
            match (s.kernel[0], s.stride[0]) {
                _ if s.dilation[0] > 1 || band.rows < ROWS => band.any::<L>(),
                (3, 1) => band.tiles::<L, 3, 1>(),
                (3, 2) => band.tiles::<L, 3, 2>(),
                (5, 1) => band.tiles::<L, 5, 1>(),
                (5, 2) => band.tiles::<L, 5, 2>(),
                _ => band.any::<L>(),
            }
            if let Some(rest) = &rest {
                let at = (plane * s.out_h + y) * s.out_w;
                let columns = band.rows * s.out_w;
                rest.finish(isa, &Stored { out: args.out, at, ldc: columns, rows: 1, columns });
            }
        }
        if last == Some(ends) {
            break;
        }
    }
}

/// Some output rows of a plane.
struct Band<'a> {
    shape: &'a ConvShape,
    bands: &'a Bands,
    /// The input rows under it.
    copy: *const f32,
    weights: *const f32,
    bias: f32,
    in_registers: InRegisters,
    /// The plane of the output.
    out: *mut f32,
    /// First output row.
    first: usize,
    rows: usize,
}

impl Band<'_> {
    /// Computes the band for a kernel of `K` rows at vertical stride `S`.
    ///
    /// # Safety
    /// As for [`run`]; the kernel's height and stride are `K` and `S`, its vertical dilation is 1, and there are at
    /// least [`ROWS`] rows.
    #[inline(always)]
    unsafe fn tiles<L: Lanes, const K: usize, const S: usize>(&self) {
        let (row, [_, columns]) = (self.bands.padded.row_len(), self.shape.kernel);
        let last = self.shape.out_w.saturating_sub(L::WIDTH);
        for y in (0..self.rows).step_by(ROWS) {
            // The last tiles overlap outputs that are already done and compute them again.
            let y = y.min(self.rows - ROWS);
            for x in (0..self.shape.out_w).step_by(L::WIDTH) {
                let x = x.min(last);
                // SAFETY: the weights have every tap, and the copy every row and column under the tile.
                unsafe {
                    let from = self.copy.add(y * S * row + x);
                    let mut sums = [L::splat(self.bias); ROWS];
                    for kx in 0..columns {
                        let mut at = from.add(self.bands.padded.column(kx * self.shape.dilation[1]));
                        let w: [L; K] = std::array::from_fn(|ky| L::splat(*self.weights.add(ky * columns + kx)));
                        // Unrolled by hand, because the compiler does not unroll a loop over this many lines.
                        macro_rules! lines {
                            ($($line:literal)*) => {$(
                                if $line < (ROWS - 1) * S + K {
                                    column::<L, K, S, $line>(L::load(at), &w, &mut sums);
                                    at = at.wrapping_add(row);
                                }
                            )*};
                        }
                        lines!(0 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16);
                    }
                    self.store(y, x, [sums]);
                }
            }
        }
    }

    /// Computes the band for any kernel, row by row.
    ///
    /// # Safety
    /// As for [`run`].
    #[inline(always)]
    unsafe fn any<L: Lanes>(&self) {
        let (s, row) = (self.shape, self.bands.padded.row_len());
        let last = s.out_w.saturating_sub(L::WIDTH);
        for y in 0..self.rows {
            for x in (0..s.out_w).step_by(L::WIDTH) {
                let x = x.min(last);
                // SAFETY: the weights have every tap, and the copy every row and column under the tile.
                unsafe {
                    let mut sums = [[L::splat(self.bias)]];
                    for tap in 0..s.taps() {
                        let (ky, kx) = (tap / s.kernel[1], tap % s.kernel[1]);
                        let line = (y * s.stride[0] + ky * s.dilation[0]) * row;
                        let from = self.copy.add(line + x + self.bands.padded.column(kx * s.dilation[1]));
                        sums[0][0] = L::load(from).mul_add(L::splat(*self.weights.add(tap)), sums[0][0]);
                    }
                    self.store(y, x, sums);
                }
            }
        }
    }

    /// Applies the part of the epilogue that is applied in registers, and stores the sums of `R` rows. If the plane
    /// continues after a row shorter than a register, the whole register is stored: the elements after the row are
    /// stored again later.
    ///
    /// # Safety
    /// As for [`run`]; the rows exist.
    #[inline(always)]
    unsafe fn store<L: Lanes, const R: usize>(&self, y: usize, x: usize, mut sums: [[L; R]; 1]) {
        let (width, plane) = (self.shape.out_w, self.shape.out_h * self.shape.out_w);
        self.in_registers.apply(&mut sums);
        let mut at = (self.first + y) * width + x;
        let whole = at + (R - 1) * width + L::WIDTH <= plane;
        for sum in sums[0] {
            // SAFETY: the plane has the elements that are written.
            unsafe {
                if whole || at + L::WIDTH <= plane {
                    sum.store(self.out.add(at));
                } else {
                    sum.store_first(self.out.add(at), width);
                }
            }
            at += width;
        }
    }
}
