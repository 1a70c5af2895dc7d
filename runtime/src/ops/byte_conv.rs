//! Convolutions of bytes: what [`QConv`](super::qconv) and [`ConvInteger`](super::conv_integer) have in common.

use skipstone_kernels::conv::ConvShape;
use skipstone_kernels::qgemm::{self, MAX_DEPTH, Out, Packed};
use skipstone_kernels::threads::Pool;
use skipstone_kernels::{Isa, depthwise, qdepthwise};

use super::Operator;
use super::conv::Conv;
#[cfg(any(feature = "passes", test))]
use super::image::{Image, taps};
use crate::error::OpError;
use crate::tensor::{DType, Fact, Shape};

/// Position of the images among the operands.
pub(super) const X: usize = 0;
/// Position of the weights.
pub(super) const WEIGHTS: usize = 1;

/// Refuses operands of other types than `want`, position by position.
pub(super) fn check_types(inputs: &[&Fact], want: &[DType]) -> Result<(), OpError> {
    let wrong = inputs.iter().zip(want).position(|(fact, want)| fact.dtype != *want);
    wrong.map_or(Ok(()), |index| Err(OpError::Type { index, got: inputs[index].dtype, want: want[index].name() }))
}

/// The result's shape, after checking images, weights and one number for each filter against each other.
pub(super) fn check(conv: &Conv, operands: [&Shape; 3]) -> Result<Shape, OpError> {
    let weights = operands[WEIGHTS];
    if weights.iter().skip(1).try_fold(1usize, |depth, &dim| depth.checked_mul(dim)).is_none_or(|d| d > MAX_DEPTH) {
        return Err(OpError::shapes("filters of too many weights", &[weights]));
    }
    let out = conv.infer(&floats(operands).each_ref())?;
    Ok(out.into_iter().next().map(|fact| fact.shape).unwrap_or_default())
}

/// The kernels' description of the geometry.
pub(super) fn shape(conv: &Conv, operands: [&Shape; 3]) -> Result<ConvShape, OpError> {
    check(conv, operands)?;
    conv.shape(&floats(operands).each_ref())
}

/// Images, weights and bias as those of a [`Conv`], whose rules hold.
fn floats(operands: [&Shape; 3]) -> [Fact; 3] {
    operands.map(|shape| Fact::new(DType::F32, shape.clone()))
}

/// The filter of every element of the result and, over its window, the sum of `(x - zero) * weight(filter, at)`, where
/// `at` is the position of a weight among all.
#[cfg(any(feature = "passes", test))]
pub(super) fn sums<'a>(
    conv: &'a Conv,
    [x_shape, out]: [&Shape; 2],
    x: &'a [u8],
    zero: u8,
    weight: impl Fn(usize, usize) -> i32 + 'a,
) -> Result<impl Iterator<Item = (usize, i32)> + 'a, OpError> {
    let (image, out) = (Image::new(conv.layout, x_shape)?, Image::new(conv.layout, out)?);
    let (depth, filters) = (image.channels / conv.groups, out.channels / conv.groups);
    let [rows, columns] = conv.kernel;
    Ok(out.positions(conv.layout).map(move |[n, filter, oy, ox]| {
        let first = filter / filters * depth;
        let mut sum = 0i32;
        for (ky, iy) in taps(oy, conv.stride[0], conv.dilation[0], conv.pads[0], rows, image.height) {
            for (kx, ix) in taps(ox, conv.stride[1], conv.dilation[1], conv.pads[1], columns, image.width) {
                for c in 0..depth {
                    let byte = x[image.offset(conv.layout, [n, first + c, iy, ix])];
                    let weight = weight(filter, ((filter * depth + c) * rows + ky) * columns + kx);
                    sum = sum.wrapping_add((i32::from(byte) - i32::from(zero)) * weight);
                }
            }
        }
        (filter, sum)
    }))
}

