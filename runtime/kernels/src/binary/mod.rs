//! Elementwise functions of two tensors with NumPy broadcasting: `y[i] = f(a[i'], b[i''])`.
//!
//! Used for residual adds, squeeze-and-excitation scales, biases that could not be fused, and the masks of dynamic
//! pruning (comparisons). Broadcasting is described by strides, 0 where an operand is repeated. [`Broadcast`] first
//! merges axes that both operands traverse in the same way. What remains is a loop over rows whose last axis is one of
//! three simple cases:
//!
//! | last axis of a, b  | example                                      |
//! |--------------------|----------------------------------------------|
//! | moves, moves       | same shape; a vector per channel; SE scale   |
//! | moves, fixed       | a scalar; one element per row                |
//! | fixed, moves       | the same with the operands exchanged         |
//!
//! Any other stride (a transposed view) uses the plain loop.

mod broadcast;
mod scalar;
mod vector;

#[cfg(test)]
mod tests;

use crate::activation::Activation;
use crate::isa::Isa;
use crate::parallel;
use crate::simd::dispatch;
use crate::threads::Pool;
use crate::unary;

pub use broadcast::{Broadcast, BroadcastError, MAX_RANK};

/// A function of two elements.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum BinaryFn {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`
    Div,
    /// The smaller; NaN if either is NaN.
    Min,
    /// The larger; NaN if either is NaN.
    Max,
    /// `a` to the power of `b`, like `powf` of the standard library.
    Pow,
    /// `a` where it is not negative, `b * a` elsewhere.
    PRelu,
    /// `(a - b)^2`
    SqDiff,
}

impl BinaryFn {
    /// Every function.
    pub const ALL: [BinaryFn; 9] = [
        BinaryFn::Add,
        BinaryFn::Sub,
        BinaryFn::Mul,
        BinaryFn::Div,
        BinaryFn::Min,
        BinaryFn::Max,
        BinaryFn::Pow,
        BinaryFn::PRelu,
        BinaryFn::SqDiff,
    ];
}

/// A comparison of two elements. Comparing with NaN gives false.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub enum CompareFn {
    /// `a == b`
    Equal,
    /// `a < b`
    Less,
    /// `a <= b`
    LessEqual,
    /// `a > b`
    Greater,
    /// `a >= b`
    GreaterEqual,
}

impl CompareFn {
    /// Every comparison.
    pub const ALL: [CompareFn; 5] =
        [CompareFn::Equal, CompareFn::Less, CompareFn::LessEqual, CompareFn::Greater, CompareFn::GreaterEqual];
}

/// How many results are computed before the activation is applied to them: they stay in the first-level cache (16 of
/// its 32 KiB).
const ACTIVATION_BLOCK: usize = 4096;

/// A power, computed one by one, takes about as long as moving this many elements.
const ONE_BY_ONE: usize = 16;

/// `y = act(f(a, b))` for every element of the shape of `broadcast`.
///
/// # Panics
/// If the length of `y` does not match the shape, or an operand is shorter than its strides reach.
#[allow(clippy::too_many_arguments)]
pub fn binary(
    isa: Isa,
    f: BinaryFn,
    broadcast: &Broadcast,
    a: &[f32],
    b: &[f32],
    y: &mut [f32],
    act: Activation,
    pool: &Pool,
) {
    broadcast.check(a.len(), b.len(), y.len());
    let block = match act {
        Activation::None => usize::MAX,
        _ => ACTIVATION_BLOCK,
    };
    let work = broadcast.len().saturating_mul(if f == BinaryFn::Pow { ONE_BY_ONE } else { 1 });
    parallel::split(pool, y, 64, work, |offset, y| {
        let mut start = offset;
        for y in y.chunks_mut(block) {
            let rows = broadcast.rows(start..start + y.len());
            match isa {
                Isa::Scalar => scalar::binary(f, rows, a, b, y),
                _ => dispatch(isa, vector::Binary { f, rows, a, b, y }),
            }
            if !matches!(act, Activation::None) {
                unary::map_slice_in_place(isa, unary::ElementwiseFn::Activation(act), y);
            }
            start += y.len();
        }
    });
}

/// `y = f(a, b)`, 1 for true and 0 for false, for every element of the shape of `broadcast`.
///
/// # Panics
/// If the length of `y` does not match the shape, or an operand is shorter than its strides reach.
pub fn compare(isa: Isa, f: CompareFn, broadcast: &Broadcast, a: &[f32], b: &[f32], y: &mut [u8], pool: &Pool) {
    broadcast.check(a.len(), b.len(), y.len());
    // Two loops for four orders.
    match f {
        CompareFn::Greater => return compare(isa, CompareFn::Less, &broadcast.swapped(), b, a, y, pool),
        CompareFn::GreaterEqual => return compare(isa, CompareFn::LessEqual, &broadcast.swapped(), b, a, y, pool),
        _ => {}
    }
    parallel::split(pool, y, 64, broadcast.len(), |offset, y| {
        let rows = broadcast.rows(offset..offset + y.len());
        match isa {
            Isa::Scalar => scalar::compare(f, rows, a, b, y),
            _ => dispatch(isa, vector::Compare { f, rows, a, b, y }),
        }
    });
}
