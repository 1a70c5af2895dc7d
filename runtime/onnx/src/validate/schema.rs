//! Input and output counts of the standard operators.
//!
//! Taken from the ONNX operator schemas of opsets 6 to 24, and the widest over all versions: an
//! input counts as required if every version requires it and only required inputs precede it.

/// How many inputs and outputs an operator takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Signature {
    /// Leading inputs that must be present.
    pub required_inputs: usize,
    /// Most inputs.
    pub max_inputs: usize,
    /// Leading outputs that must be listed.
    pub required_outputs: usize,
    /// Most outputs.
    pub max_outputs: usize,
}

/// The signature of a standard operator.
pub(super) fn signature(op_type: &str) -> Option<Signature> {
    let found = SIGNATURES.binary_search_by_key(&op_type, |row| row.0).ok()?;
    let &(_, required_inputs, max_inputs, required_outputs, max_outputs) = SIGNATURES.get(found)?;
    Some(Signature { required_inputs, max_inputs, required_outputs, max_outputs })
}

/// Whether this is an operator of com.microsoft with the name of a standard one, or an operator
/// of ONNX Runtime that it writes without a domain.
pub(super) fn is_runtime_extension(domain: &str, op_type: &str) -> bool {
    match domain {
        "com.microsoft" => matches!(
            op_type,
            "Attention"
                | "DequantizeLinear"
                | "Gelu"
                | "GridSample"
                | "LayerNormalization"
                | "Pad"
                | "QLinearConv"
                | "QuantizeLinear"
                | "Range"
                | "RotaryEmbedding"
                | "Trilu"
                | "Unique"
        ),
        _ => matches!(op_type, "SimplifiedLayerNormalization"),
    }
}

/// No upper bound.
const ANY: usize = usize::MAX;

