//! Tiles for NEON: 16 products per instruction with `sdot` or `usdot`, otherwise four 16-bit products.
//!
//! The dot products have no intrinsics in stable Rust and are written as inline assembly. `sdot` multiplies signed
//! bytes only: 128 is subtracted from activations to make them signed, and the packed offsets compensate for that.
//! Without either instruction, activations are widened to 16 bits when a row is gathered.

use core::arch::aarch64::*;
use core::arch::asm;

use super::tile::{QgemmTile, Sums, TileFn, broadcast};
use crate::requantize::Requantize;

/// The table for tiles of up to six rows by up to four registers.
macro_rules! tiles {
    ($wide:ident $tile:ident) => {
        pub(super) static $wide: &[&[TileFn]] = &[
            &[$tile::<1, 1>, $tile::<1, 2>, $tile::<1, 3>, $tile::<1, 4>],
            &[$tile::<2, 1>, $tile::<2, 2>, $tile::<2, 3>, $tile::<2, 4>],
            &[$tile::<3, 1>, $tile::<3, 2>, $tile::<3, 3>, $tile::<3, 4>],
            &[$tile::<4, 1>, $tile::<4, 2>, $tile::<4, 3>, $tile::<4, 4>],
            &[$tile::<5, 1>, $tile::<5, 2>, $tile::<5, 3>, $tile::<5, 4>],
            &[$tile::<6, 1>, $tile::<6, 2>, $tile::<6, 3>, $tile::<6, 4>],
        ];
    };
}

/// The table for tiles of one row by up to eight registers.
macro_rules! rows {
    ($row:ident $tile:ident) => {
        pub(super) static $row: &[&[TileFn]] = &[&[
            $tile::<1, 1>,
            $tile::<1, 2>,
            $tile::<1, 3>,
            $tile::<1, 4>,
            $tile::<1, 5>,
            $tile::<1, 6>,
            $tile::<1, 7>,
            $tile::<1, 8>,
        ]];
    };
}

tiles!(DOT_6X16 dot_tile);
tiles!(TILE_6X16 plain_tile);
rows!(DOT_1X32 dot_tile);
rows!(I8MM_1X32 i8mm_tile);
rows!(TILE_1X32 plain_tile);

/// # Safety
/// As for [`TileFn`], with M rows of V registers; the CPU has NEON with dot products.
#[target_feature(enable = "neon,dotprod")]
unsafe fn dot_tile<const M: usize, const V: usize>(tile: &QgemmTile) {
    // SAFETY: guaranteed by the caller; the instructions are enabled here.
    unsafe { broadcast::<Dot<true>, M, V>(tile) }
}

/// # Safety
/// As for [`TileFn`], with M rows of V registers; the CPU has NEON with `usdot`.
#[target_feature(enable = "neon,dotprod,i8mm")]
unsafe fn i8mm_tile<const M: usize, const V: usize>(tile: &QgemmTile) {
    // SAFETY: guaranteed by the caller; the instructions are enabled here.
    unsafe { broadcast::<Dot<false>, M, V>(tile) }
}

/// # Safety
/// As for [`TileFn`], with M rows of V registers; the CPU has NEON.
#[target_feature(enable = "neon")]
unsafe fn plain_tile<const M: usize, const V: usize>(tile: &QgemmTile) {
    // SAFETY: guaranteed by the caller; the instructions are enabled here.
    unsafe { broadcast::<Plain, M, V>(tile) }
}

/// Four sums, with `sdot` on activations minus 128 (`FLIPPED`) or `usdot` on unchanged activations.
#[derive(Clone, Copy)]
pub(super) struct Dot<const FLIPPED: bool>(pub(super) int32x4_t);

impl<const FLIPPED: bool> Sums for Dot<FLIPPED> {
    const LANES: usize = 4;
    const GROUP: usize = 4;
    const ELEMENT: usize = 1;
    type Activations = uint8x16_t;
    type Weights = int8x16_t;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has the instructions.
        Self(unsafe { vdupq_n_s32(0) })
    }

    #[inline(always)]
    unsafe fn activations(from: *const u8) -> uint8x16_t {
        // SAFETY: four bytes are readable.
        unsafe {
            let bytes = vreinterpretq_u8_u32(vdupq_n_u32(from.cast::<u32>().read_unaligned()));
            if FLIPPED { veorq_u8(bytes, vdupq_n_u8(0x80)) } else { bytes }
        }
    }

    #[inline(always)]
    unsafe fn weights(from: *const i8) -> int8x16_t {
        // SAFETY: 16 bytes are readable.
        unsafe { vld1q_s8(from) }
    }

    #[inline(always)]
    unsafe fn add_products(self, a: uint8x16_t, w: int8x16_t) -> Self {
        let mut sums = self.0;
        // SAFETY: value instructions, which the CPU has as the caller guarantees.
        unsafe {
            if FLIPPED {
                asm!("sdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sums, in(vreg) a, in(vreg) w,
                    options(pure, nomem, nostack, preserves_flags));
            } else {
                asm!("usdot {0:v}.4s, {1:v}.16b, {2:v}.16b", inout(vreg) sums, in(vreg) a, in(vreg) w,
                    options(pure, nomem, nostack, preserves_flags));
            }
        }
        Self(sums)
    }

    #[inline(always)]
    unsafe fn offset(self, offsets: *const i32) -> Self {
        // SAFETY: guaranteed by the caller.
        Self(unsafe { vaddq_s32(self.0, vld1q_s32(offsets)) })
    }

    #[inline(always)]
    unsafe fn store_bytes(self, scales: *const f32, by: &Requantize, to: *mut u8, count: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe {
            let bytes = to_bytes(self.0, scales, by);
            let words = vmovn_u32(bytes);
            let bytes = vmovn_u16(vcombine_u16(words, words));
            let bytes = vget_lane_u32::<0>(vreinterpret_u32_u8(bytes));
            // Copying a variable number of bytes would call a function.
            if count == 4 {
                to.cast::<u32>().write_unaligned(bytes);
            } else {
                std::ptr::copy_nonoverlapping(bytes.to_ne_bytes().as_ptr(), to, count.min(4));
            }
        }
    }

    #[inline(always)]
    unsafe fn store_floats(self, scales: *const f32, to: *mut f32, count: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe { floats(self.0, scales, to, count) }
    }

    #[inline(always)]
    unsafe fn store_sums(self, to: *mut i32, count: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe { whole(self.0, to, count) }
    }
}

