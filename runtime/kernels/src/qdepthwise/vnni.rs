//! Depthwise rows for AVX-512 VNNI: four taps of 64, 32 or 16 channels at a time, exact in 32 bits.

use core::arch::x86_64::*;

use super::tile::{Block, OutputRow, Sums, Widths, row};
use crate::requantize::Requantize;

/// # Safety
/// As for [`RowFn`](super::tile::RowFn); the CPU has AVX-512 F, BW, DQ, VL and VNNI.
#[target_feature(enable = "avx512f,avx512bw,avx512dq,avx512vl,avx512vnni")]
pub(super) unsafe fn kernel(of: &OutputRow<'_>) {
    // SAFETY: guaranteed by the caller; the instructions are enabled here.
    unsafe { row::<Vnni>(of) }
}

struct Vnni;

impl Widths for Vnni {
    const GROUP: usize = 4;

    #[inline(always)]
    unsafe fn compute(block: &Block<'_>, width: usize) {
        // SAFETY: guaranteed by the caller; there are blocks of these widths.
        unsafe {
            match width {
                64 => block.compute::<Sums64>(),
                32 => block.compute::<Sums32>(),
                _ => block.compute::<Sums16>(),
            }
        }
    }
}

/// The implementation for one width: the register type, its float type, and the instructions.
macro_rules! sums {
    ($name:ident $width:literal $int:ident $float:ident zero $zero:ident load $load:ident store $store:ident
    bytes $lo8:ident $hi8:ident words $lo16:ident $hi16:ident dot $dot:ident add $add:ident
    to_float $to_float:ident load_float $load_float:ident mul $mul:ident min $min:ident max $max:ident
    set $set:ident to_int $to_int:ident set_int $set_int:ident pack32 $pack32:ident pack16 $pack16:ident) => {
        #[derive(Clone, Copy)]
        struct $name([$int; 4]);

        impl Sums for $name {
            const WIDTH: usize = $width;
            const GROUP: usize = 4;

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
                    let (c, d) = ($load((*taps.add(2)).add(channel).cast()), $load((*taps.add(3)).add(channel).cast()));
                    let (low_ab, high_ab) = ($lo8(a, b), $hi8(a, b));
                    let (low_cd, high_cd) = ($lo8(c, d), $hi8(c, d));
                    let sums = self.0;
                    Self([
                        $dot(sums[0], $lo16(low_ab, low_cd), $load(weights.add(0 * $width).cast())),
                        $dot(sums[1], $hi16(low_ab, low_cd), $load(weights.add(1 * $width).cast())),
                        $dot(sums[2], $lo16(high_ab, high_cd), $load(weights.add(2 * $width).cast())),
                        $dot(sums[3], $hi16(high_ab, high_cd), $load(weights.add(3 * $width).cast())),
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

sums!(Sums64 64 __m512i __m512 zero _mm512_setzero_si512 load _mm512_loadu_si512 store _mm512_storeu_si512
    bytes _mm512_unpacklo_epi8 _mm512_unpackhi_epi8 words _mm512_unpacklo_epi16 _mm512_unpackhi_epi16
    dot _mm512_dpbusd_epi32 add _mm512_add_epi32 to_float _mm512_cvtepi32_ps load_float _mm512_loadu_ps
    mul _mm512_mul_ps min _mm512_min_ps max _mm512_max_ps set _mm512_set1_ps to_int _mm512_cvtps_epi32
    set_int _mm512_set1_epi32 pack32 _mm512_packs_epi32 pack16 _mm512_packus_epi16);
sums!(Sums32 32 __m256i __m256 zero _mm256_setzero_si256 load _mm256_loadu_si256 store _mm256_storeu_si256
    bytes _mm256_unpacklo_epi8 _mm256_unpackhi_epi8 words _mm256_unpacklo_epi16 _mm256_unpackhi_epi16
    dot _mm256_dpbusd_epi32 add _mm256_add_epi32 to_float _mm256_cvtepi32_ps load_float _mm256_loadu_ps
    mul _mm256_mul_ps min _mm256_min_ps max _mm256_max_ps set _mm256_set1_ps to_int _mm256_cvtps_epi32
    set_int _mm256_set1_epi32 pack32 _mm256_packs_epi32 pack16 _mm256_packus_epi16);
sums!(Sums16 16 __m128i __m128 zero _mm_setzero_si128 load _mm_loadu_si128 store _mm_storeu_si128
    bytes _mm_unpacklo_epi8 _mm_unpackhi_epi8 words _mm_unpacklo_epi16 _mm_unpackhi_epi16
    dot _mm_dpbusd_epi32 add _mm_add_epi32 to_float _mm_cvtepi32_ps load_float _mm_loadu_ps
    mul _mm_mul_ps min _mm_min_ps max _mm_max_ps set _mm_set1_ps to_int _mm_cvtps_epi32
    set_int _mm_set1_epi32 pack32 _mm_packs_epi32 pack16 _mm_packus_epi16);
