//! The contract of convolution kernels, implemented by this family.

use bytemuck::cast_slice;
use skipstone_reserve::NoMemory;

use super::run::{self, Lists};
use super::{VARIANTS, Variant, pack, packed_len, takes};
use crate::conv::{Active, Conv, ConvShape, Family, Filters, FloatKernel, Images, Kernel, Task, Weights, product};
use crate::epilogue::Epilogue;
use crate::isa::Isa;
use crate::pace::Pace;
use crate::threads::Pool;

/// The family's entry in the table of convolutions.
pub(crate) const FAMILY: Family<dyn FloatKernel> =
    Family { name: "listed", kernel: |at| VARIANTS.get(at).map(|v| v as &dyn FloatKernel), candidates: of_task };

/// Only masked convolutions: with all channels, a product with filters in its lanes is as fast and copies no windows. The
/// reference is for tests.
fn of_task(isa: Isa, task: &Task<'_>) -> Vec<(&'static dyn FloatKernel, f64)> {
    let variants = VARIANTS.iter().filter(|v| v.isa == isa && isa != Isa::Scalar && task.masked && v.takes(task));
    variants.map(|v| (v as &dyn FloatKernel, v.cost(task.shape))).collect()
}

impl Variant {
    /// Time by the model of [`gemm::Variant::cost`](crate::gemm::Variant::cost): the tiles, and four steps per register of
    /// windows.
    fn cost(&self, shape: &ConvShape) -> f64 {
        let depth = product(&[shape.taps(), shape.in_c]) as f64;
        let registers = (shape.pixels() / shape.batch.max(1)).div_ceil(self.width).max(1);
        let groups = shape.out_c.div_ceil(self.filters).max(1);
        let rows = shape.out_c as f64 / groups as f64;
        let tile = |registers: usize| {
            let registers = registers as f64;
            let step = (rows * registers).max(rows + registers + 1.0).max(8.0);
            // Sums are stored, transposed and stored again.
            step * depth + 40.0 * rows * registers
        };
        let tiles = (registers / 2) as f64 * tile(2) + (registers % 2) as f64 * tile(1);
        shape.batch as f64 * (groups as f64 * tiles + 4.0 * depth * registers as f64)
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
        let plain = !task.scaled && !task.affine;
        task.images == Images::Nhwc && task.weights == Weights::F32 && plain && takes(task.shape)
    }
}

impl FloatKernel for Variant {
    fn packed_len(&self, shape: &ConvShape, _nonzeros: usize) -> usize {
        product(&[packed_len(shape), size_of::<f32>()])
    }

    fn part(&self, _shape: &ConvShape) -> Option<usize> {
        Some(self.filters)
    }

    fn pack(&self, shape: &ConvShape, filters: Filters<'_>, to: &mut [u8], pace: &Pace<'_>) -> Result<(), NoMemory> {
        let (taps, in_c, out_c) = (shape.taps(), shape.in_c, shape.out_c);
        Weights::F32.store(to, |to| {
            match filters {
                Filters::Oihw(w) => {
                    assert_eq!(w.len(), packed_len(shape), "weights");
                    pack(shape, &|o, i, tap| w[(o * in_c + i) * taps + tap], to, pace);
                }
                Filters::Io(w) => {
                    assert!(taps == 1 && w.len() == packed_len(shape), "the second operand of a matrix product");
                    pack(shape, &|o, i, _| w[i * out_c + o], to, pace);
                }
            }
            Ok(())
        })
    }

    fn reads_lists(&self) -> bool {
        true
    }

    fn scratch_len(&self, shape: &ConvShape, _scaled: bool, threads: usize) -> usize {
        run::scratch_len(self, shape, threads)
    }

    fn run_active(&self, args: Conv<'_>, active: Active<'_>, scratch: &mut [f32], pool: &Pool) {
        let (shape, inputs) = (active.shape(args.shape), active.inputs);
        run::check(self, &args, &shape);
        assert!(args.shape.batch == 1, "one image");
        assert!(inputs.iter().all(|&channel| (channel as usize) < args.shape.in_c), "input channels");
        assert!(active.outputs.iter().all(|&filter| (filter as usize) < args.shape.out_c), "output channels");
        let lists = Lists { of: args.shape, inputs, outputs: Some(active.outputs) };
        run::image(self, &shape, &lists, (args.input, args.packed_floats()), (args.out, &args.epilogue), scratch, pool);
    }

    fn run(&self, args: Conv<'_>, scratch: &mut [f32], pool: &Pool) {
        run::check(self, &args, args.shape);
        let packed = args.packed_floats();
        let Conv { shape: whole, input, out, epilogue, .. } = args;
        if out.is_empty() {
            return;
        }
        assert!(scratch.len() >= whole.in_c, "the scratch is too short");
        let (list, scratch) = scratch.split_at_mut(whole.in_c);
        let list: &mut [u32] = bytemuck::cast_slice_mut(list);
        for (channel, place) in list.iter_mut().enumerate() {
            *place = channel as u32;
        }
        let shape = ConvShape { batch: 1, ..whole.clone() };
        let lists = Lists { of: &shape, inputs: list, outputs: None };
        let len = shape.output_len();
        for (image, out) in out.chunks_exact_mut(len).enumerate() {
            let input = &input[image * shape.input_len()..][..shape.input_len()];
            let residual = epilogue.residual.map(|residual| &residual[image * len..][..len]);
            let epilogue = Epilogue { residual, ..epilogue };
            run::image(self, &shape, &lists, (input, packed), (out, &epilogue), scratch, pool);
        }
    }
}

impl<'a> Conv<'a> {
    /// The packed weights as elements.
    fn packed_floats(&self) -> &'a [f32] {
        // An empty slice may have any alignment.
        if self.packed.is_empty() { &[] } else { cast_slice(self.packed) }
    }
}
