//! The element types of ONNX tensors: their `DataType` codes, their widths in bits, and the
//! `TensorProto` field that holds them when they are not stored as raw bytes.

/// Declares the element types, one row per type.
macro_rules! element_types {
    ($($(#[doc = $doc:literal])+ $variant:ident, $number:literal, $name:literal, $bits:literal, $field:ident;)*) => {
        /// Element type of a tensor. Discriminants are the codes of `TensorProto.DataType`.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum ElementType {
            $($(#[doc = $doc])+ $variant = $number,)*
        }

        impl ElementType {
            /// The type with this `TensorProto.DataType` code; `None` if there is none.
            #[must_use]
            pub fn from_number(number: i64) -> Option<Self> {
                match number {
                    $($number => Some(Self::$variant),)*
                    _ => None,
                }
            }

            /// Name in lower case, such as `float16`.
            #[must_use]
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)*
                }
            }

            /// Bits of an element in packed storage; 0 for strings, which have no fixed width.
            #[must_use]
            pub fn bits(self) -> u64 {
                match self {
                    $(Self::$variant => $bits,)*
                }
            }

            /// The typed field that holds the elements when they are not stored as raw bytes.
            pub(crate) fn typed_field(self) -> TypedField {
                match self {
                    $(Self::$variant => TypedField::$field,)*
                }
            }
        }
    };
}

element_types! {
    /// IEEE single precision.
    Float, 1, "float32", 32, Float;
    /// Unsigned, 8 bits.
    Uint8, 2, "uint8", 8, Int32;
    /// Signed, 8 bits.
    Int8, 3, "int8", 8, Int32;
    /// Unsigned, 16 bits.
    Uint16, 4, "uint16", 16, Int32;
    /// Signed, 16 bits.
    Int16, 5, "int16", 16, Int32;
    /// Signed, 32 bits.
    Int32, 6, "int32", 32, Int32;
    /// Signed, 64 bits.
    Int64, 7, "int64", 64, Int64;
    /// UTF-8 text.
    String, 8, "string", 0, Text;
    /// One byte, 0 or 1.
    Bool, 9, "bool", 8, Int32;
    /// IEEE half precision.
    Float16, 10, "float16", 16, Int32;
    /// IEEE double precision.
    Double, 11, "float64", 64, Double;
    /// Unsigned, 32 bits.
    Uint32, 12, "uint32", 32, Uint64;
    /// Unsigned, 64 bits.
    Uint64, 13, "uint64", 64, Uint64;
    /// Two floats.
    Complex64, 14, "complex64", 64, Float;
    /// Two doubles.
    Complex128, 15, "complex128", 128, Double;
    /// The upper half of a float.
    Bfloat16, 16, "bfloat16", 16, Int32;
    /// 4 exponent and 3 fraction bits, no infinities.
    Float8E4m3fn, 17, "float8e4m3fn", 8, Int32;
    /// 4 exponent and 3 fraction bits, no infinities, no negative zero.
    Float8E4m3fnuz, 18, "float8e4m3fnuz", 8, Int32;
    /// 5 exponent and 2 fraction bits.
    Float8E5m2, 19, "float8e5m2", 8, Int32;
    /// 5 exponent and 2 fraction bits, no infinities, no negative zero.
    Float8E5m2fnuz, 20, "float8e5m2fnuz", 8, Int32;
    /// Unsigned, two in a byte.
    Uint4, 21, "uint4", 4, Int32;
    /// Signed, two in a byte.
    Int4, 22, "int4", 4, Int32;
    /// 2 exponent bits and 1 fraction bit, two in a byte.
    Float4E2m1, 23, "float4e2m1", 4, Int32;
    /// A power of two, 8 exponent bits.
    Float8E8m0, 24, "float8e8m0", 8, Int32;
}

/// The fields of a `TensorProto` that hold typed elements.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum TypedField {
    Float,
    Int32,
    Text,
    Int64,
    Double,
    Uint64,
}

impl ElementType {
    /// Bytes of `elements` in packed storage; `None` for strings and past 2^64.
    #[must_use]
    pub fn packed_bytes(self, elements: u64) -> Option<u64> {
        match self {
            Self::String => None,
            _ => elements.checked_mul(self.bits()).map(|bits| bits.div_ceil(8)),
        }
    }

    /// Count of entries in the typed field that store `elements` elements.
    pub(crate) fn typed_entries(self, elements: u64) -> Option<u64> {
        match self {
            Self::Complex64 | Self::Complex128 => elements.checked_mul(2),
            Self::Uint4 | Self::Int4 | Self::Float4E2m1 => Some(elements.div_ceil(2)),
            _ => Some(elements),
        }
    }

    /// Range of an entry of `int32_data`. Exporters store types narrower than 32 bits either as
    /// bit patterns or as values; both are accepted.
    pub(crate) fn int32_range(self) -> std::ops::RangeInclusive<i64> {
        match self {
            Self::Bool => 0..=1,
            Self::Uint8 => 0..=255,
            Self::Int8 => -128..=127,
            Self::Uint16 => 0..=65_535,
            Self::Int16 => -32_768..=32_767,
            Self::Float16 | Self::Bfloat16 => -32_768..=65_535,
            Self::Int32 => i64::from(i32::MIN)..=i64::from(i32::MAX),
            _ => -128..=255,
        }
    }

    /// Whether this is an integer type.
    #[must_use]
    pub fn is_integer(self) -> bool {
        use ElementType as E;
        matches!(
            self,
            E::Uint8
                | E::Int8
                | E::Uint16
                | E::Int16
                | E::Int32
                | E::Int64
                | E::Uint32
                | E::Uint64
                | E::Uint4
                | E::Int4
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_round_trip_and_others_are_unknown() {
        for number in 1..=24 {
            assert_eq!(ElementType::from_number(number).map(|e| e as i64), Some(number));
        }
        for number in [i64::MIN, -1, 0, 25, 1 << 32 | 1] {
            assert_eq!(ElementType::from_number(number), None);
        }
    }

    #[test]
    fn halves_of_a_byte_round_up() {
        assert_eq!(ElementType::Int4.packed_bytes(5), Some(3));
        assert_eq!(ElementType::Int4.typed_entries(5), Some(3));
        assert_eq!(ElementType::Complex64.typed_entries(5), Some(10));
        assert_eq!(ElementType::Double.packed_bytes(u64::MAX), None);
    }
}
