//! The contract of convolution kernels, implemented by this family.

use super::{VARIANTS, Variant, Weights, pack, packed_len, run, takes};
use crate::conv::{self, Conv, ConvShape, Family, Filters, FloatKernel, Kernel, Task, product};
use crate::isa::Isa;
use crate::threads::Pool;

/// The family's entry in the table of convolutions.
pub(crate) const FAMILY: Family<dyn FloatKernel> =
    Family { name: "sparse", kernel: |at| VARIANTS.get(at).map(|v| v as &dyn FloatKernel), candidates };

fn candidates(isa: Isa, task: &Task<'_>) -> Vec<(&'static dyn FloatKernel, f64)> {
    let kernel = VARIANTS.iter().find(|v| v.isa == isa).filter(|v| v.takes(task));
    kernel.map(|v| (v as &dyn FloatKernel, v.cost(task.shape, task.nonzeros))).into_iter().collect()
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
    /// One packed layout for all instruction sets.
    fn layout(&self) -> &'static str {
        "sparse_f32_scalar"
    }
    fn takes(&self, task: &Task<'_>) -> bool {
        takes(task) && task.weights == conv::Weights::F32
    }
}

impl FloatKernel for Variant {
    fn packed_len(&self, shape: &ConvShape, nonzeros: usize) -> usize {
        packed_len(shape, nonzeros)
    }

    fn reads(&self, shape: &ConvShape, packed: &[u8]) -> bool {
        Weights::new(shape, packed).is_some_and(|weights| weights.is_sound())
    }

    fn pack(&self, shape: &ConvShape, filters: Filters<'_>, to: &mut [u8]) {
        pack(shape, filters, to);
    }

    fn scratch_len(&self, _shape: &ConvShape, _scaled: bool, _threads: usize) -> usize {
        0
    }

    fn run(&self, args: Conv<'_>, _scratch: &mut [f32], pool: &Pool) {
        let Conv { shape, input, packed, out, epilogue, scale } = args;
        shape.check();
        assert!(self.isa.is_available(), "this CPU does not have {}", self.isa);
        assert!(shape.is_pointwise() && shape.groups == 1 && scale.is_none(), "a sparse convolution");
        assert_eq!(input.len(), shape.input_len(), "input length");
        assert_eq!(out.len(), product(&[shape.pixels(), shape.out_c]), "output length");
        epilogue.check(shape.out_c, out.len());
        let weights = Weights::new(shape, packed).expect("the packed weights");
        if !out.is_empty() {
            run(self, shape, input, weights, out, epilogue, pool);
        }
    }
}
