//! The sums of a tile on 32-bit ARM.
//!
//! The generic code would take two instructions for every four multiply-adds, and three to load a column. This assembly
//! takes one for either, with whole registers: seven of sums, one of each weight of a kernel row, and four in which the
//! next columns arrive. The registers that it writes are named by their halves: of the whole ones the compiler knows
//! nothing.

use std::arch::asm;
use std::mem::MaybeUninit;

use super::run::{MAX_LINES, WIDTH};
use crate::lanes::Lanes;
use crate::lanes::neon32::F32x4;

/// Input columns under a tile of the widest kernel, at stride 2.
const MAX_COLUMNS: usize = 2 * (WIDTH - 1) + 5;

/// The sums of a tile.
pub(super) type Sums = [F32x4; WIDTH];

/// The input under a tile and the weights, for four channels.
pub(super) struct Rows<'a> {
    /// The input rows, one for each kernel row; there may be none.
    pub lines: &'a [*const f32],
    /// Elements from the start of a line to the first column, which may wrap around.
    pub first: usize,
    /// Elements from one column to the next.
    pub width: usize,
    /// The first weight of the first kernel row.
    pub weights: *const f32,
    /// Elements from one weight of a row, or row of weights, to the next.
    pub channels: usize,
    /// Bit `c` is set if column `c` exists.
    pub inside: u32,
}

/// Adds the products of kernel rows of width `K`, at stride `S`, to the sums.
///
/// # Safety
/// The CPU has NEON and VFPv4. Every column that exists is readable for four elements in each line, and so is every
/// weight; the kernel is of a width and stride that there is a function for.
#[inline(always)]
pub(super) unsafe fn add<const K: usize, const S: usize>(rows: &Rows<'_>, sums: &mut Sums) {
    if rows.lines.is_empty() {
        return;
    }
    let columns = (WIDTH - 1) * S + K;
    // SAFETY: guaranteed by the caller; `with_zeros` makes lines in which all columns exist.
    unsafe {
        if rows.inside == (1 << columns) - 1 {
            of_lines::<K, S>(rows, sums);
        } else {
            with_zeros(rows, columns, |rows| of_lines::<K, S>(rows, sums));
        }
    }
}

/// Calls `f` with copies of the lines, zero where columns do not exist: those at either end.
///
/// # Safety
/// As for [`add`].
#[inline(never)]
unsafe fn with_zeros(rows: &Rows<'_>, columns: usize, f: impl FnOnce(&Rows<'_>)) {
    let first = (rows.inside.trailing_zeros() as usize).min(columns);
    let end = ((u32::BITS - rows.inside.leading_zeros()) as usize).clamp(first, columns);
    let mut copies = [[MaybeUninit::<F32x4>::uninit(); MAX_COLUMNS]; MAX_LINES];
    let mut lines = [std::ptr::null(); MAX_LINES];
    for ((copy, to), line) in copies.iter_mut().zip(&mut lines).zip(rows.lines) {
        // SAFETY: the CPU has NEON.
        let zero = unsafe { F32x4::splat(0.0) };
        copy[..first].fill(MaybeUninit::new(zero));
        copy[end..columns].fill(MaybeUninit::new(zero));
        let from = line.wrapping_add(rows.first.wrapping_add(first * rows.width));
        // SAFETY: these columns exist.
        unsafe { copy_columns(from, rows.width, &mut copy[first..end]) };
        *to = copy.as_ptr().cast();
    }
    f(&Rows { lines: &lines[..rows.lines.len()], first: 0, width: F32x4::WIDTH, ..*rows });
}

/// Copies four elements of each column.
///
/// # Safety
/// The CPU has NEON; as many columns as `to` has registers are readable, `width` elements apart.
#[inline(always)]
unsafe fn copy_columns(from: *const f32, width: usize, to: &mut [MaybeUninit<F32x4>]) {
    if to.is_empty() {
        return;
    }
    // SAFETY: reads as many columns as it writes registers, at least one.
    unsafe {
        asm!(
            ".fpu neon-vfpv4",
            "2:",
            "vld1.32 {{d0-d1}}, [{from}], {width}",
            "subs {count}, {count}, #1",
            "vst1.32 {{d0-d1}}, [{to}]!",
            "bne 2b",
            from = inout(reg) from => _,
            width = in(reg) width * size_of::<f32>(),
            to = inout(reg) to.as_mut_ptr() => _,
            count = inout(reg) to.len() => _,
            out("d0") _, out("d1") _,
            options(nostack)
        );
    }
}

