//! Operators on quantized tensors.
//!
//! Those with scales are rewritten as ordinary operators between dequantizing and quantizing:
//!
//! ```text
//! QLinearConv(x, .., w, .., y, .., b)
//!   =>
//! Dequantize(x) \
//! Dequantize(w)  > Conv -> Quantize(y)
//! Dequantize(b) /
//! ```
//!
//! That is their definition. ONNX Runtime's quantizer writes models in either form; after this there is only one, in
//! which the [passes](crate::graph) look for what can be computed in integers. Integer products with integer results
//! (ConvInteger, MatMulInteger) have their own operator.

use super::activation::named;
use super::build::{Halt, Imported};
use super::call::Call;
use super::convolution::{groups, of_window, window};
use super::elementwise::expand_to;
use super::product::{Order, of_operands};
use super::table::{Entry, microsoft, standard};
use super::window::image_dims;
use super::{convolution, pool, product};
use crate::error::OpError;
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::concat::Concat;
use crate::ops::conv::Conv;
use crate::ops::conv_integer::ConvInteger;
use crate::ops::dynamic_quantize::DynamicQuantize;
use crate::ops::image::Layout;
use crate::ops::look_up::LookUp;
use crate::ops::quantized::flip;
use crate::ops::softmax::{Softmax, SoftmaxKind};
use crate::tensor::{DType, Fact, Tensor};

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["ConvInteger"], conv_integer),
    standard(&["MatMulInteger"], matmul_integer),
    standard(&["QLinearConv"], convolution),
    standard(&["QLinearMatMul"], matmul),
    microsoft(&["QLinearConv"], convolution),
    microsoft(&["NhwcMaxPool"], max_pool),
    microsoft(&["QGemm"], gemm),
    microsoft(&["QLinearAdd"], add),
    microsoft(&["QLinearMul"], mul),
    microsoft(&["QLinearAveragePool"], average_pool),
    microsoft(&["QLinearGlobalAveragePool"], global_average_pool),
    microsoft(&["QLinearSigmoid"], sigmoid),
    microsoft(&["QLinearLeakyRelu"], leaky_relu),
    microsoft(&["QLinearConcat"], concat),
    microsoft(&["QLinearSoftmax"], softmax),
    microsoft(&["QLinearWhere"], select),
    microsoft(&["DynamicQuantizeMatMul"], dynamic_matmul),
    microsoft(&["MatMulIntegerToFloat"], matmul_to_float),
];

impl Call<'_, '_> {
    /// The dequantized operand whose elements, scale and zero point are the inputs from `first`.
    fn floats_at(&mut self, first: usize, axis: i64) -> Result<ValueId, Halt> {
        let (x, scale, zero) = (self.input(first)?, self.input(first + 1)?, self.optional(first + 2));
        self.dequantized(x, scale, zero, axis)
    }

    /// The floats of a bias in units of two scales, times `alpha`.
    fn bias_at(&mut self, index: usize, scales: [usize; 2], alpha: f32) -> Result<Option<ValueId>, Halt> {
        let Some(bias) = self.optional(index) else { return Ok(None) };
        let (a, b) = (self.input(scales[0])?, self.input(scales[1])?);
        let mut scale = self.binary(BinaryKind::Mul, a, b)?;
        if alpha != 1.0 {
            scale = self.with_number(BinaryKind::Mul, scale, f64::from(alpha))?;
        }
        if self.shape(scale).elements() == 1 {
            scale = self.reshape(scale, &[])?;
        }
        self.dequantized(bias, scale, None, -1).map(Some)
    }

    /// Quantizes `y` with the scale and zero point in the inputs from `first`; without a zero point, to the type of the
    /// first operand.
    fn quantized_at(&mut self, y: ValueId, first: usize) -> Imported {
        let (scale, like) = (self.input(first)?, self.dtype(self.input(0)?));
        let zero = self.zero_point(self.optional(first + 1), scale, like)?;
        Ok(vec![self.quantized(y, scale, zero, 1)?])
    }

