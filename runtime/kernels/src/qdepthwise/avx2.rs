//! Depthwise rows for AVX2: two taps of 32 or 16 channels at a time, with 16-bit products, exact in 32 bits.

use core::arch::x86_64::*;

use super::tile::{Block, OutputRow, Sums, Widths, row};
use crate::requantize::Requantize;

/// # Safety
/// As for [`RowFn`](super::tile::RowFn); the CPU has AVX2.
#[target_feature(enable = "avx2")]
pub(super) unsafe fn kernel(of: &OutputRow<'_>) {
    // SAFETY: guaranteed by the caller; the instructions are enabled here.
    unsafe { row::<Avx2>(of) }
}

struct Avx2;

impl Widths for Avx2 {
    const GROUP: usize = 2;

    #[inline(always)]
    unsafe fn compute(block: &Block<'_>, width: usize) {
        // SAFETY: guaranteed by the caller; there are blocks of these widths.
        unsafe {
            match width {
                32 => block.compute::<Sums32>(),
                _ => block.compute::<Sums16>(),
            }
        }
    }
}

/// The implementation for one width: the register type, and the instructions.
macro_rules! sums {
    ($name:ident $width:literal $int:ident zero $zero:ident load $load:ident store $store:ident
    bytes $lo8:ident $hi8:ident half $load_half:ident widen $widen:ident madd $madd:ident add $add:ident
    to_float $to_float:ident load_float $load_float:ident mul $mul:ident min $min:ident max $max:ident
    set $set:ident to_int $to_int:ident set_int $set_int:ident pack32 $pack32:ident pack16 $pack16:ident) => {
        #[derive(Clone, Copy)]
        struct $name([$int; 4]);

        impl Sums for $name {
            const WIDTH: usize = $width;
            const GROUP: usize = 2;

            #[inline(always)]
            unsafe fn zero() -> Self {
                // SAFETY: the caller has the instructions.
                Self([unsafe { $zero() }; 4])
            }

            #[inline(always)]
            unsafe fn add_products(self, taps: *const *const u8, channel: usize, weights: *const i8) -> Self {
                // SAFETY: guaranteed by the caller.
                unsafe {
                    let (a, b) = ($load((*taps).add(channel).cast()), $load((*taps.add(1)).add(channel).cast()));
                    let zero = $zero();
                    let (low, high) = ($lo8(a, b), $hi8(a, b));
                    let sums = self.0;
                    Self([
                        $add(sums[0], $madd($lo8(low, zero), $widen($load_half(weights.add(0 * $width / 2).cast())))),
                        $add(sums[1], $madd($hi8(low, zero), $widen($load_half(weights.add(1 * $width / 2).cast())))),
                        $add(sums[2], $madd($lo8(high, zero), $widen($load_half(weights.add(2 * $width / 2).cast())))),
                        $add(sums[3], $madd($hi8(high, zero), $widen($load_half(weights.add(3 * $width / 2).cast())))),
                    ])
                }
            }

            #[inline(always)]
            unsafe fn store_bytes(self, offsets: *const i32, scales: *const f32, by: &Requantize, to: *mut u8) {
                let (low, high) = by.bounds();
                // SAFETY: guaranteed by the caller. Rounds to even, the rounding mode that Rust programs run in.
                unsafe {
                    let (low, high, zero) = ($set(low), $set(high), $set_int(by.zero.into()));
                    let mut bytes = self.0;
                    for i in 0..4 {
                        let sum = $add(bytes[i], $load(offsets.add(i * $width / 4).cast()));
                        let value = $mul($to_float(sum), $load_float(scales.add(i * $width / 4)));
                        bytes[i] = $add($to_int($min($max(value, low), high)), zero);
                    }
                    let words = ($pack32(bytes[0], bytes[1]), $pack32(bytes[2], bytes[3]));
                    $store(to.cast(), $pack16(words.0, words.1));
                }
            }

            #[inline(always)]
            unsafe fn store(self, to: *mut i32) {
                // SAFETY: guaranteed by the caller.
                unsafe {
                    for i in 0..4 {
                        $store(to.add(i * $width / 4).cast(), self.0[i]);
                    }
                }
            }
        }
    };
}

sums!(Sums32 32 __m256i zero _mm256_setzero_si256 load _mm256_loadu_si256 store _mm256_storeu_si256
    bytes _mm256_unpacklo_epi8 _mm256_unpackhi_epi8 half _mm_loadu_si128 widen _mm256_cvtepi8_epi16
    madd _mm256_madd_epi16 add _mm256_add_epi32 to_float _mm256_cvtepi32_ps load_float _mm256_loadu_ps
    mul _mm256_mul_ps min _mm256_min_ps max _mm256_max_ps set _mm256_set1_ps to_int _mm256_cvtps_epi32
    set_int _mm256_set1_epi32 pack32 _mm256_packs_epi32 pack16 _mm256_packus_epi16);
sums!(Sums16 16 __m128i zero _mm_setzero_si128 load _mm_loadu_si128 store _mm_storeu_si128
    bytes _mm_unpacklo_epi8 _mm_unpackhi_epi8 half _mm_loadl_epi64 widen _mm_cvtepi8_epi16
    madd _mm_madd_epi16 add _mm_add_epi32 to_float _mm_cvtepi32_ps load_float _mm_loadu_ps
    mul _mm_mul_ps min _mm_min_ps max _mm_max_ps set _mm_set1_ps to_int _mm_cvtps_epi32
    set_int _mm_set1_epi32 pack32 _mm_packs_epi32 pack16 _mm_packus_epi16);
