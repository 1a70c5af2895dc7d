//! Operators: one file each, one line each in the table below.
//!
//! An operator's file says what it means (with the ONNX reference), its shape rule, its plain
//! evaluation (the truth that its kernels are tested against), and how it is planned and bound to
//! kernels. What nodes of a model file become which operators stands in the front end.
//!
//! From graph to machine in three steps. [`Operator::plan`] chooses a kernel and packs the
//! weights: plain data that can be stored. [`Operator::bind`] turns that data into an
//! [`Execute`]: the moment where names become function pointers and geometry is worked out.
//! [`Execute::run`] does the work, without a heap allocation.

use std::cell::RefCell;
use std::fmt;

use serde::de::{EnumAccess, VariantAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use skipstone_kernels::Isa;
use skipstone_kernels::arena::{AlignedVec, Slab};
use skipstone_kernels::gemm::Weights;

use crate::bytes::Bytes;
use crate::error::{Error, OpError};
use crate::options::{Memory, Precision};
use crate::tensor::{Element, Fact, Peek, Tensor};
use crate::tuning::Tuning;

pub mod accumulate;
pub mod activate;
pub mod argmax;
mod arity;
pub mod attention;
pub mod axes;
pub mod binary;
pub mod bottleneck;
pub mod broadcast;
mod byte_conv;
mod candidates;
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
pub mod dequantize;
pub mod dynamic_quantize;
pub(crate) mod float_conv;
mod foreign;
pub mod gather;
pub mod gather_elements;
pub mod group_norm;
pub mod image;
pub mod indexed;
mod io;
pub mod layernorm;
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
pub mod topk;
pub mod transpose;
pub mod trees;
pub mod unary;
pub mod volume;
pub(crate) mod walk;
mod wide;
pub mod window_pool;

use axes::{Axes, Left, Nhwc};
pub use candidates::{Candidate, Candidates, Task};
pub use foreign::{FALLBACK, Foreign, ForeignOp};
pub use io::{Io, Operands, Place, Port};

/// What every operator answers.
pub trait Operator {
    /// Name as `inspect` and the profile print it, such as `Conv`.
    fn name(&self) -> &str;

    /// Shape rule: the facts of the results.
    ///
    /// # Errors
    /// The rule that the inputs break.
    fn infer(&self, inputs: &[&Fact]) -> Result<Vec<Fact>, OpError>;

    /// Multiply-adds of one run; 0 for what is not counted by convention.
    fn macs(&self, _inputs: &[&Fact], _outputs: &[&Fact]) -> u64 {
        0
    }

    /// Work of one run: multiply-adds, and elements read and written. What [`Limits`](crate::Limits) bound.
    fn work(&self, inputs: &[&Fact], outputs: &[&Fact]) -> u64 {
        self.macs(inputs, outputs).saturating_add(elements_of(inputs)).saturating_add(elements_of(outputs))
    }

    /// Position of the input whose bytes the (only) result shares unchanged, as a reshape's
    /// does: such a step costs nothing and is left out of the plan.
    fn alias(&self, _inputs: &[&Fact]) -> Option<usize> {
        None
    }

    /// Chooses the kernel and packs constant inputs.
    ///
    /// # Errors
    /// Types or attributes that no kernel takes.
    fn plan(&self, cx: &PlanContext<'_>) -> Result<Choice, OpError>;

    /// Makes the choice executable. Cheap: nothing is packed or copied here.
    ///
    /// # Errors
    /// A kernel name that this build does not have.
    fn bind(&self, cx: &BindContext<'_>) -> Result<Box<dyn Execute>, OpError>;
}

/// What an operator means, for passes and tests. What only runs packages never asks, so the linker leaves it out there.
pub trait Semantics {
    /// Plain evaluation, written to be read: the reference of tests, and what folds constants.
    ///
    /// # Errors
    /// Values that the operator cannot take, such as an index out of range.
    fn evaluate(&self, inputs: &[&Tensor]) -> Result<Vec<Tensor>, OpError>;

    /// What the axes of the only result follow; by default nothing, and passes leave the operator as it is.
    ///
    /// Where an attribute holds a length along a linked axis, [`narrowed`](Self::narrowed) changes it.
    fn axes(&self, _inputs: &[&Fact]) -> Axes {
        Axes::unknown()
    }

    /// The operator for what is left of a linked axis, in the first operand that has it and in the result; `None` where
    /// it stays as it is.
    fn narrowed(&self, _from: Left<'_>, _to: Left<'_>) -> Option<Op> {
        None
    }

    /// What becomes of it where images lie in NHWC; a function of one element of every operand need not tell.
    fn nhwc(&self, _inputs: &[&Fact]) -> Nhwc {
        Nhwc::Never
    }
}

/// Elements of all these tensors.
fn elements_of(facts: &[&Fact]) -> u64 {
    facts.iter().fold(0, |sum, fact| sum.saturating_add(fact.shape.elements() as u64))
}

/// The product of these counts, at most the largest number.
fn count(counts: &[usize]) -> u64 {
    counts.iter().fold(1, |all, &size| all.saturating_mul(size as u64))
}

/// What [`Operator::plan`] may look at.
pub struct PlanContext<'a> {
    /// Facts of the inputs.
    pub inputs: Vec<&'a Fact>,
    /// Facts of the results.
    pub outputs: Vec<&'a Fact>,
    /// Data of those inputs that are constants.
    pub constants: Vec<Option<&'a Tensor>>,
    /// What a package holds of this step's weights, in place of their data.
    pub packing: Option<&'a Packing>,
    /// Measured times of kernels, if kernels are chosen by them.
    pub tuning: Option<&'a Tuning>,
    /// Where packed weights go.
    pub slab: &'a RefCell<Slab>,
    /// Instruction set to choose for.
    pub isa: Isa,
    /// Memory against speed.
    pub memory: Memory,
    /// How weights are stored.
    pub precision: Precision,
    /// Threads the plan will be run with.
    pub threads: usize,
}

impl<'a> PlanContext<'a> {
    /// How the weights of a product are stored.
    fn weights(&self) -> Weights {
        match self.precision {
            Precision::F32 => Weights::F32,
            Precision::F16 => Weights::F16,
        }
    }

    /// Whether input `position` is a constant, packed or not.
    fn is_constant(&self, position: usize) -> bool {
        let packed = self.packing.is_some_and(|packing| packing.absorbed.contains(&position));
        packed || self.constants.get(position).is_some_and(Option::is_some)
    }

    /// The elements of input `position`, a constant.
    fn constant<T: Element>(&self, position: usize) -> Result<&'a [T], OpError> {
        let tensor = self.constants.get(position).copied().flatten();
        tensor.and_then(Tensor::elements).ok_or(OpError::Operand(position))
    }

    /// The elements of input `position`, a constant, wherever they lie.
    fn peek<T: Element>(&self, position: usize) -> Result<Peek<'a, T>, OpError> {
        let tensor = self.constants.get(position).copied().flatten();
        tensor.and_then(Tensor::peek).ok_or(OpError::Operand(position))
    }

    /// Zeros, for packed weights.
    fn room(&self, len: usize) -> Result<AlignedVec<u8>, OpError> {
        self.slab.borrow_mut().try_zeroed(len).ok_or_else(|| OpError::no_memory(len))
    }

    /// The packed constant `role`, which is `len` bytes: what `write` makes of the weights, or what a package holds.
    fn pack(
        &self,
        role: usize,
        len: usize,
        write: impl FnOnce(&mut [u8]) -> Result<(), OpError>,
    ) -> Result<Bytes, OpError> {
        let Some(packing) = self.packing else {
            let mut bytes = self.room(len)?;
            write(&mut bytes)?;
            return Ok(bytes.into());
        };
        let held = packing.packed.get(role).filter(|bytes| bytes.len() == len);
        held.cloned().ok_or_else(|| OpError::Value(format!("no packed weights of {len} bytes in the package")))
    }
}

