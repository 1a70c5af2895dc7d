//! Element by element, in blocks.

use super::Matrix;

/// Transposes a matrix of elements of `SIZE` bytes.
pub(super) fn transpose<const SIZE: usize>(m: &Matrix, x: &[u8], y: &mut [u8]) {
    let (x, _) = x.as_chunks::<SIZE>();
    let (y, _) = y.as_chunks_mut::<SIZE>();
    for block in m.blocks() {
        elements(&block, x, y);
    }
}

/// Transposes a small matrix.
#[inline]
pub(super) fn elements<const SIZE: usize>(m: &Matrix, x: &[[u8; SIZE]], y: &mut [[u8; SIZE]]) {
    match m.rows {
        // An empty matrix may start past the end of the slice.
        0 => {}
        // Interleaving the planes of an image.
        1 => few_rows::<SIZE, 1>(m, x, y),
        2 => few_rows::<SIZE, 2>(m, x, y),
        3 => few_rows::<SIZE, 3>(m, x, y),
        4 => few_rows::<SIZE, 4>(m, x, y),
        _ => {
            for c in 0..m.columns {
                let from = x[m.from + c..].iter().step_by(m.from_stride);
                for (y, x) in y[m.to + c * m.to_stride..][..m.rows].iter_mut().zip(from) {
                    *y = *x;
                }
            }
        }
    }
}

/// Transposes a matrix of `ROWS` rows, reading all rows at once.
#[inline]
fn few_rows<const SIZE: usize, const ROWS: usize>(m: &Matrix, x: &[[u8; SIZE]], y: &mut [[u8; SIZE]]) {
    if m.columns == 0 {
        return;
    }
    let rows: [&[[u8; SIZE]]; ROWS] = std::array::from_fn(|r| &x[m.from + r * m.from_stride..][..m.columns]);
    for (c, y) in y[m.to..].chunks_mut(m.to_stride).take(m.columns).enumerate() {
        for (y, row) in y[..ROWS].iter_mut().zip(rows) {
            *y = row[c];
        }
    }
}
