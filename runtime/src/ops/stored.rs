//! Packed weights as a plan holds them: bytes, in the precision that the kernel multiplies with.

use bytemuck::cast_slice_mut;
use half::f16;
use skipstone_kernels::arena::AlignedVec;
use skipstone_kernels::gemm::{Packed, Weights, halve};

use super::Io;
use crate::error::OpError;

/// Lets `pack` write `len` numbers and stores them like this.
pub(super) fn store(weights: Weights, len: usize, pack: impl FnOnce(&mut [f32])) -> AlignedVec<u8> {
    let mut packed = AlignedVec::<u8>::zeroed(len * size_of::<f32>());
    pack(cast_slice_mut(&mut packed));
    match weights {
        Weights::F32 => packed,
        Weights::F16 => {
            let mut halved = AlignedVec::<u8>::zeroed(len * size_of::<f16>());
            halve(bytemuck::cast_slice(&packed), cast_slice_mut(&mut halved));
            halved
        }
    }
}

/// The packed constant `role` of a running step.
pub(super) fn read<'a>(io: &Io<'a, '_>, role: usize, weights: Weights) -> Result<Packed<'a>, OpError> {
    Ok(match weights {
        Weights::F32 => Packed::F32(io.packed(role)?),
        Weights::F16 => Packed::F16(io.packed(role)?),
    })
}
