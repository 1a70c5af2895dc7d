//! The contract of convolution kernels, implemented by this family.

use super::{BLOCK, Sparse, SparseWeights, VARIANTS, Variant, depth, fits, pack, run, slot_parts, takes};
use crate::conv::{Conv, ConvShape, Family, Filters, FloatKernel, Kernel, Task, product};
use crate::gemm::Weights;
use crate::isa::Isa;
use crate::pace::Pace;
use crate::threads::Pool;
use skipstone_reserve::NoMemory;

/// The family's entry in the table of convolutions.
pub(crate) const FAMILY: Family<dyn FloatKernel> =
    Family { name: "sparse", kernel: |at| VARIANTS.get(at).map(|v| v as &dyn FloatKernel), candidates };

/// A variant must cost at most this share of one that stores less: weights take memory and must be loaded.
const GAIN: f64 = 0.93;

/// Of single weights, and of blocks where these take less memory: half precision first, if it is exact or asked for.
/// Blocks that take more than the weights with all zeros are a last resort.
fn candidates(isa: Isa, task: &Task<'_>) -> Vec<(&'static dyn FloatKernel, f64)> {
    let len = |v: &Variant| v.packed_len(task.shape, v.stored(task));
    let dense = |v: &Variant| product(&[task.shape.out_c, depth(task.shape), v.weights.size()]);
    let pays = |v: &Variant| {
        let mut others = VARIANTS.iter().filter(|other| other.isa == isa && other.weights == v.weights);
        v.block == 1 || others.all(|other| len(v) <= len(other))
    };
    let of_block = |block: usize| {
        let mut least = None;
        let kernels = VARIANTS.iter().filter(move |v| v.isa == isa && v.block == block);
        let kernels = kernels.filter(|v| v.takes(task) && pays(v));
        kernels.map(move |v: &'static Variant| {
            // Of packed weights it is not known how many are zeros: then the kernel is that of their layout.
            let is_dense = v.block > 1 && len(v) >= dense(v);
            let (cost, smaller) = (if is_dense { f64::MAX } else { v.cost(task) }, *least.get_or_insert(0.0));
            least = Some(cost);
            (v as &dyn FloatKernel, if cost >= smaller * GAIN { cost.max(smaller) } else { cost })
        })
    };
    of_block(1).chain(of_block(BLOCK)).collect()
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
    /// One packed layout of a weight dtype and a block for all instruction sets.
    fn layout(&self) -> &'static str {
        match (self.block, self.weights) {
            (1, Weights::F32) => "sparse_f32_scalar",
            (1, Weights::F16) => "sparse_f16_scalar",
            (_, Weights::F32) => "sparse_4x1_f32_scalar",
            (_, Weights::F16) => "sparse_4x1_f16_scalar",
        }
    }
    fn takes(&self, task: &Task<'_>) -> bool {
        takes(task) && (self.weights == Weights::F32 || task.weights == Weights::F16 || task.are_halves)
    }
}

impl FloatKernel for Variant {
    fn stored(&self, task: &Task<'_>) -> usize {
        self.stored(task)
    }

    fn packed_len(&self, shape: &ConvShape, stored: usize) -> usize {
        self.packed_len(shape, stored)
    }

    fn reads(&self, shape: &ConvShape, packed: &[u8]) -> bool {
        SparseWeights::new(self, shape, packed).is_some_and(|weights| weights.is_sound())
    }

    fn pack(&self, shape: &ConvShape, filters: Filters<'_>, to: &mut [u8], _pace: &Pace<'_>) -> Result<(), NoMemory> {
        pack(self, shape, filters, to);
        Ok(())
    }

    fn scratch_len(&self, shape: &ConvShape, scaled: bool, threads: usize) -> usize {
        product(&[slot_parts(self, shape, scaled).iter().sum(), threads])
    }

    fn run(&self, args: Conv<'_>, scratch: &mut [f32], pool: &Pool) {
        let Conv { shape, input, packed, out, epilogue, scale } = args;
        shape.check();
        assert!(self.isa.is_available(), "this CPU does not have {}", self.isa);
        assert!(fits(shape) && (scale.is_none() || shape.is_pointwise()), "a sparse convolution");
        assert_eq!(input.len(), shape.input_len(), "input length");
        assert_eq!(out.len(), product(&[shape.pixels(), shape.out_c]), "output length");
        assert!(scale.is_none_or(|scale| scale.len() == product(&[shape.batch, shape.in_c])), "scale length");
        epilogue.check(shape.out_c, out.len());
        let weights = SparseWeights::new(self, shape, packed).expect("the packed weights");
        if !out.is_empty() {
            run(self, Sparse { shape, input, weights, out, epilogue, scale }, scratch, pool);
        }
    }
}
