//! The pairs of types that can be converted, and the conversion of one element.

use half::{bf16, f16};

use super::half_bits;

/// A type that can be converted to `To`.
pub trait CastTo<To>: Copy + Sync + sealed::Sealed {
    /// Converts the value.
    fn cast(self) -> To;
}

mod sealed {
    use half::{bf16, f16};

    /// Only the types below have conversions.
    pub trait Sealed {}
    impl Sealed for f32 {}
    impl Sealed for f16 {}
    impl Sealed for bf16 {}
    impl Sealed for i64 {}
    impl Sealed for i32 {}
    impl Sealed for u8 {}
    impl Sealed for i8 {}
}

/// Conversions by the language's `as`, whose rules are those of the table above.
macro_rules! as_language_does {
    ($($from:ty => $($to:ty),+;)+) => {$($(
        impl CastTo<$to> for $from {
            #[inline(always)]
            fn cast(self) -> $to {
                self as $to
            }
        }
    )+)+};
}

as_language_does! {
    f32 => i64, i32, u8, i8;
    i64 => f32, i32, u8, i8;
    i32 => f32, i64, u8, i8;
    u8 => f32, i64, i32, i8;
    i8 => f32, i64, i32, u8;
}

impl CastTo<f16> for f32 {
    #[inline(always)]
    fn cast(self) -> f16 {
        f16::from_bits(half_bits::f16_from_f32(self))
    }
}

impl CastTo<f32> for f16 {
    #[inline(always)]
    fn cast(self) -> f32 {
        half_bits::f32_from_f16(self.to_bits())
    }
}

impl CastTo<bf16> for f32 {
    #[inline(always)]
    fn cast(self) -> bf16 {
        bf16::from_bits(half_bits::bf16_from_f32(self))
    }
}

impl CastTo<f32> for bf16 {
    #[inline(always)]
    fn cast(self) -> f32 {
        half_bits::f32_from_bf16(self.to_bits())
    }
}
