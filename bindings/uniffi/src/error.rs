//! The one error of the facade: what kind, a stable code, and prose for a log.

/// Why a call gave no result.
///
/// The variant says what an app can do about it; `code` is stable and as on the command line's
/// `error[code]: ...`; `message` is for people.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, uniffi::Error)]
pub enum SkipstoneError {
    /// The package file is damaged, cut short, signed by somebody else, or made for another machine.
    #[error("{message}")]
    Package {
        /// Stable code below `package.`.
        code: String,
        /// What is wrong.
        message: String,
    },
    /// The package is whole, but the model in it cannot be used like this.
    #[error("{message}")]
    Model {
        /// Stable code below `model.` or `shape.`.
        code: String,
        /// What is wrong, and at which node.
        message: String,
    },
    /// An argument, or a tensor given to a session, does not fit.
    #[error("{message}")]
    Input {
        /// Stable code below `input.` or `setting.`.
        code: String,
        /// Which one, and what would fit.
        message: String,
    },
    /// A camera frame whose sizes, strides or planes contradict each other.
    #[error("{message}")]
    Frame {
        /// Stable code, `frame`.
        code: String,
        /// What contradicts.
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
    /// This build or this machine does not do what the model or the caller asks for.
    #[error("{message}")]
    Unsupported {
        /// Stable code, such as `model.unsupported` or `isa`.
        code: String,
        /// What is not supported.
        message: String,
    },
    /// The operating system refused to read a file.
    #[error("{message}")]
    Io {
        /// Stable code, `io`.
        code: String,
        /// What it said.
        message: String,
    },
    /// A bug in Skipstone, worth reporting; a panic that was caught is one too.
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

    /// Number of the variant, from 1, in the order above: what a binding without enums passes on.
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

impl From<skipstone::Error> for SkipstoneError {
    fn from(error: skipstone::Error) -> Self {
        let (code, message) = (error.code().to_owned(), error.to_string());
        match error.code().split('.').next() {
            _ if error.code() == "model.unsupported" => Self::Unsupported { code, message },
            Some("package") => Self::Package { code, message },
            Some("model" | "shape") => Self::Model { code, message },
            Some("input" | "setting") => Self::Input { code, message },
            Some("frame") => Self::Frame { code, message },
            Some("cancelled") => Self::Cancelled { code, message },
            Some("deadline") => Self::Deadline { code, message },
            Some("isa") => Self::Unsupported { code, message },
            Some("io") => Self::Io { code, message },
            _ => Self::Internal { code, message },
        }
    }
}

/// Runs `body`, and makes an error of a panic in it.
pub(crate) fn guarded<T>(body: impl FnOnce() -> Result<T>) -> Result<T> {
    // What a panic leaves half done is dropped by the caller, or was never reachable.
    std::panic::catch_unwind(std::panic::AssertUnwindSafe(body)).unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<&str>().copied().or_else(|| panic.downcast_ref().map(String::as_str));
        Err(SkipstoneError::internal(format!("internal error, please report it: {}", text.unwrap_or("a panic"))))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(code: &'static str) -> SkipstoneError {
        skipstone::Error::Invalid { code, message: "why".into() }.into()
    }

    #[test]
    fn codes_choose_the_variant_and_stay() {
        assert!(matches!(of("package.hash"), SkipstoneError::Package { .. }));
        assert!(matches!(of("model.image-input"), SkipstoneError::Model { .. }));
        assert!(matches!(of("model.unsupported"), SkipstoneError::Unsupported { .. }));
        assert!(matches!(of("frame"), SkipstoneError::Frame { .. }));
        let late = SkipstoneError::from(skipstone::Error::DeadlineExceeded { step: 3 });
        assert_eq!((late.number(), late.code()), (6, "deadline"));
        assert_eq!(of("package.hash").code(), "package.hash");
        assert_eq!(of("package.hash").to_string(), "why");
    }

    #[test]
    fn a_panic_is_an_error() {
        let error = guarded::<()>(|| panic!("at {}", 3)).unwrap_err();
        assert!(matches!(&error, SkipstoneError::Internal { message, .. } if message.ends_with("at 3")), "{error:?}");
        assert!(guarded::<()>(|| std::panic::panic_any(7)).is_err());
    }
}
