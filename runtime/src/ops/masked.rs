//! Masked: images for which a mask, computed at run time, selects the channels that exist.
//!
//! Such images are stored in NHWC with only their active channels, in order, pixel after pixel; the images of a batch
//! begin at the same offsets as with all channels, and the memory after the active ones is undefined. A convolution
//! reads and writes them by its roles ([`Role::MaskIn`](super::roles::Role), `MaskOut`). The operators here convert to
//! and from this form, or do on the active channels what others do on all. The mask is f32 or bool, `[N, 1, 1, C]`; a
//! channel is active if its element is not zero, and all elements of an inactive channel are zero.

use serde::{Deserialize, Serialize};
use skipstone_kernels::copy::fill;
use skipstone_kernels::middle_axis::MiddleAxis;
use skipstone_kernels::pace::Pace;
use skipstone_kernels::pool::{PoolShape, pool};
use skipstone_kernels::reduce;

use super::arity::exactly;
use super::image::{ImageDims, Layout};
use super::pool::Pool;
use super::reduce::Reduce;
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Tensor};

/// Operands: the images and their mask.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum Masked {
    /// Active channels to all, with zeros for the inactive ones.
    Spread,
    /// All channels to the active ones.
    Gather,
    /// Pooling of the active channels, in NHWC; no window may be only padding.
    Pool(Pool),
    /// Every channel reduced to one element, from active channels to all: a mean or an extreme over the pixels.
    Reduce(Reduce),
}

/// A mask operand of a step.
#[derive(Clone, Copy)]
pub(super) struct MaskOperand {
    position: usize,
    dtype: DType,
    channels: usize,
}

impl MaskOperand {
    /// The mask at `position` for images of these dimensions.
    pub fn new(inputs: &[&Fact], position: usize, image: ImageDims) -> Result<Self, OpError> {
        let fact = inputs.get(position).ok_or(OpError::Operand(position))?;
        if !matches!(fact.dtype, DType::F32 | DType::Bool) {
            return Err(OpError::Type { index: position, got: fact.dtype, want: "f32 or bool" });
        }
        if fact.shape != (ImageDims { height: 1, width: 1, ..image }).shape(Layout::Nhwc)? {
            return Err(OpError::shapes("a mask has one element per image and channel", &[&fact.shape]));
        }
        Ok(Self { position, dtype: fact.dtype, channels: image.channels })
    }

    /// Writes the active channels of an image to `list`, in order.
    pub fn read<'a>(&self, io: &Io<'_, '_>, image: usize, list: &'a mut [u32]) -> Result<&'a [u32], OpError> {
        let of_image = image * self.channels..(image + 1) * self.channels;
        let all = io.input_bytes(self.position)?;
        io.pace().spend(4 * self.channels)?;
        let count = match self.dtype {
            DType::Bool => number(all.get(of_image).into_iter().flatten().map(|&active| active != 0), list),
            _ => {
                let all = io.input::<f32>(self.position)?;
                number(all.get(of_image).into_iter().flatten().map(|&factor| factor != 0.0), list)
            }
        };
        list.get(..count).ok_or(OpError::Operand(self.position))
    }

    /// Like [`read`](Self::read), for a tensor.
    pub fn of(&self, mask: &Tensor, image: usize) -> Result<Vec<u32>, OpError> {
        let active = |c: usize| match mask.elements::<f32>() {
            Some(factors) => factors.get(image * self.channels + c).is_some_and(|&factor| factor != 0.0),
            None => mask.bytes().get(image * self.channels + c).is_some_and(|&active| active != 0),
        };
        Ok((0..self.channels).filter(|&c| active(c)).map(|c| c as u32).collect())
    }
}

/// Writes the indices at which `active` is true, as far as they fit into the list; returns their number.
fn number(active: impl Iterator<Item = bool>, list: &mut [u32]) -> usize {
    let mut count = 0;
    for (channel, active) in active.enumerate() {
        if let Some(place) = list.get_mut(count) {
            *place = channel as u32;
        }
        count += usize::from(active);
    }
    count
}

