//! com.microsoft MoE: a mixture of experts with its routing ([ONNX Runtime's contributed
//! operators](https://github.com/microsoft/onnxruntime/blob/main/docs/ContribOperators.md)).
//!
//! It is imported as what an exporter would write without it: a softmax of the router's logits, the best experts of
//! every token, products with their matrices, and a sum weighted by their probabilities.

use skipstone_kernels::activation::Activation;

use super::build::{Halt, Imported};
use super::call::Call;
use super::table::{Entry, microsoft};
use crate::graph::ValueId;
use crate::ops::binary::BinaryKind;
use crate::ops::gather::Gather;
use crate::ops::reduce::{Reduce, ReduceKind};
use crate::ops::routed::Routed;
use crate::ops::slice::Slice;
use crate::ops::softmax::{Softmax, SoftmaxKind};
use crate::ops::topk::TopK;
use crate::tensor::DType;

pub(super) const OPERATORS: &[Entry] = &[microsoft(&["MoE"], mixture)];

/// The operation between the two products of an expert.
#[derive(Clone, Copy, PartialEq)]
enum Between {
    Plain(Activation),
    /// `g * sigmoid(alpha * g) * (l + beta)`, where gate and linear part come from one product, interleaved or as
    /// halves.
    SwiGlu {
        interleaved: bool,
        alpha: f32,
        beta: f32,
        limit: f32,
    },
}

/// The tokens' experts: indices `[rows]`, and the layout of the matrices.
struct Routes {
    indices: ValueId,
    /// Whether matrices are `[inputs, outputs]`, as in old files, instead of `[outputs, inputs]`.
    plain: bool,
}

fn mixture(cx: &mut Call<'_, '_>) -> Imported {
    let (x, logits) = (cx.input(0)?, cx.input(1)?);
    let dims = cx.shape(x).dims().to_vec();
    let (Some(&width), &[_, experts]) = (dims.last(), cx.shape(logits).dims()) else {
        return Err(cx.shape_error("tokens [.., width] and router logits [tokens, experts]", &[x, logits]));
    };
    let tokens: usize = dims.iter().rev().skip(1).product();
    let [up, down] = [cx.input(2)?, cx.input(4)?];
    let fits = |id: ValueId| cx.rank(id) == 3 && cx.shape(id)[0] == experts && cx.dtype(id) == DType::F32;
    if cx.shape(logits)[0] != tokens || cx.dtype(x) != DType::F32 || ![up, down].into_iter().all(fits) {
        return Err(cx.shape_error(
            "tokens, router logits and three-dimensional f32 weights of all experts",
            &[x, logits, up, down],
        ));
    }
    // The matrices are packed for each expert, which would have to happen in every run if they were computed.
    if [Some(up), Some(down), cx.optional(6)].into_iter().flatten().any(|id| cx.constant_of(id).is_none()) {
        return Err(Halt::Foreign);
    }
    if cx.flag("use_sparse_mixer", false)? || cx.int("num_shared_experts", 0)? != 0 {
        return Err(Halt::Foreign);
    }
    let between = between(cx)?;
    let k = usize::try_from(cx.int("k", 1)?).ok().filter(|k| (1..=experts).contains(k));
    let k = k.ok_or_else(|| cx.attribute_error("k", format!("must be from 1 to {experts}, the number of experts")))?;

    let chances = cx.add(Softmax { axes: vec![1], kind: SoftmaxKind::Softmax }, &[logits])?;
    let best = cx.add_all(TopK { axis: 1, k, largest: true }, &[chances])?;
    let (mut weights, indices) = (best[0], cx.reshape(best[1], &[tokens * k])?);
    if cx.flag("normalize_routing_weights", false)? {
        let sum = cx.add(Reduce { axes: vec![1], kind: ReduceKind::Sum, keep_dims: true }, &[weights])?;
        weights = cx.binary(BinaryKind::Div, weights, sum)?;
    }
    let mut rows = cx.reshape(x, &[tokens, 1, width])?;
    if k > 1 {
        let of_token = (0..tokens as i64).flat_map(|token| std::iter::repeat_n(token, k));
        let of_token = cx.collected(&[tokens * k], of_token)?;
        rows = cx.add(Gather { axis: 0 }, &[rows, of_token])?;
    }
    // Old files have [experts, width, hidden] and [experts, hidden, width], if that can be told apart.
    let (first, second) = (cx.shape(up).dims().to_vec(), cx.shape(down).dims().to_vec());
    let plain = first[1] == width && first[2] != width && second[2] == width;
    let routes = Routes { indices, plain };
    let activation = if let Between::Plain(activation) = between { activation } else { Activation::None };
    let mut hidden = product(cx, &routes, rows, [2, 3], activation)?;
    if let Between::SwiGlu { interleaved, alpha, beta, limit } = between {
        hidden = swiglu(cx, hidden, interleaved, [alpha, beta, limit])?;
    } else if cx.optional(6).is_some() {
        let gate = product(cx, &routes, rows, [6, 7], Activation::None)?;
        hidden = cx.binary(BinaryKind::Mul, hidden, gate)?;
    }
    let mut y = product(cx, &routes, hidden, [4, 5], Activation::None)?;
    let weights = cx.reshape(weights, &[tokens * k, 1, 1])?;
    y = cx.binary(BinaryKind::Mul, y, weights)?;
    if k > 1 {
        y = cx.reshape(y, &[tokens, k, width])?;
        y = cx.add(Reduce { axes: vec![1], kind: ReduceKind::Sum, keep_dims: false }, &[y])?;
    }
    Ok(vec![cx.reshape(y, &dims)?])
}

