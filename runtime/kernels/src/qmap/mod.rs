//! Elementwise functions of quantized tensors: to and from floats, table look-up, addition and multiplication.
//!
//! ```text
//! range        [smallest, largest] of x and 0
//! quantize     y = byte(x / scale)
//! dequantize   y = (x - zero) * scale
//! look_up      y = table[x]
//! add          y = saturate(round(a * a_scale + b * b_scale + offset))
//! multiply     y = saturate(round((a - a_zero) * (b - b_zero) * scale + y_zero))
//! ```
//!
//! All are limited by memory bandwidth. The loop is plain Rust, which the compiler vectorizes for each instruction set,
//! provided that all code in it, including closures, is inlined into the function that enables the instruction set.
//! Scales of `add` and `multiply` are relative to the output scale. The zero point of the output is added before
//! rounding, as in ONNX Runtime, which matters where a sum lies halfway between two bytes.

use serde::{Deserialize, Serialize};

use crate::isa::Isa;
use crate::pace::PIECE;
use crate::parallel;
use crate::requantize::Requantize;
use crate::simd::{Simd, Vectorized, dispatch};
use crate::threads::Pool;

/// Bytes with their zero point.
#[derive(Clone, Copy, Debug)]
pub struct Bytes<'a> {
    /// The bytes.
    pub bytes: &'a [u8],
    /// The zero point: the byte that represents 0.
    pub zero: u8,
}

/// A function of two quantized elements.
#[derive(Clone, Copy, PartialEq, Debug, Serialize, Deserialize)]
pub enum QBinaryFn {
    /// Their sum, each multiplied by its scale.
    Add {
        /// Scale of the first operand.
        a: f32,
        /// Scale of the second operand.
        b: f32,
    },
    /// Their product.
    Multiply {
        /// Scale of the product.
        scale: f32,
    },
}

/// The smallest and largest of 0 and the elements of `x`; NaN is ignored.
pub fn range(isa: Isa, x: &[f32], pool: &Pool) -> [f32; 2] {
    let [mut smallest, mut largest] = [0.0f32; 2];
    // The first question was asked before the step.
    for (at, x) in x.chunks(PIECE).enumerate() {
        if at > 0 && pool.stops() {
            break;
        }
        let [least, most] = match isa {
            Isa::Scalar => Range(x).plain(),
            _ => dispatch(isa, Range(x)),
        };
        (smallest, largest) =
            (if least < smallest { least } else { smallest }, if most > largest { most } else { largest });
    }
    [smallest, largest]
}

struct Range<'a>(&'a [f32]);

impl Range<'_> {
    #[inline(always)]
    fn plain(self) -> [f32; 2] {
        // Enough elements to fill several registers, so that operations do not wait for each other.
        let (mut least, mut most) = ([0.0f32; 64], [0.0f32; 64]);
        let chunks = self.0.chunks_exact(64);
        let rest = chunks.remainder();
        for chunk in chunks {
            for ((least, most), &x) in least.iter_mut().zip(&mut most).zip(chunk) {
                *least = if x < *least { x } else { *least };
                *most = if x > *most { x } else { *most };
            }
        }
        let smallest = least.iter().chain(rest).fold(0.0, |least, &x| if x < least { x } else { least });
        let largest = most.iter().chain(rest).fold(0.0, |most, &x| if x > most { x } else { most });
        [smallest, largest]
    }
}

impl Vectorized for Range<'_> {
    type Output = [f32; 2];

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) -> [f32; 2] {
        self.plain()
    }
}

/// Quantizes `x` with one scale.
///
/// # Panics
/// If the lengths differ.
pub fn quantize(isa: Isa, x: &[f32], scale: f32, by: Requantize, y: &mut [u8], pool: &Pool) {
    assert_eq!(x.len(), y.len(), "one byte per float");
    parallel::split(pool, y, 64, x.len(), |offset, y| {
        let x = &x[offset..][..y.len()];
        each(
            isa,
            y,
            #[inline(always)]
            |i| by.byte(x[i] / scale),
        );
    });
}

