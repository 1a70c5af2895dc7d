//! Operators: one file each, one line each in the table below.
//!
//! An operator's file has its meaning (with the ONNX reference), its shape rule, its plain evaluation (the reference
//! for testing its kernels), and how it is planned and bound to kernels. The importer decides which operators an ONNX
//! node becomes.

use std::fmt;

use serde::de::{EnumAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::error::OpError;
use crate::operator::axes::{Axes, Left, Nhwc};
use crate::operator::{BindContext, Choice, Execute, Operator, PlanContext, Semantics};
use crate::tensor::{Fact, Tensor};

pub mod accumulate;
pub mod activate;
pub mod argmax;
mod arity;
pub(crate) mod aside;
pub mod attention;
pub mod binary;
pub mod bottleneck;
pub mod broadcast;
mod byte_conv;
pub mod cast;
#[cfg(test)]
pub(crate) mod check;
pub mod compare;
pub mod concat;
pub mod contract;
pub mod control;
pub mod conv;
pub mod conv_integer;
pub mod cumsum;
pub mod curve;
#[cfg(any(feature = "passes", test))]
mod density;
pub mod dequantize;
pub mod dynamic_quantize;
pub(crate) mod float_conv;
mod foreign;
pub mod found;
pub mod gather;
pub mod gather_elements;
pub mod group_norm;
pub mod image;
pub mod indexed;
pub mod layernorm;
pub mod length;
pub mod look_up;
pub mod masked;
mod masked_conv;
pub mod matmul;
#[cfg(operator_subset)]
mod missing;
mod number;
pub mod one_hot;
pub mod pad;
pub mod pool;
pub mod qbinary;
pub mod qconv;
pub mod qpool;
pub mod quantize;
pub mod quantized;
pub mod recurrent;
pub mod reduce;
pub mod refuse;
pub mod regions;
pub mod reshape;
pub mod resize;
pub mod resize_axis;
pub mod roles;
pub mod routed;
pub mod sample;
pub mod scatter_elements;
pub mod select;
pub mod slice;
pub mod softmax;
pub mod stem;
mod stored;
mod strided;
pub mod suppress;
pub mod topk;
pub mod transpose;
pub mod trees;
pub mod trim;
pub mod unary;
pub mod volume;
pub(crate) mod walk;
mod wide;
pub mod window_pool;

pub use foreign::{Budget, FALLBACK, Foreign, ForeignOp};

/// An [`Op`] as one of its traits, with a separate table per trait: a library that only runs packages has no table of
/// [`Semantics`], and so the linker leaves out everything reachable only through it.
macro_rules! view {
    ($name:ident(& $($mutable:ident)?) -> $trait:ty, [$($variant:ident)*]) => {
        impl Op {
            fn $name(&$($mutable)? self) -> &$($mutable)? $trait {
                match self {
                    $(
                        #[cfg(any(not(operator_subset), $variant))]
                        Self::$variant(op) => op,
                    )*
                    #[cfg(any(not(operator_subset), Foreign))]
                    Self::Foreign(op) => op,
                    // A zero-sized type: nothing is allocated.
                    #[cfg(operator_subset)]
                    _ => Box::leak(Box::new(missing::Missing)),
                }
            }
        }
    };
}

macro_rules! operators {
    ($($(#[$note:meta])* $number:literal => $variant:ident($type:ty),)*) => {
        /// Any operator.
        #[derive(Clone)]
        pub enum Op {
            $($(#[$note])* $variant($type),)*
            /// A fallback operator without a kernel: packages cannot store it.
            Foreign(ForeignOp),
        }

        impl Op {
            /// Name in the table of operators; `SKIPSTONE_OPERATORS` uses it to choose what is built.
            #[must_use]
            pub fn entry(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => stringify!($variant),)*
                    Self::Foreign(_) => "Foreign",
                }
            }
        }

        view!(operator(&) -> dyn Operator, [$($variant)*]);
        view!(semantics(&) -> dyn Semantics, [$($variant)*]);
        view!(semantics_mut(&mut) -> dyn Semantics, [$($variant)*]);

        /// Numbers and names of the operators, as packages store them.
        #[cfg(test)]
        pub(crate) const NUMBERS: &[(u32, &str)] = &[$(($number, stringify!($variant)),)*];

        impl Serialize for Op {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$variant(op) => to.serialize_newtype_variant("Op", $number, stringify!($variant), op),)*
                    Self::Foreign(_) => Err(serde::ser::Error::custom("a fallback operator cannot be stored in a package")),
                }
            }
        }

        impl<'de> Visitor<'de> for StoredOp {
            type Value = Op;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an operator")
            }

            fn visit_enum<A: EnumAccess<'de>>(self, stored: A) -> Result<Op, A::Error> {
                let (number, operator) = stored.variant::<u32>()?;
                match number {
                    $($number => operator.newtype_variant().map(Op::$variant),)*
                    _ => Err(serde::de::Error::custom("an operator that this version does not have")),
                }
            }
        }

        $(impl From<$type> for Op {
            fn from(op: $type) -> Self {
                Self::$variant(op)
            }
        })*
    };
}

