//! What can be wrong with what is given, as types: each has a stable code.

#[cfg(feature = "onnx")]
use skipstone_onnx::Rule;

/// What an [`Error::Invalid`](crate::Error::Invalid) objects to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Fault {
    /// A rule of the ONNX format, or of an operator.
    #[cfg(feature = "onnx")]
    Onnx(Rule),
    /// A model.
    Model(ModelFault),
    /// A package.
    Package(PackageFault),
    /// Measured times of kernels.
    Tuning(TuningFault),
    /// An argument.
    Input(InputFault),
    /// A camera frame.
    Frame,
}

/// A model that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum ModelFault {
    /// It asks for more than the [limits](crate::Limits).
    Limit,
    /// Its metadata holds what cannot be.
    Metadata,
    /// Its input is no image.
    ImageInput,
    /// Its output is no scores.
    Output,
}

/// A package that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PackageFault {
    /// It does not begin as a package does.
    Magic,
    /// It has the format of another version.
    Version,
    /// It was cut short.
    Truncated,
    /// Its content makes no sense.
    Format,
    /// It is not signed, or not with the key that was asked for.
    Signature,
    /// Its bytes were changed.
    Hash,
    /// It was made for another machine, or for other options.
    Target,
}

/// Measured times that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TuningFault {
    /// It is no tuning, or damaged.
    Format,
    /// It is of another version.
    Version,
    /// It is of another instruction set, or of other options.
    Target,
    /// It is of another processor.
    Cpu,
}

/// Settings of a classifier that cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InputFault {
    /// A threshold that is not a number.
    Threshold,
    /// A class that there is not, or one that is both allowed and denied.
    Label,
}

impl Fault {
    /// Its stable code, such as `package.hash`.
    #[must_use]
    pub fn code(self) -> &'static str {
        match self {
            #[cfg(feature = "onnx")]
            Self::Onnx(rule) => rule.code(),
            Self::Model(fault) => match fault {
                ModelFault::Limit => "model.limit",
                ModelFault::Metadata => "model.metadata",
                ModelFault::ImageInput => "model.image-input",
                ModelFault::Output => "model.output",
            },
            Self::Package(fault) => match fault {
                PackageFault::Magic => "package.magic",
                PackageFault::Version => "package.version",
                PackageFault::Truncated => "package.truncated",
                PackageFault::Format => "package.format",
                PackageFault::Signature => "package.signature",
                PackageFault::Hash => "package.hash",
                PackageFault::Target => "package.target",
            },
            Self::Tuning(fault) => match fault {
                TuningFault::Format => "tuning.format",
                TuningFault::Version => "tuning.version",
                TuningFault::Target => "tuning.target",
                TuningFault::Cpu => "tuning.cpu",
            },
            Self::Input(fault) => match fault {
                InputFault::Threshold => "input.threshold",
                InputFault::Label => "input.label",
            },
            Self::Frame => "frame",
        }
    }
}