/// A product of rows `[rows, 1, inputs]` with the matrices and biases in these inputs of the node.
fn product(
    cx: &mut Call<'_, '_>,
    routes: &Routes,
    rows: ValueId,
    [matrices, biases]: [usize; 2],
    activation: Activation,
) -> Result<ValueId, Halt> {
    let mut inputs = vec![rows, routes.indices, cx.input(matrices)?];
    let bias = cx.optional(biases);
    inputs.extend(bias);
    cx.add(Routed { transposed: !routes.plain, has_bias: bias.is_some(), activation }, &inputs)
}

fn between(cx: &Call<'_, '_>) -> Result<Between, Halt> {
    let fusion = cx.int("swiglu_fusion", 0)?;
    Ok(match cx.text("activation_type")?.unwrap_or("relu") {
        "relu" => Between::Plain(Activation::Relu),
        "gelu" => Between::Plain(Activation::GeluTanh),
        "silu" => Between::Plain(Activation::Silu),
        "identity" => Between::Plain(Activation::None),
        "swiglu" if fusion == 0 => Between::Plain(Activation::Silu),
        "swiglu" => Between::SwiGlu {
            interleaved: fusion == 1,
            alpha: cx.float("activation_alpha", 1.0)?,
            beta: cx.float("activation_beta", 0.0)?,
            limit: cx.float("swiglu_limit", f32::INFINITY)?,
        },
        other => return Err(cx.attribute_error("activation_type", format!("is '{other}'"))),
    })
}

fn swiglu(
    cx: &mut Call<'_, '_>,
    x: ValueId,
    interleaved: bool,
    [alpha, beta, limit]: [f32; 3],
) -> Result<ValueId, Halt> {
    let both = cx.shape(x)[2];
    if !both.is_multiple_of(2) {
        return Err(cx.shape_error("gate and linear part must have the same size", &[x]));
    }
    let len = both / 2;
    let mut part = |at: usize| match interleaved {
        true => cx.add(Slice { axis: 2, start: at, len, step: 2 }, &[x]),
        false => cx.add(Slice { axis: 2, start: at * len, len, step: 1 }, &[x]),
    };
    let (mut gate, mut linear) = (part(0)?, part(1)?);
    if limit.is_finite() {
        gate = cx.with_number(BinaryKind::Min, gate, f64::from(limit))?;
        linear = cx.with_number(BinaryKind::Min, linear, f64::from(limit))?;
        linear = cx.with_number(BinaryKind::Max, linear, -f64::from(limit))?;
    }
    if beta != 0.0 {
        linear = cx.with_number(BinaryKind::Add, linear, f64::from(beta))?;
    }
    let scaled = if alpha == 1.0 { gate } else { cx.with_number(BinaryKind::Mul, gate, f64::from(alpha))? };
    let open = cx.activate(Activation::Sigmoid, scaled)?;
    let gate = cx.binary(BinaryKind::Mul, gate, open)?;
    cx.binary(BinaryKind::Mul, gate, linear)
}