    /// Runs the importer of an ordinary operator with other operands.
    fn on(&mut self, inputs: &[Option<ValueId>], importer: fn(&mut Self) -> Imported) -> Result<ValueId, Halt> {
        let own = std::mem::replace(&mut self.inputs, inputs.to_vec());
        let results = importer(self);
        self.inputs = own;
        results?.first().copied().ok_or(Halt::Foreign)
    }
}

/// Images with their channels moved from the last axis to the second one.
fn channels_second(cx: &mut Call<'_, '_>, x: ValueId) -> Result<ValueId, Halt> {
    let Some(last) = cx.rank(x).checked_sub(1).filter(|&last| last > 0) else {
        return Err(cx.shape_error("images must have at least 3 dimensions", &[x]));
    };
    cx.transpose(x, &[0, last].into_iter().chain(1..last).collect::<Vec<_>>())
}

/// Images with their channels moved from the second axis to the last one.
fn channels_last(cx: &mut Call<'_, '_>, y: ValueId) -> Result<ValueId, Halt> {
    cx.transpose(y, &[0].into_iter().chain(2..cx.rank(y)).chain([1]).collect::<Vec<_>>())
}

/// Runs the importer of an operator on images, whose channels may come last, and further operands.
fn on_images(
    cx: &mut Call<'_, '_>,
    last: bool,
    x: ValueId,
    operands: &[Option<ValueId>],
    importer: fn(&mut Call<'_, '_>) -> Imported,
) -> Result<ValueId, Halt> {
    let x = if last { channels_second(cx, x)? } else { x };
    let y = cx.on(&[&[Some(x)], operands].concat(), importer)?;
    if last { channels_last(cx, y) } else { Ok(y) }
}

/// `x, x_scale, x_zero, w, w_scale, w_zero, y_scale, y_zero, bias`; in com.microsoft the channels of the images may
/// come last, those of the weights come before the taps.
fn convolution(cx: &mut Call<'_, '_>) -> Imported {
    let last = cx.flag("channels_last", false)?;
    let (x, w) = (cx.floats_at(0, 1)?, cx.floats_at(3, 0)?);
    let bias = cx.bias_at(8, [1, 4], 1.0)?;
    let y = on_images(cx, last, x, &[Some(w), bias], convolution::conv)?;
    cx.quantized_at(y, 6)
}

/// Pooling of images whose channels come last.
fn max_pool(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    Ok(vec![on_images(cx, true, x, &[], pool::max)?])
}

/// `a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero`: one scale per row of the first operand, per column of the
/// second.
fn matmul(cx: &mut Call<'_, '_>) -> Imported {
    let (a, b) = (cx.floats_at(0, -2)?, cx.floats_at(3, -1)?);
    let y = cx.on(&[Some(a), Some(b)], product::matmul)?;
    cx.quantized_at(y, 6)
}

/// `a, a_scale, a_zero, b, b_scale, b_zero, c, y_scale, y_zero`: bias and the result's scale are optional.
fn gemm(cx: &mut Call<'_, '_>) -> Imported {
    let alpha = cx.float("alpha", 1.0)?;
    let by_columns = if cx.flag("transB", false)? { 0 } else { 1 };
    let (a, b) = (cx.floats_at(0, 1)?, cx.floats_at(3, by_columns)?);
    let bias = cx.bias_at(6, [1, 4], alpha)?;
    let y = cx.on(&[Some(a), Some(b), bias], product::gemm)?;
    if cx.optional(7).is_none() { Ok(vec![y]) } else { cx.quantized_at(y, 7) }
}

/// `a, a_scale, a_zero, b, b_scale, b_zero, y_scale, y_zero`
fn binary(cx: &mut Call<'_, '_>, kind: BinaryKind) -> Imported {
    let (a, b) = (cx.floats_at(0, 1)?, cx.floats_at(3, 1)?);
    let y = cx.binary(kind, a, b)?;
    cx.quantized_at(y, 6)
}

fn add(cx: &mut Call<'_, '_>) -> Imported {
    binary(cx, BinaryKind::Add)
}

