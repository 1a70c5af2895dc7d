//! Convolutions and matrix products: their geometry, and the contract that every family of kernels for them
//! implements.
//!
//! A kernel reports which convolutions it supports and their cost, the layout and size of its packed weights, and its
//! scratch size; then it packs weights and runs. [`FLOATS`] and [`BYTES`] list the families. Code that chooses, packs,
//! tests, times or counts kernels goes through these tables, so a new family is a folder that implements the contract,
//! its name in `lib.rs` and a line here.
//!
//! A matrix product is a convolution with one tap over an image with one column: [`ConvShape::matrix`].
//!
//! Code that a family runs once per step or once per plan is never inlined into the methods of its kernels: inlining
//! would gain nothing, and a device build contains that code only once.

mod active;
mod columns;
mod shape;

pub use crate::gemm::Weights;
pub use crate::qgemm::{Out, Packed};
pub use active::Active;
pub(crate) use active::{Panels, select};
pub(crate) use columns::Columns;
pub use shape::ConvShape;
pub(crate) use shape::product;

use crate::bottleneck::Stage;
use crate::epilogue::Epilogue;
use crate::isa::Isa;
use crate::pace::Pace;
use crate::sparse::BLOCK;
use crate::threads::Pool;
use skipstone_reserve::NoMemory;

/// The families that compute with f32. Of two kernels with equal cost, the first is chosen. A build for some packages may
/// leave out families that these do not need: `build.rs`.
pub static FLOATS: &[Family<dyn FloatKernel>] = &[
    #[cfg(family = "depthwise")]
    crate::depthwise::FAMILY,
    #[cfg(family = "grouped")]
    crate::grouped::FAMILY,
    #[cfg(family = "gemm")]
    crate::gemm::FAMILY,
    #[cfg(family = "winograd")]
    crate::winograd::FAMILY,
    #[cfg(family = "stem")]
    crate::stem::FAMILY,
    #[cfg(family = "sparse")]
    crate::sparse::FAMILY,
    #[cfg(family = "depthwise_chw")]
    crate::depthwise_chw::FAMILY,
    #[cfg(family = "listed")]
    #[cfg(any(target_arch = "x86_64", feature = "foreign"))]
    crate::listed::FAMILY,
];

/// The families that multiply bytes.
pub static BYTES: &[Family<dyn ByteKernel>] = &[crate::qdepthwise::FAMILY, crate::qgemm::FAMILY];

/// A family of kernels.
pub struct Family<K: ?Sized + 'static> {
    /// Prefix of its kernels' names.
    pub name: &'static str,
    /// The kernels of this build, by index starting at 0.
    pub kernel: fn(usize) -> Option<&'static K>,
    /// The kernels of an instruction set that support a task, each with its modeled cost: time in multiply-adds of a
    /// register, two of which start per cycle. Costs of different families are comparable.
    pub candidates: fn(Isa, &Task<'_>) -> Vec<(&'static K, f64)>,
}

impl<K: ?Sized> Family<K> {
    /// Every kernel of this build.
    pub fn kernels(&self) -> impl Iterator<Item = &'static K> {
        (0..).map_while(self.kernel)
    }
}

/// The kernels of all families for an instruction set that support a task, with their costs.
pub fn candidates<K: ?Sized>(families: &[Family<K>], isa: Isa, task: &Task<'_>) -> Vec<(&'static K, f64)> {
    families.iter().flat_map(|family| (family.candidates)(isa, task)).collect()
}

/// The cost of reading packed weights that are used once: those of a whole network do not stay in a cache, and arrive
/// at about ten bytes per cycle.
pub(crate) fn streamed(bytes: usize) -> f64 {
    bytes as f64 / 5.0
}

/// The kernel of this name, if this build can run it.
pub fn by_name<K: Kernel + ?Sized>(families: &[Family<K>], name: &str) -> Option<&'static K> {
    families.iter().flat_map(Family::kernels).find(|kernel| kernel.name() == name && kernel.isa().is_built())
}

/// The name of the family of a kernel for f32.
pub fn family_of(kernel: &str) -> Option<&'static str> {
    FLOATS.iter().find(|family| family.kernels().any(|it| it.name() == kernel)).map(|family| family.name)
}

