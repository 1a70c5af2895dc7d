//! The facade's only error type: the kind, a stable code, and a message for logs.

use skipstone::{Error, Fault};

/// Why a call failed.
///
/// The variant says what an app can do about it; `code` is stable and the same as the command line's `error[code]:
/// ...`; `message` is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[cfg_attr(feature = "uniffi", derive(uniffi::Error))]
pub enum SkipstoneError {
    /// The package file is damaged, truncated, signed with another key, or made for another machine.
    #[error("{message}")]
    Package {
        /// Stable code, beginning with `package.`.
        code: String,
        /// What is wrong.
        message: String,
    },
    /// The package is intact, but its model cannot be used this way.
    #[error("{message}")]
    Model {
        /// Stable code, beginning with `model.` or `shape.`.
        code: String,
        /// What is wrong, and at which node.
        message: String,
    },
    /// An argument, or a tensor given to a session, does not fit.
    #[error("{message}")]
    Input {
        /// Stable code, beginning with `input.` or `setting.`.
        code: String,
        /// The input or setting, and what is expected.
        message: String,
    },
    /// A camera frame whose sizes, strides or planes contradict each other.
    #[error("{message}")]
    Frame {
        /// Stable code, `frame`.
        code: String,
        /// What is inconsistent.
        message: String,
    },
    /// The run was cancelled.
    #[error("{message}")]
    Cancelled {
        /// Stable code, `cancelled`.
        code: String,
        /// Where it stopped.
        message: String,
    },
    /// The run took longer than its deadline.
    #[error("{message}")]
    Deadline {
        /// Stable code, `deadline`.
        code: String,
        /// Where it stopped.
        message: String,
    },
    /// The object was closed.
    #[error("{message}")]
    Closed {
        /// Stable code, `closed`.
        code: String,
        /// What was closed.
        message: String,
    },
    /// This build or this machine does not support what the model or the caller requested.
    #[error("{message}")]
    Unsupported {
        /// Stable code, such as `model.unsupported` or `isa`.
        code: String,
        /// What is not supported.
        message: String,
    },
    /// The operating system reported an error for a file.
    #[error("{message}")]
    Io {
        /// Stable code, `io`.
        code: String,
        /// What the system reported.
        message: String,
    },
    /// A bug in Skipstone, worth reporting; caught panics are reported as this too.
    #[error("{message}")]
    Internal {
        /// Stable code, `internal`.
        code: String,
        /// What broke.
        message: String,
    },
}

/// Result of the facade's calls.
pub type Result<T, E = SkipstoneError> = std::result::Result<T, E>;

impl SkipstoneError {
    pub(crate) fn input(code: &str, message: impl Into<String>) -> Self {
        Self::Input { code: code.to_owned(), message: message.into() }
    }

    pub(crate) fn closed(what: &str) -> Self {
        Self::Closed { code: "closed".to_owned(), message: format!("the {what} is closed") }
    }

    pub(crate) fn internal(message: impl Into<String>) -> Self {
        Self::Internal { code: "internal".to_owned(), message: message.into() }
    }

    /// The stable code.
    #[must_use]
    pub fn code(&self) -> &str {
        match self {
            Self::Package { code, .. }
            | Self::Model { code, .. }
            | Self::Input { code, .. }
            | Self::Frame { code, .. }
            | Self::Cancelled { code, .. }
            | Self::Deadline { code, .. }
            | Self::Closed { code, .. }
            | Self::Unsupported { code, .. }
            | Self::Io { code, .. }
            | Self::Internal { code, .. } => code,
        }
    }

    /// Number of the variant, from 1, in the order above, for bindings without enums.
    #[must_use]
    pub fn number(&self) -> i32 {
        match self {
            Self::Package { .. } => 1,
            Self::Model { .. } => 2,
            Self::Input { .. } => 3,
            Self::Frame { .. } => 4,
            Self::Cancelled { .. } => 5,
            Self::Deadline { .. } => 6,
            Self::Closed { .. } => 7,
            Self::Unsupported { .. } => 8,
            Self::Io { .. } => 9,
            Self::Internal { .. } => 10,
        }
    }
}

impl From<Error> for SkipstoneError {
    fn from(error: Error) -> Self {
        let (code, message) = (error.code().to_owned(), error.to_string());
        match error {
            Error::Invalid { fault: Fault::Package(_), .. } => Self::Package { code, message },
            Error::Invalid { fault: Fault::Input(_), .. } => Self::Input { code, message },
            Error::Invalid { fault: Fault::Frame, .. } => Self::Frame { code, message },
            Error::Invalid { .. } | Error::Node { .. } | Error::UnboundShape { .. } => Self::Model { code, message },
            Error::UnknownInput { .. }
            | Error::MissingInput { .. }
            | Error::InputMismatch { .. }
            | Error::UnknownSetting { .. }
            | Error::SettingValue { .. } => Self::Input { code, message },
            Error::Cancelled { .. } => Self::Cancelled { code, message },
            Error::DeadlineExceeded { .. } => Self::Deadline { code, message },
            Error::Unsupported { .. } | Error::IsaUnavailable { .. } => Self::Unsupported { code, message },
            Error::Io { .. } => Self::Io { code, message },
            _ => Self::Internal { code, message },
        }
    }
}

/// Runs `body`; a panic becomes an error.
///
/// # Errors
/// Those of `body`; `Internal` for a panic.
pub fn guarded<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    // What a panic leaves half done is dropped by the caller, or was never reachable.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref().map(String::as_str));
        Err(SkipstoneError::internal(format!("internal error, please report it: {}", text.unwrap_or("a panic"))))
    })
}

#[cfg(test)]
mod tests {
    use skipstone::{ModelFault, PackageFault};

    use super::*;

    fn of(fault: Fault) -> SkipstoneError {
        Error::Invalid { fault, message: "why".into() }.into()
    }

    #[test]
    fn errors_map_to_their_variant_and_keep_their_code() {
        let hash = of(Fault::Package(PackageFault::Hash));
        assert!(matches!(hash, SkipstoneError::Package { .. }));
        assert_eq!((hash.code(), hash.to_string().as_str()), ("package.hash", "why"));
        assert!(matches!(of(Fault::Model(ModelFault::ImageInput)), SkipstoneError::Model { .. }));
        assert!(matches!(of(Fault::Frame), SkipstoneError::Frame { .. }));
        let unsupported = Error::Unsupported { node: "conv".into(), reason: "why".into() };
        assert!(matches!(unsupported.into(), SkipstoneError::Unsupported { .. }));
        let late = SkipstoneError::from(Error::DeadlineExceeded { step: 3 });
        assert_eq!((late.number(), late.code()), (6, "deadline"));
    }

    #[test]
    fn a_panic_is_an_error() {
        let error = guarded::<()>(|| panic!("at {}", 3)).unwrap_err();
        assert!(matches!(&error, SkipstoneError::Internal { message, .. } if message.ends_with("at 3")), "{error:?}");
        assert!(guarded::<()>(|| std::panic::panic_any(7)).is_err());
    }
}
