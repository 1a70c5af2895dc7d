//! Convolutions and matrix products: their geometry, and the contract that every family of kernels for them keeps.
//!
//! A kernel says which convolutions it takes and what they cost, in which layout it wants the weights packed and how
//! long that is, and how much scratch it needs; then it packs, and runs. [`FLOATS`] and [`BYTES`] list the families.
//! Whoever chooses, packs, tests, times or counts kernels goes through these tables: a new family is a folder that keeps
//! the contract, and a line here.
//!
//! A matrix product is a convolution of one tap over an image of one column: [`ConvShape::matrix`].
//!
//! What a family does once a step, or once a plan, is never inlined into the methods of its kernels: nothing would be
//! gained, and a phone carries it once.

mod shape;

pub use crate::gemm::Weights;
pub use crate::qgemm::{Out, Packed};
pub use shape::ConvShape;
pub(crate) use shape::product;

use crate::epilogue::Epilogue;
use crate::isa::Isa;
use crate::threads::Pool;
use crate::{depthwise, gemm, qdepthwise, qgemm, sparse, stem, winograd};

/// The families that compute with f32; of two kernels that cost the same, the first is taken.
pub static FLOATS: &[Family<dyn FloatKernel>] =
    &[depthwise::FAMILY, gemm::FAMILY, winograd::FAMILY, stem::FAMILY, sparse::FAMILY];

/// The families that multiply bytes.
pub static BYTES: &[Family<dyn ByteKernel>] = &[qdepthwise::FAMILY, qgemm::FAMILY];

/// A family of kernels.
pub struct Family<K: ?Sized + 'static> {
    /// First word of its kernels' names.
    pub name: &'static str,
    /// The kernels of this build, by index from 0 on.
    pub kernel: fn(usize) -> Option<&'static K>,
    /// The kernels for an instruction set that take a task, with what it costs by a model of the core: multiply-adds of
    /// a register, of which two start per cycle. Costs of different families compare.
    pub candidates: fn(Isa, &Task<'_>) -> Vec<(&'static K, f64)>,
}

impl<K: ?Sized> Family<K> {
    /// Every kernel of this build.
    pub fn kernels(&self) -> impl Iterator<Item = &'static K> {
        (0..).map_while(self.kernel)
    }
}

/// The kernels of all families for an instruction set that take a task, with their costs.
pub fn candidates<K: ?Sized>(families: &[Family<K>], isa: Isa, task: &Task<'_>) -> Vec<(&'static K, f64)> {
    families.iter().flat_map(|family| (family.candidates)(isa, task)).collect()
}

/// The kernel of this name, if this build can run it.
pub fn by_name<K: Kernel + ?Sized>(families: &[Family<K>], name: &str) -> Option<&'static K> {
    families.iter().flat_map(Family::kernels).find(|kernel| kernel.name() == name && kernel.isa().is_built())
}

/// A convolution, as far as the choice of a kernel depends on it.
#[derive(Clone, Copy, Debug)]
pub struct Task<'a> {
    /// Its geometry.
    pub shape: &'a ConvShape,
    /// How the images lie in memory.
    pub images: Images,
    /// How products store their weights; those of bytes are bytes.
    pub weights: Weights,
    /// Whether the weights are packed once, before the first run.
    pub constant: bool,
    /// How many of the weights are not zero: of those that are computed in the run, all.
    pub nonzeros: usize,
    /// Whether there is a factor per image and input channel.
    pub scaled: bool,
    /// Whether packed weights may be a multiple of what the weights are.
    pub spacious: bool,
}

impl<'a> Task<'a> {
    /// A convolution with constant weights, none of them zero, and with memory to spare.
    pub fn new(shape: &'a ConvShape) -> Self {
        let nonzeros = product(&[shape.out_c, shape.group_in(), shape.taps()]);
        let (images, weights) = (Images::Nhwc, Weights::F32);
        Task { shape, images, weights, constant: true, nonzeros, scaled: false, spacious: true }
    }
}

/// Order of the axes of input and output. A residual lies as the output does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Images {
    /// Channels innermost, in and out.
    Nhwc,
    /// Planes in, channels innermost out: the first convolution of a network.
    NchwToNhwc,
    /// Planes in and out.
    Nchw,
}

