//! Arithmetic for the rare element types in three wide ones: a function is compiled for those, not for all twelve
//! types.
//!
//! f64, i64 and u64 represent every element of the float, signed and unsigned types exactly. Up to [`CHUNK`] elements
//! at a time are widened on the stack, computed, and narrowed: floats round to nearest, integers keep their low bits,
//! which is the same as wrapping in the narrow type.

use half::{bf16, f16};
use skipstone_kernels::pace::Pace;

use super::number::{Number, convert};
use super::walk::Walk;
use crate::error::OpError;
use crate::tensor::DType;

/// Elements widened at a time.
pub(crate) const CHUNK: usize = 256;

/// A type in which elements of narrower types are computed.
pub(crate) trait Wide: Number {
    /// Reads the elements of `x`, of type `dtype`, at `offsets` into the start of `to`.
    ///
    /// # Errors
    /// [`OpError::Operand`] if `x` has no such element, or if this type does not support `dtype`.
    fn load(dtype: DType, x: &[u8], offsets: &[usize], to: &mut [Self; CHUNK]) -> Result<(), OpError>;

    /// Writes `from` as the elements of `y`, of type `dtype`; returns whether no integer lost a high bit.
    ///
    /// # Errors
    /// [`OpError::Operand`] if `y` has another length, or if this type does not support `dtype`.
    fn store(dtype: DType, from: &[Self], y: &mut [u8]) -> Result<bool, OpError>;

    /// The lowest and the highest element of type `dtype`.
    fn limits(dtype: DType) -> (Self, Self);
}

fn load<T: Number, W: Number>(x: &[u8], offsets: &[usize], to: &mut [W; CHUNK]) -> Result<(), OpError> {
    for (to, &at) in to.iter_mut().zip(offsets) {
        let (bytes, _) =
            x.get(at * size_of::<T>()..).and_then(|x| x.split_at_checked(size_of::<T>())).ok_or(OpError::Operand(0))?;
        *to = convert(bytemuck::pod_read_unaligned::<T>(bytes));
    }
    Ok(())
}

fn store<T: Number, W: Number>(from: &[W], y: &mut [u8]) -> Result<bool, OpError> {
    if y.len() != size_of_val(from) / size_of::<W>() * size_of::<T>() {
        return Err(OpError::Operand(0));
    }
    let mut kept = true;
    for (y, &wide) in y.chunks_exact_mut(size_of::<T>()).zip(from) {
        let narrow: T = convert(wide);
        kept &= T::FLOAT || convert::<T, W>(narrow) == wide;
        y.copy_from_slice(bytemuck::bytes_of(&narrow));
    }
    Ok(kept)
}

macro_rules! wide {
    ($wide:ty: $($dtype:ident $narrow:ty),*) => {
        impl Wide for $wide {
            fn load(dtype: DType, x: &[u8], offsets: &[usize], to: &mut [Self; CHUNK]) -> Result<(), OpError> {
                match dtype {
                    $(DType::$dtype => load::<$narrow, Self>(x, offsets, to),)*
                    _ => Err(OpError::Operand(0)),
                }
            }

            fn store(dtype: DType, from: &[Self], y: &mut [u8]) -> Result<bool, OpError> {
                match dtype {
                    $(DType::$dtype => store::<$narrow, Self>(from, y),)*
                    _ => Err(OpError::Operand(0)),
                }
            }

            fn limits(dtype: DType) -> (Self, Self) {
                match dtype {
                    $(DType::$dtype => (convert(<$narrow>::LOWEST), convert(<$narrow>::HIGHEST)),)*
                    _ => (Self::LOWEST, Self::HIGHEST),
                }
            }
        }
    };
}
wide!(f64: F32 f32, F64 f64, F16 f16, Bf16 bf16);
wide!(i64: I8 i8, I16 i16, I32 i32, I64 i64);
wide!(u64: U8 u8, U16 u16, U32 u32, U64 u64);

/// Runs `$body` with `$wide` standing for the wide type of `$dtype`; booleans take `$otherwise`.
macro_rules! by_wide {
    ($dtype:expr, $wide:ident => $body:expr, else $otherwise:expr) => {{
        use $crate::tensor::DType;
        match $dtype {
            DType::F32 | DType::F64 | DType::F16 | DType::Bf16 => {
                type $wide = f64;
                $body
            }
            DType::I8 | DType::I16 | DType::I32 | DType::I64 => {
                type $wide = i64;
                $body
            }
            DType::U8 | DType::U16 | DType::U32 | DType::U64 => {
                type $wide = u64;
                $body
            }
            DType::Bool => $otherwise,
        }
    }};
}
pub(crate) use by_wide;

/// Handles the offsets of up to [`CHUNK`] elements of each operand.
type OnChunk<'f, const N: usize> = &'f mut dyn FnMut([&[usize]; N]) -> Result<(), OpError>;

impl<const N: usize> Walk<N> {
    /// Like [`try_each`](Self::try_each), with up to [`CHUNK`] elements per call.
    ///
    /// # Errors
    /// The first error of `f`, or if the run is to stop.
    pub(crate) fn try_chunks(&self, pace: &Pace<'_>, f: OnChunk<'_, N>) -> Result<(), OpError> {
        let mut chunks = [[0; CHUNK]; N];
        let mut held = 0;
        self.try_each(pace, |offsets| {
            for (chunk, offset) in chunks.iter_mut().zip(offsets) {
                chunk[held] = offset;
            }
            held = (held + 1) % CHUNK;
            if held == 0 { f(chunks.each_ref().map(|chunk| &chunk[..])) } else { Ok(()) }
        })?;
        if held > 0 { f(chunks.each_ref().map(|chunk| &chunk[..held])) } else { Ok(()) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tensor::Shape;

    #[test]
    fn integers_round_trip_and_lost_bits_are_detected() {
        let mut wide = [0i64; CHUNK];
        let x = [i64::MIN, -1, 0, i64::MAX];
        i64::load(DType::I64, bytemuck::bytes_of(&x), &[3, 2, 1, 0], &mut wide).unwrap();
        assert_eq!(wide[..4], [i64::MAX, 0, -1, i64::MIN]);
        let mut y = [0i8; 2];
        assert!(i64::store(DType::I8, &[-128, 127], bytemuck::bytes_of_mut(&mut y)).unwrap());
        assert_eq!(y, [-128, 127]);
        assert!(!i64::store(DType::I8, &[128, 255], bytemuck::bytes_of_mut(&mut y)).unwrap());
        assert_eq!(y, [-128, -1]);
        assert!(i64::load(DType::I64, bytemuck::bytes_of(&x), &[4], &mut wide).is_err());
        assert!(u64::load(DType::I64, bytemuck::bytes_of(&x), &[0], &mut [0; CHUNK]).is_err());
    }

    #[test]
    fn chunks_cover_the_walk() {
        for count in [0, 1, CHUNK - 1, CHUNK, CHUNK + 1, 3 * CHUNK + 5] {
            let shape = Shape::new(&[count]).unwrap();
            let mut seen = Vec::new();
            let mut push = |[offsets]: [&[usize]; 1]| {
                seen.extend_from_slice(offsets);
                Ok(())
            };
            Walk::broadcast(&shape, [&shape]).try_chunks(&Pace::free(), &mut push).unwrap();
            assert_eq!(seen, (0..count).collect::<Vec<_>>());
        }
    }
}
