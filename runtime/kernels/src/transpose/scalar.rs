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
    if m.rows == 0 {
        // Its first element may lie past the end.
        return;
    }
    for c in 0..m.columns {
        let from = x[m.from + c..].iter().step_by(m.from_stride);
        for (y, x) in y[m.to + c * m.to_stride..][..m.rows].iter_mut().zip(from) {
            *y = *x;
        }
    }
}
