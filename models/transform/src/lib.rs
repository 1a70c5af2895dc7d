//! Transformations of ONNX models: from a standard file to another standard file that runs anywhere, and better here.
//!
//! [`quantize`] turns a model of floats into one of bytes, with ranges observed on sample inputs. [`prune`] takes weights
//! or whole channels away.

mod editor;
mod error;
mod layers;
mod observe;
mod prepare;
pub mod prune;
pub mod quantize;
mod tensor;

pub use error::{Error, Result};
pub use observe::Samples;
