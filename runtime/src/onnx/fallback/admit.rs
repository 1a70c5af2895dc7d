//! What tract may compute: only nodes whose operands our own rules have accepted.
//!
//! tract's kernels trust shapes: a product whose operands disagree reads past the end of the smaller one. The validator
//! applies each operator's rule to what the file declares; here the same rule is applied once more when types have been
//! inferred and every shape is known, before tract turns the node into steps that it runs, including those that it runs
//! to infer types. Every builder in its register is replaced by [`admitted`], which calls the original:
//!
//! ```text
//! NodeProto -> tract's operator    =>    NodeProto -> Admitted { tract's operator, the node }
//! ```

use std::sync::{Arc, OnceLock};

use prost::Message;
use skipstone_onnx::{ElementType, Limits, node};
use tract_onnx::Onnx;
use tract_onnx::model::ParsingContext;
use tract_onnx::pb::NodeProto;
use tract_onnx::tract_core::internal::*;
use tract_onnx::tract_core::ops::einsum::EinSum;
use tract_onnx::tract_core::ops::scan::Scan;
use tract_onnx::tract_hir::infer::{InferenceModel, InferenceNode, InferenceOp, Solver, TensorProxy};
use tract_onnx::tract_hir::internal::{Expansion, InferenceResult, expand};

use crate::ops::aside::aside;
use crate::tensor::DType;

/// tract's own builders; `None` if there was no memory for them, which is not tried again.
fn original() -> Option<&'static Onnx> {
    static ORIGINAL: OnceLock<Option<Onnx>> = OnceLock::new();
    ORIGINAL.get_or_init(|| aside(&|| false, |_| tract_onnx::onnx()).ok()).as_ref()
}

/// What makes a node of `op_type` an operator of tract.
fn builder(op_type: &str) -> Option<&'static Builder> {
    original()?.op_register.0.get(op_type)
}

type Builder = fn(&ParsingContext, &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)>;

/// Operators that tract may run, sorted: our rules know the requirements on their operands, and how large their results
/// can be. Operators with subgraphs are included, because the nodes inside are checked separately.
#[rustfmt::skip]
const ADMITTED: &[&str] = &[
    "Abs", "Acos", "Acosh", "Add", "And", "ArgMax", "ArgMin", "Asin", "Asinh", "Atan", "Atanh", "Attention",
    "AveragePool", "BatchNormalization", "BitShift", "BitwiseAnd", "BitwiseNot", "BitwiseOr", "BitwiseXor",
    "BlackmanWindow", "Cast", "CastLike", "Ceil", "Celu", "Clip", "Compress", "Concat", "Constant", "ConstantOfShape",
    "Conv", "ConvInteger", "ConvTranspose", "Cos", "Cosh", "CumSum", "DepthToSpace", "DequantizeLinear", "Div",
    "Dropout", "DynamicQuantizeLinear", "Einsum", "Elu", "Equal", "Erf", "Exp", "Expand", "EyeLike", "Flatten",
    "Floor", "GRU", "Gather", "GatherElements", "GatherND", "Gelu", "Gemm", "GlobalAveragePool",
    "GlobalMaxPool", "Greater", "GreaterOrEqual", "GridSample", "GroupNormalization", "HammingWindow", "HannWindow",
    "HardSigmoid", "HardSwish", "Hardmax", "Identity", "If", "InstanceNormalization", "IsInf", "IsNaN", "LRN", "LSTM",
    "LayerNormalization", "LeakyRelu", "Less", "LessOrEqual", "Log", "LpNormalization", "MatMul",
    "MatMulInteger", "Max", "MaxPool", "Mean", "MeanVarianceNormalization", "MelWeightMatrix", "Min", "Mish", "Mod",
    "Mul", "MultiHeadAttention", "Multinomial", "Neg", "NonMaxSuppression", "NonZero", "Not", "OneHot", "Or", "PRelu",
    "Pad", "Pow", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "RMSNormalization", "RNN", "RandomNormal",
    "RandomUniform", "Range", "Reciprocal", "ReduceL1", "ReduceL2",
    "ReduceLogSum", "ReduceLogSumExp", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum",
    "ReduceSumSquare", "Relu", "Reshape", "Resize", "RotaryEmbedding", "Round", "STFT", "Scan", "Scatter",
    "ScatterElements", "ScatterND", "Selu", "Shape", "Sigmoid", "Sign", "SimplifiedLayerNormalization",
    "Sin", "Sinh", "Size", "Slice", "Softmax", "Softplus", "Softsign", "SpaceToDepth", "Split", "Sqrt", "Squeeze",
    "Sub", "Sum", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Tile", "TopK", "Transpose", "Trilu", "Unsqueeze",
    "Where", "Xor",
];