/// A kernel of one of the families that compute convolutions of bytes.
#[derive(Clone, Copy)]
pub(super) enum Kernel {
    Depthwise(&'static qdepthwise::Variant),
    Gemm(&'static qgemm::Variant),
}

impl Kernel {
    /// The kernels that compute a convolution, with their costs.
    pub fn candidates(isa: Isa, shape: &ConvShape) -> Vec<(Self, f64)> {
        if depthwise::takes(shape) {
            return vec![(Self::Depthwise(qdepthwise::choose(isa, shape)), 0.0)];
        }
        let depth = shape.taps() * shape.group_in();
        let kernels = qgemm::candidates(isa, shape.pixels(), depth, shape.group_out());
        kernels.map(|(v, cost)| (Self::Gemm(v), cost)).collect()
    }

    pub fn by_name(name: &str) -> Result<Self, OpError> {
        let depthwise = qdepthwise::by_name(name).map(Self::Depthwise);
        let kernel = depthwise.or_else(|| qgemm::by_name(name).map(Self::Gemm));
        kernel.ok_or_else(|| OpError::Attribute { name: "kernel", reason: name.to_owned() })
    }

    pub fn name(self) -> &'static str {
        match self {
            Self::Depthwise(v) => v.name,
            Self::Gemm(v) => v.name,
        }
    }

    /// Elements of the packed weights, offsets and scales.
    pub fn packed_lens(self, shape: &ConvShape) -> [usize; 3] {
        match self {
            Self::Depthwise(v) => {
                let constants = qdepthwise::constants_len(v, shape);
                [qdepthwise::weights_len(v, shape), constants, constants]
            }
            Self::Gemm(v) => [qgemm::weights_len(v, shape), qgemm::offsets_len(v, shape), qgemm::scales_len(v, shape)],
        }
    }

    /// Packs weights, bias and scales for activations of a zero point that is known.
    pub fn pack(
        self,
        shape: &ConvShape,
        weights: &[i8],
        zero: u8,
        constants: (&[i32], &[f32]),
        to: (&mut [i8], &mut [i32], &mut [f32]),
    ) {
        match self {
            Self::Depthwise(v) => qdepthwise::pack(v, shape, weights, zero, constants, to),
            Self::Gemm(v) => qgemm::pack(v, shape, weights, zero, constants, to),
        }
    }

    /// Packs weights and their sums, for activations of any zero point.
    pub fn pack_sums(self, shape: &ConvShape, weights: &[i8], to: &mut [i8], sums: &mut [i32]) {
        match self {
            Self::Depthwise(v) => {
                qdepthwise::pack_weights(v, shape, weights, to);
                qdepthwise::pack_sums(v, shape, weights, sums);
            }
            Self::Gemm(v) => {
                qgemm::pack_weights(v, shape, weights, to);
                qgemm::pack_sums(v, shape, weights, sums);
            }
        }
    }

    /// The packed offsets of packed sums.
    pub fn offsets(self, sums: &[i32], zero: u8, to: &mut [i32]) {
        match self {
            Self::Depthwise(v) => qdepthwise::offsets(v, sums, zero, to),
            Self::Gemm(v) => qgemm::offsets(v, sums, zero, to),
        }
    }

    /// Bytes of scratch.
    pub fn scratch(self, shape: &ConvShape, threads: usize) -> usize {
        match self {
            Self::Depthwise(_) => qdepthwise::scratch_len(shape),
            Self::Gemm(v) => qgemm::conv_scratch(v, shape, threads),
        }
    }

    /// Computes the convolution of `input`, whose zero point is `zero`.
    pub fn run(
        self,
        shape: &ConvShape,
        (input, zero): (&[u8], u8),
        packed: Packed<'_>,
        out: Out<'_>,
        scratch: &mut [u8],
        pool: &Pool,
    ) {
        match self {
            Self::Gemm(v) => qgemm::conv(v, qgemm::Conv { shape, input, zero, packed, out }, scratch, pool),
            Self::Depthwise(v) => {
                let args = qdepthwise::Depthwise { shape, input, zero, packed, out };
                qdepthwise::depthwise(v, args, scratch, pool);
            }
        }
    }
}
