//! Quantized depthwise convolution over NHWC images: every channel has its own kernel.
//!
//! `out[y, x, c] = byte((sum over taps of (in[.., c] - zero) * w[tap, c] + bias[c]) * scale[c])`, or a float, or the
//! sum.
//!
//! As in [`qgemm`](crate::qgemm), the zero point is subtracted from the sum in advance, and taps in the padding point
//! to a row of zero points: every output is a sum over all taps, and one instruction multiplies several of them. Sums
//! are exact, so every variant gives the same bytes.

mod contract;
mod scalar;
mod tile;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod neon;
#[cfg(all(target_arch = "x86_64", feature = "avx512"))]
mod vnni;

use std::ops::Range;

use crate::conv::{ByteConv, ConvShape, product};
use crate::isa::{Extension, Isa};
use crate::pace::Pace;
use crate::parallel::{BYTES_WORTH_SHARING, split_rows};
use crate::qgemm::{Out, Packed};
use crate::requantize::Form;
use crate::threads::Pool;
pub(crate) use contract::FAMILY;
use tile::{MAX_TAPS, OutputRow, RowFn, Tap, block, channel_of};

/// A kernel of the family.
pub struct Variant {
    /// Name, as `inspect` prints it.
    pub name: &'static str,
    /// The instruction set it needs.
    pub isa: Isa,
    /// The extension it needs beyond that.
    pub extension: Extension,
    /// Widths of its blocks of channels, the widest first; empty for the reference.
    widths: &'static [usize],
    /// Taps that one instruction multiplies.
    group: usize,
    /// Subtracted from every activation by the kernel.
    shift: u8,
    /// `None` for the reference.
    kernel: Option<RowFn>,
}

/// The entries of the table: name, instruction set, extension, widths, taps per group, what is subtracted, kernel.
macro_rules! variants {
    ($($(#[$cfg:meta])* $name:literal $isa:ident $ext:ident $widths:expr, $group:literal less $shift:literal
        $kernel:expr;)*) => {
        &[$($(#[$cfg])* Variant {
            name: $name, isa: Isa::$isa, extension: Extension::$ext, widths: &$widths, group: $group, shift: $shift,
            kernel: $kernel,
        },)*]
    };
}

/// Every variant of this build, the most capable first; the last is the reference.
pub static VARIANTS: &[Variant] = variants! {
    #[cfg(all(target_arch = "x86_64", feature = "avx512"))]
    "qdepthwise_u8s8_64c_avx512vnni" Avx512 Vnni512 [64, 32, 16], 4 less 0 Some(vnni::kernel);
    #[cfg(target_arch = "x86_64")]
    "qdepthwise_u8s8_32c_avx2" Avx2 Base [32, 16], 2 less 0 Some(avx2::kernel);
    #[cfg(target_arch = "aarch64")]
    "qdepthwise_u8s8_16c_neoni8mm" Neon I8mm [16], 4 less 0 Some(neon::i8mm);
    #[cfg(target_arch = "aarch64")]
    "qdepthwise_u8s8_16c_neondot" Neon DotProd [16], 4 less 128 Some(neon::dot);
    #[cfg(target_arch = "aarch64")]
    "qdepthwise_u8s8_16c_neon" Neon Base [16], 1 less 0 Some(neon::plain);
    "qdepthwise_u8s8_scalar" Scalar Base [], 1 less 0 None;
};

impl Variant {
    /// Whether this CPU has its instructions.
    pub fn is_available(&self) -> bool {
        self.isa.is_available() && self.extension.is_available()
    }

    /// Whether it can compute the convolution: vectors need a block of channels, and only a few taps fit on the stack.
    pub fn takes(&self, shape: &ConvShape) -> bool {
        match self.widths.last() {
            Some(&narrowest) => shape.in_c >= narrowest && shape.taps().next_multiple_of(self.group) <= MAX_TAPS,
            None => true,
        }
    }

    /// First channel and width of every block.
    fn blocks(&self, channels: usize) -> impl Iterator<Item = (usize, usize)> {
        let mut done = 0;
        std::iter::from_fn(move || {
            let (first, width) = block(self.widths, channels, done)?;
            done = first + width;
            Some((first, width))
        })
    }

    /// The channel that each packed constant belongs to.
    fn channels(&self, channels: usize) -> impl Iterator<Item = usize> {
        let plain = if self.widths.is_empty() { channels } else { 0 };
        let in_block = |(first, width): (usize, usize)| (0..width).map(move |at| first + channel_of(at, width));
        (0..plain).chain(self.blocks(channels).flat_map(in_block))
    }

    /// Total channels of all blocks.
    fn packed_channels(&self, channels: usize) -> usize {
        if self.widths.is_empty() { channels } else { self.blocks(channels).map(|(_, width)| width).sum() }
    }
}

/// The best variant of `isa` on this CPU that supports the shape.
#[inline(never)]
pub fn choose(isa: Isa, shape: &ConvShape) -> &'static Variant {
    let best = VARIANTS.iter().find(|v| v.isa <= isa && v.is_available() && v.takes(shape));
    best.unwrap_or(&VARIANTS[VARIANTS.len() - 1])
}