/// Reads an operator in its package format: its number, then its attributes.
struct StoredOp;

impl<'de> Deserialize<'de> for Op {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_enum("Op", &[], StoredOp)
    }
}

impl From<ForeignOp> for Op {
    fn from(op: ForeignOp) -> Self {
        Self::Foreign(op)
    }
}

// Packages store an operator by its number, permanently: a new one takes the next number, and the number of a removed
// one is not reused.
operators! {
    /// Another shape for the same bytes.
    0 => Reshape(reshape::Reshape),
    /// Axes in another order.
    1 => Transpose(transpose::Transpose),
    /// Convolution.
    2 => Conv(conv::Conv),
    /// A depthwise convolution with its neighbors.
    3 => Bottleneck(bottleneck::Bottleneck),
    /// Matrix product.
    4 => MatMul(matmul::MatMul),
    /// Max and average pooling.
    5 => Pool(pool::Pool),
    /// Another height and width.
    6 => Resize(resize::Resize),
    /// An activation as a separate step.
    7 => Activate(activate::Activate),
    /// A function of one element.
    8 => Unary(unary::Unary),
    /// Arithmetic of two tensors.
    9 => Binary(binary::Binary),
    /// A comparison of two tensors.
    10 => Compare(compare::Compare),
    /// Selects one of two elements by a condition.
    11 => Select(select::Select),
    /// Another element type.
    12 => Cast(cast::Cast),
    /// Reduction along some axes.
    13 => Reduce(reduce::Reduce),
    /// Index of the largest or smallest element of an axis.
    14 => ArgMax(argmax::ArgMax),
    /// Softmax.
    15 => Softmax(softmax::Softmax),
    /// Layer normalization.
    16 => LayerNorm(layernorm::LayerNorm),
    /// The largest or smallest elements of an axis.
    17 => TopK(topk::TopK),
    /// Concatenation.
    18 => Concat(concat::Concat),
    /// A part of an axis.
    19 => Slice(slice::Slice),
    /// Padding.
    20 => Pad(pad::Pad),
    /// Slices selected by index.
    21 => Gather(gather::Gather),
    /// Elements selected by index.
    22 => GatherElements(gather_elements::GatherElements),
    /// Blocks read by tuples of indices.
    23 => GatherNd(indexed::GatherNd),
    /// Blocks written by tuples of indices.
    24 => ScatterNd(indexed::ScatterNd),
    /// Elements written by index.
    25 => ScatterElements(scatter_elements::ScatterElements),
    /// Cumulative sums.
    26 => CumSum(cumsum::CumSum),
    /// One value at every index.
    27 => OneHot(one_hot::OneHot),
    /// A tensor repeated to a shape.
    28 => Expand(broadcast::Expand),
    /// A tensor repeated along its axes.
    29 => Tile(broadcast::Tile),
    /// Floats to quantized integers.
    30 => Quantize(quantize::Quantize),
    /// Quantized integers to floats.
    31 => Dequantize(dequantize::Dequantize),
    /// Quantized convolution or matrix product.
    32 => QConv(qconv::QConv),
    /// Arithmetic of two quantized tensors.
    33 => QBinary(qbinary::QBinary),
    /// Average pooling of quantized images.
    34 => QPool(qpool::QPool),
    /// A function of a byte.
    35 => LookUp(look_up::LookUp),
    /// The first convolution.
    36 => Stem(stem::Stem),
    /// Quantization with a scale computed at run time.
    37 => DynamicQuantize(dynamic_quantize::DynamicQuantize),
    /// 8-bit convolution or matrix product, summed in 32 bits.
    38 => ConvInteger(conv_integer::ConvInteger),
    /// A function of one element with parameters.
    39 => Curve(curve::Curve),
    /// LSTM, GRU and RNN.
    40 => Recurrent(recurrent::Recurrent),
    /// Scaled dot-product attention.
    41 => Attention(attention::Attention),
    /// Convolution of volumes, and transposed convolution.
    42 => VolumeConv(volume::VolumeConv),
    /// 3-D pooling, pooling with indices, and Lp pooling.
    43 => WindowPool(window_pool::WindowPool),
    /// Normalization of groups of channels.
    44 => GroupNorm(group_norm::GroupNorm),
    /// Another length of one axis.
    45 => ResizeAxis(resize_axis::ResizeAxis),
    /// Ensembles of decision trees.
    46 => Trees(trees::Trees),
    /// A branch or a loop over blocks of nodes.
    47 => Control(control::Control),
    /// A product with one of several matrices, selected by an index.
    48 => Routed(routed::Routed),
    /// Updates by index, combined with the existing elements.
    49 => Accumulate(accumulate::Accumulate),
    /// A product along any axes, with any element type.
    50 => Contract(contract::Contract),
    /// An image sampled between its pixels.
    51 => Sample(sample::Sample),
    /// Regions of feature maps.
    52 => Regions(regions::Regions),
    /// Images with only their active channels.
    53 => Masked(masked::Masked),
    /// An error in place of a branch that cannot be computed.
    54 => Refuse(refuse::Refuse),
    /// Positions of the elements that are set.
    55 => Found(found::Found),
    /// A length within its limit.
    56 => Length(length::Length),
    /// The part of a tensor within the lengths of its axes.
    57 => Trim(trim::Trim),
    /// Boxes without those that overlap better ones.
    58 => Suppress(suppress::Suppress),
}

