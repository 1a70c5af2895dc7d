//! What happens to a convolution's or matrix product's sum before it is stored.
//!
//! Bias, activation and residual add cost a pass over memory each when they are operators of their own. Fused, they
//! are applied while the sums are still in registers, or, for the activations that need an exponential, while the
//! tile just stored is still in the first-level cache.

use crate::activation::Activation;

/// The fused tail of a producing kernel, for every output `(row, channel)`:
/// `act(sum + bias[channel] + residual)` with `residual_first`, else `act(sum + bias[channel]) + residual`.
#[derive(Clone, Copy, Debug, Default)]
pub struct Epilogue<'a> {
    /// One value per output channel.
    pub bias: Option<&'a [f32]>,
    /// Applied to every output.
    pub activation: Activation,
    /// A tensor of the same layout (and row stride) as the output.
    pub residual: Option<&'a [f32]>,
    /// Whether the residual is added before the activation (ResNet) or after it (MobileNet).
    pub residual_first: bool,
}

impl Epilogue<'_> {
    /// Nothing fused: the sum is the output.
    pub const NONE: Epilogue<'static> =
        Epilogue { bias: None, activation: Activation::None, residual: None, residual_first: false };
}