/// The variant of this name.
pub fn by_name(name: &str) -> Option<&'static Variant> {
    VARIANTS.iter().find(|v| v.name == name)
}

/// Weights that [`pack`] writes.
#[inline(never)]
pub fn weights_len(v: &Variant, shape: &ConvShape) -> usize {
    product(&[v.packed_channels(shape.in_c), shape.taps().next_multiple_of(v.group)])
}

/// Offsets and scales that [`pack`] writes.
#[inline(never)]
pub fn constants_len(v: &Variant, shape: &ConvShape) -> usize {
    v.packed_channels(shape.in_c)
}

/// Index of a weight in the reference's packed layout, `[kernel_h, kernel_w, channels]`.
fn weights_index(shape: &ConvShape, ky: usize, kx: usize, channel: usize) -> usize {
    (ky * shape.kernel[1] + kx) * shape.in_c + channel
}

/// Packs the weights `[channels, 1, kernel_h, kernel_w]` and a bias and a scale for each channel, for activations with
/// zero point `zero`.
///
/// # Panics
/// If the lengths do not match `shape`.
#[inline(never)]
pub fn pack(
    v: &Variant,
    shape: &ConvShape,
    oihw: &[i8],
    zero: u8,
    (bias, scales): (&[i32], &[f32]),
    (to_weights, to_offsets, to_scales): (&mut [i8], &mut [i32], &mut [f32]),
) {
    assert!(bias.len() == shape.out_c && scales.len() == shape.out_c, "one bias and scale per channel");
    assert_eq!(to_scales.len(), constants_len(v, shape), "packed scale length");
    pack_weights(v, shape, oihw, to_weights, &Pace::free());
    pack_sums(v, shape, oihw, to_offsets, &Pace::free());
    for ((channel, offset), scale) in v.channels(shape.out_c).zip(to_offsets).zip(to_scales) {
        *offset = bias[channel].wrapping_add(self::offset(v, *offset, zero));
        *scale = scales[channel];
    }
}