/// The weights of a step in the form of a kernel, as a package holds them.
#[derive(Clone)]
pub struct Packing {
    /// As [`Choice::form`].
    pub form: String,
    /// As [`Choice::packed`].
    pub packed: Vec<Bytes>,
    /// As [`Choice::absorbed`].
    pub absorbed: Vec<usize>,
}

impl Packing {
    /// Refuses the choice of a kernel that reads another form.
    pub(crate) fn check(&self, choice: &Choice, node: &str) -> Result<(), Error> {
        let same = choice.form.as_ref() == Some(&self.form) && choice.packed.len() == self.packed.len();
        if same && choice.absorbed == self.absorbed {
            return Ok(());
        }
        Err(Error::Invalid {
            code: "package.target",
            message: format!(
                "node '{node}' was packed for {}, this version would run {}; compile the package again",
                self.form, choice.kernel
            ),
        })
    }
}

/// Zeros among the weights of a convolution or product.
#[derive(Clone, Copy, Debug)]
pub struct Zeros {
    /// The share of the weights that are zero.
    pub share: f64,
    /// Modeled time of the best kernel for dense weights by that of the best one for sparse weights; 0 if there is none.
    pub gain: f64,
}

/// A kernel chosen for a step, with what it needs: plain data.
#[derive(Clone, Default)]
pub struct Choice {
    /// Name in the kernel family's table, as printed.
    pub kernel: String,
    /// What is zero of the weights; `None` if nothing is, or if they were packed before.
    pub zeros: Option<Zeros>,
    /// What it was chosen from; empty if there was no choice, or if there is no tuning.
    pub candidates: Candidates,
    /// Constants in the kernel's own form, by role.
    pub packed: Vec<Bytes>,
    /// Name of the packed form, which is that of a kernel: this one, or one that every CPU of the instruction set has.
    /// `None` where CPUs of one instruction set pack differently: then no package holds that form.
    pub form: Option<String>,
    /// Positions of inputs whose constants were packed and need not be kept beside.
    pub absorbed: Vec<usize>,
    /// Scratch that the kernel wants for the time of the step, in bytes.
    pub scratch: usize,
}

