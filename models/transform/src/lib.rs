//! Transformations of ONNX models: from a standard file to another standard file that runs anywhere, and better here.
//!
//! [`quantize`] turns a float model into an 8-bit one, with ranges observed on sample inputs. [`prune`] removes weights
//! or whole channels. [`soup`] averages models of one architecture, [`mod@stitch`] makes two of one family switchable in
//! one file, [`experts`] lets each token compute a part of a layer. [`widen`] and [`deepen`] make larger ones with the
//! same outputs, [`mod@slice`] takes a part of one.

mod blocks;
mod channels;
mod cuts;
pub mod deepen;
mod editor;
mod error;
pub mod experts;
mod fit;
mod layers;
mod observe;
mod prepare;
pub mod prune;
pub mod quantize;
mod random;
pub mod slice;
pub mod soup;
pub mod stitch;
mod tensor;
pub mod widen;

pub use error::{Error, Result};
pub use observe::Samples;
