//! com.microsoft MatMulNBits: weights of a few bits, with a scale per block, widened at load time.

use super::build::{Halt, Imported};
use super::call::Call;
use super::product::{Order, of_operands};
use super::table::{Entry, microsoft};
use crate::error::OpError;
use crate::ops::binary::BinaryKind;
use crate::tensor::DType;

pub(super) const OPERATORS: &[Entry] = &[microsoft(&["MatMulNBits"], matmul)];

/// Value `index` of those packed in `bytes`, lowest bits first.
fn unpacked(bytes: &[u8], index: usize, bits: usize) -> Option<u8> {
    let bit = index * bits;
    Some(bytes.get(bit / 8)? >> (bit % 8) & (0xff >> (8 - bits)) as u8)
}

/// `a [.., k]` times weights `[n, blocks, bytes]`: each block of a row has a scale and a zero point.
fn matmul(cx: &mut Call<'_, '_>) -> Imported {
    let (a, weights, scales) = (cx.input(0)?, cx.input(1)?, cx.input(2)?);
    let size = |name: &'static str| -> Result<usize, Halt> {
        let size = usize::try_from(cx.int(name, 0)?).ok().filter(|size| (1..1 << 24).contains(size));
        size.ok_or_else(|| cx.attribute_error(name, "is missing, or out of range"))
    };
    let (depth, rows, block) = (size("K")?, size("N")?, size("block_size")?);
    let bits = usize::try_from(cx.int("bits", 4)?).ok().filter(|bits| matches!(bits, 2 | 4 | 8));
    let bits = bits.ok_or_else(|| cx.attribute_error("bits", "must be 2, 4 or 8"))?;
    if cx.optional(4).is_some() {
        // Blocks in a different order.
        return Err(Halt::Foreign);
    }
    let blocks = depth.div_ceil(block);
    let blob = (block * bits).div_ceil(8);
    let row_of_zeros = (blocks * bits).div_ceil(8);
    let zeros = cx.optional(3);
    let (held, scale) = (cx.constant_of(weights), cx.constant_of(scales).and_then(|held| held.elements::<f32>()));
    let (Some(held), Some(scale)) = (held, scale) else { return Err(Halt::Foreign) };
    let zero_points = zeros.map(|id| cx.constant_of(id));
    let floats = zero_points.flatten().and_then(|held| held.elements::<f32>());
    let packed = zero_points.flatten().filter(|held| held.dtype() == DType::U8).map(|held| held.bytes());
    let fits = held.dtype() == DType::U8
        && (rows * blocks).checked_mul(blob) == Some(held.bytes().len())
        && scale.len() == rows * blocks
        && (zeros.is_none()
            || floats.is_some_and(|zeros| zeros.len() == rows * blocks)
            || packed.is_some_and(|zeros| zeros.len() == rows * row_of_zeros));
    if !fits {
        return Err(cx.shape_error("weights, scales and zero points must match the blocks", &[weights, scales]));
    }
    let mut wide = cx.copies(0f32, depth * rows)?;
    for row in 0..rows {
        for at in 0..depth {
            let number = row * blocks + at / block;
            let bytes = held.bytes().get(number * blob..(number + 1) * blob).unwrap_or_default();
            let zero = match (floats, packed) {
                (Some(zeros), _) => zeros.get(number).copied(),
                (None, Some(zeros)) => {
                    let zeros = zeros.get(row * row_of_zeros..).unwrap_or_default();
                    unpacked(zeros, at / block, bits).map(f32::from)
                }
                (None, None) => Some((1u32 << (bits - 1)) as f32),
            };
            let value = unpacked(bytes, at % block, bits).map(f32::from);
            let (Some(value), Some(zero)) = (value, zero) else {
                return Err(cx.at(OpError::Value("a block is incomplete".into())));
            };
            wide[at * rows + row] = (value - zero) * scale[number];
        }
    }
    let wide = cx.elements(&[depth, rows], &wide)?;
    let product = of_operands(cx, a, wide)?;
    let y = product.multiply(cx, a, wide)?;
    let mut y = product.result(cx, y, Order::Plain)?;
    if let Some(bias) = cx.optional(5) {
        y = cx.binary(BinaryKind::Add, y, bias)?;
    }
    Ok(vec![y])
}
