//! The table of operators and their importers.

use super::build::Imported;
use super::call::Call;
use super::{activation, attention, convolution, determinant, elementwise, experts, index, loss, ml, ngrams, nibbles};
use super::{normalization, pool, product, quantization, quantized, rearrange, recurrent, reduce, resize, sampling};
use super::{selection, sequence, signal, structure, svm, trees, volume};

/// Adds the nodes for an ONNX node, and returns its results.
pub(super) type Importer = fn(&mut Call<'_, '_>) -> Imported;

/// The importer of an operator; `ai.onnx` is the empty domain.
pub(super) fn importer(domain: &str, op_type: &str) -> Option<Importer> {
    match domain {
        "" => standard(op_type),
        "com.microsoft" => microsoft(op_type),
        "ai.onnx.ml" => Some(classical(op_type)),
        _ => None,
    }
}

/// Whether an operator specifies the element type of its result, instead of taking its operands'.
pub(super) fn says_type(op_type: &str) -> bool {
    matches!(op_type, "Cast" | "CastLike" | "Range" | "OneHot" | "EyeLike" | "ConstantOfShape" | "QuantizeLinear")
}

fn standard(op_type: &str) -> Option<Importer> {
    Some(match op_type {
        "Constant" => structure::constant,
        "ConstantOfShape" => structure::constant_of_shape,
        "Shape" => structure::shape,
        "Size" => structure::size,
        "Range" => structure::range,
        "EyeLike" => structure::eye_like,
        "Identity" => structure::identity,
        "Dropout" => structure::dropout,
        "Reshape" => structure::reshape,
        "Flatten" => structure::flatten,
        "Squeeze" => structure::squeeze,
        "Unsqueeze" => structure::unsqueeze,
        "Transpose" => structure::transpose,
        "Concat" => structure::concat,
        "Split" => structure::split,
        "Slice" => structure::slice,
        "Expand" => structure::expand,
        "Tile" => structure::tile,
        "Pad" => structure::pad,
        "DepthToSpace" => structure::depth_to_space,
        "SpaceToDepth" => structure::space_to_depth,
        "Trilu" => structure::trilu,
        "Col2Im" => rearrange::col2im,
        "CenterCropPad" => rearrange::center_crop_pad,
        "ReverseSequence" => rearrange::reverse_sequence,
        "TensorScatter" => rearrange::tensor_scatter,

        "Add" | "Sub" | "Mul" | "Div" | "And" | "Or" | "Xor" | "BitwiseAnd" | "BitwiseOr" | "BitwiseXor" => {
            elementwise::binary
        }
        "BitwiseNot" => elementwise::bitwise_not,
        "BitShift" => elementwise::bit_shift,
        "Pow" => elementwise::pow,
        "Mod" => elementwise::modulo,
        "Min" | "Max" | "Sum" | "Mean" => elementwise::variadic,
        "Equal" | "Less" | "LessOrEqual" | "Greater" | "GreaterOrEqual" => elementwise::compare,
        "Where" => elementwise::select,
        "Cast" => elementwise::cast,
        "CastLike" => elementwise::cast_like,
        "Neg" | "Abs" | "Sqrt" | "Exp" | "Log" | "Reciprocal" | "Erf" | "Floor" | "Ceil" | "Round" | "Sign" | "Sin"
        | "Cos" | "Tan" | "Asin" | "Acos" | "Atan" | "Sinh" | "Cosh" | "Asinh" | "Acosh" | "Atanh" | "Not" => {
            elementwise::unary
        }
        "IsNaN" => elementwise::is_nan,
        "IsInf" => elementwise::is_inf,

        "Relu" | "LeakyRelu" | "Sigmoid" | "Tanh" | "HardSigmoid" | "HardSwish" | "Gelu" => activation::plain,
        "Clip" => activation::clip,
        "PRelu" => activation::prelu,
        "Elu" | "Selu" | "Celu" => activation::exponential,
        "Softplus" => activation::softplus,
        "Softsign" => activation::softsign,
        "Swish" => activation::swish,
        "Mish" => activation::mish,
        "ThresholdedRelu" => activation::thresholded_relu,
        "Shrink" => activation::shrink,

        "Conv" => convolution::conv,
        "ConvInteger" => quantized::conv_integer,
        "MatMulInteger" => quantized::matmul_integer,
        "MaxPool" => pool::max,
        "AveragePool" => pool::average,
        "GlobalMaxPool" | "GlobalAveragePool" => pool::global,

        "ConvTranspose" => volume::conv_transpose,
        "LpPool" | "GlobalLpPool" => volume::lp_pool,
        "MaxUnpool" => volume::max_unpool,
        "LRN" => volume::local_response,

        "LSTM" => recurrent::lstm,
        "GRU" => recurrent::gru,
        "RNN" => recurrent::rnn,
        "Attention" => attention::attention,
        "RotaryEmbedding" => attention::rotary,

        "MatMul" => product::matmul,
        "Gemm" => product::gemm,
        "Einsum" => product::einsum,
        "Det" => determinant::det,

        "ReduceSum" | "ReduceMean" | "ReduceMax" | "ReduceMin" | "ReduceProd" | "ReduceL1" | "ReduceL2"
        | "ReduceSumSquare" | "ReduceLogSum" | "ReduceLogSumExp" => reduce::reduce,
        "ArgMax" | "ArgMin" => reduce::arg,
        "CumSum" => reduce::cum_sum,
        "TopK" => reduce::top_k,
        "Softmax" | "LogSoftmax" => reduce::softmax,
        "Hardmax" => reduce::hardmax,

        "BatchNormalization" => normalization::batch,
        "LayerNormalization" => normalization::layer,
        "RMSNormalization" | "SimplifiedLayerNormalization" => normalization::root_mean_square,
        "InstanceNormalization" => normalization::instance,
        "GroupNormalization" => normalization::group,
        "LpNormalization" => normalization::lp,
        "MeanVarianceNormalization" => normalization::mean_variance,

        "Gather" => index::gather,
        "GatherElements" => index::gather_elements,
        "GatherND" => index::gather_nd,
        "ScatterElements" | "Scatter" => index::scatter_elements,
        "ScatterND" => index::scatter_nd,
        "OneHot" => index::one_hot,
        "Compress" => selection::compress,
        "NonZero" => selection::non_zero,
        "Unique" => selection::unique,

        "GridSample" => sampling::grid_sample,
        "AffineGrid" => sampling::affine_grid,
        "DeformConv" => sampling::deform_conv,
        "RoiAlign" => sampling::roi_align,
        "MaxRoiPool" => sampling::max_roi_pool,

        "HannWindow" | "HammingWindow" | "BlackmanWindow" => signal::window,
        "MelWeightMatrix" => signal::mel_weights,
        "DFT" => signal::dft,
        "STFT" => signal::stft,

        "NegativeLogLikelihoodLoss" => loss::likelihood,
        "SoftmaxCrossEntropyLoss" => loss::cross_entropy,
        "TfIdfVectorizer" => ngrams::tf_idf,

        "SequenceConstruct" => sequence::construct,
        "SequenceEmpty" => sequence::empty,
        "SequenceInsert" => sequence::insert,
        "SequenceErase" => sequence::erase,
        "SequenceAt" => sequence::at,
        "SequenceLength" => sequence::length,
        "ConcatFromSequence" => sequence::concat,
        "SplitToSequence" => sequence::split,
        "OptionalHasElement" => sequence::has_element,
        "OptionalGetElement" => structure::identity,

        "Resize" => resize::resize,
        "Upsample" => resize::upsample,

        "QuantizeLinear" => quantization::quantize,
        "DequantizeLinear" => quantization::dequantize,
        "DynamicQuantizeLinear" => quantization::dynamic_quantize,
        "QLinearConv" => quantized::convolution,
        "QLinearMatMul" => quantized::matmul,
        _ => return None,
    })
}

