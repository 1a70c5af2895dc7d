//! The contract of convolution kernels, implemented by products of bytes.

use super::{
    VARIANTS, Variant, candidates, conv, conv_scratch, offsets, offsets_len, pack, pack_sums, pack_weights, scales_len,
    weights_len,
};
use crate::conv::{ByteConv, ByteKernel, ConvShape, Family, Images, Kernel, PackTo, Task, product};
use crate::depthwise;
use crate::isa::Isa;
use crate::pace::Pace;
use crate::threads::Pool;

/// The family's entry in the table of convolutions.
pub(crate) const FAMILY: Family<dyn ByteKernel> =
    Family { name: "qgemm", kernel: |at| VARIANTS.get(at).map(|v| v as &dyn ByteKernel), candidates: of_task };

fn of_task(isa: Isa, task: &Task<'_>) -> Vec<(&'static dyn ByteKernel, f64)> {
    let s = task.shape;
    if !takes(task) {
        return Vec::new();
    }
    let kernels = candidates(isa, s.pixels(), product(&[s.taps(), s.group_in()]), s.group_out());
    kernels.map(|(v, cost)| (v as &dyn ByteKernel, cost * s.groups as f64)).collect()
}

/// Whether the family supports a convolution: all except those that [`qdepthwise`](crate::qdepthwise) handles.
fn takes(task: &Task<'_>) -> bool {
    task.images == Images::Nhwc && !task.scaled && !depthwise::takes(task.shape)
}

impl Kernel for Variant {
    fn name(&self) -> &'static str {
        self.name
    }
    fn isa(&self) -> Isa {
        self.isa
    }
    fn is_available(&self) -> bool {
        self.is_available()
    }
    fn takes(&self, task: &Task<'_>) -> bool {
        takes(task)
    }
}

impl ByteKernel for Variant {
    fn packed_lens(&self, shape: &ConvShape) -> [usize; 3] {
        [weights_len(self, shape), offsets_len(self, shape), scales_len(self, shape)]
    }

    fn pack(&self, shape: &ConvShape, weights: &[i8], zero: u8, constants: (&[i32], &[f32]), to: PackTo<'_>) {
        pack(self, shape, weights, zero, constants, to);
    }

    fn pack_sums(&self, shape: &ConvShape, weights: &[i8], to: &mut [i8], sums: &mut [i32], pace: &Pace<'_>) {
        pack_weights(self, shape, weights, to, pace);
        pack_sums(self, shape, weights, sums, pace);
    }

    fn offsets(&self, sums: &[i32], zero: u8, to: &mut [i32]) {
        offsets(self, sums, zero, to);
    }

    fn scratch_len(&self, shape: &ConvShape, threads: usize) -> usize {
        conv_scratch(self, shape, threads)
    }

    fn run(&self, args: ByteConv<'_>, scratch: &mut [u8], pool: &Pool) {
        conv(self, args, scratch, pool);
    }
}
