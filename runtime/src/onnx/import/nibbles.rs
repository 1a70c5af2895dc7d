//! Weights of a few bits, with a scale and a zero point per block: com.microsoft MatMulNBits, and the matrices of QMoE.
//! Constants are widened at load time, what a run computes by the run.

use super::build::{Halt, Imported};
use super::call::Call;
use super::product::{Order, of_operands};
use super::table::{Entry, microsoft};
use crate::error::OpError;
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::concat::Concat;
use crate::ops::slice::Slice;
use crate::ops::transpose::Transpose;
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
    let shapes = Blocks { bits, depth, rows, block, blocks, blob, row_of_zeros };
    let operands = [Some(weights), Some(scales), zeros];
    if operands.into_iter().flatten().any(|id| cx.constant_of(id).is_none() && !cx.build.is_deferred(id)) {
        let wide = shapes.widened_in_run(cx, weights, scales, zeros)?;
        return product(cx, a, wide);
    }
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
    product(cx, a, wide)
}

/// The product with weights `[k, n]`, and the bias.
fn product(cx: &mut Call<'_, '_>, a: ValueId, wide: ValueId) -> Imported {
    let product = of_operands(cx, a, wide)?;
    let y = product.multiply(cx, a, wide)?;
    let mut y = product.result(cx, y, Order::Plain)?;
    if let Some(bias) = cx.optional(5) {
        y = cx.binary(BinaryKind::Add, y, bias)?;
    }
    Ok(vec![y])
}

/// The sizes of weights in blocks.
#[derive(Clone, Copy)]
struct Blocks {
    bits: usize,
    depth: usize,
    rows: usize,
    block: usize,
    /// Blocks of a row.
    blocks: usize,
    /// Bytes of a block.
    blob: usize,
    /// Bytes of the zero points of a row.
    row_of_zeros: usize,
}

impl Blocks {
    /// Weights `[k, n]` that a run computes from others that it computes.
    fn widened_in_run(
        self,
        cx: &mut Call<'_, '_>,
        weights: ValueId,
        scales: ValueId,
        zeros: Option<ValueId>,
    ) -> Result<ValueId, Halt> {
        let Self { bits, depth, rows, block, blocks, blob, row_of_zeros } = self;
        let elements = |id: ValueId| cx.shape(id).elements();
        let fits = cx.dtype(weights) == DType::U8
            && cx.dtype(scales) == DType::F32
            && Some(elements(weights)) == (rows * blocks).checked_mul(blob)
            && elements(scales) == rows * blocks
            && (block * bits).is_multiple_of(8)
            && zeros.is_none_or(|zeros| match cx.dtype(zeros) {
                DType::U8 => elements(zeros) == rows * row_of_zeros,
                DType::F32 => elements(zeros) == rows * blocks,
                _ => false,
            });
        if !fits {
            return Err(cx.shape_error("weights, scales and zero points must match the blocks", &[weights, scales]));
        }
        let wide = self.unpacked_in_run(cx, weights, &[rows, blocks, blob])?;
        let wide = cx.reshape(wide, &[rows, blocks, block])?;
        let centered = match zeros {
            None => cx.with_number(BinaryKind::Sub, wide, f64::from(1u32 << (bits - 1)))?,
            Some(zeros) => {
                let mut zero = zeros;
                if cx.dtype(zeros) == DType::U8 {
                    let all = self.unpacked_in_run(cx, zeros, &[rows, 1, row_of_zeros])?;
                    let all = cx.reshape(all, &[rows, row_of_zeros * 8 / bits])?;
                    zero = cx.add(Slice { axis: 1, start: 0, len: blocks, step: 1 }, &[all])?;
                }
                let zero = cx.reshape(zero, &[rows, blocks, 1])?;
                cx.binary(BinaryKind::Sub, wide, zero)?
            }
        };
        let scale = cx.reshape(scales, &[rows, blocks, 1])?;
        let scaled = cx.binary(BinaryKind::Mul, centered, scale)?;
        let flat = cx.reshape(scaled, &[rows, blocks * block])?;
        let whole = cx.add(Slice { axis: 1, start: 0, len: depth, step: 1 }, &[flat])?;
        let turned = Transpose::new(&[1, 0]).ok_or(Halt::Foreign)?;
        cx.add(turned, &[whole])
    }

    /// Bytes `[.., n]` as floats `[.., n, values of a byte]`.
    fn unpacked_in_run(self, cx: &mut Call<'_, '_>, bytes: ValueId, dims: &[usize]) -> Result<ValueId, Halt> {
        let mut dims = cx.list(dims.iter().copied())?;
        dims.push(1);
        let bytes = cx.reshape(bytes, &dims)?;
        let mut parts = cx.reserve(8 / self.bits)?;
        for index in 0..8 / self.bits {
            let by = cx.scalar((index * self.bits) as u8)?;
            let lowest = cx.binary(BinaryKind::ShiftRight, bytes, by)?;
            let mask = cx.scalar(0xff_u8 >> (8 - self.bits))?;
            parts.push(cx.binary(BinaryKind::BitAnd, lowest, mask)?);
        }
        let all = cx.add(Concat { axis: dims.len() - 1 }, &parts)?;
        cx.cast(all, DType::F32)
    }
}