/// ai.onnx.ml, of which nothing is left to the fallback, because it computes different values.
fn classical(op_type: &str) -> Importer {
    match op_type {
        "TreeEnsembleClassifier" => trees::classifier,
        "TreeEnsembleRegressor" => trees::regressor,
        "TreeEnsemble" => trees::ensemble,
        "LinearClassifier" => ml::linear_classifier,
        "LinearRegressor" => ml::linear_regressor,
        "SVMRegressor" => svm::regressor,
        "SVMClassifier" => svm::classifier,
        "Scaler" => ml::scaler,
        "Normalizer" => ml::normalizer,
        "Binarizer" => ml::binarizer,
        "Imputer" => ml::imputer,
        "ArrayFeatureExtractor" => ml::array_feature_extractor,
        "FeatureVectorizer" => ml::feature_vectorizer,
        "LabelEncoder" => ml::label_encoder,
        "ZipMap" => ml::zip_map,
        _ => ml::refused,
    }
}

fn microsoft(op_type: &str) -> Option<Importer> {
    Some(match op_type {
        "QuantizeLinear" => quantization::quantize,
        "DequantizeLinear" => quantization::dequantize,
        "QGemm" => quantized::gemm,
        "QLinearAdd" => quantized::add,
        "QLinearMul" => quantized::mul,
        "QLinearAveragePool" => quantized::average_pool,
        "QLinearGlobalAveragePool" => quantized::global_average_pool,
        "QLinearSigmoid" => quantized::sigmoid,
        "QLinearLeakyRelu" => quantized::leaky_relu,
        "QLinearConcat" => quantized::concat,
        "QLinearSoftmax" => quantized::softmax,
        "DynamicQuantizeMatMul" => quantized::dynamic_matmul,
        "MatMulIntegerToFloat" => quantized::matmul_to_float,
        "MatMulNBits" => nibbles::matmul,
        "Gelu" => activation::plain,
        "FastGelu" => activation::fast_gelu,
        "BiasGelu" => activation::bias_gelu,
        "QuickGelu" => activation::quick_gelu,
        "Attention" => attention::packed,
        "MultiHeadAttention" => attention::multi_head,
        "RotaryEmbedding" => attention::rotary_with_places,
        "MoE" => experts::mixture,
        "FusedConv" => convolution::fused,
        "FusedMatMul" => product::fused_matmul,
        "FusedGemm" => convolution::fused_gemm,
        "GridSample" => sampling::grid_sample,
        "EmbedLayerNormalization" => normalization::embed_layer,
        "LayerNormalization" => normalization::layer,
        "SkipLayerNormalization" | "SkipSimplifiedLayerNormalization" => normalization::skip_layer,
        _ => return None,
    })
}
