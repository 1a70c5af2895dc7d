//! Weights of a few bits, with a scale and a zero point per block, widened at load time: com.microsoft MatMulNBits, and
//! the matrices of QMoE.

use super::build::{Halt, Imported};
use super::call::Call;
use super::product::{Order, of_operands};
use super::table::{Entry, microsoft};
use crate::error::OpError;
use crate::ops::binary::BinaryKind;
use crate::tensor::DType;

pub(super) const OPERATORS: &[Entry] = &[microsoft(&["MatMulNBits"], matmul)];

/// Value `index` of those packed in `bytes`, lowest bits first.
pub(super) fn unpacked(bytes: &[u8], index: usize, bits: usize) -> Option<u8> {
    let bit = index * bits;
    Some(bytes.get(bit / 8)? >> (bit % 8) & (0xff >> (8 - bits)) as u8)
}

/// Rows of integers of a few bits, each row in blocks with their own scale and zero point.
pub(super) struct PackedRows<'a> {
    pub bits: usize,
    pub rows: usize,
    /// Elements of a row.
    pub depth: usize,
    /// Elements of a block; the last one of a row may be shorter.
    pub block: usize,
    /// Bytes from one row to the next.
    pub stride: usize,
    pub bytes: &'a [u8],
    /// `[rows, blocks]`
    pub scales: &'a [f32],
}

impl PackedRows<'_> {
    /// The zero point that is used if a file has none.
    pub fn middle(&self) -> f32 {
        (1u32 << (self.bits - 1)) as f32
    }

    /// Calls `put` with row, column and value of every element; `zero` is the zero point of a row's block.
    pub fn widen(
        &self,
        zero: impl Fn(usize, usize) -> Option<f32>,
        mut put: impl FnMut(usize, usize, f32),
    ) -> Result<(), OpError> {
        let incomplete = || OpError::Value("a block is incomplete".into());
        let (blocks, blob) = (self.depth.div_ceil(self.block), (self.block * self.bits).div_ceil(8));
        for row in 0..self.rows {
            for block in 0..blocks {
                let (start, number) = (row * self.stride + block * blob, row * blocks + block);
                let zero = zero(row, block).ok_or_else(incomplete)?;
                let (bytes, scale) = (self.bytes.get(start..), self.scales.get(number));
                let (bytes, scale) = bytes.zip(scale).ok_or_else(incomplete)?;
                let first = block * self.block;
                for at in 0..self.block.min(self.depth - first) {
                    let value = unpacked(bytes, at, self.bits).ok_or_else(incomplete)?;
                    put(row, first + at, (f32::from(value) - zero) * scale);
                }
            }
        }
        Ok(())
    }
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
    let zero_points = zeros.map(|id| cx.constant_of(id));
    let (Some(held), Some(scale), None | Some(Some(_))) = (held, scale, zero_points) else {
        return Err(cx.at(OpError::Value("weights, scales and zero points must be constants".into())));
    };
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
    let packing = PackedRows { bits, rows, depth, block, stride: blocks * blob, bytes: held.bytes(), scales: scale };
    let zero = |row: usize, block: usize| match (floats, packed) {
        (Some(zeros), _) => zeros.get(row * blocks + block).copied(),
        (None, Some(zeros)) => unpacked(zeros.get(row * row_of_zeros..)?, block, bits).map(f32::from),
        (None, None) => Some(packing.middle()),
    };
    packing.widen(zero, |row, at, value| wide[at * rows + row] = value).map_err(|e| cx.at(e))?;
    let wide = cx.elements(&[depth, rows], &wide)?;
    let product = of_operands(cx, a, wide)?;
    let y = product.multiply(cx, a, wide)?;
    let mut y = product.result(cx, y, Order::Plain)?;
    if let Some(bias) = cx.optional(5) {
        y = cx.binary(BinaryKind::Add, y, bias)?;
    }
    Ok(vec![y])
}
