//! The contract of convolution kernels, implemented by this family.

use bytemuck::cast_slice;

use super::{
    Storage, VARIANTS, Variant, Winograd, candidates, pack, packed_len, panels, scratch_bound, scratch_len, winograd,
};
use crate::conv::{
    Active, Conv, ConvShape, Family, Filters, FloatKernel, Images, Kernel, Task, Weights, product, select,
};
use crate::isa::Isa;
use crate::pace::Pace;
use crate::threads::Pool;
use skipstone_reserve::NoMemory;

/// The family's entry in the table of convolutions.
pub(crate) const FAMILY: Family<dyn FloatKernel> =
    Family { name: "winograd", kernel: |at| VARIANTS.get(at).map(|v| v as &dyn FloatKernel), candidates: of_task };

fn of_task(isa: Isa, task: &Task<'_>) -> Vec<(&'static dyn FloatKernel, f64)> {
    if !takes(task) {
        return Vec::new();
    }
    let kernels = candidates(isa, task.shape, storage(task)).into_iter();
    kernels.map(|(v, cost)| (v as &dyn FloatKernel, cost)).collect()
}

fn takes(task: &Task<'_>) -> bool {
    task.images == Images::Nhwc && task.constant && !task.scaled
}

/// What the packed weights contain: transformed weights take up to 5.4 times the memory, and selecting channels of them
/// takes that much longer.
fn storage(task: &Task<'_>) -> Storage {
    match task.weights {
        Weights::F32 if task.spacious && !task.masked => Storage::Transformed,
        weights => Storage::Kernels(weights),
    }
}

impl Variant {
    /// The weight dtype.
    pub(super) fn weights(&self) -> Weights {
        match self.storage {
            Storage::Transformed => Weights::F32,
            Storage::Kernels(weights) => weights,
        }
    }
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
        takes(task)
            && storage(task) == self.storage
            && self.takes(task.shape)
            && (!task.masked || self.weights() == Weights::F32)
    }
}

impl FloatKernel for Variant {
    fn packed_len(&self, shape: &ConvShape, _nonzeros: usize) -> usize {
        product(&[packed_len(self, shape), self.weights().size()])
    }

    fn pack(&self, shape: &ConvShape, filters: Filters<'_>, to: &mut [u8], _pace: &Pace<'_>) -> Result<(), NoMemory> {
        let Filters::Oihw(weights) = filters else { panic!("a matrix product has one tap") };
        self.weights().store(to, |to| pack(self, shape, weights, to))
    }

    fn select(&self, shape: &ConvShape, packed: &[u8], active: Active<'_>, to: &mut [f32], pool: &Pool) {
        let small = active.shape(shape);
        assert!(self.weights() == Weights::F32 && to.len() == packed_len(self, &small), "the packed weights");
        select(self.isa, (&panels(self, shape), cast_slice(packed)), (&panels(self, &small), to), active, pool);
    }

    fn scratch_bound(&self, shape: &ConvShape, threads: usize) -> usize {
        scratch_bound(self, shape, threads)
    }

    fn scratch_len(&self, shape: &ConvShape, _scaled: bool, threads: usize) -> usize {
        scratch_len(self, shape, threads)
    }

    fn run(&self, args: Conv<'_>, scratch: &mut [f32], pool: &Pool) {
        let Conv { shape, input, packed, out, epilogue, scale } = args;
        assert!(scale.is_none(), "an input scale is not supported");
        let packed = self.weights().read(packed);
        winograd(self, Winograd { shape, input, packed, out, epilogue }, scratch, pool);
    }
}
