//! ConvInteger: an 8-bit convolution with zero points, summed in 32 bits ([ONNX
//! ConvInteger](https://onnx.ai/onnx/operators/onnx__ConvInteger.html)), or a matrix product as a 1x1 convolution
//! ([MatMulInteger](https://onnx.ai/onnx/operators/onnx__MatMulInteger.html)).
//!
//! Operands: the images as uint8, the weights `[out, in / groups, rows, columns]` as int8, the zero point of the
//! images, and the zero points of the weights, one or one per filter. With two more operands, the scales and the bias
//! of the filters (one or one each), the result is float; the pass [`integer`](crate::graph) fuses them from the
//! following nodes:
//!
//! ```text
//! sum = sum over the window of (x - zero) * (weight - weight zero)
//! y   = sum        or, as float,  sum * scale + bias
//! ```
//!
//! Zero points and scales may be computed from the activations at run time.

use bytemuck::cast_slice_mut;
use serde::{Deserialize, Serialize};
use skipstone_kernels::conv::{ByteConv, ByteKernel, ConvShape, Out, Packed};
use skipstone_kernels::pace::Pace;
use skipstone_kernels::qsums::{self, Scales, Zeros};

use super::byte_conv::{self, WEIGHTS, X};
use super::conv::Conv;
use crate::error::OpError;
use crate::operator::axes::{Axes, Elements, Link, Nhwc};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Element, Fact, Shape, Tensor};

/// An 8-bit convolution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ConvInteger {
    /// The geometry; nothing is fused to it.
    pub conv: Conv,
    /// Whether there are scales and a bias, and the result is float.
    pub floats: bool,
}

impl ConvInteger {
    /// Position of the images' zero point.
    const ZERO: usize = 2;
    /// Position of the weights' zero points.
    const WEIGHT_ZEROS: usize = 3;
    /// Position of the scales.
    const SCALES: usize = 4;
    /// Position of the bias.
    const BIAS: usize = 5;

    fn types(&self) -> &'static [DType] {
        const TYPES: [DType; 6] = [DType::U8, DType::I8, DType::U8, DType::I8, DType::F32, DType::F32];
        if self.floats { &TYPES } else { &TYPES[..Self::SCALES] }
    }

    fn dtype(&self) -> DType {
        if self.floats { DType::F32 } else { DType::I32 }
    }

    /// The shapes of images, weights and per-filter values, after checking all operands except scales and bias.
    fn operands(&self, inputs: &[&Fact]) -> Result<[Shape; 3], OpError> {
        if inputs.len() != self.types().len() {
            return Err(OpError::Arity { want: if self.floats { "6" } else { "4" }, got: inputs.len() });
        }
        byte_conv::check_types(inputs, self.types())?;
        let (x, weights) = (&inputs[X].shape, &inputs[WEIGHTS].shape);
        if inputs[Self::ZERO].shape.elements() != 1 {
            return Err(OpError::shapes("one zero point for all images", &[&inputs[Self::ZERO].shape]));
        }
        let filters = weights.first().copied().unwrap_or(0);
        if let Some(other) = inputs[Self::WEIGHT_ZEROS..].iter().find(|f| ![1, filters].contains(&f.shape.elements())) {
            return Err(OpError::shapes("one value for all filters or one per filter", &[weights, &other.shape]));
        }
        Ok([x.clone(), weights.clone(), Shape::new(&[filters])?])
    }

    fn result(&self, inputs: &[&Fact]) -> Result<Shape, OpError> {
        byte_conv::check(&self.conv, self.operands(inputs)?.each_ref())
    }

    fn shape(&self, inputs: &[&Fact]) -> Result<ConvShape, OpError> {
        byte_conv::shape(&self.conv, self.operands(inputs)?.each_ref())
    }

    /// Whether weights may have zero points other than 0.
    fn has_zeros(constants: &[Option<&Tensor>]) -> bool {
        let zeros = constants.get(Self::WEIGHT_ZEROS).copied().flatten();
        zeros.is_none_or(|zeros| zeros.bytes().iter().any(|&zero| zero != 0))
    }
}

/// The value for a filter, if there is one for all or one for each.
fn of_filter<T: Copy>(numbers: &[T], filter: usize) -> T {
    if let &[one] = numbers { one } else { numbers[filter] }
}