/// The weights of a convolution as a model has them.
#[derive(Clone, Copy, Debug)]
pub enum Filters<'a> {
    /// `[out_c, in_c / groups, kernel_h, kernel_w]`
    Oihw(&'a [f32]),
    /// `[in_c, out_c]`, of a kernel of one tap and one group: the second operand of a matrix product.
    Io(&'a [f32]),
}

/// What every kernel says of itself.
pub trait Kernel: Sync {
    /// Name, as `inspect` prints it.
    fn name(&self) -> &'static str;

    /// Instruction set it needs.
    fn isa(&self) -> Isa;

    /// Whether this build has it and this CPU all of its instructions.
    fn is_available(&self) -> bool;

    /// Name of the layout of its packed weights, which is that of a kernel that every CPU of the instruction set can
    /// run: what is packed for one of a layout is packed for all.
    fn layout(&self) -> &'static str {
        self.name()
    }

    /// Whether it computes the convolution, be it slowly.
    fn takes(&self, task: &Task<'_>) -> bool;
}

/// A kernel that computes with f32.
pub trait FloatKernel: Kernel {
    /// Bytes of the packed weights of a convolution that it takes, of which so many are not zero.
    fn packed_len(&self, shape: &ConvShape, nonzeros: usize) -> usize;

    /// Whether bytes can be packed weights of the convolution: what a file holds is not checked otherwise. No content
    /// makes [`run`](Self::run) read past its operands.
    fn reads(&self, shape: &ConvShape, packed: &[u8]) -> bool {
        packed.len() == self.packed_len(shape, 0)
    }

    /// Packs the weights to `to`, which is aligned for the numbers that it will hold.
    ///
    /// # Panics
    /// If a length is not that of the shape.
    fn pack(&self, shape: &ConvShape, filters: Filters<'_>, to: &mut [u8]);

    /// Numbers of scratch for so many threads.
    fn scratch_len(&self, shape: &ConvShape, scaled: bool, threads: usize) -> usize;

    /// Computes the convolution.
    ///
    /// # Panics
    /// If the kernel does not take it, if a slice is not as long as the shape says or the scratch is too short, or if
    /// the CPU lacks the instructions.
    fn run(&self, args: Conv<'_>, scratch: &mut [f32], pool: &Pool);
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
    /// What is fused behind.
    pub epilogue: Epilogue<'a>,
    /// One factor per image and input channel.
    pub scale: Option<&'a [f32]>,
}

/// A kernel that multiplies unsigned bytes by signed ones.
pub trait ByteKernel: Kernel {
    /// Elements of the packed weights, offsets and scales.
    fn packed_lens(&self, shape: &ConvShape) -> [usize; 3];

    /// Packs weights `[out_c, in_c / groups, kernel_h, kernel_w]`, bias and scales of all filters, for activations of the
    /// zero point `zero`.
    ///
    /// # Panics
    /// If a length is not that of the shape.
    fn pack(&self, shape: &ConvShape, weights: &[i8], zero: u8, constants: (&[i32], &[f32]), to: PackTo<'_>);

    /// Packs weights and their sums, as [`offsets`](Self::offsets) takes them, for activations of any zero point.
    ///
    /// # Panics
    /// If a length is not that of the shape.
    fn pack_sums(&self, shape: &ConvShape, weights: &[i8], to: &mut [i8], sums: &mut [i32]);

    /// The packed offsets of a convolution without a bias, of its packed sums.
    ///
    /// # Panics
    /// If the lengths differ.
    fn offsets(&self, sums: &[i32], zero: u8, to: &mut [i32]);

    /// Bytes of scratch for so many threads, aligned for 16-bit numbers.
    fn scratch_len(&self, shape: &ConvShape, threads: usize) -> usize;

    /// Computes the convolution.
    ///
    /// # Panics
    /// As [`FloatKernel::run`].
    fn run(&self, args: ByteConv<'_>, scratch: &mut [u8], pool: &Pool);
}

/// Where weights, offsets and scales are packed to.
pub type PackTo<'a> = (&'a mut [i8], &'a mut [i32], &'a mut [f32]);

/// The operands of a convolution of bytes.
pub struct ByteConv<'a> {
    /// Its geometry.
    pub shape: &'a ConvShape,
    /// NHWC.
    pub input: &'a [u8],
    /// The byte that stands for 0 in the input.
    pub zero: u8,
    /// From [`ByteKernel::pack`], with the same zero point.
    pub packed: Packed<'a>,
    /// Where to, and as what.
    pub out: Out<'a>,
}

#[cfg(test)]
mod tests;
