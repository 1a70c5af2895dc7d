//! Sixteen products of 16 bits in one instruction, summed in pairs to 32 bits.

use core::arch::x86_64::*;

use super::tile::{self, Job, MOST, Sums};
use super::{Across, Rows, scalar};
use crate::lanes::avx2::F32x8;

/// Columns that are summed at once.
const COLUMNS: usize = 32;

/// As [`super::down`].
///
/// # Safety
/// `rows` has a row for each weight, as long as `line`; there is a weight; the CPU has AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn down(rows: Rows<'_>, weights: &[i16], shift: u32, line: &mut [i16]) {
    let Some(last) = line.len().checked_sub(COLUMNS) else {
        return scalar::columns(rows, weights, shift, 0, line);
    };
    let mut x = 0;
    loop {
        // SAFETY: `x + COLUMNS` is at most the length of the line and so of every row.
        unsafe { strip(rows.bytes.as_ptr().add(x), rows.stride, weights, shift, line.as_mut_ptr().add(x)) };
        if x == last {
            break;
        }
        // The last strip may overlap the one before.
        x = (x + COLUMNS).min(last);
    }
}

/// The sums of `COLUMNS` columns.
///
/// # Safety
/// From `bytes` on, each weight has a row of `COLUMNS` bytes; `to` is writable for `COLUMNS` numbers.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn strip(bytes: *const u8, stride: usize, weights: &[i16], shift: u32, to: *mut i16) {
    let half = _mm256_set1_epi32(1 << (shift - 1));
    let mut sums = [half; 4];
    let (pairs, single) = weights.as_chunks::<2>();
    for (i, &[w0, w1]) in pairs.iter().enumerate() {
        // SAFETY: rows 2i and 2i + 1 have a weight each.
        let (a, b) = unsafe {
            let row = bytes.add(2 * i * stride);
            (_mm256_loadu_si256(row.cast()), _mm256_loadu_si256(row.add(stride).cast()))
        };
        add_products(&mut sums, a, b, pair(w0, w1));
    }
    if let &[w] = single {
        // SAFETY: the last row has a weight.
        let a = unsafe { _mm256_loadu_si256(bytes.add((weights.len() - 1) * stride).cast()) };
        add_products(&mut sums, a, _mm256_setzero_si256(), pair(w, 0));
    }
    let count = _mm_cvtsi32_si128(shift as i32);
    let [a, b, c, d] = sums.map(|sum| _mm256_sra_epi32(sum, count));
    // Each half of a register holds columns of its half of the strip.
    let (ab, cd) = (_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    // SAFETY: 32 numbers are writable.
    unsafe {
        _mm256_storeu_si256(to.cast(), _mm256_permute2x128_si256::<0x20>(ab, cd));
        _mm256_storeu_si256(to.add(16).cast(), _mm256_permute2x128_si256::<0x31>(ab, cd));
    }
}

/// Two weights side by side, in every lane.
#[inline]
#[target_feature(enable = "avx2")]
fn pair(w0: i16, w1: i16) -> __m256i {
    _mm256_set1_epi32(i32::from(w0) | i32::from(w1) << 16)
}

/// Adds `a * w0 + b * w1` of 32 columns, four by four of each half.
#[inline]
#[target_feature(enable = "avx2")]
fn add_products(sums: &mut [__m256i; 4], a: __m256i, b: __m256i, weights: __m256i) {
    let zero = _mm256_setzero_si256();
    let (low, high) = (_mm256_unpacklo_epi8(a, b), _mm256_unpackhi_epi8(a, b));
    let words = [
        _mm256_unpacklo_epi8(low, zero),
        _mm256_unpackhi_epi8(low, zero),
        _mm256_unpacklo_epi8(high, zero),
        _mm256_unpackhi_epi8(high, zero),
    ];
    for (sum, words) in sums.iter_mut().zip(words) {
        *sum = _mm256_add_epi32(*sum, _mm256_madd_epi16(words, weights));
    }
}

/// As [`super::across`].
///
/// # Safety
/// Its checks have been made; the CPU has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn across<const J: usize>(job: &Job<'_, J>, out: &mut [f32]) {
    // SAFETY: the caller's promise; the instruction set is enabled here.
    unsafe { tile::across::<F32x8, J>(job, out) }
}

impl Sums for F32x8 {
    #[inline(always)]
    unsafe fn sums(numbers: &[*const i16; MOST], weights: &[*const i16; MOST], count: usize) -> Self {
        // SAFETY: `count` numbers are readable everywhere, in blocks of 16; the caller has AVX2.
        unsafe {
            let mut sums = [_mm256_setzero_si256(); 8];
            for i in 0..8 {
                sums[i] = product(numbers[i], weights[i]);
                let mut t = Across::BLOCK;
                while t < count {
                    sums[i] = _mm256_add_epi32(sums[i], product(numbers[i].add(t), weights[i].add(t)));
                    t += Across::BLOCK;
                }
            }
            let [a, b, c, d, e, f, g, h] = sums;
            let low = _mm256_hadd_epi32(_mm256_hadd_epi32(a, b), _mm256_hadd_epi32(c, d));
            let high = _mm256_hadd_epi32(_mm256_hadd_epi32(e, f), _mm256_hadd_epi32(g, h));
            let halves = (_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high));
            F32x8(_mm256_cvtepi32_ps(_mm256_add_epi32(halves.0, halves.1)))
        }
    }
}

/// Sixteen products, summed in pairs.
///
/// # Safety
/// Sixteen numbers are readable at both; the caller has AVX2.
#[inline(always)]
unsafe fn product(numbers: *const i16, weights: *const i16) -> __m256i {
    // SAFETY: the caller's promise.
    unsafe { _mm256_madd_epi16(_mm256_loadu_si256(numbers.cast()), _mm256_loadu_si256(weights.cast())) }
}