impl Operator for Op {
    fn name(&self) -> &str {
        self.operator().name()
    }
    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError> {
        self.operator().infer(inputs)
    }
    fn macs(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        self.operator().macs(inputs, outputs)
    }
    fn work(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        self.operator().work(inputs, outputs)
    }
    fn alias(&self, inputs: &[&Fact]) -> Option<usize> {
        self.operator().alias(inputs)
    }
    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError> {
        self.operator().plan(cx)
    }
    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError> {
        self.operator().bind(cx)
    }
}

impl Semantics for Op {
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError> {
        self.semantics().evaluate(inputs)
    }
    fn axes(&self, inputs: &[&Fact]) -> Axes {
        self.semantics().axes(inputs)
    }
    fn narrow(&mut self, from: Left<'_>, to: Left<'_>) {
        self.semantics_mut().narrow(from, to);
    }
    fn nhwc(&self) -> Nhwc {
        self.semantics().nhwc()
    }
    fn turn_to_nhwc(&mut self) {
        self.semantics_mut().turn_to_nhwc();
    }
}

impl fmt::Debug for Op {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::NUMBERS;

    /// Packages store these numbers: a line may be added, and none may change.
    #[test]
    fn operators_keep_their_numbers() {
        let known = [
            (0, "Reshape"),
            (1, "Transpose"),
            (2, "Conv"),
            (3, "Bottleneck"),
            (4, "MatMul"),
            (5, "Pool"),
            (6, "Resize"),
            (7, "Activate"),
            (8, "Unary"),
            (9, "Binary"),
            (10, "Compare"),
            (11, "Select"),
            (12, "Cast"),
            (13, "Reduce"),
            (14, "ArgMax"),
            (15, "Softmax"),
            (16, "LayerNorm"),
            (17, "TopK"),
            (18, "Concat"),
            (19, "Slice"),
            (20, "Pad"),
            (21, "Gather"),
            (22, "GatherElements"),
            (23, "GatherNd"),
            (24, "ScatterNd"),
            (25, "ScatterElements"),
            (26, "CumSum"),
            (27, "OneHot"),
            (28, "Expand"),
            (29, "Tile"),
            (30, "Quantize"),
            (31, "Dequantize"),
            (32, "QConv"),
            (33, "QBinary"),
            (34, "QPool"),
            (35, "LookUp"),
            (36, "Stem"),
            (37, "DynamicQuantize"),
            (38, "ConvInteger"),
            (39, "Curve"),
            (40, "Recurrent"),
            (41, "Attention"),
            (42, "VolumeConv"),
            (43, "WindowPool"),
            (44, "GroupNorm"),
            (45, "ResizeAxis"),
            (46, "Trees"),
            (47, "Control"),
            (48, "Routed"),
            (49, "Accumulate"),
            (50, "Contract"),
            (51, "Sample"),
            (52, "Regions"),
            (53, "Masked"),
            (54, "Refuse"),
            (55, "Found"),
            (56, "Length"),
            (57, "Trim"),
            (58, "Suppress"),
        ];
        known.iter().for_each(|entry| assert!(NUMBERS.contains(entry), "{entry:?}"));
        assert!(NUMBERS.is_sorted_by(|a, b| a.0 < b.0), "two operators have the same number");
    }
}
