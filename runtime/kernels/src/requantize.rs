//! Conversion of sums back to bytes: the tail that all quantized kernels share.
//!
//! A quantized tensor holds bytes; a byte `q` represents the real value `(q - zero) * scale`. A kernel computes with
//! the bytes and obtains its result as a float `v` in units of the output scale. The output byte is `v` clamped,
//! rounded to the nearest integer (ties to even, as in ONNX), plus the zero point. Clamping comes first, in floats, so
//! that no conversion can overflow.

use serde::{Deserialize, Serialize};

/// Conversion of a float in units of the output scale to a byte.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Requantize {
    /// The zero point: the byte that represents 0.
    pub zero: u8,
    /// Smallest output byte; above 0 if a ReLU or clip is fused.
    pub min: u8,
    /// Largest output byte.
    pub max: u8,
}

/// Adding this to a float of magnitude below 2^22 leaves the rounded integer in the low bits of the sum.
const ROUNDER: f32 = 12_582_912.0;

impl Requantize {
    /// No bounds except those of a byte.
    pub fn all(zero: u8) -> Self {
        Requantize { zero, min: 0, max: 255 }
    }

    /// The bounds `min` and `max` in units of the output scale.
    #[inline(always)]
    pub(crate) fn bounds(&self) -> (f32, f32) {
        let bound = |byte: u8| f32::from(i16::from(byte) - i16::from(self.zero));
        (bound(self.min), bound(self.max))
    }

    /// The byte of `v`, in units of the output scale; NaN becomes the smallest byte.
    #[inline(always)]
    pub fn byte(&self, v: f32) -> u8 {
        let (low, high) = self.bounds();
        // Written as comparisons, which compile to one instruction each and pick the bound for NaN.
        let v = if v > low { v } else { low };
        let v = if v < high { v } else { high };
        let rounded = (v + ROUNDER).to_bits().wrapping_sub(ROUNDER.to_bits()).wrapping_add(u32::from(self.zero));
        rounded as u8
    }
}

/// The form in which a kernel stores a finished sum.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Form {
    /// The byte of the sum times its scale.
    Bytes(Requantize),
    /// The sum times its scale.
    Floats,
    /// The sum itself.
    Sums,
}

impl Form {
    /// Bytes per element.
    #[inline(always)]
    pub(crate) fn size(self) -> usize {
        match self {
            Self::Bytes(_) => 1,
            Self::Floats | Self::Sums => 4,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rounds_to_even_and_saturates() {
        for zero in [0u8, 1, 100, 128, 255] {
            let to = Requantize::all(zero);
            for v in (-2100..2100).map(|v| v as f32 / 8.0).chain([1e30, -1e30, f32::INFINITY, f32::NEG_INFINITY]) {
                let want = (v.clamp(-1000.0, 1000.0).round_ties_even() as i32 + i32::from(zero)).clamp(0, 255);
                assert_eq!(i32::from(to.byte(v)), want, "{v} with zero {zero}");
            }
            assert_eq!(to.byte(f32::NAN), 0);
        }
        let relu = Requantize { zero: 10, min: 10, max: 20 };
        assert_eq!([-5.0, 0.4, 3.5, 99.0].map(|v| relu.byte(v)), [10, 10, 14, 20]);
    }
}
