//! The validator's error type: which rule is broken, where, and what to do about it.

use std::fmt;

use skipstone_reserve::NoMemory;
use thiserror::Error;

/// Longest prefix of a name that a message quotes, in characters.
const QUOTED_CHARS: usize = 80;

/// A model that must not be loaded.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{place}{what}; {}", rule.advice())]
pub struct Invalid {
    rule: Rule,
    place: Place,
    what: String,
}

impl Invalid {
    /// An error: `rule` is broken at `place`; `what` says how.
    pub(crate) fn new(rule: Rule, place: Place, what: impl Into<String>) -> Self {
        Self { rule, place, what: what.into() }
    }

    /// The rule that is broken.
    #[must_use]
    pub fn rule(&self) -> Rule {
        self.rule
    }

    /// The stable short code of the rule, such as `model.truncated`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        self.rule.code()
    }

    /// What is wrong, without place and advice.
    #[must_use]
    pub fn what(&self) -> &str {
        &self.what
    }

    /// The place of the fault.
    #[must_use]
    pub fn place(&self) -> &Place {
        &self.place
    }
}

impl From<NoMemory> for Invalid {
    fn from(NoMemory(bytes): NoMemory) -> Self {
        Self::new(Rule::Memory, Place::Model, format!("there is no memory for {bytes} bytes"))
    }
}

/// A place in the model. Names are escaped and truncated, see [`quoted`].
#[derive(Debug, Clone, PartialEq, Eq)]
#[non_exhaustive]
pub enum Place {
    /// The file as a whole.
    Model,
    /// An offset in the file, in bytes.
    Byte(usize),
    /// A node, by its name, or by its operator and first output if it has no name.
    Node(String),
    /// An initializer or a tensor of an attribute.
    Tensor(String),
    /// A named value: an input, an output, the result of a node.
    Value(String),
    /// A function of the model.
    Function(String),
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Model => Ok(()),
            Self::Byte(offset) => write!(f, "byte {offset}: "),
            Self::Node(name) => write!(f, "node '{name}': "),
            Self::Tensor(name) => write!(f, "tensor '{name}': "),
            Self::Value(name) => write!(f, "value '{name}': "),
            Self::Function(name) => write!(f, "function '{name}': "),
        }
    }
}

/// Most items of a list that a message shows.
const SHOWN_ITEMS: usize = 64;

/// `[2, 3]`; of very many items, only the first are shown. Not `Debug`, which device builds leave out.
pub(crate) fn list<T: fmt::Display>(items: &[T]) -> String {
    let shown: Vec<String> = items.iter().take(SHOWN_ITEMS).map(T::to_string).collect();
    format!("[{}{}]", shown.join(", "), if items.len() > SHOWN_ITEMS { ", ..." } else { "" })
}

/// A name from the file, made safe to print: special characters are escaped, and names of more
/// than 80 characters are truncated.
#[must_use]
pub fn quoted(name: &str) -> String {
    let mut shown: String = name.chars().take(QUOTED_CHARS).flat_map(char::escape_debug).collect();
    if name.chars().nth(QUOTED_CHARS).is_some() {
        shown.push_str("...");
    }
    shown
}

