//! Conversions between floats and quantized integers.

use super::build::{Halt, Imported};
use super::call::Call;
use super::table::{Entry, microsoft, standard};
use super::tensor::known_dtype;
use crate::error::OpError;
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::broadcast::Expand;
use crate::ops::dequantize::Dequantize;
use crate::ops::dynamic_quantize::DynamicQuantize;
use crate::ops::quantize::Quantize;
use crate::ops::quantized::is_quantized;
use crate::ops::slice::Slice;
use crate::ops::unary::UnaryKind;
use crate::tensor::{DType, Fact, Shape, Tensor};

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["QuantizeLinear"], quantize),
    standard(&["DequantizeLinear"], dequantize),
    standard(&["DynamicQuantizeLinear"], dynamic_quantize),
    microsoft(&["QuantizeLinear"], quantize),
    microsoft(&["DequantizeLinear"], dequantize),
];

impl Call<'_, '_> {
    /// Zero points of type `dtype`: operand `id`, or zeros in the shape of the scale.
    pub fn zero_point(&mut self, id: Option<ValueId>, scale: ValueId, dtype: DType) -> Result<ValueId, Halt> {
        if let Some(zero) = id {
            return Ok(zero);
        }
        let zeros = Tensor::try_zeros(Fact::new(dtype, self.shape(scale).clone())).map_err(|e| self.at(e))?;
        self.constant(zeros)
    }

    /// `x` dequantized with a scale and a zero point for the whole tensor or for each index of `axis`.
    pub fn dequantized(
        &mut self,
        x: ValueId,
        scale: ValueId,
        zero: Option<ValueId>,
        axis: i64,
    ) -> Result<ValueId, Halt> {
        let got = self.dtype(x);
        if !is_quantized(got) && got != DType::I32 {
            return Err(self.at(OpError::Type { index: 0, got, want: "u8, i8, u16, i16 or i32" }));
        }
        let zero = self.zero_point(zero, scale, got)?;
        let axis = self.channel_axis(x, scale, axis)?;
        self.add(Dequantize { axis }, &[x, scale, zero])
    }

    /// `x` quantized to the zero point's type.
    pub fn quantized(&mut self, x: ValueId, scale: ValueId, zero: ValueId, axis: i64) -> Result<ValueId, Halt> {
        let axis = self.channel_axis(x, scale, axis)?;
        let to = self.dtype(zero);
        if !is_quantized(to) {
            return Err(self.at(OpError::Type { index: 2, got: to, want: "u8, i8, u16 or i16" }));
        }
        self.add(Quantize { axis, to }, &[x, scale, zero])
    }

    /// The axis of the scales; any axis if there is a single scale.
    fn channel_axis(&self, x: ValueId, scale: ValueId, axis: i64) -> Result<usize, Halt> {
        if self.shape(scale).elements() == 1 { Ok(0) } else { self.axis_of(axis, self.rank(x)) }
    }
}

/// The result's type is the zero point's, or else given by `output_dtype`, or else u8.
fn quantize(cx: &mut Call<'_, '_>) -> Imported {
    let (mut x, scale) = (cx.input(0)?, cx.input(1)?);
    let axis = cx.int("axis", 1)?;
    let block = cx.int("block_size", 0)?;
    let said = match cx.int("output_dtype", 0)? {
        0 => DType::U8,
        number => known_dtype(number, cx.name())?,
    };
    if cx.dtype(x) == DType::I32 {
        x = cx.cast(x, DType::F32)?;
    }
    let zero = cx.zero_point(cx.optional(2), scale, said)?;
    match usize::try_from(block) {
        Ok(0) => Ok(vec![cx.quantized(x, scale, zero, axis)?]),
        Ok(block) => quantized_by_block(cx, x, [scale, zero], axis, block),
        Err(_) => Err(cx.attribute_error("block_size", "is negative")),
    }
}

/// `round(x / scale) + zero` with a scale and a zero point per block, clamped to the range of the type.
fn quantized_by_block(
    cx: &mut Call<'_, '_>,
    x: ValueId,
    [scale, zero]: [ValueId; 2],
    axis: i64,
    block: usize,
) -> Imported {
    let to = cx.dtype(zero);
    let range = match to {
        DType::U8 => (0.0, 255.0),
        DType::I8 => (-128.0, 127.0),
        DType::U16 => (0.0, 65535.0),
        DType::I16 => (-32768.0, 32767.0),
        _ => return Err(Halt::Foreign),
    };
    let zero = cx.cast(zero, DType::F32)?;
    let (scale, zero) = (stretched(cx, x, scale, axis, block)?, stretched(cx, x, zero, axis, block)?);
    let y = cx.binary(BinaryKind::Div, x, scale)?;
    let y = cx.unary(UnaryKind::Round, y)?;
    let y = cx.binary(BinaryKind::Add, y, zero)?;
    let y = cx.with_number(BinaryKind::Max, y, range.0)?;
    let y = cx.with_number(BinaryKind::Min, y, range.1)?;
    Ok(vec![cx.cast(y, to)?])
}

/// Parameters of blocks along an axis of `x`, each repeated over its block.
fn stretched(cx: &mut Call<'_, '_>, x: ValueId, id: ValueId, axis: i64, block: usize) -> Result<ValueId, Halt> {
    let dims = cx.shape(x).to_vec();
    let axis = cx.axis_of(axis, dims.len())?;
    let mut apart = dims.clone();
    let blocks = dims[axis].div_ceil(block);
    apart[axis] = blocks;
    if cx.shape(id).dims() != apart {
        return Err(cx.shape_error("there must be one scale and zero point per block", &[x, id]));
    }
    apart.insert(axis + 1, 1);
    let id = cx.reshape(id, &apart)?;
    apart[axis + 1] = block;
    let shape = Shape::new(&apart).map_err(|e| cx.at(e))?;
    let id = cx.add(Expand { shape }, &[id])?;
    let mut whole = dims.clone();
    whole[axis] = blocks * block;
    let id = cx.reshape(id, &whole)?;
    // The last block may be shorter.
    match whole == dims {
        true => Ok(id),
        false => cx.add(Slice { axis, start: 0, len: dims[axis], step: 1 }, &[id]),
    }
}

fn dequantize(cx: &mut Call<'_, '_>) -> Imported {
    let (x, scale, zero) = (cx.input(0)?, cx.input(1)?, cx.optional(2));
    let axis = cx.int("axis", 1)?;
    match usize::try_from(cx.int("block_size", 0)?) {
        Ok(0) => Ok(vec![cx.dequantized(x, scale, zero, axis)?]),
        Ok(block) => blocked(cx, [x, scale], zero, axis, block),
        Err(_) => Err(cx.attribute_error("block_size", "is negative")),
    }
}

/// A scale and a zero point per block of `block` indices of an axis: `(x - zero) * scale`, both repeated.
fn blocked(
    cx: &mut Call<'_, '_>,
    [x, scale]: [ValueId; 2],
    zero: Option<ValueId>,
    axis: i64,
    block: usize,
) -> Imported {
    let mut y = cx.cast(x, DType::F32)?;
    if let Some(zero) = zero {
        let zero = cx.cast(zero, DType::F32)?;
        let zero = stretched(cx, x, zero, axis, block)?;
        y = cx.binary(BinaryKind::Sub, y, zero)?;
    }
    let scale = stretched(cx, x, scale, axis, block)?;
    Ok(vec![cx.binary(BinaryKind::Mul, y, scale)?])
}

fn dynamic_quantize(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    cx.add_all(DynamicQuantize, &[x])
}
