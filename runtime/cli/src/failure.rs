//! Errors of commands: a stable code, and one line that says what is wrong and what to do.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use crate::printable::printable;

/// Why a command failed.
#[derive(Debug)]
pub enum Failure {
    /// The model or an input is invalid.
    Fault {
        /// Stable code, such as `input.shape`.
        code: &'static str,
        /// What is wrong.
        message: String,
    },
    /// The command line contradicts itself.
    Usage(String),
    /// Some inputs failed. Each was already reported on its own line.
    Reported,
    /// The reader closed stdout, which is not an error.
    Closed,
}

impl Failure {
    /// An error in the model or an input.
    pub fn new(code: &'static str, message: impl Into<String>) -> Self {
        Self::Fault { code, message: message.into() }
    }

    /// An I/O error on `path`.
    pub fn io(path: &Path, error: &std::io::Error) -> Self {
        Self::new("io", format!("{}: {error}", path.display()))
    }

    /// The same failure, of this input among several.
    pub fn of(self, path: &Path) -> Self {
        match self {
            Self::Fault { code, message } => Self::new(code, format!("{}: {message}", path.display())),
            other => other,
        }
    }

    /// Prints the failure as one line on stderr.
    pub fn report(&self) {
        match self {
            Self::Closed | Self::Reported => {}
            failure => eprintln!("{}", printable(&failure.to_string())),
        }
    }

    /// The command's exit status.
    pub fn exit_code(&self) -> ExitCode {
        match self {
            Self::Closed => ExitCode::SUCCESS,
            Self::Fault { .. } | Self::Reported => ExitCode::from(1),
            Self::Usage(_) => ExitCode::from(2),
        }
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Fault { code, message } => write!(f, "error[{code}]: {message}"),
            Self::Usage(message) => write!(f, "error[usage]: {message}"),
            Self::Reported => f.write_str("some inputs failed"),
            Self::Closed => f.write_str("stdout is closed"),
        }
    }
}

impl From<skipstone::Error> for Failure {
    fn from(error: skipstone::Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

impl From<skipstone_transform::Error> for Failure {
    fn from(error: skipstone_transform::Error) -> Self {
        Self::new(error.code(), error.to_string())
    }
}

/// Suppresses the default panic message, unless `RUST_BACKTRACE` is set.
pub fn silence_panics() {
    if std::env::var_os("RUST_BACKTRACE").is_none() {
        std::panic::set_hook(Box::new(|_| {}));
    }
}

/// Calls `body` and turns a panic, which is always a bug, into a failure.
pub fn catch_panics<T>(body: impl FnOnce() -> T) -> Result<T, Failure> {
    // The state that `body` uses is dropped with it, so no half-written state is visible.
    catch_unwind(AssertUnwindSafe(body)).map_err(|payload| {
        let message = payload.downcast_ref::<String>().map(String::as_str);
        let message = message.or_else(|| payload.downcast_ref::<&str>().copied());
        Failure::new("internal", format!("a bug, please report it: {}", message.unwrap_or("panic without a message")))
    })
}
