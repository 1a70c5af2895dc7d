//! Transformations of ONNX models: from a standard file to another standard file that runs anywhere, and better here.
//!
//! [`quantize`] turns a model of floats into one of bytes, with ranges observed on sample inputs.

mod editor;
mod error;
pub mod quantize;

pub use error::{Error, Result};
