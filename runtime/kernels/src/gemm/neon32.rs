//! Tiles for the Advanced SIMD of 32-bit ARM: 16 registers of four lanes.
//!
//! As on 64-bit ARM, a multiply-add takes one operand from a lane of a register, so A is loaded four elements at a time:
//! 4x8 loads 12 registers for 32 multiply-adds. With 8 sums, 4 registers of A and 4 of B, in which the next row of the
//! panel arrives while this one is multiplied, all are used. A single row keeps eight independent sums. The instruction
//! that takes a lane rounds products before they are added: there is no fused one.
//!
//! The loops are assembly with fixed registers, since a register of four lanes has no type ([`F32x4`]); the sums are in
//! memory between the taps of a convolution. The registers that a loop writes are named by their halves: of the whole ones
//! the compiler knows nothing.

use std::arch::asm;

use half::f16;

use super::tile::{GemmTile, TileFn, start, store};
use crate::lanes::Lanes;
use crate::lanes::neon32::F32x4;

pub(super) static TILE_4X8: &[&[TileFn]] = &[
    &[tile::<false, 1, 1>, tile::<false, 1, 2>],
    &[tile::<false, 2, 1>, tile::<false, 2, 2>],
    &[tile::<false, 3, 1>, tile::<false, 3, 2>],
    &[tile::<false, 4, 1>, tile::<false, 4, 2>],
];
pub(super) static HALF_4X8: &[&[TileFn]] = &[
    &[tile::<true, 1, 1>, tile::<true, 1, 2>],
    &[tile::<true, 2, 1>, tile::<true, 2, 2>],
    &[tile::<true, 3, 1>, tile::<true, 3, 2>],
    &[tile::<true, 4, 1>, tile::<true, 4, 2>],
];
pub(super) static TILE_1X32: &[&[TileFn]] = &[&[
    row::<false, 1>,
    row::<false, 2>,
    row::<false, 3>,
    row::<false, 4>,
    row::<false, 5>,
    row::<false, 6>,
    row::<false, 7>,
    row::<false, 8>,
]];
pub(super) static HALF_1X32: &[&[TileFn]] = &[&[
    row::<true, 1>,
    row::<true, 2>,
    row::<true, 3>,
    row::<true, 4>,
    row::<true, 5>,
    row::<true, 6>,
    row::<true, 7>,
    row::<true, 8>,
]];

/// The sums of eight registers, as the assembly finds and leaves them: in q8 to q15.
#[repr(C, align(16))]
struct Sums([F32x4; 8]);

/// Up to four rows of two registers.
///
/// # Safety
/// As for [`TileFn`], with M rows of V registers, in half precision if `HALF`; the CPU has NEON and VFPv4.
unsafe fn tile<const HALF: bool, const M: usize, const V: usize>(tile: &GemmTile) {
    // SAFETY: the caller has NEON. Every tap has M pointers to `depth` elements, and the panel has `taps * depth` rows
    // of V registers.
    unsafe {
        let mut all = Sums([F32x4::splat(0.0); 8]);
        let mut sums: [[F32x4; V]; M] = start(tile, 0, M);
        for (all, sums) in all.0.as_chunks_mut::<2>().0.iter_mut().zip(&sums) {
            all[..V].copy_from_slice(sums);
        }
        let size = if HALF { size_of::<f16>() } else { size_of::<f32>() };
        for tap in 0..tile.taps {
            let row = |r: usize| *tile.rows.add(tap * M + r.min(M - 1));
            let panel = tile.panel.add(tap * tile.depth * V * 4 * size);
            add_rows::<HALF, M, V>([row(0), row(1), row(2), row(3)], tile.depth, panel, &mut all);
        }
        for (all, sums) in all.0.as_chunks::<2>().0.iter().zip(&mut sums) {
            sums.copy_from_slice(&all[..V]);
        }
        store(tile, 0, M, &sums);
    }
}

/// One row of up to eight registers.
///
/// # Safety
/// As for [`TileFn`], with a row of V registers, in half precision if `HALF`; the CPU has NEON and VFPv4.
unsafe fn row<const HALF: bool, const V: usize>(tile: &GemmTile) {
    // SAFETY: the caller has NEON. Every tap has a pointer to `depth` elements, and the panel has `taps * depth` rows of
    // V registers.
    unsafe {
        let mut all = Sums([F32x4::splat(0.0); 8]);
        let mut sums: [[F32x4; V]; 1] = start(tile, 0, 1);
        all.0[..V].copy_from_slice(&sums[0]);
        let size = if HALF { size_of::<f16>() } else { size_of::<f32>() };
        for tap in 0..tile.taps {
            let panel = tile.panel.add(tap * tile.depth * V * 4 * size);
            add_row::<HALF, V>(*tile.rows.add(tap), tile.depth, panel, &mut all);
        }
        sums[0].copy_from_slice(&all.0[..V]);
        store(tile, 0, 1, &sums);
    }
}