fn mul(cx: &mut Call<'_, '_>) -> Imported {
    binary(cx, BinaryKind::Mul)
}

/// `x, x_scale, x_zero, y_scale, y_zero`
fn unary(cx: &mut Call<'_, '_>, importer: fn(&mut Call<'_, '_>) -> Imported) -> Imported {
    let last = cx.flag("channels_last", false)?;
    let x = cx.floats_at(0, 1)?;
    let y = on_images(cx, last, x, &[], importer)?;
    cx.quantized_at(y, 3)
}

fn average_pool(cx: &mut Call<'_, '_>) -> Imported {
    unary(cx, pool::average)
}

fn global_average_pool(cx: &mut Call<'_, '_>) -> Imported {
    unary(cx, pool::global)
}

fn sigmoid(cx: &mut Call<'_, '_>) -> Imported {
    unary(cx, |cx| activated(cx, "Sigmoid"))
}

fn leaky_relu(cx: &mut Call<'_, '_>) -> Imported {
    unary(cx, |cx| activated(cx, "LeakyRelu"))
}

fn activated(cx: &mut Call<'_, '_>, name: &str) -> Imported {
    let (x, activation) = (cx.input(0)?, named(cx, name)?);
    Ok(vec![cx.activate(activation, x)?])
}

/// `y_scale, y_zero`, then three inputs for each operand.
fn concat(cx: &mut Call<'_, '_>) -> Imported {
    let firsts = (2..cx.inputs.len()).step_by(3);
    let operands = firsts.map(|first| cx.floats_at(first, 1)).collect::<Result<Vec<_>, _>>()?;
    let Some(&first) = operands.first() else { return Err(cx.at(OpError::Arity { want: "at least 5", got: 2 })) };
    let axis = cx.axis(1, cx.rank(first))?;
    let y = if operands.len() == 1 { first } else { cx.add(Concat { axis }, &operands)? };
    cx.quantized_at(y, 0)
}

/// `condition`, then two operands with their scales and zero points, then those of the result.
fn select(cx: &mut Call<'_, '_>) -> Imported {
    let condition = cx.input(0)?;
    let (a, b) = (cx.floats_at(1, 1)?, cx.floats_at(4, 1)?);
    let y = cx.select(condition, a, b)?;
    cx.quantized_at(y, 7)
}

/// The softmax of the opset that the node names.
fn softmax(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.floats_at(0, 1)?;
    let rank = cx.rank(x);
    let axis = cx.axis(-1, rank)?;
    let axes = if cx.int("opset", 13)? >= 13 { vec![axis] } else { (axis..rank).collect() };
    let y = cx.add(Softmax { axes, kind: SoftmaxKind::Softmax }, &[x])?;
    cx.quantized_at(y, 3)
}

/// The floats of an integer product in units of two scales, plus a bias.
fn scaled(cx: &mut Call<'_, '_>, product: ValueId, scales: [ValueId; 2], bias: Option<ValueId>) -> Imported {
    let floats = cx.cast(product, DType::F32)?;
    let scale = cx.binary(BinaryKind::Mul, scales[0], scales[1])?;
    let mut y = cx.binary(BinaryKind::Mul, floats, scale)?;
    if let Some(bias) = bias {
        y = cx.binary(BinaryKind::Add, y, bias)?;
    }
    Ok(vec![y])
}

/// `a, b, b_scale, b_zero, bias`: the first operand is quantized with a scale computed from it.
fn dynamic_matmul(cx: &mut Call<'_, '_>) -> Imported {
    let [a, b, b_scale] = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    let made = cx.add_all(DynamicQuantize, &[a])?;
    let &[bytes, scale, zero] = made.as_slice() else { return Err(Halt::Foreign) };
    let product = cx.on(&[Some(bytes), Some(b), Some(zero), cx.optional(3)], matmul_integer)?;
    scaled(cx, product, [scale, b_scale], cx.optional(4))
}

