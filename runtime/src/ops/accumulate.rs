//! Scatter with a reduction: updates are combined with the existing elements ([ONNX
//! ScatterElements](https://onnx.ai/onnx/operators/onnx__ScatterElements.html),
//! [ScatterND](https://onnx.ai/onnx/operators/onnx__ScatterND.html)). Scatters that overwrite are separate operators.

use serde::{Deserialize, Serialize};
use skipstone_kernels::copy::copy;
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use super::binary::{BinaryKind, accumulate};
use super::gather::Indices;
use super::indexed::{AddressedBlocks, ScatterNd};
use super::scatter_elements::{Geometry, ScatterElements};
use crate::error::OpError;
use crate::operator::{
    BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics, elements_of, saturating_product,
};
use crate::tensor::{DType, Fact, Tensor};

/// A copy of x in which every update `u` replaces the element `y` at its index by `kind(y, u)`, in order; inputs are x,
/// the indices (i64) and the updates.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accumulate {
    /// The axis that single indices refer to; `None` if tuples of indices refer to blocks.
    pub axis: Option<usize>,
    /// Add, Mul, Min or Max.
    pub kind: BinaryKind,
}

/// How indices refer to the result.
enum Addressing {
    Elements(Geometry),
    Blocks(AddressedBlocks),
}

impl Accumulate {
    fn target(&self, x: &Fact, indices: &Fact, updates: &Fact) -> Result<Addressing, OpError> {
        Ok(match self.axis {
            Some(axis) => Addressing::Elements(Geometry::new(axis, x, updates)),
            None => Addressing::Blocks(AddressedBlocks::new(x, &indices.shape, 0)?),
        })
    }

    fn run(
        &self,
        dtype: DType,
        target: &Addressing,
        indices: &[i64],
        updates: &[u8],
        y: &mut [u8],
        pace: &Pace<'_>,
    ) -> Result<(), OpError> {
        match target {
            Addressing::Elements(geometry) => {
                let size = dtype.size();
                geometry.each(Indices::Wide(indices), pace, |at, number| {
                    let y = y.get_mut(at * size..(at + 1) * size).ok_or(OpError::Operand(0))?;
                    let update = updates.get(number * size..(number + 1) * size).ok_or(OpError::Operand(2))?;
                    accumulate(self.kind, dtype, update, y, pace)
                })
            }
            Addressing::Blocks(blocks) => blocks.each(indices, pace, |place, number| {
                let from = number * place.len();
                let update = updates.get(from..from + place.len()).ok_or(OpError::Operand(2))?;
                accumulate(self.kind, dtype, update, y.get_mut(place).ok_or(OpError::Operand(0))?, pace)
            }),
        }
    }
}

impl Operator for Accumulate {
    fn name(&self) -> &str {
        if self.axis.is_some() { "ScatterElements" } else { "ScatterND" }
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x, indices, _] = exactly::<3, _>(inputs)?;
        if indices.dtype != DType::I64 {
            return Err(OpError::Type { index: 1, got: indices.dtype, want: "i64" });
        }
        if x.dtype == DType::Bool {
            return Err(OpError::Type { index: 0, got: x.dtype, want: "a number" });
        }
        if !matches!(self.kind, BinaryKind::Add | BinaryKind::Mul | BinaryKind::Min | BinaryKind::Max) {
            return Err(OpError::Attribute { name: "reduction", reason: "must be add, mul, min or max".into() });
        }
        match self.axis {
            Some(axis) => ScatterElements { axis }.infer(inputs),
            None => ScatterNd.infer(inputs),
        }
    }

    /// Each update is combined separately.
    fn work(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        let updates = inputs.get(1).map_or(0, |indices| saturating_product(&[32, indices.shape.elements()]));
        elements_of(inputs).saturating_add(elements_of(outputs)).saturating_add(updates)
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "accumulate".into(), ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x, indices, updates] = exactly::<3, _>(&cx.inputs)?;
        let (this, dtype, target) = (*self, x.dtype, self.target(x, indices, updates)?);
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let (y, pace) = (io.output_bytes(0)?, io.pace());
            copy(io.input_bytes(0)?, y, &pace)?;
            this.run(dtype, &target, io.input(1)?, io.input_bytes(2)?, y, &pace)
        }))
    }
}

impl Semantics for Accumulate {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x, indices, updates] = exactly::<3, _>(inputs)?;
        let fact = self.infer(&[x.fact(), indices.fact(), updates.fact()])?.remove(0);
        let target = self.target(x.fact(), indices.fact(), updates.fact())?;
        let dtype = fact.dtype;
        let y = Tensor::written(fact, |y| {
            y.copy_from_slice(x.bytes());
            self.run(dtype, &target, super::number::words(indices)?, updates.bytes(), y, &Pace::free())
        });
        Ok(vec![y?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check, check_fails};

    const KINDS: [BinaryKind; 4] = [BinaryKind::Add, BinaryKind::Mul, BinaryKind::Min, BinaryKind::Max];

    fn indices(dims: &[usize], indices: &[i64]) -> Tensor {
        Tensor::from_slice(dims, indices).unwrap()
    }

    #[test]
    fn repeated_indices_accumulate() {
        let x = Tensor::from_slice(&[2, 2], &[1f32, 2.0, 3.0, 4.0]).unwrap();
        let updates = Tensor::from_slice(&[1, 2], &[10f32, 20.0]).unwrap();
        let add = Accumulate { axis: Some(0), kind: BinaryKind::Add };
        let y = check(add, &[x.clone(), indices(&[1, 2], &[-1, 0]), updates.clone()], 0.0);
        assert_eq!(y[0].elements::<f32>(), Some(&[1.0, 22.0, 13.0, 4.0][..]));
        let rows = Tensor::from_slice(&[2, 2], &[10f32, 20.0, 30.0, 40.0]).unwrap();
        let add = Accumulate { axis: None, kind: BinaryKind::Add };
        let y = check(add, &[x, indices(&[2, 1], &[1, 1]), rows], 0.0);
        assert_eq!(y[0].elements::<f32>(), Some(&[1.0, 2.0, 43.0, 64.0][..]));
    }

    #[test]
    fn every_kind_and_type() {
        let mut random = Random(71);
        for kind in KINDS {
            for dtype in [DType::F32, DType::F64, DType::F16, DType::I8, DType::I64, DType::U8] {
                let (x, updates) = (random.tensor(dtype, &[3, 300]), random.tensor(dtype, &[2, 300]));
                check(Accumulate { axis: None, kind }, &[x, indices(&[2, 1], &[2, -1]), updates], 0.0);
            }
        }
    }

    #[test]
    fn bad_indices_and_kinds_are_refused() {
        let mut random = Random(72);
        let (x, update) = (random.floats(&[3]), random.floats(&[1]));
        for bad in [3, -4, i64::MIN] {
            let operands = [x.clone(), indices(&[1], &[bad]), update.clone()];
            check_fails(Accumulate { axis: Some(0), kind: BinaryKind::Add }, &operands);
        }
        let facts = [x.fact(), indices(&[1], &[0]).fact(), update.fact()].map(Clone::clone);
        let facts: Vec<&Fact> = facts.iter().collect();
        assert!(Accumulate { axis: Some(0), kind: BinaryKind::Sub }.infer(&facts).is_err());
        assert!(Accumulate { axis: Some(1), kind: BinaryKind::Add }.infer(&facts).is_err());
    }
}
