//! Permutes the axes of a tensor: NCHW to NHWC and back, attention heads and others.
//!
//! Axes that stay adjacent are merged first. Two cases remain. If the last axis stays last, its runs are copied.
//! Otherwise the tensor is a batch of matrix transpositions between the input's last axis and the output's last axis,
//! done in blocks that fit in the first-level cache. Elements of 4 bytes have register tiles (8 x 8 with AVX2, 4 x 4
//! with NEON).
//!
//! Elements are opaque: sizes of 1, 2, 4 and 8 bytes cover every type.

#[cfg(target_arch = "x86_64")]
mod avx2;
#[cfg(target_arch = "aarch64")]
mod neon;
mod permutation;
mod scalar;

#[cfg(test)]
mod tests;

use bytemuck::{cast_slice, cast_slice_mut};

use crate::copy::copy;
use crate::isa::Isa;
use crate::pace::Pace;
use crate::parallel;
use crate::threads::Pool;

use permutation::TransposeStep;
pub use permutation::{Permutation, PermutationError};

/// Writes `x` to `y` with its axes permuted. `size` is the size of an element in bytes: 1, 2, 4 or 8.
///
/// # Panics
/// If `size` is any other value, the length of `x` or `y` does not match the permutation, or the CPU does not have
/// `isa`.
pub fn transpose(isa: Isa, size: usize, p: &Permutation, x: &[u8], y: &mut [u8], pool: &Pool) {
    assert!(isa.is_available(), "this CPU does not have {isa}");
    assert_eq!(Some(x.len()), p.len().checked_mul(size), "input length");
    assert_eq!(x.len(), y.len(), "input and output lengths differ");
    if y.is_empty() {
        return;
    }
    // Each thread computes a range of the output's first axis.
    let row = p.row_len();
    parallel::split(pool, y, row * size, x.len() / 4, |offset, y| {
        let first = offset / size / row;
        let share = p.rows(first, y.len() / size / row);
        let x = &x[share.start * size..];
        let pace = Pace::of(pool);
        share.steps.for_each_step(|step| {
            match step {
                TransposeStep::Copy { from, to, len } => {
                    let (x, y) = (&x[from * size..][..len * size], &mut y[to * size..][..len * size]);
                    // A short copy takes as long as finding its place.
                    pace.spend(8)?;
                    copy(x, y, &pace)
                }
                TransposeStep::Matrix(m) => {
                    let [rows, columns] = m.piece();
                    for r in (0..m.rows).step_by(rows) {
                        for c in (0..m.columns).step_by(columns) {
                            let m = m.part(r, c, rows, columns);
                            pace.spend(8 + 2 * m.rows * m.columns)?;
                            match size {
                                1 => scalar::transpose::<1>(&m, x, y),
                                2 => scalar::transpose::<2>(&m, x, y),
                                4 => transpose_words(isa, &m, x, y),
                                8 => scalar::transpose::<8>(&m, x, y),
                                _ => panic!("elements of {size} bytes"),
                            }
                        }
                    }
                    Ok(())
                }
            }
        });
    });
}

/// Transposes a small matrix, on any CPU alike: `y[c * y_stride + r] = x[r * x_stride + c]`.
///
/// # Panics
/// If `x` or `y` is too short.
pub(crate) fn matrix(
    [rows, columns]: [usize; 2],
    (x, from_stride): (&[f32], usize),
    (y, to_stride): (&mut [f32], usize),
) {
    let m = Matrix { rows, columns, from: 0, from_stride, to: 0, to_stride };
    transpose_words(Isa::detect(), &m, cast_slice(x), cast_slice_mut(y));
}

/// One matrix transposition inside two tensors, in elements:
/// `y[to + c * to_stride + r] = x[from + r * from_stride + c]`.
#[derive(Clone, Copy, Debug)]
struct Matrix {
    rows: usize,
    columns: usize,
    from: usize,
    from_stride: usize,
    to: usize,
    to_stride: usize,
}

/// Rows and columns of a block whose input and output stay in the first-level cache
/// (2 x 16 KiB at 4 bytes).
const BLOCK: usize = 64;
/// Columns of a piece of a matrix; it has as many rows as a block's columns are long.
const PIECE_COLUMNS: usize = 1 << 10;

impl Matrix {
    /// The blocks of this matrix, row blocks outermost.
    fn blocks(self) -> impl Iterator<Item = Matrix> {
        let starts = |len: usize| (0..len).step_by(BLOCK);
        starts(self.rows).flat_map(move |r| starts(self.columns).map(move |c| self.part(r, c, BLOCK, BLOCK)))
    }

    /// Rows and columns of the parts between which a run may stop: a block of rows, or all of a matrix that is small.
    fn piece(self) -> [usize; 2] {
        let small = self.rows.saturating_mul(self.columns) <= BLOCK * PIECE_COLUMNS;
        if small { [self.rows.max(1), self.columns.max(1)] } else { [BLOCK, PIECE_COLUMNS] }
    }

    /// At most `rows` x `columns` elements starting at row `r` and column `c`.
    #[inline(always)]
    fn part(self, r: usize, c: usize, rows: usize, columns: usize) -> Matrix {
        Matrix {
            rows: rows.min(self.rows - r),
            columns: columns.min(self.columns - c),
            from: self.from + r * self.from_stride + c,
            to: self.to + c * self.to_stride + r,
            ..self
        }
    }

    /// The remainders that a kernel with square tiles of `tile` does not cover: the columns on the right and the rows
    /// at the bottom.
    #[inline(always)]
    fn edges(self, tile: usize) -> [Matrix; 2] {
        let (rows, columns) = (self.rows / tile * tile, self.columns / tile * tile);
        [self.part(0, columns, rows, self.columns - columns), self.part(rows, 0, self.rows - rows, self.columns)]
    }
}

fn transpose_words(isa: Isa, m: &Matrix, x: &[u8], y: &mut [u8]) {
    match isa {
        // SAFETY: the callers have checked that the CPU has the instruction set; AVX-512 includes AVX2.
        #[cfg(target_arch = "x86_64")]
        Isa::Avx2 | Isa::Avx512 => unsafe { avx2::transpose(m, x, y) },
        // SAFETY: the callers have checked that the CPU has NEON.
        #[cfg(target_arch = "aarch64")]
        Isa::Neon => unsafe { neon::transpose(m, x, y) },
        _ => scalar::transpose::<4>(m, x, y),
    }
}