/// Operators of com.microsoft among them that mean the same there: others share only the name.
const MICROSOFT: [&str; 5] = ["DequantizeLinear", "Gelu", "LayerNormalization", "MultiHeadAttention", "QuantizeLinear"];

/// Operators whose rules are applied again when all shapes are known.
const RULED: [&str; 6] = ["Attention", "GRU", "LSTM", "MultiHeadAttention", "RNN", "RotaryEmbedding"];

/// Whether tract has this operator, and may run it. tract itself looks only at the name, not at the domain.
pub(in crate::onnx) fn is_admitted(domain: &str, op_type: &str) -> bool {
    let of_domain = match domain {
        "" | "ai.onnx" => true,
        "com.microsoft" => MICROSOFT.contains(&op_type),
        _ => false,
    };
    of_domain && ADMITTED.binary_search(&op_type).is_ok() && builder(op_type).is_some()
}

/// Whether an operator supports this element type, for operators whose tract version only finds out at run time.
pub(super) fn supports(op_type: &str, dtype: DType) -> bool {
    match op_type {
        "And" | "Not" | "Or" | "Xor" => dtype == DType::Bool,
        "BitShift" | "BitwiseAnd" | "BitwiseNot" | "BitwiseOr" | "BitwiseXor" => {
            !matches!(dtype, DType::F16 | DType::Bf16 | DType::F32 | DType::F64 | DType::Bool)
        }
        _ => true,
    }
}

/// Inserts the rules before tract's own operators.
pub(super) fn register(onnx: &mut Onnx) {
    for builder in onnx.op_register.0.values_mut() {
        *builder = admitted;
    }
}

fn admitted(cx: &ParsingContext, node: &NodeProto) -> TractResult<(Box<dyn InferenceOp>, Vec<String>)> {
    let known = is_admitted(&node.domain, &node.op_type);
    ensure!(known, "operator {} of node '{}' is not supported", node.op_type, node.name);
    if let Some(option) = ignored(node, cx.onnx_operator_set_version) {
        bail!("node '{}': {} with {option} is not supported", node.name, node.op_type);
    }
    let builder = builder(&node.op_type).context("the operator is not implemented")?;
    let (op, closures) = builder(cx, node)?;
    let Some(inner) = op.as_op().downcast_ref::<Box<dyn Expansion>>() else {
        return Ok((op, closures));
    };
    let ruled = RULED.contains(&node.op_type.as_str());
    let ruled = ruled.then(|| Arc::new((node.encode_to_vec(), cx.onnx_operator_set_version)));
    Ok((expand(Admitted { inner: inner.clone(), node: ruled }), closures))
}

