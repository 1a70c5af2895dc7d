//! The contract of convolution kernels, implemented by this family.

use super::{
    VARIANTS, Variant, choose, constants_len, depthwise, offsets, pack, pack_sums, pack_weights, scratch_len,
    weights_len,
};
use crate::conv::{ByteConv, ByteKernel, ConvShape, Family, Images, Kernel, PackTo, Task};
use crate::isa::Isa;
use crate::pace::Pace;
use crate::threads::Pool;

/// The family's entry in the table of convolutions.
pub(crate) const FAMILY: Family<dyn ByteKernel> =
    Family { name: "qdepthwise", kernel: |at| VARIANTS.get(at).map(|v| v as &dyn ByteKernel), candidates };

fn candidates(isa: Isa, task: &Task<'_>) -> Vec<(&'static dyn ByteKernel, f64)> {
    let s = task.shape;
    let kernel = choose(isa, s);
    if !Kernel::takes(kernel, task) {
        return Vec::new();
    }
    let width = kernel.widths.last().copied().unwrap_or(1);
    let steps = s.taps().div_ceil(kernel.group) as f64 * s.in_c.div_ceil(width) as f64;
    vec![(kernel, s.pixels() as f64 * steps)]
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
        let s = task.shape;
        task.images == Images::Nhwc && !task.scaled && crate::depthwise::takes(s) && self.takes(s)
    }
}

impl ByteKernel for Variant {
    fn packed_lens(&self, shape: &ConvShape) -> [usize; 3] {
        let constants = constants_len(self, shape);
        [weights_len(self, shape), constants, constants]
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

    fn scratch_len(&self, shape: &ConvShape, _threads: usize) -> usize {
        scratch_len(shape)
    }

    fn run(&self, args: ByteConv<'_>, scratch: &mut [u8], pool: &Pool) {
        depthwise(self, args, scratch, pool);
    }
}
