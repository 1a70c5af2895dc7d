//! com.microsoft MoE and QMoE: a mixture of experts with its routing ([ONNX Runtime's contributed
//! operators](https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md)).
//!
//! They are imported as what an exporter would write without them: the best experts of every token by the router's
//! logits, products with their matrices, and a sum weighted by their shares. QMoE's matrices of a few bits are widened.
//!
//! As in ONNX Runtime, of experts with equal logits the last one is taken, and shares that are not above zero are
//! dropped, among them those of a token whose logits are all negative infinity.

use skipstone_kernels::activation::Activation;

use super::build::{Halt, Imported};
use super::call::Call;
use super::nibbles::{PackedRows, unpacked};
use super::table::{Entry, microsoft};
use crate::error::OpError;
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::compare::{Compare, CompareKind};
use crate::ops::gather::Gather;
use crate::ops::gather_elements::GatherElements;
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::ops::routed::Routed;
use crate::ops::select::Select;
use crate::ops::slice::Slice;
use crate::ops::softmax::{Softmax, SoftmaxKind};
use crate::ops::topk::TopK;
use crate::tensor::DType;

pub(super) const OPERATORS: &[Entry] = &[microsoft(&["MoE"], mixture), microsoft(&["QMoE"], quantized_mixture)];

/// QMoE: inputs after the zero points.
const ROUTER_WEIGHTS: usize = 14;
const FLOAT_SCALES: usize = 15;
/// Smallest share of an expert that QMoE adds.
const SMALLEST_SHARE: f64 = 1e-8;

/// The matrices `[experts, outputs, inputs]` of one of an expert's products, or `[experts, inputs, outputs]` if they are
/// plain, and the biases `[experts, outputs]`.
#[derive(Clone, Copy)]
struct Product {
    matrices: ValueId,
    bias: Option<ValueId>,
    plain: bool,
}

/// The products of every expert: into the hidden layer, out of it, and the second one into it, if there is one.
struct Products {
    up: Product,
    down: Product,
    other: Option<Product>,
}

/// The best experts of every token.
struct Routing {
    k: usize,
    /// `[tokens * k]`
    indices: ValueId,
    /// `[tokens, k]`
    shares: ValueId,
}

/// The sizes of a mixture.
#[derive(Clone, Copy)]
struct MixtureSizes {
    tokens: usize,
    width: usize,
    experts: usize,
}

impl MixtureSizes {
    fn of(cx: &Call<'_, '_>) -> Result<Self, Halt> {
        let (x, logits) = (cx.input(0)?, cx.input(1)?);
        let rule = "tokens [.., width] and router logits [tokens, experts], not empty";
        let (Some((&width, outer)), &[rows, experts]) = (cx.shape(x).split_last(), cx.shape(logits).dims()) else {
            return Err(cx.shape_error(rule, &[x, logits]));
        };
        let tokens: usize = outer.iter().product();
        if rows != tokens || cx.dtype(x) != DType::F32 || experts == 0 || width == 0 {
            return Err(cx.shape_error(rule, &[x, logits]));
        }
        Ok(Self { tokens, width, experts })
    }
}

fn mixture(cx: &mut Call<'_, '_>) -> Imported {
    let sizes = MixtureSizes::of(cx)?;
    let product = |matrices: usize, bias: usize| {
        let id = cx.input(matrices)?;
        let shape = cx.shape(id);
        if shape.rank() != 3 || shape[0] != sizes.experts || cx.dtype(id) != DType::F32 {
            return Err(cx.shape_error("three-dimensional f32 matrices of all experts", &[id]));
        }
        if cx.constant_of(id).is_none() {
            return Err(cx.at(OpError::Value(format!("input {matrices} must be constant: it is packed at load time"))));
        }
        Ok(Product { matrices: id, bias: cx.optional(bias), plain: false })
    };
    let (mut up, mut down) = (product(2, 3)?, product(4, 5)?);
    let mut other = if cx.optional(6).is_some() { Some(product(6, 7)?) } else { None };
    // Old files have [experts, width, hidden] and [experts, hidden, width], if that can be told apart.
    let (first, second) = (cx.shape(up.matrices), cx.shape(down.matrices));
    let plain = first[1] == sizes.width && first[2] != sizes.width && second[2] == sizes.width;
    [Some(&mut up), Some(&mut down), other.as_mut()].into_iter().flatten().for_each(|product| product.plain = plain);

    let logits = cx.input(1)?;
    let shares = cx.add(Softmax { axes: vec![1], kind: SoftmaxKind::Softmax }, &[logits])?;
    let mut routing = best(cx, sizes, shares)?;
    if cx.flag("normalize_routing_weights", false)? {
        routing.shares = normalized(cx, routing.shares)?;
    }
    routing.shares = at_least(cx, routing.shares, 0.0)?;
    weighted_sum(cx, sizes, &routing, &Products { up, down, other })
}