/// Packs the weights `[channels, 1, kernel_h, kernel_w]`. Incomplete if the run is to stop.
///
/// # Panics
/// If the lengths do not match `shape`.
#[inline(never)]
pub fn pack_weights(v: &Variant, shape: &ConvShape, oihw: &[i8], to: &mut [i8], pace: &Pace<'_>) {
    let (taps, channels) = (shape.taps(), shape.out_c);
    assert_eq!(oihw.len(), product(&[taps, channels]), "weight length");
    assert_eq!(to.len(), weights_len(v, shape), "the packed weights");
    if v.widths.is_empty() {
        for (i, to) in to.iter_mut().enumerate() {
            if pace.stops(8) {
                return;
            }
            *to = oihw[i % channels * taps + i / channels];
        }
        return;
    }
    let mut to = to.iter_mut();
    for (first, width) in v.blocks(channels) {
        for group in 0..taps.div_ceil(v.group) {
            if pace.stops(8 * v.group * width) {
                return;
            }
            for lane in 0..width {
                let weights = &oihw[(first + channel_of(lane, width)) * taps..][..taps];
                for (tap, to) in (group * v.group..(group + 1) * v.group).zip(&mut to) {
                    *to = weights.get(tap).copied().unwrap_or(0);
                }
            }
        }
    }
}

/// Packs the sums of the weights, which [`offsets`] turns into packed offsets. Incomplete if the run is to stop.
///
/// # Panics
/// If the lengths do not match `shape`.
#[inline(never)]
pub fn pack_sums(v: &Variant, shape: &ConvShape, oihw: &[i8], to: &mut [i32], pace: &Pace<'_>) {
    let taps = shape.taps();
    assert_eq!(oihw.len(), product(&[taps, shape.out_c]), "weight length");
    assert_eq!(to.len(), constants_len(v, shape), "packed offset length");
    for (channel, to) in v.channels(shape.out_c).zip(to) {
        if pace.stops(8 + taps) {
            return;
        }
        *to = oihw[channel * taps..][..taps].iter().map(|&w| i32::from(w)).sum();
    }
}

/// Computes the packed offsets of a convolution without bias from its packed `sums`, for activations with zero point
/// `zero`.
///
/// # Panics
/// If the lengths differ.
#[inline(never)]
pub fn offsets(v: &Variant, sums: &[i32], zero: u8, to: &mut [i32]) {
    assert_eq!(sums.len(), to.len(), "an offset for each sum");
    for (to, &sum) in to.iter_mut().zip(sums) {
        *to = offset(v, sum, zero);
    }
}

/// The term that weights with this sum add to a sum of products because of the zero point of the activations. The
/// reference subtracts the zero point from every activation instead.
fn offset(v: &Variant, sum: i32, zero: u8) -> i32 {
    if v.widths.is_empty() { 0 } else { sum.wrapping_mul(i32::from(v.shift) - i32::from(zero)) }
}

/// Scratch size in bytes for [`depthwise`].
pub fn scratch_len(shape: &ConvShape) -> usize {
    shape.in_c
}

/// Multiply-adds of a large convolution.
const LARGE: usize = 16 * BYTES_WORTH_SHARING;

