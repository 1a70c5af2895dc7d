//! Operators over f64, which have no kernel, as operators that take any element type: a model saved in double precision
//! runs and fits a package without another kernel in the device library.

mod attention;
mod resize;
mod sample;
mod windows;

pub(super) use attention::{Rest, attend};
pub(super) use resize::along_axis;
pub(super) use sample::sample;
pub(super) use windows::{convolve, pool};