fn quantized_mixture(cx: &mut Call<'_, '_>) -> Imported {
    let sizes = MixtureSizes::of(cx)?;
    if let Some(kind) = cx.text("quant_type")?.filter(|&kind| kind != "int") {
        return Err(cx.attribute_error("quant_type", format!("is '{kind}'; only 'int' is supported")));
    }
    if cx.int("weights_prepacked", 0)? > 0 {
        return Err(cx.attribute_error("weights_prepacked", "must be 0: other layouts belong to one runtime"));
    }
    if let Some(index) = (FLOAT_SCALES..cx.inputs.len()).find(|&index| cx.optional(index).is_some()) {
        return Err(
            cx.at(OpError::Value(format!("input {index} is a scale of float weights, which are not supported")))
        );
    }
    let up = widened(cx, sizes, [2, 3, 4, 11], "fc1_expert_weight_bits")?;
    let down = widened(cx, sizes, [5, 6, 7, 12], "fc2_expert_weight_bits")?;
    let other = match cx.optional(8) {
        Some(_) => Some(widened(cx, sizes, [8, 9, 10, 13], "fc3_expert_weight_bits")?),
        None => None,
    };
    let logits = cx.input(1)?;
    let mut routing = best(cx, sizes, logits)?;
    routing.shares = match cx.optional(ROUTER_WEIGHTS) {
        Some(weights) => {
            if cx.shape(weights) != cx.shape(logits) {
                return Err(cx.shape_error("router weights like the logits", &[weights, logits]));
            }
            let indices = cx.reshape(routing.indices, &[sizes.tokens, routing.k])?;
            let shares = cx.add(GatherElements { axis: 1 }, &[weights, indices])?;
            if cx.flag("normalize_routing_weights", false)? { normalized(cx, shares)? } else { shares }
        }
        None => cx.add(Softmax { axes: vec![1], kind: SoftmaxKind::Softmax }, &[routing.shares])?,
    };
    routing.shares = at_least(cx, routing.shares, SMALLEST_SHARE)?;
    weighted_sum(cx, sizes, &routing, &Products { up, down, other })
}

/// The matrices with integers, scales, biases and zero points in these inputs.
fn widened(
    cx: &mut Call<'_, '_>,
    sizes: MixtureSizes,
    [integers, scales, bias, zeros]: [usize; 4],
    own_bits: &'static str,
) -> Result<Product, Halt> {
    let bits = cx.int(own_bits, cx.int("expert_weight_bits", 4)?)?;
    let bits = usize::try_from(bits).ok().filter(|bits| matches!(bits, 2 | 4 | 8));
    let bits = bits.ok_or_else(|| cx.attribute_error(own_bits, "or expert_weight_bits must be 2, 4 or 8"))?;
    let (id, scales) = (cx.input(integers)?, cx.input(scales)?);
    let rule = "integers [experts, outputs, bytes], with a scale and a zero point per row or block";
    let misfit = |cx: &Call<'_, '_>| cx.shape_error(rule, &[id, scales]);
    let &[experts, outputs, stride] = cx.shape(id).dims() else { return Err(misfit(cx)) };
    let rows = experts.checked_mul(outputs).filter(|&rows| experts == sizes.experts && rows > 0);
    let depth = stride.checked_mul(8 / bits).filter(|&depth| depth > 0);
    let elements = rows.zip(depth).and_then(|(rows, depth)| rows.checked_mul(depth));
    let (Some(rows), Some(depth), Some(elements)) = (rows, depth, elements) else { return Err(misfit(cx)) };
    let block = match cx.int("block_size", -1)? {
        ..=0 => depth,
        size => usize::try_from(size).ok().filter(|size| size.is_multiple_of(8 / bits)).unwrap_or(0),
    };
    if block == 0 || !depth.is_multiple_of(block) {
        return Err(cx.attribute_error("block_size", format!("must divide rows of {depth} into whole bytes")));
    }
    let blocks = depth / block;
    let constant = |input: usize, id: ValueId| {
        let must = || cx.at(OpError::Value(format!("input {input} must be constant: it is widened at load time")));
        cx.constant_of(id).ok_or_else(must)
    };
    let (bytes, scale) = (constant(integers, id)?, constant(integers + 1, scales)?);
    // Zero points of whole rows are packed along the rows of an expert, others along the blocks of a row.
    let (of_row, row_of_zeros) = match blocks {
        1 if cx.shape(scales).rank() == 2 => (true, (outputs * bits).div_ceil(8)),
        _ => (false, (blocks * bits).div_ceil(8)),
    };
    let zero_points = cx.optional(zeros).map(|id| constant(zeros, id)).transpose()?;
    let scale = scale.elements::<f32>().filter(|scale| scale.len() == rows * blocks);
    let zeros_fit = zero_points.is_none_or(|held| {
        held.dtype() == DType::U8 && held.bytes().len() == row_of_zeros * if of_row { experts } else { rows }
    });
    let (Some(scale), true, DType::U8) = (scale, zeros_fit, bytes.dtype()) else { return Err(misfit(cx)) };
    let mut wide = cx.copies(0f32, elements)?;
    let packing = PackedRows { bits, rows, depth, block, stride, bytes: bytes.bytes(), scales: scale };
    let zero = |row: usize, block: usize| {
        let Some(held) = zero_points else { return Some(packing.middle()) };
        let (start, index) = if of_row { (row / outputs, row % outputs) } else { (row, block) };
        unpacked(held.bytes().get(start * row_of_zeros..)?, index, bits).map(f32::from)
    };
    packing.widen(zero, |row, at, value| wide[row * depth + at] = value).map_err(|e| cx.at(e))?;
    let bias = cx.optional(bias);
    Ok(Product { matrices: cx.elements(&[experts, outputs, depth], &wide)?, bias, plain: false })
}

