//! `across` for any instruction set that can sum products of 16 bits: one register of outputs at a time.

use super::{Across, ChannelOrder, Color, ComponentLines, Course};
use crate::lanes::Lanes;

/// The arguments of `across`.
pub(super) struct Job<'a, const J: usize> {
    pub inputs: &'a [ComponentLines<'a>; J],
    pub color: &'a Color,
    pub layout: ChannelOrder,
    pub course: Course,
    pub at: usize,
}

/// Most lanes of a register.
pub(super) const MOST: usize = 16;

/// A register in which each lane can hold a sum of products.
pub(super) trait Sums: Lanes {
    /// Lane i is the sum of `numbers[i][t] * weights[i][t]`, exact and then rounded to a float.
    ///
    /// # Safety
    /// The CPU has the instruction set and the caller is compiled for it; each of the first `WIDTH` pointers is
    /// readable for `count` elements, which is a multiple of 16 (`Across::BLOCK`) and not 0.
    unsafe fn sums(numbers: &[*const i16; MOST], weights: &[*const i16; MOST], count: usize) -> Self;

    /// Writes `a[0], b[0], c[0], a[1], ...`
    ///
    /// # Safety
    /// `to` is writable for three registers.
    #[inline(always)]
    unsafe fn store_interleaved(channels: [Self; 3], to: *mut f32) {
        let mut lanes = [[0.0f32; MOST]; 3];
        for (lanes, channel) in lanes.iter_mut().zip(channels) {
            // SAFETY: no register has more lanes; and guaranteed by the caller.
            unsafe { channel.store(lanes.as_mut_ptr()) };
        }
        for i in 0..Self::WIDTH {
            for (c, lanes) in lanes.iter().enumerate() {
                // SAFETY: as above.
                unsafe { *to.add(i * 3 + c) = lanes[i] };
            }
        }
    }
}

/// Like [`super::across`].
///
/// # Safety
/// The checks of `across` have passed; the CPU has the instruction set of `L` and the caller is compiled for it.
#[inline(always)]
pub(super) unsafe fn across<L: Sums, const J: usize>(job: &Job<'_, J>, out: &mut [f32]) {
    let outputs = job.inputs[0].taps.outputs();
    // SAFETY: the caller has the instruction set.
    let mut sums = [unsafe { L::splat(0.0) }; J];
    match job.course {
        Course::Along => {
            let mut output = 0;
            while output < outputs {
                for (sum, input) in sums.iter_mut().zip(job.inputs) {
                    // SAFETY: taps are stored for whole groups of outputs; each reads `padded` elements starting at its
                    // first, all inside the line.
                    *sum = unsafe { neighbors(input, output) };
                }
                // SAFETY: these pixels lie inside `out`.
                unsafe { put(job, &sums, job.at + output, (outputs - output).min(L::WIDTH), out) };
                output += L::WIDTH;
            }
        }
        Course::Beside { lines, step } => {
            for output in 0..outputs {
                let mut line = 0;
                while line < lines {
                    for (sum, input) in sums.iter_mut().zip(job.inputs) {
                        // SAFETY: every line has the `padded` elements starting at the output's first.
                        *sum = unsafe { column(input, output, line, lines) };
                    }
                    let pixel = job.at + output * step + line;
                    // SAFETY: these pixels lie inside `out`.
                    unsafe { put(job, &sums, pixel, (lines - line).min(L::WIDTH), out) };
                    line += L::WIDTH;
                }
            }
        }
    }
}

/// Sums of adjacent outputs of the first line.
///
/// # Safety
/// As for [`Sums::sums`]: `output` is below the input's outputs and a multiple of `WIDTH`.
#[inline(always)]
unsafe fn neighbors<L: Sums>(input: &ComponentLines<'_>, output: usize) -> L {
    let padded = input.taps.padded();
    // SAFETY: guaranteed by the caller. The usual case is compiled separately, without loops.
    unsafe {
        if padded == Across::BLOCK {
            neighbors_of(input, output, Across::BLOCK)
        } else {
            neighbors_of(input, output, padded)
        }
    }
}