/// The product of the first two operands, with a scale for each, then zero points in the inputs from `zeros`, and a bias.
pub(super) fn product_of_bytes(
    cx: &mut Call<'_, '_>,
    scales: [ValueId; 2],
    zeros: usize,
    bias: Option<ValueId>,
) -> Result<ValueId, Halt> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let product = cx.on(&[Some(a), Some(b), cx.optional(zeros), cx.optional(zeros + 1)], matmul_integer)?;
    Ok(scaled(cx, product, scales, bias)?[0])
}

/// `a, b, a_scale, b_scale, a_zero, b_zero, bias`
fn matmul_to_float(cx: &mut Call<'_, '_>) -> Imported {
    let (scales, bias) = ([cx.input(2)?, cx.input(3)?], cx.optional(6));
    Ok(vec![product_of_bytes(cx, scales, 4, bias)?])
}

/// The convolution of integers minus their zero points, with an integer result.
fn conv_integer(cx: &mut Call<'_, '_>) -> Imported {
    let (x, weights) = (cx.input(0)?, cx.input(1)?);
    let window = window(cx, x, weights)?;
    let Some(image) = window.as_image() else { return Err(Halt::Foreign) };
    let filters = cx.shape(weights)[0];
    let [zero, weight_zeros] = zero_points(cx, [filters; 2])?;
    let out: Vec<usize> = [cx.shape(x)[0], filters].iter().chain(&window.out).copied().collect();
    let (from, kernel) = (image_dims(cx.shape(x)), image_dims(cx.shape(weights)));
    let [x, weights] = operands(cx)?;
    let (x, weights) = (cx.reshape(x, &from)?, cx.reshape(weights, &kernel)?);
    let conv = of_window(&image, groups(cx)?);
    let y = cx.add(ConvInteger { conv, floats: false }, &[x, weights, zero, weight_zeros])?;
    Ok(vec![cx.reshape(y, &out)?])
}

/// A product is a 1x1 convolution over an image of one column, with each product of a batch as a group of channels.
fn matmul_integer(cx: &mut Call<'_, '_>) -> Imported {
    let product = of_operands(cx, cx.input(0)?, cx.input(1)?)?;
    let [batch, m, n, k] = product.lens();
    let filters = batch.saturating_mul(n);
    let [zero, mut weight_zeros] = zero_points(cx, [n, filters])?;
    if ![1, filters].contains(&cx.shape(weight_zeros).elements()) {
        // The columns of every product have the same zero points.
        let columns = cx.reshape(weight_zeros, &[1, n])?;
        weight_zeros = expand_to(cx, columns, &[batch, n])?;
    }
    let [a, b] = operands(cx)?;
    let a = product.first(cx, a, Order::RowsFirst)?;
    let b = product.second(cx, b, Order::Transposed)?;
    let a = cx.reshape(a, &[1, m, 1, batch.saturating_mul(k)])?;
    let b = cx.reshape(b, &[filters, k, 1, 1])?;
    let conv = Conv { layout: Layout::Nhwc, groups: batch, ..Conv::POINTWISE };
    let y = cx.add(ConvInteger { conv, floats: false }, &[a, b, zero, weight_zeros])?;
    Ok(vec![product.result(cx, y, Order::RowsFirst)?])
}

/// The operands, the first as uint8, the second as int8.
fn operands(cx: &mut Call<'_, '_>) -> Result<[ValueId; 2], Halt> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    Ok([flipped(cx, a, DType::U8)?, flipped(cx, b, DType::I8)?])
}