/// The `k` experts of every token with the largest values.
fn best(cx: &mut Call<'_, '_>, sizes: MixtureSizes, values: ValueId) -> Result<Routing, Halt> {
    if cx.flag("use_sparse_mixer", false)? {
        return Err(cx.attribute_error("use_sparse_mixer", "is not supported; export the router's own nodes"));
    }
    let experts = sizes.experts;
    let k = usize::try_from(cx.int("k", 1)?).ok().filter(|k| (1..=experts).contains(k));
    let k = k.ok_or_else(|| cx.attribute_error("k", format!("must be from 1 to {experts}, the number of experts")))?;
    // TopK takes the first of equal values: experts are counted from the end.
    let backwards = Slice { axis: 1, start: experts - 1, len: experts, step: -1 };
    let values = if experts == 1 { values } else { cx.add(backwards, &[values])? };
    let best = cx.add_all(TopK { axis: 1, k, largest: true }, &[values])?;
    let last = cx.scalar(-1i64)?;
    let indices = cx.binary(BinaryKind::Sub, last, best[1])?;
    Ok(Routing { k, indices: cx.reshape(indices, &[sizes.tokens * k])?, shares: best[0] })
}

/// Shares that add up to one.
fn normalized(cx: &mut Call<'_, '_>, shares: ValueId) -> Result<ValueId, Halt> {
    let sum = cx.add(Reduce { axes: vec![1], kind: ReduceKind::Sum, keep_dims: true }, &[shares])?;
    cx.binary(BinaryKind::Div, shares, sum)
}

/// Zero in place of shares that are not larger than this, or not numbers.
fn at_least(cx: &mut Call<'_, '_>, shares: ValueId, than: f64) -> Result<ValueId, Halt> {
    let (zero, than) = (cx.scalar(0f32)?, cx.scalar(than as f32)?);
    let kept = cx.add(Compare { kind: CompareKind::Greater }, &[shares, than])?;
    cx.add(Select, &[kept, shares, zero])
}

/// The results of every token's experts, times their shares.
fn weighted_sum(cx: &mut Call<'_, '_>, sizes: MixtureSizes, routing: &Routing, products: &Products) -> Imported {
    let MixtureSizes { tokens, width, .. } = sizes;
    let (x, k) = (cx.input(0)?, routing.k);
    let dims = cx.shape(x).dims().to_vec();
    let mut rows = cx.reshape(x, &[tokens, 1, width])?;
    if k > 1 {
        let of_token = (0..tokens as i64).flat_map(|token| std::iter::repeat_n(token, k));
        let of_token = cx.collected(&[tokens * k], of_token)?;
        rows = cx.add(Gather { axis: 0 }, &[rows, of_token])?;
    }
    let hidden = hidden(cx, routing, rows, products)?;
    let mut y = product(cx, routing, hidden, &products.down, Activation::None)?;
    let shares = cx.reshape(routing.shares, &[tokens * k, 1, 1])?;
    y = cx.binary(BinaryKind::Mul, y, shares)?;
    if k > 1 {
        y = cx.reshape(y, &[tokens, k, width])?;
        y = cx.add(Reduce { axes: vec![1], kind: ReduceKind::Sum, keep_dims: false }, &[y])?;
    }
    Ok(vec![cx.reshape(y, &dims)?])
}

