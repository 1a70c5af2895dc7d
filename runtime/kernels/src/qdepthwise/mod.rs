//! Quantised depthwise convolution over NHWC images: every channel has a kernel of its own.
//!
//! `out[y, x, c] = byte((sum over taps of (in[.., c] - zero) * w[tap, c] + bias[c]) * scale[c])`, or the float.
//!
//! A difference of bytes times a signed byte fits 16 bits, so products cost half a register; the sums have 32. Channels
//! lie in the lanes, and the loop is plain Rust, compiled for each instruction set.

use std::ops::Range;

use crate::conv::ConvShape;
use crate::isa::Isa;
use crate::qgemm::Out;
use crate::simd::{Kernel, Simd, dispatch};
use crate::threads::Pool;

/// A kernel of the family.
pub struct Variant {
    /// Name, as `inspect` prints it.
    pub name: &'static str,
    /// Instruction set it needs.
    pub isa: Isa,
}

/// Every variant of this build.
pub static VARIANTS: &[Variant] = &[
    #[cfg(target_arch = "x86_64")]
    Variant { name: "qdepthwise_u8s8_avx512", isa: Isa::Avx512 },
    #[cfg(target_arch = "x86_64")]
    Variant { name: "qdepthwise_u8s8_avx2", isa: Isa::Avx2 },
    #[cfg(target_arch = "aarch64")]
    Variant { name: "qdepthwise_u8s8_neon", isa: Isa::Neon },
    Variant { name: "qdepthwise_u8s8_scalar", isa: Isa::Scalar },
];

/// The variant of `isa`.
pub fn choose(isa: Isa) -> &'static Variant {
    VARIANTS.iter().find(|v| v.isa == isa).unwrap_or(&VARIANTS[VARIANTS.len() - 1])
}

/// The variant of this name.
pub fn by_name(name: &str) -> Option<&'static Variant> {
    VARIANTS.iter().find(|v| v.name == name)
}

/// Packs the weights `[channels, 1, kernel_h, kernel_w]` as `[kernel_h, kernel_w, channels]`.
///
/// # Panics
/// If the lengths are not those of `shape`.
pub fn pack(shape: &ConvShape, oihw: &[i8], out: &mut [i8]) {
    let (taps, channels) = (shape.taps(), shape.out_c);
    assert!(oihw.len() == taps * channels && out.len() == oihw.len());
    for (i, to) in out.iter_mut().enumerate() {
        *to = oihw[i % channels * taps + i / channels];
    }
}

/// A quantised depthwise convolution.
pub struct Depthwise<'a> {
    /// Its geometry: as many groups and filters as channels.
    pub shape: &'a ConvShape,
    /// NHWC.
    pub input: &'a [u8],
    /// The byte that stands for 0 in the input.
    pub zero: u8,
    /// Weights from [`pack`].
    pub weights: &'a [i8],
    /// One for each channel.
    pub bias: &'a [i32],
    /// What the sum of each channel is multiplied by.
    pub scales: &'a [f32],
    /// Where to, and as what.
    pub out: Out<'a>,
}

/// Multiply-adds below which a second thread does not pay.
const WORTH_SHARING: usize = 200_000;
/// Channels that are computed at once.
const BLOCK: usize = 32;

