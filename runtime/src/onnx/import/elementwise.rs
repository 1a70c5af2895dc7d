//! Arithmetic, comparisons and functions of one element.

use skipstone_onnx::proto::Tensor as TensorProto;

use super::build::{Halt, Imported};
use super::call::Call;
use super::table::{Entry, standard};
use super::tensor::{computed_as, known_dtype};
use crate::error::OpError;
use crate::graph::ValueId;
use crate::ops::binary::{Binary, BinaryKind};
use crate::ops::broadcast::Expand;
use crate::ops::cast::Cast;
use crate::ops::compare::{Compare, CompareKind};
use crate::ops::select::Select;
use crate::ops::unary::{Unary, UnaryKind};
use crate::tensor::{DType, Shape};

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["Add", "Sub", "Mul", "Div", "And", "Or", "Xor", "BitwiseAnd", "BitwiseOr", "BitwiseXor"], binary),
    standard(&["BitwiseNot"], bitwise_not),
    standard(&["BitShift"], bit_shift),
    standard(&["Pow"], pow),
    standard(&["Mod"], modulo),
    standard(&["Min", "Max", "Sum", "Mean"], variadic),
    standard(&["Equal", "Less", "LessOrEqual", "Greater", "GreaterOrEqual"], compare),
    standard(&["Where"], select),
    standard(&["Cast"], cast),
    standard(&["CastLike"], cast_like),
    standard(&["Neg", "Abs", "Sqrt", "Exp", "Log", "Reciprocal", "Erf", "Floor", "Ceil", "Round", "Sign"], unary),
    standard(&["Sin", "Cos", "Tan", "Asin", "Acos", "Atan"], unary),
    standard(&["Sinh", "Cosh", "Asinh", "Acosh", "Atanh", "Not"], unary),
    standard(&["IsNaN"], is_nan),
    standard(&["IsInf"], is_inf),
];

impl Call<'_, '_> {
    /// `kind(a, b)`, broadcast.
    pub fn binary(&mut self, kind: BinaryKind, a: ValueId, b: ValueId) -> Result<ValueId, Halt> {
        self.add(Binary::new(kind), &[a, b])
    }

    /// `kind(x, number)`, in the type of `x`.
    pub fn with_number(&mut self, kind: BinaryKind, x: ValueId, number: f64) -> Result<ValueId, Halt> {
        let number = self.scalar_of(self.dtype(x), number)?;
        self.binary(kind, x, number)
    }

    /// `kind(x)`
    pub fn unary(&mut self, kind: UnaryKind, x: ValueId) -> Result<ValueId, Halt> {
        self.add(Unary { kind }, &[x])
    }

    /// `kind(a, b)` as bools.
    pub fn compare(&mut self, kind: CompareKind, a: ValueId, b: ValueId) -> Result<ValueId, Halt> {
        self.add(Compare { kind }, &[a, b])
    }

    /// `a` if the condition is true, otherwise `b`.
    pub fn select(&mut self, condition: ValueId, a: ValueId, b: ValueId) -> Result<ValueId, Halt> {
        self.add(Select, &[condition, a, b])
    }
}

/// The two operands, aligned as before opset 7: `broadcast` aligns the second at `axis`.
fn operands(cx: &mut Call<'_, '_>) -> Result<[ValueId; 2], Halt> {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    if cx.opset >= 7 || !cx.flag("broadcast", false)? || !cx.has("axis") {
        return Ok([a, b]);
    }
    let axis = cx.axis(0, cx.rank(a))?;
    let mut dims = cx.shape(b).to_vec();
    if axis + dims.len() > cx.rank(a) {
        return Err(cx.shape_error("from the axis on, the first operand must have all axes of the second", &[a, b]));
    }
    dims.resize(cx.rank(a) - axis, 1);
    Ok([a, cx.reshape(b, &dims)?])
}

fn binary(cx: &mut Call<'_, '_>) -> Imported {
    let kind = match cx.node.op_type {
        "Add" => BinaryKind::Add,
        "Sub" => BinaryKind::Sub,
        "Mul" => BinaryKind::Mul,
        "Div" => BinaryKind::Div,
        "And" => BinaryKind::And,
        "Or" => BinaryKind::Or,
        "BitwiseAnd" => BinaryKind::BitAnd,
        "BitwiseOr" => BinaryKind::BitOr,
        "BitwiseXor" => BinaryKind::BitXor,
        _ => BinaryKind::Xor,
    };
    let [a, b] = operands(cx)?;
    cx.add_all(Binary::new(kind), &[a, b])
}

