//! Camera frames: bytes to the normalized numbers of a tensor, by weighted sums down and then across.
//!
//! ```text
//! line[x]   = (sum over t of down[t] * rows[t][x]) >> shift                          (`down`)
//! sum[j][i] = sum over t of across[j][i][t] * line[j][first[j][i] + t]               (`across`)
//! out[c][i] = clamp(bias[c] + sum over j of matrix[c][j] * sum[j][i], low[c], high[c])
//! ```
//!
//! `down` reads contiguous bytes whatever they mean: one row of it serves luma, interleaved chroma and interleaved
//! colors alike. `across` picks the components j apart: where a component's samples are `step` apart in the line, its
//! packed weights have zeros between. It makes the sums of neighbors in the output at once: the columns of one line,
//! or one column of several lines where the frame lies on its side, so that a turn by 90 degrees needs no transposition.
//! Color conversion, normalization and the limits of a byte are one affine map and one clamp, while the sums are in
//! registers.
//!
//! Bytes times weights are summed in 32 bits, exactly; [`Down`] and [`Across`] choose the fixed point so that nothing
//! overflows and all weights together err by a small part of one level.

mod scalar;
mod taps;
mod tile;

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod neon;

#[cfg(all(test, target_os = "linux"))]
mod tests;

pub use taps::{Across, Down, Tap};

use crate::isa::Isa;

/// Most lines that [`across`] takes at once.
pub const LINES: usize = 8;

/// Rows of bytes: row r begins at `bytes[r * stride]`.
#[derive(Clone, Copy, Debug)]
pub struct Rows<'a> {
    /// From the first byte that is wanted; the last row may end with the last byte that is wanted.
    pub bytes: &'a [u8],
    /// From the start of a row to that of the next.
    pub stride: usize,
}

/// Asks for the first `len` bytes of `count` rows to come into the second-level cache: best before
/// [`across`], which leaves the memory idle, for the rows that [`down`] reads next.
///
/// # Panics
/// If there are fewer rows or they are shorter.
pub fn prefetch(rows: Rows<'_>, count: usize, len: usize) {
    for row in 0..count {
        crate::prefetch::prefetch(&rows.bytes[row * rows.stride..][..len]);
    }
}

/// The weighted sum of rows, one for each weight: `line.len()` bytes of each, and numbers of `line`.
///
/// `weights` and `shift` are those of [`Down`]: `line` is the mean of the rows with some bits of fraction, rounded to
/// the nearest.
///
/// # Panics
/// If `rows` are fewer than the weights or shorter than `line`, a weight is negative, the weights sum to more than 2^22,
/// `shift` is not in 1..=22, or the CPU does not have `isa`.
pub fn down(isa: Isa, rows: Rows<'_>, weights: &[i16], shift: u32, line: &mut [i16]) {
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
        // SAFETY: the instruction set is there (AVX-512 includes AVX2), and every row has as many bytes as the line.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 => unsafe { avx2::down(rows, weights, shift, line) },
        // SAFETY: the instruction set is there, and every row has as many bytes as the line.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { neon::down(rows, weights, shift, line) },
        _ => scalar::down(rows, weights, shift, line),
    }
}

/// One component of the source: a luma, a chroma or a color.
#[derive(Clone, Copy, Debug)]
pub struct Input<'a> {
    /// The lines that hold it, from its first sample on; past the last sample there is padding, whatever its values, for
    /// the zeros that weights are padded with.
    pub lines: &'a [i16],
    /// From a line to the next.
    pub stride: usize,
    /// Its taps.
    pub taps: &'a Across,
}

/// How components become channels.
#[derive(Clone, Debug, PartialEq)]
pub struct Colour {
    /// `matrix[c][j]`: what a sum of component j adds to channel c.
    pub matrix: [[f32; 3]; 3],
    /// What each channel begins with.
    pub bias: [f32; 3],
    /// The least that a channel may be.
    pub low: [f32; 3],
    /// The most that a channel may be.
    pub high: [f32; 3],
    /// Where the output has one channel: it is the clamped channels by the first three numbers, plus the fourth.
    pub grey: Option<[f32; 4]>,
}

impl Colour {
    /// Channels of the output.
    pub fn channels(&self) -> usize {
        if self.grey.is_some() { 1 } else { 3 }
    }
}

/// Where the channels of a pixel lie.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Layout {
    /// All pixels of a channel, then all of the next.
    Planar,
    /// The channels of a pixel, then those of the next.
    Interleaved,
}

/// The pixels that [`across`] writes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Course {
    /// One line, whose outputs are neighbors.
    Along,
    /// This many lines, at most [`LINES`]; the outputs of one column are neighbors, and those of the next column are
    /// `step` pixels further.
    Beside {
        /// How many lines.
        lines: usize,
        /// From a column's outputs to the next column's.
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

/// Sums across lines, and makes pixels of them: those of `out` from the pixel `at` on, as `course` says.
///
/// There are as many outputs in a line as every input's taps have, at least one; the inputs are one or three. A sum is
/// exact where no number of a line is above `255 << taps.line_bits()`.
///
/// # Panics
/// If the inputs are not one or three of equally many outputs, a line is shorter than its taps reach, there are no
/// lines or more than [`LINES`], a pixel lies outside `out`, or the CPU does not have `isa`.
pub fn across(
    isa: Isa,
    inputs: &[Input<'_>],
    colour: &Colour,
    layout: Layout,
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
    assert_eq!(out.len() % colour.channels(), 0, "the output is whole pixels");
    let pixels = out.len() / colour.channels();
    let end = match course {
        Course::Along => at.checked_add(outputs),
        Course::Beside { step, .. } => {
            (outputs - 1).checked_mul(step).and_then(|last| last.checked_add(lines)?.checked_add(at))
        }
    };
    assert!(end.is_some_and(|end| end <= pixels), "every pixel is one of the output");
    match inputs {
        [input] => sums(isa, &[*input], colour, layout, course, at, out),
        [a, b, c] => sums(isa, &[*a, *b, *c], colour, layout, course, at, out),
        _ => panic!("one input or three"),
    }
}

/// `across` for J inputs, after its checks.
fn sums<const J: usize>(
    isa: Isa,
    inputs: &[Input<'_>; J],
    colour: &Colour,
    layout: Layout,
    course: Course,
    at: usize,
    out: &mut [f32],
) {
    let job = tile::Job { inputs, colour, layout, course, at };
    match isa {
        // SAFETY: the instruction set is there (AVX-512 includes AVX2), lines and pixels are checked above.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 => unsafe { avx2::across(&job, out) },
        // SAFETY: the instruction set is there, lines and pixels are checked above.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { neon::across(&job, out) },
        _ => scalar::across(&job, out),
    }
}
