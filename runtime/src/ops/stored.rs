//! Packed weights in a plan: bytes, in the precision of the kernel.

use bytemuck::cast_slice_mut;
use half::f16;
use skipstone_kernels::arena::AlignedVec;
use skipstone_kernels::gemm::{Packed, Weights, halve};

use crate::bytes::Bytes;
use crate::error::OpError;
use crate::operator::{Io, PlanContext};

/// The packed constant `role`: the `len` elements that `pack` makes from input `position`, stored in the given
/// precision.
pub(super) fn store(
    cx: &PlanContext<'_>,
    (role, position): (usize, usize),
    weights: Weights,
    len: usize,
    pack: impl FnOnce(&[f32], &mut [f32]),
) -> Result<Bytes, OpError> {
    match weights {
        Weights::F32 => cx.pack(role, len * size_of::<f32>(), |out| {
            pack(cx.constant(position)?, cast_slice_mut(out));
            Ok(())
        }),
        Weights::F16 => cx.pack(role, len * size_of::<f16>(), |out| {
            let mut whole =
                AlignedVec::<f32>::try_zeroed(len).ok_or_else(|| OpError::no_memory(len * size_of::<f32>()))?;
            pack(cx.constant(position)?, &mut whole);
            halve(&whole, cast_slice_mut(out));
            Ok(())
        }),
    }
}

/// The packed constant `role` of a running step.
pub(super) fn read<'a>(io: &Io<'a, '_>, role: usize, weights: Weights) -> Result<Packed<'a>, OpError> {
    Ok(match weights {
        Weights::F32 => Packed::F32(io.packed(role)?),
        Weights::F16 => Packed::F16(io.packed(role)?),
    })
}

/// A range of packed weights.
pub(super) fn part(packed: Packed<'_>, range: std::ops::Range<usize>) -> Packed<'_> {
    match packed {
        Packed::F32(numbers) => Packed::F32(&numbers[range]),
        Packed::F16(numbers) => Packed::F16(&numbers[range]),
    }
}
