//! The attributes that every operator has, by opset.
//!
//! An attribute that an operator does not have is refused, as in ONNX Runtime: it would be ignored, and if it is one of
//! a newer opset the model would compute something else. Names that begin with two underscores are notes of tools and
//! have no meaning. Operators of local functions may have any attributes.

use std::collections::HashMap;
use std::sync::OnceLock;

use super::attributes::is_standard;
use super::call::Call;
use crate::invalid::{Invalid, Rule, quoted};
use crate::reserve::{self, NoMemory};

/// The opsets in which an operator has an attribute: `name@from<to` in [`KNOWN`].
struct Span {
    name: &'static str,
    from: i64,
    to: i64,
}

impl Span {
    fn read(word: &'static str) -> Self {
        let (word, to) = word.split_once('<').unwrap_or((word, ""));
        let (name, from) = word.split_once('@').unwrap_or((word, ""));
        Self { name, from: from.parse().unwrap_or(0), to: to.parse().unwrap_or(i64::MAX) }
    }
}

/// Refuses an attribute that the operator does not have in the opset of the model.
pub(super) fn check(call: &Call<'_, '_>) -> Result<(), Invalid> {
    let (domain, op) = (call.node.domain, call.node.op_type);
    let standard = is_standard(domain);
    let row = match domain {
        _ if standard => by_operator()?.get(op),
        "ai.onnx.ml" => by_operator()?.get(format!("ml.{op}").as_str()),
        "com.microsoft" => by_operator()?.get(format!("ms.{op}").as_str()),
        _ => return Ok(()),
    };
    let words = match row {
        Some(words) => words,
        // Only standard operators without attributes are left out of the table.
        None if standard => "",
        None => return Ok(()),
    };
    for attribute in &call.node.attributes {
        if attribute.name.starts_with("__") {
            continue;
        }
        let span = words.split_whitespace().map(Span::read).find(|span| span.name == attribute.name);
        let (name, opset) = (quoted(attribute.name), call.opset);
        let what = match span {
            Some(span) if (span.from..span.to).contains(&opset) => continue,
            Some(span) if opset < span.from => {
                format!("{op} has the attribute {name} since opset {}, but the model's opset is {opset}", span.from)
            }
            Some(span) => {
                format!("{op} has the attribute {name} before opset {}, but the model's opset is {opset}", span.to)
            }
            None => format!("{op} has no attribute {name}"),
        };
        return Err(call.invalid(Rule::Attribute, what));
    }
    Ok(())
}

/// The rows of [`KNOWN`].
fn by_operator() -> Result<&'static HashMap<&'static str, &'static str>, NoMemory> {
    static ROWS: OnceLock<HashMap<&str, &str>> = OnceLock::new();
    let rows = KNOWN.split(';').filter_map(|row| row.split_once(':'));
    reserve::once(&ROWS, || reserve::map(rows.map(|(op, words)| (op.trim(), words))))
}

/// Operators with their attributes, from the schemas of ONNX Runtime 1.32 (`get_all_operator_schema`) for opsets 6 to
/// 26, `ml.` of ai.onnx.ml, `ms.` of com.microsoft: of the latter those that are imported. Attributes that would change
/// values and that are not imported are left out.
#[rustfmt::skip]
const KNOWN: &str = "
Add: axis<7 broadcast<7;
AffineGrid: align_corners;
And: axis<7 broadcast<7;
ArgMax: axis keepdims select_last_index@12;
ArgMin: axis keepdims select_last_index@12;
Attention: is_causal kv_num_heads left_window_size@25 q_num_heads qk_matmul_output_mode right_window_size@25 scale
    softcap softmax_precision;
AveragePool: auto_pad ceil_mode@10 count_include_pad@7 dilations@19 kernel_shape pads strides;
BatchNormalization: epsilon is_test<7 momentum spatial<9 training_mode@14;
Bernoulli: dtype seed;
BitShift: direction;
BlackmanWindow: output_datatype periodic;
Cast: round_mode@24 saturate@19 to;
CastLike: round_mode@24 saturate@19;
Celu: alpha;
CenterCropPad: axes;
Clip: max<11 min<11;
Col2Im: dilations pads strides;
Compress: axis;
Concat: axis;
ConcatFromSequence: axis new_axis;
Constant: sparse_value@11 value value_float@12 value_floats@12 value_int@12 value_ints@12 value_string@12
    value_strings@12;