impl Operator for ConvInteger {
    fn name(&self) -> &str {
        "ConvInteger"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        Ok(vec![Fact::new(self.dtype(), self.result(inputs)?)])
    }

    fn macs(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        self.conv.macs(inputs, outputs)
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        self.conv.layout.kernel()?;
        let shape = self.shape(&cx.inputs)?;
        let (kernel, candidates) = byte_conv::choose(cx, self, &shape)?;
        let mut choice = Choice { kernel: kernel.name().to_owned(), candidates, ..Choice::default() };
        if cx.constants[WEIGHTS].is_some() {
            let [weights, sums, _] = kernel.packed_lens(&shape);
            let mut to = cx.allocate(weights)?;
            let mut to_sums = cx.allocate(sums * size_of::<i32>())?;
            kernel.pack_sums(
                &shape,
                cx.constant(WEIGHTS)?,
                cast_slice_mut(&mut to),
                cast_slice_mut(&mut to_sums),
                &Pace::free(),
            );
            choice.packed = vec![to.into(), to_sums.into()];
            choice.absorbed = vec![WEIGHTS];
        }
        let parts = Parts::new(self, kernel, &shape, Self::has_zeros(&cx.constants), !choice.absorbed.is_empty());
        choice.scratch = parts.bytes() + kernel.scratch_len(&shape, cx.threads);
        Ok(choice)
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        self.conv.layout.kernel()?;
        let (shape, kernel, isa) = (self.shape(&cx.inputs)?, byte_conv::by_name(cx.kernel)?, cx.isa);
        let is_packed = cx.absorbed(WEIGHTS);
        let parts = Parts::new(self, kernel, &shape, Self::has_zeros(&cx.constants), is_packed);
        let floats = self.floats;
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let (x, &[zero]) = (io.input::<u8>(X)?, io.input::<u8>(Self::ZERO)?) else {
                return Err(OpError::Operand(Self::ZERO));
            };
            let mut rest = io.scratch::<u8>()?;
            let scratch = &mut rest;
            let offsets = part::<i32>(scratch, parts.offsets)?;
            let (weights, sums): (&[i8], &[i32]) = if is_packed {
                (io.packed(0)?, io.packed(1)?)
            } else {
                let (to, sums) = (part(scratch, parts.weights)?, part(scratch, parts.sums)?);
                kernel.pack_sums(&shape, io.input(WEIGHTS)?, to, sums, &io.pace());
                (to, sums)
            };
            kernel.offsets(sums, zero, offsets);
            let zeros = match parts.windows {
                0 => None,
                len => {
                    let (zeros, windows) = (part::<i32>(scratch, parts.zeros)?, part(scratch, len)?);
                    spread(io.input::<i8>(Self::WEIGHT_ZEROS)?, zeros, i32::from)?;
                    qsums::windows(isa, &shape, x, zero, windows, io.pool());
                    Some(Zeros { zeros, windows, groups: shape.groups })
                }
            };
            let scales = match floats {
                false => None,
                true => {
                    let (scales, bias) = (part::<f32>(scratch, parts.scales)?, part::<f32>(scratch, parts.scales)?);
                    spread(io.input(Self::SCALES)?, scales, |scale| scale)?;
                    spread(io.input(Self::BIAS)?, bias, |bias| bias)?;
                    Some(Scales { scales, bias })
                }
            };
            // Floats are as wide as sums, and overwrite them.
            let y = io.output::<i32>(0)?;
            let packed = Packed { weights, offsets, scales: &[] };
            let args = ByteConv { shape: &shape, input: x, zero, packed, out: Out::Sums(y) };
            kernel.run(args, rest, io.pool());
            qsums::finish(isa, shape.out_c, y, zeros, scales, io.pool());
            Ok(())
        }))
    }
}

