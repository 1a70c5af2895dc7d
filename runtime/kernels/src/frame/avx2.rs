//! Camera frames with AVX2: sixteen products of 16 bits per instruction, summed in pairs to 32 bits.

use core::arch::x86_64::*;

use super::tile::{self, Job, MOST, Sums};
use super::{Across, FrameRows, scalar};
use crate::lanes::avx2::F32x8;

/// Columns that are summed at once: a cache line of bytes, whose sums take half of the registers.
const COLUMNS: usize = 64;

/// Like [`super::down`].
///
/// # Safety
/// `rows` has a row for each weight, as long as `line`; there is at least one weight; the CPU has AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn down(rows: FrameRows<'_>, weights: &[i16], shift: u32, line: &mut [i16]) {
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

/// Sums of `COLUMNS` columns.
///
/// # Safety
/// `bytes` points to a row of `COLUMNS` bytes per weight; `to` is writable for `COLUMNS` elements.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn strip(bytes: *const u8, stride: usize, weights: &[i16], shift: u32, to: *mut i16) {
    let half = _mm256_set1_epi32(1 << (shift - 1));
    let (mut left, mut right) = ([half; 4], [half; 4]);
    let (pairs, single) = weights.as_chunks::<2>();
    let mut row = bytes;
    for pair in pairs {
        // SAFETY: this row and the next each have a weight; a pair of weights has the size of an i32.
        unsafe {
            let weights = _mm256_set1_epi32(pair.as_ptr().cast::<i32>().read_unaligned());
            let next = row.add(stride);
            add_products(&mut left, load(row), load(next), weights);
            add_products(&mut right, load(row.add(32)), load(next.add(32)), weights);
            row = row.wrapping_add(2 * stride);
        }
    }
    if let &[weight] = single {
        let (weights, zero) = (_mm256_set1_epi32(weight.into()), _mm256_setzero_si256());
        // SAFETY: the last row has a weight.
        unsafe {
            add_products(&mut left, load(row), zero, weights);
            add_products(&mut right, load(row.add(32)), zero, weights);
        }
    }
    let count = _mm_cvtsi32_si128(shift as i32);
    // SAFETY: 64 elements are writable.
    unsafe {
        store(left, count, to);
        store(right, count, to.add(32));
    }
}

/// # Safety
/// 32 bytes are readable.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn load(from: *const u8) -> __m256i {
    // SAFETY: guaranteed by the caller.
    unsafe { _mm256_loadu_si256(from.cast()) }
}

/// Adds `a * w0 + b * w1` for 32 columns and weights `w0, w1, w0, ...`; each register gets four columns of each half.
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

/// Writes the sums of 32 columns, in the order of `add_products`, shifted by `count`.
///
/// # Safety
/// `to` is writable for 32 elements.
#[inline]
#[target_feature(enable = "avx2")]
unsafe fn store(sums: [__m256i; 4], count: __m128i, to: *mut i16) {
    let [a, b, c, d] = sums.map(|sum| _mm256_sra_epi32(sum, count));
    // Each half of a register holds columns of the same half of the strip.
    let (ab, cd) = (_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
    // SAFETY: guaranteed by the caller.
    unsafe {
        _mm256_storeu_si256(to.cast(), _mm256_permute2x128_si256::<0x20>(ab, cd));
        _mm256_storeu_si256(to.add(16).cast(), _mm256_permute2x128_si256::<0x31>(ab, cd));
    }
}

/// Like [`super::across`].
///
/// # Safety
/// The checks of `across` have passed; the CPU has AVX2, FMA and F16C.
#[target_feature(enable = "avx2,fma,f16c")]
pub(super) unsafe fn across<const J: usize>(job: &Job<'_, J>, out: &mut [f32]) {
    // SAFETY: guaranteed by the caller; the instruction set is enabled here.
    unsafe { tile::across::<F32x8, J>(job, out) }
}

impl Sums for F32x8 {
    #[inline(always)]
    unsafe fn sums(numbers: &[*const i16; MOST], weights: &[*const i16; MOST], count: usize) -> Self {
        // SAFETY: `count` elements are readable through every pointer, in blocks of 16; the caller has AVX2.
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
            let low = halves4(halves2(a, b), halves2(c, d));
            let high = halves4(halves2(e, f), halves2(g, h));
            let halves = (_mm256_permute2x128_si256::<0x20>(low, high), _mm256_permute2x128_si256::<0x31>(low, high));
            F32x8(_mm256_cvtepi32_ps(_mm256_add_epi32(halves.0, halves.1)))
        }
    }
}

/// `a0 + a2, b0 + b2, a1 + a3, b1 + b3` in each half: two shuffles and an addition, where `vphaddd` takes twice the
/// time.
///
/// # Safety
/// The caller has AVX2.
#[inline(always)]
unsafe fn halves2(a: __m256i, b: __m256i) -> __m256i {
    // SAFETY: guaranteed by the caller.
    unsafe { _mm256_add_epi32(_mm256_unpacklo_epi32(a, b), _mm256_unpackhi_epi32(a, b)) }
}

/// The sums of a, b, c and d in each half, given the results of `halves2` for a and b and for c and d.
///
/// # Safety
/// The caller has AVX2.
#[inline(always)]
unsafe fn halves4(ab: __m256i, cd: __m256i) -> __m256i {
    // SAFETY: guaranteed by the caller.
    unsafe { _mm256_add_epi32(_mm256_unpacklo_epi64(ab, cd), _mm256_unpackhi_epi64(ab, cd)) }
}

/// Sixteen products, summed in pairs.
///
/// # Safety
/// Sixteen elements are readable through both pointers; the caller has AVX2.
#[inline(always)]
unsafe fn product(numbers: *const i16, weights: *const i16) -> __m256i {
    // SAFETY: guaranteed by the caller.
    unsafe { _mm256_madd_epi16(_mm256_loadu_si256(numbers.cast()), _mm256_loadu_si256(weights.cast())) }
}
