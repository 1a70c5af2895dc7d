//! The contract of convolution kernels, implemented by this family.

use super::{Stem, VARIANTS, Variant, choose, pack, packed_len, stem, takes};
use crate::conv::{Conv, ConvShape, Family, Filters, FloatKernel, Images, Kernel, Task, Weights, product};
use crate::gemm::Packed;
use crate::isa::Isa;
use crate::pace::Pace;
use crate::threads::Pool;
use skipstone_reserve::NoMemory;

/// The family's entry in the table of convolutions.
pub(crate) const FAMILY: Family<dyn FloatKernel> =
    Family { name: "stem", kernel: |at| VARIANTS.get(at).map(|v| v as &dyn FloatKernel), candidates };

fn candidates(isa: Isa, task: &Task<'_>) -> Vec<(&'static dyn FloatKernel, f64)> {
    let s = task.shape;
    let kernel = choose(isa, s.out_c);
    if !Kernel::takes(kernel, task) {
        return Vec::new();
    }
    // Counts two registers per panel, even if it has one.
    let registers = s.out_c.div_ceil(kernel.filters) * 2;
    vec![(kernel, s.pixels() as f64 * product(&[s.taps(), s.in_c]) as f64 * registers as f64)]
}

impl Kernel for Variant {
    fn name(&self) -> &'static str {
        self.name
    }
    fn isa(&self) -> Isa {
        self.isa
    }
    fn is_available(&self) -> bool {
        self.isa.is_available()
    }
    fn takes(&self, task: &Task<'_>) -> bool {
        task.images == Images::NchwToNhwc && !task.scaled && !task.masked && takes(task.shape)
    }
}

impl FloatKernel for Variant {
    fn packed_len(&self, shape: &ConvShape, _nonzeros: usize) -> usize {
        product(&[packed_len(self, shape), size_of::<f32>()])
    }

    /// Weights are few.
    fn pack(&self, shape: &ConvShape, filters: Filters<'_>, to: &mut [u8], _pace: &Pace<'_>) -> Result<(), NoMemory> {
        let Filters::Oihw(weights) = filters else { panic!("a matrix product has no planes") };
        Weights::F32.store(to, |to| {
            pack(self, shape, weights, to);
            Ok(())
        })
    }

    fn scratch_len(&self, _shape: &ConvShape, _scaled: bool, _threads: usize) -> usize {
        0
    }

    fn run(&self, args: Conv<'_>, _scratch: &mut [f32], pool: &Pool) {
        let Conv { shape, input, packed, out, epilogue, scale } = args;
        assert!(scale.is_none(), "an input scale is not supported");
        let Packed::F32(packed) = Weights::F32.read(packed) else { return };
        stem(self, Stem { shape, input, packed, out, epilogue }, pool);
    }
}