/// Computes a depthwise convolution.
///
/// # Panics
/// If a slice is not as long as `shape` says, or the CPU lacks the variant's instructions.
pub fn depthwise(v: &Variant, args: Depthwise<'_>, pool: &Pool) {
    let Depthwise { shape, input, zero, weights, bias, scales, out } = args;
    shape.check();
    assert!(crate::depthwise::takes(shape), "one filter per channel");
    assert!(shape.taps() <= crate::qgemm::MAX_DEPTH, "filters of too many weights");
    assert_eq!(input.len(), shape.input_len(), "the input");
    assert_eq!(weights.len(), shape.taps() * shape.in_c, "the weights");
    assert!(bias.len() == shape.out_c && scales.len() == shape.out_c, "one bias and scale per channel");
    let sums = Sums { shape, input, zero, weights, bias, scales };
    let row_len = shape.out_w * shape.out_c;
    let work = shape.output_len().saturating_mul(shape.taps());
    // `split` counts numbers moved; a multiply-add is about a sixth of one.
    let work = if work < WORTH_SHARING { 0 } else { work / 6 };
    match out {
        Out::Bytes { to, by, table } => {
            assert_eq!(to.len(), shape.output_len(), "the output");
            crate::parallel::split(pool, to, row_len.max(1), work, |offset, to| {
                v.rows(
                    &sums,
                    offset,
                    to,
                    #[inline(always)]
                    |value| by.byte(value),
                );
                if let Some(table) = table {
                    to.iter_mut().for_each(|byte| *byte = table[usize::from(*byte)]);
                }
            });
        }
        Out::Floats(to) => {
            assert_eq!(to.len(), shape.output_len(), "the output");
            crate::parallel::split(pool, to, row_len.max(1), work, |offset, to| {
                v.rows(
                    &sums,
                    offset,
                    to,
                    #[inline(always)]
                    |value| value,
                )
            });
        }
    }
}

impl Variant {
    /// Computes the rows of `to`, which begin at `offset` of the output.
    fn rows<T>(&self, sums: &Sums<'_>, offset: usize, to: &mut [T], finish: impl Fn(f32) -> T) {
        let rows = Rows { sums, offset, to, finish };
        match self.isa {
            Isa::Scalar => rows.plain(),
            isa => dispatch(isa, rows),
        }
    }
}

/// A convolution whose slices were checked.
struct Sums<'a> {
    shape: &'a ConvShape,
    input: &'a [u8],
    zero: u8,
    weights: &'a [i8],
    bias: &'a [i32],
    scales: &'a [f32],
}

struct Rows<'a, T, F> {
    sums: &'a Sums<'a>,
    offset: usize,
    to: &'a mut [T],
    finish: F,
}

impl<T, F: Fn(f32) -> T> Kernel for Rows<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        self.plain();
    }
}

impl<T, F: Fn(f32) -> T> Rows<'_, T, F> {
    #[inline(always)]
    fn plain(self) {
        let Rows { sums, offset, to, finish } = self;
        let s = sums.shape;
        let (channels, row_len) = (s.out_c, s.out_w * s.out_c);
        for (row, to) in (offset / row_len.max(1)..).zip(to.chunks_exact_mut(row_len.max(1))) {
            let (image, y) = (row / s.out_h, row % s.out_h);
            let taps_y = s.valid_taps(0, y);
            for (x, to) in to.chunks_exact_mut(channels).enumerate() {
                let window = Window { image, y, x, taps_y: taps_y.clone(), taps_x: s.valid_taps(1, x) };
                let mut first = 0;
                while first + BLOCK <= channels {
                    sums.block::<T, BLOCK>(&window, first, &mut to[first..first + BLOCK], &finish);
                    first += BLOCK;
                }
                // What is left, by eights and ones.
                while first + 8 <= channels {
                    sums.block::<T, 8>(&window, first, &mut to[first..first + 8], &finish);
                    first += 8;
                }
                while first < channels {
                    sums.block::<T, 1>(&window, first, &mut to[first..first + 1], &finish);
                    first += 1;
                }
            }
        }
    }
}

/// An output pixel and the taps above it that meet the image.
struct Window {
    image: usize,
    y: usize,
    x: usize,
    taps_y: Range<usize>,
    taps_x: Range<usize>,
}

