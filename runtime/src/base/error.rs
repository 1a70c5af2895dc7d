//! One error for the whole library: what went wrong, where, and what to do about it.
//!
//! Every error has a stable [`code`](Error::code), the word between the brackets of the command line's `error[code]:
//! ...`, so that bindings and scripts need not parse prose.

use std::fmt::Display;

use skipstone_kernels::pace::Stopped;
use skipstone_reserve::NoMemory;
use thiserror::Error;

pub(crate) use crate::fault::{Fault, InputFault, ModelFault, PackageFault, TuningFault};
use crate::tensor::{DType, Shape};

/// Result of the library's fallible calls.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Most items of a list that a message shows.
pub(crate) const SHOWN: usize = 64;

/// `[2, 3]`; of very many items, only the first are shown. Not `Debug`, which device builds leave out.
pub(crate) fn list<T: Display>(items: &[T]) -> String {
    let shown: Vec<String> = items.iter().take(SHOWN).map(T::to_string).collect();
    format!("[{}{}]", shown.join(", "), if items.len() > SHOWN { ", ..." } else { "" })
}

/// Everything that can go wrong when loading, planning or running a model.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The path as given.
        path: String,
        /// What the operating system said.
        source: std::io::Error,
    },
    /// A model, package, tuning, frame or argument that breaks a rule.
    #[error("{message}")]
    Invalid {
        /// What is wrong, as a type.
        fault: Fault,
        /// What is wrong, and where.
        message: String,
    },
    /// The model is well-formed but needs something that Skipstone does not support.
    #[error("node '{node}': {reason}")]
    Unsupported {
        /// Name of the node, or of the graph if no single node is at fault.
        node: String,
        /// What is not supported.
        reason: String,
    },
    /// A node's shapes, types or attributes contradict each other.
    #[error("node '{node}'{place}: {source}")]
    Node {
        /// Name of the node.
        node: String,
        /// Its operator and position in the model file, as ` (Conv, node 12)`; empty if it is not from a file.
        place: String,
        /// The operator's error.
        source: OpError,
    },
    /// A dimension is symbolic and no value was given for it.
    #[error(
        "input '{input}' has the dynamic shape [{shape}]; bind it with --shape {input}={example} or Options::shape"
    )]
    UnboundShape {
        /// Name of the input.
        input: String,
        /// Its shape, symbols by name.
        shape: String,
        /// A shape that fits, such as `1x3x224x224`, and the option `--shape` of other inputs without one.
        example: String,
    },
    /// No input of the model has this name.
    #[error("the model has no input '{name}'; it has {known}")]
    UnknownInput {
        /// The name as given.
        name: String,
        /// The existing names.
        known: String,
    },
    /// An input of the model was not given.
    #[error("input '{name}' is missing; the model expects {fact}")]
    MissingInput {
        /// Name of the input.
        name: String,
        /// Its type and shape.
        fact: String,
    },
    /// An input has a different type or shape than the model expects.
    #[error("input '{name}' is {got}, the model expects {want}")]
    InputMismatch {
        /// Name of the input.
        name: String,
        /// Type and shape as given.
        got: String,
        /// Expected type and shape.
        want: String,
    },
    /// No setting of the model has this name.
    #[error("the model has no setting '{name}'; it has {known}")]
    UnknownSetting {
        /// The name as given.
        name: String,
        /// The existing names.
        known: String,
    },
    /// A setting is given a value of the wrong type or number of elements.
    #[error("setting '{name}' is {fact}, which does not hold the value")]
    SettingValue {
        /// Name of the setting.
        name: String,
        /// Its type and shape.
        fact: String,
    },
    /// The requested instruction set does not exist on this CPU.
    #[error("this CPU has no {isa}; it has {available}")]
    IsaUnavailable {
        /// The requested instruction set.
        isa: String,
        /// The available ones.
        available: String,
    },
    /// A run was cancelled.
    #[error("the run was cancelled at step {step}")]
    Cancelled {
        /// Index of the first step that was not finished.
        step: usize,
    },
    /// A run took longer than its deadline.
    #[error("the run passed its deadline at step {step}")]
    DeadlineExceeded {
        /// Index of the first step that was not finished.
        step: usize,
    },
    /// A broken invariant of Skipstone itself: always a bug worth reporting.
    #[error("internal error, please report it: {0}")]
    Internal(String),
}

