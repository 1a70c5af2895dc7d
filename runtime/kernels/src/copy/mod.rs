//! Copies blocks of a tensor: Concat, Split, Slice, Pad, Expand.
//!
//! Elements are opaque bytes. `memcpy` moves long runs at memory speed on every CPU, so each function has only one
//! variant.

#[cfg(test)]
mod tests;

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

/// Copies blocks.
///
/// # Panics
/// If a block lies outside `x` or `y`.
pub fn copy_blocks(blocks: &Blocks, x: &[u8], y: &mut [u8]) {
    let Blocks { len, count, from, from_step, to, to_step } = *blocks;
    if len == 0 {
        return;
    }
    if len == from_step && len == to_step {
        y[to..][..len * count].copy_from_slice(&x[from..][..len * count]);
        return;
    }
    for i in 0..count {
        y[to + i * to_step..][..len].copy_from_slice(&x[from + i * from_step..][..len]);
    }
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
/// # Panics
/// If the axis counts differ, there are more than 16 axes, `size` is 0, or the walk leaves `x` or `y`.
pub fn copy_strided(size: usize, copy: &StridedCopy, x: &[u8], y: &mut [u8]) {
    assert!(size > 0, "the element size is 0");
    let rank = copy.shape.len();
    assert!(copy.from_strides.len() == rank && copy.to_strides.len() == rank, "stride count");
    if copy.shape.contains(&0) {
        return;
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
        match run {
            // The compiler turns these into a single load and store.
            4 => y.copy_from_slice(&x[..4]),
            8 => y.copy_from_slice(&x[..8]),
            _ => y.copy_from_slice(x),
        }
        let Some(axis) = (0..outer).rev().find(|&i| index[i] + 1 < copy.shape[i]) else {
            return;
        };
        index[axis] += 1;
        index[axis + 1..].fill(0);
    }
}

/// Repeats `element` until `y` is full.
///
/// # Panics
/// If the length of `y` is not a multiple of the element's.
pub fn fill(element: &[u8], y: &mut [u8]) {
    assert!(!element.is_empty() && y.len().is_multiple_of(element.len()), "whole elements");
    match element {
        [byte] => y.fill(*byte),
        _ => y.chunks_exact_mut(element.len()).for_each(|y| y.copy_from_slice(element)),
    }
}
