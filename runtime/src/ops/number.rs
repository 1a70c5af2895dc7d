//! Arithmetic on element types without kernels.
//!
//! Vector kernels compute in f32. Integers (indices, shapes, token ids), half precision and f64 are rare and small in a
//! classifier; they use plain loops, generic over [`Number`], which serve as evaluation and as kernel alike.

use half::{bf16, f16};

use crate::error::OpError;
use crate::tensor::Element;

/// An element type with arithmetic. Integers wrap on overflow, as in NumPy.
pub(crate) trait Number: Element + PartialOrd + Send + Sync {
    /// Zero.
    const ZERO: Self;
    /// One.
    const ONE: Self;
    /// The lowest value; minus infinity for floats.
    const LOWEST: Self;
    /// The highest value; infinity for floats.
    const HIGHEST: Self;
    /// `self + other`
    fn add(self, other: Self) -> Self;
    /// `self - other`
    fn sub(self, other: Self) -> Self;
    /// `self * other`
    fn mul(self, other: Self) -> Self;
    /// `self / other`, towards zero for integers.
    ///
    /// # Errors
    /// [`OpError::Value`] for an integer divided by zero, or a quotient that overflows.
    fn div(self, other: Self) -> Result<Self, OpError>;
    /// The remainder of `div`, with the sign of `self`.
    ///
    /// # Errors
    /// As for `div`.
    fn rem(self, other: Self) -> Result<Self, OpError>;
    /// `self` to the power of `other`. Integers wrap; a negative exponent truncates towards zero.
    fn pow(self, other: Self) -> Self;
    /// Whether it is a floating-point type.
    const FLOAT: bool;
    /// The same integer in a type wide enough for all; floats truncate and saturate.
    fn to_i128(self) -> i128;
    /// The low bits of an integer.
    fn from_i128(value: i128) -> Self;
    /// Whether it is NaN.
    fn is_nan(self) -> bool;
    /// The nearest f64.
    fn to_f64(self) -> f64;
    /// The nearest value of this type; integers truncate and saturate.
    fn from_f64(value: f64) -> Self;
}

fn division_by_zero() -> OpError {
    OpError::Value("an integer is divided by zero".into())
}

pub(crate) fn division_overflow() -> OpError {
    OpError::Value("the quotient of two integers overflows".into())
}

macro_rules! integers {
    ($($type:ty),*) => { $(
        #[allow(trivial_numeric_casts, unused_comparisons, clippy::cast_lossless)]
        impl Number for $type {
            const ZERO: Self = 0;
            const ONE: Self = 1;
            const LOWEST: Self = <$type>::MIN;
            const HIGHEST: Self = <$type>::MAX;
            fn add(self, other: Self) -> Self {
                self.wrapping_add(other)
            }
            fn sub(self, other: Self) -> Self {
                self.wrapping_sub(other)
            }
            fn mul(self, other: Self) -> Self {
                self.wrapping_mul(other)
            }
            fn div(self, other: Self) -> Result<Self, OpError> {
                if other == 0 {
                    return Err(division_by_zero());
                }
                self.checked_div(other).ok_or_else(division_overflow)
            }
            fn rem(self, other: Self) -> Result<Self, OpError> {
                if other == 0 {
                    return Err(division_by_zero());
                }
                self.checked_rem(other).ok_or_else(division_overflow)
            }
            fn pow(self, other: Self) -> Self {
                if other < 0 {
                    return <$type>::from_f64(self.to_f64().powf(other.to_f64()));
                }
                // By squaring, so that it takes at most 64 steps.
                let (mut power, mut base, mut left) = (1 as $type, self, other);
                while left > 0 {
                    if left & 1 == 1 {
                        power = power.wrapping_mul(base);
                    }
                    base = base.wrapping_mul(base);
                    left >>= 1;
                }
                power
            }
            const FLOAT: bool = false;
            fn to_i128(self) -> i128 {
                self as i128
            }
            fn from_i128(value: i128) -> Self {
                value as $type
            }
            fn is_nan(self) -> bool {
                false
            }
            fn to_f64(self) -> f64 {
                self as f64
            }
            fn from_f64(value: f64) -> Self {
                value as $type
            }
        }
    )* };
}
integers!(i8, i16, i32, i64, u8, u16, u32, u64);