/// An option that tract would ignore, so that it would compute something else.
fn ignored(node: &NodeProto, opset: i64) -> Option<&'static str> {
    let attribute = |name| node.attribute.iter().find(|attribute| attribute.name == name);
    if opset < 7 && attribute("broadcast").is_some_and(|held| held.i != 0) && attribute("axis").is_some() {
        return Some("the axis of a broadcast before opset 7");
    }
    let has = |name, number| attribute(name).is_some_and(|held| held.i == number);
    let is_same = attribute("auto_pad").is_some_and(|held| held.s.starts_with(b"SAME"));
    match node.op_type.as_str() {
        "Celu" if attribute("alpha").is_some_and(|alpha| alpha.f != 1.0) => Some("alpha"),
        "ConstantOfShape" if attribute("value").is_none() => Some("no value"),
        "ConvTranspose" if attribute("output_shape").is_some() => Some("output_shape"),
        "ConvTranspose" if is_same => Some("auto_pad"),
        "MaxPool" if has("ceil_mode", 1) && attribute("auto_pad").is_some() => Some("auto_pad and ceil_mode"),
        "Mod" if has("fmod", 1) => Some("fmod"),
        "NonMaxSuppression" if node.input.get(2).is_none_or(String::is_empty) => Some("no number of boxes"),
        "PRelu" if opset < 7 => Some("slopes of channels, as before opset 7,"),
        "Swish" if attribute("alpha").is_some_and(|alpha| alpha.f != 1.0) => Some("alpha"),
        "RNN" | "GRU" | "LSTM" => {
            let defaults: &[&str] = match node.op_type.as_str() {
                "RNN" => &["Tanh"],
                "GRU" => &["Sigmoid", "Tanh"],
                _ => &["Sigmoid", "Tanh", "Tanh"],
            };
            let is_default = |names: &[Vec<u8>]| {
                names.iter().zip(defaults.iter().cycle()).all(|(name, default)| name == default.as_bytes())
            };
            if attribute("direction").is_some_and(|direction| direction.s == b"reverse") {
                return Some("the direction 'reverse'");
            }
            if attribute("activations").is_some_and(|names| !is_default(&names.strings)) {
                return Some("other activations");
            }
            if attribute("input_forget").is_some_and(|forget| forget.i != 0) {
                return Some("input_forget");
            }
            attribute("clip").map(|_| "clip")
        }
        "MultiHeadAttention" if attribute("unidirectional").is_some_and(|held| held.i != 0) => Some("unidirectional"),
        _ => None,
    }
}

/// A tract operator with its node's rule before it.
#[derive(Clone, Debug)]
struct Admitted {
    inner: Box<dyn Expansion>,
    /// The `NodeProto` and its opset, if the rule is applied again.
    node: Option<Arc<(Vec<u8>, i64)>>,
}

impl Admitted {
    /// Adds the operator with `wire` if its operands are valid, and if the products in it are.
    fn wire_checked(
        &self,
        model: &mut TypedModel,
        inputs: &[OutletId],
        wire: impl FnOnce(&mut TypedModel) -> TractResult<TVec<OutletId>>,
    ) -> TractResult<TVec<OutletId>> {
        if let Some(ruled) = &self.node {
            let operands = inputs.iter().map(|&outlet| operand(model.outlet_fact(outlet)?));
            let operands = operands.collect::<TractResult<Vec<_>>>()?;
            node::check(&ruled.0, ruled.1, &operands, &Limits::default())?;
        }
        let before = model.nodes().len();
        let outputs = wire(model)?;
        for added in model.nodes().iter().skip(before) {
            products_fit(model, added)?;
        }
        Ok(outputs)
    }
}

impl Expansion for Admitted {
    fn name(&self) -> StaticName {
        self.inner.name()
    }

    fn validation(&self) -> Validation {
        self.inner.validation()
    }

    fn info(&self) -> TractResult<Vec<String>> {
        self.inner.info()
    }

    fn nboutputs(&self) -> TractResult<usize> {
        self.inner.nboutputs()
    }

    fn runs_out_of_plan(&self) -> bool {
        self.inner.runs_out_of_plan()
    }

    fn rules<'r, 'p: 'r, 's: 'r>(
        &'s self,
        s: &mut Solver<'r>,
        inputs: &'p [TensorProxy],
        outputs: &'p [TensorProxy],
    ) -> InferenceResult {
        self.inner.rules(s, inputs, outputs)
    }

    fn wire(&self, prefix: &str, model: &mut TypedModel, inputs: &[OutletId]) -> TractResult<TVec<OutletId>> {
        self.wire_checked(model, inputs, |model| self.inner.wire(prefix, model, inputs))
    }

    fn wire_with_inference_model_and_node(
        &self,
        prefix: &str,
        source: &InferenceModel,
        node: &InferenceNode,
        model: &mut TypedModel,
        inputs: &[OutletId],
    ) -> TractResult<TVec<OutletId>> {
        self.wire_checked(model, inputs, |model| {
            self.inner.wire_with_inference_model_and_node(prefix, source, node, model, inputs)
        })
    }
}

