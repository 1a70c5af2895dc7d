//! The tiles of 32-bit ARM.
//!
//! The generic code would take two instructions for every four multiply-adds, and three to load a column. This assembly
//! takes one for either, with whole registers: seven of sums, one of each weight of a kernel row, and four in which the
//! next columns arrive. It also applies the activations that other instruction sets apply in registers. The registers
//! that it writes are named by their halves: of the whole ones the compiler knows nothing.

use std::arch::asm;
use std::mem::{MaybeUninit, offset_of};

use super::run::{Line, MAX_LINES, WIDTH, Window};
use crate::epilogue::InRegisters;
use crate::lanes::Lanes;
use crate::lanes::neon32::F32x4;

/// Input columns under a tile of the widest kernel, at stride 2.
const MAX_COLUMNS: usize = 2 * (WIDTH - 1) + 5;
/// Bytes of an element.
const SIZE: usize = size_of::<f32>();

/// What a function for a kernel's width and stride computes: a tile of four channels.
#[repr(C)]
struct Job {
    /// `count` pointers, one for each kernel row.
    lines: *const *const f32,
    count: usize,
    /// Bytes from such a pointer to the first column, which may wrap around.
    first: usize,
    /// Bytes from one column to the next.
    width: usize,
    /// The weights of the first kernel row.
    weights: *const f32,
    /// Bytes from one weight of a row to the next, and from the last to the next row.
    channels: usize,
    /// Four start values of the sums.
    start: *const f32,
    /// `outputs` pixels, `pitch` bytes apart.
    out: *mut f32,
    pitch: usize,
    outputs: usize,
    /// Of the activation: least and largest value, or the four of hard swish.
    constants: [f32; 4],
    is_hard_swish: usize,
}

impl Line<'_, '_> {
    /// Computes a tile. With `EDGE`, some of its columns or outputs are missing.
    ///
    /// # Safety
    /// As for `tiles`; `tile` is correct, and without `EDGE` nothing is missing. `L` is [`F32x4`], the only register of
    /// this architecture.
    #[inline(always)]
    pub(super) unsafe fn tile<L: Lanes, const K: usize, const S: usize, const EDGE: bool>(&self, tile: &Window) {
        const { assert!(size_of::<L>() == size_of::<F32x4>() && L::WIDTH == F32x4::WIDTH) };
        // SAFETY: guaranteed by the caller.
        unsafe { self.columns::<K, S, EDGE>(tile) }
    }

    /// # Safety
    /// As for [`tile`](Self::tile).
    #[inline(never)]
    unsafe fn columns<const K: usize, const S: usize, const EDGE: bool>(&self, tile: &Window) {
        let (s, channels, taps) = (self.args.shape, self.args.channels.clone(), self.taps_y.clone());
        let (width, columns) = (self.args.pixel(), (WIDTH - 1) * S + K);
        let lines = if taps.is_empty() { &[] } else { &self.lines[taps.clone()] };
        let left = (tile.x * S).wrapping_sub(s.pad_left).wrapping_mul(width);
        let out = self.place::<1, EDGE>(tile);
        // The columns that exist: all but those at the ends.
        let from = if EDGE { (tile.inside.trailing_zeros() as usize).min(columns) } else { 0 };
        let end = ((u32::BITS - tile.inside.leading_zeros()) as usize).clamp(from, columns);
        let mut copies = Copies::new();
        if EDGE {
            copies.clear(lines.len(), from, end, columns);
        }
        let zeros = [0.0; F32x4::WIDTH];
        let mut sums = Sums([const { MaybeUninit::uninit() }; WIDTH]);
        let mut job = Job {
            lines: lines.as_ptr(),
            count: lines.len(),
            first: 0,
            width: width * SIZE,
            weights: std::ptr::null(),
            channels: s.in_c * SIZE,
            start: zeros.as_ptr(),
            out: sums.0.as_mut_ptr().cast(),
            pitch: size_of::<F32x4>(),
            outputs: WIDTH,
            constants: [f32::NEG_INFINITY, f32::INFINITY, 0.0, 0.0],
            is_hard_swish: 0,
        };
        // A residual is added by the generic code.
        let direct = self.tail.residual.is_null();
        if direct {
            (job.pitch, job.outputs) = (s.out_c * SIZE, tile.outputs);
            match self.tail.activation {
                InRegisters::Clamp(min, max) => job.constants[..2].copy_from_slice(&[min, max]),
                InRegisters::HardSwish => {
                    (job.constants, job.is_hard_swish) = ([3.0, 0.0, 6.0, 1.0 / 6.0], 1);
                }
                InRegisters::Later => {}
            }
        }
        for channel in channels.clone().step_by(F32x4::WIDTH) {
            // The last register overlaps the channels before it, which are then computed and stored twice.
            let channel = channel.min(channels.end - F32x4::WIDTH);
            job.first = left.wrapping_add(channel - channels.start).wrapping_mul(SIZE);
            job.weights = self.args.packed.as_ptr().wrapping_add(taps.start * K * s.in_c + channel);
            if !self.tail.bias.is_null() {
                job.start = self.tail.bias.wrapping_add(channel);
            }
            if direct {
                job.out = out.wrapping_add(channel - channels.start);
            }
            // SAFETY: the columns that exist are readable, the others are in the copies; there is a weight and a bias
            // for each channel. The outputs are the tile's, which `place` found, or `sums`, which are then initialized.
            unsafe {
                if EDGE {
                    for (line, copy) in lines.iter().zip(&mut copies.columns) {
                        let at = line.wrapping_byte_add(job.first.wrapping_add(from * job.width));
                        copy_columns(at, job.width, &mut copy[from..end]);
                    }
                    (job.lines, job.first) = (copies.lines.as_ptr(), 0);
                    compute::<K, S>(&Job { width: size_of::<F32x4>(), ..job });
                } else {
                    compute::<K, S>(&job);
                }
                if !direct {
                    self.store::<F32x4, 1, EDGE>(tile, out, channel, [sums.0.map(|sum| sum.assume_init())]);
                }
            }
        }
    }
}