ConstantOfShape: value;
Conv: auto_pad dilations group kernel_shape pads strides;
ConvInteger: auto_pad dilations group kernel_shape pads strides;
ConvTranspose: auto_pad dilations group kernel_shape output_padding output_shape pads strides;
CumSum: exclusive reverse;
DFT: axis<20 inverse onesided;
DeformConv: dilations group kernel_shape offset_group pads strides;
DepthToSpace: blocksize mode@11;
DequantizeLinear: axis@13 block_size@21 output_dtype@23;
Div: axis<7 broadcast<7;
Dropout: is_test<7 ratio<12 seed@12;
Einsum: equation;
Elu: alpha;
Equal: axis<7 broadcast<7;
EyeLike: dtype k;
Flatten: axis;
GRU: activation_alpha activation_beta activations clip direction hidden_size layout@14 linear_before_reset
    output_sequence<7;
Gather: axis;
GatherElements: axis;
GatherND: batch_dims@12;
Gelu: approximate;
Gemm: alpha beta broadcast<7 transA transB;
GlobalLpPool: p;
Greater: axis<7 broadcast<7;
GridSample: align_corners mode padding_mode;
GroupNormalization: epsilon num_groups stash_type@21;
HammingWindow: output_datatype periodic;
HannWindow: output_datatype periodic;
HardSigmoid: alpha beta;
Hardmax: axis;
If: else_branch then_branch;
ImageDecoder: pixel_format;
InstanceNormalization: epsilon;
IsInf: detect_negative detect_positive;
LRN: alpha beta bias size;
LSTM: activation_alpha activation_beta activations clip direction hidden_size input_forget layout@14
    output_sequence<7;
LayerNormalization: axis epsilon stash_type;
LeakyRelu: alpha;
Less: axis<7 broadcast<7;
LogSoftmax: axis;
Loop: body;
LpNormalization: axis p;
LpPool: auto_pad ceil_mode@18 dilations@18 kernel_shape p pads strides;
MaxPool: auto_pad ceil_mode@10 dilations@10 kernel_shape pads storage_order@8 strides;
MaxRoiPool: pooled_shape spatial_scale;
MaxUnpool: kernel_shape pads strides;
MeanVarianceNormalization: axes@9;
MelWeightMatrix: output_datatype;
Mod: fmod;
Mul: axis<7 broadcast<7;
Multinomial: dtype sample_size seed;
NegativeLogLikelihoodLoss: ignore_index reduction;
NonMaxSuppression: center_point_box;
OneHot: axis;
Optional: type;
Or: axis<7 broadcast<7;
Pad: mode pads<11 value<11;
Pow: axis<7 broadcast<7;
QLinearConv: auto_pad dilations group kernel_shape pads strides;
QuantizeLinear: axis@13 block_size@21 output_dtype@21 precision@23 saturate@19;
RMSNormalization: axis epsilon stash_type;
RNN: activation_alpha activation_beta activations clip direction hidden_size layout@14 output_sequence<7;
RandomNormal: dtype mean scale seed shape;
RandomNormalLike: dtype mean scale seed;
RandomUniform: dtype high low seed shape;
RandomUniformLike: dtype high low seed;
ReduceL1: axes<18 keepdims noop_with_empty_axes@18;
ReduceL2: axes<18 keepdims noop_with_empty_axes@18;
ReduceLogSum: axes<18 keepdims noop_with_empty_axes@18;
ReduceLogSumExp: axes<18 keepdims noop_with_empty_axes@18;
ReduceMax: axes<18 keepdims noop_with_empty_axes@18;
ReduceMean: axes<18 keepdims noop_with_empty_axes@18;
ReduceMin: axes<18 keepdims noop_with_empty_axes@18;
ReduceProd: axes<18 keepdims noop_with_empty_axes@18;
ReduceSum: axes<13 keepdims noop_with_empty_axes@13;
ReduceSumSquare: axes<18 keepdims noop_with_empty_axes@18;
RegexFullMatch: pattern;
Reshape: allowzero@14;
Resize: antialias@18 axes@18 coordinate_transformation_mode@11 cubic_coeff_a@11 exclude_outside@11
    extrapolation_value@11 keep_aspect_ratio_policy@18 mode nearest_mode@11;