/// What [`Operator::bind`] may look at.
pub struct BindContext<'a> {
    /// Facts of the inputs.
    pub inputs: Vec<&'a Fact>,
    /// Facts of the results.
    pub outputs: Vec<&'a Fact>,
    /// Data of those inputs that are constants and were not absorbed.
    pub constants: Vec<Option<&'a Tensor>>,
    /// Positions of inputs that were packed.
    pub absorbed: &'a [usize],
    /// The kernel's name from the [`Choice`].
    pub kernel: &'a str,
    /// Instruction set of the plan.
    pub isa: Isa,
}

impl BindContext<'_> {
    /// Whether input `index` was packed when the step was planned.
    #[must_use]
    pub fn absorbed(&self, index: usize) -> bool {
        self.absorbed.contains(&index)
    }
}

/// A step that can be run.
pub trait Execute: Send + Sync {
    /// Reads the step's operands and writes its results. Native steps allocate nothing.
    ///
    /// # Errors
    /// [`OpError::Operand`] for a plan that does not fit, [`OpError::Value`] for values the
    /// operator cannot take.
    fn run(&self, io: &mut Io<'_, '_>) -> Result<(), OpError>;
}

/// Any closure over [`Io`] is a step: most bindings are just that.
impl<F: Fn(&mut Io<'_, '_>) -> Result<(), OpError> + Send + Sync> Execute for F {
    fn run(&self, io: &mut Io<'_, '_>) -> Result<(), OpError> {
        self(io)
    }
}

