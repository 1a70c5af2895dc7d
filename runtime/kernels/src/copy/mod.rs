//! Copies blocks of a tensor: Concat, Split, Slice, Pad, Expand.
//!
//! Elements are opaque bytes. `memcpy` moves long runs at memory speed on every CPU, so each function has only one
//! variant.

#[cfg(test)]
mod tests;

use crate::pace::{PIECE, Pace, Stopped};

/// Blocks of bytes at constant distances in the input and in the output.
///
/// Concatenating along an axis copies, for each input, one block for every index of the axes before it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Blocks {
    /// The length of a block in bytes.
    pub len: usize,
    /// How many blocks.
    pub count: usize,
    /// Offset of the first block in the input.
    pub from: usize,
    /// Bytes from one block to the next in the input.
    pub from_step: usize,
    /// Offset of the first block in the output.
    pub to: usize,
    /// Bytes from one block to the next in the output.
    pub to_step: usize,
}

/// Copies `x` to `y`, piece by piece.
///
/// # Errors
/// If the run is to stop.
///
/// # Panics
/// If the lengths differ.
pub fn copy(x: &[u8], y: &mut [u8], pace: &Pace<'_>) -> Result<(), Stopped> {
    assert_eq!(x.len(), y.len(), "input and output lengths differ");
    for (x, y) in x.chunks(PIECE).zip(y.chunks_mut(PIECE)) {
        pace.spend(x.len() / 4)?;
        y.copy_from_slice(x);
    }
    Ok(())
}

/// Steps of a copy of `len` bytes, apart from its own.
fn steps(len: usize) -> usize {
    8 + len / 4
}

/// Copies blocks.
///
/// # Errors
/// If the run is to stop.
///
/// # Panics
/// If a block lies outside `x` or `y`.
pub fn copy_blocks(blocks: &Blocks, x: &[u8], y: &mut [u8], pace: &Pace<'_>) -> Result<(), Stopped> {
    let Blocks { len, count, from, from_step, to, to_step } = *blocks;
    if len == 0 {
        return Ok(());
    }
    if len == from_step && len == to_step {
        return copy(&x[from..][..len * count], &mut y[to..][..len * count], pace);
    }
    for i in 0..count {
        let (x, y) = (&x[from + i * from_step..][..len], &mut y[to + i * to_step..][..len]);
        if len > PIECE {
            copy(x, y, pace)?;
        } else {
            pace.spend(steps(len))?;
            y.copy_from_slice(x);
        }
    }
    Ok(())
}

/// A walk over a box of elements in the input and in the output, with separate strides.
///
/// Strides are in elements. They may be negative (a reversed slice) or, in the input, 0 (an element is repeated).
#[derive(Clone, Copy, Debug)]
pub struct StridedCopy<'a> {
    /// The lengths of the box.
    pub shape: &'a [usize],
    /// Index of the input element at which the walk starts.
    pub from: usize,
    /// One stride per axis.
    pub from_strides: &'a [isize],
    /// Index of the output element at which the walk starts.
    pub to: usize,
    /// One stride per axis.
    pub to_strides: &'a [isize],
}

/// Copies a box of elements of `size` bytes.
///
/// # Errors
/// If the run is to stop.
///
/// # Panics
/// If the axis counts differ, there are more than 16 axes, `size` is 0, or the walk leaves `x` or `y`.
pub fn copy_strided(
    size: usize,
    copy: &StridedCopy<'_>,
    x: &[u8],
    y: &mut [u8],
    pace: &Pace<'_>,
) -> Result<(), Stopped> {
    assert!(size > 0, "the element size is 0");
    let rank = copy.shape.len();
    assert!(copy.from_strides.len() == rank && copy.to_strides.len() == rank, "stride count");
    if copy.shape.contains(&0) {
        return Ok(());
    }
    // Innermost axes that are contiguous in both tensors become part of the element.
    let mut run = size;
    let mut outer = rank;
    while let Some(axis) = outer.checked_sub(1) {
        let elements = (run / size) as isize;
        if copy.shape[axis] != 1 && (copy.from_strides[axis] != elements || copy.to_strides[axis] != elements) {
            break;
        }
        run *= copy.shape[axis];
        outer = axis;
    }
    let mut index = [0usize; 16];
    let index = &mut index[..outer];
    let at = |start: usize, strides: &[isize], index: &[usize]| {
        let offset: isize = strides.iter().zip(index).map(|(&s, &i)| s * i as isize).sum();
        start.checked_add_signed(offset).expect("a walk inside the tensor") * size
    };
    loop {
        let from = at(copy.from, copy.from_strides, index);
        let to = at(copy.to, copy.to_strides, index);
        let (x, y) = (&x[from..][..run], &mut y[to..][..run]);
        if run > PIECE {
            self::copy(x, y, pace)?;
        } else {
            pace.spend(steps(run))?;
        }
        match run {
            _ if run > PIECE => {}
            // The compiler turns these into a single load and store.
            4 => y.copy_from_slice(&x[..4]),
            8 => y.copy_from_slice(&x[..8]),
            _ => y.copy_from_slice(x),
        }
        let Some(axis) = (0..outer).rev().find(|&i| index[i] + 1 < copy.shape[i]) else {
            return Ok(());
        };
        index[axis] += 1;
        index[axis + 1..].fill(0);
    }
}

/// Repeats `element` until `y` is full.
///
/// # Errors
/// If the run is to stop.
///
/// # Panics
/// If the length of `y` is not a multiple of the element's.
pub fn fill(element: &[u8], y: &mut [u8], pace: &Pace<'_>) -> Result<(), Stopped> {
    assert!(!element.is_empty() && y.len().is_multiple_of(element.len()), "whole elements");
    for y in y.chunks_mut(element.len() << 12) {
        pace.spend(y.len())?;
        match *element {
            [byte] => y.fill(byte),
            [a, b, c, d] => y.as_chunks_mut().0.fill([a, b, c, d]),
            _ => y.chunks_exact_mut(element.len()).for_each(|y| y.copy_from_slice(element)),
        }
    }
    Ok(())
}
