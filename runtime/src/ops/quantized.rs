//! Shared by quantizing and dequantizing: scales and zero points, one for the whole tensor or one for each index of an
//! axis.

use std::ops::{Deref, Range};
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::Pace;

use super::number::Number;
use crate::error::OpError;
use crate::reserve;
use crate::tensor::{DType, Fact, Tensor};

/// The result for each byte: a function of a quantized element, evaluated for all 256.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "Stored", into = "Stored")]
pub struct ByteTable(Arc<[u8; 256]>);

impl ByteTable {
    /// The table of `f`.
    pub fn of(f: impl Fn(u8) -> u8) -> Self {
        Self(Arc::new(std::array::from_fn(|byte| f(byte as u8))))
    }
}

impl Deref for ByteTable {
    type Target = [u8; 256];

    fn deref(&self) -> &[u8; 256] {
        &self.0
    }
}

/// A table in a package.
#[derive(Serialize, Deserialize)]
struct Stored(#[serde(deserialize_with = "reserve::deserialize_list")] Vec<u8>);

impl TryFrom<Stored> for ByteTable {
    type Error = &'static str;

    fn try_from(Stored(bytes): Stored) -> Result<Self, Self::Error> {
        let table = <[u8; 256]>::try_from(bytes).map_err(|_| "a table has 256 bytes")?;
        Ok(Self(Arc::new(table)))
    }
}

impl From<ByteTable> for Stored {
    fn from(table: ByteTable) -> Self {
        Self(table.to_vec())
    }
}

/// Types that a zero point and the quantized tensor may have.
pub(crate) fn is_quantized(dtype: DType) -> bool {
    matches!(dtype, DType::U8 | DType::I8 | DType::U16 | DType::I16)
}

/// Elements of a run that are converted at once.
const PART: usize = 1 << 12;

/// The location of the elements of each scale: `outer` runs of `channels` runs of `inner` elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Channels {
    pub channels: usize,
    pub inner: usize,
}

impl Channels {
    /// Checks the operands `x, scale, zero point`; the zero point has the type `quantized`.
    ///
    /// # Errors
    /// Types and lengths that do not match.
    pub fn new(axis: usize, x: &Fact, scale: &Fact, zero: &Fact, quantized: DType) -> Result<Self, OpError> {
        if scale.dtype != DType::F32 {
            return Err(OpError::Type { index: 1, got: scale.dtype, want: "f32" });
        }
        if zero.dtype != quantized {
            return Err(OpError::Type { index: 2, got: zero.dtype, want: quantized.name() });
        }
        let count = scale.shape.elements();
        if zero.shape.elements() != count {
            return Err(OpError::shapes("one zero point for each scale", &[&scale.shape, &zero.shape]));
        }
        if count == 1 {
            return Ok(Self { channels: 1, inner: x.shape.elements().max(1) });
        }
        if x.shape.get(axis) != Some(&count) || scale.shape.rank() != 1 {
            return Err(OpError::shapes("one scale for each index of the axis", &[&x.shape, &scale.shape]));
        }
        Ok(Self { channels: count, inner: x.shape.iter().skip(axis + 1).product::<usize>().max(1) })
    }

    /// Calls `f` with every run of `len` elements, or parts of it, and the scale and zero point of its channel.
    ///
    /// # Errors
    /// If the run is to stop.
    #[inline(never)]
    pub fn each(&self, len: usize, pace: &Pace<'_>, f: &mut dyn FnMut(Range<usize>, usize)) -> Result<(), OpError> {
        for (run, first) in (0..len).step_by(self.inner).enumerate() {
            let end = len.min(first + self.inner);
            for part in (first..end).step_by(PART) {
                let part = part..end.min(part + PART);
                pace.spend(16 * (1 + part.len()))?;
                f(part, run % self.channels);
            }
        }
        Ok(())
    }
}

/// Runs `$body` with `$integer` standing for the Rust type of the quantized element type `$dtype`; others take
/// `$otherwise`.
macro_rules! by_quantized {
    ($dtype:expr, $integer:ident => $body:expr, else $otherwise:expr) => {
        match $dtype {
            $crate::tensor::DType::U8 => {
                type $integer = u8;
                $body
            }
            $crate::tensor::DType::I8 => {
                type $integer = i8;
                $body
            }
            $crate::tensor::DType::U16 => {
                type $integer = u16;
                $body
            }
            $crate::tensor::DType::I16 => {
                type $integer = i16;
                $body
            }
            $crate::tensor::DType::I32 => {
                type $integer = i32;
                $body
            }
            _ => $otherwise,
        }
    };
}
pub(crate) use by_quantized;

/// Refuses scales that cannot be divided by.
pub(crate) fn check_scales(scales: &[f32]) -> Result<(), OpError> {
    match scales.iter().position(|&scale| !scale.is_finite() || scale <= 0.0) {
        Some(index) => Err(OpError::Value(format!("scale {index} is not a positive number"))),
        None => Ok(()),
    }
}

/// `saturate(round(x / scale) + zero)`, ties to even.
pub(crate) fn quantize<T: Number>(x: f32, scale: f32, zero: T) -> T {
    let zero = zero.to_f64() as f32;
    let (low, high) = (T::LOWEST.to_f64() as f32 - zero, T::HIGHEST.to_f64() as f32 - zero);
    let x = x / scale;
    // NaN becomes the lowest value.
    let x = if x > low { x.min(high) } else { low };
    T::from_f64(f64::from(x.round_ties_even() + zero))
}

/// `(x - zero) * scale`
pub(crate) fn dequantize<T: Number>(x: T, scale: f32, zero: T) -> f32 {
    (x.to_f64() - zero.to_f64()) as f32 * scale
}

/// A scale and zero point for a whole 8-bit tensor. The zero point is that of uint8: int8 is uint8 minus 128.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Scheme {
    /// The size of a quantum.
    pub scale: f32,
    /// The uint8 zero point.
    pub zero: u8,
}

impl Scheme {
    /// The scheme of a constant scale and zero point; `None` if there are several, or if the type is not 8-bit.
    pub(crate) fn new(scale: &Tensor, zero: &Tensor) -> Option<Self> {
        let &[scale] = scale.elements::<f32>()? else { return None };
        check_scales(&[scale]).ok()?;
        let zero = match (zero.dtype(), zero.bytes()) {
            (DType::U8, &[zero]) => zero,
            (DType::I8, &[zero]) => flip(zero),
            _ => return None,
        };
        Some(Self { scale, zero })
    }
}

/// Converts int8 to the uint8 that is 128 larger, and back.
#[must_use]
pub fn flip(byte: u8) -> u8 {
    byte ^ 0x80
}
