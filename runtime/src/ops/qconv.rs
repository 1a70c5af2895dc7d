//! QConv: a quantized convolution, or a matrix product as a 1x1 convolution.
//!
//! Operands: the images as uint8; then, all constant, the weights `[out, in / groups, rows, columns]` as int8 with zero
//! point 0, the bias `[out]` in 32 bits, and for each filter the factor of its sum:
//!
//! ```text
//! sum = sum over the window of (x - zero) * weight + bias
//! y   = table[byte(sum * scale)]       or, as float,  sum * scale
//! ```
//!
//! The bias is in units of the input's scale times the filter's. For a quantized result, the scale is that product
//! divided by the result's scale.

use bytemuck::{cast_slice, cast_slice_mut};
use serde::{Deserialize, Serialize};
use skipstone_kernels::conv::{ByteConv, ConvShape, Out, Packed};
use skipstone_kernels::requantize::Requantize;

use super::byte_conv::{self, WEIGHTS, X};
use super::conv::Conv;
use super::quantized::ByteTable;
use crate::error::OpError;
use crate::operator::axes::{Axes, Elements, Link, Nhwc};
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Shape, Tensor};

/// A quantized convolution.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct QConv {
    /// The geometry; nothing is fused to it.
    pub conv: Conv,
    /// Zero point of the images.
    pub zero: u8,
    /// The kind of result.
    pub result: QResult,
}

/// The conversion of a sum.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub enum QResult {
    /// uint8.
    Bytes {
        /// From quanta to uint8.
        by: Requantize,
        /// Applied afterwards.
        table: Option<ByteTable>,
    },
    /// f32.
    Floats,
}

impl QConv {
    /// Position of the bias.
    const BIAS: usize = 2;
    /// Position of the scales.
    const SCALES: usize = 3;

    /// The shapes of images, weights and bias, after checking the types of all operands.
    fn operands<'a>(inputs: &[&'a Fact]) -> Result<[&'a Shape; 3], OpError> {
        let [x, weights, bias, scales] = super::arity::exactly::<4, _>(inputs)?;
        byte_conv::check_types(inputs, &[DType::U8, DType::I8, DType::I32, DType::F32])?;
        if scales.shape != bias.shape {
            return Err(OpError::shapes("one scale per filter", &[&weights.shape, &scales.shape]));
        }
        Ok([&x.shape, &weights.shape, &bias.shape])
    }

    fn shape(&self, inputs: &[&Fact]) -> Result<ConvShape, OpError> {
        byte_conv::shape(&self.conv, Self::operands(inputs)?)
    }

    fn dtype(&self) -> DType {
        match self.result {
            QResult::Bytes { .. } => DType::U8,
            QResult::Floats => DType::F32,
        }
    }
}

impl Operator for QConv {
    fn name(&self) -> &str {
        "QConv"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        Ok(vec![Fact::new(self.dtype(), byte_conv::check(&self.conv, Self::operands(inputs)?)?)])
    }

    fn macs(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        self.conv.macs(inputs, outputs)
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        self.conv.layout.kernel()?;
        let shape = self.shape(&cx.inputs)?;
        let (weights, bias): (&[i8], &[i32]) = (cx.constant(WEIGHTS)?, cx.constant(Self::BIAS)?);
        let scales: &[f32] = cx.constant(Self::SCALES)?;
        let (kernel, candidates) = byte_conv::choose(cx, self, &shape)?;
        let [weight_bytes, offsets, packed_scales] = kernel.packed_lens(&shape);
        let [mut w, mut o] = [cx.allocate(weight_bytes)?, cx.allocate(offsets * size_of::<i32>())?];
        let mut s = cx.allocate(packed_scales * size_of::<f32>())?;
        let to: (&mut [i8], &mut [i32], &mut [f32]) =
            (cast_slice_mut(&mut w), cast_slice_mut(&mut o), cast_slice_mut(&mut s));
        kernel.pack(&shape, weights, self.zero, (bias, scales), to);
        Ok(Choice {
            kernel: kernel.name().to_owned(),
            candidates,
            packed: vec![w.into(), o.into(), s.into()],
            form: None,
            absorbed: vec![WEIGHTS, Self::BIAS, Self::SCALES],
            scratch: kernel.scratch_len(&shape, cx.threads),
            ..Choice::default()
        })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        self.conv.layout.kernel()?;
        let shape = self.shape(&cx.inputs)?;
        let kernel = byte_conv::by_name(cx.kernel)?;
        let (zero, result) = (self.zero, self.result.clone());
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let weights: &[u8] = io.packed(0)?;
            let packed = Packed { weights: cast_slice(weights), offsets: io.packed(1)?, scales: io.packed(2)? };
            let (input, scratch) = (io.input(0)?, io.scratch::<u8>()?);
            let out = match &result {
                QResult::Bytes { by, table } => Out::Bytes { to: io.output(0)?, by: *by, table: table.as_deref() },
                QResult::Floats => Out::Floats(io.output(0)?),
            };
            kernel.run(ByteConv { shape: &shape, input, zero, packed, out }, scratch, io.pool());
            Ok(())
        }))
    }
}

