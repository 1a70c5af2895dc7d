//! Activation functions.

use skipstone_kernels::activation::Activation;

use super::build::{Halt, Imported};
use super::call::Call;
use super::table::{Entry, microsoft, standard};
use crate::graph::ValueId;
use crate::ops::activate::Activate;
use crate::ops::binary::{Binary, BinaryKind};
use crate::ops::compare::CompareKind;
use crate::ops::curve::Curve;
use crate::ops::unary::UnaryKind;
use crate::tensor::DType;

pub(super) const OPERATORS: &[Entry] = &[
    standard(&["Relu", "LeakyRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Gelu"], plain),
    standard(&["Clip"], clip),
    standard(&["PRelu"], prelu),
    standard(&["Elu", "Selu", "Celu"], exponential),
    standard(&["Softplus"], softplus),
    standard(&["Softsign"], softsign),
    standard(&["Swish"], swish),
    standard(&["Mish"], mish),
    standard(&["ThresholdedRelu"], thresholded_relu),
    standard(&["Shrink"], shrink),
    microsoft(&["Gelu"], plain),
    microsoft(&["FastGelu"], fast_gelu),
    microsoft(&["BiasGelu"], bias_gelu),
    microsoft(&["QuickGelu"], quick_gelu),
];

impl Call<'_, '_> {
    /// `activation(x)`
    pub fn activate(&mut self, activation: Activation, x: ValueId) -> Result<ValueId, Halt> {
        if self.dtype(x) == DType::F64 {
            composed(self, activation, x)
        } else {
            self.add(Activate { activation }, &[x])
        }
    }
}

/// An f64 activation, which kernels do not support, as arithmetic.
fn composed(cx: &mut Call<'_, '_>, activation: Activation, x: ValueId) -> Result<ValueId, Halt> {
    match activation {
        Activation::None => Ok(x),
        Activation::Relu => cx.with_number(BinaryKind::Max, x, 0.0),
        Activation::Clip { min, max } => {
            let y = cx.with_number(BinaryKind::Max, x, f64::from(min))?;
            cx.with_number(BinaryKind::Min, y, f64::from(max))
        }
        Activation::LeakyRelu(slope) => cx.with_number(BinaryKind::PRelu, x, f64::from(slope)),
        Activation::Tanh => cx.unary(UnaryKind::Tanh, x),
        Activation::Sigmoid => cx.unary(UnaryKind::Sigmoid, x),
        Activation::Silu => {
            let gate = composed(cx, Activation::Sigmoid, x)?;
            cx.binary(BinaryKind::Mul, x, gate)
        }
        Activation::HardSigmoid { alpha, beta } => {
            let y = cx.with_number(BinaryKind::Mul, x, f64::from(alpha))?;
            let y = cx.with_number(BinaryKind::Add, y, f64::from(beta))?;
            composed(cx, Activation::Clip { min: 0.0, max: 1.0 }, y)
        }
        Activation::HardSwish => {
            let y = cx.with_number(BinaryKind::Div, x, 6.0)?;
            let y = cx.with_number(BinaryKind::Add, y, 0.5)?;
            let gate = composed(cx, Activation::Clip { min: 0.0, max: 1.0 }, y)?;
            cx.binary(BinaryKind::Mul, x, gate)
        }
        Activation::Gelu => {
            let scaled = cx.with_number(BinaryKind::Mul, x, std::f64::consts::FRAC_1_SQRT_2)?;
            let curve = cx.unary(UnaryKind::Erf, scaled)?;
            half_gated(cx, x, curve)
        }
        Activation::GeluTanh => {
            let square = cx.unary(UnaryKind::Square, x)?;
            let factor = cx.with_number(BinaryKind::Mul, square, 0.044715)?;
            let factor = cx.with_number(BinaryKind::Add, factor, 1.0)?;
            let bent = cx.binary(BinaryKind::Mul, x, factor)?;
            let scaled = cx.with_number(BinaryKind::Mul, bent, (2.0 / std::f64::consts::PI).sqrt())?;
            let curve = cx.unary(UnaryKind::Tanh, scaled)?;
            half_gated(cx, x, curve)
        }
    }
}

