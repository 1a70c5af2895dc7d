//! Arithmetic and logic of two tensors with NumPy broadcasting ([ONNX
//! Add](https://onnx.ai/onnx/operators/onnx__Add.html), Sub, Mul, Div, Min, Max, Pow, Mod, PRelu, And, Or, Xor, and
//! bitwise BitwiseAnd, BitwiseOr, BitwiseXor, BitShift).
//!
//! f32 uses vector kernels; integers, half precision and f64 use a plain loop in a wider type. Integers wrap on
//! overflow, but division by zero is an error, since no result would make sense.

use serde::{Deserialize, Serialize};
use skipstone_kernels::activation::{Activation, scalar};
use skipstone_kernels::binary::{self, BinaryFn, Broadcast};
use skipstone_kernels::pace::Pace;

use super::arity::exactly;
use super::number::{Number, division_overflow, is_float};
use super::walk::Walk;
use super::wide::{CHUNK, Wide, by_wide};
use crate::error::OpError;
use crate::operator::axes::Axes;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Shape, Tensor};

/// A function of two elements.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum BinaryKind {
    /// `a + b`
    Add,
    /// `a - b`
    Sub,
    /// `a * b`
    Mul,
    /// `a / b`, towards zero for integers
    Div,
    /// The smaller; NaN if either is NaN.
    Min,
    /// The larger; NaN if either is NaN.
    Max,
    /// `a` to the power of `b`
    Pow,
    /// `a` if it is not negative, otherwise `b * a`
    PRelu,
    /// `(a - b)^2`
    SqDiff,
    /// The remainder of `a / b`, with the sign of `a`.
    Rem,
    /// Logical and, of booleans.
    And,
    /// Logical or, of booleans.
    Or,
    /// Exclusive or, of booleans.
    Xor,
    /// Bitwise and, of integers.
    BitAnd,
    /// Bitwise or, of integers.
    BitOr,
    /// Bitwise exclusive or, of integers.
    BitXor,
    /// `a` shifted left by `b` bits, of unsigned integers.
    ShiftLeft,
    /// `a` shifted right by `b` bits, of unsigned integers.
    ShiftRight,
}

impl BinaryKind {
    /// The vector kernel for f32, if there is one.
    fn kernel(self) -> Option<BinaryFn> {
        Some(match self {
            Self::Add => BinaryFn::Add,
            Self::Sub => BinaryFn::Sub,
            Self::Mul => BinaryFn::Mul,
            Self::Div => BinaryFn::Div,
            Self::Min => BinaryFn::Min,
            Self::Max => BinaryFn::Max,
            Self::Pow => BinaryFn::Pow,
            Self::PRelu => BinaryFn::PRelu,
            Self::SqDiff => BinaryFn::SqDiff,
            _ => return None,
        })
    }

    fn is_logic(self) -> bool {
        matches!(self, Self::And | Self::Or | Self::Xor)
    }

    /// Whether it is a bitwise function, which floats do not have.
    fn is_of_bits(self) -> bool {
        matches!(self, Self::BitAnd | Self::BitOr | Self::BitXor | Self::ShiftLeft | Self::ShiftRight)
    }

    /// Whether the operands may be swapped.
    #[must_use]
    pub fn is_commutative(self) -> bool {
        !matches!(
            self,
            Self::Sub | Self::Div | Self::Pow | Self::PRelu | Self::Rem | Self::ShiftLeft | Self::ShiftRight
        )
    }
}

/// `y = activation(kind(a, b))` with NumPy broadcasting.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
pub struct Binary {
    /// The function.
    pub kind: BinaryKind,
    /// Applied to every result; only for f32.
    pub activation: Activation,
}

impl Binary {
    /// The function without an activation.
    #[must_use]
    pub fn new(kind: BinaryKind) -> Self {
        Self { kind, activation: Activation::None }
    }
}