impl Error {
    /// Stable code of this error, such as `input.shape`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Io { .. } => "io",
            Self::Invalid { fault, .. } => fault.code(),
            Self::Unsupported { .. } => "model.unsupported",
            Self::Node { .. } => "model.node",
            Self::UnboundShape { .. } => "shape.unbound",
            Self::UnknownInput { .. } => "input.unknown",
            Self::MissingInput { .. } => "input.missing",
            Self::InputMismatch { .. } => "input.shape",
            Self::UnknownSetting { .. } => "setting.unknown",
            Self::SettingValue { .. } => "setting.value",
            Self::IsaUnavailable { .. } => "isa",
            Self::Cancelled { .. } => "cancelled",
            Self::DeadlineExceeded { .. } => "deadline",
            Self::Internal(_) => "internal",
        }
    }
}

/// An error of a single operator; the caller adds the node's name.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum OpError {
    /// Wrong number of inputs or outputs.
    #[error("takes {want} inputs, has {got}")]
    Arity {
        /// How many it takes.
        want: &'static str,
        /// How many it has.
        got: usize,
    },
    /// An input type that the operator has no kernel for.
    #[error("input {index} is {got}, expected {want}")]
    Type {
        /// Position of the input.
        index: usize,
        /// Its type.
        got: DType,
        /// The type expected.
        want: &'static str,
    },
    /// Shapes that do not match.
    #[error("{rule}: {shapes}")]
    Shape {
        /// The rule broken.
        rule: &'static str,
        /// The shapes at fault.
        shapes: String,
    },
    /// An attribute out of its range.
    #[error("attribute {name}: {reason}")]
    Attribute {
        /// Name of the attribute.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
    /// An invalid value found at run time, such as an index out of range.
    #[error("{0}")]
    Value(String),
    /// A product of dimensions beyond the address space, or a rank above the limit.
    #[error("the tensor is too large: {0}")]
    TooLarge(String),
    /// The system has no memory for this many bytes.
    #[error("there is no memory for {0} bytes")]
    NoMemory(usize),
    /// An operand whose bytes do not match its type, or that overlaps another: a bug in the plan.
    #[error("operand {0} of the step does not fit its buffer")]
    Operand(usize),
}

impl From<NoMemory> for OpError {
    fn from(NoMemory(bytes): NoMemory) -> Self {
        Self::no_memory(bytes)
    }
}

/// What no node is at fault for: a list that grows with the model.
impl From<NoMemory> for Error {
    fn from(no_memory: NoMemory) -> Self {
        OpError::from(no_memory).at("model")
    }
}

/// A run that is to stop ends its step with an error that nobody sees: the session has another for it.
impl From<Stopped> for OpError {
    fn from(_: Stopped) -> Self {
        Self::Operand(usize::MAX)
    }
}

impl OpError {
    /// The error for a failed allocation of `len` bytes.
    pub(crate) fn no_memory(len: usize) -> Self {
        Self::NoMemory(len)
    }

    /// Shapes that break `rule`.
    pub(crate) fn shapes(rule: &'static str, shapes: &[&Shape]) -> Self {
        let shapes = shapes.iter().take(SHOWN).map(|s| s.to_string()).collect::<Vec<_>>().join(" and ");
        Self::Shape { rule, shapes }
    }

    /// Adds the node's name.
    pub(crate) fn at(self, node: &str) -> Error {
        Error::Node { node: node.to_owned(), place: String::new(), source: self }
    }
}