/// The properties of a convolution that the choice of a kernel depends on.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// Its geometry.
    pub shape: &'a ConvShape,
    /// The layout of the images in memory.
    pub images: Images,
    /// Weight dtype for products of f32. Kernels for bytes always store weights as bytes.
    pub weights: Weights,
    /// Whether the weights are packed once, before the first run.
    pub constant: bool,
    /// Count of nonzero weights; all of them if the weights are computed during the run.
    pub nonzeros: usize,
    /// Count of blocks with a nonzero weight: a block is the same weight of [`BLOCK`] consecutive
    /// filters.
    pub blocks: usize,
    /// Whether half precision represents all weights exactly, or they are already packed.
    pub are_halves: bool,
    /// Whether the input is scaled by a factor per image and input channel.
    pub scaled: bool,
    /// Whether the epilogue has an [affine map](Epilogue::affine).
    pub affine: bool,
    /// Whether each run computes only some channels, which differ from run to run: [`FloatKernel::select`].
    pub masked: bool,
    /// Whether packed weights may take several times the memory of the weights themselves.
    pub spacious: bool,
}

impl<'a> Task<'a> {
    /// A convolution with constant weights, none of them zero, and with memory to spare.
    pub fn new(shape: &'a ConvShape) -> Self {
        let of_filter = product(&[shape.group_in(), shape.taps()]);
        let nonzeros = product(&[shape.out_c, of_filter]);
        let blocks = product(&[shape.out_c.div_ceil(BLOCK), of_filter]);
        let (images, weights) = (Images::Nhwc, Weights::F32);
        Task {
            shape,
            images,
            weights,
            constant: true,
            nonzeros,
            blocks,
            are_halves: false,
            scaled: false,
            affine: false,
            masked: false,
            spacious: true,
        }
    }
}

/// Axis order of input and output. A residual has the layout of the output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Images {
    /// NHWC for input and output.
    Nhwc,
    /// NCHW input, NHWC output: the first convolution of a network.
    NchwToNhwc,
    /// NCHW for input and output.
    Nchw,
}