/// As [`add`], where all columns exist.
///
/// # Safety
/// As for [`add`].
#[inline(always)]
unsafe fn of_lines<const K: usize, const S: usize>(rows: &Rows<'_>, sums: &mut Sums) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        match (K, S) {
            (3, 1) => add_3x1(rows, sums),
            (3, 2) => add_3x2(rows, sums),
            (5, 1) => add_5x1(rows, sums),
            (5, 2) => add_5x2(rows, sums),
            _ => unreachable!("a kernel of width {K} at stride {S}"),
        }
    }
}

/// One step of a kernel: a column arrives in a register, or one is multiplied by weights and added to sums.
macro_rules! step {
    (load $to:literal) => { concat!("vld1.32 {{", $to, "}}, [{line}], {width}\n") };
    (add $pixel:literal: $($sum:literal $weight:literal),+) => {
        concat!($("vfma.f32 ", $sum, ", ", $pixel, ", ", $weight, "\n"),+)
    };
}

/// A function for a width and stride: the registers of the weights of a row, and what is done with each of its columns.
macro_rules! kernel {
    ($(#[$about:meta])* $name:ident: weights $($weight:literal)+; $($step:ident $register:literal $(: $($sum:literal $by:literal),+)?;)+) => {
        $(#[$about])*
        ///
        /// # Safety
        /// As for [`add`]; all columns exist.
        unsafe fn $name(rows: &Rows<'_>, sums: &mut Sums) {
            const BYTES: usize = size_of::<f32>();
            // SAFETY: reads every column of each line and as many rows of weights as there are lines, at least one;
            // reads and writes the sums. All registers that it writes are named as operands.
            unsafe {
                asm!(
                    ".fpu neon-vfpv4",
                    "vldmia {sums}, {{d0-d13}}",
                    "2:",
                    "ldr {line}, [{lines}], #4",
                    "add {line}, {line}, {first}",
                    $(concat!("vld1.32 {{", $weight, "}}, [{weights}], {channels}"),)+
                    $(step!($step $register $(: $($sum $by),+)?),)+
                    "subs {count}, {count}, #1",
                    "bne 2b",
                    "vstmia {sums}, {{d0-d13}}",
                    sums = in(reg) &raw mut *sums,
                    lines = inout(reg) rows.lines.as_ptr() => _,
                    count = inout(reg) rows.lines.len() => _,
                    line = out(reg) _,
                    first = in(reg) rows.first.wrapping_mul(BYTES),
                    width = in(reg) rows.width * BYTES,
                    weights = inout(reg) rows.weights => _,
                    channels = in(reg) rows.channels * BYTES,
                    out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _, out("d6") _,
                    out("d7") _, out("d8") _, out("d9") _, out("d10") _, out("d11") _, out("d12") _, out("d13") _,
                    out("d14") _, out("d15") _, out("d16") _, out("d17") _, out("d18") _, out("d19") _, out("d20") _,
                    out("d21") _, out("d22") _, out("d23") _, out("d24") _, out("d25") _, out("d26") _, out("d27") _,
                    out("d28") _, out("d29") _, out("d30") _, out("d31") _,
                    options(nostack)
                );
            }
        }
    };
}

kernel! {
    /// Width 3, stride 1.
    add_3x1: weights "q13" "q14" "q15";
    load "q7"; load "q8";
    load "q9"; add "q7": "q0" "q13";
    load "q10"; add "q8": "q0" "q14", "q1" "q13";
    load "q7"; add "q9": "q0" "q15", "q1" "q14", "q2" "q13";
    load "q8"; add "q10": "q1" "q15", "q2" "q14", "q3" "q13";
    load "q9"; add "q7": "q2" "q15", "q3" "q14", "q4" "q13";
    load "q10"; add "q8": "q3" "q15", "q4" "q14", "q5" "q13";
    load "q7"; add "q9": "q4" "q15", "q5" "q14", "q6" "q13";
    add "q10": "q5" "q15", "q6" "q14";
    add "q7": "q6" "q15";
}

kernel! {
    /// Width 3, stride 2.
    add_3x2: weights "q13" "q14" "q15";
    load "q7"; load "q8";
    load "q9"; add "q7": "q0" "q13";
    load "q10"; add "q8": "q0" "q14";
    load "q7"; add "q9": "q0" "q15", "q1" "q13";
    load "q8"; add "q10": "q1" "q14";
    load "q9"; add "q7": "q1" "q15", "q2" "q13";
    load "q10"; add "q8": "q2" "q14";
    load "q7"; add "q9": "q2" "q15", "q3" "q13";
    load "q8"; add "q10": "q3" "q14";
    load "q9"; add "q7": "q3" "q15", "q4" "q13";
    load "q10"; add "q8": "q4" "q14";
    load "q7"; add "q9": "q4" "q15", "q5" "q13";
    load "q8"; add "q10": "q5" "q14";
    load "q9"; add "q7": "q5" "q15", "q6" "q13";
    add "q8": "q6" "q14";
    add "q9": "q6" "q15";
}

kernel! {
    /// Width 5, stride 1.
    add_5x1: weights "q11" "q12" "q13" "q14" "q15";
    load "q7"; load "q8";
    load "q9"; add "q7": "q0" "q11";
    load "q10"; add "q8": "q0" "q12", "q1" "q11";
    load "q7"; add "q9": "q0" "q13", "q1" "q12", "q2" "q11";
    load "q8"; add "q10": "q0" "q14", "q1" "q13", "q2" "q12", "q3" "q11";
    load "q9"; add "q7": "q0" "q15", "q1" "q14", "q2" "q13", "q3" "q12", "q4" "q11";
    load "q10"; add "q8": "q1" "q15", "q2" "q14", "q3" "q13", "q4" "q12", "q5" "q11";
    load "q7"; add "q9": "q2" "q15", "q3" "q14", "q4" "q13", "q5" "q12", "q6" "q11";
    load "q8"; add "q10": "q3" "q15", "q4" "q14", "q5" "q13", "q6" "q12";
    load "q9"; add "q7": "q4" "q15", "q5" "q14", "q6" "q13";
    add "q8": "q5" "q15", "q6" "q14";
    add "q9": "q6" "q15";
}

kernel! {
    /// Width 5, stride 2.
    add_5x2: weights "q11" "q12" "q13" "q14" "q15";
    load "q7"; load "q8";
    load "q9"; add "q7": "q0" "q11";
    load "q10"; add "q8": "q0" "q12";
    load "q7"; add "q9": "q0" "q13", "q1" "q11";
    load "q8"; add "q10": "q0" "q14", "q1" "q12";
    load "q9"; add "q7": "q0" "q15", "q1" "q13", "q2" "q11";
    load "q10"; add "q8": "q1" "q14", "q2" "q12";
    load "q7"; add "q9": "q1" "q15", "q2" "q13", "q3" "q11";
    load "q8"; add "q10": "q2" "q14", "q3" "q12";
    load "q9"; add "q7": "q2" "q15", "q3" "q13", "q4" "q11";
    load "q10"; add "q8": "q3" "q14", "q4" "q12";
    load "q7"; add "q9": "q3" "q15", "q4" "q13", "q5" "q11";
    load "q8"; add "q10": "q4" "q14", "q5" "q12";
    load "q9"; add "q7": "q4" "q15", "q5" "q13", "q6" "q11";
    load "q10"; add "q8": "q5" "q14", "q6" "q12";
    load "q7"; add "q9": "q5" "q15", "q6" "q13";
    add "q10": "q6" "q14";
    add "q7": "q6" "q15";
}
