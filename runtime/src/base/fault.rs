//! The faults of models, packages and arguments, as types: each has a stable code.

#[cfg(feature = "onnx")]
use skipstone_onnx::Rule;

/// The subject of an [`Error::Invalid`](crate::Error::Invalid).
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
    /// A tuning file.
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
    /// It exceeds the [limits](crate::Limits).
    Limit,
    /// Its metadata is invalid.
    Metadata,
    /// Its input is not an image.
    ImageInput,
    /// Its output is not scores.
    Output,
}

/// A package that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum PackageFault {
    /// It does not begin like a package.
    Magic,
    /// It has another version of the format.
    Version,
    /// It is truncated.
    Truncated,
    /// Its content is invalid.
    Format,
    /// It is not signed, or not with the requested key.
    Signature,
    /// Its bytes were changed.
    Hash,
    /// It was made for another machine, or for other options.
    Target,
}

/// A tuning file that cannot be used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TuningFault {
    /// It is not a tuning file, or damaged.
    Format,
    /// It has another version.
    Version,
    /// It is for another instruction set, or for other options.
    Target,
    /// It is for another processor.
    Cpu,
}

/// Invalid settings of a classifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum InputFault {
    /// A threshold that is not a number.
    Threshold,
    /// A class that does not exist, or one that is both allowed and denied.
    Label,
    /// A limit that does not exist.
    Limit,
    /// A table of classes that is invalid, or does not fit the model.
    #[cfg(any(feature = "rules", test))]
    Table,
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
                InputFault::Limit => "input.limit",
                #[cfg(any(feature = "rules", test))]
                InputFault::Table => "input.table",
            },
            Self::Frame => "frame",
        }
    }
}
