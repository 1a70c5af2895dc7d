//! Shared by the 8-bit convolutions [`QConv`](super::qconv) and [`ConvInteger`](super::conv_integer).

use serde::Serialize;
use skipstone_kernels::conv::{self, BYTES, ByteKernel, ConvShape, Task};
use skipstone_kernels::qgemm::MAX_DEPTH;

use super::conv::Conv;
use super::image::{ImageDims, taps};
use crate::error::OpError;
use crate::operator::{Candidates, Operator, PlanContext};
use crate::tensor::{DType, Fact, Shape};

/// Position of the images among the operands.
pub(super) const X: usize = 0;
/// Position of the weights.
pub(super) const WEIGHTS: usize = 1;

/// Refuses operands whose types differ from `want`.
pub(super) fn check_types(inputs: &[&Fact], want: &[DType]) -> Result<(), OpError> {
    let wrong = inputs.iter().zip(want).position(|(fact, want)| fact.dtype != *want);
    wrong.map_or(Ok(()), |index| Err(OpError::Type { index, got: inputs[index].dtype, want: want[index].name() }))
}

/// The result's shape, after checking the shapes of images, weights and per-filter values.
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

/// Images, weights and bias as facts of a [`Conv`], to apply its rules.
fn floats(operands: [&Shape; 3]) -> [Fact; 3] {
    operands.map(|shape| Fact::new(DType::F32, shape.clone()))
}

/// For every element of the result: its filter and the sum over its window of `(x - zero) * weight(filter, at)`, where
/// `at` is the index of a weight in the whole tensor.
pub(super) fn sums<'a>(
    conv: &'a Conv,
    [x_shape, out]: [&Shape; 2],
    x: &'a [u8],
    zero: u8,
    weight: impl Fn(usize, usize) -> i32 + 'a,
) -> Result<impl Iterator<Item = (usize, i32)> + 'a, OpError> {
    let (image, out) = (ImageDims::new(conv.layout, x_shape)?, ImageDims::new(conv.layout, out)?);
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

/// Chooses a kernel for a convolution.
pub(super) fn choose(
    cx: &PlanContext<'_>,
    op: &impl Serialize,
    shape: &ConvShape,
) -> Result<(&'static dyn ByteKernel, Candidates), OpError> {
    let kernels = conv::candidates(BYTES, cx.isa, &Task::new(shape));
    cx.choose(op, kernels, |k| k.name().to_owned(), |k| k.name().to_owned())
}

/// The kernel of this name.
pub(super) fn by_name(name: &str) -> Result<&'static dyn ByteKernel, OpError> {
    conv::by_name(BYTES, name).ok_or_else(|| OpError::Attribute { name: "kernel", reason: name.to_owned() })
}
