//! The loops of the depthwise convolution, generic over the registers.

use std::ops::Range;

use crate::activation::{self, Activation};
use crate::conv::ConvShape;
use crate::epilogue::Epilogue;
use crate::lanes::Lanes;

/// Some output rows of a convolution whose lengths were checked.
pub(super) struct Rows<'a> {
    pub shape: &'a ConvShape,
    /// Rows over all images.
    pub rows: Range<usize>,
    pub input: &'a [f32],
    pub packed: &'a [f32],
    /// First number of the whole output.
    pub out: *mut f32,
    pub epilogue: Epilogue<'a>,
}

/// AVX2: eight channels.
///
/// # Safety
/// The CPU has AVX2 and FMA; the slices are as long as the shape says.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx2,fma")]
pub(super) unsafe fn avx2(rows: &Rows<'_>) {
    // SAFETY: the caller's promise.
    unsafe { run::<crate::lanes::avx2::F32x8>(rows) }
}

/// AVX-512: sixteen channels.
///
/// # Safety
/// The CPU has AVX-512 F, BW, DQ and VL; the slices are as long as the shape says.
#[cfg(target_arch = "x86_64")]
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl")]
pub(super) unsafe fn avx512(rows: &Rows<'_>) {
    // SAFETY: the caller's promise.
    unsafe { run::<crate::lanes::avx512::F32x16>(rows) }
}

/// NEON: four channels.
///
/// # Safety
/// The CPU has NEON; the slices are as long as the shape says.
#[cfg(target_arch = "aarch64")]
#[target_feature(enable = "neon")]
pub(super) unsafe fn neon(rows: &Rows<'_>) {
    // SAFETY: the caller's promise.
    unsafe { run::<crate::lanes::neon::F32x4>(rows) }
}

/// The reference, number by number.
///
/// # Safety
/// The slices are as long as the shape says.
pub(super) unsafe fn scalar(args: &Rows<'_>) {
    let s = args.shape;
    for row in args.rows.clone() {
        let (image, y) = (row / s.out_h, row % s.out_h);
        for x in 0..s.out_w {
            let at = (row * s.out_w + x) * s.out_c;
            for c in 0..s.out_c {
                let mut sum = args.epilogue.bias.map_or(0.0, |b| b[c]);
                for ky in s.valid_taps(0, y) {
                    let in_y = y * s.stride[0] + ky * s.dilation[0] - s.pad_top;
                    for kx in s.valid_taps(1, x) {
                        let in_x = x * s.stride[1] + kx * s.dilation[1] - s.pad_left;
                        let pixel = (image * s.in_h + in_y) * s.in_w + in_x;
                        sum += args.input[pixel * s.in_c + c] * args.packed[(ky * s.kernel[1] + kx) * s.in_c + c];
                    }
                }
                let residual = args.epilogue.residual.map_or(0.0, |r| r[at + c]);
                let out = match args.epilogue.residual_first {
                    true => activation::scalar::apply(args.epilogue.activation, sum + residual),
                    false => activation::scalar::apply(args.epilogue.activation, sum) + residual,
                };
                // SAFETY: the output has this pixel and channel.
                unsafe { *args.out.add(at + c) = out };
            }
        }
    }
}

/// Rows, columns and channels; picks the tile for the kernel's width and stride.
///
/// # Safety
/// The CPU has the instructions of `L`, and the caller is compiled for them; the slices are as long as the shape says.
#[inline(always)]
unsafe fn run<L: Lanes>(args: &Rows<'_>) {
    let s = args.shape;
    // Output columns whose windows lie inside the input.
    let reach = (s.kernel[1] - 1) * s.dilation[1];
    let first = s.pad_left.div_ceil(s.stride[1]).min(s.out_w);
    let end = match (s.in_w + s.pad_left).checked_sub(reach + 1) {
        Some(last) => (last / s.stride[1] + 1).clamp(first, s.out_w),
        None => first,
    };
    for row in args.rows.clone() {
        let y = row % s.out_h;
        let taps_y = s.valid_taps(0, y);
        let mut channel = 0;
        while channel < s.in_c {
            let count = L::WIDTH.min(s.in_c - channel);
            let at = Strip { args, row, y, taps_y: taps_y.clone(), channel, count };
            // SAFETY: the caller's promise; columns from `first` to `end` have whole windows.
            unsafe {
                for x in (0..first).chain(end..s.out_w) {
                    at.single::<L>(x);
                }
                let done = match (s.kernel[1], s.stride[1], s.dilation[1], count == L::WIDTH) {
                    (3, 1, 1, true) => at.tiles::<L, 3, 1, 6>(first, end),
                    (3, 2, 1, true) => at.tiles::<L, 3, 2, 4>(first, end),
                    (5, 1, 1, true) => at.tiles::<L, 5, 1, 6>(first, end),
                    (5, 2, 1, true) => at.tiles::<L, 5, 2, 4>(first, end),
                    _ => first,
                };
                for x in done..end {
                    at.single::<L>(x);
                }
            }
            channel += count;
        }
    }
}

/// One register of channels of one output row.
struct Strip<'a, 'b> {
    args: &'a Rows<'b>,
    row: usize,
    y: usize,
    taps_y: Range<usize>,
    channel: usize,
    /// Channels of the register that exist.
    count: usize,
}

