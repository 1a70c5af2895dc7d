//! The contract of convolution kernels, implemented by this family.

use super::split::Split;
use super::{Grouped, VARIANTS, Variant, choose, grouped, pack, packed_len};
use crate::conv::{Conv, ConvShape, Family, Filters, FloatKernel, Images, Kernel, Task, Weights, product};
use crate::depthwise;
use crate::gemm::Packed;
use crate::isa::Isa;
use crate::pace::Pace;
use crate::threads::Pool;
use skipstone_reserve::NoMemory;

/// The family's entry in the table of convolutions.
pub(crate) const FAMILY: Family<dyn FloatKernel> =
    Family { name: "grouped", kernel: |at| VARIANTS.get(at).map(|v| v as &dyn FloatKernel), candidates };

fn candidates(isa: Isa, task: &Task<'_>) -> Vec<(&'static dyn FloatKernel, f64)> {
    let channels = task.shape.in_c.min(task.shape.out_c);
    let Some(kernel) = choose(isa, channels).filter(|kernel| kernel.takes(task)) else { return Vec::new() };
    let split = Split::new(kernel.width, task.shape, 1);
    split.map(|split| (kernel as &dyn FloatKernel, split.cost(task.shape))).into_iter().collect()
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
        // One filter per channel has few weights: they are never stored in half precision.
        let weights = task.weights == Weights::F32 || depthwise::takes(task.shape);
        let plain = task.images == Images::Nhwc && !task.scaled && !task.masked;
        plain && weights && Split::new(self.width, task.shape, 1).is_some()
    }
}

impl FloatKernel for Variant {
    fn packed_len(&self, shape: &ConvShape, _nonzeros: usize) -> usize {
        product(&[packed_len(self, shape), size_of::<f32>()])
    }

    fn pack(&self, shape: &ConvShape, filters: Filters<'_>, to: &mut [u8], pace: &Pace<'_>) -> Result<(), NoMemory> {
        let Filters::Oihw(weights) = filters else { panic!("a matrix product has one group") };
        Weights::F32.store(to, |to| {
            pack(self, shape, weights, to, pace);
            Ok(())
        })
    }

    fn scratch_len(&self, shape: &ConvShape, _scaled: bool, threads: usize) -> usize {
        Split::new(self.width, shape, threads).map_or(0, |split| split.scratch_len())
    }

    fn run(&self, args: Conv<'_>, scratch: &mut [f32], pool: &Pool) {
        let Conv { shape, input, packed, out, epilogue, scale } = args;
        assert!(scale.is_none(), "an input scale is not supported");
        let Packed::F32(packed) = Weights::F32.read(packed) else { return };
        grouped(self, Grouped { shape, input, packed, out, epilogue }, scratch, pool);
    }
}