/// Expands pixels with active channels to pixels with `channels` channels.
pub(super) fn spread(
    active: &[u32],
    from: &[f32],
    channels: usize,
    to: &mut [f32],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    fill(&[0; 4], bytemuck::cast_slice_mut(to), pace)?;
    if active.is_empty() {
        return Ok(());
    }
    for (from, to) in from.chunks_exact(active.len()).zip(to.chunks_exact_mut(channels)) {
        pace.spend(8 + 4 * active.len())?;
        for (x, &channel) in from.iter().zip(active) {
            to[channel as usize] = *x;
        }
    }
    Ok(())
}

/// Reduces pixels with `channels` channels to the active ones.
pub(super) fn gather(
    active: &[u32],
    from: &[f32],
    channels: usize,
    to: &mut [f32],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    if active.is_empty() {
        return Ok(());
    }
    for (from, to) in from.chunks_exact(channels).zip(to.chunks_exact_mut(active.len())) {
        pace.spend(8 + 4 * active.len())?;
        for (y, &channel) in to.iter_mut().zip(active) {
            *y = from[channel as usize];
        }
    }
    Ok(())
}

impl Masked {
    fn check(&self, inputs: &[&Fact]) -> Result<(ImageDims, MaskOperand), OpError> {
        let [x, _] = exactly::<2, _>(inputs)?;
        if x.dtype != DType::F32 {
            return Err(OpError::Type { index: 0, got: x.dtype, want: "f32" });
        }
        let image = ImageDims::new(Layout::Nhwc, &x.shape)?;
        if u32::try_from(image.channels).is_err() {
            return Err(OpError::TooLarge(x.shape.to_string()));
        }
        let refused = |reason: &str| Err(OpError::Attribute { name: "masked", reason: reason.into() });
        match self {
            Self::Pool(pool) if pool.layout != Layout::Nhwc || !has_pixels(&pool.geometry(x)?) => {
                refused("pooling is in NHWC, and every window has a pixel")
            }
            Self::Reduce(reduce) if reduce.axes != [1, 2] || image.height * image.width == 0 => {
                refused("channels are reduced over their pixels")
            }
            _ => Ok((image, MaskOperand::new(inputs, 1, image)?)),
        }
    }
}

/// Whether every window has a pixel: in a window of only padding, zeros would not stay zeros.
fn has_pixels(s: &PoolShape) -> bool {
    let axis = |at: usize, len: usize, pad: usize, out: usize| {
        (0..out).all(|o| {
            let mut taps = (0..s.kernel[at]).map(|tap| o * s.stride[at] + tap * s.dilation[at]);
            taps.any(|position| position >= pad && position - pad < len)
        })
    };
    // A package may claim any size: checking more windows would take too long.
    s.out_h.max(s.out_w) <= 1 << 16
        && s.kernel.iter().all(|&taps| taps <= 64)
        && axis(0, s.in_h, s.pad_top, s.out_h)
        && axis(1, s.in_w, s.pad_left, s.out_w)
}

