//! Pooling in plain Rust.

use super::{PoolFn, Pooling};

/// Computes the pixels of an output row, counted over all images, from `first` on that fit in `y`.
pub(super) fn row(p: &Pooling, x: &[f32], (row, first): (usize, usize), y: &mut [f32]) {
    let channels = p.image.channels;
    let (n, rows) = (row / p.out[0], p.rows.at(row % p.out[0]));
    for (ow, y) in (first..).zip(y.chunks_exact_mut(channels)) {
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
