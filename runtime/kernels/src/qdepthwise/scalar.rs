//! The reference: pixel by pixel and channel by channel, over the taps inside the image.

use std::ops::Range;

use super::weights_index;
use crate::conv::ConvShape;
use crate::pace::Pace;
use crate::qgemm::Packed;

/// Calls `finish` with the index, the sum and the scale (if there are scales) of every element of some pixels of an
/// output row.
pub(super) fn row(
    (shape, input, zero, packed): (&ConvShape, &[u8], u8, Packed<'_>),
    row: usize,
    columns: Range<usize>,
    pace: &Pace<'_>,
    mut finish: impl FnMut(usize, i32, f32),
) {
    let (channels, zero) = (shape.out_c, i32::from(zero));
    let (image, y) = (row / shape.out_h, row % shape.out_h);
    for x in columns.clone() {
        for channel in 0..channels {
            if pace.stops(4 * shape.taps()) {
                return;
            }
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
            let at = (x - columns.start) * channels + channel;
            finish(at, sum, packed.scales.get(channel).copied().unwrap_or_default());
        }
    }
}
