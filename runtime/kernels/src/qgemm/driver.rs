//! The entry point: checks every length and turns a convolution into a matrix product.

use super::blocks::{CheckedConv, QgemmSplit};
use super::pack::{offsets_len, scales_len, weights_len};
use super::{MAX_DEPTH, Variant};
use crate::conv::{ByteConv, ConvShape, product};
use crate::requantize::{Form, Requantize};
use crate::threads::Pool;

/// The NHWC output of a convolution.
pub enum Out<'a> {
    /// Bytes.
    Bytes {
        /// The output.
        to: &'a mut [u8],
        /// Converts units of the output scale to bytes.
        by: Requantize,
        /// Applied to every output byte, for an activation for example.
        table: Option<&'a [u8; 256]>,
    },
    /// Floats.
    Floats(&'a mut [f32]),
    /// The 32-bit sums; scales are not read.
    Sums(&'a mut [i32]),
}

/// Scratch size in bytes for [`conv`]: a row of zero points for the padding, and copied rows.
#[inline(never)]
pub fn conv_scratch(v: &Variant, shape: &ConvShape, threads: usize) -> usize {
    let split = QgemmSplit::new(v, shape, threads);
    split.zeros_len(shape) + split.scratch_len()
}

/// Computes a convolution.
///
/// # Panics
/// If the length of a slice does not match `shape`, if filters have more than [`MAX_DEPTH`] weights, if `scratch` is
/// shorter than [`conv_scratch`] or not aligned for 16-bit elements, or if the CPU lacks the variant's instructions.
#[inline(never)]
pub fn conv(v: &Variant, args: ByteConv<'_>, scratch: &mut [u8], pool: &Pool) {
    let ByteConv { shape, input, zero, packed, out } = args;
    shape.check();
    assert!(v.is_available(), "this CPU cannot run {}", v.name);
    assert!(product(&[shape.taps(), shape.group_in()]) <= MAX_DEPTH, "too many weights per filter");
    assert_eq!(input.len(), shape.input_len(), "input length");
    assert_eq!(packed.weights.len(), weights_len(v, shape), "the packed weights");
    assert_eq!(packed.offsets.len(), offsets_len(v, shape), "packed offset length");
    let (len, to, form, table) = match out {
        Out::Bytes { to, by, table } => (to.len(), to.as_mut_ptr(), Form::Bytes(by), table),
        Out::Floats(to) => (to.len(), to.as_mut_ptr().cast(), Form::Floats, None),
        Out::Sums(to) => (to.len(), to.as_mut_ptr().cast(), Form::Sums, None),
    };
    assert!(matches!(form, Form::Sums) || packed.scales.len() == scales_len(v, shape), "packed scale length");
    assert_eq!(len, shape.output_len(), "output length");
    if len == 0 {
        return;
    }
    let split = QgemmSplit::new(v, shape, pool.threads());
    assert!(scratch.len() >= split.zeros_len(shape) + split.scratch_len(), "the scratch is too short");
    assert!(v.element == 1 || scratch.as_ptr().cast::<u16>().is_aligned(), "the scratch must be aligned for 16 bits");
    let (zeros, scratch) = scratch.split_at_mut(split.zeros_len(shape));
    zeros.fill(zero);
    CheckedConv { v, shape, input, zero, zeros, packed, form, table }.run(&split, to, scratch, pool);
}
