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
    // Stacking along the last axis copies single elements.
    if len <= 8 && [from, from_step, to, to_step].iter().all(|at| at.is_multiple_of(len)) {
        let [from, from_step, to, to_step] = [from, from_step, to, to_step].map(|at| at / len);
        let axis = Axis { len: count, from: from_step as isize, to: to_step as isize };
        return copy_line(len, axis, (x, from), (y, to), pace);
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

/// An axis of a box: its length, and its strides in the input and in the output.
#[derive(Clone, Copy)]
struct Axis {
    len: usize,
    from: isize,
    to: isize,
}

impl Axis {
    /// One element.
    const SINGLE: Self = Self { len: 1, from: 1, to: 1 };

    /// This axis and the next inner one as a single axis, if the strides allow it.
    fn joined(self, inner: Self) -> Option<Self> {
        let len = inner.len as isize;
        let joins = self.from == inner.from.wrapping_mul(len) && self.to == inner.to.wrapping_mul(len);
        joins.then_some(Self { len: self.len * inner.len, ..inner })
    }
}

/// Copies a box of elements of `size` bytes.
///
/// Axes are joined where possible. The innermost that remains is a loop: `memcpy` if it is contiguous, a fill if one
/// element is repeated, otherwise a walk with two strides.
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
    let mut axes = [Axis::SINGLE; 16];
    let mut count = 0usize;
    for i in (0..rank).filter(|&i| copy.shape[i] != 1) {
        let axis = Axis { len: copy.shape[i], from: copy.from_strides[i], to: copy.to_strides[i] };
        match count.checked_sub(1).and_then(|last| axes[last].joined(axis)) {
            Some(joined) => axes[count - 1] = joined,
            None => {
                axes[count] = axis;
                count += 1;
            }
        }
    }
    let inner = count.saturating_sub(1);
    let (outer, line) = (&axes[..inner], axes[inner]);
    let mut index = [0usize; 16];
    let (mut from, mut to) = (copy.from, copy.to);
    loop {
        copy_line(size, line, (x, from), (y, to), pace)?;
        let Some(next) = (0..inner).rev().find(|&i| index[i] + 1 < outer[i].len) else { return Ok(()) };
        index[next] += 1;
        let (mut from_step, mut to_step) = (outer[next].from, outer[next].to);
        for (index, axis) in index[next + 1..inner].iter_mut().zip(&outer[next + 1..]) {
            from_step -= axis.from * *index as isize;
            to_step -= axis.to * *index as isize;
            *index = 0;
        }
        from = from.wrapping_add_signed(from_step);
        to = to.wrapping_add_signed(to_step);
    }
}

/// Copies the elements along one axis, starting at an element of each tensor.
fn copy_line(
    size: usize,
    axis: Axis,
    (x, mut from): (&[u8], usize),
    (y, mut to): (&mut [u8], usize),
    pace: &Pace<'_>,
) -> Result<(), Stopped> {
    let bytes = axis.len.saturating_mul(size);
    match (axis.from, axis.to) {
        (1, 1) => {
            let (x, y) = (&x[from * size..][..bytes], &mut y[to * size..][..bytes]);
            if bytes > PIECE {
                return self::copy(x, y, pace);
            }
            pace.spend(steps(bytes))?;
            y.copy_from_slice(x);
        }
        (0, 1) => return fill(&x[from * size..][..size], &mut y[to * size..][..bytes], pace),
        _ => {
            let mut left = axis.len;
            while left > 0 {
                let len = left.min(PIECE / 8);
                pace.spend(8 + 2 * len)?;
                let part = Axis { len, ..axis };
                match size {
                    1 => walk::<1>(part, (x, from), (y, to)),
                    2 => walk::<2>(part, (x, from), (y, to)),
                    4 => walk::<4>(part, (x, from), (y, to)),
                    8 => walk::<8>(part, (x, from), (y, to)),
                    _ => {
                        for i in 0..len as isize {
                            let x = &x[from.wrapping_add_signed(i * axis.from) * size..][..size];
                            y[to.wrapping_add_signed(i * axis.to) * size..][..size].copy_from_slice(x);
                        }
                    }
                }
                from = from.wrapping_add_signed(axis.from.wrapping_mul(len as isize));
                to = to.wrapping_add_signed(axis.to.wrapping_mul(len as isize));
                left -= len;
            }
        }
    }
    Ok(())
}

/// Copies elements of `N` bytes with two strides.
fn walk<const N: usize>(axis: Axis, (x, mut from): (&[u8], usize), (y, mut to): (&mut [u8], usize)) {
    let (x, y) = (x.as_chunks::<N>().0, y.as_chunks_mut::<N>().0);
    // Every other element of one of the two: loops without a check of each index.
    match (axis.from, axis.to) {
        (2, 1) => {
            let (pairs, y) = (x[from..].as_chunks::<2>().0, &mut y[to..][..axis.len]);
            y.iter_mut().zip(pairs).for_each(|(y, pair)| *y = pair[0]);
            (pairs.len()..y.len()).for_each(|i| y[i] = x[from + 2 * i]);
        }
        (1, 2) => {
            let (x, y) = (&x[from..][..axis.len], &mut y[to..]);
            let pairs = y.as_chunks_mut::<2>().0;
            let whole = pairs.len();
            pairs.iter_mut().zip(x).for_each(|(pair, x)| pair[0] = *x);
            (whole..x.len()).for_each(|i| y[2 * i] = x[i]);
        }
        _ => {
            for _ in 0..axis.len {
                y[to] = x[from];
                from = from.wrapping_add_signed(axis.from);
                to = to.wrapping_add_signed(axis.to);
            }
        }
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