/// Loads a row of the panel into two registers of B, which are `$first` to `$last` in 64-bit registers; only the first
/// if the tile has no more than `$before + 1` registers. In half precision, eight numbers take the second register,
/// from which they are widened.
macro_rules! load {
    ($before:literal: $q0:literal $q1:literal = $first:literal $second:literal $third:literal $last:literal) => {
        concat!(
            ".if {half}\n",
            ".if {v} > ", $before, " + 1\n",
            "vld1.16 {{", $third, "-", $last, "}}, [{b}]!\n",
            "vcvt.f32.f16 ", $q0, ", ", $third, "\n",
            "vcvt.f32.f16 ", $q1, ", ", $last, "\n",
            ".else\n",
            "vld1.16 {{", $third, "}}, [{b}]!\n",
            "vcvt.f32.f16 ", $q0, ", ", $third, "\n",
            ".endif\n",
            ".else\n",
            ".if {v} > ", $before, " + 1\n",
            "vld1.32 {{", $first, "-", $last, "}}, [{b}]!\n",
            ".else\n",
            "vld1.32 {{", $first, "-", $second, "}}, [{b}]!\n",
            ".endif\n",
            ".endif"
        )
    };
    // The two pairs of registers.
    ($before:literal, even) => { load!($before: "q4" "q5" = "d8" "d9" "d10" "d11") };
    ($before:literal, odd) => { load!($before: "q6" "q7" = "d12" "d13" "d14" "d15") };
}

/// Adds the product of a lane of each row of A with two registers of B to the row's sums.
macro_rules! multiply {
    ($b0:literal $b1:literal: $a0:literal $a1:literal $a2:literal $a3:literal) => {
        concat!(
            multiply!("0" "q8" "q9" $b0 $b1 $a0),
            multiply!("1" "q10" "q11" $b0 $b1 $a1),
            multiply!("2" "q12" "q13" $b0 $b1 $a2),
            multiply!("3" "q14" "q15" $b0 $b1 $a3)
        )
    };
    ($row:literal $sum0:literal $sum1:literal $b0:literal $b1:literal $a:literal) => {
        concat!(
            ".if {m} > ", $row, "\n",
            "vmla.f32 ", $sum0, ", ", $b0, ", ", $a, "\n",
            ".if {v} > 1\n",
            "vmla.f32 ", $sum1, ", ", $b1, ", ", $a, "\n",
            ".endif\n",
            ".endif\n"
        )
    };
}

/// Adds the products of `depth` elements of each row with as many rows of the panel.
///
/// # Safety
/// The CPU has NEON and VFPv4; the first M rows are readable for `depth` elements, and the panel for `depth` rows of V
/// registers, in half precision if `HALF`.
#[inline(always)]
unsafe fn add_rows<const HALF: bool, const M: usize, const V: usize>(
    rows: [*const f32; 4],
    depth: usize,
    panel: *const u8,
    sums: &mut Sums,
) {
    // SAFETY: the loop reads four elements of each row and four rows of the panel while there are as many, and then one
    // of each; M and V select those that exist. It reads and writes the eight sums. All registers that it writes are
    // named as operands.
    unsafe {
        asm!(
            ".fpu neon-vfpv4",
            "vldmia {sums}, {{d16-d31}}",
            "subs {k}, {k}, #4",
            "blo 3f",
            "2:",
            "vld1.32 {{d0-d1}}, [{a0}]!",
            ".if {m} > 1",
            "vld1.32 {{d2-d3}}, [{a1}]!",
            ".endif",
            ".if {m} > 2",
            "vld1.32 {{d4-d5}}, [{a2}]!",
            ".endif",
            ".if {m} > 3",
            "vld1.32 {{d6-d7}}, [{a3}]!",
            ".endif",
            load!("0", even),
            load!("0", odd),
            multiply!("q4" "q5": "d0[0]" "d2[0]" "d4[0]" "d6[0]"),
            load!("0", even),
            multiply!("q6" "q7": "d0[1]" "d2[1]" "d4[1]" "d6[1]"),
            load!("0", odd),
            multiply!("q4" "q5": "d1[0]" "d3[0]" "d5[0]" "d7[0]"),
            "subs {k}, {k}, #4",
            multiply!("q6" "q7": "d1[1]" "d3[1]" "d5[1]" "d7[1]"),
            "bhs 2b",
            "3:",
            "adds {k}, {k}, #4",
            "beq 5f",
            "4:",
            "vld1.32 {{d0[0]}}, [{a0}]!",
            ".if {m} > 1",
            "vld1.32 {{d2[0]}}, [{a1}]!",
            ".endif",
            ".if {m} > 2",
            "vld1.32 {{d4[0]}}, [{a2}]!",
            ".endif",
            ".if {m} > 3",
            "vld1.32 {{d6[0]}}, [{a3}]!",
            ".endif",
            load!("0", even),
            "subs {k}, {k}, #1",
            multiply!("q4" "q5": "d0[0]" "d2[0]" "d4[0]" "d6[0]"),
            "bne 4b",
            "5:",
            "vstmia {sums}, {{d16-d31}}",
            half = const HALF as usize,
            m = const M,
            v = const V,
            sums = in(reg) &raw mut *sums,
            k = inout(reg) depth => _,
            b = inout(reg) panel => _,
            a0 = inout(reg) rows[0] => _,
            a1 = inout(reg) rows[1] => _,
            a2 = inout(reg) rows[2] => _,
            a3 = inout(reg) rows[3] => _,
            out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _, out("d6") _,
            out("d7") _, out("d8") _, out("d9") _, out("d10") _, out("d11") _, out("d12") _, out("d13") _,
            out("d14") _, out("d15") _, out("d16") _, out("d17") _, out("d18") _, out("d19") _, out("d20") _,
            out("d21") _, out("d22") _, out("d23") _, out("d24") _, out("d25") _, out("d26") _, out("d27") _,
            out("d28") _, out("d29") _, out("d30") _, out("d31") _,
            options(nostack)
        );
    }
}

