//! Errors of transformations.

use thiserror::Error;

/// Result of a transformation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// Why a model was not transformed.
#[derive(Debug, Error)]
#[non_exhaustive]
pub enum Error {
    /// The model cannot be loaded or run.
    #[error(transparent)]
    Model(#[from] skipstone::Error),
    /// The model has something that the transformation does not support, or lacks what it needs.
    #[error("{0}")]
    Unsupported(String),
    /// The samples do not determine ranges.
    #[error("{0}")]
    Calibration(String),
    /// A sample cannot be read.
    #[error("{message}")]
    Sample {
        /// Stable code, such as `io`.
        code: &'static str,
        /// What is wrong.
        message: String,
    },
}

impl Error {
    /// Stable code of this error, such as `model.unsupported`.
    #[must_use]
    pub fn code(&self) -> &'static str {
        match self {
            Self::Model(error) => error.code(),
            Self::Unsupported(_) => "model.unsupported",
            Self::Calibration(_) => "calibration",
            Self::Sample { code, .. } => code,
        }
    }
}
