//! The contract of convolution kernels, implemented by this family.

use super::{Bands, Depthwise, VARIANTS, Variant, depthwise, takes};
use crate::conv::{Conv, ConvShape, Family, Filters, FloatKernel, Images, Kernel, Task, Weights, product};
use crate::copy::copy;
use crate::gemm::Packed;
use crate::isa::Isa;
use crate::pace::Pace;
use crate::threads::Pool;
use skipstone_reserve::NoMemory;

/// The family's entry in the table of convolutions.
pub(crate) const FAMILY: Family<dyn FloatKernel> =
    Family { name: "depthwise_chw", kernel: |at| VARIANTS.get(at).map(|v| v as &dyn FloatKernel), candidates };

fn candidates(isa: Isa, task: &Task<'_>) -> Vec<(&'static dyn FloatKernel, f64)> {
    let s = task.shape;
    // Rows that do not fill half an AVX-512 register use AVX2.
    let short = isa == Isa::Avx512 && s.out_w <= 8;
    let isa = if short { Isa::Avx2 } else { isa };
    let Some(kernel) = VARIANTS.iter().find(|v| v.isa == isa).filter(|v| v.takes(task)) else { return Vec::new() };
    // Every output register is stored, and its inputs are copied before they are loaded.
    let per_register = s.taps() as f64 + 2.0 + 2.0 * product(&s.stride) as f64;
    let registers = product(&[s.batch, s.in_c, s.out_h, s.out_w.div_ceil(kernel.width)]);
    vec![(kernel, per_register * registers as f64)]
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
        "depthwise_chw_f32_scalar"
    }
    fn takes(&self, task: &Task<'_>) -> bool {
        task.images == Images::Nchw && !task.scaled && !task.affine && !task.masked && takes(task.shape)
    }
}

impl FloatKernel for Variant {
    fn packed_len(&self, shape: &ConvShape, _nonzeros: usize) -> usize {
        product(&[shape.taps(), shape.in_c, size_of::<f32>()])
    }

    fn pack(&self, _shape: &ConvShape, filters: Filters<'_>, to: &mut [u8], pace: &Pace<'_>) -> Result<(), NoMemory> {
        let (Filters::Oihw(weights) | Filters::Io(weights)) = filters;
        // Incomplete if the run is to stop.
        let _ = copy(bytemuck::cast_slice(weights), to, pace);
        Ok(())
    }

    fn scratch_len(&self, shape: &ConvShape, _scaled: bool, threads: usize) -> usize {
        product(&[2, Bands::new(shape, self.width).copy_len(), threads])
    }

    fn run(&self, args: Conv<'_>, scratch: &mut [f32], pool: &Pool) {
        let Conv { shape, input, packed, out, epilogue, scale } = args;
        shape.check();
        assert!(takes(shape) && scale.is_none(), "one filter per channel");
        assert!(self.isa.is_available(), "this CPU does not have {}", self.isa);
        assert_eq!(input.len(), shape.input_len(), "input length");
        assert_eq!(out.len(), shape.output_len(), "output length");
        assert_eq!(packed.len(), self.packed_len(shape, 0), "weight length");
        epilogue.check(shape.out_c, out.len());
        let Packed::F32(weights) = Weights::F32.read(packed) else { return };
        if !out.is_empty() {
            depthwise(self, Depthwise { shape, input, weights, out, epilogue }, scratch, pool);
        }
    }
}
