//! Length: a length that was computed in the run, which must not exceed a limit. The other results of a node that has
//! such a length are planned with the limit.

use serde::{Deserialize, Serialize};

use super::arity::exactly;
use super::number::words;
use crate::error::OpError;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Tensor};

/// The first operand, an i64 of rank 0, if it is not negative and at most the second, of the same type; otherwise an
/// error in the run.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Length;

/// An operand that is one i64 of rank 0.
pub(super) fn one(index: usize, fact: &Fact) -> Result<(), OpError> {
    match (fact.dtype, fact.shape.rank()) {
        (DType::I64, 0) => Ok(()),
        (DType::I64, _) => Err(OpError::shapes("a length has rank 0", &[&fact.shape])),
        (got, _) => Err(OpError::Type { index, got, want: "i64" }),
    }
}

fn checked(len: &[i64], most: &[i64], to: &mut [i64]) -> Result<(), OpError> {
    let (&[len], &[most], [to]) = (len, most, to) else { return Err(OpError::Operand(0)) };
    if len < 0 || len > most {
        return Err(OpError::Value(format!("a computed length is {len}, but must be in 0..={most}")));
    }
    *to = len;
    Ok(())
}

impl Operator for Length {
    fn name(&self) -> &str {
        "Length"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let facts = exactly::<2, _>(inputs)?;
        facts.iter().enumerate().try_for_each(|(index, fact)| one(index, fact))?;
        Ok(vec![facts[0].clone()])
    }

    fn plan(&self, _cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        Ok(Choice { kernel: "length".into(), ..Choice::default() })
    }

    fn bind(&self, _cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        Ok(Box::new(|io: &mut Io<'_, '_>| checked(io.input(0)?, io.input(1)?, io.output(0)?)))
    }
}

impl Semantics for Length {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [len, most] = exactly::<2, _>(inputs)?;
        let mut to = [0];
        checked(words(len)?, words(most)?, &mut to)?;
        Ok(vec![Tensor::scalar(to[0])])
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{check, check_fails};

    #[test]
    fn a_length_is_within_its_limit() {
        for (len, most) in [(0i64, 0i64), (0, 3), (3, 3), (7, i64::MAX)] {
            let y = check(Length, &[Tensor::scalar(len), Tensor::scalar(most)], 0.0);
            assert_eq!(y[0].elements::<i64>(), Some(&[len][..]));
        }
        for (len, most) in [(4i64, 3i64), (-1, 3), (i64::MIN, i64::MAX), (1, 0)] {
            check_fails(Length, &[Tensor::scalar(len), Tensor::scalar(most)]);
        }
        assert!(Length.infer(&[Tensor::scalar(1i32).fact(), Tensor::scalar(1i64).fact()]).is_err());
    }
}