macro_rules! floats {
    ($($type:ty, $wide:ty, $to:expr, $from:expr;)*) => { $(
        impl Number for $type {
            const ZERO: Self = <$type>::from_bits(0);
            const ONE: Self = $from(1.0);
            const LOWEST: Self = <$type>::NEG_INFINITY;
            const HIGHEST: Self = <$type>::INFINITY;
            fn add(self, other: Self) -> Self {
                $from($to(self) + $to(other))
            }
            fn sub(self, other: Self) -> Self {
                $from($to(self) - $to(other))
            }
            fn mul(self, other: Self) -> Self {
                $from($to(self) * $to(other))
            }
            fn div(self, other: Self) -> Result<Self, OpError> {
                Ok($from($to(self) / $to(other)))
            }
            fn rem(self, other: Self) -> Result<Self, OpError> {
                Ok($from($to(self) % $to(other)))
            }
            fn pow(self, other: Self) -> Self {
                $from(<$wide>::powf($to(self), $to(other)))
            }
            const FLOAT: bool = true;
            fn to_i128(self) -> i128 {
                $to(self) as i128
            }
            fn from_i128(value: i128) -> Self {
                $from(value as $wide)
            }
            fn is_nan(self) -> bool {
                $to(self).is_nan()
            }
            fn to_f64(self) -> f64 {
                f64::from(self)
            }
            fn from_f64(value: f64) -> Self {
                $from(value as $wide)
            }
        }
    )* };
}
const fn same<T: Copy>(x: T) -> T {
    x
}
floats! {
    f32, f32, same, same;
    f64, f64, same, same;
    f16, f32, f16::to_f32, f16::from_f32_const;
    bf16, f32, bf16::to_f32, bf16::from_f32_const;
}

/// A value in another type: truncated and saturated from float to integer, the low bits from integer to integer.
pub(crate) fn convert<X: Number, Y: Number>(x: X) -> Y {
    match (X::FLOAT, Y::FLOAT) {
        (false, false) => Y::from_i128(x.to_i128()),
        _ => Y::from_f64(x.to_f64()),
    }
}

/// Runs `$body` with `$number` standing for the Rust type of the element type `$dtype`;
/// booleans take `$otherwise`.
#[cfg(test)]
macro_rules! by_number {
    ($dtype:expr, $number:ident => $body:expr, else $otherwise:expr) => {
        match $dtype {
            $crate::tensor::DType::F32 => {
                type $number = f32;
                $body
            }
            $crate::tensor::DType::F64 => {
                type $number = f64;
                $body
            }
            $crate::tensor::DType::F16 => {
                type $number = half::f16;
                $body
            }
            $crate::tensor::DType::Bf16 => {
                type $number = half::bf16;
                $body
            }
            $crate::tensor::DType::I8 => {
                type $number = i8;
                $body
            }
            $crate::tensor::DType::I16 => {
                type $number = i16;
                $body
            }
            $crate::tensor::DType::I32 => {
                type $number = i32;
                $body
            }
            $crate::tensor::DType::I64 => {
                type $number = i64;
                $body
            }
            $crate::tensor::DType::U8 => {
                type $number = u8;
                $body
            }
            $crate::tensor::DType::U16 => {
                type $number = u16;
                $body
            }
            $crate::tensor::DType::U32 => {
                type $number = u32;
                $body
            }
            $crate::tensor::DType::U64 => {
                type $number = u64;
                $body
            }
            $crate::tensor::DType::Bool => $otherwise,
        }
    };
}
#[cfg(test)]
pub(crate) use by_number;

/// Runs `$body` with `$word` standing for the unsigned integer as wide as an element of `$dtype`: for operators that
/// only move elements.
macro_rules! by_width {
    ($dtype:expr, $word:ident => $body:expr) => {
        match $dtype.size() {
            1 => {
                type $word = u8;
                $body
            }
            2 => {
                type $word = u16;
                $body
            }
            4 => {
                type $word = u32;
                $body
            }
            _ => {
                type $word = u64;
                $body
            }
        }
    };
}
pub(crate) use by_width;

/// The bytes of a tensor as words of its elements' width.
pub(crate) fn words<T: Element>(tensor: &crate::tensor::Tensor) -> Result<&[T], OpError> {
    match tensor.bytes() {
        // Empty bytes may have any address, so they are handled separately.
        [] => Ok(&[]),
        bytes => bytemuck::try_cast_slice(bytes).map_err(|_| OpError::Operand(0)),
    }
}

/// Makes a tensor by writing its elements as `T`, which must have the same width.
pub(crate) fn filled<T: Element>(
    fact: crate::tensor::Fact,
    write: impl FnOnce(&mut [T]) -> Result<(), OpError>,
) -> Result<crate::tensor::Tensor, OpError> {
    crate::tensor::Tensor::written(fact, |bytes| write(crate::tensor::elements_mut(bytes).ok_or(OpError::Operand(0))?))
}

/// Whether an element type is a floating-point type.
pub(crate) fn is_float(dtype: crate::tensor::DType) -> bool {
    use crate::tensor::DType;
    matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::Bf16)
}