/// The weights of a convolution as the model stores them.
#[derive(Clone, Copy, Debug)]
pub enum Filters<'a> {
    /// `[out_c, in_c / groups, kernel_h, kernel_w]`
    Oihw(&'a [f32]),
    /// `[in_c, out_c]`, for one tap and one group: the second operand of a matrix product.
    Io(&'a [f32]),
}

/// Properties that every kernel reports.
pub trait Kernel: Sync {
    /// Name, as `inspect` prints it.
    fn name(&self) -> &'static str;

    /// The instruction set it needs.
    fn isa(&self) -> Isa;

    /// Whether this build has it and this CPU has all of its instructions.
    fn is_available(&self) -> bool;

    /// Name of the packed layout of its weights: the name of a kernel that every CPU with the instruction set can run.
    /// All kernels with the same packed layout can read the same packed weights.
    fn layout(&self) -> &'static str {
        self.name()
    }

    /// Whether it can compute the convolution, even if slowly.
    fn takes(&self, task: &Task<'_>) -> bool;
}

/// A kernel that computes with f32.
pub trait FloatKernel: Kernel {
    /// Number of weights that the packed layout of a supported task stores, if that depends on which are zero.
    fn stored(&self, task: &Task<'_>) -> usize {
        task.nonzeros
    }

    /// Size in bytes of the packed weights of a supported convolution with this many [stored](Self::stored) weights.
    fn packed_len(&self, shape: &ConvShape, stored: usize) -> usize;

    /// Whether `packed` can be the packed weights of the convolution. This is the only check of packed weights from a
    /// file. [`run`](Self::run) does not read past its operands, whatever they contain.
    fn reads(&self, shape: &ConvShape, packed: &[u8]) -> bool {
        packed.len() == self.packed_len(shape, 0)
    }

    /// Number of filters in a part that can be packed on its own: packed weights consist of such parts in sequence, and
    /// the last may have fewer filters. `None` if all filters must be packed at once.
    fn part(&self, _shape: &ConvShape) -> Option<usize> {
        None
    }

    /// Packs the weights into `to`, which is aligned for the elements it will hold. Weights that may be computed during
    /// a run are packed without allocating. Incomplete if the run is to stop.
    ///
    /// # Errors
    /// No memory for a copy of the weights in a layout between the two.
    ///
    /// # Panics
    /// If a length does not match the shape.
    fn pack(&self, shape: &ConvShape, filters: Filters<'_>, to: &mut [u8], pace: &Pace<'_>) -> Result<(), NoMemory>;

    /// Copies the packed weights of some channels to `to`, packed for the convolution of these channels alone: the
    /// [shape](Active::shape) that [`run`](Self::run) gets then. Only for a kernel that supports masked tasks and does not
    /// [read lists](Self::reads_lists).
    ///
    /// # Panics
    /// If a channel is out of range, a list is empty, or a length does not match.
    fn select(&self, _shape: &ConvShape, _packed: &[u8], _active: Active<'_>, _to: &mut [f32], _pool: &Pool) {
        unreachable!("{} takes no masks", self.name());
    }

    /// Whether [`run_active`](Self::run_active) computes some channels from the packed weights of all, so that none are
    /// selected.
    fn reads_lists(&self) -> bool {
        false
    }

    /// Computes the active channels of a convolution of one image from the packed weights of all channels: the shape and
    /// the weights are those of the whole convolution; images, output and epilogue have the active channels alone. The
    /// scratch is as for all channels. Only for a kernel that [reads lists](Self::reads_lists).
    ///
    /// # Panics
    /// Like [`run`](Self::run), or if a channel is out of range.
    fn run_active(&self, _args: Conv<'_>, _active: Active<'_>, _scratch: &mut [f32], _pool: &Pool) {
        unreachable!("{} reads no lists", self.name());
    }

    /// Scratch size in elements for `threads` threads.
    fn scratch_len(&self, shape: &ConvShape, scaled: bool, threads: usize) -> usize;

    /// Scratch size in elements for `threads` threads that suffices for the convolution of any subset of its channels.
    fn scratch_bound(&self, shape: &ConvShape, threads: usize) -> usize {
        self.scratch_len(shape, false, threads)
    }

    /// Computes the convolution.
    ///
    /// # Panics
    /// If the kernel does not take the convolution, if a slice's length does not match the shape, if the scratch is too
    /// short, or if the CPU lacks the instructions.
    fn run(&self, args: Conv<'_>, scratch: &mut [f32], pool: &Pool);

    /// The kernel as a stage of a [bottleneck](crate::bottleneck), which computes some rows at a time; `None` if it
    /// computes only whole images.
    fn stage(&'static self) -> Option<Stage> {
        None
    }
}

/// The operands of a convolution of f32.
pub struct Conv<'a> {
    /// Its geometry.
    pub shape: &'a ConvShape,
    /// The images.
    pub input: &'a [f32],
    /// The weights, from [`FloatKernel::pack`] of a kernel of the same layout.
    pub packed: &'a [u8],
    /// The result.
    pub out: &'a mut [f32],
    /// Applied to the sums.
    pub epilogue: Epilogue<'a>,
    /// One factor per image and input channel.
    pub scale: Option<&'a [f32]>,
}

/// A kernel that multiplies unsigned by signed bytes.
pub trait ByteKernel: Kernel {
    /// Element counts of the packed weights, offsets and scales.
    fn packed_lens(&self, shape: &ConvShape) -> [usize; 3];

    /// Packs weights `[out_c, in_c / groups, kernel_h, kernel_w]` and the bias and scales of all filters, for
    /// activations with zero point `zero`.
    ///
    /// # Panics
    /// If a length does not match the shape.
    fn pack(&self, shape: &ConvShape, weights: &[i8], zero: u8, constants: (&[i32], &[f32]), to: PackTo<'_>);

    /// Packs weights and their sums, from which [`offsets`](Self::offsets) computes offsets for activations with any
    /// zero point. Incomplete if the run is to stop.
    ///
    /// # Panics
    /// If a length does not match the shape.
    fn pack_sums(&self, shape: &ConvShape, weights: &[i8], to: &mut [i8], sums: &mut [i32], pace: &Pace<'_>);

    /// Computes the packed offsets of a convolution without bias from its packed sums.
    ///
    /// # Panics
    /// If the lengths differ.
    fn offsets(&self, sums: &[i32], zero: u8, to: &mut [i32]);

    /// Scratch size in bytes for `threads` threads; scratch is aligned for 16-bit elements.
    fn scratch_len(&self, shape: &ConvShape, threads: usize) -> usize;

    /// Computes the convolution.
    ///
    /// # Panics
    /// Like [`FloatKernel::run`].
    fn run(&self, args: ByteConv<'_>, scratch: &mut [u8], pool: &Pool);
}

/// Destinations of packed weights, offsets and scales.
pub type PackTo<'a> = (&'a mut [i8], &'a mut [i32], &'a mut [f32]);

/// The operands of a convolution of bytes.
pub struct ByteConv<'a> {
    /// Its geometry.
    pub shape: &'a ConvShape,
    /// NHWC.
    pub input: &'a [u8],
    /// The zero point of the input: the byte that represents 0.
    pub zero: u8,
    /// From [`ByteKernel::pack`], with the same zero point.
    pub packed: Packed<'a>,
    /// The destination and its element type.
    pub out: Out<'a>,
}

#[cfg(test)]
mod tests;