/// Four sums, with 16-bit products.
#[derive(Clone, Copy)]
struct Plain(int32x4_t);

impl Sums for Plain {
    const LANES: usize = 4;
    const GROUP: usize = 2;
    const ELEMENT: usize = 2;
    type Activations = int16x8_t;
    type Weights = int16x8_t;

    #[inline(always)]
    unsafe fn zero() -> Self {
        // SAFETY: the caller has the instructions.
        Self(unsafe { vdupq_n_s32(0) })
    }

    #[inline(always)]
    unsafe fn activations(from: *const u8) -> int16x8_t {
        // SAFETY: two 16-bit elements are readable.
        unsafe { vreinterpretq_s16_u32(vdupq_n_u32(from.cast::<u32>().read_unaligned())) }
    }

    /// The first weight of each column, then the second.
    #[inline(always)]
    unsafe fn weights(from: *const i8) -> int16x8_t {
        // SAFETY: eight bytes are readable.
        unsafe {
            let pairs = vmovl_s8(vld1_s8(from));
            vuzp1q_s16(pairs, vextq_s16::<1>(pairs, pairs))
        }
    }

    #[inline(always)]
    unsafe fn add_products(self, a: int16x8_t, w: int16x8_t) -> Self {
        // SAFETY: the caller has the instructions.
        unsafe {
            let first = vmlal_lane_s16::<0>(self.0, vget_low_s16(w), vget_low_s16(a));
            Self(vmlal_high_lane_s16::<1>(first, w, vget_low_s16(a)))
        }
    }

    #[inline(always)]
    unsafe fn offset(self, offsets: *const i32) -> Self {
        // SAFETY: guaranteed by the caller.
        Self(unsafe { vaddq_s32(self.0, vld1q_s32(offsets)) })
    }

    #[inline(always)]
    unsafe fn store_bytes(self, scales: *const f32, by: &Requantize, to: *mut u8, count: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe { Dot::<true>(self.0).store_bytes(scales, by, to, count) }
    }

    #[inline(always)]
    unsafe fn store_floats(self, scales: *const f32, to: *mut f32, count: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe { floats(self.0, scales, to, count) }
    }

    #[inline(always)]
    unsafe fn store_sums(self, to: *mut i32, count: usize) {
        // SAFETY: guaranteed by the caller.
        unsafe { whole(self.0, to, count) }
    }
}

/// The bytes of four sums, one in each 32-bit lane.
///
/// # Safety
/// The CPU has NEON; four scales are readable.
#[inline(always)]
unsafe fn to_bytes(sums: int32x4_t, scales: *const f32, by: &Requantize) -> uint32x4_t {
    let (low, high) = by.bounds();
    // SAFETY: guaranteed by the caller.
    unsafe {
        let value = vmulq_f32(vcvtq_f32_s32(sums), vld1q_f32(scales));
        let value = vminq_f32(vmaxq_f32(value, vdupq_n_f32(low)), vdupq_n_f32(high));
        let byte = vaddq_s32(vcvtnq_s32_f32(value), vdupq_n_s32(by.zero.into()));
        vreinterpretq_u32_s32(byte)
    }
}

/// Stores the first `count` of four sums as floats.
///
/// # Safety
/// The CPU has NEON; four scales are readable, `to` is writable for `count` floats.
#[inline(always)]
unsafe fn floats(sums: int32x4_t, scales: *const f32, to: *mut f32, count: usize) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        let value = vmulq_f32(vcvtq_f32_s32(sums), vld1q_f32(scales));
        if count == 4 {
            vst1q_f32(to, value);
        } else {
            let mut floats = [0.0; 4];
            vst1q_f32(floats.as_mut_ptr(), value);
            std::ptr::copy_nonoverlapping(floats.as_ptr(), to, count.min(4));
        }
    }
}

/// Stores the first `count` of four sums.
///
/// # Safety
/// The CPU has NEON; `to` is writable for `count` sums.
#[inline(always)]
unsafe fn whole(sums: int32x4_t, to: *mut i32, count: usize) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        if count == 4 {
            vst1q_s32(to, sums);
        } else {
            let mut stored = [0; 4];
            vst1q_s32(stored.as_mut_ptr(), sums);
            std::ptr::copy_nonoverlapping(stored.as_ptr(), to, count.min(4));
        }
    }
}