macro_rules! operators {
    ($($(#[$note:meta])* $number:literal => $variant:ident($type:ty),)*) => {
        /// Every operator there is.
        #[derive(Clone)]
        pub enum Op {
            $($(#[$note])* $variant($type),)*
            /// An operator of the front end without a kernel of ours: no package can hold it.
            Foreign(ForeignOp),
        }

        impl Op {
            /// Name in the table of operators, by which `SKIPSTONE_OPERATORS` chooses what is built.
            #[must_use]
            pub fn entry(&self) -> &'static str {
                match self {
                    $(Self::$variant(_) => stringify!($variant),)*
                    Self::Foreign(_) => "Foreign",
                }
            }

            fn operator(&self) -> &dyn Operator {
                match self {
                    $(
                        #[cfg(any(not(operator_subset), $variant))]
                        Self::$variant(op) => op,
                    )*
                    #[cfg(any(not(operator_subset), Foreign))]
                    Self::Foreign(op) => op,
                    #[cfg(operator_subset)]
                    _ => &missing::Missing,
                }
            }

            fn semantics(&self) -> &dyn Semantics {
                match self {
                    $(
                        #[cfg(any(not(operator_subset), $variant))]
                        Self::$variant(op) => op,
                    )*
                    #[cfg(any(not(operator_subset), Foreign))]
                    Self::Foreign(op) => op,
                    #[cfg(operator_subset)]
                    _ => &missing::Missing,
                }
            }
        }

        /// Numbers and names of the operators, as packages store them.
        #[cfg(test)]
        pub(crate) const NUMBERS: &[(u32, &str)] = &[$(($number, stringify!($variant)),)*];

        impl Serialize for Op {
            fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
                match self {
                    $(Self::$variant(op) => to.serialize_newtype_variant("Op", $number, stringify!($variant), op),)*
                    Self::Foreign(_) => Err(serde::ser::Error::custom("no package can hold it")),
                }
            }
        }

        impl<'de> Visitor<'de> for Stored {
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

/// Reads an operator as a package stores it: its number, then its attributes.
struct Stored;

impl<'de> Deserialize<'de> for Op {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        from.deserialize_enum("Op", &[], Stored)
    }
}

impl From<ForeignOp> for Op {
    fn from(op: ForeignOp) -> Self {
        Self::Foreign(op)
    }
}

// The number is how packages store an operator, for good: a new one takes the next number, and one that goes takes its
// number with it.
operators! {
    /// Another shape over the same bytes.
    0 => Reshape(reshape::Reshape),
    /// Axes in another order.
    1 => Transpose(transpose::Transpose),
    /// Convolution.
    2 => Conv(conv::Conv),
    /// A depthwise convolution and its neighbors.
    3 => Bottleneck(bottleneck::Bottleneck),
    /// Matrix product.
    4 => MatMul(matmul::MatMul),
    /// Max and average pooling.
    5 => Pool(pool::Pool),
    /// Another height and width.
    6 => Resize(resize::Resize),
    /// An activation on its own.
    7 => Activate(activate::Activate),
    /// A function of one element.
    8 => Unary(unary::Unary),
    /// Arithmetic of two tensors.
    9 => Binary(binary::Binary),
    /// A comparison of two tensors.
    10 => Compare(compare::Compare),
    /// One of two, by a condition.
    11 => Select(select::Select),
    /// Another element type.
    12 => Cast(cast::Cast),
    /// The elements along some axes, combined into one.
    13 => Reduce(reduce::Reduce),
    /// Index of the largest or smallest element of an axis.
    14 => ArgMax(argmax::ArgMax),
    /// Probabilities.
    15 => Softmax(softmax::Softmax),
    /// Layer normalization.
    16 => LayerNorm(layernorm::LayerNorm),
    /// The best of an axis.
    17 => TopK(topk::TopK),
    /// Tensors joined.
    18 => Concat(concat::Concat),
    /// A part of an axis.
    19 => Slice(slice::Slice),
    /// Elements added around.
    20 => Pad(pad::Pad),
    /// Slices picked by index.
    21 => Gather(gather::Gather),
    /// Elements picked by index.
    22 => GatherElements(gather_elements::GatherElements),
    /// Blocks read by tuples of indices.
    23 => GatherNd(indexed::GatherNd),
    /// Blocks written by tuples of indices.
    24 => ScatterNd(indexed::ScatterNd),
    /// Elements written by index.
    25 => ScatterElements(scatter_elements::ScatterElements),
    /// Running sums.
    26 => CumSum(cumsum::CumSum),
    /// One value at every index.
    27 => OneHot(one_hot::OneHot),
    /// A tensor repeated to a shape.
    28 => Expand(broadcast::Expand),
    /// A tensor repeated whole.
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
    /// Floats to bytes with a scale that they decide.
    37 => DynamicQuantize(dynamic_quantize::DynamicQuantize),
    /// Convolution or matrix product of bytes, summed in 32 bits.
    38 => ConvInteger(conv_integer::ConvInteger),
    /// A function of one element with parameters.
    39 => Curve(curve::Curve),
    /// LSTM, GRU and RNN.
    40 => Recurrent(recurrent::Recurrent),
    /// Scaled dot-product attention.
    41 => Attention(attention::Attention),
    /// Convolution of volumes, and transposed convolution.
    42 => VolumeConv(volume::VolumeConv),
    /// Pooling of volumes, with places, and by Lp norms.
    43 => WindowPool(window_pool::WindowPool),
    /// Normalization of groups of channels.
    44 => GroupNorm(group_norm::GroupNorm),
    /// Another length of one axis.
    45 => ResizeAxis(resize_axis::ResizeAxis),
    /// Ensembles of decision trees.
    46 => Trees(trees::Trees),
    /// A branch or a loop over blocks of nodes.
    47 => Control(control::Control),
    /// A product with one of several matrices, by an index.
    48 => Routed(routed::Routed),
    /// Updates by index that are combined with what they meet.
    49 => Accumulate(accumulate::Accumulate),
    /// A product along any axes, of any element type.
    50 => Contract(contract::Contract),
    /// An image read between its pixels.
    51 => Sample(sample::Sample),
    /// Parts of feature maps.
    52 => Regions(regions::Regions),
    /// Images with their active channels alone.
    53 => Masked(masked::Masked),
    /// An error where a branch cannot be computed.
    54 => Refuse(refuse::Refuse),
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
    fn narrowed(&self, from: Left<'_>, to: Left<'_>) -> Option<Op> {
        self.semantics().narrowed(from, to)
    }
    fn nhwc(&self, inputs: &[&Fact]) -> Nhwc {
        self.semantics().nhwc(inputs)
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

    /// Packages hold these numbers: a line may be added, and none may change.
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
        ];
        known.iter().for_each(|entry| assert!(NUMBERS.contains(entry), "{entry:?}"));
        assert!(NUMBERS.is_sorted_by(|a, b| a.0 < b.0), "two operators with one number");
    }
}