impl Sums<'_> {
    /// Computes `N` channels of a pixel from the channel `first` on.
    #[inline(always)]
    fn block<T, const N: usize>(&self, at: &Window, first: usize, to: &mut [T], finish: &impl Fn(f32) -> T) {
        let s = self.shape;
        let zero = i16::from(self.zero);
        let mut sums = [0i32; N];
        for ky in at.taps_y.clone() {
            let in_y = at.y * s.stride[0] + ky * s.dilation[0] - s.pad_top;
            for kx in at.taps_x.clone() {
                let in_x = at.x * s.stride[1] + kx * s.dilation[1] - s.pad_left;
                let pixel = ((at.image * s.in_h + in_y) * s.in_w + in_x) * s.in_c + first;
                let tap = (ky * s.kernel[1] + kx) * s.in_c + first;
                let (x, w) = (&self.input[pixel..pixel + N], &self.weights[tap..tap + N]);
                for ((sum, &x), &w) in sums.iter_mut().zip(x).zip(w) {
                    // At most 255 * 128: no overflow.
                    *sum += i32::from((i16::from(x) - zero).wrapping_mul(i16::from(w)));
                }
            }
        }
        let (bias, scales) = (&self.bias[first..first + N], &self.scales[first..first + N]);
        for (((to, sum), bias), scale) in to.iter_mut().zip(&sums).zip(bias).zip(scales) {
            *to = finish(sum.wrapping_add(*bias) as f32 * scale);
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::guard::{Edge, Guarded};
    use crate::qgemm::tests::{bytes, signed, sums};
    use crate::requantise::Requantise;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn depthwise_follows_the_definition(
            (batch, in_h, in_w, channels) in (1usize..3, 1usize..12, 1usize..20, 1usize..80),
            kernel in prop::array::uniform2(1usize..6), stride in prop::array::uniform2(1usize..3),
            dilation in prop::array::uniform2(1usize..3), pad in prop::array::uniform4(0usize..4),
            flags in 0u32..16, threads in 1usize..3, zero in any::<u8>(), out_zero in any::<u8>(),
        ) {
            let edge = Edge::BOTH[usize::from(flags & 8 > 0)];
            let out = |len: usize, axis: usize, pads: usize| {
                (len + pads).checked_sub((kernel[axis] - 1) * dilation[axis] + 1).map(|free| free / stride[axis] + 1)
            };
            let (Some(out_h), Some(out_w)) = (out(in_h, 0, pad[0] + pad[1]), out(in_w, 1, pad[2] + pad[3])) else {
                return Ok(());
            };
            let shape = ConvShape {
                batch, in_h, in_w, in_c: channels, out_h, out_w, out_c: channels,
                kernel, stride, dilation, pad_top: pad[0], pad_left: pad[2], groups: channels,
            };
            let x = Guarded::new(&bytes(1, shape.input_len()), edge);
            let w = signed(2, channels * shape.taps());
            let bias: Vec<i32> = bytes(3, channels).into_iter().map(|b| (i32::from(b) - 128) * 10).collect();
            let scales: Vec<f32> = bytes(4, channels).into_iter().map(|b| f32::from(b) * 1e-4 + 1e-3).collect();
            let by = Requantise::all(out_zero);
            let table: [u8; 256] = std::array::from_fn(|i| (i as u8).wrapping_mul(7).wrapping_add(3));
            let table = (flags & 2 > 0).then_some(&table);
            let sums = sums(&shape, &x, zero, &w, &bias);
            let floats: Vec<f32> = sums.iter().enumerate().map(|(i, &s)| s as f32 * scales[i % channels]).collect();
            let want: Vec<u8> = floats.iter().map(|&v| {
                let byte = by.byte(v);
                table.map_or(byte, |t| t[usize::from(byte)])
            }).collect();
            let mut weights = Guarded::new(&vec![0i8; w.len()], edge);
            pack(&shape, &w, &mut weights);
            let pool = Pool::new(threads);
            for v in VARIANTS.iter().filter(|v| v.isa.is_available()) {
                let mut bytes = Guarded::new(&vec![77u8; shape.output_len()], edge);
                let mut numbers = Guarded::new(&vec![f32::NAN; shape.output_len()], edge);
                for is_bytes in [true, false] {
                    let out = match is_bytes {
                        true => Out::Bytes { to: &mut bytes, by, table },
                        false => Out::Floats(&mut numbers),
                    };
                    let (weights, bias, scales) = (&*weights, &*bias, &*scales);
                    let args = Depthwise { shape: &shape, input: &x, zero, weights, bias, scales, out };
                    depthwise(v, args, &pool);
                }
                prop_assert_eq!(&bytes[..], &want[..], "{}", v.name);
                prop_assert_eq!(&numbers[..], &floats[..], "{}", v.name);
            }
        }
    }
}
