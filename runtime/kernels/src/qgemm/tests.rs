//! Every variant of this CPU against loops that follow the definition: equal bit for bit, on shapes with remainders
//! everywhere.

use proptest::prelude::*;

use super::*;
use crate::conv::{ByteConv, ConvShape};
use crate::guard::{Edge, Guarded};
use crate::pace::Pace;
use crate::requantize::Requantize;
use crate::threads::Pool;

/// Bytes over the whole range, with frequent extremes.
pub(crate) fn bytes(seed: u32, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(2_654_435_761).wrapping_add(12345);
    let mut next = || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        state >> 8
    };
    (0..len)
        .map(|_| match next() % 8 {
            0 => 0,
            1 => 255,
            2 => 128,
            _ => (next() >> 4) as u8,
        })
        .collect()
}

pub(crate) fn signed(seed: u32, len: usize) -> Vec<i8> {
    bytes(seed, len).into_iter().map(|b| b as i8).collect()
}

/// The sums of a quantized convolution, NHWC.
pub(crate) fn sums(s: &ConvShape, x: &[u8], zero: u8, w: &[i8], bias: &[i32]) -> Vec<i32> {
    let (depth, filters) = (s.group_in(), s.group_out());
    let mut out = Vec::with_capacity(s.output_len());
    for pixel in 0..s.pixels() {
        let (line, ox) = (pixel / s.out_w, pixel % s.out_w);
        let (image, oy) = (line / s.out_h, line % s.out_h);
        for f in 0..s.out_c {
            let mut sum = bias[f];
            for ky in s.valid_taps(0, oy) {
                for kx in s.valid_taps(1, ox) {
                    let y = oy * s.stride[0] + ky * s.dilation[0] - s.pad_top;
                    let column = ox * s.stride[1] + kx * s.dilation[1] - s.pad_left;
                    for c in 0..depth {
                        let at = ((image * s.in_h + y) * s.in_w + column) * s.in_c + f / filters * depth + c;
                        let weight = w[((f * depth + c) * s.kernel[0] + ky) * s.kernel[1] + kx];
                        sum += (i32::from(x[at]) - i32::from(zero)) * i32::from(weight);
                    }
                }
            }
            out.push(sum);
        }
    }
    out
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(400))]

    #[test]
    fn convolutions_follow_the_definition(
        (batch, in_h, in_w) in (1usize..3, 1usize..14, 1usize..16),
        (groups, group_in, group_out) in (1usize..4, 1usize..36, 1usize..70),
        kernel in prop::array::uniform2(1usize..5), stride in prop::array::uniform2(1usize..3),
        dilation in prop::array::uniform2(1usize..3), pad in prop::array::uniform4(0usize..4),
        flags in 0u32..32, threads in 1usize..3, zero in any::<u8>(), out_zero in any::<u8>(),
    ) {
        let edge = Edge::BOTH[usize::from(flags & 8 > 0)];
        // Often a multiple of four channels, as in real networks: such inputs are read in place.
        let group_in = if flags & 16 > 0 { group_in.next_multiple_of(4) } else { group_in };
        let out = |len: usize, axis: usize, pads: usize| {
            (len + pads).checked_sub((kernel[axis] - 1) * dilation[axis] + 1).map(|free| free / stride[axis] + 1)
        };
        let (Some(out_h), Some(out_w)) = (out(in_h, 0, pad[0] + pad[1]), out(in_w, 1, pad[2] + pad[3])) else {
            return Ok(());
        };
        let shape = ConvShape {
            batch, in_h, in_w, in_c: groups * group_in, out_h, out_w, out_c: groups * group_out,
            kernel, stride, dilation, pad_top: pad[0], pad_left: pad[2], groups,
        };
        let x = Guarded::new(&bytes(1, shape.input_len()), edge);
        let w = signed(2, shape.out_c * group_in * shape.taps());
        let bias: Vec<i32> = bytes(3, shape.out_c).into_iter().map(|b| (i32::from(b) - 128) * 100).collect();
        let scales: Vec<f32> = bytes(4, shape.out_c).into_iter().map(|b| f32::from(b) * 2e-5 + 1e-4).collect();
        let by = match flags & 1 > 0 {
            true => Requantize { zero: out_zero, min: out_zero, max: out_zero.saturating_add(99) },
            false => Requantize::all(out_zero),
        };
        let table: [u8; 256] = std::array::from_fn(|i| (i as u8).wrapping_mul(7).wrapping_add(3));
        let table = (flags & 2 > 0).then_some(&table);
        let sums = sums(&shape, &x, zero, &w, &bias);
        let floats: Vec<f32> = sums.iter().enumerate().map(|(i, &s)| s as f32 * scales[i % shape.out_c]).collect();
        let want: Vec<u8> = floats.iter().map(|&v| {
            let byte = by.byte(v);
            table.map_or(byte, |t| t[usize::from(byte)])
        }).collect();
        let pool = Pool::new(threads);
        for v in VARIANTS.iter().filter(|v| v.is_available()) {
            let mut weights = Guarded::new(&vec![99i8; weights_len(v, &shape)], edge);
            let mut offsets = Guarded::new(&vec![99i32; offsets_len(v, &shape)], edge);
            let mut packed_scales = Guarded::new(&vec![f32::NAN; scales_len(v, &shape)], edge);
            pack(v, &shape, &w, zero, (&bias, &scales), (&mut weights, &mut offsets, &mut packed_scales));
            let packed = Packed { weights: &weights, offsets: &offsets, scales: &packed_scales };
            let mut scratch = Guarded::new(&vec![77u8; conv_scratch(v, &shape, threads).next_multiple_of(2)], edge);
            if flags & 4 > 0 {
                let mut got = Guarded::new(&vec![f32::NAN; shape.output_len()], edge);
                let args = ByteConv { shape: &shape, input: &x, zero, packed, out: Out::Floats(&mut got) };
                conv(v, args, &mut scratch, &pool);
                prop_assert_eq!(&got[..], &floats[..], "{}", v.name);
            } else {
                let mut got = Guarded::new(&vec![77u8; shape.output_len()], edge);
                let args = ByteConv { shape: &shape, input: &x, zero, packed, out: Out::Bytes { to: &mut got, by, table } };
                conv(v, args, &mut scratch, &pool);
                prop_assert_eq!(&got[..], &want[..], "{}", v.name);
            }
            let mut weight_sums = Guarded::new(&vec![99i32; offsets_len(v, &shape)], edge);
            pack_sums(v, &shape, &w, &mut weight_sums, &Pace::free());
            super::offsets(v, &weight_sums, zero, &mut offsets);
            let packed = Packed { weights: &weights, offsets: &offsets, scales: &[] };
            let mut got = Guarded::new(&vec![77i32; shape.output_len()], edge);
            let args = ByteConv { shape: &shape, input: &x, zero, packed, out: Out::Sums(&mut got) };
            conv(v, args, &mut scratch, &pool);
            prop_assert!(got.iter().enumerate().all(|(i, sum)| sum + bias[i % shape.out_c] == sums[i]), "{}", v.name);
        }
    }
}