/// `x * (curve + 1) / 2`
fn half_gated(cx: &mut Call<'_, '_>, x: ValueId, curve: ValueId) -> Result<ValueId, Halt> {
    let raised = cx.with_number(BinaryKind::Add, curve, 1.0)?;
    let gate = cx.with_number(BinaryKind::Mul, raised, 0.5)?;
    cx.binary(BinaryKind::Mul, x, gate)
}

/// Functions with a direct kernel equivalent.
fn plain(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let activation = named(cx, cx.node.op_type)?;
    if activation == Activation::Relu && cx.dtype(x) != DType::F32 {
        return Ok(vec![cx.with_number(BinaryKind::Max, x, 0.0)?]);
    }
    Ok(vec![cx.activate(activation, x)?])
}

/// The activation with an ONNX name, with the attributes of the node.
pub(super) fn named(cx: &Call<'_, '_>, name: &str) -> Result<Activation, Halt> {
    Ok(match name {
        "Relu" => Activation::Relu,
        "LeakyRelu" => Activation::LeakyRelu(cx.float("alpha", 0.01)?),
        "Sigmoid" => Activation::Sigmoid,
        "Tanh" => Activation::Tanh,
        "HardSigmoid" => Activation::HardSigmoid { alpha: cx.float("alpha", 0.2)?, beta: cx.float("beta", 0.5)? },
        "HardSwish" => Activation::HardSwish,
        "Gelu" => match cx.text("approximate")? {
            None | Some("none") => Activation::Gelu,
            Some("tanh") => Activation::GeluTanh,
            Some(other) => return Err(cx.attribute_error("approximate", format!("is '{other}', not none or tanh"))),
        },
        _ => return Err(Halt::Foreign),
    })
}

/// Bounds were attributes before opset 11, operands since.
fn clip(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    if cx.opset < 11 {
        let (min, max) = (cx.float("min", f32::MIN)?, cx.float("max", f32::MAX)?);
        return bounded(cx, x, min, max);
    }
    let number = |cx: &Call<'_, '_>, index: usize, open: f32| match cx.optional(index) {
        None => Some(open),
        Some(_) => cx.constant_floats(index).filter(|values| values.len() == 1).map(|values| values[0]),
    };
    let bounds = (number(cx, 1, f32::NEG_INFINITY), number(cx, 2, f32::INFINITY));
    if let ((Some(min), Some(max)), DType::F32) = (bounds, cx.dtype(x)) {
        return bounded(cx, x, min, max);
    }
    // The lower bound first: if the bounds conflict, the upper one wins.
    let mut y = x;
    for (index, kind) in [(1, BinaryKind::Max), (2, BinaryKind::Min)] {
        if let Some(bound) = cx.optional(index) {
            let bound = cx.reshape(bound, &[])?;
            y = cx.binary(kind, y, bound)?;
        }
    }
    Ok(vec![y])
}

fn bounded(cx: &mut Call<'_, '_>, x: ValueId, min: f32, max: f32) -> Imported {
    if min > max || min.is_nan() || max.is_nan() {
        let y = cx.with_number(BinaryKind::Max, x, f64::from(min))?;
        return Ok(vec![cx.with_number(BinaryKind::Min, y, f64::from(max))?]);
    }
    let activation = match (min, max) {
        (f32::NEG_INFINITY, f32::INFINITY) => return Ok(vec![x]),
        (0.0, f32::INFINITY) => Activation::Relu,
        _ => Activation::Clip { min, max },
    };
    Ok(vec![cx.activate(activation, x)?])
}

