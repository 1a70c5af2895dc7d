//! Camera frames: converts bytes to the normalized floats of a tensor by weighted sums, first down and then across.
//!
//! ```text
//! line[x]   = (sum over t of down[t] * rows[t][x]) >> shift                          (`down`)
//! sum[j][i] = sum over t of across[j][i][t] * line[j][first[j][i] + t]               (`across`)
//! out[c][i] = clamp(bias[c] + sum over j of matrix[c][j] * sum[j][i], low[c], high[c])
//! ```
//!
//! `down` reads contiguous bytes, whatever they represent: one call processes a row of luma, of interleaved chroma or
//! of interleaved colors. `across` separates the components j: if a component's samples are `step` apart in the line,
//! its packed weights have zeros in between. It computes the sums of adjacent outputs at once: the columns of one line,
//! or one column of several lines if the frame is rotated by 90 degrees, so that no transposition is needed. Color
//! conversion, normalization and the limits of a byte are one affine map and one clamp, applied while the sums are in
//! registers.
//!
//! Samples of more than 8 bits take two bytes, which `down` sums like any others and `across` puts together
//! ([`SampleWidth`]).
//!
//! Bytes times weights are summed exactly in 32 bits; [`Down`] and [`Across`] choose the fixed-point format so that
//! nothing overflows and the total error of the weights is a small part of one level.

mod scalar;
mod taps;
mod tile;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(all(test, target_os = "linux"))]
mod tests;

pub use taps::{Across, Down, SampleWidth, Tap};

use crate::isa::Isa;

/// Most lines that [`across`] takes at once.
pub const LINES: usize = 8;

/// Rows of bytes: row r begins at `bytes[r * stride]`.
#[derive(Clone, Copy, Debug)]
pub struct FrameRows<'a> {
    /// The bytes, starting at the first one needed; the last row may end with the last byte needed.
    pub bytes: &'a [u8],
    /// Bytes from one row to the next.
    pub stride: usize,
}

/// Prefetches the first `len` bytes of `count` rows into the second-level cache. Best called for the rows that [`down`]
/// reads next, before [`across`], during which memory is idle.
///
/// # Panics
/// If there are fewer rows, or they are shorter.
pub fn prefetch(rows: FrameRows<'_>, count: usize, len: usize) {
    for row in 0..count {
        crate::prefetch::prefetch(&rows.bytes[row * rows.stride..][..len]);
    }
}

/// The weighted sum of rows, one row per weight, over the first `line.len()` bytes of each.
///
/// `weights` and `shift` come from [`Down`]: `line` becomes the mean of the rows in fixed point, rounded to nearest.
///
/// # Panics
/// If there are fewer rows than weights or they are shorter than `line`, a weight is negative, the weights sum to more
/// than 2^22, `shift` is not in 1..=22, or the CPU does not have `isa`.
pub fn down(isa: Isa, rows: FrameRows<'_>, weights: &[i16], shift: u32, line: &mut [i16]) {
    assert!(isa.is_available(), "this CPU does not have {isa}");
    assert!((1..=22).contains(&shift), "a shift of {shift}");
    let total: i64 = weights.iter().map(|&w| i64::from(w)).sum();
    assert!(weights.iter().all(|&w| w >= 0) && total <= 1 << 22, "weights are a share of 2^22");
    if line.is_empty() || weights.is_empty() {
        return line.fill(0);
    }
    let last = (weights.len() - 1).checked_mul(rows.stride).and_then(|at| at.checked_add(line.len()));
    assert!(last.is_some_and(|end| end <= rows.bytes.len()), "a row for each weight, as long as the line");
    match isa {
        // SAFETY: the CPU has the instruction set (AVX-512 includes AVX2), and every row has as many bytes as the line.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 => unsafe { avx2::down(rows, weights, shift, line) },
        // SAFETY: the CPU has the instruction set, and every row has as many bytes as the line.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { neon::down(rows, weights, shift, line) },
        _ => scalar::down(rows, weights, shift, line),
    }
}

/// One component of the source: luma, one of chroma, or one of RGB.
#[derive(Clone, Copy, Debug)]
pub struct ComponentLines<'a> {
    /// The lines that contain it, starting at its first sample. The padding after the last sample may have any value,
    /// because weights are padded with zeros.
    pub lines: &'a [i16],
    /// Elements from one line to the next.
    pub stride: usize,
    /// Its taps.
    pub taps: &'a Across,
}