/// Computes a depthwise convolution.
///
/// # Panics
/// If the length of a slice does not match `shape`, the scratch is shorter than [`scratch_len`], or the CPU lacks the
/// variant's instructions.
#[inline(never)]
pub fn depthwise(v: &Variant, args: ByteConv<'_>, scratch: &mut [u8], pool: &Pool) {
    let ByteConv { shape, input, zero, packed, out } = args;
    shape.check();
    assert!(crate::depthwise::takes(shape) && v.takes(shape), "one filter per channel");
    assert!(v.is_available(), "this CPU does not have the instructions of {}", v.name);
    assert!(shape.taps() <= crate::qgemm::MAX_DEPTH, "too many weights per filter");
    assert_eq!(input.len(), shape.input_len(), "input length");
    assert_eq!(packed.weights.len(), weights_len(v, shape), "weight length");
    let constants = constants_len(v, shape);
    assert_eq!(packed.offsets.len(), constants, "packed offset length");
    assert!(matches!(out, Out::Sums(_)) || packed.scales.len() == constants, "packed scale length");
    let zeros = &mut scratch[..shape.in_c];
    zeros.fill(zero);
    let conv = CheckedConv { v, shape, input, zero, zeros, packed, pool };
    let row_len = [(shape.out_w * shape.out_c).max(1), shape.out_c.max(1)];
    let work = shape.output_len().saturating_mul(shape.taps());
    // `split_rows` counts elements moved; a multiply-add takes about a twentieth of the time of one. The pieces of a large
    // convolution, which all threads share in any case, are smaller.
    let work = match work {
        0..BYTES_WORTH_SHARING => 0,
        BYTES_WORTH_SHARING..LARGE => work / 20,
        _ => work / 8,
    };
    match out {
        Out::Bytes { to, by, table } => {
            assert_eq!(to.len(), shape.output_len(), "output length");
            split_rows(pool, to, row_len, work, |row, first, to| {
                conv.pixels((row, first), to, Form::Bytes(by), |sum, scale| by.byte(sum as f32 * scale));
                if let Some(table) = table {
                    to.iter_mut().for_each(|byte| *byte = table[usize::from(*byte)]);
                }
            });
        }
        Out::Floats(to) => {
            assert_eq!(to.len(), shape.output_len(), "output length");
            split_rows(pool, to, row_len, work, |row, first, to| {
                conv.pixels((row, first), to, Form::Floats, |sum, scale| sum as f32 * scale);
            });
        }
        Out::Sums(to) => {
            assert_eq!(to.len(), shape.output_len(), "output length");
            split_rows(pool, to, row_len, work, |row, first, to| {
                conv.pixels((row, first), to, Form::Sums, |sum, _| sum);
            });
        }
    }
}

/// A convolution whose slices have been checked against its shape.
struct CheckedConv<'a> {
    v: &'a Variant,
    shape: &'a ConvShape,
    input: &'a [u8],
    zero: u8,
    zeros: &'a [u8],
    packed: Packed<'a>,
    pool: &'a Pool,
}

impl CheckedConv<'_> {
    /// Computes the pixels `to` of an output row from `first` on, with the element type of `form`. The reference
    /// computes each element with `finish` from its sum and scale.
    fn pixels<T>(&self, (row, first): (usize, usize), to: &mut [T], form: Form, finish: impl Fn(i32, f32) -> T) {
        let columns = first..first + to.len() / self.shape.out_c;
        let Some(kernel) = self.v.kernel else {
            let conv = (self.shape, self.input, self.zero, self.packed);
            return scalar::row(conv, row, columns, &Pace::of(self.pool), |at, sum, scale| {
                to[at] = finish(sum, scale);
            });
        };
        self.row(kernel, row, columns, to.as_mut_ptr().cast(), form);
    }

    /// Computes some pixels of an output row, with the element type of `to`.
    fn row(&self, kernel: RowFn, row: usize, columns: Range<usize>, out: *mut u8, to: Form) {
        let s = self.shape;
        let (image, y) = (row / s.out_h, row % s.out_h);
        let zeros = self.zeros.as_ptr();
        let mut taps = [Tap { first: zeros, step: 0, column: 0 }; MAX_TAPS];
        let valid = s.valid_taps(0, y);
        for (index, tap) in taps.iter_mut().enumerate().take(s.taps()) {
            let (ky, kx) = (index / s.kernel[1], index % s.kernel[1]);
            if valid.contains(&ky) {
                let in_y = y * s.stride[0] + ky * s.dilation[0] - s.pad_top;
                let line = self.input[(image * s.in_h + in_y) * s.in_w * s.in_c..].as_ptr();
                let column = line.wrapping_add(kx * s.dilation[1] * s.in_c).wrapping_sub(s.pad_left * s.in_c);
                *tap = Tap { first: column, step: s.stride[1] * s.in_c, column: kx };
            }
        }
        let row = OutputRow {
            taps: &taps[..s.taps()],
            shape: s,
            columns,
            inner: inner(s),
            zeros,
            widths: self.v.widths,
            weights: self.packed.weights.as_ptr(),
            offsets: self.packed.offsets.as_ptr(),
            scales: self.packed.scales.as_ptr(),
            out,
            to,
        };
        // SAFETY: the CPU has the instructions. A tap is read only at pixels where it is inside the image: `valid`
        // guarantees this for its line, and `valid_taps` or `inner` for its column. The packed constants were checked
        // against the blocks, and these pixels of the output are borrowed exclusively, with the element type of `to`.
        unsafe { kernel(&row) }
    }
}

