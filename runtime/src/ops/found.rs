//! Found: the positions of the elements of a mask that are set, for NonZero, Compress and Unique ([ONNX
//! NonZero](https://onnx.ai/onnx/operators/onnx__NonZero.html)). There may be as many as the mask has elements; how many
//! there are is the second result.

use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Shape, Tensor};

/// The positions in a mask `[n]` of bools: those that are set, ascending, then zeros, as i64 `[n]`, and their number, an
/// i64 of rank 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Found;

/// Elements between two questions whether to stop.
const PART: usize = 1 << 12;

fn find(mask: &[u8], positions: &mut [i64], count: &mut [i64], pace: &Pace<'_>) -> Result<(), OpError> {
    let mut found = 0;
    for (part, bits) in mask.chunks(PART).enumerate() {
        pace.spend(2 * bits.len())?;
        for at in (0..bits.len()).filter(|&at| bits[at] != 0) {
            *positions.get_mut(found).ok_or(OpError::Operand(0))? = (part * PART + at) as i64;
            found += 1;
        }
    }
    for rest in positions.get_mut(found..).ok_or(OpError::Operand(0))?.chunks_mut(PART) {
        pace.spend(rest.len())?;
        rest.fill(0);
    }
    *count.first_mut().ok_or(OpError::Operand(1))? = found as i64;
    Ok(())
}

impl Operator for Found {
    fn name(&self) -> &str {
        "Found"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [mask] = exactly::<1, _>(inputs)?;
        if mask.dtype != DType::Bool {
            return Err(OpError::Type { index: 0, got: mask.dtype, want: "bool" });
        }
        if mask.shape.rank() != 1 {
            return Err(OpError::shapes("a mask has one axis", &[&mask.shape]));
        }
        Ok(vec![Fact::new(DType::I64, mask.shape.clone()), Fact::new(DType::I64, Shape::default())])
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "found".into(), ..Choice::default() })
    }

    fn bind(&self, _cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        Ok(Box::new(|io: &mut Io<'_, '_>| find(io.input_bytes(0)?, io.output(0)?, io.output(1)?, &io.pace())))
    }
}

impl Semantics for Found {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [mask] = exactly::<1, _>(inputs)?;
        let facts = self.infer(&[mask.fact()])?;
        let [positions, count] = exactly::<2, _>(&facts)?.clone();
        let (mut positions, mut count) = (Tensor::try_zeros(positions)?, Tensor::try_zeros(count)?);
        let places = positions.elements_mut().ok_or(OpError::Operand(0))?;
        find(mask.bytes(), places, count.elements_mut().ok_or(OpError::Operand(1))?, &Pace::free())?;
        Ok(vec![positions, count])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    #[test]
    fn positions_are_in_order_and_then_zeros() {
        let mask = Tensor::from_bytes(Fact::new(DType::Bool, Shape::new(&[5]).unwrap()), &[0, 1, 0, 1, 1]).unwrap();
        let y = check(Found, &[mask], 0.0);
        assert_eq!(y[0].elements::<i64>(), Some(&[1, 3, 4, 0, 0][..]));
        assert_eq!(y[1].elements::<i64>(), Some(&[3][..]));
        for len in [0, 1, 33] {
            check(Found, &[Random(len as u64).tensor(DType::Bool, &[len])], 0.0);
        }
        assert!(Found.infer(&[Random(1).floats(&[3]).fact()]).is_err());
    }
}