impl Semantics for ConvInteger {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let facts: Vec<&Fact> = inputs.iter().map(|t| t.fact()).collect();
        let shape = self.result(&facts)?;
        let bytes = |at: usize| inputs[at].elements::<i8>().ok_or(OpError::Operand(at));
        let (weights, zeros, zero) = (bytes(WEIGHTS)?, bytes(Self::WEIGHT_ZEROS)?, inputs[Self::ZERO].bytes()[0]);
        let weight = |filter: usize, at: usize| i32::from(weights[at]) - i32::from(of_filter(zeros, filter));
        let sums = byte_conv::sums(&self.conv, [&facts[X].shape, &shape], inputs[X].bytes(), zero, weight)?;
        let fact = Fact::new(self.dtype(), shape.clone());
        if !self.floats {
            return Ok(vec![Tensor::collected(fact, sums.map(|(_, sum)| sum))?]);
        }
        let numbers = |at: usize| inputs[at].elements::<f32>().ok_or(OpError::Operand(at));
        let (scales, bias) = (numbers(Self::SCALES)?, numbers(Self::BIAS)?);
        let value = |(filter, sum): (usize, i32)| sum as f32 * of_filter(scales, filter) + of_filter(bias, filter);
        Ok(vec![Tensor::collected(fact, sums.map(value))?])
    }

    fn axes(&self, _inputs: &[&Fact]) -> Axes {
        let channels = self.conv.layout.channels_axis();
        Axes::new(Elements::Mixed, [Link::same(0, 0, 0), Link::same(1, 0, channels)])
    }

    fn nhwc(&self) -> Nhwc {
        self.conv.nhwc()
    }

    fn turn_to_nhwc(&mut self) {
        self.conv.turn_to_nhwc();
    }
}

/// The layout of a run's scratch in addition to the kernel's own: lengths in elements.
#[derive(Clone, Copy)]
struct Parts {
    offsets: usize,
    /// 0 if the weights are packed beforehand.
    weights: usize,
    sums: usize,
    /// Zero points of the filters and sums of the windows; 0 if all zero points are 0.
    zeros: usize,
    windows: usize,
    /// Scales, and as many biases; 0 for integer results.
    scales: usize,
}

impl Parts {
    fn new(
        op: &ConvInteger,
        kernel: &'static dyn ByteKernel,
        shape: &ConvShape,
        has_zeros: bool,
        is_packed: bool,
    ) -> Self {
        let [weights, offsets, _] = kernel.packed_lens(shape);
        let (weights, sums) = if is_packed { (0, 0) } else { (weights, offsets) };
        let windows = if has_zeros { qsums::windows_len(shape) } else { 0 };
        let zeros = if windows > 0 { shape.out_c } else { 0 };
        Self { offsets, weights, sums, zeros, windows, scales: if op.floats { shape.out_c } else { 0 } }
    }

    fn bytes(&self) -> usize {
        let wide = [self.offsets, self.sums, self.zeros, self.windows, self.scales, self.scales];
        wide.map(|len| padded(len * 4)).iter().sum::<usize>() + padded(self.weights)
    }
}

/// Bytes of a part, padded so that the next one is aligned.
fn padded(bytes: usize) -> usize {
    bytes.next_multiple_of(skipstone_kernels::arena::ALIGNMENT)
}

/// Takes `len` elements from the front of the scratch.
fn part<'a, T: Element>(scratch: &mut &'a mut [u8], len: usize) -> Result<&'a mut [T], OpError> {
    let short = || OpError::Value("the scratch is too short".into());
    let bytes = len * size_of::<T>();
    let (part, rest) = std::mem::take(scratch).split_at_mut_checked(padded(bytes)).ok_or_else(short)?;
    *scratch = rest;
    bytemuck::try_cast_slice_mut(&mut part[..bytes]).map_err(|_| short())
}

