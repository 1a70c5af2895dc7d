//! Skipstone for other languages: one Rust facade that uniffi turns into Kotlin and Swift.
//!
//! The facade is thin: records instead of builders, one error type with stable codes, objects that any thread may call
//! and close at any time. Tensors never cross as lists: frames and tensors are passed by address. A panic becomes
//! [`SkipstoneError::Internal`].
//!
//! Apps do not see these names: `android` and `ios` contain the libraries written for them.

mod address;
mod classifier;
mod config;
mod descriptor;
mod error;
mod frame;
mod live;
mod measure;
mod model;
#[cfg(all(test, feature = "onnx"))]
mod onnx_tests;
mod registry;
mod session;
mod source;
#[cfg(test)]
mod tests;

pub use classifier::{
    Activation, Classification, Classifier, ClassifierInfo, ClassifierOptions, Normalization, Prediction,
};
pub use config::{Config, Power};
pub use error::{Result, SkipstoneError};
pub use frame::{FrameAddress, FrameFormat, FrameMatrix, FrameRange, PlaneAddress, Region};
pub use measure::{Latency, Memory, StepTime};
pub use model::{Model, ModelInfo, TensorInfo};
pub use session::{Session, TensorAddress};

uniffi::setup_scaffolding!("skipstone");

/// Version of the library.
#[uniffi::export]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// Sets a variable that the model of a classifier or session leaves to its user, such as the threshold of an early
/// exit. Waits for the current run. Values are elements in row-major order; bools are 0 and 1. Without a name, resets
/// the state carried from run to run.
///
/// # Errors
/// `Input` for a name that is not a setting (the message lists the settings), and for values that do not fit; `Closed`.
#[uniffi::export]
pub fn set_variable(handle: u64, name: Option<String>, values: Vec<f64>) -> Result<()> {
    match (Classifier::find(handle), Session::find(handle)) {
        (Ok(classifier), _) => classifier.live.set(name.as_deref(), values),
        (_, Ok(session)) => session.live.set(name.as_deref(), values),
        _ => Err(SkipstoneError::closed("classifier or session")),
    }
}

/// The number of classifiers and sessions that are open. If it grows, they are not being closed.
#[uniffi::export]
pub fn open_objects() -> u64 {
    (Classifier::count() + Session::count()) as u64
}