impl Semantics for QConv {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let facts: Vec<&Fact> = inputs.iter().map(|t| t.fact()).collect();
        let shape = byte_conv::check(&self.conv, Self::operands(&facts)?)?;
        let weights = inputs[WEIGHTS].elements::<i8>().ok_or(OpError::Operand(WEIGHTS))?;
        let bias = inputs[Self::BIAS].elements::<i32>().ok_or(OpError::Operand(Self::BIAS))?;
        let scales = inputs[Self::SCALES].elements::<f32>().ok_or(OpError::Operand(Self::SCALES))?;
        let weight = |_: usize, at: usize| i32::from(weights[at]);
        let sums = byte_conv::sums(&self.conv, [&facts[X].shape, &shape], inputs[X].bytes(), self.zero, weight)?;
        let values = sums.map(|(filter, sum)| sum.wrapping_add(bias[filter]) as f32 * scales[filter]);
        let fact = Fact::new(self.dtype(), shape.clone());
        Ok(vec![match &self.result {
            QResult::Floats => Tensor::collected(fact, values)?,
            QResult::Bytes { by, table } => {
                let look_up = |byte: u8| table.as_ref().map_or(byte, |table| table[usize::from(byte)]);
                Tensor::collected(fact, values.map(|v| look_up(by.byte(v))))?
            }
        }])
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

#[cfg(test)]
mod tests {
    use skipstone_kernels::Isa;
    use skipstone_kernels::activation::Activation;

    use super::*;
    use crate::ops::check::{Random, assert_close, planned, single};
    use crate::ops::image::{ImageDims, Layout};

    #[test]
    fn kernels_agree_with_the_definition() {
        let mut random = Random(17);
        for _ in 0..60 {
            let groups = random.pick(&[1, 1, 2, 8]);
            let conv = Conv {
                kernel: [random.pick(&[1, 2, 3]), random.pick(&[1, 3, 5])],
                stride: [random.pick(&[1, 2]), random.pick(&[1, 2, 3])],
                dilation: [random.pick(&[1, 2]), 1],
                pads: std::array::from_fn(|_| random.below(3)),
                groups,
                layout: random.pick(&[Layout::Nchw, Layout::Nhwc]),
                activation: Activation::None,
                ..Conv::POINTWISE
            };
            let (depth, filters) = (groups * random.pick(&[1, 3, 16]), groups * random.pick(&[1, 4, 17]));
            let image =
                ImageDims { batch: random.pick(&[1, 2]), channels: depth, height: 5 + random.below(8), width: 6 };
            let table = random.pick(&[true, false]).then(|| ByteTable::of(|byte| 255 - byte));
            let result = match random.below(2) {
                0 => QResult::Bytes { by: Requantize::all(100), table },
                _ => QResult::Floats,
            };
            let (kernel, layout) = (conv.kernel, conv.layout);
            let op = QConv { conv, zero: random.next() as u8, result };
            let scales: Vec<f32> = (0..filters).map(|_| random.float().abs() * 0.1).collect();
            let inputs = [
                random.tensor(DType::U8, &image.shape(layout).unwrap()),
                random.tensor(DType::I8, &[filters, depth / groups, kernel[0], kernel[1]]),
                random.tensor(DType::I32, &[filters]),
                Tensor::from_slice(&[filters], &scales).unwrap(),
            ];
            let graph = single(op, &inputs, &[1, 2, 3]);
            let want = graph.evaluate(&inputs[..1]).unwrap();
            for isa in Isa::available() {
                let got = planned(&graph, isa, &inputs[..1]).unwrap();
                assert_close(&got[0], &want[0], 0.0, "a quantized convolution");
            }
        }
    }
}