/// The zero points of the operands, the first as uint8, the second as int8: one for the first operand, one or as many
/// as `counts` allows for the second.
fn zero_points(cx: &mut Call<'_, '_>, counts: [usize; 2]) -> Result<[ValueId; 2], Halt> {
    let mut found = [cx.input(0)?; 2];
    for (operand, want) in [DType::U8, DType::I8].into_iter().enumerate() {
        let x = cx.input(operand)?;
        let got = cx.dtype(x);
        if !matches!(got, DType::U8 | DType::I8) {
            return Err(cx.at(OpError::Type { index: operand, got, want: "u8 or i8" }));
        }
        let zeros = match cx.optional(operand + 2) {
            Some(zeros) => zeros,
            None => cx.constant(Tensor::zeros(Fact::new(got, crate::tensor::Shape::default())))?,
        };
        if cx.dtype(zeros) != got {
            let got = cx.dtype(zeros);
            return Err(cx.at(OpError::Type { index: operand + 2, got, want: "the type of its operand" }));
        }
        let count = cx.shape(zeros).elements();
        if operand == 0 && count != 1 {
            return Err(cx.shape_error("there must be one zero point for the whole first operand", &[zeros]));
        }
        if operand == 1 && count != 1 && !counts.contains(&count) {
            return Err(
                cx.shape_error("there must be one zero point for all filters or columns, or one for each", &[x, zeros])
            );
        }
        found[operand] = flipped(cx, zeros, want)?;
    }
    Ok(found)
}

/// A matrix `[k, n]` of bytes, ready for products with floats that are quantized anew for each of them.
pub(super) struct ByteMatrix {
    /// int8 `[n, k, 1, 1]`
    weights: ValueId,
    zeros: ValueId,
    scale: ValueId,
    sizes: [usize; 2],
}

impl ByteMatrix {
    /// From bytes with a scale and a zero point, or one of each for every column.
    pub fn new(
        cx: &mut Call<'_, '_>,
        sizes: [usize; 2],
        matrix: ValueId,
        scale: ValueId,
        zero: ValueId,
    ) -> Result<Self, Halt> {
        let [k, n] = sizes;
        let got = cx.dtype(matrix);
        let bytes = matches!(got, DType::U8 | DType::I8) && cx.dtype(zero) == got && cx.dtype(scale) == DType::F32;
        let counts = [scale, zero].map(|id| cx.shape(id).elements());
        if !bytes || cx.shape(matrix).dims() != [k, n] || counts.iter().any(|count| ![1, n].contains(count)) {
            return Err(cx.shape_error("bytes need a scale and a zero point, or one for each column", &[matrix, scale]));
        }
        let turned = cx.transpose(matrix, &[1, 0])?;
        let weights = flipped(cx, turned, DType::I8)?;
        let weights = cx.reshape(weights, &[n, k, 1, 1])?;
        let zeros = flipped(cx, zero, DType::I8)?;
        let flat = |count: usize| if count == 1 { vec![] } else { vec![n] };
        Ok(Self {
            weights,
            zeros: cx.reshape(zeros, &flat(counts[1]))?,
            scale: cx.reshape(scale, &flat(counts[0]))?,
            sizes,
        })
    }

    /// The product of floats `[m, k]` with it.
    pub fn multiply(&self, cx: &mut Call<'_, '_>, a: ValueId) -> Result<ValueId, Halt> {
        let [k, n] = self.sizes;
        let m = cx.shape(a)[0];
        let made = cx.add_all(DynamicQuantize, &[a])?;
        let &[bytes, scale, zero] = made.as_slice() else { return Err(Halt::Foreign) };
        let bytes = cx.reshape(bytes, &[1, m, 1, k])?;
        let conv = Conv { layout: Layout::Nhwc, ..Conv::POINTWISE };
        let y = cx.add(ConvInteger { conv, floats: false }, &[bytes, self.weights, zero, self.zeros])?;
        let y = cx.reshape(y, &[m, n])?;
        Ok(scaled(cx, y, [scale, self.scale], None)?[0])
    }
}

/// Bytes in the type `want`: int8 is uint8 minus 128.
fn flipped(cx: &mut Call<'_, '_>, bytes: ValueId, want: DType) -> Result<ValueId, Halt> {
    if cx.dtype(bytes) == want {
        return Ok(bytes);
    }
    let Some(constant) = cx.constant_of(bytes) else { return cx.add(LookUp::flip(want), &[bytes]) };
    let flipped = constant.bytes().iter().map(|&byte| flip(byte));
    let tensor = Tensor::collected(Fact::new(want, constant.shape().clone()), flipped).map_err(|e| cx.at(e))?;
    cx.constant(tensor)
}
