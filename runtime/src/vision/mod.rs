//! Camera frames: from a camera's planes to the model's input tensor, in one pass.
//!
//! A camera app that converts a frame to RGB, rotates, crops, resizes and normalizes it step by step spends more time
//! on that than on its network. All of these steps but the last are linear, so their order can change: here each plane
//! is resampled in place at its own resolution, only the pixels that the crop needs are read, and conversion to RGB and
//! normalization happen once per pixel of the tensor. [`Frame`] describes the bytes and checks them; [`Converter`] does
//! the work and keeps what depends only on the geometry, so that the second frame of a stream allocates nothing.
//!
//! The model's input for a frame is the same as `classify` makes from the same image: the same antialiased triangle
//! filter, crop, mean and standard deviation. Each pixel's chroma is that of its block, as in OpenCV. Colors are
//! clamped to 0..=255 once, in the tensor, and not rounded to bytes before. If a frame has colors outside of RGB (noise
//! and ringing beside saturated edges), the result is the mean of the unclamped colors, which is closer to the scene
//! than the mean of clamped ones.

mod axis;
mod color;
mod convert;
mod frame;
mod source;

#[cfg(test)]
mod tests;

pub use axis::Interpolation;
pub use color::{Colors, YuvFormat, YuvMatrix, YuvRange};
pub use convert::Converter;
pub use frame::{ColorOrder, Frame, Pixels, Plane, Region, Rotation};

pub(crate) use axis::{Filter, PixelWindow, taps};
pub(crate) use color::Normal;
pub(crate) use convert::TensorSpec;
pub(crate) use skipstone_kernels::frame::ChannelOrder;
