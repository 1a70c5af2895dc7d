//! Pooling in plain Rust.

use super::{PoolFn, Pooling};

/// Computes the output rows (counted over all images) starting at `first_row` that fit in `y`.
pub(super) fn rows(p: &Pooling, x: &[f32], first_row: usize, y: &mut [f32]) {
    let [out_h, out_w] = p.out;
    let channels = p.image.channels;
    for (row, y) in (first_row..).zip(y.chunks_exact_mut(out_w * channels)) {
        let (n, rows) = (row / out_h, p.rows.at(row % out_h));
        for (ow, y) in y.chunks_exact_mut(channels).enumerate() {
            let columns = p.columns.at(ow);
            for (c, y) in y.iter_mut().enumerate() {
                let at = |h, w| x[((n * p.image.height + h) * p.image.width + w) * channels + c];
                let window = rows.pixels().flat_map(|h| columns.pixels().map(move |w| at(h, w)));
                *y = match p.f {
                    PoolFn::Max => window.fold(f32::NEG_INFINITY, |max, x| if x.is_nan() || x > max { x } else { max }),
                    PoolFn::Average { .. } => window.sum::<f32>() * p.factor(rows, columns),
                };
            }
        }
    }
}