/// Dequantizes `x` with one scale.
///
/// # Panics
/// If the lengths differ.
pub fn dequantize(isa: Isa, x: Bytes<'_>, scale: f32, y: &mut [f32], pool: &Pool) {
    assert_eq!(x.bytes.len(), y.len(), "one float per byte");
    let zero = i32::from(x.zero);
    parallel::split(pool, y, 64, y.len(), |offset, y| {
        let x = &x.bytes[offset..][..y.len()];
        each(
            isa,
            y,
            #[inline(always)]
            |i| (i32::from(x[i]) - zero) as f32 * scale,
        );
    });
}

/// Looks up every byte in `table`.
///
/// # Panics
/// If the lengths differ.
pub fn look_up(x: &[u8], table: &[u8; 256], y: &mut [u8], pool: &Pool) {
    assert_eq!(x.len(), y.len(), "one byte for each byte");
    parallel::split(pool, y, 64, x.len(), |offset, y| {
        for (y, &x) in y.iter_mut().zip(&x[offset..]) {
            *y = table[usize::from(x)];
        }
    });
}

/// `y[o, m, i] = f(a[o, m, i], b[o, i])` for `dims = [outer, middle, inner]`.
///
/// Byte values are taken relative to `origin`, which is 128 for signed tensors. This affects only how a sum is rounded,
/// and makes the addition of signed tensors match ONNX Runtime exactly.
///
/// # Panics
/// If a length does not match `dims`.
#[allow(clippy::too_many_arguments)]
pub fn binary(
    isa: Isa,
    f: QBinaryFn,
    dims: [usize; 3],
    a: Bytes<'_>,
    b: Bytes<'_>,
    by: Requantize,
    origin: u8,
    y: &mut [u8],
    pool: &Pool,
) {
    let [outer, middle, inner] = dims;
    let len = |sizes: &[usize]| sizes.iter().try_fold(1usize, |len, &size| len.checked_mul(size));
    assert_eq!(Some(a.bytes.len()), len(&[outer, middle, inner]), "length of the first operand");
    assert_eq!(Some(b.bytes.len()), len(&[outer, inner]), "length of the second operand");
    assert_eq!(a.bytes.len(), y.len(), "one byte for each pair");
    if y.is_empty() {
        return;
    }
    // Rows are as long as possible: a single row if no operand is repeated.
    let (rows, row_len) = if middle == 1 { (1, y.len()) } else { (middle, inner) };
    let (a_zero, b_zero, y_zero) = (value(a.zero, origin), value(b.zero, origin), value(by.zero, origin));
    let by = Requantize { zero: origin, ..by };
    parallel::split_rows(pool, y, [row_len, 1], a.bytes.len(), |row, first, y| {
        let x = &a.bytes[row * row_len + first..][..y.len()];
        let z = &b.bytes[row / rows * row_len + first..][..y.len()];
        match f {
            QBinaryFn::Add { a, b } => {
                let offset = y_zero - (a * a_zero + b * b_zero);
                each(
                    isa,
                    y,
                    #[inline(always)]
                    |i| {
                        let second = value(z[i], origin).mul_add(b, offset);
                        by.byte(value(x[i], origin).mul_add(a, second))
                    },
                );
            }
            QBinaryFn::Multiply { scale } => each(
                isa,
                y,
                #[inline(always)]
                |i| {
                    let product = (value(x[i], origin) - a_zero) * (value(z[i], origin) - b_zero);
                    by.byte(product * scale + y_zero)
                },
            ),
        }
    });
}

/// A byte relative to `origin`.
#[inline(always)]
fn value(byte: u8, origin: u8) -> f32 {
    (i32::from(byte) - i32::from(origin)) as f32
}

/// `y[i] = f(i)`, compiled for an instruction set.
#[inline(always)]
fn each<T>(isa: Isa, y: &mut [T], f: impl Fn(usize) -> T) {
    let each = Each { y, f };
    match isa {
        Isa::Scalar => each.plain(),
        _ => dispatch(isa, each),
    }
}

struct Each<'a, T, F> {
    y: &'a mut [T],
    f: F,
}

impl<T, F: Fn(usize) -> T> Each<'_, T, F> {
    #[inline(always)]
    fn plain(self) {
        for (i, y) in self.y.iter_mut().enumerate() {
            *y = (self.f)(i);
        }
    }
}

