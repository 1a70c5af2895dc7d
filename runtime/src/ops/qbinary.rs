//! QBinary: adds or multiplies two quantized tensors.
//!
//! ```text
//! add       y = saturate(round((a - a_zero) * a_scale / y_scale + (b - b_zero) * b_scale / y_scale + y_zero))
//! multiply  y = saturate(round((a - a_zero) * (b - b_zero) * a_scale * b_scale / y_scale + y_zero))
//! ```
//!
//! The second operand has the shape of the first, or is repeated along adjacent axes of it. As in ONNX Runtime, the first
//! operand is added last, which decides how a sum between two steps is rounded.

use serde::{Deserialize, Serialize};
use skipstone_kernels::qmap::{self, Bytes, QBinaryFn};
use skipstone_kernels::requantize::Requantize;

use super::arity::exactly;
use crate::error::OpError;
use crate::operator::axes::Axes;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Shape, Tensor};

/// Addition or multiplication of uint8.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct QBinary {
    /// The function, with the scales in quanta of the result.
    pub function: QBinaryFn,
    /// Zero points of the operands.
    pub zeros: [u8; 2],
    /// From quanta to uint8.
    pub by: Requantize,
    /// 128 if the bytes represent signed ones, otherwise 0.
    pub origin: u8,
}

impl QBinary {
    /// The operands as `[outer, middle, inner]`, where the second has no middle; `None` for other shapes.
    #[must_use]
    pub fn dims(a: &Shape, b: &Shape) -> Option<[usize; 3]> {
        if a == b {
            return Some([1, 1, a.elements()]);
        }
        // Dimensions that the second operand lacks are 1.
        let lacking = a.rank().checked_sub(b.rank())?;
        let of_b = |axis: usize| axis.checked_sub(lacking).map_or(1, |axis| b[axis]);
        let repeated: Vec<usize> = (0..a.rank()).filter(|&axis| a[axis] != of_b(axis)).collect();
        let (&first, &last) = (repeated.first()?, repeated.last()?);
        // All axes between the first and the last repeated one must be repeated.
        if (first..=last).any(|axis| of_b(axis) != 1) {
            return None;
        }
        let product = |axes: &[usize]| axes.iter().product::<usize>();
        Some([product(&a[..first]), product(&a[first..=last]), product(&a[last + 1..])])
    }

    fn check(&self, inputs: &[&Fact]) -> Result<[usize; 3], OpError> {
        let [a, b] = exactly::<2, _>(inputs)?;
        if let Some((index, fact)) = [a, b].into_iter().enumerate().find(|(_, f)| f.dtype != DType::U8) {
            return Err(OpError::Type { index, got: fact.dtype, want: "u8" });
        }
        let misfit =
            || OpError::shapes("the second operand must be repeated along adjacent axes", &[&a.shape, &b.shape]);
        Self::dims(&a.shape, &b.shape).ok_or_else(misfit)
    }
}

impl Operator for QBinary {
    fn name(&self) -> &str {
        match self.function {
            QBinaryFn::Add { .. } => "QAdd",
            QBinaryFn::Multiply { .. } => "QMul",
        }
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        self.check(inputs)?;
        Ok(vec![inputs[0].clone()])
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        self.check(&cx.inputs)?;
        Ok(Choice { kernel: format!("qbinary_u8_{}", cx.isa), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let (op, dims, isa) = (*self, self.check(&cx.inputs)?, cx.isa);
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let a = Bytes { bytes: io.input(0)?, zero: op.zeros[0] };
            let b = Bytes { bytes: io.input(1)?, zero: op.zeros[1] };
            qmap::binary(isa, op.function, dims, a, b, op.by, op.origin, io.output(0)?, io.pool());
            Ok(())
        }))
    }
}

impl Semantics for QBinary {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [a, b] = exactly::<2, _>(inputs)?;
        let [_, middle, inner] = self.check(&[a.fact(), b.fact()])?;
        let value = |byte: u8| f32::from(i16::from(byte) - i16::from(self.origin));
        let [a_zero, b_zero, y_zero] = [self.zeros[0], self.zeros[1], self.by.zero].map(value);
        let by = Requantize { zero: self.origin, ..self.by };
        let bytes = a.bytes().iter().enumerate().map(|(i, &byte)| {
            let (x, y) = (value(byte), value(b.bytes()[i / (middle * inner) * inner + i % inner]));
            by.byte(match self.function {
                QBinaryFn::Add { a, b } => x.mul_add(a, y.mul_add(b, y_zero - (a * a_zero + b * b_zero))),
                QBinaryFn::Multiply { scale } => (x - a_zero) * (y - b_zero) * scale + y_zero,
            })
        });
        Ok(vec![Tensor::collected(a.fact().clone(), bytes)?])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        Axes::elementwise(inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    #[test]
    fn pairs_agree_with_the_definition() {
        let mut random = Random(6);
        for b in [[2, 5, 4, 17], [2, 1, 1, 17], [2, 5, 1, 1], [1, 1, 1, 1]] {
            for function in [QBinaryFn::Add { a: 0.7, b: 2.5 }, QBinaryFn::Multiply { scale: 1.5 }] {
                let op = QBinary { function, zeros: [3, 5], by: Requantize::all(9), origin: random.pick(&[0, 128]) };
                check(op, &[random.tensor(DType::U8, &[2, 5, 4, 17]), random.tensor(DType::U8, &b)], 0.0);
            }
        }
        let lower: [(&[usize], _); 4] =
            [(&[17], Some([1, 40, 17])), (&[], Some([1, 680, 1])), (&[4, 17], Some([1, 10, 68])), (&[5, 1, 1], None)];
        for (b, dims) in lower {
            assert_eq!(QBinary::dims(&Shape::new(&[2, 5, 4, 17]).unwrap(), &Shape::new(b).unwrap()), dims);
        }
        assert_eq!(QBinary::dims(&Shape::new(&[2, 3, 4]).unwrap(), &Shape::new(&[1, 3, 1]).unwrap()), None);
    }
}