/// The exponent may have another type; the result has that of the base.
fn pow(cx: &mut Call<'_, '_>) -> Imported {
    let [base, exponent] = operands(cx)?;
    let to = cx.dtype(base);
    if cx.dtype(exponent) != to {
        if is_integer(to) && !is_integer(cx.dtype(exponent)) {
            let (base, exponent) = (cx.cast(base, DType::F64)?, cx.cast(exponent, DType::F64)?);
            let y = cx.binary(BinaryKind::Pow, base, exponent)?;
            return Ok(vec![cx.cast(y, to)?]);
        }
        let exponent = cx.cast(exponent, to)?;
        return cx.add_all(Binary::new(BinaryKind::Pow), &[base, exponent]);
    }
    cx.add_all(Binary::new(BinaryKind::Pow), &[base, exponent])
}

fn is_integer(dtype: DType) -> bool {
    !matches!(dtype, DType::F32 | DType::F64 | DType::F16 | DType::Bf16 | DType::Bool)
}

/// The remainder of a division, with the sign of the dividend (`fmod`) or of the divisor.
fn modulo(cx: &mut Call<'_, '_>) -> Imported {
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    let left = cx.binary(BinaryKind::Rem, a, b)?;
    let unsigned = matches!(cx.dtype(a), DType::U8 | DType::U16 | DType::U32 | DType::U64);
    if cx.flag("fmod", false)? || unsigned {
        return Ok(vec![left]);
    }
    if !is_integer(cx.dtype(a)) {
        return Err(cx.attribute_error("fmod", "must be 1 for floats"));
    }
    // The divisor is added to the remainder if their signs differ.
    let zero = cx.scalar_of(cx.dtype(a), 0.0)?;
    let moved = cx.binary(BinaryKind::Add, left, b)?;
    let left_negative = cx.compare(CompareKind::Less, left, zero)?;
    let divisor_negative = cx.compare(CompareKind::Less, b, zero)?;
    let differ = cx.binary(BinaryKind::Xor, left_negative, divisor_negative)?;
    let some = cx.compare(CompareKind::NotEqual, left, zero)?;
    let moves = cx.binary(BinaryKind::And, differ, some)?;
    Ok(vec![cx.select(moves, moved, left)?])
}

fn variadic(cx: &mut Call<'_, '_>) -> Imported {
    let kind = match cx.node.op_type {
        "Min" => BinaryKind::Min,
        "Max" => BinaryKind::Max,
        _ => BinaryKind::Add,
    };
    let inputs = cx.all_inputs()?;
    let Some((&first, rest)) = inputs.split_first() else {
        return Err(cx.at(OpError::Arity { want: "at least 1", got: 0 }));
    };
    let mut all = first;
    for &next in rest {
        all = cx.binary(kind, all, next)?;
    }
    if cx.node.op_type == "Mean" {
        all = cx.with_number(BinaryKind::Div, all, inputs.len() as f64)?;
    }
    Ok(vec![all])
}

fn compare(cx: &mut Call<'_, '_>) -> Imported {
    let kind = match cx.node.op_type {
        "Equal" => CompareKind::Equal,
        "Less" => CompareKind::Less,
        "LessOrEqual" => CompareKind::LessEqual,
        "Greater" => CompareKind::Greater,
        _ => CompareKind::GreaterEqual,
    };
    let [a, b] = operands(cx)?;
    cx.add_all(Compare { kind }, &[a, b])
}

fn select(cx: &mut Call<'_, '_>) -> Imported {
    let inputs = [cx.input(0)?, cx.input(1)?, cx.input(2)?];
    cx.add_all(Select, &inputs)
}

/// Half precision is stored as f32: a cast to it only rounds.
pub(super) fn cast_to(cx: &mut Call<'_, '_>, to: DType) -> Imported {
    let x = cx.input(0)?;
    let (dtype, declared) = computed_as(to);
    let Some(half) = declared else {
        // A separate value, which is not half precision in the file.
        let same = cx.dtype(x) == dtype && cx.build.half(x).is_none();
        return if same { Ok(vec![x]) } else { cx.add_all(Cast { to: dtype }, &[x]) };
    };
    if cx.declared(x) == half {
        return Ok(vec![x]);
    }
    let rounded = cx.add(Cast { to: half }, &[x])?;
    let y = cx.add(Cast { to: dtype }, &[rounded])?;
    cx.build.declare(y, declared)?;
    Ok(vec![y])
}

fn cast(cx: &mut Call<'_, '_>) -> Imported {
    let to = known_dtype(cx.int("to", 0)?, cx.name())?;
    cast_to(cx, to)
}

