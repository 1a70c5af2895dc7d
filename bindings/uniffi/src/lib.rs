//! Skipstone for other languages: one Rust facade, which uniffi turns into Swift and `bindings/jni` into Kotlin.
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
mod session;
mod source;
#[cfg(test)]
mod tests;

pub use classifier::{
    Activation, Classification, Classifier, ClassifierInfo, ClassifierOptions, Normalization, Prediction,
};
pub use config::{Config, Power};
pub use error::{Result, SkipstoneError, guarded};
pub use frame::{FrameAddress, FrameFormat, FrameMatrix, FrameRange, PlaneAddress, Region};
pub use measure::{Latency, Memory, StepTime};
pub use model::{Model, ModelInfo, TensorInfo};
pub use session::{Session, TensorAddress};

use std::alloc::System;

use skipstone::WithSpare;

/// Makes running out of memory an error.
#[global_allocator]
static ALLOCATOR: WithSpare = WithSpare::new(System);

#[cfg(feature = "uniffi")]
uniffi::setup_scaffolding!("skipstone");

/// Version of the library.
#[cfg_attr(feature = "uniffi", uniffi::export)]
pub fn version() -> String {
    env!("CARGO_PKG_VERSION").to_owned()
}

/// The number of classifiers and sessions that are open. If it grows, they are not being closed.
#[cfg_attr(feature = "uniffi", uniffi::export)]
pub fn open_objects() -> u64 {
    live::open()
}