/// A product of rows `[rows, 1, inputs]`.
fn product(
    cx: &mut Call<'_, '_>,
    routing: &Routing,
    rows: ValueId,
    product: &Product,
    activation: Activation,
) -> Result<ValueId, Halt> {
    let mut inputs = vec![rows, routing.indices, product.matrices];
    inputs.extend(product.bias);
    cx.add(Routed { transposed: !product.plain, has_bias: product.bias.is_some(), activation }, &inputs)
}

/// The hidden layer of rows `[rows, 1, inputs]`.
fn hidden(cx: &mut Call<'_, '_>, routing: &Routing, rows: ValueId, products: &Products) -> Result<ValueId, Halt> {
    let Products { up, other, .. } = products;
    let activation = match cx.text("activation_type")?.unwrap_or("relu") {
        "relu" => Activation::Relu,
        "gelu" => Activation::GeluTanh,
        "silu" => Activation::Silu,
        "identity" => Activation::None,
        "swiglu" => {
            let fusion = cx.int("swiglu_fusion", 0)?;
            let (gate, linear) = match (fusion, other) {
                (0, Some(other)) => {
                    let gate = product(cx, routing, rows, up, Activation::None)?;
                    (gate, product(cx, routing, rows, other, Activation::None)?)
                }
                (1 | 2, None) => {
                    let both = product(cx, routing, rows, up, Activation::None)?;
                    halves(cx, both, fusion == 1)?
                }
                _ => {
                    let reason = format!("is {fusion}; it must be 0 with a third product, otherwise 1 or 2");
                    return Err(cx.attribute_error("swiglu_fusion", reason));
                }
            };
            return swiglu(cx, gate, linear);
        }
        name => {
            let reason = format!("is '{name}', not relu, gelu, silu, swiglu or identity");
            return Err(cx.attribute_error("activation_type", reason));
        }
    };
    let hidden = product(cx, routing, rows, up, activation)?;
    let Some(other) = other else { return Ok(hidden) };
    let gate = product(cx, routing, rows, other, Activation::None)?;
    cx.binary(BinaryKind::Mul, hidden, gate)
}

/// Gate and linear part of a product that computes both.
fn halves(cx: &mut Call<'_, '_>, x: ValueId, interleaved: bool) -> Result<(ValueId, ValueId), Halt> {
    let both = cx.shape(x)[2];
    if !both.is_multiple_of(2) {
        return Err(cx.shape_error("gate and linear part must have the same size", &[x]));
    }
    let len = both / 2;
    let mut part = |at: usize| match interleaved {
        true => cx.add(Slice { axis: 2, start: at, len, step: 2 }, &[x]),
        false => cx.add(Slice { axis: 2, start: at * len, len, step: 1 }, &[x]),
    };
    Ok((part(0)?, part(1)?))
}

/// `g * sigmoid(alpha * g) * (l + beta)`, with gate and linear part clipped: `g = min(gate, limit)` and `l` between
/// `-limit` and `limit`. If the file says so, the activated gate is clipped instead of the gate.
fn swiglu(cx: &mut Call<'_, '_>, mut gate: ValueId, mut linear: ValueId) -> Result<ValueId, Halt> {
    let (alpha, beta) = (cx.float("activation_alpha", 1.0)?, cx.float("activation_beta", 0.0)?);
    let limit = f64::from(cx.float("swiglu_limit", f32::INFINITY)?);
    let after = cx.flag("swiglu_limit_after_activation", false)?;
    if limit.is_finite() {
        if !after {
            gate = cx.with_number(BinaryKind::Min, gate, limit)?;
        }
        linear = cx.with_number(BinaryKind::Min, linear, limit)?;
        linear = cx.with_number(BinaryKind::Max, linear, -limit)?;
    }
    if beta != 0.0 {
        linear = cx.with_number(BinaryKind::Add, linear, f64::from(beta))?;
    }
    let scaled = if alpha == 1.0 { gate } else { cx.with_number(BinaryKind::Mul, gate, f64::from(alpha))? };
    let open = cx.activate(Activation::Sigmoid, scaled)?;
    gate = cx.binary(BinaryKind::Mul, gate, open)?;
    if after && limit.is_finite() {
        gate = cx.with_number(BinaryKind::Min, gate, limit)?;
    }
    cx.binary(BinaryKind::Mul, gate, linear)
}