impl Strip<'_, '_> {
    /// Start of the input row under kernel row `ky`.
    #[inline(always)]
    fn input_row(&self, ky: usize) -> usize {
        let s = self.args.shape;
        let in_y = self.y * s.stride[0] + ky * s.dilation[0] - s.pad_top;
        (self.row / s.out_h * s.in_h + in_y) * s.in_w * s.in_c + self.channel
    }

    /// # Safety
    /// `from` is readable for `count` numbers.
    #[inline(always)]
    unsafe fn load<L: Lanes>(&self, from: *const f32) -> L {
        // SAFETY: the caller's promise.
        unsafe { if self.count == L::WIDTH { L::load(from) } else { L::load_first(from, self.count) } }
    }

    /// Computes whole tiles of `W` columns from `first` on; answers the first column not done.
    ///
    /// # Safety
    /// As for [`run`]; windows of columns `first..end` are inside, the kernel is `K` wide, the stride `S`, and all
    /// channels of the register exist.
    #[inline(always)]
    unsafe fn tiles<L: Lanes, const K: usize, const S: usize, const W: usize>(&self, first: usize, end: usize) -> usize {
        let s = self.args.shape;
        let mut x = first;
        while x + W <= end {
            // SAFETY: value instructions.
            let mut sums = [unsafe { self.bias::<L>() }; W];
            for ky in self.taps_y.clone() {
                // SAFETY: `ky` is a row inside the input, and the tile's windows are inside it.
                unsafe {
                    let row = self.args.input.as_ptr().add(self.input_row(ky) + (x * S - s.pad_left) * s.in_c);
                    let weights = self.args.packed.as_ptr().add(ky * K * s.in_c + self.channel);
                    let w: [L; K] = std::array::from_fn(|kx| L::load(weights.add(kx * s.in_c)));
                    for column in 0..(W - 1) * S + K {
                        let pixel = L::load(row.add(column * s.in_c));
                        for (p, sum) in sums.iter_mut().enumerate() {
                            if column >= p * S && column - p * S < K {
                                *sum = pixel.mul_add(w[column - p * S], *sum);
                            }
                        }
                    }
                }
            }
            // SAFETY: the tile's pixels are in the output.
            unsafe { self.finish(x, sums) };
            x += W;
        }
        x
    }

    /// Computes one column with any window.
    ///
    /// # Safety
    /// As for [`run`].
    #[inline(always)]
    unsafe fn single<L: Lanes>(&self, x: usize) {
        let s = self.args.shape;
        // SAFETY: value instructions.
        let mut sum = unsafe { self.bias::<L>() };
        for ky in self.taps_y.clone() {
            let row = self.input_row(ky);
            for kx in s.valid_taps(1, x) {
                let in_x = x * s.stride[1] + kx * s.dilation[1] - s.pad_left;
                // SAFETY: the tap lies inside the input; the weights hold it.
                unsafe {
                    let pixel = self.load::<L>(self.args.input.as_ptr().add(row + in_x * s.in_c));
                    let tap = (ky * s.kernel[1] + kx) * s.in_c + self.channel;
                    sum = pixel.mul_add(self.load(self.args.packed.as_ptr().add(tap)), sum);
                }
            }
        }
        // SAFETY: the pixel is in the output.
        unsafe { self.finish(x, [sum]) }
    }

    /// # Safety
    /// As for [`run`].
    #[inline(always)]
    unsafe fn bias<L: Lanes>(&self) -> L {
        // SAFETY: the bias has every channel.
        unsafe { self.args.epilogue.bias.map_or(L::splat(0.0), |b| self.load(b.as_ptr().add(self.channel))) }
    }

    /// Adds the residual, activates and stores `W` columns from `x`.
    ///
    /// # Safety
    /// As for [`run`]; the columns are in the output.
    #[inline(always)]
    unsafe fn finish<L: Lanes, const W: usize>(&self, x: usize, mut sums: [L; W]) {
        let (s, epilogue) = (self.args.shape, &self.args.epilogue);
        let at = |column: usize| (self.row * s.out_w + x + column) * s.out_c + self.channel;
        let add_residual = |sums: &mut [L; W]| {
            if let Some(residual) = epilogue.residual {
                for (column, sum) in sums.iter_mut().enumerate() {
                    // SAFETY: the residual has the output's pixels.
                    *sum = sum.add(unsafe { self.load(residual.as_ptr().add(at(column))) });
                }
            }
        };
        if epilogue.residual_first {
            add_residual(&mut sums);
        }
        match epilogue.activation {
            Activation::None => {}
            Activation::Relu => sums = sums.map(|x| x.at_least(x.like(0.0))),
            Activation::Clip { min, max } => sums = sums.map(|x| x.at_least(x.like(min)).at_most(x.like(max))),
            Activation::HardSwish => sums = sums.map(activation::vector::hard_swish),
            other => sums = sums.map(|x| activation::vector::apply(other, x)),
        }
        if !epilogue.residual_first {
            add_residual(&mut sums);
        }
        for (column, sum) in sums.into_iter().enumerate() {
            // SAFETY: the pixel is in the output, and `count` channels of it from here.
            unsafe {
                let to = self.args.out.add(at(column));
                if self.count == L::WIDTH { sum.store(to) } else { sum.store_first(to, self.count) }
            }
        }
    }
}
