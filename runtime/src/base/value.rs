//! Values that settings are given, as callers write them.

use half::{bf16, f16};

use crate::error::{Error, Result};
use crate::tensor::{DType, Fact, Tensor};

/// What a variable is set to. Numbers become elements of the variable's own type, row by row.
#[derive(Clone, Debug)]
pub enum Value {
    /// For a variable of one bool.
    Bool(bool),
    /// For variables of integers or floats; 0 and 1 for bools, too.
    Integers(Vec<i64>),
    /// For variables of floats.
    Floats(Vec<f64>),
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
    bool, value => Self::Bool(value);
    i32, value => Self::Integers(vec![value.into()]);
    i64, value => Self::Integers(vec![value]);
    f32, value => Self::Floats(vec![value.into()]);
    f64, value => Self::Floats(vec![value]);
    Vec<i64>, value => Self::Integers(value);
    Vec<f64>, value => Self::Floats(value);
    Tensor, value => Self::Tensor(value);
}

impl Value {
    /// Writes the value as the bytes of a tensor, which is left alone where the value does not fit it.
    ///
    /// # Errors
    /// `setting.value`, with the type and shape that the variable `name` has.
    pub(crate) fn write(&self, name: &str, fact: &Fact, bytes: &mut [u8]) -> Result<()> {
        let unfit = |got: String| Error::SettingValue { name: name.to_owned(), got, want: fact.to_string() };
        let elements: Option<Vec<u64>> = match self {
            Self::Tensor(tensor) if tensor.fact() == fact && tensor.bytes().len() == bytes.len() => {
                bytes.copy_from_slice(tensor.bytes());
                return Ok(());
            }
            Self::Tensor(tensor) => return Err(unfit(tensor.fact().to_string())),
            Self::Bool(flag) => (fact.dtype == DType::Bool).then(|| vec![u64::from(*flag)]),
            Self::Integers(numbers) => numbers.iter().map(|&number| integer(number, fact.dtype)).collect(),
            Self::Floats(numbers) => numbers.iter().map(|&number| float(number, fact.dtype)).collect(),
        };
        let elements = elements.ok_or_else(|| unfit(format!("{self:?}")))?;
        if elements.len() != fact.shape.elements() {
            return Err(unfit(format!("of {} elements", elements.len())));
        }
        let size = fact.dtype.size();
        for (element, bits) in bytes.chunks_exact_mut(size).zip(elements) {
            element.copy_from_slice(&bits.to_le_bytes()[..size]);
        }
        Ok(())
    }

    /// The value as a tensor of a variable.
    ///
    /// # Errors
    /// As for [`Session::set`](crate::Session::set).
    pub(crate) fn tensor(&self, name: &str, fact: &Fact) -> Result<Tensor> {
        let mut bytes = vec![0; fact.bytes()];
        self.write(name, fact, &mut bytes)?;
        Tensor::from_bytes(fact.clone(), &bytes).map_err(|e| e.at(name))
    }
}

/// The bits of an integer as an element; `None` where the type does not hold it.
fn integer(number: i64, dtype: DType) -> Option<u64> {
    let bits = 8 * dtype.size() as u32;
    let held = match dtype {
        DType::F32 | DType::F64 | DType::F16 | DType::Bf16 => return float(number as f64, dtype),
        DType::Bool => (0..=1).contains(&number),
        DType::I8 | DType::I16 | DType::I32 | DType::I64 => number == number << (64 - bits) >> (64 - bits),
        DType::U8 | DType::U16 | DType::U32 | DType::U64 => number >= 0 && (bits == 64 || number >> bits == 0),
    };
    held.then_some(number.cast_unsigned())
}

/// The bits of a float as an element, rounded; `None` for other types, and where it is past the largest.
fn float(number: f64, dtype: DType) -> Option<u64> {
    let (bits, rounded) = match dtype {
        DType::F64 => (number.to_bits(), number),
        DType::F32 => ((number as f32).to_bits().into(), f64::from(number as f32)),
        DType::F16 => (f16::from_f64(number).to_bits().into(), f16::from_f64(number).to_f64()),
        DType::Bf16 => (bf16::from_f64(number).to_bits().into(), bf16::from_f64(number).to_f64()),
        _ => return None,
    };
    (rounded.is_finite() || !number.is_finite()).then_some(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn set(value: impl Into<Value>, dtype: DType, dims: &[usize]) -> Result<Vec<u8>> {
        let fact = Fact::new(dtype, crate::Shape::new(dims).unwrap());
        Ok(value.into().tensor("it", &fact)?.bytes().to_vec())
    }

    #[test]
    fn numbers_become_elements_of_any_type_that_holds_them() {
        assert_eq!(set(true, DType::Bool, &[]).unwrap(), [1]);
        assert_eq!(set(0, DType::Bool, &[1]).unwrap(), [0]);
        assert_eq!(set(-128, DType::I8, &[]).unwrap(), [0x80]);
        assert_eq!(set(255, DType::U8, &[]).unwrap(), [0xff]);
        assert_eq!(set(i64::MIN, DType::I64, &[]).unwrap(), i64::MIN.to_le_bytes());
        assert_eq!(set(vec![1i64, -2], DType::I32, &[2, 1]).unwrap(), [1, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff]);
        assert_eq!(set(7, DType::F32, &[]).unwrap(), 7f32.to_le_bytes());
        assert_eq!(set(0.1f32, DType::F32, &[]).unwrap(), 0.1f32.to_le_bytes());
        assert_eq!(set(0.1, DType::F16, &[]).unwrap(), f16::from_f64(0.1).to_le_bytes());
        assert_eq!(set(f64::INFINITY, DType::Bf16, &[]).unwrap(), bf16::INFINITY.to_le_bytes());
        assert!(set(Vec::<i64>::new(), DType::I64, &[0]).unwrap().is_empty());
    }

    #[test]
    fn what_does_not_fit_is_refused_with_what_would() {
        let refused = |value: Value, dtype, dims: &[usize]| {
            let error = set(value, dtype, dims).unwrap_err();
            assert_eq!(error.code(), "setting.value");
            error.to_string()
        };
        let text = refused(0.5.into(), DType::I64, &[]);
        assert_eq!(text, "setting 'it' is i64 scalar, and cannot be Floats([0.5])");
        for (value, dtype, dims) in [
            (Value::from(2), DType::Bool, &[][..]),
            (128.into(), DType::I8, &[]),
            ((-1).into(), DType::U64, &[]),
            (65536.into(), DType::U16, &[]),
            (70000.into(), DType::F16, &[]),
            (1e300.into(), DType::F32, &[]),
            (true.into(), DType::F32, &[]),
            (1.5.into(), DType::F32, &[2]),
            (vec![1i64, 2].into(), DType::I64, &[]),
            (Tensor::scalar(1i32).into(), DType::I64, &[]),
        ] {
            refused(value, dtype, dims);
        }
    }
}