fn combine<T: Number>(kind: BinaryKind, a: T, b: T) -> Result<T, OpError> {
    Ok(match kind {
        BinaryKind::Add => a.add(b),
        BinaryKind::Sub => a.sub(b),
        BinaryKind::Mul => a.mul(b),
        BinaryKind::Div => a.div(b)?,
        BinaryKind::Rem => a.rem(b)?,
        BinaryKind::Pow => a.pow(b),
        BinaryKind::Min if a.is_nan() || a < b => a,
        BinaryKind::Min => b,
        BinaryKind::Max if a.is_nan() || a > b => a,
        BinaryKind::Max => b,
        BinaryKind::PRelu if a < T::ZERO => a.mul(b),
        BinaryKind::PRelu => a,
        BinaryKind::SqDiff => a.sub(b).mul(a.sub(b)),
        _ => T::from_i128(of_bits(kind, a.to_i128(), b.to_i128())?),
    })
}

/// A bitwise function of integers.
fn of_bits(kind: BinaryKind, a: i128, b: i128) -> Result<i128, OpError> {
    Ok(match kind {
        BinaryKind::BitAnd => a & b,
        BinaryKind::BitOr => a | b,
        BinaryKind::BitXor => a ^ b,
        // Shifting by the width or more leaves nothing.
        BinaryKind::ShiftLeft | BinaryKind::ShiftRight if !(0..64).contains(&b) => 0,
        BinaryKind::ShiftLeft => a << b,
        BinaryKind::ShiftRight => a >> b,
        _ => return Err(OpError::Value("booleans have no arithmetic".into())),
    })
}

fn combine_bool(kind: BinaryKind, a: u8, b: u8) -> Result<u8, OpError> {
    let (a, b) = (a != 0, b != 0);
    match kind {
        BinaryKind::And => Ok(u8::from(a & b)),
        BinaryKind::Or => Ok(u8::from(a | b)),
        BinaryKind::Xor => Ok(u8::from(a ^ b)),
        _ => Err(OpError::Type { index: 0, got: DType::Bool, want: "a number" }),
    }
}

/// The plain loop over elements of type `dtype`, computed in `W`.
fn zip<W: Wide>(
    kind: BinaryKind,
    dtype: DType,
    walk: &Walk<2>,
    [a, b]: [&[u8]; 2],
    y: &mut [u8],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    let (mut left, mut right) = ([W::ZERO; CHUNK], [W::ZERO; CHUNK]);
    let mut results = y.chunks_mut(CHUNK * dtype.size());
    walk.try_chunks(pace, &mut |[i, j]| {
        pace.spend(if kind == BinaryKind::Pow { 64 } else { 8 } * i.len())?;
        W::load(dtype, a, i, &mut left)?;
        W::load(dtype, b, j, &mut right)?;
        let results = results.next().ok_or(OpError::Operand(0))?;
        let count = i.len();
        for (a, &b) in left[..count].iter_mut().zip(&right) {
            *a = combine(kind, *a, b)?;
        }
        match W::store(dtype, &left[..count], results)? {
            false if kind == BinaryKind::Div => Err(division_overflow()),
            _ => Ok(()),
        }
    })
}

/// The plain loop over f32, which networks compute from constants in large numbers.
fn zip_f32(kind: BinaryKind, walk: &Walk<2>, [a, b]: [&[f32]; 2], y: &mut [f32]) -> Result<(), OpError> {
    let mut left = y;
    walk.try_runs(&Pace::free(), |[i, j], steps, len| {
        let (run, rest) = std::mem::take(&mut left).split_at_mut_checked(len).ok_or(OpError::Operand(0))?;
        left = rest;
        let (a, b) = (a.get(i..).unwrap_or_default(), b.get(j..).unwrap_or_default());
        for (at, y) in run.iter_mut().enumerate() {
            let (Some(&a), Some(&b)) = (a.get(at * steps[0]), b.get(at * steps[1])) else {
                return Err(OpError::Operand(0));
            };
            *y = combine(kind, f64::from(a), f64::from(b))? as f32;
        }
        Ok(())
    })
}

/// The plain loop over booleans.
fn zip_bool(
    kind: BinaryKind,
    walk: &Walk<2>,
    [a, b]: [&[u8]; 2],
    y: &mut [u8],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    let mut results = y.iter_mut();
    walk.try_each(pace, |[i, j]| {
        let (Some(&a), Some(&b)) = (a.get(i), b.get(j)) else { return Err(OpError::Operand(0)) };
        *results.next().ok_or(OpError::Operand(0))? = combine_bool(kind, a, b)?;
        Ok(())
    })
}