/// Declares the rules with their codes and advice, one row per rule.
macro_rules! rules {
    ($($(#[doc = $doc:literal])+ $rule:ident, $code:literal, $advice:literal;)*) => {
        /// The rules of the validator.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        #[non_exhaustive]
        pub enum Rule {
            $($(#[doc = $doc])+ $rule,)*
        }

        impl Rule {
            /// Stable short code, such as `model.truncated`.
            #[must_use]
            pub fn code(self) -> &'static str {
                match self {
                    $(Self::$rule => $code,)*
                }
            }

            /// Advice for the user of a model that breaks the rule.
            #[must_use]
            pub fn advice(self) -> &'static str {
                match self {
                    $(Self::$rule => $advice,)*
                }
            }

            /// Every rule.
            #[cfg(test)]
            const ALL: &[Self] = &[$(Self::$rule,)*];
        }
    };
}

rules! {
    /// The file holds no bytes.
    Empty, "model.empty", "the file is empty: copy or download it again";
    /// A value reaches past the end of the file or of its message.
    Truncated, "model.truncated", "the file is truncated or is not an ONNX model: copy or download it again";
    /// The bytes are not protobuf, or not the messages of ONNX.
    Malformed, "model.malformed", "the file is damaged or is not an ONNX model";
    /// Messages, subgraphs or types are nested too deep.
    Depth, "model.depth", "real models are not nested this deep";
    /// A count or size exceeds the limits.
    Limit, "model.limit", "if you trust the file, raise the limit";
    /// The system has no memory for the model.
    Memory, "model.memory", "close other programs, or use a machine with more memory";
    /// A field that may occur once occurs twice.
    RepeatedField, "model.repeated-field", "parsers disagree on such files: save the model again";
    /// A string that is not UTF-8 or a name that is missing.
    Text, "model.text", "names must be present and UTF-8: export the model again";
    /// The model has no graph, or the graph has no nodes or no outputs.
    NoGraph, "model.no-graph", "the file contains no computation: export the model again";
    /// The version of the file format is missing or unknown.
    IrVersion, "model.ir-version", "save the model with a current version of onnx";
    /// The opset version is missing, contradictory or not supported.
    Opset, "model.opset", "convert the model with onnx.version_converter";
    /// An operator domain that is unknown or not imported.
    Domain, "model.domain", "export the model with standard ONNX operators";
    /// An operator that its domain does not define.
    Operator, "model.operator", "export the model with standard ONNX operators";
    /// A node with too few or too many inputs or outputs.
    Arity, "model.arity", "the node breaks its operator's signature: export the model again";
    /// A name that nothing produces.
    UndefinedValue, "model.undefined-value", "the graph is incomplete: export the model again";
    /// A name that is defined twice.
    DuplicateValue, "model.duplicate-value", "each value has one producer: export the model again";
    /// A node that depends on itself.
    Cycle, "model.cycle", "a graph must not have cycles; use Loop or Scan";
    /// A dimension that is negative or too large, or a product of dimensions that is.
    Dimension, "model.dimension", "give the tensor a shape that fits in memory";
    /// The data of a tensor does not match its shape or type.
    TensorData, "model.tensor-data", "the weights are damaged: export the model again";
    /// An element type that does not exist.
    DataType, "model.data-type", "use an element type of the ONNX standard";
    /// The description of external data is invalid.
    ExternalData, "model.external-data", "save the model again with its weights inside, or load it from its file";
    /// External data outside the model's folder, or not in a regular file.
    ExternalPath, "model.external-path", "put the weights into a regular file beside the model";
    /// External data past the end of its file, or a file that cannot be read.
    ExternalRange, "model.external-range", "the weight file is truncated, missing or belongs to another model";
    /// A sparse tensor with invalid indices.
    SparseTensor, "model.sparse-tensor", "indices must ascend and lie inside the shape: export the model again";
    /// An attribute with the wrong type or an invalid value.
    Attribute, "model.attribute", "the node breaks its operator's rules: export the model again";
    /// Shapes known before the run that contradict each other.
    Shape, "model.shape", "the shapes contradict each other: export the model again";
    /// A constant index out of range, or a step of zero.
    Index, "model.index", "the constant indices do not fit the tensor: export the model again";
    /// An operator whose output would exceed the limits.
    Generated, "model.generated-size", "if you trust the file, raise the limit";
    /// An integer division by zero, or one that overflows.
    Division, "model.division", "the constant divisor must not be zero";
    /// Invalid quantization parameters.
    Quantization, "model.quantization", "scales must be finite and positive: quantize the model again";
    /// A local function that is recursive, ambiguous or too large.
    Function, "model.function", "inline the functions of the model";
    /// A subgraph that does not match its node, or a loop that never ends.
    ControlFlow, "model.control-flow", "the subgraphs do not match their node: export the model again";
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn codes_are_unique_and_below_model() {
        let codes: HashSet<_> = Rule::ALL.iter().map(|rule| rule.code()).collect();
        assert_eq!(codes.len(), Rule::ALL.len());
        assert!(codes.iter().all(|code| code.starts_with("model.")));
    }

    #[test]
    fn names_are_escaped_and_truncated() {
        assert_eq!(quoted("a\nb"), "a\\nb");
        assert_eq!(quoted(&"x".repeat(500)), format!("{}...", "x".repeat(QUOTED_CHARS)));
    }

    #[test]
    fn a_message_says_where_what_and_what_to_do() {
        let error = Invalid::new(Rule::Division, Place::Node("d".into()), "the divisor is zero");
        assert_eq!(error.to_string(), "node 'd': the divisor is zero; the constant divisor must not be zero");
    }
}
