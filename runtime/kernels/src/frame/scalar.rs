//! The formulas, element by element.

use super::tile::Job;
use super::{ChannelOrder, Course, FrameRows};

/// Like [`super::down`].
pub(super) fn down(rows: FrameRows<'_>, weights: &[i16], shift: u32, line: &mut [i16]) {
    columns(rows, weights, shift, 0, line);
}

/// Computes the elements of a line starting at `start`.
pub(super) fn columns(rows: FrameRows<'_>, weights: &[i16], shift: u32, start: usize, line: &mut [i16]) {
    for (x, to) in line.iter_mut().enumerate().skip(start) {
        let column = rows.bytes[x..].iter().step_by(rows.stride.max(1));
        let sum: i32 = weights.iter().zip(column).map(|(&w, &byte)| i32::from(w) * i32::from(byte)).sum();
        *to = i16::try_from((sum + (1 << (shift - 1))) >> shift).unwrap_or(i16::MAX);
    }
}

/// Like [`super::across`], after its checks.
pub(super) fn across<const J: usize>(job: &Job<'_, J>, out: &mut [f32]) {
    let outputs = job.inputs[0].taps.outputs();
    for line in 0..job.course.lines() {
        for output in 0..outputs {
            let sums = job.inputs.map(|input| {
                let (first, weights) = input.taps.output(output);
                let numbers = &input.lines[line * input.stride + first..];
                let products = weights.iter().zip(numbers).map(|(&w, &n)| i32::from(w) * i32::from(n));
                products.fold(0i32, i32::wrapping_add) as f32
            });
            let pixel = match job.course {
                Course::Along => job.at + output,
                Course::Beside { step, .. } => job.at + output * step + line,
            };
            put(job, sums, pixel, out);
        }
    }
}

/// Computes the channels of a pixel and writes them.
fn put<const J: usize>(job: &Job<'_, J>, sums: [f32; J], pixel: usize, out: &mut [f32]) {
    let color = job.color;
    let channels: [f32; 3] = std::array::from_fn(|c| {
        let value = sums.iter().zip(color.matrix[c]).fold(color.bias[c], |value, (sum, by)| sum.mul_add(by, value));
        value.max(color.low[c]).min(color.high[c])
    });
    if let Some([r, g, b, constant]) = color.gray {
        out[pixel] = channels[2].mul_add(b, channels[1].mul_add(g, channels[0].mul_add(r, constant)));
        return;
    }
    let pixels = out.len() / 3;
    for (c, channel) in channels.into_iter().enumerate() {
        match job.layout {
            ChannelOrder::Planar => out[c * pixels + pixel] = channel,
            ChannelOrder::Interleaved => out[pixel * 3 + c] = channel,
        }
    }
}
