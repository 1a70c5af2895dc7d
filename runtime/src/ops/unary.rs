//! Functions of one element that are not activations of f32
//! ([ONNX Sqrt](https://onnx.ai/onnx/operators/onnx__Sqrt.html), Neg, Abs, Exp, Log,
//! Reciprocal, Erf, Floor, Ceil, Round, Sign, Not, the trigonometric and hyperbolic ones, and Sigmoid of f64).

use serde::{Deserialize, Serialize};
use skipstone_kernels::pace::Pace;
use skipstone_kernels::unary::{self, UnaryFn};

use super::arity::exactly;
use super::number::is_float;
use super::wide::{CHUNK, Wide, by_wide};
use crate::error::OpError;
use crate::operator::axes::Axes;
use crate::operator::{BindContext, Choice, Execute, Io, Operator, PlanContext, Semantics};
use crate::tensor::{DType, Fact, Tensor};

/// A function of one element.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum UnaryKind {
    /// `-x`
    Neg,
    /// `|x|`
    Abs,
    /// The square root; NaN for negative elements.
    Sqrt,
    /// `e^x`
    Exp,
    /// The natural logarithm.
    Log,
    /// `1 / x`
    Reciprocal,
    /// `x * x`
    Square,
    /// `1 / sqrt(x)`
    Rsqrt,
    /// The error function.
    Erf,
    /// The largest integer not above `x`.
    Floor,
    /// The smallest integer not below `x`.
    Ceil,
    /// The nearest integer, ties to even.
    Round,
    /// -1, 0 or 1; NaN for NaN.
    Sign,
    /// The sine.
    Sin,
    /// The cosine.
    Cos,
    /// Logical not.
    Not,
    /// The tangent.
    Tan,
    /// The inverse of the sine; NaN outside of -1 to 1.
    Asin,
    /// The inverse of the cosine; NaN outside of -1 to 1.
    Acos,
    /// The inverse of the tangent.
    Atan,
    /// The hyperbolic sine.
    Sinh,
    /// The hyperbolic cosine.
    Cosh,
    /// The hyperbolic tangent.
    Tanh,
    /// The inverse of the hyperbolic sine.
    Asinh,
    /// The inverse of the hyperbolic cosine; NaN below 1.
    Acosh,
    /// The inverse of the hyperbolic tangent; NaN outside of -1 to 1.
    Atanh,
    /// `1 / (1 + e^-x)`; that of f32 is an activation.
    Sigmoid,
}

impl UnaryKind {
    /// The vector kernel for f32, if there is one.
    fn kernel(self) -> Option<UnaryFn> {
        Some(match self {
            Self::Neg => UnaryFn::Neg,
            Self::Abs => UnaryFn::Abs,
            Self::Sqrt => UnaryFn::Sqrt,
            Self::Exp => UnaryFn::Exp,
            Self::Log => UnaryFn::Log,
            Self::Reciprocal => UnaryFn::Reciprocal,
            Self::Square => UnaryFn::Square,
            Self::Rsqrt => UnaryFn::Rsqrt,
            Self::Erf => UnaryFn::Erf,
            Self::Floor => UnaryFn::Floor,
            Self::Ceil => UnaryFn::Ceil,
            Self::Round => UnaryFn::Round,
            Self::Sign => UnaryFn::Sign,
            _ => return None,
        })
    }

    /// Whether the function is defined for this element type.
    fn supports(self, dtype: DType) -> bool {
        match self {
            Self::Not => dtype == DType::Bool,
            Self::Square | Self::Abs | Self::Sign => dtype != DType::Bool,
            Self::Neg => is_float(dtype) || matches!(dtype, DType::I8 | DType::I16 | DType::I32 | DType::I64),
            _ => is_float(dtype),
        }
    }
}

/// `y = kind(x)`, elementwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unary {
    /// The function.
    pub kind: UnaryKind,
}

fn apply<T: Wide>(kind: UnaryKind, x: T) -> T {
    match kind {
        UnaryKind::Neg if !T::FLOAT => T::ZERO.sub(x),
        UnaryKind::Abs if x < T::ZERO => T::ZERO.sub(x),
        UnaryKind::Abs | UnaryKind::Not => x,
        UnaryKind::Square => x.mul(x),
        UnaryKind::Sign if x > T::ZERO => T::ONE,
        UnaryKind::Sign if x < T::ZERO => T::ZERO.sub(T::ONE),
        UnaryKind::Sign => x,
        _ => T::from_f64(real(kind, x.to_f64())),
    }
}

