//! Tiles for AVX-512 VNNI: 64 products per instruction, exact in 32 bits.

use core::arch::x86_64::*;

use super::tile::{QgemmTile, Sums, TileFn, broadcast};
use crate::requantize::Requantize;

pub(super) static TILE_12X32: &[&[TileFn]] = &[
    &[tile::<1, 1>, tile::<1, 2>],
    &[tile::<2, 1>, tile::<2, 2>],
    &[tile::<3, 1>, tile::<3, 2>],
    &[tile::<4, 1>, tile::<4, 2>],
    &[tile::<5, 1>, tile::<5, 2>],
    &[tile::<6, 1>, tile::<6, 2>],
    &[tile::<7, 1>, tile::<7, 2>],
    &[tile::<8, 1>, tile::<8, 2>],
    &[tile::<9, 1>, tile::<9, 2>],
    &[tile::<10, 1>, tile::<10, 2>],
    &[tile::<11, 1>, tile::<11, 2>],
    &[tile::<12, 1>, tile::<12, 2>],
];

pub(super) static TILE_8X48: &[&[TileFn]] = &[
    &[tile::<1, 1>, tile::<1, 2>, tile::<1, 3>],
    &[tile::<2, 1>, tile::<2, 2>, tile::<2, 3>],
    &[tile::<3, 1>, tile::<3, 2>, tile::<3, 3>],
    &[tile::<4, 1>, tile::<4, 2>, tile::<4, 3>],
    &[tile::<5, 1>, tile::<5, 2>, tile::<5, 3>],
    &[tile::<6, 1>, tile::<6, 2>, tile::<6, 3>],
    &[tile::<7, 1>, tile::<7, 2>, tile::<7, 3>],
    &[tile::<8, 1>, tile::<8, 2>, tile::<8, 3>],
];

pub(super) static TILE_1X128: &[&[TileFn]] = &[&[
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
/// As for [`TileFn`], with M rows of V registers; the CPU has AVX-512 F, BW, DQ, VL and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
unsafe fn tile<const M: usize, const V: usize>(tile: &QgemmTile) {
    // SAFETY: guaranteed by the caller; the instructions are enabled here.
    unsafe { broadcast::<I32x16, M, V>(tile) }
}

/// Sixteen sums.
#[derive(Clone, Copy)]
struct I32x16(__m512i);

impl Sums for I32x16 {
    const LANES: usize = 16;
    const GROUP: usize = 4;
    const ELEMENT: usize = 1;
    type Activations = __m512i;
    type Weights = __m512i;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has the instructions.
        Self(unsafe { _mm512_setzero_si512() })
    }

    #[inline(always)]
    unsafe fn activations(from: *const u8) -> __m512i {
        // SAFETY: four bytes are readable.
        unsafe { _mm512_set1_epi32(from.cast::<i32>().read_unaligned()) }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> __m512i {
        // SAFETY: 64 bytes are readable.
        unsafe { _mm512_loadu_si512(from.cast()) }
    }

    #[inline(always)]
    unsafe fn add_products(self, a: __m512i, w: __m512i) -> Self {
        // SAFETY: the caller has the instructions.
        Self(unsafe { _mm512_dpbusd_epi32(self.0, a, w) })
    }

    #[inline(always)]
    unsafe fn offset(self, offsets: *const i32) -> Self {
        // SAFETY: guaranteed by the caller.
        Self(unsafe { _mm512_add_epi32(self.0, _mm512_loadu_si512(offsets.cast())) })
    }

    #[inline(always)]
    unsafe fn store_bytes(self, scales: *const f32, by: &Requantize, to: *mut u8, count: usize) {
        let (low, high) = by.bounds();
        // SAFETY: guaranteed by the caller; the mask selects `count` bytes.
        unsafe {
            let value = _mm512_mul_ps(_mm512_cvtepi32_ps(self.0), _mm512_loadu_ps(scales));
            let value = _mm512_min_ps(_mm512_max_ps(value, _mm512_set1_ps(low)), _mm512_set1_ps(high));
            // Rounds to even, the rounding mode that Rust programs run in.
            let byte = _mm512_add_epi32(_mm512_cvtps_epi32(value), _mm512_set1_epi32(by.zero.into()));
            let bytes = _mm512_cvtepi32_epi8(byte);
            if count == 16 {
                _mm_storeu_si128(to.cast(), bytes);
            } else {
                _mm_mask_storeu_epi8(to.cast(), first(count), bytes);
            }
        }
    }

    #[inline(always)]
    unsafe fn store_floats(self, scales: *const f32, to: *mut f32, count: usize) {
        // SAFETY: guaranteed by the caller; the mask selects `count` floats.
        unsafe {
            let value = _mm512_mul_ps(_mm512_cvtepi32_ps(self.0), _mm512_loadu_ps(scales));
            _mm512_mask_storeu_ps(to, first(count), value);
        }
    }

    #[inline(always)]
    unsafe fn store_sums(self, to: *mut i32, count: usize) {
        // SAFETY: guaranteed by the caller; the mask selects `count` sums.
        unsafe { _mm512_mask_storeu_epi32(to, first(count), self.0) }
    }
}

/// The mask of the first `count` of sixteen lanes.
#[inline(always)]
fn first(count: usize) -> __mmask16 {
    ((1u32 << count.min(16)) - 1) as __mmask16
}