impl<T, F: Fn(usize) -> T> Vectorized for Each<'_, T, F> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, _simd: S) {
        self.plain();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::guard::Guarded;
    use crate::qgemm::tests::bytes;
    use crate::testing::{Random, everywhere};

    #[test]
    fn numbers_become_bytes_and_back() {
        let mut random = Random::new(1);
        everywhere(|isa, pool, edge| {
            for _ in 0..40 {
                let len = random.length() * random.length();
                let x = Guarded::new(&random.numbers_with_specials(len, 300.0), edge);
                let (scale, zero) = (0.01 + random.number().abs(), random.below(256) as u8);
                let by = Requantize::all(zero);
                let mut y = Guarded::new(&vec![9u8; len], edge);
                quantize(isa, &x, scale, by, &mut y, pool);
                let want: Vec<u8> = x.iter().map(|&x| by.byte(x / scale)).collect();
                assert_eq!(&y[..], want, "{isa}");
                let mut back = Guarded::new(&vec![f32::NAN; len], edge);
                dequantize(isa, Bytes { bytes: &y, zero }, scale, &mut back, pool);
                let want: Vec<f32> = y.iter().map(|&y| f32::from(i16::from(y) - i16::from(zero)) * scale).collect();
                assert_eq!(&back[..], want, "{isa}");
            }
        });
    }

    #[test]
    fn the_range_contains_zero() {
        let mut random = Random::new(3);
        everywhere(|isa, pool, edge| {
            for _ in 0..40 {
                let len = random.length() * random.length();
                let shift = [-2.0, 0.0, 2.0][random.below(3)];
                let numbers: Vec<f32> = random.numbers_with_specials(len, 1.0).iter().map(|x| x + shift).collect();
                let x = Guarded::new(&numbers, edge);
                let want = [x.iter().fold(0.0, |a: f32, &b| a.min(b)), x.iter().fold(0.0, |a: f32, &b| a.max(b))];
                assert_eq!(range(isa, &x, pool), want, "{isa}");
            }
        });
    }

    #[test]
    fn pairs_of_bytes_are_combined() {
        let mut random = Random::new(2);
        everywhere(|isa, pool, edge| {
            for round in 0..60 {
                let dims = [random.length() % 4 + 1, if round % 2 == 0 { 1 } else { random.length() }, random.length()];
                let [outer, middle, inner] = dims;
                let a = Guarded::new(&bytes(round, outer * middle * inner), edge);
                let b = Guarded::new(&bytes(round + 1, outer * inner), edge);
                let zeros = [0; 3].map(|_: i32| random.below(256) as u8);
                let by = Requantize { min: zeros[2].min(7), ..Requantize::all(zeros[2]) };
                for f in [
                    QBinaryFn::Add { a: random.number().abs(), b: random.number().abs() },
                    QBinaryFn::Multiply { scale: random.number().abs() * 0.02 },
                ] {
                    let mut y = Guarded::new(&vec![9u8; a.len()], edge);
                    let operands = (Bytes { bytes: &a, zero: zeros[0] }, Bytes { bytes: &b, zero: zeros[1] });
                    let origin = [0, 128][random.below(2)];
                    binary(isa, f, dims, operands.0, operands.1, by, origin, &mut y, pool);
                    for (i, &y) in y.iter().enumerate() {
                        let (o, j) = (i / (middle * inner), i % inner);
                        let x = f64::from(a[i]) - f64::from(zeros[0]);
                        let z = f64::from(b[o * inner + j]) - f64::from(zeros[1]);
                        let want = match f {
                            QBinaryFn::Add { a, b } => x * f64::from(a) + z * f64::from(b),
                            QBinaryFn::Multiply { scale } => x * z * f64::from(scale),
                        };
                        let want = (want + f64::from(by.zero)).clamp(f64::from(by.min), 255.0);
                        // Half a step of the output, plus rounding in single precision.
                        assert!((f64::from(y) - want).abs() < 0.5001, "{y} is not {want}: {f:?} {dims:?} {isa}");
                    }
                }
            }
        });
    }

    #[test]
    fn bytes_are_looked_up() {
        let table = std::array::from_fn(|i| 255 - i as u8);
        everywhere(|_, pool, edge| {
            for len in [0, 1, 63, 64, 65, 100_000] {
                let x = Guarded::new(&bytes(3, len), edge);
                let mut y = Guarded::new(&vec![0u8; len], edge);
                look_up(&x, &table, &mut y, pool);
                assert!(x.iter().zip(y.iter()).all(|(&x, &y)| y == 255 - x));
            }
        });
    }
}
