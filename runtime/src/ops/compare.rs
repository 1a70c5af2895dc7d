//! Comparisons of two tensors with NumPy broadcasting ([ONNX
//! Greater](https://onnx.ai/onnx/operators/onnx__Greater.html), Less, Equal and similar). The result is boolean; with a
//! NaN operand only `NotEqual` is true.

use serde::{Deserialize, Serialize};
use skipstone_kernels::binary::{self, Broadcast, CompareFn};
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use crate::operator::axes::Axes;

use super::walk::Walk;
use super::wide::{CHUNK, Wide, by_wide};
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Shape, Tensor};

/// A comparison of two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum CompareKind {
    /// `a == b`
    Equal,
    /// `a != b`
    NotEqual,
    /// `a < b`
    Less,
    /// `a <= b`
    LessEqual,
    /// `a > b`
    Greater,
    /// `a >= b`
    GreaterEqual,
}

impl CompareKind {
    fn kernel(self) -> Option<CompareFn> {
        Some(match self {
            Self::Equal => CompareFn::Equal,
            Self::NotEqual => return None,
            Self::Less => CompareFn::Less,
            Self::LessEqual => CompareFn::LessEqual,
            Self::Greater => CompareFn::Greater,
            Self::GreaterEqual => CompareFn::GreaterEqual,
        })
    }

    fn holds<T: PartialOrd>(self, a: T, b: T) -> bool {
        match self {
            Self::Equal => a == b,
            Self::NotEqual => a != b,
            Self::Less => a < b,
            Self::LessEqual => a <= b,
            Self::Greater => a > b,
            Self::GreaterEqual => a >= b,
        }
    }
}

/// `y = kind(a, b)`, 1 or 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Compare {
    /// The comparison.
    pub kind: CompareKind,
}

/// Compares in wide types, which preserve the order of the narrow ones.
fn zip<T: Wide>(
    kind: CompareKind,
    walk: &Walk<2>,
    dtype: DType,
    [a, b]: [&[u8]; 2],
    y: &mut [u8],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    let mut left = y;
    let (mut wide_a, mut wide_b) = ([T::ZERO; CHUNK], [T::ZERO; CHUNK]);
    walk.try_chunks(pace, &mut |[at_a, at_b]| {
        pace.spend(4 * at_a.len())?;
        T::load(dtype, a, at_a, &mut wide_a)?;
        T::load(dtype, b, at_b, &mut wide_b)?;
        let results = left.split_off_mut(..at_a.len()).ok_or(OpError::Operand(0))?;
        for (result, (&a, &b)) in results.iter_mut().zip(wide_a.iter().zip(&wide_b)) {
            *result = u8::from(kind.holds(a, b));
        }
        Ok(())
    })
}

fn compare_all(
    kind: CompareKind,
    walk: &Walk<2>,
    dtype: DType,
    operands: [&[u8]; 2],
    y: &mut [u8],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    let dtype = if dtype == DType::Bool { DType::U8 } else { dtype };
    by_wide!(dtype, T => zip::<T>(kind, walk, dtype, operands, y, pace), else Err(OpError::Operand(0)))
}

impl Operator for Compare {
    fn name(&self) -> &str {
        match self.kind {
            CompareKind::Equal => "Equal",
            CompareKind::NotEqual => "NotEqual",
            CompareKind::Less => "Less",
            CompareKind::LessEqual => "LessEqual",
            CompareKind::Greater => "Greater",
            CompareKind::GreaterEqual => "GreaterEqual",
        }
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [a, b] = exactly::<2, _>(inputs)?;
        if a.dtype != b.dtype {
            return Err(OpError::Type { index: 1, got: b.dtype, want: "the type of the first input" });
        }
        Ok(vec![Fact::new(DType::Bool, Shape::broadcast(&[&a.shape, &b.shape])?)])
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let [a, _] = exactly::<2, _>(&cx.inputs)?;
        let kernel = match (a.dtype, self.kind.kernel()) {
            (DType::F32, Some(_)) => format!("compare_f32_{}", cx.isa),
            (dtype, _) => format!("compare_{dtype}"),
        };
        Ok(Choice { kernel, ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [a, b] = exactly::<2, _>(&cx.inputs)?;
        let [y] = exactly::<1, _>(&cx.outputs)?;
        let (kind, isa) = (self.kind, cx.isa);
        if let (DType::F32, Some(function)) = (a.dtype, kind.kernel()) {
            let broadcast = Broadcast::of_shapes(&a.shape, &b.shape)
                .map_err(|_| OpError::shapes("these shapes do not broadcast", &[&a.shape, &b.shape]))?;
            return Ok(Box::new(move |io: &mut Io<'_, '_>| {
                binary::compare(isa, function, &broadcast, io.input(0)?, io.input(1)?, io.output(0)?, io.pool());
                Ok(())
            }));
        }
        let walk = Walk::broadcast(&y.shape, [&a.shape, &b.shape]);
        let dtype = a.dtype;
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let operands = [io.input_bytes(0)?, io.input_bytes(1)?];
            compare_all(kind, &walk, dtype, operands, io.output_bytes(0)?, &io.pace())
        }))
    }
}

impl Semantics for Compare {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [a, b] = exactly::<2, _>(inputs)?;
        let fact = self.infer(&[a.fact(), b.fact()])?.remove(0);
        let walk = Walk::broadcast(&fact.shape, [a.shape(), b.shape()]);
        Ok(vec![Tensor::written(fact, |y| {
            compare_all(self.kind, &walk, a.dtype(), [a.bytes(), b.bytes()], y, &Pace::free())
        })?])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        Axes::elementwise(inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    const KINDS: [CompareKind; 6] = [
        CompareKind::Equal,
        CompareKind::NotEqual,
        CompareKind::Less,
        CompareKind::LessEqual,
        CompareKind::Greater,
        CompareKind::GreaterEqual,
    ];

    #[test]
    fn every_comparison_agrees_on_broadcast_shapes() {
        let mut random = Random(6);
        for kind in KINDS {
            for dtype in [DType::F32, DType::F64, DType::I64, DType::U8, DType::Bool] {
                let (rows, columns) = (random.pick(&[1, 3]), random.pick(&[1, 9, 17]));
                let operands = [random.tensor(dtype, &[rows, columns]), random.tensor(dtype, &[columns])];
                check(Compare { kind }, &operands, 0.0);
                let operands = [random.tensor(dtype, &[rows, 1]), random.tensor(dtype, &[columns])];
                check(Compare { kind }, &operands, 0.0);
            }
        }
    }

    #[test]
    fn nan_equals_nothing() {
        let nan = Tensor::from_slice(&[1], &[f32::NAN]).unwrap();
        for kind in KINDS {
            let y = check(Compare { kind }, &[nan.clone(), nan.clone()], 0.0);
            assert_eq!(y[0].elements::<u8>(), Some(&[u8::from(kind == CompareKind::NotEqual)][..]));
        }
    }
}
