//! The contract of convolution kernels, implemented by the GEMM family.

use bytemuck::{cast_slice, cast_slice_mut};

use super::blocks::SHORT_RUN;
use super::{
    Packed, VARIANTS, Variant, Weights, candidates, conv, conv_scratch, halve, pack, pack_conv, packed_conv_len,
};
use crate::arena::AlignedVec;
use crate::bottleneck::Stage;
use crate::conv::{
    Active, Conv, ConvShape, Family, Filters, FloatKernel, Images, Kernel, Panels, Task, product, select, streamed,
};
use crate::depthwise;
use crate::isa::Isa;
use crate::pace::Pace;
use crate::threads::Pool;
use skipstone_reserve::NoMemory;

/// The family's entry in the table of convolutions.
pub(crate) const FAMILY: Family<dyn FloatKernel> =
    Family { name: "gemm", kernel: |at| VARIANTS.get(at).map(|v| v as &dyn FloatKernel), candidates: of_task };

fn of_task(isa: Isa, task: &Task<'_>) -> Vec<(&'static dyn FloatKernel, f64)> {
    let s = task.shape;
    if !takes(task) {
        return Vec::new();
    }
    let depth = product(&[s.taps(), s.group_in()]);
    let kernels = candidates(isa, task.weights, s.pixels(), depth, s.group_out());
    let weights = if s.pixels() == 1 { product(&[depth, s.out_c, task.weights.size()]) } else { 0 };
    // Every group makes pointers to its runs of pixels, or copies short ones: measured with 4 to 32 channels a group.
    let per_run = if s.group_in() < SHORT_RUN { 55.0 } else { 25.0 };
    let runs = if s.groups > 1 && s.taps() > 1 { s.pixels() as f64 * s.taps() as f64 * s.groups as f64 } else { 0.0 };
    let others = runs * per_run + streamed(weights);
    kernels.map(|(v, cost)| (v as &dyn FloatKernel, cost * s.groups as f64 + others)).collect()
}

/// Whether the family supports a convolution: all except those that [`depthwise`] handles.
fn takes(task: &Task<'_>) -> bool {
    let masks = !task.masked || (task.shape.groups == 1 && task.shape.taps() <= MASKED_TAPS);
    task.images == Images::Nhwc && masks && (task.scaled || task.masked || !depthwise::takes(task.shape))
}

/// Most taps of a kernel with masked channels: rows are then read in place, unless there are few channels.
const MASKED_TAPS: usize = 49;

impl Variant {
    fn layout_of(&self, shape: &ConvShape) -> Panels {
        Panels {
            channels: shape.in_c,
            filters: shape.out_c,
            taps: shape.taps(),
            rows: 1,
            nr: self.nr,
            lanes: self.lanes,
            spaced: None,
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
        self.is_available()
    }
    fn layout(&self) -> &'static str {
        self.form().name
    }
    fn takes(&self, task: &Task<'_>) -> bool {
        let rows = product(&[task.shape.taps(), task.shape.group_in()]);
        let is_of = task.weights == self.weights && (!task.masked || self.weights == Weights::F32);
        takes(task) && is_of && self.takes_rows(rows)
    }
}

impl FloatKernel for Variant {
    fn packed_len(&self, shape: &ConvShape, _nonzeros: usize) -> usize {
        product(&[packed_conv_len(self, shape), self.weights.size()])
    }

    fn part(&self, shape: &ConvShape) -> Option<usize> {
        (shape.groups == 1).then_some(self.form().nr)
    }

    fn pack(&self, shape: &ConvShape, filters: Filters<'_>, to: &mut [u8], pace: &Pace<'_>) -> Result<(), NoMemory> {
        self.weights.store(to, |to| {
            match filters {
                Filters::Oihw(weights) => pack_conv(self, shape, weights, to, pace),
                Filters::Io(weights) => {
                    assert!(shape.taps() == 1 && shape.groups == 1, "the second operand of a matrix product");
                    pack(self, shape.in_c, shape.out_c, (weights, shape.out_c, 1), to, pace);
                }
            }
            Ok(())
        })
    }

    fn select(&self, shape: &ConvShape, packed: &[u8], active: Active<'_>, to: &mut [f32], pool: &Pool) {
        let (from, small) = (self.layout_of(shape), active.shape(shape));
        assert!(self.weights == Weights::F32 && to.len() == packed_conv_len(self, &small), "the packed weights");
        select(self.isa, (&from, cast_slice(packed)), (&self.layout_of(&small), to), active, pool);
    }

    fn scratch_bound(&self, shape: &ConvShape, threads: usize) -> usize {
        // Few channels are copied; many are read in place, which needs only one pixel of zeros.
        let of = |in_c: usize| conv_scratch(self, &ConvShape { batch: 1, in_c, ..shape.clone() }, false, 1);
        product(&[(0..=shape.in_c.min(SHORT_RUN)).chain([shape.in_c]).map(of).max().unwrap_or(0), threads.max(1)])
    }

    fn scratch_len(&self, shape: &ConvShape, scaled: bool, threads: usize) -> usize {
        conv_scratch(self, shape, scaled, threads)
    }

    fn run(&self, args: Conv<'_>, scratch: &mut [f32], pool: &Pool) {
        let Conv { shape, input, packed, out, epilogue, scale } = args;
        let packed = self.weights.read(packed);
        conv(self, super::GemmConv { shape, input, packed, out, epilogue, a_scale: scale }, scratch, pool);
    }

    fn stage(&'static self) -> Option<Stage> {
        Some(Stage::Pointwise(self))
    }
}

impl Weights {
    /// Bytes per element.
    pub(crate) fn size(self) -> usize {
        match self {
            Self::F32 => 4,
            Self::F16 => 2,
        }
    }

    /// Stores the elements that `pack` writes, converted to this dtype.
    ///
    /// # Errors
    /// The error of `pack`; no memory for the elements before they are converted.
    pub(crate) fn store(
        self,
        to: &mut [u8],
        pack: impl FnOnce(&mut [f32]) -> Result<(), NoMemory>,
    ) -> Result<(), NoMemory> {
        // An empty slice may have any alignment.
        match self {
            _ if to.is_empty() => pack(&mut []),
            Self::F32 => pack(cast_slice_mut(to)),
            Self::F16 => {
                let mut whole = AlignedVec::try_zeroed(to.len() / self.size()).ok_or(NoMemory(2 * to.len()))?;
                pack(&mut whole)?;
                halve(&whole, cast_slice_mut(to));
                Ok(())
            }
        }
    }

    /// Interprets bytes as packed elements of this dtype.
    ///
    /// # Panics
    /// If they are not aligned, or do not form whole elements.
    pub(crate) fn read(self, bytes: &[u8]) -> Packed<'_> {
        match self {
            Self::F32 if bytes.is_empty() => Packed::F32(&[]),
            Self::F32 => Packed::F32(cast_slice(bytes)),
            Self::F16 if bytes.is_empty() => Packed::F16(&[]),
            Self::F16 => Packed::F16(cast_slice(bytes)),
        }
    }
}