/// A function of a real number.
#[inline(never)]
fn real(kind: UnaryKind, x: f64) -> f64 {
    match kind {
        UnaryKind::Neg => -x,
        UnaryKind::Sqrt => x.sqrt(),
        UnaryKind::Exp => x.exp(),
        UnaryKind::Log => x.ln(),
        UnaryKind::Reciprocal => x.recip(),
        UnaryKind::Rsqrt => x.sqrt().recip(),
        UnaryKind::Erf => erf(x),
        UnaryKind::Floor => x.floor(),
        UnaryKind::Ceil => x.ceil(),
        UnaryKind::Round => x.round_ties_even(),
        UnaryKind::Sin => x.sin(),
        UnaryKind::Cos => x.cos(),
        UnaryKind::Tan => x.tan(),
        UnaryKind::Asin => x.asin(),
        UnaryKind::Acos => x.acos(),
        UnaryKind::Atan => x.atan(),
        UnaryKind::Sinh => x.sinh(),
        UnaryKind::Cosh => x.cosh(),
        UnaryKind::Tanh => x.tanh(),
        UnaryKind::Asinh => x.asinh(),
        UnaryKind::Acosh => x.acosh(),
        UnaryKind::Atanh => x.atanh(),
        UnaryKind::Sigmoid => (1.0 + (-x).exp()).recip(),
        UnaryKind::Abs | UnaryKind::Square | UnaryKind::Sign | UnaryKind::Not => x,
    }
}

/// The error function by a series of positive terms (<https://dlmf.nist.gov/7.6#E2>). Its result is 1 from 6 on.
fn erf(x: f64) -> f64 {
    let square = x * x;
    if square >= 36.0 {
        return 1f64.copysign(x);
    }
    let (mut term, mut sum, mut odd) = (x, x, 1.0);
    while term.abs() > sum.abs() * f64::EPSILON / 8.0 {
        odd += 2.0;
        term *= 2.0 * square / odd;
        sum += term;
    }
    std::f64::consts::FRAC_2_SQRT_PI * (-square).exp() * sum
}

/// The plain loop over elements of type `dtype`, computed in `W`.
fn map<W: Wide>(kind: UnaryKind, dtype: DType, x: &[u8], y: &mut [u8], pace: &Pace<'_>) -> Result<(), OpError> {
    let offsets: [usize; CHUNK] = std::array::from_fn(|i| i);
    let mut wide = [W::ZERO; CHUNK];
    let bytes = CHUNK * dtype.size();
    for (x, y) in x.chunks(bytes).zip(y.chunks_mut(bytes)) {
        let count = x.len() / dtype.size();
        // Most functions take several ten nanoseconds.
        pace.spend(64 * count)?;
        W::load(dtype, x, &offsets[..count], &mut wide)?;
        for x in &mut wide[..count] {
            *x = apply(kind, *x);
        }
        W::store(dtype, &wide[..count], y)?;
    }
    Ok(())
}

fn not(x: &[u8], y: &mut [u8], pace: &Pace<'_>) -> Result<(), OpError> {
    for (y, x) in y.chunks_mut(CHUNK).zip(x.chunks(CHUNK)) {
        pace.spend(CHUNK)?;
        y.iter_mut().zip(x).for_each(|(y, &x)| *y = u8::from(x == 0));
    }
    Ok(())
}

/// The plain loop over elements of type `dtype`.
fn map_any(kind: UnaryKind, dtype: DType, x: &[u8], y: &mut [u8], pace: &Pace<'_>) -> Result<(), OpError> {
    by_wide!(dtype, W => map::<W>(kind, dtype, x, y, pace), else not(x, y, pace))
}

