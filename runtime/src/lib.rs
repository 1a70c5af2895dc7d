//! Skipstone: an on-device inference runtime for classifiers that are compact by design, by
//! pruning or by routing.
//!
//! ```
//! use skipstone::{Model, Options, TensorView};
//!
//! # fn main() -> skipstone::Result<()> {
//! # if !cfg!(feature = "onnx") { return Ok(()); }
//! let model = Model::open("../models/pretrained/simplenet-310k-cifar10.onnx", &Options::default())?;
//! let mut session = model.session()?;
//! let image = vec![0.0f32; 3 * 32 * 32];
//! session.run(&[TensorView::new(&[1, 3, 32, 32], &image).expect("3072 elements")])?;
//! let logits = session.output(0).expect("one output");
//! assert_eq!(logits.elements::<f32>().map(<[f32]>::len), Some(10));
//! # Ok(())
//! # }
//! ```
//!
//! How data flows: [`onnx`] checks and parses a file and lowers it to a [`graph`], whose passes find the speed-ups;
//! [`plan`] chooses kernels, packs weights and places every tensor in one arena; a [`session`] runs the plan.

mod base;
pub mod classify;
#[cfg(feature = "onnx")]
mod compile;
mod engine;
#[cfg_attr(
    not(any(feature = "passes", test)),
    allow(dead_code, unused_imports, reason = "some of it only the passes use")
)]
pub mod graph;
pub mod measure;
mod model;
#[cfg(feature = "onnx")]
pub mod onnx;
#[cfg_attr(
    not(any(feature = "passes", test)),
    allow(dead_code, unused_imports, reason = "some of it only the passes use")
)]
pub mod operator;
#[cfg_attr(
    not(any(feature = "passes", test)),
    allow(dead_code, unused_imports, reason = "some of it only plain evaluation uses")
)]
pub mod ops;
pub mod package;
pub mod plan;
pub mod session;
mod tune;
pub mod vision;

use base::{
    bytes, cores, error, expert_cache, expert_use, fault, info, limits, machine, options, reserve, shape, tensor,
    tuning, value,
};
pub use bytes::Bytes;
#[cfg(feature = "onnx")]
pub use compile::{BATCH, Recipe, compile, compile_bytes};
pub use cores::{PowerMode, available_cores};
pub use error::{Error, OpError, Result};
pub use expert_use::ExpertUse;
pub use fault::{Fault, InputFault, ModelFault, PackageFault, TuningFault};
pub use graph::ForeignModel;
pub use info::{Info, Shapes};
#[cfg(feature = "onnx")]
pub use limits::Limit;
pub use limits::Limits;
pub use model::Model;
pub use options::{Memory, Options, Precision, Tune};
pub use session::{Cancel, Session};
pub use skipstone_kernels::Isa;
pub use skipstone_kernels::spare::WithSpare;
pub use tensor::{DType, Element, Fact, MAX_RANK, Shape, Tensor, TensorView};
pub use tuning::Tuning;
pub use value::Value;