/// The plain loop over elements of type `dtype`.
fn zip_any(
    kind: BinaryKind,
    dtype: DType,
    walk: &Walk<2>,
    operands: [&[u8]; 2],
    y: &mut [u8],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    by_wide!(dtype, W => zip::<W>(kind, dtype, walk, operands, y, pace), else zip_bool(kind, walk, operands, y, pace))
}

/// `y = kind(y, x)` for contiguous elements of type `dtype`.
pub(super) fn accumulate(
    kind: BinaryKind,
    dtype: DType,
    x: &[u8],
    y: &mut [u8],
    pace: &Pace<'_>,
) -> Result<(), OpError> {
    fn of<W: Wide>(kind: BinaryKind, dtype: DType, x: &[u8], y: &mut [u8], pace: &Pace<'_>) -> Result<(), OpError> {
        let offsets: [usize; CHUNK] = std::array::from_fn(|i| i);
        let (mut left, mut right) = ([W::ZERO; CHUNK], [W::ZERO; CHUNK]);
        for (x, y) in x.chunks(CHUNK * dtype.size()).zip(y.chunks_mut(CHUNK * dtype.size())) {
            let count = y.len() / dtype.size();
            // The offsets of a whole chunk are made for every call.
            pace.spend(CHUNK + 16 * count)?;
            W::load(dtype, y, &offsets[..count], &mut left)?;
            W::load(dtype, x, &offsets[..count], &mut right)?;
            for (a, &b) in left[..count].iter_mut().zip(&right) {
                *a = combine(kind, *a, b)?;
            }
            W::store(dtype, &left[..count], y)?;
        }
        Ok(())
    }
    let not_a_number = || Err(OpError::Type { index: 0, got: dtype, want: "a number" });
    by_wide!(dtype, W => of::<W>(kind, dtype, x, y, pace), else not_a_number())
}

impl Operator for Binary {
    fn name(&self) -> &str {
        match self.kind {
            BinaryKind::Add => "Add",
            BinaryKind::Sub => "Sub",
            BinaryKind::Mul => "Mul",
            BinaryKind::Div => "Div",
            BinaryKind::Min => "Min",
            BinaryKind::Max => "Max",
            BinaryKind::Pow => "Pow",
            BinaryKind::PRelu => "PRelu",
            BinaryKind::SqDiff => "SqDiff",
            BinaryKind::Rem => "Rem",
            BinaryKind::And => "And",
            BinaryKind::Or => "Or",
            BinaryKind::Xor => "Xor",
            BinaryKind::BitAnd => "BitwiseAnd",
            BinaryKind::BitOr => "BitwiseOr",
            BinaryKind::BitXor => "BitwiseXor",
            BinaryKind::ShiftLeft => "ShiftLeft",
            BinaryKind::ShiftRight => "ShiftRight",
        }
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [a, b] = exactly::<2, _>(inputs)?;
        if a.dtype != b.dtype {
            return Err(OpError::Type { index: 1, got: b.dtype, want: "the type of the first input" });
        }
        if self.kind.is_logic() != (a.dtype == DType::Bool) {
            let want = if self.kind.is_logic() { "bool" } else { "a number" };
            return Err(OpError::Type { index: 0, got: a.dtype, want });
        }
        if self.kind.is_of_bits() && is_float(a.dtype) {
            return Err(OpError::Type { index: 0, got: a.dtype, want: "an integer" });
        }
        if self.activation != Activation::None && (a.dtype != DType::F32 || self.kind.kernel().is_none()) {
            return Err(OpError::Type { index: 0, got: a.dtype, want: "f32, for the activation" });
        }
        Ok(vec![Fact::new(a.dtype, Shape::broadcast(&[&a.shape, &b.shape])?)])
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let [a, _] = exactly::<2, _>(&cx.inputs)?;
        let kernel = match (a.dtype, self.kind.kernel()) {
            (DType::F32, Some(_)) => format!("binary_f32_{}", cx.isa),
            (dtype, _) => format!("binary_{dtype}"),
        };
        Ok(Choice { kernel, ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [a, b] = exactly::<2, _>(&cx.inputs)?;
        let [y] = exactly::<1, _>(&cx.outputs)?;
        let Self { kind, activation } = *self;
        if let (DType::F32, Some(function)) = (a.dtype, kind.kernel()) {
            let broadcast = Broadcast::of_shapes(&a.shape, &b.shape)
                .map_err(|_| OpError::shapes("these shapes do not broadcast", &[&a.shape, &b.shape]))?;
            let isa = cx.isa;
            return Ok(Box::new(move |io: &mut Io<'_, '_>| {
                let (a, b, y) = (io.input(0)?, io.input(1)?, io.output(0)?);
                binary::binary(isa, function, &broadcast, a, b, y, activation, io.pool());
                Ok(())
            }));
        }
        let walk = Walk::broadcast(&y.shape, [&a.shape, &b.shape]);
        let dtype = a.dtype;
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            let operands = [io.input_bytes(0)?, io.input_bytes(1)?];
            zip_any(kind, dtype, &walk, operands, io.output_bytes(0)?, &io.pace())
        }))
    }
}