/// Before opset 7, one slope per channel was aligned with axis 1.
fn prelu(cx: &mut Call<'_, '_>) -> Imported {
    let (x, mut slope) = (cx.input(0)?, cx.input(1)?);
    if cx.opset < 7 && cx.rank(slope) == 1 && cx.rank(x) > 1 && cx.shape(slope)[0] != 1 {
        if cx.shape(slope)[0] != cx.shape(x)[1] {
            return Err(cx.shape_error("there must be one slope, or one for each channel", &[x, slope]));
        }
        let mut dims = vec![cx.shape(slope)[0]];
        dims.resize(cx.rank(x) - 1, 1);
        slope = cx.reshape(slope, &dims)?;
    }
    cx.add_all(Binary::new(BinaryKind::PRelu), &[x, slope])
}

/// Elu: `x` above zero, `alpha * (e^x - 1)` below; Selu scales that by `gamma`; Celu divides by alpha inside.
fn exponential(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let (alpha, inner, gamma) = match cx.node.op_type {
        "Selu" => (cx.float("alpha", 1.673_263_2)?, 1.0, cx.float("gamma", 1.050_701)?),
        "Celu" => {
            let alpha = cx.float("alpha", 1.0)?;
            (alpha, alpha, 1.0)
        }
        _ => (cx.float("alpha", 1.0)?, 1.0, 1.0),
    };
    if cx.dtype(x) == DType::F32 {
        let curve = if cx.node.op_type == "Celu" { Curve::Celu(alpha) } else { Curve::Selu { alpha, gamma } };
        return cx.add_all(curve, &[x]);
    }
    // The exponential of positive elements is not used and could overflow.
    let below = cx.with_number(BinaryKind::Min, x, 0.0)?;
    let scaled = if inner == 1.0 { below } else { cx.with_number(BinaryKind::Div, below, f64::from(inner))? };
    let power = cx.unary(UnaryKind::Exp, scaled)?;
    let less_one = cx.with_number(BinaryKind::Sub, power, 1.0)?;
    let below = cx.with_number(BinaryKind::Mul, less_one, f64::from(alpha))?;
    let above = cx.with_number(BinaryKind::Max, x, 0.0)?;
    let y = if alpha >= 0.0 {
        cx.binary(BinaryKind::Add, above, below)?
    } else {
        let zero = cx.scalar_of(cx.dtype(x), 0.0)?;
        let negative = cx.compare(CompareKind::Less, x, zero)?;
        cx.select(negative, below, above)?
    };
    if gamma == 1.0 { Ok(vec![y]) } else { Ok(vec![cx.with_number(BinaryKind::Mul, y, f64::from(gamma))?]) }
}

/// `log(1 + e^x)` as `max(x, 0) + log(1 + e^-|x|)`, which does not overflow.
pub(super) fn softplus_of(cx: &mut Call<'_, '_>, x: ValueId) -> Result<ValueId, Halt> {
    let size = cx.unary(UnaryKind::Abs, x)?;
    let negative = cx.unary(UnaryKind::Neg, size)?;
    let power = cx.unary(UnaryKind::Exp, negative)?;
    let sum = cx.with_number(BinaryKind::Add, power, 1.0)?;
    let rest = cx.unary(UnaryKind::Log, sum)?;
    let above = cx.with_number(BinaryKind::Max, x, 0.0)?;
    cx.binary(BinaryKind::Add, above, rest)
}

fn softplus(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    match cx.dtype(x) {
        DType::F32 => cx.add_all(Curve::Softplus, &[x]),
        _ => Ok(vec![softplus_of(cx, x)?]),
    }
}

/// `x / (1 + |x|)`
fn softsign(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    if cx.dtype(x) == DType::F32 {
        return cx.add_all(Curve::Softsign, &[x]);
    }
    let size = cx.unary(UnaryKind::Abs, x)?;
    let below = cx.with_number(BinaryKind::Add, size, 1.0)?;
    Ok(vec![cx.binary(BinaryKind::Div, x, below)?])
}

