//! Skipstone for other languages: one Rust facade that uniffi turns into Kotlin and Swift.
//!
//! The facade is thin: records instead of builders, one error with stable codes, objects that
//! any thread may call and that may be closed at any time. Nothing that crosses is a list of
//! numbers: frames and tensors go by address. A panic ends as [`SkipstoneError::Internal`].
//!
//! Apps do not see these names: `android` and `ios` hold the libraries that are written for them.

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

/// Sets what the model of a classifier or session leaves to its user, after the run that is going on: such as the
/// threshold of an early exit. Values are elements, row by row: 0 and 1 for bools. Without a name, the state that was
/// carried from run to run is forgotten.
///
/// # Errors
/// `Input` for a name that no setting has, with those there are, and for values that it does not hold; `Closed`.
#[uniffi::export]
pub fn set_variable(handle: u64, name: Option<String>, values: Vec<f64>) -> Result<()> {
    match Classifier::find(handle) {
        Ok(classifier) => classifier.live.set(name.as_deref(), values),
        Err(_) => Session::find(handle)?.live.set(name.as_deref(), values),
    }
}

/// Classifiers and sessions that are open now: what grows here is not being closed.
#[uniffi::export]
pub fn open_objects() -> u64 {
    (Classifier::count() + Session::count()) as u64
}