impl Semantics for Binary {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [a, b] = exactly::<2, _>(inputs)?;
        let fact = self.infer(&[a.fact(), b.fact()])?.remove(0);
        let walk = Walk::broadcast(&fact.shape, [a.shape(), b.shape()]);
        let dtype = fact.dtype;
        let operands = [a.bytes(), b.bytes()];
        let mut y = Tensor::written(fact, |y| match (a.elements::<f32>(), b.elements::<f32>()) {
            (Some(a), Some(b)) => {
                let y = bytemuck::try_cast_slice_mut(y).map_err(|_| OpError::Operand(0))?;
                zip_f32(self.kind, &walk, [a, b], y)
            }
            _ => zip_any(self.kind, dtype, &walk, operands, y, &Pace::free()),
        })?;
        if self.activation != Activation::None {
            for y in y.elements_mut::<f32>().unwrap_or_default() {
                *y = scalar::apply(self.activation, *y);
            }
        }
        Ok(vec![y])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        Axes::elementwise(inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check, check_fails};

    const NUMERIC: [BinaryKind; 10] = [
        BinaryKind::Add,
        BinaryKind::Sub,
        BinaryKind::Mul,
        BinaryKind::Div,
        BinaryKind::Min,
        BinaryKind::Max,
        BinaryKind::Pow,
        BinaryKind::PRelu,
        BinaryKind::SqDiff,
        BinaryKind::Rem,
    ];

    /// Two shapes that broadcast, of up to three axes.
    fn shapes(random: &mut Random) -> (Vec<usize>, Vec<usize>) {
        let full = random.dims(3);
        let mut repeat = |dims: &[usize]| {
            let skip = random.below(4);
            dims[skip..].iter().map(|&d| if random.below(3) == 0 { 1 } else { d }).collect::<Vec<_>>()
        };
        (repeat(&full), repeat(&full))
    }

    #[test]
    fn floats_agree_on_broadcast_shapes() {
        let mut random = Random(2);
        for kind in NUMERIC {
            for _ in 0..8 {
                let (a, b) = shapes(&mut random);
                let operands = [random.floats(&a), random.floats(&b)];
                check(Binary::new(kind), &operands, 1e-6);
            }
        }
        let operands = [random.floats(&[3, 7]), random.floats(&[7])];
        check(Binary { kind: BinaryKind::Add, activation: Activation::HardSwish }, &operands, 1e-6);
    }

    #[test]
    fn the_other_types_agree_with_the_definition() {
        let mut random = Random(3);
        for dtype in [DType::I64, DType::I32, DType::U8, DType::I8, DType::F64, DType::F16] {
            for kind in [BinaryKind::Add, BinaryKind::Sub, BinaryKind::Mul, BinaryKind::Min, BinaryKind::Max] {
                let (a, b) = shapes(&mut random);
                let operands = [random.tensor(dtype, &a), random.tensor(dtype, &b)];
                check(Binary::new(kind), &operands, 0.0);
            }
        }
        let long = [random.tensor(DType::I16, &[3, 301]), random.tensor(DType::I16, &[301])];
        check(Binary::new(BinaryKind::Sub), &long, 0.0);
        for kind in [BinaryKind::And, BinaryKind::Or, BinaryKind::Xor] {
            let operands = [random.tensor(DType::Bool, &[4, 5]), random.tensor(DType::Bool, &[5])];
            check(Binary::new(kind), &operands, 0.0);
        }
    }