/// Output columns whose windows are inside the image horizontally.
fn inner(s: &ConvShape) -> Range<usize> {
    let reach = (s.kernel[1].max(1) - 1) * s.dilation[1];
    let end = (s.in_w + s.pad_left).checked_sub(reach).map_or(0, |room| room.div_ceil(s.stride[1]));
    s.pad_left.div_ceil(s.stride[1])..end.min(s.out_w)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::guard::{Edge, Guarded};
    use crate::qgemm::tests::{bytes, signed, sums};
    use crate::requantize::Requantize;

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn depthwise_follows_the_definition(
            (batch, in_h, in_w, channels) in (1usize..3, 1usize..12, 1usize..20, 1usize..150),
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
            let by = Requantize::all(out_zero);
            let table: [u8; 256] = std::array::from_fn(|i| (i as u8).wrapping_mul(7).wrapping_add(3));
            let table = (flags & 2 > 0).then_some(&table);
            let sums = sums(&shape, &x, zero, &w, &bias);
            let floats: Vec<f32> = sums.iter().enumerate().map(|(i, &s)| s as f32 * scales[i % channels]).collect();
            let want: Vec<u8> = floats.iter().map(|&v| {
                let byte = by.byte(v);
                table.map_or(byte, |t| t[usize::from(byte)])
            }).collect();
            let pool = Pool::new(threads);
            let mut scratch = Guarded::new(&vec![0u8; scratch_len(&shape)], edge);
            for v in VARIANTS.iter().filter(|v| v.is_available() && v.takes(&shape)) {
                let constants = constants_len(v, &shape);
                let mut weights = Guarded::new(&vec![0i8; weights_len(v, &shape)], edge);
                let mut offsets = Guarded::new(&vec![0i32; constants], edge);
                let mut multipliers = Guarded::new(&vec![0f32; constants], edge);
                let to: (&mut [i8], &mut [i32], &mut [f32]) = (&mut weights, &mut offsets, &mut multipliers);
                pack(v, &shape, &w, zero, (&bias, &scales), to);
                let mut bytes = Guarded::new(&vec![77u8; shape.output_len()], edge);
                let mut numbers = Guarded::new(&vec![f32::NAN; shape.output_len()], edge);
                let packed = Packed { weights: &weights, offsets: &offsets, scales: &multipliers };
                for out in [Out::Bytes { to: &mut bytes, by, table }, Out::Floats(&mut numbers)] {
                    let args = ByteConv { shape: &shape, input: &x, zero, packed, out };
                    depthwise(v, args, &mut scratch, &pool);
                }
                prop_assert_eq!(&bytes[..], &want[..], "{}", v.name);
                prop_assert_eq!(&numbers[..], &floats[..], "{}", v.name);
                let mut weight_sums = Guarded::new(&vec![0i32; constants], edge);
                pack_sums(v, &shape, &w, &mut weight_sums, &Pace::free());
                self::offsets(v, &weight_sums, zero, &mut offsets);
                let packed = Packed { weights: &weights, offsets: &offsets, scales: &[] };
                let mut got = Guarded::new(&vec![77i32; shape.output_len()], edge);
                let args = ByteConv { shape: &shape, input: &x, zero, packed, out: Out::Sums(&mut got) };
                depthwise(v, args, &mut scratch, &pool);
                prop_assert!(got.iter().enumerate().all(|(i, sum)| sum + bias[i % channels] == sums[i]), "{}", v.name);
            }
        }
    }
}
