//! Tiles of 8 x 8 words in AVX2 registers.

use core::arch::x86_64::*;

use super::{Matrix, scalar};

/// Transposes a matrix of elements of 4 bytes.
#[target_feature(enable = "avx2")]
pub(super) fn transpose(m: &Matrix, x: &[u8], y: &mut [u8]) {
    let (x, _) = x.as_chunks::<4>();
    let (y, _) = y.as_chunks_mut::<4>();
    for block in m.blocks() {
        for c in (0..block.columns / 8 * 8).step_by(8) {
            for r in (0..block.rows / 8 * 8).step_by(8) {
                tile(&block.part(r, c, 8, 8), x, y);
            }
        }
        for edge in block.edges(8) {
            scalar::elements(&edge, x, y);
        }
    }
}

/// Transposes 8 x 8 elements.
#[inline]
#[target_feature(enable = "avx2")]
fn tile(m: &Matrix, x: &[[u8; 4]], y: &mut [[u8; 4]]) {
    let row = |r: usize| load(&x[m.from + r * m.from_stride..][..8]);
    let rows = [row(0), row(1), row(2), row(3), row(4), row(5), row(6), row(7)];
    for (c, column) in transposed(rows).into_iter().enumerate() {
        store(column, &mut y[m.to + c * m.to_stride..][..8]);
    }
}

/// The columns of eight rows: interleaves pairs of rows, then pairs of pairs, then halves.
#[inline]
#[target_feature(enable = "avx2")]
fn transposed(rows: [__m256; 8]) -> [__m256; 8] {
    let [a, b, c, d, e, f, g, h] = rows;
    let (ab0, ab1) = (_mm256_unpacklo_ps(a, b), _mm256_unpackhi_ps(a, b));
    let (cd0, cd1) = (_mm256_unpacklo_ps(c, d), _mm256_unpackhi_ps(c, d));
    let (ef0, ef1) = (_mm256_unpacklo_ps(e, f), _mm256_unpackhi_ps(e, f));
    let (gh0, gh1) = (_mm256_unpacklo_ps(g, h), _mm256_unpackhi_ps(g, h));
    // Columns 0 and 4, 1 and 5, ... of four rows each.
    let upper = [
        _mm256_shuffle_ps::<0x44>(ab0, cd0),
        _mm256_shuffle_ps::<0xee>(ab0, cd0),
        _mm256_shuffle_ps::<0x44>(ab1, cd1),
        _mm256_shuffle_ps::<0xee>(ab1, cd1),
    ];
    let lower = [
        _mm256_shuffle_ps::<0x44>(ef0, gh0),
        _mm256_shuffle_ps::<0xee>(ef0, gh0),
        _mm256_shuffle_ps::<0x44>(ef1, gh1),
        _mm256_shuffle_ps::<0xee>(ef1, gh1),
    ];
    [
        _mm256_permute2f128_ps::<0x20>(upper[0], lower[0]),
        _mm256_permute2f128_ps::<0x20>(upper[1], lower[1]),
        _mm256_permute2f128_ps::<0x20>(upper[2], lower[2]),
        _mm256_permute2f128_ps::<0x20>(upper[3], lower[3]),
        _mm256_permute2f128_ps::<0x31>(upper[0], lower[0]),
        _mm256_permute2f128_ps::<0x31>(upper[1], lower[1]),
        _mm256_permute2f128_ps::<0x31>(upper[2], lower[2]),
        _mm256_permute2f128_ps::<0x31>(upper[3], lower[3]),
    ]
}

#[inline]
#[target_feature(enable = "avx2")]
fn load(x: &[[u8; 4]]) -> __m256 {
    assert!(x.len() >= 8);
    // SAFETY: eight elements of four bytes are readable; the load needs no alignment.
    unsafe { _mm256_loadu_ps(x.as_ptr().cast()) }
}

#[inline]
#[target_feature(enable = "avx2")]
fn store(v: __m256, y: &mut [[u8; 4]]) {
    assert!(y.len() >= 8);
    // SAFETY: eight elements of four bytes are writable; the store needs no alignment.
    unsafe { _mm256_storeu_ps(y.as_mut_ptr().cast(), v) }
}