/// Adds the product of a lane of A with one or two registers of B to the sums of the tile's registers from `$before` on.
macro_rules! multiply_row {
    ($before:literal: $sum0:literal $sum1:literal = $b0:literal $b1:literal $a:literal) => {
        concat!(
            ".if {v} > ", $before, "\n",
            "vmla.f32 ", $sum0, ", ", $b0, ", ", $a, "\n",
            ".endif\n",
            ".if {v} > ", $before, " + 1\n",
            "vmla.f32 ", $sum1, ", ", $b1, ", ", $a, "\n",
            ".endif\n"
        )
    };
    // All registers of a row of the panel.
    ($a:literal) => {
        concat!(
            load!("0", even), "\n",
            ".if {v} > 2\n", load!("2", odd), "\n.endif\n",
            multiply_row!("0": "q8" "q9" = "q4" "q5" $a),
            ".if {v} > 4\n", load!("4", even), "\n.endif\n",
            multiply_row!("2": "q10" "q11" = "q6" "q7" $a),
            ".if {v} > 6\n", load!("6", odd), "\n.endif\n",
            multiply_row!("4": "q12" "q13" = "q4" "q5" $a),
            multiply_row!("6": "q14" "q15" = "q6" "q7" $a)
        )
    };
}

/// Adds the product of `depth` elements of a row with as many rows of the panel.
///
/// # Safety
/// As for [`add_rows`], with one row.
#[inline(always)]
unsafe fn add_row<const HALF: bool, const V: usize>(row: *const f32, depth: usize, panel: *const u8, sums: &mut Sums) {
    // SAFETY: as in `add_rows`.
    unsafe {
        asm!(
            ".fpu neon-vfpv4",
            "vldmia {sums}, {{d16-d31}}",
            "subs {k}, {k}, #4",
            "blo 3f",
            "2:",
            "vld1.32 {{d0-d1}}, [{a}]!",
            multiply_row!("d0[0]"),
            multiply_row!("d0[1]"),
            multiply_row!("d1[0]"),
            "subs {k}, {k}, #4",
            multiply_row!("d1[1]"),
            "bhs 2b",
            "3:",
            "adds {k}, {k}, #4",
            "beq 5f",
            "4:",
            "vld1.32 {{d0[0]}}, [{a}]!",
            "subs {k}, {k}, #1",
            multiply_row!("d0[0]"),
            "bne 4b",
            "5:",
            "vstmia {sums}, {{d16-d31}}",
            half = const HALF as usize,
            v = const V,
            sums = in(reg) &raw mut *sums,
            k = inout(reg) depth => _,
            b = inout(reg) panel => _,
            a = inout(reg) row => _,
            out("d0") _, out("d1") _, out("d8") _, out("d9") _, out("d10") _, out("d11") _, out("d12") _,
            out("d13") _, out("d14") _, out("d15") _, out("d16") _, out("d17") _, out("d18") _, out("d19") _,
            out("d20") _, out("d21") _, out("d22") _, out("d23") _, out("d24") _, out("d25") _, out("d26") _,
            out("d27") _, out("d28") _, out("d29") _, out("d30") _, out("d31") _,
            options(nostack)
        );
    }
}
