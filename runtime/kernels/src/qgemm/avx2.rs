//! Tiles for AVX2: one instruction sums pairs of 16-bit products, exact in 32 bits.
//!
//! The instruction that multiplies bytes (`vpmaddubsw`) saturates. Activations are therefore widened to 16 bits when a
//! row is gathered, and weights when they are loaded.

use core::arch::x86_64::*;

use super::tile::{QgemmTile, Sums, TileFn, broadcast};
use crate::requantize::Requantize;

pub(super) static TILE_6X16: &[&[TileFn]] = &[
    &[tile::<1, 1>, tile::<1, 2>],
    &[tile::<2, 1>, tile::<2, 2>],
    &[tile::<3, 1>, tile::<3, 2>],
    &[tile::<4, 1>, tile::<4, 2>],
    &[tile::<5, 1>, tile::<5, 2>],
    &[tile::<6, 1>, tile::<6, 2>],
];

pub(super) static TILE_1X64: &[&[TileFn]] = &[&[
    tile::<1, 1>,
    tile::<1, 2>,
    tile::<1, 3>,
    tile::<1, 4>,
    tile::<1, 5>,
    tile::<1, 6>,
    tile::<1, 7>,
    tile::<1, 8>,
]];

/// # Safety
/// As for [`TileFn`], with M rows of V registers; the CPU has AVX2.
#[target_feature(enable = "avx2")]
unsafe fn tile<const M: usize, const V: usize>(tile: &QgemmTile) {
    // SAFETY: guaranteed by the caller; the instructions are enabled here.
    unsafe { broadcast::<I32x8, M, V>(tile) }
}

/// Eight sums.
#[derive(Clone, Copy)]
struct I32x8(__m256i);

impl Sums for I32x8 {
    const LANES: usize = 8;
    const GROUP: usize = 2;
    const ELEMENT: usize = 2;
    type Activations = __m256i;
    type Weights = __m256i;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has the instructions.
        Self(unsafe { _mm256_setzero_si256() })
    }

    #[inline(always)]
    unsafe fn activations(from: *const u8) -> __m256i {
        // SAFETY: two 16-bit elements are readable.
        unsafe { _mm256_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> __m256i {
        // SAFETY: 16 bytes are readable.
        unsafe { _mm256_cvtepi8_epi16(_mm_loadu_si128(from.cast())) }
    }

    #[inline(always)]
    unsafe fn add_products(self, a: __m256i, w: __m256i) -> Self {
        // SAFETY: the caller has the instructions.
        Self(unsafe { _mm256_add_epi32(self.0, _mm256_madd_epi16(a, w)) })
    }

    #[inline(always)]
    unsafe fn offset(self, offsets: *const i32) -> Self {
        // SAFETY: guaranteed by the caller.
        Self(unsafe { _mm256_add_epi32(self.0, _mm256_loadu_si256(offsets.cast())) })
    }

    #[inline(always)]
    unsafe fn store_bytes(self, scales: *const f32, by: &Requantize, to: *mut u8, count: usize) {
        let (low, high) = by.bounds();
        // SAFETY: guaranteed by the caller; `count` of the eight bytes are stored.
        unsafe {
            let value = _mm256_mul_ps(_mm256_cvtepi32_ps(self.0), _mm256_loadu_ps(scales));
            let value = _mm256_min_ps(_mm256_max_ps(value, _mm256_set1_ps(low)), _mm256_set1_ps(high));
            // Rounds to even, the rounding mode that Rust programs run in.
            let byte = _mm256_add_epi32(_mm256_cvtps_epi32(value), _mm256_set1_epi32(by.zero.into()));
            let words = _mm_packus_epi32(_mm256_castsi256_si128(byte), _mm256_extracti128_si256::<1>(byte));
            let bytes = _mm_packus_epi16(words, words);
            if count == 8 {
                _mm_storel_epi64(to.cast(), bytes);
            } else {
                let bytes = _mm_cvtsi128_si64(bytes).to_le_bytes();
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), to, count.min(8));
            }
        }
    }

    #[inline(always)]
    unsafe fn store_floats(self, scales: *const f32, to: *mut f32, count: usize) {
        // SAFETY: guaranteed by the caller; `count` of the eight floats are stored.
        unsafe {
            let value = _mm256_mul_ps(_mm256_cvtepi32_ps(self.0), _mm256_loadu_ps(scales));
            if count == 8 {
                _mm256_storeu_ps(to, value);
            } else {
                let mut floats = [0.0; 8];
                _mm256_storeu_ps(floats.as_mut_ptr(), value);
                std::ptr::copy_nonoverlapping(floats.as_ptr(), to, count.min(8));
            }
        }
    }

    #[inline(always)]
    unsafe fn store_sums(self, to: *mut i32, count: usize) {
        // SAFETY: guaranteed by the caller; `count` of the eight sums are stored.
        unsafe {
            if count == 8 {
                _mm256_storeu_si256(to.cast(), self.0);
            } else {
                let mut sums = [0i32; 8];
                _mm256_storeu_si256(sums.as_mut_ptr().cast(), self.0);
                std::ptr::copy_nonoverlapping(sums.as_ptr(), to, count.min(8));
            }
        }
    }
}