impl Operator for Unary {
    fn name(&self) -> &str {
        match self.kind {
            UnaryKind::Neg => "Neg",
            UnaryKind::Abs => "Abs",
            UnaryKind::Sqrt => "Sqrt",
            UnaryKind::Exp => "Exp",
            UnaryKind::Log => "Log",
            UnaryKind::Reciprocal => "Reciprocal",
            UnaryKind::Square => "Square",
            UnaryKind::Rsqrt => "Rsqrt",
            UnaryKind::Erf => "Erf",
            UnaryKind::Floor => "Floor",
            UnaryKind::Ceil => "Ceil",
            UnaryKind::Round => "Round",
            UnaryKind::Sign => "Sign",
            UnaryKind::Sin => "Sin",
            UnaryKind::Cos => "Cos",
            UnaryKind::Not => "Not",
            UnaryKind::Tan => "Tan",
            UnaryKind::Asin => "Asin",
            UnaryKind::Acos => "Acos",
            UnaryKind::Atan => "Atan",
            UnaryKind::Sinh => "Sinh",
            UnaryKind::Cosh => "Cosh",
            UnaryKind::Tanh => "Tanh",
            UnaryKind::Asinh => "Asinh",
            UnaryKind::Acosh => "Acosh",
            UnaryKind::Atanh => "Atanh",
            UnaryKind::Sigmoid => "Sigmoid",
        }
    }

    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        if !self.kind.supports(x.dtype) {
            return Err(OpError::Type { index: 0, got: x.dtype, want: "a type that the function is defined for" });
        }
        Ok(vec![(*x).clone()])
    }

    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let kernel = match (x.dtype, self.kind.kernel()) {
            (DType::F32, Some(_)) => format!("unary_f32_{}", cx.isa),
            (dtype, _) => format!("unary_{dtype}"),
        };
        Ok(Choice { kernel, ..Choice::default() })
    }

    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        let [x] = exactly::<1, _>(&cx.inputs)?;
        let (kind, isa) = (self.kind, cx.isa);
        if let (DType::F32, Some(function)) = (x.dtype, kind.kernel()) {
            return Ok(Box::new(move |io: &mut Io<'_, '_>| {
                unary::unary(isa, function, io.input(0)?, io.output(0)?, io.pool());
                Ok(())
            }));
        }
        let dtype = x.dtype;
        Ok(Box::new(move |io: &mut Io<'_, '_>| {
            map_any(kind, dtype, io.input_bytes(0)?, io.output_bytes(0)?, &io.pace())
        }))
    }
}

impl Semantics for Unary {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        let [x] = exactly::<1, _>(inputs)?;
        let fact = self.infer(&[x.fact()])?.remove(0);
        let dtype = fact.dtype;
        Ok(vec![Tensor::written(fact, |y| map_any(self.kind, dtype, x.bytes(), y, &Pace::free()))?])
    }

    fn axes(&self, inputs: &[&Fact]) -> Axes {
        Axes::elementwise(inputs)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ops::check::{Random, check};

    #[test]
    fn every_function_agrees_with_its_definition() {
        let mut random = Random(5);
        let kinds = [
            UnaryKind::Neg,
            UnaryKind::Abs,
            UnaryKind::Sqrt,
            UnaryKind::Exp,
            UnaryKind::Log,
            UnaryKind::Reciprocal,
            UnaryKind::Square,
            UnaryKind::Rsqrt,
            UnaryKind::Erf,
            UnaryKind::Floor,
            UnaryKind::Ceil,
            UnaryKind::Round,
            UnaryKind::Sign,
            UnaryKind::Sin,
            UnaryKind::Cos,
            UnaryKind::Tan,
            UnaryKind::Asin,
            UnaryKind::Acos,
            UnaryKind::Atan,
            UnaryKind::Sinh,
            UnaryKind::Cosh,
            UnaryKind::Tanh,
            UnaryKind::Asinh,
            UnaryKind::Acosh,
            UnaryKind::Atanh,
        ];
        for kind in kinds {
            for dtype in [DType::F32, DType::F16, DType::F64, DType::I64, DType::I8, DType::U64, DType::U8] {
                if kind.supports(dtype) {
                    let dims = random.dims(2);
                    check(Unary { kind }, &[random.tensor(dtype, &dims)], 1e-6);
                }
            }
        }
        check(Unary { kind: UnaryKind::Not }, &[random.tensor(DType::Bool, &[33])], 0.0);
    }

    /// Values of Abramowitz and Stegun, table 7.1, and of mpmath.
    #[test]
    fn the_error_function_is_that_of_f64() {
        for (x, want) in [
            (0.0, 0.0),
            (0.5, 0.520_499_877_813_046_5),
            (1.0, 0.842_700_792_949_714_9),
            (2.0, 0.995_322_265_018_952_7),
            (3.5, 0.999_999_256_901_627_7),
            (5.9, 1.0),
            (1e300, 1.0),
        ] {
            assert!((erf(x) - want).abs() < 3e-15, "erf({x}) = {}", erf(x));
            assert_eq!(erf(-x), -erf(x));
        }
        assert!(erf(f64::NAN).is_nan() && erf(1e-310) > 0.0);
    }

    #[test]
    fn the_lowest_integer_does_not_panic() {
        let lowest = Tensor::from_slice(&[1], &[i64::MIN]).unwrap();
        for kind in [UnaryKind::Neg, UnaryKind::Abs, UnaryKind::Square, UnaryKind::Sign] {
            check(Unary { kind }, std::slice::from_ref(&lowest), 0.0);
        }
    }
}
