//! Camera frames: from the planes that a camera delivers to the tensor that a model wants, in one pass.
//!
//! A camera app that converts a frame to RGB, turns it upright, crops, resizes and normalizes it step by step spends
//! longer on that than its network takes. All of these steps but the last are linear and so can change places: here each
//! plane is resampled at its own resolution and where it lies, only the pixels that the crop needs are read, and
//! conversion to RGB and normalization happen once for each pixel of the tensor. [`Frame`] says what the bytes are and
//! checks that they can be; [`Converter`] does the work and keeps what depends on the geometry alone, so that the second
//! frame of a stream allocates nothing.
//!
//! What a model sees of a frame is what `classify` would show it of the same picture: the same antialiased triangle,
//! the same crop, mean and deviation. Each pixel's chroma is that of its 2x2 block, as in OpenCV. Colors are clamped to
//! 0..=255 once, in the tensor, and not rounded to bytes on the way. Where a frame holds colors outside of RGB (noise
//! and ringing beside saturated edges) that is the mean of the unclamped colors, and lies nearer to the scene than the
//! mean of clamped ones.

mod axis;
mod color;
mod convert;
mod frame;
mod source;

#[cfg(test)]
mod tests;

pub use color::{YuvMatrix, YuvRange};
pub use convert::Converter;
pub use frame::{ColorOrder, Frame, Pixels, Plane, Region, Rotation};

pub(crate) use axis::{Window, taps};
pub(crate) use color::Normal;
pub(crate) use convert::Target;
pub(crate) use skipstone_kernels::frame::Layout;