/// Expands one value for all filters to one per filter.
fn spread<T: Copy, U: Copy>(from: &[T], to: &mut [U], convert: impl Fn(T) -> U) -> Result<(), OpError> {
    match from {
        &[one] => to.fill(convert(one)),
        each if each.len() == to.len() => to.iter_mut().zip(each).for_each(|(to, &from)| *to = convert(from)),
        _ => return Err(OpError::Operand(ConvInteger::WEIGHT_ZEROS)),
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use skipstone_kernels::Isa;

    use super::*;
    use crate::ops::check::{Random, assert_close, check, planned, single};
    use crate::ops::image::{ImageDims, Layout};

    #[test]
    fn a_hand_computed_product() {
        // [[1, 2], [3, 4]] and [[5, 6], [7, 8]] less zero points 1 and [5, 7].
        let x = Tensor::from_slice(&[1, 2, 1, 2], &[1u8, 2, 3, 4]).unwrap();
        let w = Tensor::from_slice(&[2, 2, 1, 1], &[5i8, 7, 6, 8]).unwrap();
        let zeros = Tensor::from_slice(&[2], &[5i8, 7]).unwrap();
        let op = ConvInteger { conv: Conv { layout: Layout::Nhwc, ..Conv::POINTWISE }, floats: false };
        let y = op.evaluate(&[&x, &w, &Tensor::scalar(1u8), &zeros]).unwrap().remove(0);
        assert_eq!(y.elements::<i32>(), Some(&[2, 1, 6, 1][..]));
    }

    #[test]
    fn kernels_agree_with_the_definition() {
        let mut random = Random(23);
        for case in 0..60 {
            let groups = random.pick(&[1, 1, 2, 8]);
            let conv = Conv {
                kernel: [random.pick(&[1, 2, 3]), random.pick(&[1, 3, 5])],
                stride: [random.pick(&[1, 2]), random.pick(&[1, 2, 3])],
                dilation: [random.pick(&[1, 2]), 1],
                pads: std::array::from_fn(|_| random.below(3)),
                groups,
                layout: random.pick(&[Layout::Nchw, Layout::Nhwc]),
                ..Conv::POINTWISE
            };
            let (depth, filters) = (groups * random.pick(&[1, 3, 16]), groups * random.pick(&[1, 4, 17]));
            let image =
                ImageDims { batch: random.pick(&[1, 2]), channels: depth, height: 5 + random.below(8), width: 6 };
            let (kernel, layout) = (conv.kernel, conv.layout);
            let op = ConvInteger { conv, floats: case % 2 == 0 };
            let (zero_shape, per_filter, scales) =
                (random.pick(&[&[][..], &[1]]), random.pick(&[1, filters]), random.pick(&[1, filters]));
            let zeros = match random.below(3) {
                0 => Tensor::from_slice(&[per_filter], &vec![0i8; per_filter]).unwrap(),
                _ => random.tensor(DType::I8, &[per_filter]),
            };
            let mut inputs = vec![
                random.tensor(DType::U8, &image.shape(layout).unwrap()),
                random.tensor(DType::I8, &[filters, depth / groups, kernel[0], kernel[1]]),
                random.tensor(DType::U8, zero_shape),
                zeros,
            ];
            if op.floats {
                inputs.extend([random.floats(&[scales]), random.floats(&[filters])]);
            }
            let want = check(op.clone(), &inputs, 0.0);
            // As quantizers store them: constant weights and zero points.
            let graph = single(op, &inputs, &[1, 3]);
            let given: Vec<Tensor> =
                inputs.iter().enumerate().filter(|(i, _)| ![1, 3].contains(i)).map(|(_, t)| t.clone()).collect();
            for isa in Isa::available() {
                let got = planned(&graph, isa, &given).unwrap();
                assert_close(&got[0], &want[0], 0.0, "with constant weights");
            }
        }
    }

    #[test]
    fn bad_operands_are_errors() {
        let op = ConvInteger { conv: Conv { layout: Layout::Nhwc, ..Conv::POINTWISE }, floats: false };
        let fact = |dtype, dims: &[usize]| Fact::new(dtype, Shape::new(dims).unwrap());
        let infer = |zero: Fact, zeros: Fact| {
            op.infer(&[&fact(DType::U8, &[1, 5, 1, 6]), &fact(DType::I8, &[4, 6, 1, 1]), &zero, &zeros])
        };
        assert!(infer(fact(DType::U8, &[]), fact(DType::I8, &[4])).is_ok());
        assert!(infer(fact(DType::U8, &[]), fact(DType::I8, &[1])).is_ok());
        assert!(infer(fact(DType::U8, &[]), fact(DType::I8, &[3])).is_err());
        assert!(infer(fact(DType::U8, &[5]), fact(DType::I8, &[4])).is_err());
        assert!(infer(fact(DType::I8, &[]), fact(DType::I8, &[4])).is_err());
        assert!(infer(fact(DType::U8, &[]), fact(DType::U8, &[4])).is_err());
        assert!(op.infer(&[]).is_err());
    }
}