ReverseSequence: batch_axis time_axis;
RoiAlign: coordinate_transformation_mode@16 mode output_height output_width sampling_ratio spatial_scale;
RotaryEmbedding: interleaved num_heads rotary_embedding_dim;
STFT: onesided;
Scan: body directions<9 num_scan_inputs scan_input_axes@9 scan_input_directions@9 scan_output_axes@9
    scan_output_directions@9;
Scatter: axis;
ScatterElements: axis reduction@16;
ScatterND: reduction@16;
Selu: alpha gamma;
SequenceEmpty: dtype;
SequenceMap: body;
Shape: end@15 start@15;
Shrink: bias lambd;
SimplifiedLayerNormalization: axis epsilon stash_type;
Slice: axes<10 ends<10 starts<10;
Softmax: axis;
SoftmaxCrossEntropyLoss: ignore_index reduction;
SpaceToDepth: blocksize;
Split: axis num_outputs@18 split<13;
SplitToSequence: axis keepdims;
Squeeze: axes<13;
StringNormalizer: case_change_action is_case_sensitive locale stopwords;
StringSplit: delimiter maxsplit;
Sub: axis<7 broadcast<7;
Swish: alpha;
TensorScatter: axis mode;
TfIdfVectorizer: max_gram_length max_skip_count min_gram_length mode ngram_counts ngram_indexes pool_int64s
    pool_strings weights;
ThresholdedRelu: alpha;
TopK: axis k<10 largest@11 sorted@11;
Transpose: perm;
Trilu: upper;
Unique: axis sorted;
Unsqueeze: axes<13;
Upsample: mode scales@7<9;
Xor: axis<7 broadcast<7;
ml.ArrayFeatureExtractor: ;
ml.Binarizer: threshold;
ml.CastMap: cast_to map_form max_map;
ml.CategoryMapper: cats_int64s cats_strings default_int64 default_string;
ml.DictVectorizer: int64_vocabulary string_vocabulary;
ml.FeatureVectorizer: inputdimensions;
ml.Imputer: imputed_value_floats imputed_value_int64s replaced_value_float replaced_value_int64;
ml.LabelEncoder: classes_strings<2 default_float@2 default_int64 default_string default_tensor@4 keys_floats@2
    keys_int64s@2 keys_strings@2 keys_tensor@4 values_floats@2 values_int64s@2 values_strings@2 values_tensor@4;
ml.LinearClassifier: classlabels_ints classlabels_strings coefficients intercepts multi_class post_transform;
ml.LinearRegressor: coefficients intercepts post_transform targets;
ml.Normalizer: norm;
ml.OneHotEncoder: cats_int64s cats_strings zeros;
ml.SVMClassifier: classlabels_ints classlabels_strings coefficients kernel_params kernel_type post_transform prob_a
    prob_b rho support_vectors vectors_per_class;
ml.SVMRegressor: coefficients kernel_params kernel_type n_supports one_class post_transform rho support_vectors;
ml.Scaler: offset scale;
ml.TreeEnsemble: aggregate_function leaf_targetids leaf_weights membership_values n_targets nodes_falseleafs
    nodes_falsenodeids nodes_featureids nodes_hitrates nodes_missing_value_tracks_true nodes_modes nodes_splits
    nodes_trueleafs nodes_truenodeids post_transform tree_roots;
ml.TreeEnsembleClassifier: base_values base_values_as_tensor@3 class_ids class_nodeids class_treeids class_weights
    class_weights_as_tensor@3 classlabels_int64s classlabels_strings nodes_falsenodeids nodes_featureids
    nodes_hitrates nodes_hitrates_as_tensor@3 nodes_missing_value_tracks_true nodes_modes nodes_nodeids nodes_treeids
    nodes_truenodeids nodes_values nodes_values_as_tensor@3 post_transform;
