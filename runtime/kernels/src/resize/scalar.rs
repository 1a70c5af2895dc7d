//! Interpolation in plain Rust.

use super::RowPair;

pub(super) fn linear_row(row: &RowPair, y: &mut [f32]) {
    let channels = row.channels;
    for (ow, y) in (row.first..).zip(y.chunks_exact_mut(channels)) {
        let (left, right, frac) = row.columns.at(ow);
        let pixel = |line: &'_ [f32], w: usize, c: usize| line[w * channels + c];
        for (c, y) in y.iter_mut().enumerate() {
            let above = lerp(pixel(row.above, left, c), pixel(row.above, right, c), frac);
            let below = lerp(pixel(row.below, left, c), pixel(row.below, right, c), frac);
            *y = lerp(above, below, row.frac);
        }
    }
}

fn lerp(a: f32, b: f32, f: f32) -> f32 {
    a + f * (b - a)
}