impl Operator for Masked {
    fn name(&self) -> &str {
        match self {
            Self::Spread => "Spread",
            Self::Gather => "GatherChannels",
            Self::Pool(_) => "MaskedPool",
            Self::Reduce(_) => "MaskedReduce",
        }
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        self.check(inputs)?;
        match (self, inputs) {
            (Self::Pool(pool), [x, _]) => pool.infer(&[x]),
            (Self::Reduce(reduce), [x, _]) => reduce.infer(&[x]),
            _ => Ok(inputs.iter().take(1).map(|&x| x.clone()).collect()),
        }
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let (image, _) = self.check(&cx.inputs)?;
        let kernel = match self {
            Self::Spread => "spread_f32".to_owned(),
            Self::Gather => "gather_f32".to_owned(),
            Self::Pool(_) => format!("pool_f32_{}", cx.isa),
            Self::Reduce(_) => format!("reduce_f32_{}", cx.isa),
        };
        // The list of channels and, for a reduction, its results.
        Ok(Choice { kernel, scratch: 2 * image.channels * size_of::<f32>(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let (image, mask) = self.check(&cx.inputs)?;
        let isa = cx.isa;
        let result = cx.outputs.first().map_or(0, |y| y.shape.elements()) / image.batch.max(1);
        let (pixels, channels) = (image.height * image.width, image.channels);
        let (op, shape) = match self {
            Self::Pool(pool) => (self.clone(), Some(pool.geometry(cx.inputs[0])?)),
            _ => (self.clone(), None),
        };
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let scratch: &mut [f32] = io.scratch()?;
            let (list, row) = scratch.split_at_mut_checked(channels).ok_or(OpError::Operand(1))?;
            let (x, y): (&[f32], &mut [f32]) = (io.input(0)?, io.output(0)?);
            let pace = io.pace();
            for n in 0..image.batch {
                pace.spend(8)?;
                let x = x.get(n * pixels * channels..(n + 1) * pixels * channels).ok_or(OpError::Operand(0))?;
                let y = y.get_mut(n * result..(n + 1) * result).ok_or(OpError::Operand(0))?;
                let active = mask.read(io, n, bytemuck::cast_slice_mut(list))?;
                let (packed, count) = (&x[..pixels * active.len()], active.len());
                match (&op, &shape) {
                    (Masked::Pool(op), Some(shape)) => {
                        let shape = PoolShape { batch: 1, channels: count, ..*shape };
                        let y = &mut y[..shape.out_h * shape.out_w * count];
                        pool(isa, op.function, &shape, packed, y, io.pool());
                    }
                    (Masked::Reduce(op), _) => {
                        let view = MiddleAxis { outer: 1, axis: pixels, inner: count };
                        let row = row.get_mut(..count).ok_or(OpError::Operand(1))?;
                        reduce::reduce(isa, op.kind, view, packed, row, io.pool());
                        spread(active, row, channels, y, &pace)?;
                    }
                    (Masked::Gather, _) => gather(active, x, channels, y, &pace)?,
                    _ => spread(active, packed, channels, y, &pace)?,
                }
            }
            Ok(())
        }))
    }
}

impl Semantics for Masked {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x, mask] = exactly::<2, _>(inputs)?;
        let facts = [x.fact(), mask.fact()];
        let (_, read) = self.check(&facts)?;
        match self {
            Self::Spread => Ok(vec![moved(x, mask, read, spread)?]),
            Self::Gather => Ok(vec![moved(x, mask, read, gather)?]),
            Self::Reduce(reduce) => reduce.evaluate(&[&moved(x, mask, read, spread)?]),
            Self::Pool(pool) => {
                let all = pool.evaluate(&[&moved(x, mask, read, spread)?])?;
                Ok(vec![moved(all.first().ok_or(OpError::Operand(0))?, mask, read, gather)?])
            }
        }
    }
}