/// The sums of a tile to which a residual is added.
struct Sums([MaybeUninit<F32x4>; WIDTH]);

/// Copies of the lines under a tile, with zeros for columns that do not exist.
struct Copies {
    columns: [[MaybeUninit<F32x4>; MAX_COLUMNS]; MAX_LINES],
    lines: [*const f32; MAX_LINES],
}

impl Copies {
    fn new() -> Self {
        Self {
            columns: [[const { MaybeUninit::uninit() }; MAX_COLUMNS]; MAX_LINES],
            lines: [std::ptr::null(); MAX_LINES],
        }
    }

    /// Zeros the columns of `count` lines outside of `from..end`, and finds where the lines are.
    fn clear(&mut self, count: usize, from: usize, end: usize, columns: usize) {
        for (copy, line) in self.columns.iter_mut().zip(&mut self.lines).take(count) {
            // SAFETY: code of this instruction set calls it.
            let zero = MaybeUninit::new(unsafe { F32x4::splat(0.0) });
            copy[..from].fill(zero);
            copy[end..columns].fill(zero);
            *line = copy.as_ptr().cast();
        }
    }
}

/// Copies four elements of each column.
///
/// # Safety
/// The CPU has NEON; as many columns as `to` has registers are readable, `width` bytes apart.
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
            width = in(reg) width,
            to = inout(reg) to.as_mut_ptr() => _,
            count = inout(reg) to.len() => _,
            out("d0") _, out("d1") _,
            options(nostack)
        );
    }
}

/// Computes a job for a kernel of width `K` at stride `S`.
///
/// # Safety
/// The CPU has NEON and VFPv4. All columns under the tile are readable for four elements in each line, and so are all
/// weights and start values; the outputs are writable, at least one and at most [`WIDTH`]. There is a function for the
/// width and the stride.
#[inline(always)]
unsafe fn compute<const K: usize, const S: usize>(job: &Job) {
    // SAFETY: guaranteed by the caller.
    unsafe {
        match (K, S) {
            (3, 1) => tile_3x1(job),
            (3, 2) => tile_3x2(job),
            (5, 1) => tile_5x1(job),
            (5, 2) => tile_5x2(job),
            _ => unreachable!("a kernel of width {K} at stride {S}"),
        }
    }
}

/// One step of a kernel row: a column arrives in a register, or one is multiplied by weights and added to sums.
macro_rules! step {
    (load $to:literal) => { concat!("vld1.32 {{", $to, "}}, [{line}], {width}\n") };
    (add $pixel:literal: $($sum:literal $weight:literal),+) => {
        concat!($("vfma.f32 ", $sum, ", ", $pixel, ", ", $weight, "\n"),+)
    };
}

/// What is done with each of the sums.
macro_rules! each_sum {
    ($name:ident) => {
        concat!($name!("q0"), $name!("q1"), $name!("q2"), $name!("q3"), $name!("q4"), $name!("q5"), $name!("q6"))
    };
}

/// `min(max(x, q7), q8)`
macro_rules! clamp {
    ($x:literal) => {
        concat!("vmax.f32 ", $x, ", ", $x, ", q7\n", "vmin.f32 ", $x, ", ", $x, ", q8\n")
    };
}

/// `x q10 min(max(x + q7, q8), q9)`
macro_rules! hard_swish {
    ($x:literal) => {
        concat!(
            "vadd.f32 q11, ",
            $x,
            ", q7\n",
            "vmul.f32 ",
            $x,
            ", ",
            $x,
            ", q10\n",
            "vmax.f32 q11, q11, q8\n",
            "vmin.f32 q11, q11, q9\n",
            "vmul.f32 ",
            $x,
            ", ",
            $x,
            ", q11\n"
        )
    };
}