/// How components become channels.
#[derive(Clone, Debug, PartialEq)]
pub struct Color {
    /// `matrix[c][j]` is the factor of the sum of component j in channel c.
    pub matrix: [[f32; 3]; 3],
    /// Start value of each channel.
    pub bias: [f32; 3],
    /// Lower bound of each channel.
    pub low: [f32; 3],
    /// Upper bound of each channel.
    pub high: [f32; 3],
    /// If the output has one channel: the clamped channels times the first three factors, plus the fourth element.
    pub gray: Option<[f32; 4]>,
}

impl Color {
    /// Channels of the output.
    pub fn channels(&self) -> usize {
        if self.gray.is_some() { 1 } else { 3 }
    }
}

/// Memory layout of the channels of a pixel.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum ChannelOrder {
    /// All pixels of a channel, then all of the next channel.
    Planar,
    /// All channels of a pixel, then those of the next pixel.
    Interleaved,
}

/// The pixels that [`across`] writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Course {
    /// One line, whose outputs are adjacent.
    Along,
    /// This many lines, at most [`LINES`]: the outputs of one column are adjacent, and those of the next column are
    /// `step` pixels further.
    Beside {
        /// How many lines.
        lines: usize,
        /// Pixels from a column's outputs to the next column's.
        step: usize,
    },
}

impl Course {
    fn lines(self) -> usize {
        match self {
            Course::Along => 1,
            Course::Beside { lines, .. } => lines,
        }
    }
}

/// Sums across lines and converts the sums to the pixels of `out` starting at pixel `at`, in the order of `course`.
///
/// There are one or three inputs, whose taps have the same number of outputs per line, at least one. A sum is exact if
/// no element of a line is above `255 << taps.line_bits()`.
///
/// # Panics
/// If there are not one or three inputs with equally many outputs, a line is shorter than its taps reach, there are no
/// lines or more than [`LINES`], a pixel lies outside `out`, or the CPU does not have `isa`.
pub fn across(
    isa: Isa,
    inputs: &[ComponentLines<'_>],
    color: &Color,
    layout: ChannelOrder,
    course: Course,
    at: usize,
    out: &mut [f32],
) {
    assert!(isa.is_available(), "this CPU does not have {isa}");
    let Some(first) = inputs.first() else { panic!("one input or three") };
    let (outputs, lines) = (first.taps.outputs(), course.lines());
    assert!(outputs >= 1, "a line has an output");
    assert!((1..=LINES).contains(&lines), "{lines} lines at once");
    for input in inputs {
        assert_eq!(input.taps.outputs(), outputs, "inputs have equally many outputs");
        let end = (lines - 1).checked_mul(input.stride).and_then(|start| start.checked_add(input.taps.reach()));
        assert!(end.is_some_and(|end| end <= input.lines.len()), "a line is as long as its taps reach");
    }
    assert_eq!(out.len() % color.channels(), 0, "the output is whole pixels");
    let pixels = out.len() / color.channels();
    let end = match course {
        Course::Along => at.checked_add(outputs),
        Course::Beside { step, .. } => {
            (outputs - 1).checked_mul(step).and_then(|last| last.checked_add(lines)?.checked_add(at))
        }
    };
    assert!(end.is_some_and(|end| end <= pixels), "every pixel is one of the output");
    match inputs {
        [input] => sums(isa, &[*input], color, layout, course, at, out),
        [a, b, c] => sums(isa, &[*a, *b, *c], color, layout, course, at, out),
        _ => panic!("one input or three"),
    }
}

/// `across` for J inputs, after its checks.
fn sums<const J: usize>(
    isa: Isa,
    inputs: &[ComponentLines<'_>; J],
    color: &Color,
    layout: ChannelOrder,
    course: Course,
    at: usize,
    out: &mut [f32],
) {
    let job = tile::Job { inputs, color, layout, course, at };
    match isa {
        // SAFETY: the CPU has the instruction set (AVX-512 includes AVX2); lines and pixels are checked above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 => unsafe { avx2::across(&job, out) },
        // SAFETY: the CPU has the instruction set; lines and pixels are checked above.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { neon::across(&job, out) },
        _ => scalar::across(&job, out),
    }
}
