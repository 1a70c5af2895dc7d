//! Skipstone: an on-device inference runtime for classifiers that are compact by design, by
//! pruning or by routing.
//!
//! ```no_run
//! use skipstone::{Model, Options, TensorView};
//!
//! # fn main() -> skipstone::Result<()> {
//! let model = Model::open("simplenet.onnx", &Options::default())?;
//! let mut session = model.session()?;
//! let image = vec![0.0f32; 3 * 32 * 32];
//! session.run(&[TensorView::new(&[1, 3, 32, 32], &image).expect("3072 elements")])?;
//! let logits = session.output(0).expect("one output");
//! println!("{:?}", logits.elements::<f32>());
//! # Ok(())
//! # }
//! ```
//!
//! The way of the data: [`onnx`] checks and parses a file and lowers it to a [`graph`], whose
//! passes find the speed-ups; [`plan`] chooses kernels, packs weights and places every tensor
//! in one arena; a [`session`] runs the plan.

mod bytes;
pub mod classify;
mod cores;
mod error;
#[cfg_attr(
    not(any(feature = "passes", test)),
    allow(dead_code, unused_imports, reason = "some of it only the passes use")
)]
pub mod graph;
#[cfg_attr(not(any(feature = "tuning", test)), allow(dead_code, reason = "only tuning uses it"))]
mod machine;
pub mod measure;
mod model;
#[cfg(feature = "onnx")]
pub mod onnx;
#[cfg_attr(
    not(any(feature = "passes", test)),
    allow(dead_code, unused_imports, reason = "some of it only plain evaluation uses")
)]
pub mod ops;
mod options;
pub mod package;
pub mod plan;
pub mod session;
#[cfg_attr(not(any(feature = "passes", test)), allow(dead_code, reason = "some of it only the passes use"))]
mod tensor;
pub mod vision;

pub use bytes::Bytes;
pub use cores::PowerMode;
pub use error::{Error, OpError, Result};
pub use model::{ForeignModel, Info, Model, Shapes};
pub use options::{Memory, Options, Precision, Tune};
pub use plan::Tuning;
pub use session::{Cancel, Session, Value};
pub use skipstone_kernels::Isa;
pub use tensor::{DType, Element, Fact, MAX_RANK, Shape, Tensor, TensorView};