/// Type and dimensions of an operand.
fn operand(fact: &TypedFact) -> TractResult<node::Operand> {
    let element = match fact.datum_type {
        DatumType::F32 => ElementType::Float,
        DatumType::F64 => ElementType::Double,
        DatumType::F16 => ElementType::Float16,
        DatumType::I8 => ElementType::Int8,
        DatumType::I16 => ElementType::Int16,
        DatumType::I32 => ElementType::Int32,
        DatumType::I64 | DatumType::TDim => ElementType::Int64,
        DatumType::U8 => ElementType::Uint8,
        DatumType::Bool => ElementType::Bool,
        other => bail!("an operand of type {other:?} is not supported"),
    };
    let dims = fact.shape.as_concrete().context("an operand's shape depends on data")?;
    Ok((element, dims.iter().map(|&dim| dim as u64).collect()))
}

/// Refuses a product whose operands disagree in a common dimension, in a node or in the body of a recurrence. Only a
/// dimension that the result keeps may be 1 in one of them.
fn products_fit(model: &TypedModel, node: &TypedNode) -> TractResult<()> {
    if let Some(scan) = node.op_as::<Scan>() {
        return scan.body.nodes().iter().try_for_each(|inner| products_fit(&scan.body, inner));
    }
    let Some(product) = node.op_as::<EinSum>() else {
        return Ok(());
    };
    // Scales and zero points of a quantized product come after its operands.
    let operands = if product.q_params.is_some() { 2 } else { node.inputs.len() };
    let facts = node.inputs.iter().take(operands).map(|&outlet| model.outlet_fact(outlet));
    let facts: Vec<&TypedFact> = facts.collect::<TractResult<_>>()?;
    for axis in product.axes.iter_all_axes() {
        let is_kept = axis.outputs.iter().any(|positions| !positions.is_empty());
        let mut common: Option<&TDim> = None;
        for (fact, positions) in facts.iter().zip(&axis.inputs) {
            for &position in positions {
                let dim = fact.shape.get(position).context("a product refers to a dimension that does not exist")?;
                if is_kept && dim.is_one() {
                    continue;
                }
                let common = *common.get_or_insert(dim);
                ensure!(dim == common, "node '{}' multiplies {dim} with {common} elements", node.name);
            }
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use tract_onnx::pb::AttributeProto;

    use super::*;

    #[test]
    fn admitted_operators_exist() {
        assert!(ADMITTED.windows(2).all(|pair| pair[0] < pair[1]));
        let missing: Vec<_> = ADMITTED.iter().filter(|op| !is_admitted("", op)).collect();
        assert!(missing.is_empty(), "{missing:?}");
        assert!(!is_admitted("", "Rsqrt") && !is_admitted("", "MatMulNBits"));
        assert!(MICROSOFT.iter().all(|op| is_admitted("com.microsoft", op)));
        assert!(!is_admitted("com.microsoft", "Pad") && !is_admitted("my.functions", "Gelu"));
    }

    /// tract computed something else for them.
    #[test]
    fn options_that_tract_ignores_are_refused() {
        let node = |op: &str, name: &str| {
            let held =
                AttributeProto { name: name.into(), i: 1, f: 0.5, s: b"SAME_LOWER".to_vec(), ..Default::default() };
            NodeProto { op_type: op.into(), attribute: vec![held], ..Default::default() }
        };
        #[rustfmt::skip]
        let refused = [
            ("Celu", "alpha", 17), ("ConstantOfShape", "other", 17), ("ConvTranspose", "output_shape", 17),
            ("ConvTranspose", "auto_pad", 17), ("Mod", "fmod", 17),
            ("NonMaxSuppression", "center_point_box", 17),
        ];
        for (op, name, opset) in refused {
            assert!(ignored(&node(op, name), opset).is_some(), "{op} with {name}");
        }
        assert!(ignored(&node("Mod", "other"), 17).is_none());
        // Without the largest element subtracted first, small probabilities became -inf.
        assert!(!is_admitted("", "LogSoftmax"));
    }
}