fn cast_like(cx: &mut Call<'_, '_>) -> Imported {
    let to = cx.declared(cx.input(1)?);
    cast_to(cx, to)
}

fn unary(cx: &mut Call<'_, '_>) -> Imported {
    let kind = match cx.node.op_type {
        "Neg" => UnaryKind::Neg,
        "Abs" => UnaryKind::Abs,
        "Sqrt" => UnaryKind::Sqrt,
        "Exp" => UnaryKind::Exp,
        "Log" => UnaryKind::Log,
        "Reciprocal" => UnaryKind::Reciprocal,
        "Erf" => UnaryKind::Erf,
        "Floor" => UnaryKind::Floor,
        "Ceil" => UnaryKind::Ceil,
        "Round" => UnaryKind::Round,
        "Sign" => UnaryKind::Sign,
        "Sin" => UnaryKind::Sin,
        "Cos" => UnaryKind::Cos,
        "Tan" => UnaryKind::Tan,
        "Asin" => UnaryKind::Asin,
        "Acos" => UnaryKind::Acos,
        "Atan" => UnaryKind::Atan,
        "Sinh" => UnaryKind::Sinh,
        "Cosh" => UnaryKind::Cosh,
        "Asinh" => UnaryKind::Asinh,
        "Acosh" => UnaryKind::Acosh,
        "Atanh" => UnaryKind::Atanh,
        _ => UnaryKind::Not,
    };
    let x = cx.input(0)?;
    cx.add_all(Unary { kind }, &[x])
}

/// Only NaN differs from itself.
fn is_nan(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    cx.add_all(Compare { kind: CompareKind::NotEqual }, &[x, x])
}

/// Infinity of either sign, or of the selected signs. f32 that represents half precision has its infinities.
fn is_inf(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let dtype = cx.dtype(x);
    if is_integer(dtype) || dtype == DType::Bool {
        return Err(cx.at(OpError::Type { index: 0, got: dtype, want: "a float" }));
    }
    let positive = cx.scalar_of(dtype, f64::INFINITY)?;
    let negative = cx.scalar_of(dtype, f64::NEG_INFINITY)?;
    Ok(vec![match (cx.flag("detect_negative", true)?, cx.flag("detect_positive", true)?) {
        (true, true) => {
            let size = cx.unary(UnaryKind::Abs, x)?;
            cx.compare(CompareKind::Equal, size, positive)?
        }
        (true, false) => cx.compare(CompareKind::Equal, x, negative)?,
        (false, true) => cx.compare(CompareKind::Equal, x, positive)?,
        (false, false) => cx.compare(CompareKind::NotEqual, positive, positive).and_then(|no| {
            let dims = cx.shape(x).to_vec();
            expand_to(cx, no, &dims)
        })?,
    }])
}

/// Inverts every bit, by exclusive or with all ones.
fn bitwise_not(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let ones = cx.scalar(-1i64)?;
    let ones = cx.cast(ones, cx.dtype(x))?;
    Ok(vec![cx.binary(BinaryKind::BitXor, x, ones)?])
}

/// Shifts bits left or right, filling with zeros.
fn bit_shift(cx: &mut Call<'_, '_>) -> Imported {
    let kind = match cx.text("direction")? {
        Some("LEFT") => BinaryKind::ShiftLeft,
        Some("RIGHT") => BinaryKind::ShiftRight,
        _ => return Err(cx.attribute_error("direction", "must be LEFT or RIGHT")),
    };
    let (a, b) = (cx.input(0)?, cx.input(1)?);
    cx.add_all(Binary::new(kind), &[a, b])
}

/// Broadcasts a value to `shape`, or returns it if it already has that shape.
pub(super) fn expand_to(cx: &mut Call<'_, '_>, x: ValueId, dims: &[usize]) -> Result<ValueId, Halt> {
    let asked = crate::tensor::Shape::new(dims).map_err(|e| cx.at(e))?;
    let shape = Shape::broadcast(&[cx.shape(x), &asked]).map_err(|e| cx.at(e))?;
    if *cx.shape(x) == shape { Ok(x) } else { cx.add(Expand { shape }, &[x]) }
}

/// Whether a tensor attribute of one element is given.
pub(super) fn one_element(cx: &mut Call<'_, '_>, tensor: Option<&TensorProto<'_>>) -> Result<Option<ValueId>, Halt> {
    let Some(tensor) = tensor else { return Ok(None) };
    let constant = super::tensor::dense(tensor, cx.files)?;
    let declared = constant.declared;
    let id = cx.file_constant(constant)?;
    let one = cx.reshape(id, &[])?;
    cx.build.declare(one, declared)?;
    Ok(Some(one))
}
