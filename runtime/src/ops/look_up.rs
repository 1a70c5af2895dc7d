//! LookUp: a table with a result for every byte.
//!
//! Everything that happens to a single quantized element between two quantized tensors is a function of a byte: an
//! activation, another scale, a sign. The passes turn it into a table.

use serde::{Deserialize, Serialize};
use skipstone_kernels::qmap;

use super::arity::exactly;
use super::quantized::{ByteTable, flip};
use crate::error::OpError;
use crate::operator::axes::Axes;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Tensor};

/// `y = table[x]`, for bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct LookUp {
    /// The result byte for each input byte.
    pub table: ByteTable,
    /// Type of the result, int8 or uint8.
    pub to: DType,
}

impl LookUp {
    /// Converts between int8 and uint8 that is 128 larger.
    #[must_use]
    pub fn flip(to: DType) -> Self {
        Self { table: ByteTable::of(flip), to }
    }
}

impl Operator for LookUp {
    fn name(&self) -> &str {
        "LookUp"
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let is_byte = |dtype| matches!(dtype, DType::U8 | DType::I8);
        if !is_byte(x.dtype) || !is_byte(self.to) {
            return Err(OpError::Type { index: 0, got: x.dtype, want: "u8 or i8" });
        }
        Ok(vec![Fact::new(self.to, x.shape.clone())])
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        self.infer(&cx.inputs)?;
        Ok(Choice { kernel: "look_up".into(), ..Choice::default() })
    }

    fn bind(&self, _cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let table = self.table.clone();
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            qmap::look_up(io.input_bytes(0)?, &table, io.output_bytes(0)?, io.pool());
            Ok(())
        }))
    }
}

impl Semantics for LookUp {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let bytes = x.bytes().iter().map(|&byte| self.table[usize::from(byte)]);
        Ok(vec![Tensor::collected(self.infer(&[x.fact()])?.remove(0), bytes)?])
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
    fn a_flipped_byte_is_128_away() {
        let x = Tensor::from_slice(&[3], &[-128i8, 0, 127]).unwrap();
        let y = check(LookUp::flip(DType::U8), &[x], 0.0);
        assert_eq!(y[0].elements::<u8>(), Some(&[0, 128, 255][..]));
        let table = ByteTable::of(|byte| byte.wrapping_mul(3));
        check(LookUp { table, to: DType::I8 }, &[Random(1).tensor(DType::U8, &[3, 7])], 0.0);
    }
}