/// Like `neighbors`, for taps of `padded` weights.
///
/// # Safety
/// As for `neighbors`.
#[inline(always)]
unsafe fn neighbors_of<L: Sums>(input: &ComponentLines<'_>, output: usize, padded: usize) -> L {
    let (mut numbers, mut weights) = ([std::ptr::null(); MOST], [std::ptr::null(); MOST]);
    // SAFETY: guaranteed by the caller; `first` holds whole groups of MOST, a multiple of WIDTH.
    unsafe {
        let first = input.taps.first().as_ptr().add(output);
        let packed = input.taps.weights().as_ptr().add(output * padded);
        for i in 0..L::WIDTH {
            numbers[i] = input.lines.as_ptr().add(*first.add(i));
            weights[i] = packed.add(i * padded);
        }
        L::sums(&numbers, &weights, padded)
    }
}

/// Sums of one output in adjacent lines starting at `line`; lines past the last are replaced by the last.
///
/// # Safety
/// As for [`Sums::sums`]: `output` is below the input's outputs and `line` below `lines`.
#[inline(always)]
unsafe fn column<L: Sums>(input: &ComponentLines<'_>, output: usize, line: usize, lines: usize) -> L {
    let (first, packed) = input.taps.output(output);
    let mut numbers = [std::ptr::null(); MOST];
    for (i, numbers) in numbers.iter_mut().enumerate().take(L::WIDTH) {
        let at = (line + i).min(lines - 1) * input.stride + first;
        // SAFETY: guaranteed by the caller.
        *numbers = unsafe { input.lines.as_ptr().add(at) };
    }
    let weights = [packed.as_ptr(); MOST];
    // SAFETY: guaranteed by the caller. The usual case is compiled separately, without loops.
    unsafe {
        if packed.len() == Across::BLOCK {
            L::sums(&numbers, &weights, Across::BLOCK)
        } else {
            L::sums(&numbers, &weights, packed.len())
        }
    }
}

/// Computes the channels of `count` adjacent pixels and writes them.
///
/// # Safety
/// The pixels lie inside `out`, and `count` is 1 to `WIDTH`; the CPU has the instruction set.
#[inline(always)]
unsafe fn put<L: Sums, const J: usize>(job: &Job<'_, J>, sums: &[L; J], pixel: usize, count: usize, out: &mut [f32]) {
    let color = job.color;
    let to = out.as_mut_ptr();
    // SAFETY: guaranteed by the caller; a gray pixel has one channel, others have three.
    unsafe {
        let mut channels = [L::splat(0.0); 3];
        for (c, channel) in channels.iter_mut().enumerate() {
            let mut value = L::splat(color.bias[c]);
            for (sum, &by) in sums.iter().zip(&color.matrix[c]) {
                value = sum.mul_add(L::splat(by), value);
            }
            *channel = value.at_least(L::splat(color.low[c])).at_most(L::splat(color.high[c]));
        }
        if let Some([r, g, b, constant]) = color.gray {
            let gray = channels[0].mul_add(L::splat(r), L::splat(constant));
            let gray = channels[1].mul_add(L::splat(g), gray);
            store(channels[2].mul_add(L::splat(b), gray), to.add(pixel), count);
        } else if job.layout == ChannelOrder::Planar {
            let pixels = out.len() / 3;
            for (c, channel) in channels.into_iter().enumerate() {
                store(channel, to.add(c * pixels + pixel), count);
            }
        } else if count == L::WIDTH {
            L::store_interleaved(channels, to.add(pixel * 3));
        } else {
            let mut whole = [0.0f32; 3 * MOST];
            L::store_interleaved(channels, whole.as_mut_ptr());
            std::ptr::copy_nonoverlapping(whole.as_ptr(), to.add(pixel * 3), count * 3);
        }
    }
}

/// Writes the first `count` lanes.
///
/// # Safety
/// `to` is writable for `count` elements, at most `WIDTH`.
#[inline(always)]
unsafe fn store<L: Sums>(register: L, to: *mut f32, count: usize) {
    // SAFETY: guaranteed by the caller.
    unsafe { if count == L::WIDTH { register.store(to) } else { register.store_first(to, count) } }
}
