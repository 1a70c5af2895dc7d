//! Values for settings, as callers write them.

use half::{bf16, f16};

use crate::tensor::{DType, Fact, Tensor};

/// The value of a variable.
#[derive(Clone, Debug)]
pub enum Value {
    /// Elements in row-major order: integers for integer variables, 0 and 1 for bools.
    Numbers(Vec<f64>),
    /// A tensor of the variable's type and shape.
    Tensor(Tensor),
}

macro_rules! from {
    ($($from:ty, $value:ident => $into:expr;)*) => {
        $(impl From<$from> for Value {
            fn from($value: $from) -> Self {
                $into
            }
        })*
    };
}
from! {
    bool, value => Self::Numbers(vec![value.into()]);
    i32, value => Self::Numbers(vec![value.into()]);
    f32, value => Self::Numbers(vec![value.into()]);
    f64, value => Self::Numbers(vec![value]);
    Vec<f64>, value => Self::Numbers(value);
    Tensor, value => Self::Tensor(value);
}

impl Value {
    /// Writes the value as the bytes of a tensor; returns false and changes nothing if it does not fit.
    pub(crate) fn write(&self, fact: &Fact, bytes: &mut [u8]) -> bool {
        let numbers = match self {
            Self::Numbers(numbers) => numbers,
            Self::Tensor(tensor) if tensor.fact() == fact && tensor.bytes().len() == bytes.len() => {
                bytes.copy_from_slice(tensor.bytes());
                return true;
            }
            Self::Tensor(_) => return false,
        };
        let fits = numbers.iter().all(|&number| bits(number, fact.dtype).is_some());
        if !fits || numbers.len() != fact.shape.elements() {
            return false;
        }
        let size = fact.dtype.size();
        for (element, &number) in bytes.chunks_exact_mut(size).zip(numbers) {
            element.copy_from_slice(&bits(number, fact.dtype).unwrap_or(0).to_le_bytes()[..size]);
        }
        true
    }
}

/// The bits of a number as an element; `None` if the type cannot represent it; for floats, if it is beyond the largest.
fn bits(number: f64, dtype: DType) -> Option<u64> {
    let width = 8 * dtype.size() as u32;
    let single = number as f32;
    let (bits, rounded): (u64, f64) = match dtype {
        DType::F64 => (number.to_bits(), number),
        DType::F32 => (single.to_bits().into(), single.into()),
        DType::F16 => (f16::from_f32_const(single).to_bits().into(), f16::from_f32_const(single).to_f32().into()),
        DType::Bf16 => (bf16::from_f32_const(single).to_bits().into(), bf16::from_f32_const(single).to_f32().into()),
        DType::Bool | DType::U8 | DType::U16 | DType::U32 | DType::U64 => {
            let width = if dtype == DType::Bool { 1 } else { width };
            let whole = number as u64;
            let held = whole as f64 == number && whole < u64::MAX && (width == 64 || whole >> width == 0);
            return held.then_some(whole);
        }
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => {
            let whole = number as i64;
            let held = whole as f64 == number && whole < i64::MAX && whole == whole << (64 - width) >> (64 - width);
            return held.then_some(whole.cast_unsigned());
        }
    };
    (rounded.is_finite() || !number.is_finite()).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(value: impl Into<Value>, dtype: DType, dims: &[usize]) -> Option<Vec<u8>> {
        let fact = Fact::new(dtype, crate::Shape::new(dims).unwrap());
        let mut bytes = vec![7; fact.bytes()];
        let fits = value.into().write(&fact, &mut bytes);
        assert!(fits || bytes.iter().all(|&byte| byte == 7), "what does not fit changed something");
        fits.then_some(bytes)
    }

    #[test]
    fn numbers_become_elements_of_any_type_that_holds_them() {
        assert_eq!(set(true, DType::Bool, &[]).unwrap(), [1]);
        assert_eq!(set(0, DType::Bool, &[1]).unwrap(), [0]);
        assert_eq!(set(-128, DType::I8, &[]).unwrap(), [0x80]);
        assert_eq!(set(255, DType::U8, &[]).unwrap(), [0xff]);
        assert_eq!(set(-(2f64.powi(63)), DType::I64, &[]).unwrap(), i64::MIN.to_le_bytes());
        assert_eq!(set(2f64.powi(63), DType::U64, &[]).unwrap(), (1u64 << 63).to_le_bytes());
        assert_eq!(set(vec![1.0, -2.0], DType::I32, &[2, 1]).unwrap(), [1, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]);
        assert_eq!(set(7, DType::F32, &[]).unwrap(), 7f32.to_le_bytes());
        assert_eq!(set(0.1f32, DType::F32, &[]).unwrap(), 0.1f32.to_le_bytes());
        assert_eq!(set(0.1, DType::F64, &[]).unwrap(), 0.1f64.to_le_bytes());
        assert_eq!(set(0.1, DType::F16, &[]).unwrap(), f16::from_f64(0.1).to_le_bytes());
        assert_eq!(set(f64::INFINITY, DType::Bf16, &[]).unwrap(), bf16::INFINITY.to_le_bytes());
        assert_eq!(set(Tensor::scalar(3i64), DType::I64, &[]).unwrap(), 3i64.to_le_bytes());
        assert!(set(Vec::new(), DType::I64, &[0]).unwrap().is_empty());
    }

    #[test]
    fn values_that_do_not_fit_are_refused() {
        for (value, dtype, dims) in [
            (Value::from(0.5), DType::I64, &[][..]),
            (2.into(), DType::Bool, &[]),
            (128.into(), DType::I8, &[]),
            ((-1).into(), DType::U64, &[]),
            (2f64.powi(63).into(), DType::I64, &[]),
            (2f64.powi(64).into(), DType::U64, &[]),
            (f64::NAN.into(), DType::I32, &[]),
            (65536.into(), DType::U16, &[]),
            (70000.into(), DType::F16, &[]),
            (1e300.into(), DType::F32, &[]),
            (1.5.into(), DType::F32, &[2]),
            (vec![1.0, 2.0].into(), DType::I64, &[]),
            (Tensor::scalar(1i32).into(), DType::I64, &[]),
        ] {
            let shown = format!("{value:?} as {dtype}");
            assert!(set(value, dtype, dims).is_none(), "{shown}");
        }
    }
}