/// [`spread`] or [`gather`].
type MoveChannels = fn(&[u32], &[f32], usize, &mut [f32], &Pace<'_>) -> Result<(), OpError>;

/// The images of a tensor with their channels moved, one by one.
pub(super) fn moved(x: &Tensor, mask: &Tensor, read: MaskOperand, channels: MoveChannels) -> Result<Tensor, OpError> {
    let mut y = Tensor::try_zeros(x.fact().clone())?;
    let from = x.elements::<f32>().ok_or(OpError::Operand(0))?;
    let to = y.elements_mut::<f32>().ok_or(OpError::Operand(0))?;
    let len = from.len() / x.shape().first().copied().unwrap_or(1).max(1);
    for (n, (from, to)) in from.chunks_exact(len.max(1)).zip(to.chunks_exact_mut(len.max(1))).enumerate() {
        channels(&read.of(mask, n)?, from, read.channels, to, &Pace::free())?;
    }
    Ok(y)
}

#[cfg(test)]
mod tests {
    use skipstone_kernels::pool::PoolFn;

    use super::*;
    use crate::graph::Graph;
    use crate::ops::check::{Random, assert_close, planned_as_it_is};
    use crate::ops::reduce::ReduceKind;
    use crate::tensor::Shape;

    /// The evaluation of `last` on masked images, compared with its plan on every instruction set.
    fn check(op: Masked, x: &Tensor, mask: &Tensor, tolerance: f64) -> Tensor {
        let mut graph = Graph::new();
        let [input, of] = [x, mask].map(|t| graph.add_input("", t.fact().clone()).unwrap());
        let packed = graph.add_node("gather", Masked::Gather, &[input, of]).unwrap()[0];
        let y = match op {
            Masked::Spread => packed,
            _ => graph.add_node("op", op.clone(), &[packed, of]).unwrap()[0],
        };
        let y = match op {
            Masked::Reduce(_) => y,
            _ => graph.add_node("spread", Masked::Spread, &[y, of]).unwrap()[0],
        };
        graph.outputs.push(("y".into(), y));
        let inputs = [x.clone(), mask.clone()];
        let want = graph.evaluate(&inputs).unwrap().remove(0);
        for isa in skipstone_kernels::Isa::available() {
            assert_close(&planned_as_it_is(&graph, isa, &inputs).unwrap()[0], &want, tolerance, "masked");
        }
        want
    }

    #[test]
    fn gather_and_spread_equal_a_product_with_the_mask() {
        let mut random = Random(12);
        for case in 0..40 {
            let [batch, height, width, channels] =
                [1 + case % 3, 1 + random.below(5), 1 + random.below(5), random.pick(&[1, 2, 7, 16, 33])];
            let x = random.floats(&[batch, height, width, channels]);
            let active: Vec<f32> = (0..batch * channels).map(|i| [0.0, 1.0, (i % 2) as f32][case % 3]).collect();
            let mask = match case % 2 {
                0 => Tensor::from_slice(&[batch, 1, 1, channels], &active).unwrap(),
                _ => random.tensor(DType::Bool, &[batch, 1, 1, channels]),
            };
            let on = |at: usize| mask.elements::<f32>().map_or(mask.bytes().get(at) == Some(&1), |m| m[at] != 0.0);
            let y = check(Masked::Spread, &x, &mask, 0.0);
            for (at, (x, y)) in x.elements::<f32>().unwrap().iter().zip(y.elements::<f32>().unwrap()).enumerate() {
                let image = at / (height * width * channels);
                assert_eq!(*y, if on(image * channels + at % channels) { *x } else { 0.0 });
            }
            let mean = Reduce {
                axes: vec![1, 2],
                kind: random.pick(&[ReduceKind::Mean, ReduceKind::Max]),
                keep_dims: case % 4 > 1,
            };
            check(Masked::Reduce(mean), &x, &mask, 1e-5);
            let function = random.pick(&[PoolFn::Max, PoolFn::Average { count_padding: true }]);
            let (out, one) = ([height / 2 + 1, width], [1, 1]);
            let pool = Pool {
                function,
                kernel: [2, 1],
                stride: [2, 1],
                dilation: one,
                pads: [1, 0, 1, 0],
                out,
                layout: Layout::Nhwc,
            };
            check(Masked::Pool(pool), &x, &mask, 1e-5);
        }
    }

    #[test]
    fn masks_of_other_shapes_and_windows_in_the_padding_are_refused() {
        let fact = |dims: &[usize]| Fact::new(DType::F32, Shape::new(dims).unwrap());
        let x = fact(&[1, 4, 4, 3]);
        assert!(Masked::Spread.infer(&[&x, &fact(&[1, 1, 1, 3])]).is_ok());
        assert!(Masked::Spread.infer(&[&x, &fact(&[1, 3, 1, 1])]).is_err());
        assert!(Masked::Spread.infer(&[&x, &Fact::new(DType::I64, fact(&[1, 1, 1, 3]).shape)]).is_err());
        let pool = |pads| Pool {
            function: PoolFn::Max,
            kernel: [1, 1],
            stride: [1, 1],
            dilation: [1, 1],
            pads,
            out: [5, 4],
            layout: Layout::Nhwc,
        };
        assert!(Masked::Pool(pool([1, 0, 0, 0])).infer(&[&x, &fact(&[1, 1, 1, 3])]).is_err());
        let reduce = Reduce { axes: vec![1], kind: ReduceKind::Sum, keep_dims: true };
        assert!(Masked::Reduce(reduce).infer(&[&x, &fact(&[1, 1, 1, 3])]).is_err());
    }
}
