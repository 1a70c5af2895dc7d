//! The contract of convolution kernels, implemented by this family.

use super::{Depthwise, VARIANTS, Variant, choose, depthwise, is_tiled, pack, takes};
use crate::bottleneck::Stage;
use crate::conv::{Conv, ConvShape, Family, Filters, FloatKernel, Images, Kernel, Task, Weights, product};
use crate::gemm::Packed;
use crate::isa::Isa;
use crate::pace::Pace;
use crate::threads::Pool;
use skipstone_reserve::NoMemory;

/// The family's entry in the table of convolutions.
pub(crate) const FAMILY: Family<dyn FloatKernel> =
    Family { name: "depthwise", kernel: |at| VARIANTS.get(at).map(|v| v as &dyn FloatKernel), candidates };

fn candidates(isa: Isa, task: &Task<'_>) -> Vec<(&'static dyn FloatKernel, f64)> {
    let s = task.shape;
    let kernel = choose(isa, s.in_c);
    if !Kernel::takes(kernel, task) {
        return Vec::new();
    }
    // In a tile, every multiply-add loads its pixel. Pixel by pixel, each waits for the one before it.
    let step = if is_tiled(s) && s.in_c >= kernel.channels { 1.0 } else { 8.0 };
    let steps = s.taps() as f64 * s.in_c.div_ceil(kernel.channels) as f64;
    vec![(kernel, s.pixels() as f64 * steps * step)]
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
        task.images == Images::Nhwc && !task.scaled && !task.masked && takes(task.shape)
    }
}

impl FloatKernel for Variant {
    fn packed_len(&self, shape: &ConvShape, _nonzeros: usize) -> usize {
        product(&[shape.taps(), shape.in_c, size_of::<f32>()])
    }

    fn pack(&self, shape: &ConvShape, filters: Filters<'_>, to: &mut [u8], pace: &Pace<'_>) -> Result<(), NoMemory> {
        // With one channel and one tap per filter, both layouts are the same.
        let (Filters::Oihw(weights) | Filters::Io(weights)) = filters;
        Weights::F32.store(to, |to| {
            pack(shape, weights, to, pace);
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
        depthwise(self, Depthwise { shape, input, packed, out, epilogue }, pool);
    }

    fn stage(&'static self) -> Option<Stage> {
        Some(Stage::Depthwise(self))
    }
}