    #[test]
    fn integers_divide_towards_zero_and_never_panic() {
        let i64s = |v: &[i64]| Tensor::from_slice(&[v.len()], v).unwrap();
        let quotient = check(Binary::new(BinaryKind::Div), &[i64s(&[7, -7]), i64s(&[2, 2])], 0.0);
        assert_eq!(quotient[0].elements::<i64>(), Some(&[3, -3][..]));
        for kind in [BinaryKind::Div, BinaryKind::Rem] {
            check_fails(Binary::new(kind), &[i64s(&[1]), i64s(&[0])]);
            check_fails(Binary::new(kind), &[i64s(&[i64::MIN]), i64s(&[-1])]);
        }
        let i8s = |x: i8| Tensor::from_slice(&[1], &[x]).unwrap();
        check_fails(Binary::new(BinaryKind::Div), &[i8s(i8::MIN), i8s(-1)]);
        let u64s = |x: u64| Tensor::from_slice(&[1], &[x]).unwrap();
        let half = check(Binary::new(BinaryKind::Div), &[u64s(u64::MAX), u64s(2)], 0.0);
        assert_eq!(half[0].elements::<u64>(), Some(&[u64::MAX / 2][..]));
        let sum = check(Binary::new(BinaryKind::Add), &[i64s(&[i64::MAX]), i64s(&[1])], 0.0);
        assert_eq!(sum[0].elements::<i64>(), Some(&[i64::MIN][..]));
        let power = check(Binary::new(BinaryKind::Pow), &[i64s(&[3, 2, -2]), i64s(&[4, -1, 3])], 0.0);
        assert_eq!(power[0].elements::<i64>(), Some(&[81, 0, -8][..]));
    }

    #[test]
    fn bitwise_operators_and_shifts_beyond_the_width() {
        let mut random = Random(4);
        for dtype in [DType::I8, DType::I64, DType::U8, DType::U64] {
            for kind in [BinaryKind::BitAnd, BinaryKind::BitOr, BinaryKind::BitXor] {
                check(Binary::new(kind), &[random.tensor(dtype, &[3, 7]), random.tensor(dtype, &[7])], 0.0);
            }
        }
        let u8s = |x: [u8; 4]| Tensor::from_slice(&[4], &x).unwrap();
        let operands = [u8s([255, 255, 1, 7]), u8s([1, 9, 255, 0])];
        let left = check(Binary::new(BinaryKind::ShiftLeft), &operands, 0.0);
        assert_eq!(left[0].elements::<u8>(), Some(&[254, 0, 0, 7][..]));
        let right = check(Binary::new(BinaryKind::ShiftRight), &operands, 0.0);
        assert_eq!(right[0].elements::<u8>(), Some(&[127, 0, 0, 7][..]));
        let i8s = |x: i8| Tensor::from_slice(&[1], &[x]).unwrap();
        let flipped = check(Binary::new(BinaryKind::BitXor), &[i8s(5), i8s(-1)], 0.0);
        assert_eq!(flipped[0].elements::<i8>(), Some(&[-6][..]));
        assert!(
            Binary::new(BinaryKind::BitAnd).infer(&[random.floats(&[1]).fact(), random.floats(&[1]).fact()]).is_err()
        );
    }

    #[test]
    fn types_and_shapes_that_do_not_fit_are_refused() {
        let mut random = Random(4);
        let f = random.floats(&[2]);
        let i = random.tensor(DType::I64, &[2]);
        let long = random.floats(&[3]);
        assert!(Binary::new(BinaryKind::Add).infer(&[f.fact(), i.fact()]).is_err());
        assert!(Binary::new(BinaryKind::Add).infer(&[f.fact(), long.fact()]).is_err());
        assert!(Binary::new(BinaryKind::And).infer(&[f.fact(), f.fact()]).is_err());
        assert!(Binary::new(BinaryKind::Add).infer(&[f.fact()]).is_err());
    }
}