/// A function for a width and stride: the registers of the weights of a row, and what is done with each of its columns.
macro_rules! kernel {
    (
        $(#[$about:meta])* $name:ident: weights $($weight:literal)+;
        $($step:ident $register:literal $(: $($sum:literal $by:literal),+)?;)+
    ) => {
        $(#[$about])*
        ///
        /// # Safety
        /// As for [`compute`].
        unsafe fn $name(job: &Job) {
            // SAFETY: reads every column of each line and a row of weights for each, and writes as many outputs as there
            // are. All registers that it writes are named as operands.
            unsafe {
                asm!(
                    ".fpu neon-vfpv4",
                    "ldr {line}, [{job}, #{start}]",
                    "vld1.32 {{d0-d1}}, [{line}]",
                    "vmov q1, q0",
                    "vmov q2, q0",
                    "vmov q3, q0",
                    "vmov q4, q0",
                    "vmov q5, q0",
                    "vmov q6, q0",
                    "ldr {count}, [{job}, #{of_count}]",
                    "ldr {lines}, [{job}, #{of_lines}]",
                    "ldr {first}, [{job}, #{of_first}]",
                    "ldr {width}, [{job}, #{of_width}]",
                    "ldr {weights}, [{job}, #{of_weights}]",
                    "ldr {channels}, [{job}, #{of_channels}]",
                    "cmp {count}, #0",
                    "beq 3f",
                    "2:",
                    "ldr {line}, [{lines}], #4",
                    "add {line}, {line}, {first}",
                    $(concat!("vld1.32 {{", $weight, "}}, [{weights}], {channels}"),)+
                    $(step!($step $register $(: $($sum $by),+)?),)+
                    "subs {count}, {count}, #1",
                    "bne 2b",
                    "3:",
                    "add {line}, {job}, #{constants}",
                    "vld1.32 {{d14[], d15[]}}, [{line}]!",
                    "vld1.32 {{d16[], d17[]}}, [{line}]!",
                    "ldr {count}, [{job}, #{is_hard_swish}]",
                    "cmp {count}, #0",
                    "bne 4f",
                    each_sum!(clamp),
                    "b 5f",
                    "4:",
                    "vld1.32 {{d18[], d19[]}}, [{line}]!",
                    "vld1.32 {{d20[], d21[]}}, [{line}]!",
                    each_sum!(hard_swish),
                    "5:",
                    "ldr {count}, [{job}, #{outputs}]",
                    "ldr {line}, [{job}, #{out}]",
                    "ldr {width}, [{job}, #{pitch}]",
                    "subs {count}, {count}, #1",
                    "vst1.32 {{d0-d1}}, [{line}], {width}",
                    "beq 6f",
                    "subs {count}, {count}, #1",
                    "vst1.32 {{d2-d3}}, [{line}], {width}",
                    "beq 6f",
                    "subs {count}, {count}, #1",
                    "vst1.32 {{d4-d5}}, [{line}], {width}",
                    "beq 6f",
                    "subs {count}, {count}, #1",
                    "vst1.32 {{d6-d7}}, [{line}], {width}",
                    "beq 6f",
                    "subs {count}, {count}, #1",
                    "vst1.32 {{d8-d9}}, [{line}], {width}",
                    "beq 6f",
                    "subs {count}, {count}, #1",
                    "vst1.32 {{d10-d11}}, [{line}], {width}",
                    "beq 6f",
                    "vst1.32 {{d12-d13}}, [{line}]",
                    "6:",
                    job = in(reg) &raw const *job,
                    lines = out(reg) _,
                    count = out(reg) _,
                    line = out(reg) _,
                    first = out(reg) _,
                    width = out(reg) _,
                    weights = out(reg) _,
                    channels = out(reg) _,
                    of_lines = const offset_of!(Job, lines),
                    of_count = const offset_of!(Job, count),
                    of_first = const offset_of!(Job, first),
                    of_width = const offset_of!(Job, width),
                    of_weights = const offset_of!(Job, weights),
                    of_channels = const offset_of!(Job, channels),
                    start = const offset_of!(Job, start),
                    out = const offset_of!(Job, out),
                    pitch = const offset_of!(Job, pitch),
                    outputs = const offset_of!(Job, outputs),
                    constants = const offset_of!(Job, constants),
                    is_hard_swish = const offset_of!(Job, is_hard_swish),
                    out("d0") _, out("d1") _, out("d2") _, out("d3") _, out("d4") _, out("d5") _,
                    out("d6") _, out("d7") _, out("d8") _, out("d9") _, out("d10") _, out("d11") _,
                    out("d12") _, out("d13") _, out("d14") _, out("d15") _, out("d16") _, out("d17") _,
                    out("d18") _, out("d19") _, out("d20") _, out("d21") _, out("d22") _, out("d23") _,
                    out("d24") _, out("d25") _, out("d26") _, out("d27") _, out("d28") _, out("d29") _,
                    out("d30") _, out("d31") _,
                    options(nostack)
                );
            }
        }
    };
}

kernel! {
    /// Width 3, stride 1.
    tile_3x1: weights "q13" "q14" "q15";
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
    tile_3x2: weights "q13" "q14" "q15";
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
    tile_5x1: weights "q11" "q12" "q13" "q14" "q15";
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
    tile_5x2: weights "q11" "q12" "q13" "q14" "q15";
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