/// Operator, required and most inputs, required and most outputs; sorted by name.
#[rustfmt::skip]
const SIGNATURES: &[(&str, usize, usize, usize, usize)] = &[
    ("Abs", 1, 1, 1, 1), ("Acos", 1, 1, 1, 1), ("Acosh", 1, 1, 1, 1), ("Add", 2, 2, 1, 1), ("AffineGrid", 2, 2, 1, 1),
    ("And", 2, 2, 1, 1), ("ArgMax", 1, 1, 1, 1), ("ArgMin", 1, 1, 1, 1), ("Asin", 1, 1, 1, 1), ("Asinh", 1, 1, 1, 1),
    ("Atan", 1, 1, 1, 1), ("Atanh", 1, 1, 1, 1), ("Attention", 3, 7, 1, 4), ("AveragePool", 1, 1, 1, 1),
    ("BatchNormalization", 5, 5, 1, 5), ("Bernoulli", 1, 1, 1, 1), ("BitShift", 2, 2, 1, 1),
    ("BitwiseAnd", 2, 2, 1, 1), ("BitwiseNot", 1, 1, 1, 1), ("BitwiseOr", 2, 2, 1, 1), ("BitwiseXor", 2, 2, 1, 1),
    ("BlackmanWindow", 1, 1, 1, 1), ("Cast", 1, 1, 1, 1), ("CastLike", 2, 2, 1, 1), ("Ceil", 1, 1, 1, 1),
    ("Celu", 1, 1, 1, 1), ("CenterCropPad", 2, 2, 1, 1), ("Clip", 1, 3, 1, 1), ("Col2Im", 3, 3, 1, 1),
    ("Compress", 2, 2, 1, 1), ("Concat", 1, ANY, 1, 1), ("ConcatFromSequence", 1, 1, 1, 1), ("Constant", 0, 0, 1, 1),
    ("ConstantOfShape", 1, 1, 1, 1), ("Conv", 2, 3, 1, 1), ("ConvInteger", 2, 4, 1, 1), ("ConvTranspose", 2, 3, 1, 1),
    ("Cos", 1, 1, 1, 1), ("Cosh", 1, 1, 1, 1), ("CumSum", 2, 2, 1, 1), ("DFT", 1, 3, 1, 1),
    ("DeformConv", 3, 5, 1, 1), ("DepthToSpace", 1, 1, 1, 1), ("DequantizeLinear", 2, 3, 1, 1), ("Det", 1, 1, 1, 1),
    ("Div", 2, 2, 1, 1), ("Dropout", 1, 3, 1, 2), ("DynamicQuantizeLinear", 1, 1, 3, 3), ("Einsum", 1, ANY, 1, 1),
    ("Elu", 1, 1, 1, 1), ("Equal", 2, 2, 1, 1), ("Erf", 1, 1, 1, 1), ("Exp", 1, 1, 1, 1), ("Expand", 2, 2, 1, 1),
    ("EyeLike", 1, 1, 1, 1), ("Flatten", 1, 1, 1, 1), ("Floor", 1, 1, 1, 1), ("GRU", 3, 6, 0, 2),
    ("Gather", 2, 2, 1, 1), ("GatherElements", 2, 2, 1, 1), ("GatherND", 2, 2, 1, 1), ("Gelu", 1, 1, 1, 1),
    ("Gemm", 2, 3, 1, 1), ("GlobalAveragePool", 1, 1, 1, 1), ("GlobalLpPool", 1, 1, 1, 1),
    ("GlobalMaxPool", 1, 1, 1, 1), ("Greater", 2, 2, 1, 1), ("GreaterOrEqual", 2, 2, 1, 1),
    ("GridSample", 2, 2, 1, 1), ("GroupNormalization", 3, 3, 1, 1), ("HammingWindow", 1, 1, 1, 1),
    ("HannWindow", 1, 1, 1, 1), ("HardSigmoid", 1, 1, 1, 1), ("HardSwish", 1, 1, 1, 1), ("Hardmax", 1, 1, 1, 1),
    ("Identity", 1, 1, 1, 1), ("If", 1, 1, 1, ANY), ("ImageDecoder", 1, 1, 1, 1),
    ("InstanceNormalization", 3, 3, 1, 1), ("IsInf", 1, 1, 1, 1), ("IsNaN", 1, 1, 1, 1), ("LRN", 1, 1, 1, 1),
    ("LSTM", 3, 8, 0, 3), ("LayerNormalization", 2, 3, 1, 3), ("LeakyRelu", 1, 1, 1, 1), ("Less", 2, 2, 1, 1),
    ("LessOrEqual", 2, 2, 1, 1), ("Log", 1, 1, 1, 1), ("LogSoftmax", 1, 1, 1, 1), ("Loop", 0, ANY, 1, ANY),
    ("LpNormalization", 1, 1, 1, 1), ("LpPool", 1, 1, 1, 1), ("MatMul", 2, 2, 1, 1), ("MatMulInteger", 2, 4, 1, 1),
    ("Max", 1, ANY, 1, 1), ("MaxPool", 1, 1, 1, 2), ("MaxRoiPool", 2, 2, 1, 1), ("MaxUnpool", 2, 3, 1, 1),
    ("Mean", 1, ANY, 1, 1), ("MeanVarianceNormalization", 1, 1, 1, 1), ("MelWeightMatrix", 5, 5, 1, 1),
    ("Min", 1, ANY, 1, 1), ("Mish", 1, 1, 1, 1), ("Mod", 2, 2, 1, 1), ("Mul", 2, 2, 1, 1),
    ("Multinomial", 1, 1, 1, 1), ("Neg", 1, 1, 1, 1), ("NegativeLogLikelihoodLoss", 2, 3, 1, 1),
    ("NonMaxSuppression", 2, 5, 1, 1), ("NonZero", 1, 1, 1, 1), ("Not", 1, 1, 1, 1), ("OneHot", 3, 3, 1, 1),
    ("Optional", 0, 1, 1, 1), ("OptionalGetElement", 1, 1, 1, 1), ("OptionalHasElement", 0, 1, 1, 1),
    ("Or", 2, 2, 1, 1), ("PRelu", 2, 2, 1, 1), ("Pad", 1, 4, 1, 1), ("Pow", 2, 2, 1, 1), ("QLinearConv", 8, 9, 1, 1),
    ("QLinearMatMul", 8, 8, 1, 1), ("QuantizeLinear", 2, 3, 1, 1), ("RMSNormalization", 2, 2, 1, 1),
    ("RNN", 3, 6, 0, 2), ("RandomNormal", 0, 0, 1, 1), ("RandomNormalLike", 1, 1, 1, 1),
    ("RandomUniform", 0, 0, 1, 1), ("RandomUniformLike", 1, 1, 1, 1), ("Range", 3, 3, 1, 1),
    ("Reciprocal", 1, 1, 1, 1), ("ReduceL1", 1, 2, 1, 1), ("ReduceL2", 1, 2, 1, 1), ("ReduceLogSum", 1, 2, 1, 1),
    ("ReduceLogSumExp", 1, 2, 1, 1), ("ReduceMax", 1, 2, 1, 1), ("ReduceMean", 1, 2, 1, 1), ("ReduceMin", 1, 2, 1, 1),
    ("ReduceProd", 1, 2, 1, 1), ("ReduceSum", 1, 2, 1, 1), ("ReduceSumSquare", 1, 2, 1, 1),
    ("RegexFullMatch", 1, 1, 1, 1), ("Relu", 1, 1, 1, 1), ("Reshape", 2, 2, 1, 1), ("Resize", 1, 4, 1, 1),
    ("ReverseSequence", 2, 2, 1, 1), ("RoiAlign", 3, 3, 1, 1), ("RotaryEmbedding", 3, 4, 1, 1), ("Round", 1, 1, 1, 1),
    ("STFT", 2, 4, 1, 1), ("Scan", 0, ANY, 1, ANY), ("Scatter", 3, 3, 1, 1), ("ScatterElements", 3, 3, 1, 1),
    ("ScatterND", 3, 3, 1, 1), ("Selu", 1, 1, 1, 1), ("SequenceAt", 2, 2, 1, 1), ("SequenceConstruct", 1, ANY, 1, 1),
    ("SequenceEmpty", 0, 0, 1, 1), ("SequenceErase", 1, 2, 1, 1), ("SequenceInsert", 2, 3, 1, 1),
    ("SequenceLength", 1, 1, 1, 1), ("SequenceMap", 1, ANY, 1, ANY), ("Shape", 1, 1, 1, 1), ("Shrink", 1, 1, 1, 1),
    ("Sigmoid", 1, 1, 1, 1), ("Sign", 1, 1, 1, 1), ("Sin", 1, 1, 1, 1), ("Sinh", 1, 1, 1, 1), ("Size", 1, 1, 1, 1),
    ("Slice", 1, 5, 1, 1), ("Softmax", 1, 1, 1, 1), ("SoftmaxCrossEntropyLoss", 2, 3, 1, 2), ("Softplus", 1, 1, 1, 1),
    ("Softsign", 1, 1, 1, 1), ("SpaceToDepth", 1, 1, 1, 1), ("Split", 1, 2, 1, ANY), ("SplitToSequence", 1, 2, 1, 1),
    ("Sqrt", 1, 1, 1, 1), ("Squeeze", 1, 2, 1, 1), ("StringConcat", 2, 2, 1, 1), ("StringNormalizer", 1, 1, 1, 1),
    ("StringSplit", 1, 1, 2, 2), ("Sub", 2, 2, 1, 1), ("Sum", 1, ANY, 1, 1), ("Swish", 1, 1, 1, 1),
    ("Tan", 1, 1, 1, 1), ("Tanh", 1, 1, 1, 1), ("TensorScatter", 2, 3, 1, 1), ("TfIdfVectorizer", 1, 1, 1, 1),
    ("ThresholdedRelu", 1, 1, 1, 1), ("Tile", 2, 2, 1, 1), ("TopK", 1, 2, 2, 2), ("Transpose", 1, 1, 1, 1),
    ("Trilu", 1, 2, 1, 1), ("Unique", 1, 1, 1, 4), ("Unsqueeze", 1, 2, 1, 1), ("Upsample", 1, 2, 1, 1),
    ("Where", 3, 3, 1, 1), ("Xor", 2, 2, 1, 1),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_so_that_every_row_is_found() {
        assert!(SIGNATURES.windows(2).all(|pair| pair[0].0 < pair[1].0));
        assert!(SIGNATURES.iter().all(|row| signature(row.0).is_some()));
        assert_eq!(signature("NoSuchOperator"), None);
    }
}