ml.TreeEnsembleRegressor: aggregate_function base_values base_values_as_tensor@3 n_targets nodes_falsenodeids
    nodes_featureids nodes_hitrates nodes_hitrates_as_tensor@3 nodes_missing_value_tracks_true nodes_modes
    nodes_nodeids nodes_treeids nodes_truenodeids nodes_values nodes_values_as_tensor@3 post_transform target_ids
    target_nodeids target_treeids target_weights target_weights_as_tensor@3;
ml.ZipMap: classlabels_int64s classlabels_strings;
ms.Attention: do_rotary mask_filter_value num_heads past_present_share_buffer qkv_hidden_sizes rotary_embedding_dim
    scale unidirectional;
ms.BiasGelu: ;
ms.CDist: metric;
ms.DequantizeLinear: axis;
ms.DynamicQuantizeLSTM: activation_alpha activation_beta activations clip direction hidden_size input_forget;
ms.DynamicQuantizeMatMul: ;
ms.EmbedLayerNormalization: epsilon mask_index_type;
ms.FastGelu: ;
ms.FusedConv: activation activation_params auto_pad dilations group kernel_shape pads strides;
ms.FusedGemm: activation activation_alpha activation_beta activation_gamma alpha beta transA transB;
ms.FusedMatMul: alpha transA transB transBatchA transBatchB;
ms.Gelu: ;
ms.GridSample: align_corners mode padding_mode;
ms.MatMulIntegerToFloat: ;
ms.MatMulNBits: K N accuracy_level bits block_size weight_prepacked;
ms.MoE: activation_alpha activation_beta activation_type k normalize_routing_weights swiglu_fusion swiglu_limit
    swiglu_limit_after_activation use_sparse_mixer;
ms.MultiHeadAttention: mask_filter_value num_heads scale unidirectional;
ms.NhwcConv: auto_pad dilations group kernel_shape pads strides;
ms.NhwcFusedConv: activation activation_params auto_pad dilations group kernel_shape pads strides;
ms.NhwcMaxPool: auto_pad ceil_mode dilations kernel_shape pads strides;
ms.Pad: mode;
ms.QAttention: do_rotary mask_filter_value num_heads past_present_share_buffer scale unidirectional;
ms.QEmbedLayerNormalization: epsilon;
ms.QGemm: alpha transA transB;
ms.QLinearAdd: ;
ms.QLinearAveragePool: auto_pad ceil_mode channels_last count_include_pad kernel_shape pads strides;
ms.QLinearConcat: axis;
ms.QLinearConv: auto_pad channels_last dilations group kernel_shape pads strides;
ms.QLinearGlobalAveragePool: channels_last;
ms.QLinearLeakyRelu: alpha;
ms.QLinearMul: ;
ms.QLinearSigmoid: ;
ms.QLinearSoftmax: axis opset;
ms.QLinearWhere: ;
ms.QMoE: accuracy_level activation_alpha activation_beta activation_type block_size expert_weight_bits
    fc1_expert_weight_bits fc2_expert_weight_bits fc3_expert_weight_bits k normalize_routing_weights quant_type
    swiglu_fusion swiglu_limit swiglu_limit_after_activation use_sparse_mixer weights_prepacked;
ms.QuantizeLinear: axis;
ms.QuickGelu: alpha;
ms.Range: ;
ms.RotaryEmbedding: interleaved is_packed_batching num_heads rotary_embedding_dim scale;
ms.SkipLayerNormalization: epsilon;
ms.SkipSimplifiedLayerNormalization: epsilon;
ms.TransposeMatMul: alpha transA transB transBatchA transBatchB;
ms.Trilu: upper;
ms.Unique: ;
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_table_is_read() {
        let rows = by_operator().unwrap();
        assert_eq!(rows.len(), KNOWN.matches(';').count());
        assert!(rows.iter().all(|(op, _)| op.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'.')));
        let spans = rows.values().flat_map(|words| words.split_whitespace().map(Span::read));
        assert!(spans.into_iter().all(|span| span.from < span.to && !span.name.contains([',', '@', '<'])));
    }
}
