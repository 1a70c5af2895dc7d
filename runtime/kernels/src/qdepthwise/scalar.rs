//! The reference: pixel by pixel and channel by channel, over the taps inside the image.

use super::weights_index;
use crate::conv::ConvShape;
use crate::qgemm::Packed;

/// Calls `finish` with the index, the sum and the scale (if there are scales) of every element of the output rows
/// `rows`.
pub(super) fn rows(
    shape: &ConvShape,
    input: &[u8],
    zero: u8,
    packed: Packed<'_>,
    rows: std::ops::Range<usize>,
    mut finish: impl FnMut(usize, i32, f32),
) {
    let (channels, zero) = (shape.out_c, i32::from(zero));
    for row in rows.clone() {
        let (image, y) = (row / shape.out_h, row % shape.out_h);
        for x in 0..shape.out_w {
            for channel in 0..channels {
                let mut sum = packed.offsets[channel];
                for ky in shape.valid_taps(0, y) {
                    let in_y = y * shape.stride[0] + ky * shape.dilation[0] - shape.pad_top;
                    for kx in shape.valid_taps(1, x) {
                        let in_x = x * shape.stride[1] + kx * shape.dilation[1] - shape.pad_left;
                        let byte = input[((image * shape.in_h + in_y) * shape.in_w + in_x) * channels + channel];
                        let weight = packed.weights[weights_index(shape, ky, kx, channel)];
                        sum = sum.wrapping_add((i32::from(byte) - zero) * i32::from(weight));
                    }
                }
                let at = ((row - rows.start) * shape.out_w + x) * channels + channel;
                finish(at, sum, packed.scales.get(channel).copied().unwrap_or_default());
            }
        }
    }
}