/// `x * sigmoid(alpha * x)`
fn swish_of(cx: &mut Call<'_, '_>, alpha: f32) -> Imported {
    let x = cx.input(0)?;
    if alpha == 1.0 {
        return Ok(vec![cx.activate(Activation::Silu, x)?]);
    }
    if cx.dtype(x) == DType::F32 {
        return cx.add_all(Curve::Swish(alpha), &[x]);
    }
    let scaled = cx.with_number(BinaryKind::Mul, x, f64::from(alpha))?;
    let gate = cx.activate(Activation::Sigmoid, scaled)?;
    Ok(vec![cx.binary(BinaryKind::Mul, x, gate)?])
}

fn swish(cx: &mut Call<'_, '_>) -> Imported {
    let alpha = cx.float("alpha", 1.0)?;
    swish_of(cx, alpha)
}

fn quick_gelu(cx: &mut Call<'_, '_>) -> Imported {
    let alpha = cx.float("alpha", 1.702)?;
    swish_of(cx, alpha)
}

/// `x * tanh(softplus(x))`
fn mish(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    if cx.dtype(x) == DType::F32 {
        return cx.add_all(Curve::Mish, &[x]);
    }
    let soft = softplus_of(cx, x)?;
    let gate = cx.activate(Activation::Tanh, soft)?;
    Ok(vec![cx.binary(BinaryKind::Mul, x, gate)?])
}

/// `x` above alpha, otherwise 0.
fn thresholded_relu(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let alpha = cx.float("alpha", 1.0)?;
    if cx.dtype(x) == DType::F32 {
        return cx.add_all(Curve::ThresholdedRelu(alpha), &[x]);
    }
    let alpha = f64::from(alpha);
    let (alpha, zero) = (cx.scalar_of(cx.dtype(x), alpha)?, cx.scalar_of(cx.dtype(x), 0.0)?);
    let above = cx.compare(CompareKind::Greater, x, alpha)?;
    Ok(vec![cx.select(above, x, zero)?])
}

/// `x + bias` below `-lambd`, `x - bias` above `lambd`, otherwise 0.
fn shrink(cx: &mut Call<'_, '_>) -> Imported {
    let x = cx.input(0)?;
    let (bias, lambda) = (cx.float("bias", 0.0)?, cx.float("lambd", 0.5)?);
    if cx.dtype(x) == DType::F32 {
        return cx.add_all(Curve::Shrink { lambda, bias }, &[x]);
    }
    let (bias, lambd) = (f64::from(bias), f64::from(lambda));
    let dtype = cx.dtype(x);
    if dtype != DType::F64 {
        // Of integers, only the result is rounded.
        let wide = cx.cast(x, DType::F64)?;
        cx.inputs = vec![Some(wide)];
        let y = shrink(cx)?[0];
        return Ok(vec![cx.cast(y, dtype)?]);
    }
    let zero = cx.scalar_of(cx.dtype(x), 0.0)?;
    let (low, high) = (cx.scalar_of(cx.dtype(x), -lambd)?, cx.scalar_of(cx.dtype(x), lambd)?);
    let (raised, lowered) = (cx.with_number(BinaryKind::Add, x, bias)?, cx.with_number(BinaryKind::Sub, x, bias)?);
    let above = cx.compare(CompareKind::Greater, x, high)?;
    let y = cx.select(above, lowered, zero)?;
    let below = cx.compare(CompareKind::Less, x, low)?;
    Ok(vec![cx.select(below, raised, y)?])
}

/// `gelu(x + bias)`
fn bias_gelu(cx: &mut Call<'_, '_>) -> Imported {
    let (x, bias) = (cx.input(0)?, cx.input(1)?);
    let x = cx.binary(BinaryKind::Add, x, bias)?;
    Ok(vec![cx.activate(Activation::Gelu, x)?])
}

/// Like `bias_gelu` with the tanh approximation; the bias is optional.
fn fast_gelu(cx: &mut Call<'_, '_>) -> Imported {
    let mut x = cx.input(0)?;
    if let Some(bias) = cx.optional(1) {
        x = cx.binary(BinaryKind::Add, x, bias)?;
    }
    Ok(vec![cx.activate(Activation::GeluTanh, x)?])
}
