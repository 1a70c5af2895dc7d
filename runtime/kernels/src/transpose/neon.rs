//! Tiles of 4 x 4 words in NEON registers.

use core::arch::aarch64::*;

use super::{Matrix, scalar};

/// Transposes a matrix of elements of 4 bytes.
#[target_feature(enable = "neon")]
pub(super) fn transpose(m: &Matrix, x: &[u8], y: &mut [u8]) {
    let (x, _) = x.as_chunks::<4>();
    let (y, _) = y.as_chunks_mut::<4>();
    for block in m.blocks() {
        for c in (0..block.columns / 4 * 4).step_by(4) {
            for r in (0..block.rows / 4 * 4).step_by(4) {
                tile(&block.part(r, c, 4, 4), x, y);
            }
        }
        for edge in block.edges(4) {
            scalar::elements(&edge, x, y);
        }
    }
}

/// Transposes 4 x 4 elements.
#[inline]
#[target_feature(enable = "neon")]
fn tile(m: &Matrix, x: &[[u8; 4]], y: &mut [[u8; 4]]) {
    let row = |r: usize| load(&x[m.from + r * m.from_stride..][..4]);
    let columns = transposed([row(0), row(1), row(2), row(3)]);
    for (c, column) in columns.into_iter().enumerate() {
        store(column, &mut y[m.to + c * m.to_stride..][..4]);
    }
}

/// The columns of four rows: interleaves pairs of rows, then pairs of pairs.
#[inline]
#[target_feature(enable = "neon")]
fn transposed([a, b, c, d]: [uint32x4_t; 4]) -> [uint32x4_t; 4] {
    let pairs = |v| vreinterpretq_u64_u32(v);
    let words = |v| vreinterpretq_u32_u64(v);
    // Columns 0 and 2, and columns 1 and 3, of two rows each.
    let (ab02, ab13) = (pairs(vtrn1q_u32(a, b)), pairs(vtrn2q_u32(a, b)));
    let (cd02, cd13) = (pairs(vtrn1q_u32(c, d)), pairs(vtrn2q_u32(c, d)));
    [
        words(vtrn1q_u64(ab02, cd02)),
        words(vtrn1q_u64(ab13, cd13)),
        words(vtrn2q_u64(ab02, cd02)),
        words(vtrn2q_u64(ab13, cd13)),
    ]
}

#[inline]
#[target_feature(enable = "neon")]
fn load(x: &[[u8; 4]]) -> uint32x4_t {
    assert!(x.len() >= 4);
    // SAFETY: four elements of four bytes are readable; a load of bytes needs no alignment.
    vreinterpretq_u32_u8(unsafe { vld1q_u8(x.as_ptr().cast()) })
}

#[inline]
#[target_feature(enable = "neon")]
fn store(v: uint32x4_t, y: &mut [[u8; 4]]) {
    assert!(y.len() >= 4);
    // SAFETY: four elements of four bytes are writable; a store of bytes needs no alignment.
    unsafe { vst1q_u8(y.as_mut_ptr().cast(), vreinterpretq_u8_u32(v)) }
}
